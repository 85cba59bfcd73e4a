/* golden_adapters_test.c - adapters that earlier versions wrote, of every method and in all formats, are read: their values, which
 * golden_kit.h makes, what they do to a model (expected.safetensors has the logits that the version computed), and that they are
 * written with the same tensors. How to write the files of a new version stands in golden_kit.h. */
#include "golden_kit.h"

typedef struct golden_entry {
    const char *name, *method, *options;
    const char *config;    /* NULL: API_LLAMA */
    const char *save;      /* options of saving; NULL: none */
    const char *parts[2];  /* other adapters of the set that it names */
    bool baked;            /* loading gives other tensors: what a network made, or those of a plain LoRA */
} golden_entry;

#define GOLDEN_Q "'target_modules':['q_proj'],'layers_to_transform':[1]"
#define GOLDEN_ONE "'leave_out':[0],'reduction_factor':16"

static const golden_entry golden_entries[] = {
    {.name = "lora", .method = "lora", .options = "{'r':2,'lora_alpha':3,'use_rslora':true,'target_modules':['v_proj','lm_head'],"
     "'rank_pattern':{'v_proj':1},'layers_to_transform':[0],'modules_to_save':['model.norm']}"},
    {.name = "dora", .method = "lora", .options = "{'r':1,'use_dora':true," GOLDEN_Q "}"},
    {.name = "lora.gguf", .method = "lora", .options = "{'r':1,'lora_alpha':3," GOLDEN_Q "}"},
    {.name = "lora-and-head", .method = "lora", .options = "{'r':1,'task_type':'SEQ_CLS','target_modules':['query'],"
     "'layers_to_transform':[0]}", .config = API_BERT},
    {.name = "lora_fa", .method = "lora_fa", .options = "{'r':1," GOLDEN_Q "}", .baked = true},
    {.name = "adalora", .method = "adalora", .options = "{'init_r':2,'target_r':1," GOLDEN_Q "}"},
    {.name = "vera", .method = "vera", .options = "{'r':2," GOLDEN_Q "}"},
    {.name = "vera-by-key", .method = "vera", .options = "{'r':2,'save_projection':false,'projection_prng_key':7," GOLDEN_Q "}"},
    {.name = "loha", .method = "loha", .options = "{'r':1," GOLDEN_Q "}"},
    {.name = "lokr", .method = "lokr", .options = "{'r':1," GOLDEN_Q "}"},
    {.name = "oft", .method = "oft", .options = "{'oft_block_size':4,'r':0," GOLDEN_Q "}"},
    {.name = "boft", .method = "boft", .options = "{'boft_block_size':4," GOLDEN_Q "}"},
    {.name = "ia3", .method = "ia3", .options = "{'target_modules':['k_proj','down_proj'],'feedforward_modules':['down_proj']}"},
    {.name = "ln_tuning", .method = "ln_tuning", .options = "{'target_modules':['model.norm']}"},
    {.name = "trainable_tokens", .method = "trainable_tokens", .options = "{'token_indices':[1,5]}"},
    {.name = "prompt", .method = "prompt", .options = "{'num_virtual_tokens':2}"},
    {.name = "multitask_prompt", .method = "multitask_prompt", .options = "{'num_virtual_tokens':2,'num_tasks':2,'num_ranks':1}"},
    {.name = "ptuning", .method = "ptuning", .options = "{'num_virtual_tokens':2,'encoder_hidden_size':2}", .baked = true},
    {.name = "prefix", .method = "prefix", .options = "{'num_virtual_tokens':1}"},
    {.name = "pfeiffer-and-head", .method = "pfeiffer", .options = "{'use_gating':true,'ln_after':true," GOLDEN_ONE "}",
     .config = API_BERT},
    {.name = "pfeiffer_inv", .method = "pfeiffer_inv", .options = "{'inv_adapter_reduction_factor':8," GOLDEN_ONE "}"},
    {.name = "compacterpp", .method = "compacter++", .options = "{'phm_dim':2,'reduction_factor':8,'leave_out':[1]}"},
    {.name = "prefix_tuning", .method = "prefix_tuning", .options = "{'prefix_length':1,'flat':true,'leave_out':[0]}"},
    {.name = "lora_hub", .method = "lora_hub", .options = "{'r':1,'use_gating':true,'attn_matrices':['q'],'leave_out':[1]}"},
    {.name = "mam", .method = "mam", .options = "{'prefix_length':1,'flat':true,'reduction_factor':16,'leave_out':[0]}"},
    {.name = "fusion", .method = "fusion", .options = "{'adapters':['b','c'],'key':false}", .parts = {"b", "c"}},
    {.name = "union", .method = "union", .options = "{'parts':['b','prompt']}", .parts = {"b", "prompt"}},
};
enum { GOLDEN_ENTRIES = PEFT__COUNT(golden_entries), GOLDEN_IDS = 8, GOLDEN_LOGITS = API_VOCAB };

typedef struct golden_set {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
} golden_set;

