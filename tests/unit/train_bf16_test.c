/* train_bf16_test.c - compute_dtype: training and sessions with products in bfloat16 against those in float32.
 *
 * A bfloat16 is off by at most 2^-9 of its size; over the products of a layer the errors average out. The bounds are two or
 * three times what was seen (weights are ten times the usual here), and the tests ask for a difference too: an option that does
 * nothing fails. */
#include "train_kit.h"

/* Wide enough for several tasks a product; 14 tokens as the kit's models have. */
#define TRAIN_WIDE                                                                                          \
    "{\"model_type\":\"llama\",\"hidden_size\":96,\"intermediate_size\":200,\"num_hidden_layers\":2,"       \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":14,\"max_position_embeddings\":48," \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":null,\"eos_token_id\":12,\"tie_word_"   \
    "embeddings\":false}"

enum { TRAIN_STEPS = 20 };

static peft_status train_of_type(const char *type, const char *isa, int32_t threads, const char *method, peft__real **values,
                                 train_log *log, size_t *bytes) {
    char trainer[128];
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':%d,'batch_size':12,'compute_dtype':'%s'}", (int)TRAIN_STEPS, type);
    const train_spec s = {.config = TRAIN_WIDE, .method = method, .isa = isa, .threads = threads, .trainer = trainer, .eval = true};
    train_kit k;
    peft_status st = train_begin(&k, &s);
    if (st == PEFT_OK) { st = peft_trainer_run(k.t); }
    *values = st == PEFT_OK ? train_copy(&k) : NULL;
    if (bytes != NULL) { *bytes = st == PEFT_OK ? train_bytes(&k) : 0; }
    *log = k.log;
    train_end(&k);
    return st;
}

TEST(train_bf16_losses_are_near) {
    static const char *const methods[] = {"lora", "houlsby", "ia3"};
    for (size_t i = 0; i < PEFT__COUNT(methods); i++) {
        peft__real *a = NULL, *b = NULL;
        train_log full, half;
        CHECK_OK(train_of_type("float32", NULL, 1, methods[i], &a, &full, NULL));
        CHECK_OK(train_of_type("bfloat16", NULL, 1, methods[i], &b, &half, NULL));
        CHECK_INT(full.n, TRAIN_STEPS);
        CHECK_INT(half.n, TRAIN_STEPS);
        CHECK(full.loss[0] != half.loss[0]);
            for (int64_t step = 0; step < TRAIN_STEPS; step++) {
            CHECK_NEAR(half.loss[step], full.loss[step], 0.01 * full.loss[step]);
            CHECK_NEAR(half.norm[step], full.norm[step], 0.03 * full.norm[step]);
        }
        CHECK_NEAR(half.eval[TRAIN_STEPS - 1], full.eval[TRAIN_STEPS - 1], 0.01 * full.eval[TRAIN_STEPS - 1]);
        CHECK(full.eval[TRAIN_STEPS - 1] != half.eval[TRAIN_STEPS - 1]);
        free(a);
        free(b);
    }
}

TEST(train_bf16_same_bits_on_all_threads) {
    for (size_t i = 0; peft__kernels_at(i) != NULL; i++) {
        const peft__kernels *usable;
        if (peft__kernels_find(peft__kernels_at(i)->name, &usable) != PEFT_OK) { continue; }
        peft__real *first = NULL, *other = NULL;
        train_log a, b;
        size_t bytes = 0;
        CHECK_OK(train_of_type("bfloat16", usable->name, 1, "lora", &first, &a, &bytes));
        for (int32_t threads = 2; threads <= 4; threads *= 2) {
            CHECK_OK(train_of_type("bfloat16", usable->name, threads, "lora", &other, &b, NULL));
            CHECK_MEM(other, first, bytes);
            CHECK_MEM(b.loss, a.loss, sizeof a.loss);
            free(other);
        }
        /* auto: what is faster here */
        CHECK_OK(train_of_type("auto", usable->name, 2, "lora", &other, &b, NULL));
        CHECK((memcmp(b.loss, a.loss, sizeof a.loss) == 0) == (usable->tile_bf16 != NULL));
        free(other);
        free(first);
    }
}

