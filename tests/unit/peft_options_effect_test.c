/* peft_options_effect_test.c - every option of every registered method changes something: a table says what, one driver checks it.
 *
 * A line (options_effect.h) compares two adapters that differ in one option. What has to differ is named by the line and nothing
 * else is let count: logits and training start from the same values in both, so that only the option can make the difference.
 * Where it changes what the adapter computes, a saved one has to compute the same when it is read back. An option that is
 * registered and has no line fails the test, and so does a line for what is not registered. */

#include "api/api.h"
#include "api_kit.h"
#include "base/system.h"
#include "options_effect.h"
#include "peft/method.h"

/* ---- two bases, two sets ------------------------------------------------------------------------------------------------- */

#define EFFECT_LLAMA                                                                                         \
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"         \
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":14,\"max_position_embeddings\":48,"  \
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"attention_bias\":true,\"tie_word_embeddings\":false,"   \
    "\"bos_token_id\":null,\"eos_token_id\":12}"
#define EFFECT_GPT2                                                                                          \
    "{\"model_type\":\"gpt2\",\"n_embd\":24,\"n_layer\":3,\"n_head\":4,\"n_positions\":48,\"vocab_size\":14," \
    "\"layer_norm_epsilon\":1e-5,\"activation_function\":\"gelu_new\",\"bos_token_id\":12,\"eos_token_id\":12}"

static const int32_t effect_ids[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
static const int64_t effect_lens[] = {7, 5};
enum { EFFECT_IDS = 12, EFFECT_LOGITS_MAX = EFFECT_IDS * (API_VOCAB + 4), EFFECT_TEXT_MAX = 1 << 16 };

typedef struct effect_world {
    peft_context *ctx;
    peft_model *llama, *gpt2;
    const char *dir;
} effect_world;

typedef struct effect_side {        /* one of the two that a line compares */
    peft_adapters *a;
    peft__adapter *x;               /* pinned */
    float logits[EFFECT_LOGITS_MAX];
    size_t n_logits;
    char text[EFFECT_TEXT_MAX];     /* of its config, or its information */
} effect_side;

static effect_world effect_w;

/* JSON with ' for " and folders for $name. */
static void effect_expand(const char *from, char *out, size_t cap) {
    size_t n = 0;
    for (const char *c = from; *c != '\0' && n + 1 < cap; c++) {
        if (*c == '$') {
            n += (size_t)snprintf(out + n, cap - n, "%s/", effect_w.dir);
        } else {
            out[n++] = *c;
            if (*c == '\'') { out[n - 1] = '"'; }
        }
    }
    out[PEFT__MIN(n, cap - 1)] = '\0';
}

static peft_status effect_set(peft_options *o, const char *json) {
    char text[1024];
    if (json == NULL) { return PEFT_OK; }
    effect_expand(json, text, sizeof text);
    return peft_options_set_json(o, text, strlen(text));
}

static peft_status effect_add(peft_adapters *a, const char *name, const char *method, const char *with, const char *last) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    char schema[64];
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(peft_options_create(effect_w.ctx, schema, &o));
    for (size_t i = 0; i < PEFT__COUNT(effect_usual); i++) {
        if (strcmp(effect_usual[i][0], method) == 0) { TRY(effect_set(o, effect_usual[i][1])); }
    }
    TRY(effect_set(o, with));
    TRY(effect_set(o, last));
    TRY(peft_adapters_add(a, name, method, o, 5));
out:
    peft_options_free(o);
    return st;
}

/* A set with what unions and fusions are made of. */
static peft_status effect_parts(peft_adapters *a, const char *method) {
    static const char *const names[] = {"f", "g", "h"};
    peft_status st = PEFT_OK;
    if (strcmp(method, "union") == 0) {
        TRY(effect_add(a, "p", "lora", NULL, NULL));
        TRY(effect_add(a, "q", "ia3", NULL, NULL));
    }
    for (size_t i = 0; i < 3 && strcmp(method, "fusion") == 0; i++) {
        TRY(effect_add(a, names[i], "pfeiffer", NULL, NULL));
        TRY(api_shake(a, names[i], 0.2F + 0.1F * (float)i));
    }
out:
    return st;
}

/* The set with "x" in it, fresh. */
static peft_status effect_open(effect_side *s, peft_model *m, const char *method, const effect_line *l, const char *value) {
    peft_status st = PEFT_OK;
    char last[640];
    memset(s, 0, sizeof *s);
    (void)snprintf(last, sizeof last, "{'%s':%s}", l->key, value != NULL ? value : "");
    TRY(peft_adapters_create(m, &s->a));
    TRY(effect_parts(s->a, method));
    TRY(effect_add(s->a, "x", method, l->with, value != NULL ? last : NULL));
    TRY(peft__set_pin(s->a, "x", &s->x));
out:
    return st;
}

