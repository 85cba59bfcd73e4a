/* peft_properties_test.c - what holds for every method that is registered, on one small Llama: what a fresh adapter does, files,
 * names, the base's bits, rows on their own, what a training step changes, merging, errors of the set. A new method is covered by
 * being registered; where it differs from most it has to be in a list here, and a list that is out of date fails too. */
#include <dirent.h>
#include <sys/stat.h>

#include "api/api.h"
#include "api_kit.h"
#include "peft/method.h"

#define PROP_CONFIG                                                                                            \
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"           \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"    \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"attention_bias\":true,\"tie_word_embeddings\":false,"     \
    "\"bos_token_id\":null,\"eos_token_id\":12}"

/* Options that a method cannot do without, or is too large without. */
static const char *const prop_options[][2] = {
    {"trainable_tokens", "{'token_indices':[1,4,5]}"},
    {"union", "{'parts':['p','q']}"},
    {"prompt", "{'num_virtual_tokens':3}"},
    {"multitask_prompt", "{'num_virtual_tokens':3,'num_tasks':1}"},
    {"ptuning", "{'num_virtual_tokens':3}"},
    {"prefix", "{'num_virtual_tokens':3}"},
    {"ptuning_v2", "{'num_virtual_tokens':3}"},
    {"prefix_tuning", "{'prefix_length':3,'bottleneck_size':8}"},
    {"mam", "{'prefix_length':3,'bottleneck_size':8}"},
    {"unipelt", "{'prefix_length':3,'bottleneck_size':8}"},
    {"adalora", "{'init_r':3,'target_r':2}"},
    {"fusion", "{'adapters':['p','q']}"},
    {"houlsby", "{'reduction_factor':2}"},
    {"pfeiffer", "{'reduction_factor':2}"},
    {"houlsby_inv", "{'reduction_factor':2}"},
    {"pfeiffer_inv", "{'reduction_factor':2}"},
    {"compacter", "{'reduction_factor':2}"},
    {"compacter++", "{'reduction_factor':2}"},
};
/* A fresh one changes the model's logits. */
static const char *const prop_changes[] = {"houlsby", "pfeiffer", "houlsby_inv", "pfeiffer_inv", "compacter", "compacter++",
                                           "prompt", "multitask_prompt", "ptuning", "prefix", "ptuning_v2", "prefix_tuning",
                                           "mam", "unipelt", "fusion"};
/* There is no merged weight. */
static const char *const prop_unmerged[] = {"houlsby", "pfeiffer", "parallel", "houlsby_inv", "pfeiffer_inv", "compacter",
                                            "compacter++", "prompt", "multitask_prompt", "ptuning", "prefix", "ptuning_v2",
                                            "prefix_tuning", "mam", "unipelt", "fusion"};

/* Their files are read as an adapter of another method that says the same, with names and files of its own. */
static const char *const prop_converted[][2] = {{"lora_hub", "\"method\":\"lora\""}};

static const int32_t prop_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 7, 4, 13};
static const int64_t prop_begin[] = {0, 7, 12, 15};
enum { PROP_ROWS = 3, PROP_IDS = 15, PROP_LOGITS = PROP_IDS * API_VOCAB };

typedef struct prop_world {
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    const char *method;
    bool done; /* all checks passed */
    float one[PROP_LOGITS], two[PROP_LOGITS];
} prop_world;

static bool prop_listed(const char *const *list, size_t n, const char *method) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], method) == 0) { return true; }
    }
    return false;
}

static peft_status prop_add(prop_world *w, peft_adapters *a, const char *name, uint64_t seed) {
    static const int32_t text[] = {2, 7, 1};
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    const char *options = "{}";
    for (size_t i = 0; i < PEFT__COUNT(prop_options); i++) {
        if (strcmp(prop_options[i][0], w->method) == 0) { options = prop_options[i][1]; }
    }
    (void)snprintf(schema, sizeof schema, "method:%s", w->method);
    TRY(api_options(w->ctx, schema, options, &o));
    TRY(peft_adapters_add(a, name, w->method, o, seed));
    st = peft_adapters_init(a, name, text, 3);
    if (st == PEFT_E_UNSUPPORTED) { st = PEFT_OK; } /* starts from no text */
out:
    peft_options_free(o);
    return st;
}

