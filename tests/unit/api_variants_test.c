/* api_variants_test.c - methods with their options, over a Llama and a GPT-2: as many trained parameters as the formula says, a fresh
 * adapter that changes nothing, a file that is read back to the bit, a merged model that says what the adapter said. */
#include "api_kit.h"

static const int32_t variants_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
enum { VARIANTS_IDS = 12, VARIANTS_LOGITS = VARIANTS_IDS * API_VOCAB };

/* Parameters of each model: 2 layers, width 16; q 16 x 16, k and v 16 x 8, FFN 24; GPT-2's c_attn 16 x 48, FFN 64. -1: the
 * model has no place for it. */
typedef struct variants_case {
    const char *method, *options; /* ' for " */
    int64_t llama, gpt2;
    bool identity;                /* fresh, it changes nothing */
} variants_case;

static const variants_case variants_cases[] = {
    {"lora", "{}", 2 * 8 * (16 + 16 + 16 + 8), 2 * 8 * (16 + 48), true},
    {"lora", "{'use_dora':true,'r':3,'target_modules':'all-linear'}",
     2 * (3 * (2 * 16 + 2 * (16 + 8) + 2 * 16 + 3 * (16 + 24)) + 16 + 8 + 8 + 16 + 24 + 24 + 16),
     2 * (3 * (16 + 48 + 2 * 16 + 2 * (16 + 64)) + 48 + 16 + 64 + 16), true},
    {"dora", "{'lora_dropout':0.5,'bias':'lora_only'}",
     2 * (8 * (16 + 16 + 16 + 8) + 16 + 8), 2 * (8 * (16 + 48) + 48 + 48), true},
    {"dora", "{'init_lora_weights':'false','use_rslora':true}",
     2 * (8 * (16 + 16 + 16 + 8) + 16 + 8), 2 * (8 * (16 + 48) + 48), false},
    {"lora", "{'init_lora_weights':'pissa','r':3,'lora_alpha':5}", 2 * 3 * (16 + 16 + 16 + 8), 2 * 3 * (16 + 48), true},
    {"lora", "{'init_lora_weights':'olora','use_rslora':true,'rank_pattern':{'v_proj':2},'alpha_pattern':{'q_proj':3},'r':4}",
     2 * (4 * (16 + 16) + 2 * (16 + 8)), 2 * 4 * (16 + 48), true},
    {"lora_fa", "{'r':4}", 2 * 4 * (16 + 8), 2 * 4 * 48, true},
    {"adalora", "{}", 2 * 12 * (2 * (16 + 1) + 16 + 8), 2 * 12 * (16 + 48 + 1), true},
    {"adalora", "{'init_r':3,'target_r':1,'lora_alpha':5,'target_modules':'all-linear','init_lora_weights':false}",
     2 * 3 * (2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 24) + 7), 2 * 3 * (16 + 48 + 16 + 16 + 2 * (16 + 64) + 4), false},
    {"vera", "{}", 2 * (16 + 8 + 2 * 256), 2 * (48 + 256), true},
    {"vera", "{'r':5,'save_projection':false,'target_modules':'all-linear','projection_prng_key':7}",
     2 * (16 + 8 + 8 + 16 + 24 + 24 + 16 + 7 * 5), 2 * (48 + 16 + 64 + 16 + 4 * 5), true},
    {"loha", "{'r':3}", 2 * 2 * 3 * (16 + 16 + 16 + 8), 2 * 2 * 3 * (16 + 48), true},
    {"loha", "{'r':2,'alpha':5,'init_weights':false,'target_modules':'all-linear','rank_pattern':{'o_proj':4,'attn.c_proj':4}}",
     2 * 2 * (2 * (16 + 16 + 2 * (16 + 8) + 3 * (16 + 24)) + 4 * (16 + 16)),
     2 * 2 * (2 * (16 + 48 + 2 * (16 + 64)) + 4 * (16 + 16)), false},
    /* 16 = 4 x 4, 8 = 2 x 4, 24 = 4 x 6, 48 = 6 x 8, 64 = 8 x 8 */
    {"lokr", "{}", 2 * (4 * 4 + 4 * 4 + 2 * 4 + 4 * 4), 2 * (6 * 4 + 8 * 4), true},
    {"lokr", "{'r':1,'decompose_both':true,'init_weights':'lycoris'}", 2 * (8 + 8 + 6 + 8), 2 * (10 + 12), true},
    {"lokr", "{'r':2,'decompose_factor':2,'alpha':3,'init_weights':'false'}",
     2 * (2 * 2 + 2 * (8 + 8) + 2 * 2 + 2 * (4 + 8)),
     2 * (2 * 2 + 2 * (24 + 8)), false},
    {"oft", "{}", 2 * (16 * 15 / 2 + 16 * 15 / 2), 2 * (16 * 15 / 2), true}, /* one block of 16: the divisor next to 32 */
    {"oft", "{'oft_block_size':8,'use_cayley_neumann':false,'target_modules':'all-linear'}",
     2 * (6 * 2 + 3) * 28, 2 * (3 * 2 + 8) * 28, true},
    {"oft", "{'r':4,'block_share':true,'num_cayley_neumann_terms':7,'coft':true,'eps':0.5}", 2 * 2 * 6, 2 * 6, true},
    {"oft", "{'r':2,'init_weights':false,'modules_to_save':['lm_head']}", 2 * 2 * 2 * 28 + 14 * 16, 2 * 2 * 28 + 14 * 16, false},
    {"boft", "{}", 2 * (16 * 4 + 16 + 16 * 4 + 8), 2 * (16 * 4 + 48), true},
    {"boft", "{'boft_n_butterfly_factor':3,'boft_block_size':2,'target_modules':'all-linear'}",
     2 * (3 * 2 * (6 * 16 + 24) + 16 + 8 + 8 + 16 + 24 + 24 + 16), 2 * (3 * 2 * (16 + 16 + 16 + 64) + 48 + 16 + 64 + 16), true},
    {"boft", "{'boft_block_num':8,'boft_n_butterfly_factor':4,'init_weights':false}", 2 * (4 * 2 * 32 + 16 + 8),
     2 * (4 * 2 * 16 + 48), false},
    {"trainable_tokens", "{'token_indices':[5,3,13]}", 3 * 16, 3 * 16, true},
    {"trainable_tokens", "{'token_indices':[5],'target_modules':['lm_head']}", 16, 16, true},
    {"trainable_tokens", "{'token_indices':[5,1],'init_weights':false}", 2 * 16, 2 * 16, false},
    {"lora", "{'r':2,'trainable_token_indices':[4,9],'target_modules':'all-linear'}",
     2 * 2 * (2 * 16 + 2 * (16 + 8) + 2 * 16 + 3 * (16 + 24)) + 2 * 16, 2 * 2 * (16 + 48 + 2 * 16 + 2 * (16 + 64)) + 2 * 16, true},
    {"lora_fa", "{'r':4,'trainable_token_indices':[4,9]}", 2 * 4 * (16 + 8) + 2 * 16, 2 * 4 * 48 + 2 * 16, true},
    {"lora_hub", "{}", 2 * 8 * (16 + 16 + 16 + 8), 2 * (2 * 8 * 16 + 32 * 8), true},
    {"lora_hub", "{'r':3,'alpha':7,'attn_matrices':['k','q','v'],'output_lora':true,'leave_out':[0]}",
     3 * (16 + 16 + 2 * (16 + 8) + 16 + 24), 3 * 3 * 16 + 48 * 3 + 3 * (64 + 16), true},
    {"lora_hub", "{'init_weights':'bert','r':2}", 2 * 2 * (16 + 16 + 16 + 8), 2 * (2 * 2 * 16 + 32 * 2), false},
    {"ia3", "{}", 2 * (8 + 8 + 24), 2 * (48 + 64), true},
    {"ia3", "{'feedforward_modules':[],'target_modules':'all-linear'}", 2 * (16 + 8 + 8 + 16 + 24 + 24 + 16),
     2 * (48 + 16 + 64 + 16), true},
    {"ia3", "{'init_ia3_weights':false}", 2 * (8 + 8 + 24), 2 * (48 + 64), false},
    {"ln_tuning", "{}", 5 * 16, 2 * 5 * 16, true},
    {"ln_tuning", "{'modules_to_save':['lm_head']}", 5 * 16 + 14 * 16, 2 * 5 * 16 + 14 * 16, true},
    {"bitfit", "{}", -1, 2 * (2 * 16 + 48 + 16 + 64 + 16) + 16, true},
    {"head", "{}", 14 * 16, 14 * 16, true},
};

