/* train_metrics_test.c - figures of classes, labels, entities and numbers against those worked out by hand, and the cases in
 * which there is nothing to divide by. */
#include "runner.h"
#include "train/metrics.h"

#include <math.h>

/* What peft__scores_write puts, as one object. */
static const char *metrics_text(peft__scores *s, peft__str *out) {
    peft__json_out j;
    peft__str_clear(out);
    peft__json_begin(&j, out, 0);
    peft__json_object(&j);
    if (peft__scores_write(s, &j) != PEFT_OK) { return peft__fail_text(); }
    peft__json_object_end(&j);
    return peft__str_c(out);
}

static peft__task metrics_task(int32_t kind, int32_t problem, int64_t labels) {
    peft__task t = {0};
    t.kind = kind;
    t.problem = problem;
    t.labels = labels;
    return t;
}

/* Class 0: 3 true, 2 predicted, 2 hit; 1: 2, 3, 1; 2: 1, 1, 0; 3 never. */
TEST(train_metrics_classes) {
    static const int32_t truth[] = {0, 0, 1, -100, 1, 2, 0}, predicted[] = {0, 0, 1, 3, 2, 1, 1};
    peft__scores s;
    peft__task task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_SINGLE, 4);
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 7; i++) { peft__scores_class(&s, truth[i], predicted[i]); }
    CHECK_INT(s.classes.rows, 6);
    CHECK_INT(s.classes.right, 3);
    peft__class_scores c = peft__class_scores_of(&s.classes);
    CHECK_NEAR(c.accuracy, 0.5, 0);
    CHECK_NEAR(c.f1_micro, 0.5, 1e-15);
    CHECK_NEAR(c.precision_micro, 0.5, 0);
    CHECK_NEAR(c.recall_micro, 0.5, 0);
    CHECK_NEAR(c.precision_macro, (1.0 + 1.0 / 3 + 0) / 3, 1e-15);
    CHECK_NEAR(c.recall_macro, (2.0 / 3 + 0.5 + 0) / 3, 1e-15);
    CHECK_NEAR(c.f1_macro, (0.8 + 0.4 + 0) / 3, 1e-15);
    /* (3 * 6 - (3 * 2 + 2 * 3 + 1)) / sqrt((36 - (4 + 9 + 1)) (36 - (9 + 4 + 1))) */
    CHECK_NEAR(c.matthews, 5.0 / 22, 1e-15);
    peft__scores_free(&s);
}

TEST(train_metrics_two_classes) {
    peft__scores s;
    peft__str out;
    peft__task task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_SINGLE, 2);
    peft__str_init(&out, runner_mem());
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 10; i++) { peft__scores_class(&s, i < 6, i < 4 || i == 9); } /* 4 right of 6 ones, 3 of 4 zeros */
    CHECK_NEAR(peft__class_scores_of(&s.classes).matthews, (4 * 3 - 1 * 2) / sqrt(5.0 * 6 * 4 * 5), 1e-15);
    CHECK_STR(metrics_text(&s, &out),
              "{\"accuracy\":0.7,\"precision_macro\":0.7,\"recall_macro\":0.708333333,\"f1_macro\":0.696969697,\"f1_micro\":0.7,"
              "\"matthews_correlation\":0.40824829}");
    peft__scores_free(&s);
    peft__str_free(&out);
}

/* One class only, all right and all wrong: nothing varies, so that the correlation is 0. */
TEST(train_metrics_one_class) {
    for (int32_t wrong = 0; wrong < 2; wrong++) {
        peft__scores s;
        peft__task task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_SINGLE, 3);
        CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
        for (int i = 0; i < 5; i++) { peft__scores_class(&s, 1, 1 + wrong); }
        peft__class_scores c = peft__class_scores_of(&s.classes);
        CHECK_NEAR(c.accuracy, 1 - wrong, 0);
        CHECK_NEAR(c.f1_macro, 1 - wrong, 0);
        CHECK_NEAR(c.matthews, 0, 0);
        peft__scores_free(&s);
    }
}

