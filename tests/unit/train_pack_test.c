/* train_pack_test.c - activation_dtype: what waits for the backward pass as bfloat16. Gradients and losses against float32, fewer
 * bytes that the limit counts exactly, the same bits on any number of threads and with one pass of a step or several. */
#include "train_kit.h"

#define PACK_CONFIG                                                                                                    \
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":6,"                  \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":14,\"max_position_embeddings\":48,"            \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"bos_token_id\":null,\"eos_token_id\":12,\"tie_word_embeddings\":" \
    "false}"
#define PACK_GPT2                                                                                             \
    "{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_layer\":5,\"n_head\":4,\"n_positions\":48,\"vocab_size\":14," \
    "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"bos_token_id\":12,\"eos_token_id\":12}"

enum { PACK_STEPS = 20 };

typedef struct pack_seen { /* one run */
    peft__real *values, *grads;
    size_t bytes, peak;
    double activations, recomputed;
    train_log log;
} pack_seen;

static void pack_free(pack_seen *s) {
    free(s->values);
    free(s->grads);
}

/* steps 0: one pass, whose gradients are wanted. */
static peft_status pack_run(const train_spec *spec, const char *type, int steps, size_t limit, pack_seen *seen) {
    peft_status st = PEFT_OK;
    char trainer[224], text[16384];
    train_spec s = *spec;
    train_kit k;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 5, 3, 8, 2, 9, 4, 7, 6, 11, 10, 3, 5, 2, 1, 7, 13, 0, 4};
    static const int64_t lens[] = {10, 9};
    memset(seen, 0, sizeof *seen);
    (void)snprintf(trainer, sizeof trainer, "{'max_steps':%d,'batch_size':12,'gradient_accumulation_steps':%d,'activation_dtype':'%s',"
                   "'memory_limit':%zu}", steps > 0 ? steps : 1, spec->rows > 12 ? 2 : 1, type, limit);
    s.trainer = trainer;
    TRY(train_begin(&k, &s));
    TRY(peft_trainer_plan_json(k.t, text, sizeof text, NULL));
    seen->activations = train_number(text, "activation_bytes");
    seen->recomputed = train_number(text, "recomputed_segments");
    seen->bytes = train_bytes(&k);
    if (steps > 0) {
        TRY(peft_trainer_run(k.t));
    } else {
        const peft__member *m = &PEFT__VEC_AT(&((struct peft_trainer *)k.t)->members, peft__member, 0);
        TRY(api_batch(k.ctx, ids, lens, 2, &b));
        TRY(peft_trainer_accumulate(k.t, b, NULL));
        seen->grads = malloc(seen->bytes);
        memcpy(seen->grads, m->grads, seen->bytes);
    }
    peft_context_memory(k.ctx, NULL, &seen->peak);
    seen->values = train_copy(&k);
    seen->log = k.log;
out:
    peft_batch_free(b);
    train_end(&k);
    return st;
}

TEST(train_pack_gradients_are_near) {
    static const char *const methods[] = {"lora", "houlsby", "ia3", "full"};
    for (size_t i = 0; i < 2 * PEFT__COUNT(methods); i++) {
        pack_seen full, half;
        const train_spec s = {.config = i % 2 == 0 ? PACK_CONFIG : PACK_GPT2, .method = methods[i / 2]};
        double xx = 0, yy = 0, xy = 0;
        CHECK_OK(pack_run(&s, "float32", 0, 0, &full));
        CHECK_OK(pack_run(&s, "bfloat16", 0, 0, &half));
        for (size_t j = 0; j < full.bytes / sizeof(peft__real); j++) {
            xx += (double)full.grads[j] * (double)full.grads[j];
            yy += (double)half.grads[j] * (double)half.grads[j];
            xy += (double)full.grads[j] * (double)half.grads[j];
        }
        CHECK(xx > 0);
        CHECK(xy / sqrt(xx * yy) > 0.9995);
        CHECK_NEAR(sqrt(yy / xx), 1, 0.01);
        CHECK(memcmp(full.grads, half.grads, full.bytes) != 0); /* the option does something */
        CHECK(half.activations < 0.85 * full.activations);
        pack_free(&full);
        pack_free(&half);
    }
}