typedef struct variants_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    bool done;            /* all checks passed */
    float base[VARIANTS_LOGITS], fresh[VARIANTS_LOGITS], shaken[VARIANTS_LOGITS], other[VARIANTS_LOGITS];
} variants_world;

static peft_status variants_logits(variants_world *w, peft_model *m, const char *name, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    const int64_t rows[] = {7, 5};
    TRY(peft_session_create(m, name != NULL ? w->a : NULL, name, NULL, &s));
    TRY(api_batch(w->ctx, variants_ids, rows, 2, &b));
    TRY(peft_session_logits(s, b, out, VARIANTS_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static peft_status variants_add(variants_world *w, const char *name, const variants_case *c) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", c->method);
    TRY(api_options(w->ctx, schema, c->options, &o));
    TRY(peft_adapters_add(w->a, name, c->method, o, 5));
out:
    peft_options_free(o);
    return st;
}

static int64_t variants_count(const variants_world *w, const char *name) {
    int64_t n = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, name); i++) {
        int32_t ndim = 0;
        int64_t dims[8] = {0}, product = 1;
        const char *tensor = NULL;
        if (peft_adapters_tensor_info(w->a, name, i, &tensor, &ndim, dims) != PEFT_OK) { return -1; }
        for (int32_t d = 0; d < ndim; d++) { product *= dims[d]; }
        n += product;
    }
    return n;
}

