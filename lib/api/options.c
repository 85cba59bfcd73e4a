/* options.c - peft_options: a set of values by key, one by one or as a JSON object. */
#include "api/api.h"

peft_status peft_options_create(peft_context *ctx, const char *schema, peft_options **out) {
    peft_status st = PEFT_OK;
    const peft__schema *s = NULL;
    peft_options *o = NULL;
    TRY(peft__check_arg(out, "out"));
    *out = NULL;
    TRY(peft__check_handle(ctx, PEFT__MAGIC_CONTEXT, "ctx"));
    TRY(peft__check_text(schema, "schema"));
    TRY(peft__schema_by_name(schema, &s));
    o = peft__alloc_zero(&ctx->mem, sizeof *o);
    if (o == NULL) { return PEFT_E_NOMEM; }
    TRY(peft__optset_init(&o->set, &ctx->mem, s));
    o->magic = PEFT__MAGIC_OPTIONS;
    o->ctx = ctx;
    peft__ctx_retain(ctx);
    *out = o;
    o = NULL;
out:
    if (o != NULL) { peft__free(&ctx->mem, o, sizeof *o); }
    return st;
}

void peft_options_free(peft_options *o) {
    if (!peft__is_handle(o, PEFT__MAGIC_OPTIONS)) { return; }
    peft_context *ctx = o->ctx;
    peft__optset_free(&o->set);
    o->magic = PEFT__MAGIC_FREED;
    peft__free(&ctx->mem, o, sizeof *o);
    peft__ctx_release(ctx);
}

static peft_status options_check(const peft_options *o, const char *key) {
    peft_status st = peft__check_handle(o, PEFT__MAGIC_OPTIONS, "options");
    return st == PEFT_OK ? peft__check_text(key, "key") : st;
}

peft_status peft_options_set_int(peft_options *o, const char *key, int64_t value) {
    peft_status st = options_check(o, key);
    return st == PEFT_OK ? peft__opt_set_int(&o->set, key, value) : st;
}

peft_status peft_options_set_float(peft_options *o, const char *key, double value) {
    peft_status st = options_check(o, key);
    return st == PEFT_OK ? peft__opt_set_float(&o->set, key, value) : st;
}

peft_status peft_options_set_bool(peft_options *o, const char *key, int32_t value) {
    peft_status st = options_check(o, key);
    return st == PEFT_OK ? peft__opt_set_bool(&o->set, key, value != 0) : st;
}

static void options_exchange(peft__optset *a, peft__optset *b) {
    peft__optset before = *a;
    *a = *b;
    *b = before;
}

/* set: peft__opt_set_str or peft__opt_set_text. A list or map that names a key twice is refused: the set could not say it again. */
static peft_status options_set(peft_options *o, const char *key, const char *text,
                               peft_status (*set)(peft__optset *, const char *, const char *)) {
    const peft__json *node = NULL;
    peft__arena arena;
    peft__optset copy;
    memset(&copy, 0, sizeof copy);
    peft_status st = options_check(o, key);
    if (st != PEFT_OK) { return st; }
    peft__arena_init(&arena, &o->ctx->mem);
    TRY(peft__optset_copy(&copy, &o->ctx->mem, &o->set));
    TRY(set(&copy, key, text));
    const char *value = peft__opt_str(&copy, key);
    if (value[0] != '\0' && peft__option_is_json(peft__schema_find(copy.schema, key))) {
        st = peft__json_parse(&arena, value, strlen(value), key, &node);
        if (st != PEFT_OK) {
            st = st == PEFT_E_FORMAT ? PEFT_E_KEY : st;
            goto out;
        }
    }
    options_exchange(&o->set, &copy);
out:
    peft__arena_free(&arena);
    peft__optset_free(&copy);
    return st;
}

peft_status peft_options_set_str(peft_options *o, const char *key, const char *value) {
    return options_set(o, key, value, peft__opt_set_str);
}