/* The parts of a union or a fusion, which are adapters of their own. */
static bool prop_has_parts(const char *method) { return strcmp(method, "union") == 0 || strcmp(method, "fusion") == 0; }

static peft_status prop_parts(const prop_world *w, peft_adapters *a) {
    peft_status st = PEFT_OK;
    bool fusion = strcmp(w->method, "fusion") == 0;
    if (!prop_has_parts(w->method)) { return PEFT_OK; }
    TRY(peft_adapters_add(a, "p", fusion ? "pfeiffer" : "lora", NULL, 1));
    TRY(peft_adapters_add(a, "q", fusion ? "pfeiffer" : "ia3", NULL, 2));
    if (fusion) { TRY(api_shake(a, "p", 0.3F)); }
out:
    return st;
}

static peft_status prop_open(prop_world *w, const char *method) {
    peft_status st = PEFT_OK;
    memset(w, 0, sizeof *w);
    w->method = method;
    TRY(peft_context_create(NULL, &w->ctx));
    TRY(peft__model_random(w->ctx, PROP_CONFIG, strlen(PROP_CONFIG), 3, 0.2, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    TRY(prop_parts(w, w->a));
out:
    return st;
}

static void prop_close(prop_world *w) {
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static void prop_each(void (*check)(prop_world *w)) {
    for (size_t i = 0; peft__method_at(i) != NULL; i++) {
        static prop_world w;
        peft_status st = prop_open(&w, peft__method_at(i)->name);
        if (st == PEFT_OK) { check(&w); }
        if (!w.done) { printf("method %s: %s\n", peft__method_at(i)->name, peft_last_error()); }
        prop_close(&w);
        CHECK_OK(st);
    }
}

/* Logits of some of the rows, in this order, end to end. model NULL: the world's. expression NULL: the base. */
static peft_status prop_rows(prop_world *w, peft_model *model, const char *expression, const int *rows, size_t n, float *out) {
    peft_status st = PEFT_OK;
    peft_session *s = NULL;
    peft_batch *b = NULL;
    int32_t ids[PROP_IDS];
    int64_t lens[PROP_ROWS];
    size_t at = 0;
    for (size_t r = 0; r < n; r++) {
        lens[r] = prop_begin[rows[r] + 1] - prop_begin[rows[r]];
        memcpy(ids + at, prop_ids + prop_begin[rows[r]], (size_t)lens[r] * sizeof *ids);
        at += (size_t)lens[r];
    }
    TRY(peft_session_create(model != NULL ? model : w->m, expression != NULL ? w->a : NULL, expression, NULL, &s));
    TRY(api_batch(w->ctx, ids, lens, n, &b));
    TRY(peft_session_logits(s, b, out, PROP_LOGITS, NULL));
out:
    peft_batch_free(b);
    peft_session_free(s);
    return st;
}

static peft_status prop_logits(prop_world *w, const char *expression, float *out) {
    return prop_rows(w, NULL, expression, (const int[]){0, 1, 2}, 3, out);
}

/* Some steps of training of "x". */
static peft_status prop_train(prop_world *w, int steps) {
    peft_status st = PEFT_OK;
    peft_options *trainer = NULL, *optimizer = NULL;
    peft_trainer *t = NULL;
    peft_batch *b = NULL;
    double loss = 0;
    static const int64_t lens[] = {7, 5, 3};
    TRY(api_options(w->ctx, "trainer", "{'max_steps':10,'max_length':8}", &trainer));
    TRY(api_options(w->ctx, "optimizer", "{'learning_rate':0.01,'lr_scheduler_type':'constant'}", &optimizer));
    TRY(peft_trainer_create(w->a, trainer, &t));
    TRY(peft_trainer_add_job(t, "x", NULL, NULL, optimizer));
    TRY(api_batch(w->ctx, prop_ids, lens, 3, &b));
    for (int i = 0; i < steps; i++) {
        TRY(peft_trainer_accumulate(t, b, &loss));
        TRY(peft_trainer_apply(t));
    }
out:
    peft_batch_free(b);
    peft_trainer_free(t);
    peft_options_free(optimizer);
    peft_options_free(trainer);
    return st;
}

/* All that is trained of an adapter, tensor after tensor; 0: an error. */
static size_t prop_values(peft_adapters *a, const char *name, float *out, size_t cap) {
    size_t at = 0;
    for (size_t i = 0; i < peft_adapters_tensor_count(a, name); i++) {
        const char *tensor = NULL;
        size_t n = 0;
        if (peft_adapters_tensor_info(a, name, i, &tensor, NULL, NULL) != PEFT_OK ||
            peft_adapters_tensor_read(a, name, tensor, out + at, cap - at, &n) != PEFT_OK) {
            return 0;
        }
        at += n;
    }
    return at;
}

enum { PROP_VALUES = 1 << 15 };
static float prop_before[PROP_VALUES], prop_after[PROP_VALUES];

/* ---- a fresh adapter --------------------------------------------------------------------------------------------------- */

static void prop_fresh(prop_world *w) {
    bool changes = prop_listed(prop_changes, PEFT__COUNT(prop_changes), w->method);
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(prop_logits(w, NULL, w->one));
    CHECK_OK(prop_logits(w, "x", w->two));
    double gap = api_distance(w->one, w->two, PROP_LOGITS);
    CHECK(changes ? gap > 1e-8 : gap < 2e-5);
    w->done = true;
}

TEST(properties_fresh_adapter_changes_nothing) { prop_each(prop_fresh); }

TEST(properties_lists_name_methods) {
    for (size_t i = 0; i < PEFT__COUNT(prop_changes); i++) { CHECK(peft__method_find(prop_changes[i]) != NULL); }
    for (size_t i = 0; i < PEFT__COUNT(prop_unmerged); i++) { CHECK(peft__method_find(prop_unmerged[i]) != NULL); }
    for (size_t i = 0; i < PEFT__COUNT(prop_options); i++) { CHECK(peft__method_find(prop_options[i][0]) != NULL); }
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

/* Do two folders hold the same files with the same bytes, folders in them included? */
static bool prop_same_files(const char *one, const char *two, int depth) {
    DIR *d = opendir(one);
    bool same = d != NULL && depth < 4;
    for (struct dirent *e = NULL; same && (e = readdir(d)) != NULL;) {
        char p[1024], q[1024];
        struct stat s;
        if (e->d_name[0] == '.') { continue; }
        (void)snprintf(p, sizeof p, "%.700s/%.255s", one, e->d_name);
        (void)snprintf(q, sizeof q, "%.700s/%.255s", two, e->d_name);
        if (stat(p, &s) == 0 && S_ISDIR(s.st_mode)) {
            same = prop_same_files(p, q, depth + 1);
            continue;
        }
        FILE *a = fopen(p, "rb"), *b = fopen(q, "rb");
        int x = 0, y = 0;
        while (a != NULL && b != NULL && x == y && x != EOF) { x = fgetc(a), y = fgetc(b); }
        same = a != NULL && b != NULL && x == y;
        if (a != NULL) { (void)fclose(a); }
        if (b != NULL) { (void)fclose(b); }
        if (!same) { printf("%s and %s differ\n", p, q); }
    }
    if (d != NULL) { (void)closedir(d); }
    return same;
}

static const char *prop_converts(const char *method) {
    for (size_t i = 0; i < PEFT__COUNT(prop_converted); i++) {
        if (strcmp(prop_converted[i][0], method) == 0) { return prop_converted[i][1]; }
    }
    return NULL;
}

/* What was saved under one name and read into another set is saved again with the same bytes. */
static void prop_files(prop_world *w) {
    const char *dir = runner_tmpdir(), *first = runner_path(dir, "first"), *second = runner_path(dir, "second");
    peft_adapters *other = NULL;
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(api_shake(w->a, "x", 0.2F));
    CHECK_OK(prop_logits(w, "x", w->one));
    CHECK_OK(peft_adapters_save(w->a, "x", first, NULL));
    if (peft__method_find(w->method)->whole_model) { /* is a model */
        peft_model *m = NULL;
        CHECK_OK(peft_model_open(w->ctx, first, NULL, &m));
        peft_status st = prop_rows(w, m, NULL, (const int[]){0, 1, 2}, 3, w->two);
        peft_model_free(m);
        CHECK_OK(st);
        CHECK_MEM(w->one, w->two, sizeof w->one);
        w->done = true;
        return;
    }
    CHECK_OK(peft_adapters_create(w->m, &other));
    peft_status st = prop_parts(w, other);
    if (st == PEFT_OK) { st = peft_adapters_load(other, "x", first, NULL); }
    if (st == PEFT_OK) { st = peft_adapters_save(other, "x", second, NULL); }
    peft_adapters_free(other);
    CHECK_OK(st);
    CHECK(prop_converts(w->method) != NULL || prop_same_files(first, second, 0));
    CHECK_OK(peft_adapters_load(w->a, "y", first, NULL));
    if (prop_converts(w->method) != NULL) {
        static char info[1 << 16];
        CHECK_OK(peft_adapters_info_json(w->a, "y", info, sizeof info, NULL));
        CHECK(strstr(info, prop_converts(w->method)) != NULL);
    }
    CHECK_OK(prop_logits(w, "y", w->two));
    CHECK_MEM(w->one, w->two, sizeof w->one);
    w->done = true;
}

TEST(properties_files_are_exact) { prop_each(prop_files); }

/* Has `copy` each tensor of `name`, to the bit? It may be of a method that trains more of them (lora_fa's files are lora's). */
static bool prop_same_tensors(const prop_world *w, const char *name, const char *copy) {
    bool same = peft_adapters_tensor_count(w->a, name) > 0;
    for (size_t i = 0; same && i < peft_adapters_tensor_count(w->a, name); i++) {
        const char *tensor = NULL;
        size_t n = 0, m = 0;
        same = peft_adapters_tensor_info(w->a, name, i, &tensor, NULL, NULL) == PEFT_OK &&
               peft_adapters_tensor_read(w->a, name, tensor, prop_before, PROP_VALUES, &n) == PEFT_OK &&
               peft_adapters_tensor_read(w->a, copy, tensor, prop_after, PROP_VALUES, &m) == PEFT_OK && n == m &&
               memcmp(prop_before, prop_after, n * sizeof(float)) == 0;
    }
    return same;
}

/* Names that are parts of each other, of keys in the files, or patterns elsewhere. */
static void prop_names(prop_world *w) {
    static const char *const names[] = {"a", "a.b", "^a$", "adapters", "ab", "a?", "{2}\\w", ".", "lora_A", "weight", "model.layers"};
    enum { N = PEFT__COUNT(names), FEW = 4 };
    bool all = strcmp(w->method, "lora") == 0 || strcmp(w->method, "pfeiffer") == 0; /* the two kinds of files */
    size_t many = all ? N : FEW;
    const char *dir = runner_tmpdir();
    static float values[N][PROP_VALUES];
    size_t n[N];
    if (peft__method_find(w->method)->whole_model || prop_has_parts(w->method)) { /* no name in them; parts have their own */
        w->done = true;
        return;
    }
    for (size_t i = 0; i < many; i++) {
        CHECK_OK(prop_add(w, w->a, names[i], 100 + i));
        CHECK_OK(api_shake(w->a, names[i], 0.1F + 0.02F * (float)i));
        n[i] = prop_values(w->a, names[i], values[i], PROP_VALUES);
        CHECK(n[i] > 0);
        for (size_t k = 0; k < i; k++) { CHECK(memcmp(values[k], values[i], n[i] * sizeof(float)) != 0); }
    }
    for (size_t i = 0; i < many; i++) {
        char folder[16], copy[16];
        (void)snprintf(folder, sizeof folder, "n%zu", i);
        (void)snprintf(copy, sizeof copy, "c%zu", i);
        CHECK_OK(peft_adapters_save(w->a, names[i], runner_path(dir, folder), NULL));
        CHECK_OK(peft_adapters_load(w->a, copy, runner_path(dir, folder), NULL));
        CHECK(prop_converts(w->method) != NULL || prop_same_tensors(w, names[i], copy));
        CHECK_OK(prop_logits(w, names[i], w->one));
        CHECK_OK(prop_logits(w, copy, w->two));
        CHECK_MEM(w->one, w->two, sizeof w->one);
    }
    w->done = true;
}

TEST(properties_names_do_not_mix) { prop_each(prop_names); }

/* ---- the base ---------------------------------------------------------------------------------------------------------- */

/* Of all tensors of the base. */
static uint64_t prop_base_hash(prop_world *w) {
    uint64_t hash = 1;
    static float values[1 << 12];
    for (size_t i = 0; i < peft_model_tensor_count(w->m); i++) {
        const char *name = NULL;
        size_t n = 0;
        if (peft_model_tensor_info(w->m, i, &name, NULL, NULL, NULL) != PEFT_OK ||
            peft_model_tensor_read(w->m, name, values, PEFT__COUNT(values), &n) != PEFT_OK) {
            return 0;
        }
        hash = peft__hash_str(hash, (const char *)values, n * sizeof *values);
    }
    return hash;
}

static void prop_base(prop_world *w) {
    uint64_t hash = prop_base_hash(w);
    CHECK(hash != 0);
    CHECK_OK(prop_logits(w, NULL, w->one));
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(prop_train(w, 3));
    CHECK(prop_base_hash(w) == hash);
    CHECK_OK(prop_logits(w, NULL, w->two));
    CHECK_MEM(w->one, w->two, sizeof w->one);
    CHECK_OK(prop_logits(w, "x", w->two));
    CHECK(api_distance(w->one, w->two, PROP_LOGITS) > 1e-5);
    w->done = true;
}

TEST(properties_base_keeps_its_bits) { prop_each(prop_base); }

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

static void prop_alone(prop_world *w) {
    enum { FIRST = 7 * API_VOCAB, SECOND = 5 * API_VOCAB, THIRD = 3 * API_VOCAB };
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(api_shake(w->a, "x", 0.2F));
    CHECK_OK(prop_logits(w, "x", w->one));
    CHECK_OK(prop_rows(w, NULL, "x", (const int[]){1}, 1, w->two));
    CHECK_MEM(w->one + FIRST, w->two, SECOND * sizeof(float));
    CHECK_OK(prop_rows(w, NULL, "x", (const int[]){2, 0}, 2, w->two));
    CHECK_MEM(w->one + FIRST + SECOND, w->two, THIRD * sizeof(float));
    CHECK_MEM(w->one, w->two + THIRD, FIRST * sizeof(float));
    w->done = true;
}

TEST(properties_rows_are_alone) { prop_each(prop_alone); }

/* ---- a step of training ------------------------------------------------------------------------------------------------ */

static void prop_step(prop_world *w) {
    size_t at = 0;
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(api_shake(w->a, "x", 0.2F)); /* off zeros, behind which nothing has a gradient */
    size_t n = prop_values(w->a, "x", prop_before, PROP_VALUES);
    CHECK_OK(prop_train(w, 1));
    CHECK(n > 0 && prop_values(w->a, "x", prop_after, PROP_VALUES) == n);
    for (size_t i = 0; i < peft_adapters_tensor_count(w->a, "x"); i++) {
        const char *tensor = NULL;
        int32_t ndim = 0;
        int64_t dims[8] = {0};
        size_t len = 1;
        CHECK_OK(peft_adapters_tensor_info(w->a, "x", i, &tensor, &ndim, dims));
        for (int32_t d = 0; d < ndim; d++) { len *= (size_t)dims[d]; }
        bool moved = memcmp(prop_before + at, prop_after + at, len * sizeof(float)) != 0;
        if (!moved) { printf("%s stays\n", tensor); }
        CHECK(moved);
        at += len;
    }
    CHECK_INT(at, n);
    w->done = true;
}

TEST(properties_step_moves_every_tensor) { prop_each(prop_step); }

/* ---- merging ----------------------------------------------------------------------------------------------------------- */

static void prop_merge(prop_world *w) {
    const char *dir = runner_path(runner_tmpdir(), "merged");
    peft_model *m = NULL;
    CHECK_OK(prop_add(w, w->a, "x", 5));
    CHECK_OK(api_shake(w->a, "x", 0.2F));
    CHECK_OK(prop_logits(w, "x", w->one));
    peft_status st = peft_adapters_merge(w->a, "x", dir, NULL);
    if (prop_listed(prop_unmerged, PEFT__COUNT(prop_unmerged), w->method)) {
        CHECK_INT(st, PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS("\"x\"");
        CHECK_INT(peft_model_open(w->ctx, dir, NULL, &m), PEFT_E_NOT_FOUND); /* nothing was written */
        w->done = true;
        return;
    }
    CHECK_OK(st);
    CHECK_OK(peft_model_open(w->ctx, dir, NULL, &m));
    st = prop_rows(w, m, NULL, (const int[]){0, 1, 2}, 3, w->two);
    peft_model_free(m);
    CHECK_OK(st);
    double most = 1;
    for (int i = 0; i < PROP_LOGITS; i++) { most = fmax(most, fabs((double)w->one[i])); }
    CHECK_NEAR(api_distance(w->one, w->two, PROP_LOGITS), 0, 1e-5 * most);
    w->done = true;
}

TEST(properties_merged_is_unmerged) { prop_each(prop_merge); }

/* ---- the set ----------------------------------------------------------------------------------------------------------- */

static bool prop_unchanged(prop_world *w, size_t count, size_t n) {
    return peft_adapters_count(w->a) == count && strcmp(peft_adapters_name(w->a, count - 1), "x") == 0 &&
           prop_values(w->a, "x", prop_after, PROP_VALUES) == n && memcmp(prop_before, prop_after, n * sizeof(float)) == 0;
}

static void prop_set(prop_world *w) {
    const char *dir = runner_path(runner_tmpdir(), "saved");
    peft_session *s = NULL;
    CHECK_OK(prop_add(w, w->a, "x", 5));
    size_t n = prop_values(w->a, "x", prop_before, PROP_VALUES), count = peft_adapters_count(w->a);
    CHECK(n > 0);
    CHECK_INT(prop_add(w, w->a, "x", 6), PEFT_E_EXISTS);
    CHECK_ERROR_HAS("\"x\"");
    CHECK(prop_unchanged(w, count, n));
    CHECK_INT(prop_add(w, w->a, "", 6), PEFT_E_INVALID);
    CHECK_INT(prop_add(w, w->a, "a*(b)", 6), PEFT_E_INVALID); /* characters of expressions */
    CHECK(prop_unchanged(w, count, n));
    CHECK_OK(peft_adapters_save(w->a, "x", dir, NULL));
    if (!peft__method_find(w->method)->whole_model) {
        CHECK_INT(peft_adapters_load(w->a, "x", dir, NULL), PEFT_E_EXISTS);
        CHECK(prop_unchanged(w, count, n));
    }
    CHECK_INT(peft_adapters_load(w->a, "z", runner_path(runner_tmpdir(), "nowhere"), NULL), PEFT_E_NOT_FOUND);
    CHECK(prop_unchanged(w, count, n));
    CHECK_INT(peft_adapters_remove(w->a, "y"), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("there is no adapter \"y\"");
    CHECK_INT(peft_session_create(w->m, w->a, "y", NULL, &s), PEFT_E_NOT_FOUND);
    CHECK(s == NULL && prop_unchanged(w, count, n));
    CHECK_OK(peft_session_create(w->m, w->a, "x", NULL, &s));
    peft_status st = peft_adapters_remove(w->a, "x");
    bool kept = prop_unchanged(w, count, n);
    peft_session_free(s);
    CHECK_INT(st, PEFT_E_BUSY);
    CHECK(kept);
    CHECK_OK(peft_adapters_remove(w->a, "x"));
    CHECK_INT(peft_adapters_count(w->a), count - 1);
    CHECK_INT(peft_adapters_remove(w->a, "x"), PEFT_E_NOT_FOUND);
    w->done = true;
}

TEST(properties_errors_leave_the_set) { prop_each(prop_set); }