/* The merged model's logits, from a folder. */
static peft_status variants_merged(variants_world *w, const char *name, float *out) {
    peft_status st = PEFT_OK;
    peft_model *merged = NULL;
    const char *dir = runner_path(runner_tmpdir(), "merged");
    TRY(peft_adapters_merge(w->a, name, dir, NULL));
    TRY(peft_model_open(w->ctx, dir, NULL, &merged));
    TRY(variants_logits(w, merged, NULL, out));
out:
    peft_model_free(merged);
    return st;
}

static void variants_check(variants_world *w, const variants_case *c, int64_t count) {
    const char *dir = runner_path(runner_tmpdir(), "saved");
    peft_status st = variants_add(w, "x", c);
    if (count < 0) {
        CHECK_INT(st, PEFT_E_NOT_FOUND);
        w->done = true;
        return;
    }
    CHECK_OK(st);
    if (st != PEFT_OK) { return; }
    CHECK_INT(variants_count(w, "x"), count);
    CHECK_OK(variants_logits(w, w->m, NULL, w->base));
    CHECK_OK(variants_logits(w, w->m, "x", w->fresh));
    double changed = api_distance(w->base, w->fresh, VARIANTS_LOGITS);
    CHECK(c->identity ? changed < 5e-6 : changed > 1e-3);
    CHECK_OK(api_shake(w->a, "x", 0.2F));
    CHECK_OK(variants_logits(w, w->m, "x", w->shaken));
    CHECK(api_distance(w->base, w->shaken, VARIANTS_LOGITS) > 1e-3);
    CHECK_OK(peft_adapters_save(w->a, "x", dir, NULL));
    CHECK_OK(peft_adapters_load(w->a, "y", dir, NULL));
    CHECK_OK(variants_logits(w, w->m, "y", w->other));
    bool converted = strstr(c->options, "pissa") != NULL || strstr(c->options, "olora") != NULL; /* in the file: another sum */
    CHECK_NEAR(api_distance(w->shaken, w->other, VARIANTS_LOGITS), 0, converted ? 1e-5 : 0);
    CHECK_OK(variants_merged(w, "x", w->other));
    CHECK_NEAR(api_distance(w->shaken, w->other, VARIANTS_LOGITS), 0, 1e-5);
    w->done = true;
}

TEST(api_variants_counts_identity_files_and_merging) {
    static variants_world w;
    static const char *const configs[] = {API_LLAMA, API_GPT2};
    for (size_t i = 0; i < PEFT__COUNT(variants_cases); i++) {
        for (size_t k = 0; k < 2; k++) {
            const variants_case *c = &variants_cases[i];
            memset(&w, 0, sizeof w);
            CHECK_OK(peft_context_create(NULL, &w.ctx));
            CHECK_OK(api_model(w.ctx, configs[k], &w.m));
            CHECK_OK(peft_adapters_create(w.m, &w.a));
            variants_check(&w, c, k == 0 ? c->llama : c->gpt2);
            if (!w.done) { printf("%s %s, model %zu: %s\n", c->method, c->options, k, peft_last_error()); }
            peft_adapters_free(w.a);
            peft_model_free(w.m);
            peft_context_free(w.ctx);
        }
    }
}