peft_status peft_options_set_text(peft_options *o, const char *key, const char *text) {
    return options_set(o, key, text, peft__opt_set_text);
}

/* null: back to the default, which then does not count as given. */
static peft_status options_reset(peft__optset *set, const peft__option *opt) {
    peft_status st = PEFT_OK;
    peft__opt_value *v = &set->values[opt - set->schema->options];
    bool list = peft__option_is_json(opt);
    if (!v->set) { return PEFT_OK; }
    if (opt->dflt[0] != '\0' || list || opt->type == PEFT__OPT_STR) {
        TRY(peft__opt_set_text(set, opt->key, opt->dflt));
    } else {
        v->i = 0;
        v->f = 0;
    }
    v->set = false;
out:
    return st;
}

/* A list or map as the canonical text that the set keeps. */
static peft_status options_set_raw(peft__optset *set, const char *key, const peft__json *node) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__json_out j;
    peft__str_init(&text, set->mem);
    peft__json_begin(&j, &text, 0);
    peft__json_put_node(&j, node);
    TRY(peft__str_status(&text));
    TRY(peft__opt_set_raw(set, key, peft__str_c(&text)));
out:
    peft__str_free(&text);
    return st;
}

static peft_status options_set_node(peft__optset *set, const char *key, const peft__json *node) {
    const peft__option *opt = peft__schema_find(set->schema, key);
    if (opt == NULL) { return peft__opt_set_int(set, key, 0); } /* which says what is known */
    bool list = peft__option_is_json(opt);
    switch (node->kind) {
        case PEFT__JSON_NULL: return options_reset(set, opt);
        case PEFT__JSON_BOOL: return peft__opt_set_bool(set, key, node->truth);
        case PEFT__JSON_NUMBER:
            return node->is_int ? peft__opt_set_int(set, key, node->i) : peft__opt_set_float(set, key, node->num);
        case PEFT__JSON_STRING:
            if (list && opt->type != PEFT__OPT_PAIRS && node->len > 0) { return options_set_raw(set, key, node); }
            if (strlen(node->str) != node->len) {
                return peft__fail(PEFT_E_KEY, "key \"%s\" has a NUL character", key);
            }
            return peft__opt_set_str(set, key, node->str);
        default: return options_set_raw(set, key, node);
    }
}

peft_status peft_options_set_json(peft_options *o, const char *json, size_t len) {
    peft_status st = PEFT_OK;
    const peft__json *root = NULL;
    peft__arena arena;
    peft__optset copy;
    memset(&copy, 0, sizeof copy);
    TRY(peft__check_handle(o, PEFT__MAGIC_OPTIONS, "options"));
    peft__arena_init(&arena, &o->ctx->mem);
    TRY(peft__check_bytes(json, len, "json"));
    TRY(peft__json_parse(&arena, json, len, "options", &root));
    if (root->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "options: expected a JSON object"); }
    TRY(peft__optset_copy(&copy, &o->ctx->mem, &o->set));
    for (size_t i = 0; i < root->len; i++) { TRY(options_set_node(&copy, root->keys[i].str, &root->items[i])); }
    options_exchange(&o->set, &copy);
out:
    if (peft__is_handle(o, PEFT__MAGIC_OPTIONS)) { peft__arena_free(&arena); }
    peft__optset_free(&copy);
    return st;
}

peft_status peft_options_get_json(const peft_options *o, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    peft__str text;
    peft__json_out j;
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_handle(o, PEFT__MAGIC_OPTIONS, "options"));
    peft__str_init(&text, &o->ctx->mem);
    peft__json_begin(&j, &text, 0);
    peft__json_object(&j);
    for (size_t i = 0; i < o->set.schema->count; i++) {
        peft__json_key(&j, o->set.schema->options[i].key);
        peft__option_json(&o->set.schema->options[i], &o->set.values[i], &j);
    }
    peft__json_object_end(&j);
    return peft__finish_text(PEFT_OK, &text, buf, cap, needed);
out:
    return st;
}