static void effect_close(effect_side *s) {
    peft__adapter_release(s->x);
    peft_adapters_free(s->a);
    s->x = NULL;
    s->a = NULL;
}

/* ---- what may differ ----------------------------------------------------------------------------------------------------- */

static bool effect_same_shapes(const peft__adapter *a, const peft__adapter *b) {
    size_t n = peft__adapter_own_parts(a);
    if (n != peft__adapter_own_parts(b) || peft__adapter_param_count(a) != peft__adapter_param_count(b)) { return false; }
    for (size_t i = 0; i < n; i++) {
        if (!effect_same_shapes(PEFT__VEC_AT(&a->parts, peft__adapter *, i), PEFT__VEC_AT(&b->parts, peft__adapter *, i))) {
            return false;
        }
    }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i), *q = peft__adapter_param_at(b, i);
        if (strcmp(p->p.name, q->p.name) != 0 || p->ndim != q->ndim || p->frozen != q->frozen ||
            memcmp(p->dims, q->dims, (size_t)p->ndim * sizeof *p->dims) != 0) {
            return false;
        }
    }
    return true;
}

/* With `copy` b takes a's values. */
static bool effect_same_values(const peft__adapter *a, const peft__adapter *b, bool copy) {
    size_t bytes = (size_t)a->n_values * sizeof *a->values;
    bool same = memcmp(a->values, b->values, bytes) == 0;
    if (copy) { memcpy(b->values, a->values, bytes); }
    for (size_t i = 0; i < peft__adapter_own_parts(a); i++) {
        const peft__adapter *p = PEFT__VEC_AT(&a->parts, peft__adapter *, i), *q = PEFT__VEC_AT(&b->parts, peft__adapter *, i);
        same = effect_same_values(p, q, copy) && same;
    }
    return same;
}

static peft_status effect_logits(effect_side *s, peft_model *m, const char *name) {
    peft_status st = PEFT_OK;
    peft_session *session = NULL;
    peft_batch *b = NULL;
    TRY(peft_session_create(m, s->a, name, NULL, &session));
    TRY(api_batch(effect_w.ctx, effect_ids, effect_lens, 2, &b));
    TRY(peft_session_logits(session, b, s->logits, EFFECT_LOGITS_MAX, &s->n_logits));
out:
    peft_batch_free(b);
    peft_session_free(session);
    return st;
}