TEST(train_pack_losses_are_near) {
    pack_seen full, half;
    const train_spec s = {.config = PACK_CONFIG, .eval = true, .adapter = "{'target_modules':'all-linear','lora_dropout':0.1}"};
    CHECK_OK(pack_run(&s, "float32", PACK_STEPS, 0, &full));
    CHECK_OK(pack_run(&s, "bfloat16", PACK_STEPS, 0, &half));
    CHECK_INT(half.log.n, PACK_STEPS);
    CHECK(half.log.loss[0] == full.log.loss[0]); /* the forward pass sees the numbers before */
    CHECK(half.log.loss[PACK_STEPS - 1] != full.log.loss[PACK_STEPS - 1]);
    CHECK(full.log.loss[PACK_STEPS - 1] < full.log.loss[0]);
    for (int i = 0; i < PACK_STEPS; i++) { CHECK_NEAR(half.log.loss[i], full.log.loss[i], 0.01 * full.log.loss[i]); }
    CHECK_NEAR(half.log.eval[PACK_STEPS - 1], full.log.eval[PACK_STEPS - 1], 0.01 * full.log.eval[PACK_STEPS - 1]);
    pack_free(&full);
    pack_free(&half);
}

TEST(train_pack_same_bits_on_all_threads) {
    pack_seen one, more;
    train_spec s = {.config = PACK_CONFIG, .rows = 24, .adapter = "{'target_modules':'all-linear','lora_dropout':0.1}"};
    CHECK_OK(pack_run(&s, "bfloat16", 4, 0, &one));
    for (s.threads = 2; s.threads <= 4; s.threads *= 2) {
        CHECK_OK(pack_run(&s, "bfloat16", 4, 0, &more));
        CHECK_MEM(more.values, one.values, one.bytes);
        CHECK_MEM(more.log.loss, one.log.loss, sizeof one.log.loss);
        pack_free(&more);
    }
    pack_free(&one);
}

/* The limit holds from the least to what a run takes, with layers recomputed from rounded inputs. */
TEST(train_pack_limit) {
    pack_seen all, seen, again;
    const train_spec s = {.config = PACK_CONFIG};
    CHECK_OK(pack_run(&s, "bfloat16", 3, 0, &all));
    CHECK_STATUS(pack_run(&s, "bfloat16", 3, 4096, &seen), PEFT_E_NOMEM);
    const char *at = strstr(peft_last_error(), "needs at least ");
    CHECK(at != NULL);
    size_t least = (size_t)strtoull(at + strlen("needs at least "), NULL, 10);
    CHECK(least > 4096 && least < all.peak);
    for (size_t i = 0; i <= 3; i++) {
        size_t limit = least + (all.peak - least) / 4 * i;
        CHECK_OK(pack_run(&s, "bfloat16", 3, limit, &seen));
        CHECK(seen.peak <= limit && seen.recomputed > 0);
        CHECK_OK(pack_run(&s, "bfloat16", 3, limit, &again));
        CHECK_MEM(again.values, seen.values, seen.bytes);
        for (int j = 0; j < 3; j++) { CHECK_NEAR(seen.log.loss[j], all.log.loss[j], 0.01 * all.log.loss[j]); }
        pack_free(&seen);
        pack_free(&again);
    }
    CHECK_STATUS(pack_run(&s, "bfloat16", 3, least - 1, &seen), PEFT_E_NOMEM);
    pack_free(&all);
}

TEST(train_pack_refuses_other_types) {
    pack_seen seen;
    const train_spec s = {.config = PACK_CONFIG};
    CHECK_STATUS(pack_run(&s, "float16", 1, 0, &seen), PEFT_E_KEY);
    CHECK_ERROR_HAS("\"activation_dtype\"");
    CHECK_ERROR_HAS("bfloat16");
}