/* Layers made again in the backward pass get the same bits; the room for rounded operands is within the limit. */
TEST(train_bf16_recomputed) {
    static const char *const limits[] = {"", ",'memory_limit':5000000"};
    peft__real *v[2] = {NULL, NULL};
    size_t peak[2] = {0, 0}, bytes = 0;
    for (int i = 0; i < 2; i++) {
        char trainer[160];
        train_spec s = {.config = TRAIN_WIDE, .trainer = trainer};
        train_kit k;
        char plan[4096];
        (void)snprintf(trainer, sizeof trainer, "{'max_steps':3,'batch_size':12,'compute_dtype':'bfloat16'%s}", limits[i]);
        CHECK_OK(train_begin(&k, &s));
        CHECK_OK(peft_trainer_plan_json(k.t, plan, sizeof plan, NULL));
        CHECK(train_number(plan, "scratch_bytes") >= PEFT__ROUNDED_BYTES);
        CHECK_OK(peft_trainer_run(k.t));
        v[i] = train_copy(&k);
        bytes = train_bytes(&k);
        peak[i] = k.log.peak;
        train_end(&k);
    }
    CHECK(peak[1] <= 5000000);
    CHECK_MEM(v[0], v[1], bytes);
    free(v[0]);
    free(v[1]);
}

/* ---- sessions ---------------------------------------------------------------------------------------------------------------- */

static peft_status train_session(peft_context *ctx, peft_model *m, const char *json, peft_session **out) {
    peft_options *o = NULL;
    peft_status st = api_options(ctx, "session", json, &o);
    if (st == PEFT_OK) { st = peft_session_create(m, NULL, NULL, o, out); }
    peft_options_free(o);
    return st;
}

TEST(session_bf16_logits_are_near) {
    enum { N = 40 };
    static float y[2][N * API_VOCAB];
    static const char *const types[] = {"{'compute_dtype':'float32'}", "{'compute_dtype':'bfloat16'}"};
    train_spec s = {.config = TRAIN_WIDE, .eval = true};
    train_kit k;
    peft_session *session = NULL;
    peft_batch *b = NULL;
    char text[2][256];
    int32_t ids[N];
    const int64_t lens[] = {N - 3, 3};
    for (int32_t i = 0; i < N; i++) { ids[i] = i * 5 % API_VOCAB; }
    CHECK_OK(train_prepare(&k, &s));
    CHECK_OK(api_batch(k.ctx, ids, lens, 2, &b));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(train_session(k.ctx, k.m, types[i], &session));
        CHECK_OK(peft_session_logits(session, b, y[i], N * API_VOCAB, NULL));
        CHECK_OK(peft_session_evaluate(session, k.eval, text[i], sizeof text[i], NULL));
        peft_session_free(session);
        session = NULL;
    }
    double xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < PEFT__COUNT(y[0]); i++) {
        xx += (double)y[0][i] * (double)y[0][i];
        yy += (double)y[1][i] * (double)y[1][i];
        xy += (double)y[0][i] * (double)y[1][i];
    }
    const double cosine = xy / sqrt(xx * yy), loss = train_number(text[0], "loss");
    CHECK(cosine > 0.9995 && cosine < 1);
    CHECK_NEAR(train_number(text[1], "loss"), loss, 0.01 * loss);
    CHECK(train_number(text[1], "loss") != loss);
    CHECK_STATUS(train_session(k.ctx, k.m, "{'compute_dtype':'float16'}", &session), PEFT_E_KEY);
    CHECK_ERROR_HAS("\"compute_dtype\"");
    CHECK_ERROR_HAS("bfloat16");
    peft_batch_free(b);
    train_end(&k);
}