TEST(train_metrics_no_rows) {
    peft__str out;
    peft__scores s;
    static const char *const names[] = {"O", "B-A", "I-A"};
    peft__str_init(&out, runner_mem());
    peft__task task = metrics_task(PEFT__TASK_TOKENS, 0, 3);
    task.names = names;
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    peft__scores_tokens(&s, NULL, NULL, 0);
    CHECK_STR(metrics_text(&s, &out),
              "{\"accuracy\":null,\"precision_macro\":null,\"recall_macro\":null,\"f1_macro\":null,\"f1_micro\":null,"
              "\"matthews_correlation\":null,\"entity_precision\":null,\"entity_recall\":null,\"entity_f1\":null}");
    peft__scores_free(&s);
    task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_REGRESSION, 2);
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    CHECK_STR(metrics_text(&s, &out), "{\"mse\":null,\"mae\":null,\"pearson\":null,\"spearman\":null}");
    peft__scores_free(&s);
    peft__str_free(&out);
}

/* Three rows of three labels; the last label is neither true nor predicted and counts as 0 in the macro means. */
TEST(train_metrics_several_labels) {
    static const float logits[3][3] = {{1, -1, 0}, {2, 0.5f, -3}, {-1, -1, -1}}, targets[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 1, 0}};
    peft__scores s;
    peft__str out;
    peft__task task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_MULTI, 3);
    peft__str_init(&out, runner_mem());
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 3; i++) { peft__scores_several(&s, logits[i], targets[i]); }
    peft__class_scores c = peft__class_scores_of(&s.classes);
    CHECK_NEAR(c.accuracy, 1.0 / 3, 1e-15);      /* only the first row is right as a whole */
    CHECK_NEAR(c.precision_micro, 2.0 / 3, 1e-15);
    CHECK_NEAR(c.recall_micro, 2.0 / 3, 1e-15);
    CHECK_NEAR(c.f1_macro, (2.0 / 3 + 2.0 / 3 + 0) / 3, 1e-15);
    CHECK(isnan(c.matthews));
    CHECK_STR(metrics_text(&s, &out),
              "{\"accuracy\":0.333333333,\"precision_macro\":0.5,\"recall_macro\":0.5,\"f1_macro\":0.444444444,"
              "\"precision_micro\":0.666666667,\"recall_micro\":0.666666667,\"f1_micro\":0.666666667}");
    peft__scores_free(&s);
    peft__str_free(&out);
}

static void metrics_entities(const char *const *names, int64_t labels, const char *truth, const char *predicted, int64_t e_truth,
                             int64_t e_predicted, int64_t e_hit) {
    peft__scores s;
    int32_t t[16], p[16];
    int64_t n = (int64_t)strlen(truth);
    peft__task task = metrics_task(PEFT__TASK_TOKENS, 0, labels);
    task.names = names;
    for (int64_t i = 0; i < n; i++) {
        t[i] = truth[i] - '0';
        p[i] = predicted[i] - '0';
    }
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    CHECK(s.entities.tags != NULL);
    peft__scores_tokens(&s, t, p, n);
    peft__scores_tokens(&s, t, p, n); /* a second row begins anew */
    CHECK_INT(s.classes.rows, 2 * n);
    CHECK_INT(s.entities.truth, 2 * e_truth);
    CHECK_INT(s.entities.predicted, 2 * e_predicted);
    CHECK_INT(s.entities.hit, 2 * e_hit);
    peft__scores_free(&s);
}

