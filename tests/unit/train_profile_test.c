/* train_profile_test.c - the option "profile": calls, FLOPs and bytes of steps whose costs are known, and that measuring changes no
 * bit of what is learnt. */
#include "autograd/profile.h"
#include "train_kit.h"

#define PROFILE_TRAINER "{'max_steps':2,'batch_size':12,'profile':true}"
#define PROFILE_ADAPTER "{'r':4,'target_modules':['q_proj']}"

/* The line of an op and a phase; NULL: the profile has none. */
static const peft__profile_line *profile_line(const train_kit *k, const char *op, int32_t phase) {
    const peft__profile *p = k->t->profile;
    for (int32_t i = 0; p != NULL && i < p->n; i++) {
        if (strcmp(p->line[i].kind->name, op) == 0 && p->line[i].phase == phase) { return &p->line[i]; }
    }
    return NULL;
}

/* Two steps over the same twelve rows; the kit's model has 2 layers of 16 columns with a feed-forward part of 24, heads of 8. */
TEST(train_profile_counts) {
    const train_spec s = {.trainer = PROFILE_TRAINER, .adapter = PROFILE_ADAPTER, .threads = 2};
    train_kit k;
    CHECK_OK(train_begin(&k, &s));
    CHECK(k.t->profile == NULL);
    CHECK_OK(peft_trainer_run(k.t));
    const peft__profile_line *linear = profile_line(&k, "linear", PEFT__PHASE_FORWARD);
    const peft__profile_line *product = profile_line(&k, "add_product", PEFT__PHASE_BACKWARD);
    const peft__profile_line *norm = profile_line(&k, "norm", PEFT__PHASE_FORWARD);
    const peft__profile_line *embed = profile_line(&k, "embed", PEFT__PHASE_FORWARD);
    const peft__profile_line *head = profile_line(&k, "head", PEFT__PHASE_BACKWARD);
    CHECK(linear != NULL && product != NULL && norm != NULL && embed != NULL && head != NULL);
    CHECK(profile_line(&k, "head", PEFT__PHASE_FORWARD) == NULL); /* it is done with its gradient */
    double tokens = (double)k.log.tokens[0], real = (double)sizeof(peft__real);
    CHECK_INT(k.log.tokens[1], k.log.tokens[0]);
    CHECK_INT(k.t->profile->runs, 2);
    CHECK_INT(linear->calls, 2 * 2 * 8); /* q, its A, k, v, o, gate, up, down */
    CHECK_NEAR(linear->flops, 2 * tokens * 2 * 2 * (16 * (16 + 4 + 8 + 8 + 16 + 24 + 24) + 24 * 16), 0);
    CHECK_INT(product->calls, 2 * 2);
    CHECK_NEAR(product->flops, 2 * tokens * 2 * 2 * 2 * 4 * 16, 0); /* dh and dB */
    CHECK_INT(norm->calls, 2 * 5);
    CHECK_NEAR(norm->bytes, 2 * 5 * tokens * (16 + 16 + 2) * real, 0); /* x, y, and two numbers of each row for the way back */
    CHECK_NEAR(embed->bytes, 2 * (tokens * 16 * real + 14 * 16 * 4), 0); /* no more rows than the table has */
    CHECK_NEAR(head->flops, 2 * (double)k.t->room.frame.labelled * 2 * 2 * 16 * 14, 0);
    CHECK(k.t->room.frame.labelled > 0 && (double)k.t->room.frame.labelled < tokens);
    double seconds = 0;
    for (int32_t i = 0; i < k.t->profile->n; i++) {
        const peft__profile_line *line = &k.t->profile->line[i];
        CHECK(line->seconds >= 0 && line->bytes > 0 && line->calls % 2 == 0);
        seconds += line->seconds;
    }
    CHECK_NEAR(seconds, k.t->profile->seconds, 1e-9);
    train_end(&k);
}

TEST(train_profile_json) {
    char text[16384];
    const train_spec on = {.trainer = PROFILE_TRAINER, .adapter = PROFILE_ADAPTER}, off = {.adapter = PROFILE_ADAPTER};
    train_kit k;
    CHECK_OK(train_begin(&k, &on));
    CHECK_OK(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    CHECK(strstr(text, "\"profile\":{\"runs\":0,\"seconds\":0.0,\"ops\":[]}") != NULL);
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_OK(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    CHECK_NEAR(train_number(text, "runs"), 2, 0);
    CHECK(strstr(text, "{\"op\":\"embed\",\"phase\":\"forward\",\"calls\":2,\"seconds\":") != NULL);
    CHECK(strstr(text, "\"phase\":\"rebuild\"") != NULL);
    CHECK(strstr(text, "{\"op\":\"attention\",\"phase\":\"backward\",\"calls\":4,") != NULL);
    train_end(&k);
    CHECK_OK(train_begin(&k, &off));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_OK(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    CHECK(strstr(text, "profile") == NULL && k.t->profile == NULL);
    train_end(&k);
}

TEST(train_profile_changes_no_bit) {
    const train_spec on = {.trainer = "{'max_steps':4,'batch_size':3,'profile':true}", .eval = true};
    const train_spec off = {.trainer = "{'max_steps':4,'batch_size':3}", .eval = true};
    peft__real *a = NULL, *b = NULL;
    train_log one, two;
    train_kit k;
    CHECK_OK(train_whole(&on, &a, &one));
    CHECK_OK(train_whole(&off, &b, &two));
    CHECK_OK(train_begin(&k, &off));
    CHECK_MEM(a, b, train_bytes(&k));
    CHECK_MEM(one.loss, two.loss, 4 * sizeof *one.loss);
    CHECK_NEAR(one.eval[3], two.eval[3], 0);
    train_end(&k);
    free(a);
    free(b);
}