static peft_status golden_open(golden_set *w, const golden_entry *e) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(peft_context_set_isa(w->ctx, "generic"));
    TRY(golden_model(w->ctx, e->config != NULL ? e->config : API_LLAMA, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    for (size_t i = 0; i < 2 && e->parts[i] != NULL; i++) {
        static const char *const bottleneck[] = {"pfeiffer", "{" GOLDEN_ONE "}"}, *const prompt[] = {"prompt", "{'num_virtual_tokens':1}"};
        const char *const *part = strcmp(e->parts[i], "prompt") == 0 ? prompt : bottleneck;
        TRY(api_adapter(w->ctx, w->a, e->parts[i], part, i, 0));
        TRY(golden_adapter(w->a, e->parts[i], true));
    }
out:
    return st;
}

static void golden_close(golden_set *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

/* What the head computes of a row of GOLDEN_IDS, for a language model of its last token. */
static peft_status golden_logits(golden_set *w, float out[GOLDEN_LOGITS], size_t *n) {
    static const int32_t ids[GOLDEN_IDS] = {3, 1, 4, 1, 5, 9, 2, 6};
    static const int64_t len = GOLDEN_IDS;
    float all[GOLDEN_IDS * GOLDEN_LOGITS];
    peft_session *s = NULL;
    peft_batch *b = NULL;
    peft_status st = peft_session_create(w->m, w->a, "x", NULL, &s);
    if (st == PEFT_OK) { st = api_batch(w->ctx, ids, &len, 1, &b); }
    if (st == PEFT_OK) { st = peft_session_logits(s, b, all, GOLDEN_IDS * GOLDEN_LOGITS, n); }
    if (st == PEFT_OK) {
        size_t from = *n > GOLDEN_LOGITS ? *n - GOLDEN_LOGITS : 0;
        *n -= from;
        memcpy(out, all + from, *n * sizeof *out);
    }
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static peft_status golden_put(golden_set *w, const golden_entry *e, const char *path) {
    peft_options *o = NULL;
    peft_status st = e->save != NULL ? api_options(w->ctx, "save", e->save, &o) : PEFT_OK;
    if (st == PEFT_OK) { st = peft_adapters_save(w->a, "x", path, o); }
    peft_options_free(o);
    return st;
}

/* ---- writing, for a new version ------------------------------------------------------------------------------------- */

TEST(golden_writes_adapters) {
    if (!golden_writing()) { return; }
    const char *dir = golden_new("adapters");
    static float logits[GOLDEN_ENTRIES][GOLDEN_LOGITS];
    peft__io_source sources[GOLDEN_ENTRIES];
    memset(sources, 0, sizeof sources);
    for (size_t i = 0; dir != NULL && i < GOLDEN_ENTRIES; i++) {
        golden_set w;
        size_t n = 0;
        const golden_entry *e = &golden_entries[i];
        CHECK_OK(golden_open(&w, e));
        const char *how[] = {e->method, e->options};
        CHECK_OK(api_adapter(w.ctx, w.a, "x", how, 1, 0));
        CHECK_OK(golden_adapter(w.a, "x", true));
        CHECK_OK(golden_logits(&w, logits[i], &n));
        CHECK_OK(peft__dir_make(dir));
        CHECK_OK(golden_put(&w, e, runner_path(dir, e->name)));
        sources[i] = (peft__io_source){.name = e->name, .dtype = PEFT_DTYPE_F32, .ndim = 1, .dims = {(int64_t)n}, .data = logits[i]};
        golden_close(&w);
    }
    if (dir != NULL) {
        CHECK_OK(peft__safetensors_write(runner_mem(), runner_path(dir, "expected.safetensors"), sources, GOLDEN_ENTRIES, NULL));
    }
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static void golden_reads(const golden_entry *e, const char *path, const peft__io_tensor *expected) {
    static const char *const files[] = {"adapter_model.safetensors", "adapter.safetensors", "model_head.safetensors"};
    golden_set w;
    float logits[GOLDEN_LOGITS], said[GOLDEN_LOGITS];
    size_t n = 0;
    const char *own = runner_path(runner_tmpdir(), e->name);
    char *json = malloc(1 << 15);
    CHECK(json != NULL && expected != NULL && expected->size <= sizeof said);
    memcpy(said, expected->data, expected->size);
    CHECK_OK(golden_open(&w, e));
    CHECK_OK(peft_check_json(w.ctx, path, e->parts[0] == NULL ? w.m : NULL, NULL, json, 1 << 15, NULL));
    CHECK(strstr(json, "\"ok\":true") != NULL);
    free(json);
    CHECK_OK(peft_adapters_load(w.a, "x", path, NULL));
    if (!e->baked) { CHECK_OK(golden_adapter(w.a, "x", false)); }
    CHECK_OK(golden_logits(&w, logits, &n));
    CHECK_INT(n * sizeof *said, expected->size);
    for (size_t k = 0; k < n; k++) { CHECK_NEAR(logits[k], said[k], 1e-6); }
    CHECK_OK(golden_put(&w, e, own));
    for (size_t f = 0; f < PEFT__COUNT(files); f++) {
        if (!peft__path_exists(runner_path(path, files[f]))) { continue; }
        CHECK_OK(golden_same(&w.ctx->mem, runner_path(own, files[f]), runner_path(path, files[f])));
    }
    golden_close(&w);
    CHECK_INT(w.host.now, 0);
}

TEST(golden_adapters_are_read) {
    char versions[GOLDEN_VERSIONS][64];
    size_t n = golden_versions("adapters", versions), checked = 0;
    CHECK(n > 0); /* tests run in the folder of the sources */
    for (size_t v = 0; v < n; v++) {
        const char *top = runner_path(GOLDEN_DIR, versions[v]);
        peft__mem *mem = runner_mem();
        peft__safetensors expected;
        CHECK_OK(peft__safetensors_open(mem, runner_path(top, "expected.safetensors"), true, &expected));
        for (size_t i = 0; i < GOLDEN_ENTRIES; i++) {
            const char *path = runner_path(top, golden_entries[i].name);
            if (!peft__path_exists(path)) { continue; } /* one that this version did not have */
            golden_reads(&golden_entries[i], path, peft__safetensors_find(&expected, golden_entries[i].name));
            checked++;
        }
        peft__safetensors_close(&expected);
    }
    CHECK(checked >= GOLDEN_ENTRIES);
}