TEST(train_metrics_entities) {
    static const char *const names[] = {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"};
    metrics_entities(names, 5, "012034", "012034", 2, 2, 2);
    metrics_entities(names, 5, "012034", "011034", 2, 3, 1); /* B B are two entities */
    metrics_entities(names, 5, "012200", "012000", 1, 1, 0); /* too short */
    metrics_entities(names, 5, "012", "022", 1, 1, 1);       /* I after O begins one */
    metrics_entities(names, 5, "12", "14", 1, 2, 0);         /* and I of another type */
    metrics_entities(names, 5, "12", "32", 1, 2, 0);
    metrics_entities(names, 5, "120", "340", 1, 1, 0);       /* the right place, the wrong type */
    metrics_entities(names, 5, "0000", "0000", 0, 0, 0);
    metrics_entities(names, 5, "2", "2", 1, 1, 1);           /* the row's end ends it; the next row's I is one of its own */
}

TEST(train_metrics_entities_of_other_tags) {
    static const char *const ends[] = {"O", "S-A", "B-A", "I-A", "E-A"}, *const bare[] = {"B", "I", "O"};
    metrics_entities(ends, 5, "1234", "1234", 2, 2, 2);
    metrics_entities(ends, 5, "2343", "2344", 2, 2, 2); /* what follows E is another, whatever its tag */
    metrics_entities(ends, 5, "13", "33", 2, 1, 0);     /* I after S as well */
    metrics_entities(bare, 3, "0120", "0110", 2, 2, 1);
}

/* Classes that are no tags have no entities. */
TEST(train_metrics_no_entities) {
    static const char *const parts[] = {"NOUN", "VERB"}, *const other[] = {"O", "O"}, *const mixed[] = {"O", "B-X", "other"};
    const char *const *const sets[] = {parts, other, mixed, NULL};
    for (int i = 0; i < 4; i++) {
        static const int32_t ids[] = {0, 1};
        peft__scores s;
        peft__str out;
        peft__task task = metrics_task(PEFT__TASK_TOKENS, 0, i == 2 ? 3 : 2);
        task.names = sets[i];
        peft__str_init(&out, runner_mem());
        CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
        peft__scores_tokens(&s, ids, ids, 2);
        CHECK_STR(metrics_text(&s, &out),
                  "{\"accuracy\":1.0,\"precision_macro\":1.0,\"recall_macro\":1.0,\"f1_macro\":1.0,\"f1_micro\":1.0,"
                  "\"matthews_correlation\":1.0}");
        peft__scores_free(&s);
        peft__str_free(&out);
    }
}

TEST(train_metrics_ranks) {
    static const double values[] = {3, 1, 3, -2, 3, 1, 9}, expected[] = {5, 2.5, 5, 1, 5, 2.5, 7};
    double ranks[200], many[200];
    int64_t order[200];
    peft__ranks(values, 7, order, ranks);
    for (int i = 0; i < 7; i++) { CHECK_NEAR(ranks[i], expected[i], 0); }
    for (int i = 0; i < 200; i++) { many[i] = (i * 37) % 200; }
    peft__ranks(many, 200, order, ranks);
    for (int i = 0; i < 200; i++) { CHECK_NEAR(ranks[i], many[i] + 1, 0); }
    peft__ranks(values, 1, order, ranks);
    CHECK_NEAR(ranks[0], 1, 0);
    peft__ranks(values, 0, order, ranks);
}

TEST(train_metrics_pearson) {
    static const double a[] = {1, 2, 3, 4}, b[] = {2, 1, 4, 3}, down[] = {4, 3, 2, 1}, same[] = {5, 5, 5, 5};
    double odd[] = {1, 2, 3, (double)NAN};
    CHECK_NEAR(peft__pearson(a, b, 4), 0.6, 1e-15);
    CHECK_NEAR(peft__pearson(a, a, 4), 1, 1e-15);
    CHECK_NEAR(peft__pearson(a, down, 4), -1, 1e-15);
    CHECK(peft__pearson(a, a, 4) <= 1);
    CHECK(isnan(peft__pearson(a, same, 4)));
    CHECK(isnan(peft__pearson(same, a, 4)));
    CHECK(isnan(peft__pearson(a, odd, 4)));
    CHECK(isnan(peft__pearson(a, b, 1)));
    CHECK(isnan(peft__pearson(a, b, 0)));
}

/* Two columns: errors 1, 0, 2 and 0, 0, 3. Ranks of the first agree but for a tie. */
TEST(train_metrics_numbers) {
    static const float predicted[3][2] = {{2, 5}, {2, 7}, {6, 3}}, truth[3][2] = {{1, 5}, {2, 7}, {4, 6}};
    peft__scores s;
    peft__number_scores n;
    peft__str out;
    peft__task task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_REGRESSION, 2);
    peft__str_init(&out, runner_mem());
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 3; i++) { CHECK_OK(peft__scores_numbers(&s, predicted[i], truth[i])); }
    CHECK_OK(peft__number_scores_of(runner_mem(), s.pairs.data, 3, 2, &n));
    CHECK_NEAR(n.mse, (5.0 / 3 + 9.0 / 3) / 2, 1e-15);
    CHECK_NEAR(n.mae, (3.0 / 3 + 3.0 / 3) / 2, 1e-15);
    CHECK_NEAR(n.pearson, (20 / sqrt(32.0 * 14) + 0.5) / 2, 1e-15);
    CHECK_NEAR(n.spearman, (sqrt(3.0) / 2 + 0.5) / 2, 1e-15);
    CHECK_STR(metrics_text(&s, &out), "{\"mse\":2.33333333,\"mae\":1.0,\"pearson\":0.722455591,\"spearman\":0.683012702}");
    /* A column that is constant has no correlation, so that the mean has none. */
    static const float flat[1][2] = {{0, 0}};
    peft__scores_free(&s);
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 3; i++) { CHECK_OK(peft__scores_numbers(&s, flat[0], truth[i])); }
    CHECK_STR(metrics_text(&s, &out), "{\"mse\":21.8333333,\"mae\":4.16666667,\"pearson\":null,\"spearman\":null}");
    peft__scores_free(&s);
    peft__str_free(&out);
}