static peft_status effect_train(effect_side *s, int steps) {
    peft_status st = PEFT_OK;
    peft_options *trainer = NULL, *optimizer = NULL;
    peft_trainer *t = NULL;
    peft_batch *b = NULL;
    double loss = 0;
    char text[128];
    (void)snprintf(text, sizeof text, "{'max_steps':%d,'max_length':8}", steps);
    TRY(api_options(effect_w.ctx, "trainer", text, &trainer));
    TRY(api_options(effect_w.ctx, "optimizer", "{'learning_rate':0.01,'lr_scheduler_type':'constant'}", &optimizer));
    TRY(peft_trainer_create(s->a, trainer, &t));
    TRY(peft_trainer_add_job(t, "x", NULL, NULL, optimizer));
    TRY(api_batch(effect_w.ctx, effect_ids, effect_lens, 2, &b));
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

static peft_status effect_config(effect_side *s) {
    peft_status st = PEFT_OK;
    const char *dir = runner_path(effect_w.dir, "config"), *file = s->x->method->config_file;
    TRY(peft_adapters_save(s->a, "x", dir, NULL));
    FILE *f = fopen(runner_path(dir, file != NULL ? file : "adapter_config.json"), "rb");
    size_t n = f != NULL ? fread(s->text, 1, sizeof s->text - 1, f) : 0;
    if (f != NULL) { (void)fclose(f); }
    s->text[n] = '\0';
out:
    return st;
}

/* Has the config `"key": value`? A value that begins with @ is the whole of it. */
static bool effect_config_has(const effect_side *s, const char *key, const char *value) {
    char text[512], wanted[1024];
    if (value == NULL) { return false; }
    effect_expand(value[0] == '@' ? value + 1 : value, text, sizeof text);
    (void)snprintf(wanted, sizeof wanted, value[0] == '@' ? "%s%s" : "\"%s\": %s", value[0] == '@' ? "" : key, text);
    return strstr(s->text, wanted) != NULL;
}

/* Does it compute the same when it is saved and read? */
static peft_status effect_survives(effect_side *s, peft_model *m, bool *out) {
    static effect_side back;
    peft_status st = PEFT_OK;
    char folder[64]; /* one a method: its files have names of their own */
    (void)snprintf(folder, sizeof folder, "saved-%s", s->x->method->name);
    const char *dir = runner_path(effect_w.dir, folder);
    memset(&back, 0, sizeof back);
    TRY(peft_adapters_save(s->a, "x", dir, NULL));
    TRY(peft_adapters_create(m, &back.a));
    TRY(effect_parts(back.a, s->x->method->name));
    TRY(peft_adapters_load(back.a, "x", dir, NULL));
    TRY(effect_logits(s, m, "x"));
    TRY(effect_logits(&back, m, "x"));
    *out = back.n_logits == s->n_logits && api_distance(s->logits, back.logits, s->n_logits) < 1e-6;
out:
    effect_close(&back);
    return st;
}

/* ---- a line -------------------------------------------------------------------------------------------------------------- */

static effect_side effect_one, effect_two;

/* One line of a method: NULL, or what is wrong. */
static const char *effect_compare(const effect_line *l, const char *method, peft_status *st) {
    effect_side *a = &effect_one, *b = &effect_two;
    bool survives = false, sized = l->what == EFFECT_BASE, named = l->what == EFFECT_FILE && l->two[0] == '@';
    peft_model *m = effect_w.llama;
    *st = effect_open(a, m, method, l, sized ? NULL : l->one);
    if (*st != PEFT_OK) { return "the first cannot be made"; }
    *st = effect_open(b, sized ? effect_w.gpt2 : m, method, l, sized ? NULL : named ? "'some/base'" : l->two);
    if (l->what == EFFECT_REFUSED) { return *st == PEFT_E_NOT_FOUND ? NULL : "the second is not refused"; }
    if (*st != PEFT_OK) { return "the second cannot be made"; }
    bool shapes = sized || effect_same_shapes(a->x, b->x);
    switch (l->what) {
    case EFFECT_FILE:
    case EFFECT_BASE:
        if ((*st = effect_config(a)) != PEFT_OK || (*st = effect_config(b)) != PEFT_OK) { return "it is not saved"; }
        if (sized && !effect_config_has(a, l->key, l->one)) { return "the first's config is another"; }
        if (!sized && effect_config_has(a, l->key, l->two)) { return "the first's config has it too"; }
        return effect_config_has(b, l->key, l->two) ? NULL : "the second's config has it not";
    case EFFECT_TEXT:
        effect_expand(l->two, a->text, sizeof a->text);
        a->text[strlen(a->text) - 1] = '\0';
        return b->x->method->text(b->x) != NULL && strcmp(b->x->method->text(b->x), a->text + 1) == 0 &&
               strcmp(a->x->method->text(a->x), a->text + 1) != 0 ? NULL : "the text is another";
    case EFFECT_SHAPES:
        if (shapes) { return "the parameters are the same"; }
        break;
    case EFFECT_VALUES:
        if (!shapes) { return "the parameters differ"; }
        return effect_same_values(a->x, b->x, false) ? "the values are the same" : NULL;
    default: break;
    }
    if ((*st = api_shake(a->a, "x", 0.3F)) != PEFT_OK || (*st = api_shake(b->a, "x", 0.3F)) != PEFT_OK) { return "not shaken"; }
    if (l->what != EFFECT_SHAPES) {
        if (!shapes) { return "the parameters differ"; }
        (void)effect_same_values(a->x, b->x, true);
    }
    if (l->what == EFFECT_TRAIN) {
        int steps = l->steps > 0 ? l->steps : 2;
        if ((*st = effect_train(a, steps)) != PEFT_OK || (*st = effect_train(b, steps)) != PEFT_OK) { return "not trained"; }
        return effect_same_values(a->x, b->x, false) ? "training is the same" : NULL;
    }
    if ((*st = effect_logits(a, m, "x")) != PEFT_OK || (*st = effect_logits(b, m, "x")) != PEFT_OK) { return "no logits"; }
    if (l->what == EFFECT_LOGITS && api_distance(a->logits, b->logits, a->n_logits) < 1e-5) { return "the logits are the same"; }
    if ((*st = effect_survives(b, m, &survives)) != PEFT_OK) { return "it is not saved and read"; }
    return survives ? NULL : "read from its file it computes something else";
}

static bool effect_names(const char *words, const char *method) {
    size_t n = strlen(method);
    for (const char *at = words; at != NULL && (at = strstr(at, method)) != NULL; at += n) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) { return true; }
    }
    return false;
}

static const effect_line *effect_find(const char *method, const char *key) {
    for (size_t i = 0; i < PEFT__COUNT(effect_lines); i++) {
        const effect_line *l = &effect_lines[i];
        if (strcmp(l->key, key) == 0 && (l->methods == NULL || effect_names(l->methods, method))) { return l; }
    }
    return NULL;
}

