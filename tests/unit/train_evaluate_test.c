/* train_evaluate_test.c - loss, perplexity and accuracy of a data set: means over its labelled tokens, whatever the batches. */
#include "train_kit.h"

/* The same figures from the logits of each row alone. */
static peft_status evaluate_by_rows(train_kit *k, const peft_dataset *d, double *loss, int64_t *tokens,
                                    int64_t *right) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    *loss = 0;
    *tokens = *right = 0;
    TRY(peft_session_create(k->m, k->a, "x", NULL, &s));
    for (size_t r = 0; r < peft__dataset_size(d); r++) {
        const peft__row *row = peft__dataset_row(d, r);
        const int32_t *ids = (const int32_t *)d->ids.data + row->first,
                      *labels = (const int32_t *)d->labels.data + row->first;
        float logits[64 * API_VOCAB];
        peft_batch *b = NULL;
        int64_t len = row->n;
        st = api_batch(k->ctx, ids, &len, 1, &b);
        if (st == PEFT_OK) { st = peft_session_logits(s, b, logits, PEFT__COUNT(logits), NULL); }
        peft_batch_free(b);
        if (st != PEFT_OK) { goto out; }
        for (int64_t t = 0; t + 1 < row->n; t++) {
            const float *l = logits + t * API_VOCAB;
            double sum = 0;
            int32_t label = labels[t + 1], best = 0;
            if (label < 0) { continue; }
            for (int32_t v = 0; v < API_VOCAB; v++) {
                sum += exp((double)l[v]);
                if (l[v] > l[best]) { best = v; }
            }
            *loss += log(sum) - (double)l[label];
            *right += best == label;
            ++*tokens;
        }
    }
out:
    peft_session_free(s);
    return st;
}

static void evaluate_agrees(const char *config, const char *method) {
    train_kit k;
    train_spec s = {.config = config, .method = method, .rows = 30, .eval = true};
    double loss = 0;
    int64_t tokens = 0, right = 0;
    char text[256], same[256];
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(evaluate_by_rows(&k, k.train, &loss, &tokens, &right));
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "loss"), loss / (double)tokens, 1e-5);
    CHECK_NEAR(train_number(text, "perplexity"), exp(loss / (double)tokens), 1e-4);
    CHECK_NEAR(train_number(text, "accuracy"), (double)right / (double)tokens, 1e-7);
    CHECK_NEAR(train_number(text, "tokens"), tokens, 0);
    CHECK_NEAR(train_number(text, "rows"), 30, 0);
    /* A planned trainer goes in batches of its own size. */
    CHECK_OK(peft__trainer_plan(k.t));
    size_t calls = k.host.now;
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, same, sizeof same, NULL));
    CHECK_NEAR(train_number(same, "loss"), train_number(text, "loss"), 1e-9);
    CHECK_NEAR(train_number(same, "accuracy"), train_number(text, "accuracy"), 1e-12);
    CHECK_INT(k.host.now, calls);
    train_end(&k);
}

TEST(train_evaluate_llama) {
    evaluate_agrees(API_LLAMA, "lora");
}
TEST(train_evaluate_gpt2) {
    evaluate_agrees(API_GPT2, "lora");
}
TEST(train_evaluate_full) {
    evaluate_agrees(API_LLAMA_TIED("true"), "full");
}

/* Batches of 1, 2 and 64 rows, of a plan's caps. */
TEST(train_evaluate_whatever_the_batches) {
    double loss[3] = {0};
    int64_t right[3] = {0};
    static const char *const trainer[] = {"{'max_steps':1,'batch_size':1}", "{'max_steps':1,'batch_size':2}",
                                          "{'max_steps':1,'batch_size':64}"};
    for (int i = 0; i < 3; i++) {
        train_kit k;
        train_spec s = {.trainer = trainer[i], .rows = 25};
        peft__metrics m;
        CHECK_OK(train_begin(&k, &s));
        CHECK_OK(peft__trainer_plan(k.t));
        CHECK_OK(peft__evaluate(&k.t->exec, &k.t->room, k.train, NULL, &m, NULL, NULL));
        loss[i] = m.loss;
        right[i] = m.labelled;
        CHECK_INT(m.rows, 25);
        train_end(&k);
    }
    CHECK_NEAR(loss[1], loss[0], 1e-9 * loss[0]);
    CHECK_NEAR(loss[2], loss[0], 1e-9 * loss[0]);
    CHECK_INT(right[1], right[0]);
    CHECK_INT(right[2], right[0]);
}

TEST(train_evaluate_refuses) {
    train_kit k;
    train_spec s = {.rows = 4};
    peft_dataset *d = NULL;
    char text[256];
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_dataset_create(k.ctx, NULL, NULL, &d));
    CHECK_STATUS(peft_trainer_evaluate(k.t, d, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("the evaluation data has no rows");
    CHECK_OK(peft_dataset_add_json(d, "{\"input_ids\":[1]}", 17));
    CHECK_STATUS(peft_trainer_evaluate(k.t, d, text, sizeof text, NULL), PEFT_E_INVALID);
    CHECK_ERROR_HAS("no token of the evaluation data has a label");
    CHECK_OK(peft_dataset_add_json(d, "{\"input_ids\":[1,14]}", 20));
    CHECK_STATUS(peft_trainer_evaluate(k.t, d, text, sizeof text, NULL), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("token id 14, and the model's vocabulary 14");
    CHECK_OK(peft__trainer_plan(k.t));
    CHECK_STATUS(peft_trainer_evaluate(k.t, d, text, sizeof text, NULL), PEFT_E_SHAPE); /* the other way to it */
    peft_trainer_cancel(k.t);
    CHECK_STATUS(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL), PEFT_E_CANCELLED);
    CHECK_OK(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL));
    peft_dataset_free(d);
    train_end(&k);
}

/* A base with a NaN has no loss; the text says so rather than showing one. */
TEST(train_evaluate_not_a_number) {
    train_kit k;
    train_spec s = {.rows = 4};
    char text[256];
    CHECK_OK(train_begin(&k, &s));
    ((float *)(void *)((struct peft_model *)k.m)->owned)[3] = NAN;
    for (int32_t i = 0; i < API_VOCAB; i++) {
        ((float *)(void *)((struct peft_model *)k.m)->owned)[i * API_HIDDEN] = NAN;
    }
    CHECK_STATUS(peft_trainer_evaluate(k.t, k.train, text, sizeof text, NULL), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("not a finite number");
    train_end(&k);
}