TEST(train_metrics_cosines) {
    static const float a[] = {3, 4, 0}, b[] = {-4, 3, 0}, c[] = {6, 8, 0}, zero[] = {0, 0, 0}, d[] = {1, 0, 1};
    static const float stars[] = {5, 1, 3};
    CHECK_NEAR(peft__cosine(a, b, 3), 0, 0);
    CHECK_NEAR(peft__cosine(a, c, 3), 1, 1e-15);
    CHECK_NEAR(peft__cosine(a, d, 3), 0.3 * sqrt(2.0), 1e-15);
    CHECK_NEAR(peft__cosine(a, zero, 3), 0, 0);
    /* Pairs of sentences: an embedding's figure is one number, whatever its task says of labels. */
    float cosines[3] = {(float)peft__cosine(a, c, 3), (float)peft__cosine(a, b, 3), (float)peft__cosine(a, d, 3)};
    peft__scores s;
    peft__number_scores n;
    peft__task task = metrics_task(PEFT__TASK_EMBEDDING, 0, 0);
    CHECK_OK(peft__scores_begin(&s, runner_mem(), &task));
    for (int i = 0; i < 3; i++) { CHECK_OK(peft__scores_numbers(&s, cosines + i, stars + i)); }
    CHECK_OK(peft__number_scores_of(runner_mem(), s.pairs.data, 3, 1, &n));
    CHECK_NEAR(n.spearman, 1, 1e-15);
    peft__scores_free(&s);
}

TEST(train_metrics_candidates) {
    static const double scores[] = {-3.5, -1.25, -1.25, -9};
    double odd[] = {-3.5, (double)NAN, -1};
    CHECK_INT(peft__candidate_best(scores, 4), 1);
    CHECK_INT(peft__candidate_best(scores, 1), 0);
    CHECK_INT(peft__candidate_best(odd, 3), 2);
}

TEST(train_metrics_without_memory) {
    static const char *const names[] = {"O", "B-A"};
    static const float numbers[] = {1, 2};
    peft__mem *mem = runner_mem();
    peft__scores s;
    peft__str out;
    peft__json_out j;
    peft__task task = metrics_task(PEFT__TASK_TOKENS, 0, 2);
    task.names = names;
    for (size_t i = 1; i <= 2; i++) {
        peft__mem_fail_after(mem, i, false);
        CHECK_STATUS(peft__scores_begin(&s, mem, &task), PEFT_E_NOMEM);
        peft__scores_free(&s);
    }
    peft__mem_fail_after(mem, 0, false);
    task = metrics_task(PEFT__TASK_SEQUENCE, PEFT__PROBLEM_REGRESSION, 2);
    CHECK_OK(peft__scores_begin(&s, mem, &task));
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__scores_numbers(&s, numbers, numbers), PEFT_E_NOMEM);
    peft__mem_fail_after(mem, 0, false);
    CHECK_OK(peft__scores_numbers(&s, numbers, numbers));
    peft__str_init(&out, mem);
    peft__json_begin(&j, &out, 0);
    peft__json_object(&j);
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__scores_write(&s, &j), PEFT_E_NOMEM);
    peft__mem_fail_after(mem, 0, false);
    peft__scores_free(&s);
    peft__str_free(&out);
    memset(&s, 0, sizeof s);
    peft__scores_free(&s);
}