/* Folders that options name. */
static peft_status effect_sources(void) {
    static const char *const sources[][3] = {{"prompt", "prompt", NULL}, {"prefix", "prefix", NULL},
                                             {"multitask_prompt", "tasks", NULL}, {"multitask_prompt", "others", NULL}};
    peft_status st = PEFT_OK;
    peft_adapters *a = NULL;
    TRY(peft_adapters_create(effect_w.llama, &a));
    for (size_t i = 0; i < PEFT__COUNT(sources); i++) {
        TRY(effect_add(a, sources[i][1], sources[i][0], sources[i][2], NULL));
        TRY(api_shake(a, sources[i][1], 0.2F + 0.1F * (float)i));
        TRY(peft_adapters_save(a, sources[i][1], runner_path(effect_w.dir, sources[i][1]), NULL));
    }
out:
    peft_adapters_free(a);
    return st;
}

static peft_status effect_begin(void) {
    peft_status st = PEFT_OK;
    memset(&effect_w, 0, sizeof effect_w);
    effect_w.dir = runner_tmpdir();
    TRY(peft_context_create(NULL, &effect_w.ctx));
    TRY(peft_context_set_threads(effect_w.ctx, 1));
    TRY(peft__model_random(effect_w.ctx, EFFECT_LLAMA, strlen(EFFECT_LLAMA), 3, 0.2, &effect_w.llama));
    TRY(peft__model_random(effect_w.ctx, EFFECT_GPT2, strlen(EFFECT_GPT2), 3, 0.2, &effect_w.gpt2));
    TRY(effect_sources());
out:
    return st;
}

static void effect_end(void) {
    peft_model_free(effect_w.llama);
    peft_model_free(effect_w.gpt2);
    peft_context_free(effect_w.ctx);
}

TEST(options_effect_of_every_method) {
    int bad = 0, compared = 0;
    peft_status st = effect_begin();
    for (size_t i = 0; st == PEFT_OK && peft__method_at(i) != NULL; i++) {
        const peft__method *m = peft__method_at(i);
        for (size_t k = 0; k < m->schema->count; k++) {
            const char *key = m->schema->options[k].key, *wrong = NULL;
            const effect_line *l = effect_find(m->name, key);
            peft_status how = PEFT_OK;
            if (l == NULL) {
                printf("  option %s of method %s has no line\n", key, m->name);
                bad++;
                continue;
            }
            wrong = effect_compare(l, m->name, &how);
            if (wrong != NULL) {
                const char *why = how != PEFT_OK ? peft_last_error() : "";
                printf("  option %s of method %s: %s%s%s\n", key, m->name, wrong, how != PEFT_OK ? ": " : "", why);
            }
            bad += wrong != NULL;
            compared++;
            effect_close(&effect_one);
            effect_close(&effect_two);
        }
    }
    effect_end();
    CHECK_OK(st);
    CHECK_INT(bad, 0);
    CHECK(compared > 500);
}

/* Twice the same options are twice the same adapter, or the test above would show nothing. */
TEST(options_effect_none_without_a_cause) {
    static const effect_line none = {NULL, "", EFFECT_LOGITS, NULL, NULL, NULL, 0};
    int bad = 0;
    peft_status st = effect_begin();
    for (size_t i = 0; st == PEFT_OK && peft__method_at(i) != NULL; i++) {
        const char *name = peft__method_at(i)->name;
        effect_side *a = &effect_one, *b = &effect_two;
        st = effect_open(a, effect_w.llama, name, &none, NULL);
        if (st == PEFT_OK) { st = effect_open(b, effect_w.llama, name, &none, NULL); }
        bool same = st == PEFT_OK && effect_same_shapes(a->x, b->x) && effect_same_values(a->x, b->x, false);
        if (same) {
            st = effect_train(a, 2);
            if (st == PEFT_OK) { st = effect_train(b, 2); }
            same = st == PEFT_OK && effect_same_values(a->x, b->x, false);
        }
        if (!same) { printf("  method %s: %s\n", name, st != PEFT_OK ? peft_last_error() : "not the same twice"); }
        bad += !same;
        effect_close(a);
        effect_close(b);
    }
    effect_end();
    CHECK_OK(st);
    CHECK_INT(bad, 0);
}

/* Every word of a line is a method that the line is for. */
TEST(options_effect_lines_are_all_used) {
    for (size_t i = 0; i < PEFT__COUNT(effect_lines); i++) {
        const effect_line *l = &effect_lines[i];
        size_t used = 0;
        for (size_t k = 0; peft__method_at(k) != NULL; k++) {
            const peft__method *m = peft__method_at(k);
            used += peft__schema_find(m->schema, l->key) != NULL && effect_find(m->name, l->key) == l;
        }
        if (used == 0) { printf("  line %s of %s is for nothing\n", l->key, l->methods != NULL ? l->methods : "any"); }
        CHECK(used > 0);
    }
    for (size_t i = 0; i < PEFT__COUNT(effect_usual); i++) { CHECK(peft__method_find(effect_usual[i][0]) != NULL); }
}
