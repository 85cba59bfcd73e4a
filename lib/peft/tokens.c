/* tokens.c - trained rows of single tokens, of those that the base has and of new ones.
 *
 * A parameter [n, C] holds the rows themselves, which stand in for those of n ids in the table of embeddings (PEFT's name for
 * it, trainable_tokens_delta, says otherwise). A tied head uses them as well, an untied one has its own where asked for.
 *
 * New tokens have the ids V, V + 1, ... after the base's vocabulary, and exist with the adapter only. The embedding has rows
 * for all of them and so has the head, tied or not. They start as the mean of the base's rows: by Jensen's inequality a logit
 * that is the mean of the others is at most the logarithm of their mean exponential, so that n new tokens take at most the
 * share n / (V + n) of the probability and the base's predictions hardly change; rows of zeros, or random ones, may take
 * nearly all of it (Hewitt 2021, "Initializing new word embeddings for pretrained language models").
 *
 * In a file the list of ids names the new ones too, as it is after HF's model.resize_token_embeddings(V + n).
 *
 * Left out: tables of positions; rows of projections. */
#include "peft/tokens.h"

/* ---- what is asked for --------------------------------------------------------------------------------------- */

static void tokens_sites(const peft__base_info *base, peft__tokens *k) {
    for (size_t i = 0; i < base->n_sites; i++) {
        const peft__site *s = &base->sites[i];
        if (s->kind == PEFT__SITE_EMBED && s->role == PEFT__ROLE_TOKENS && k->table.site == NULL) { k->table.site = s; }
        if (s->kind == PEFT__SITE_HEAD && k->head.site == NULL) { k->head.site = s; }
    }
}

/* A list that has nothing but new tokens may be empty here. */
static peft_status tokens_ids(peft__adapter *a, const char *key, const peft__json *list, peft__token_rows *out) {
    peft_status st = PEFT_OK;
    if (list->kind != PEFT__JSON_ARRAY) { FAIL(PEFT_E_KEY, "key \"%s\": expected a list of token ids", key); }
    if (list->len == 0 && a->new_tokens == 0) { FAIL(PEFT_E_KEY, "key \"%s\" is an empty list, expected ids of tokens", key); }
    out->ids = peft__arena_alloc(&a->arena, PEFT__MAX(list->len, (size_t)1) * sizeof *out->ids);
    if (out->ids == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < list->len; i++) {
        const peft__json *item = &list->items[i];
        if (item->kind != PEFT__JSON_NUMBER || !item->is_int) { FAIL(PEFT_E_KEY, "key \"%s\": item %zu is no token id", key, i); }
        if (item->i < 0 || item->i > INT32_MAX) {
            FAIL(PEFT_E_SHAPE, "key \"%s\": token id %lld is no id of a vocabulary", key, (long long)item->i);
        }
        out->ids[out->n++] = (int32_t)item->i;
    }
out:
    return st;
}

/* {"embed_tokens": [...], "lm_head": [...]} */
static peft_status tokens_by_module(peft__adapter *a, const char *key, const peft__json *map, peft__tokens *k) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < map->len; i++) {
        const char *name = map->keys[i].str;
        bool table = peft__path_ends(k->table.site->path, name);
        bool head = !table && k->head.site != NULL && peft__path_ends(k->head.site->path, name);
        peft__token_rows *rows = table ? &k->table : &k->head;
        if (!table && !head) {
            FAIL(PEFT_E_NOT_FOUND, "key \"%s\": no table of embeddings and no head is called \"%s\"; there is \"%s\"%s%s%s", key,
                 name, k->table.site->path, k->head.site != NULL ? " and \"" : "", k->head.site != NULL ? k->head.site->path : "",
                 k->head.site != NULL ? "\"" : "");
        }
        if (rows->ids != NULL) { FAIL(PEFT_E_KEY, "key \"%s\" names \"%s\" twice", key, rows->site->path); }
        TRY(tokens_ids(a, key, &map->items[i], rows));
    }
out:
    return st;
}

/* How many of a file's ids are new: those from V on, all of which it must have. */
static peft_status tokens_count_new(const peft__token_rows *table, const peft__token_rows *head, const char *key, int64_t vocab,
                                    int64_t *out) {
    peft_status st = PEFT_OK;
    int64_t most = -1, have = 0;
    for (int64_t i = 0; i < head->n; i++) { most = PEFT__MAX(most, head->ids[i]); }
    for (int64_t i = 0; i < table->n; i++) {
        most = PEFT__MAX(most, table->ids[i]);
        have += table->ids[i] >= vocab;
    }
    *out = PEFT__MAX(most + 1 - vocab, 0);
    if (have < *out) {
        FAIL(PEFT_E_SHAPE, "key \"%s\" has token id %lld, and the vocabulary %lld: %lld of the tokens from there have no embedding",
             key, (long long)most, (long long)vocab, (long long)(*out - have));
    }
out:
    return st;
}

/* Ids below that of the last new token, each once; new ones that are not among them come after them. */
static peft_status tokens_complete(peft__adapter *a, const char *key, int64_t vocab, peft__token_rows *rows) {
    peft_status st = PEFT_OK;
    int64_t limit = vocab + a->new_tokens;
    size_t bytes = (size_t)limit * sizeof(bool);
    if (rows->ids == NULL) { return PEFT_OK; }
    int32_t *ids = peft__arena_alloc(&a->arena, (size_t)(rows->n + a->new_tokens) * sizeof *ids);
    bool *seen = peft__alloc_zero(a->mem, bytes);
    if (seen == NULL || ids == NULL) {
        peft__free(a->mem, seen, bytes);
        return PEFT_E_NOMEM;
    }
    memcpy(ids, rows->ids, (size_t)rows->n * sizeof *ids);
    rows->ids = ids;
    for (int64_t i = 0; i < rows->n; i++) {
        int32_t id = rows->ids[i];
        if (id >= limit) {
            FAIL(PEFT_E_SHAPE, "key \"%s\": token id %d is outside the vocabulary of %lld%s", key, (int)id, (long long)limit,
                 a->new_tokens > 0 ? ", new tokens included" : "");
        }
        if (seen[id]) { FAIL(PEFT_E_KEY, "key \"%s\" has token id %d twice", key, (int)id); }
        seen[id] = true;
    }
    for (int64_t id = vocab; id < limit; id++) {
        if (!seen[id]) { ids[rows->n++] = (int32_t)id; }
    }
out:
    peft__free(a->mem, seen, bytes);
    return st;
}

static bool tokens_same(const peft__token_rows *a, const peft__token_rows *b) {
    return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids) == 0);
}

static peft_status tokens_read(peft__adapter *a, peft__arena *scratch, const char *key, uint32_t sites, peft__tokens *k) {
    peft_status st = PEFT_OK;
    static const peft__json none = {.kind = PEFT__JSON_ARRAY};
    const char *text = peft__opt_str(&a->opts, key);
    const peft__json *node = &none;
    if (text[0] != '\0') { TRY(peft__json_parse(scratch, text, strlen(text), key, &node)); }
    if (node->kind == PEFT__JSON_OBJECT) {
        TRY(tokens_by_module(a, key, node, k));
    } else {
        if ((sites & PEFT__TOKENS_TABLE) != 0) { TRY(tokens_ids(a, key, node, &k->table)); }
        if ((sites & PEFT__TOKENS_HEAD) != 0 && k->head.site != NULL) { TRY(tokens_ids(a, key, node, &k->head)); }
    }
out:
    return st;
}

static void tokens_put_list(peft__json_out *j, const peft__token_rows *rows) {
    peft__json_array(j);
    for (int64_t i = 0; i < rows->n; i++) { peft__json_put_int(j, rows->ids[i]); }
    peft__json_array_end(j);
}

/* The options as they were understood: one list where one says it all. */
static peft_status tokens_write_back(peft__adapter *a, const char *key, const peft__tokens *k, bool by_module) {
    peft_status st = PEFT_OK;
    const peft__token_rows *all[2] = {&k->table, &k->head};
    peft__str text;
    peft__json_out j;
    peft__str_init(&text, a->mem);
    peft__json_begin(&j, &text, 0);
    if (by_module) {
        peft__json_object(&j);
        for (int i = 0; i < 2; i++) {
            if (all[i]->n == 0) { continue; }
            peft__json_key(&j, peft__path_leaf(all[i]->site->path));
            tokens_put_list(&j, all[i]);
        }
        peft__json_object_end(&j);
    } else {
        tokens_put_list(&j, k->table.n > 0 ? &k->table : &k->head);
    }
    TRY(peft__str_status(&text));
    TRY(peft__opt_set_raw(&a->opts, key, peft__str_c(&text)));
    TRY(peft__opt_set_int(&a->opts, "num_new_tokens", a->new_tokens));
out:
    peft__str_free(&text);
    return st;
}

/* New tokens are in both matrices; where one list says all (`single`), it says it of both. */
static peft_status tokens_both(peft__adapter *a, const char *key, bool single, bool tied, peft__tokens *k) {
    peft_status st = PEFT_OK;
    static const peft__json none = {.kind = PEFT__JSON_ARRAY};
    peft__token_rows *all[2] = {&k->table, &k->head};
    if (a->new_tokens == 0) { return PEFT_OK; }
    for (int i = 0; i < 2; i++) {
        peft__token_rows *rows = all[i], *other = all[1 - i];
        if (rows->ids != NULL || rows->site == NULL || (i == 1 && tied)) { continue; }
        if (single && other->ids != NULL) {
            rows->ids = other->ids;
            rows->n = other->n;
        } else {
            TRY(tokens_ids(a, key, &none, rows));
        }
    }
out:
    return st;
}

peft_status peft__tokens_resolve(peft__adapter *a, const char *key, uint32_t sites, const char *wrapper) {
    peft_status st = PEFT_OK;
    bool single = peft__schema_find(a->opts.schema, key)->type == PEFT__OPT_LIST;
    peft__arena scratch;
    a->new_tokens = peft__opt_int(&a->opts, "num_new_tokens");
    if (peft__opt_str(&a->opts, key)[0] == '\0' && a->new_tokens == 0) { return PEFT_OK; }
    peft__tokens *k = peft__arena_alloc(&a->arena, sizeof *k);
    if (k == NULL) { return PEFT_E_NOMEM; }
    peft__arena_init(&scratch, a->mem);
    tokens_sites(a->base, k);
    k->wrapper = wrapper;
    if (k->table.site == NULL) { FAIL(PEFT_E_NOT_FOUND, "the %s model has no table of embeddings", a->base->model_type); }
    int64_t vocab = k->table.site->in;
    TRY(tokens_read(a, &scratch, key, sites, k));
    if (a->from_file) { TRY(tokens_count_new(&k->table, &k->head, key, vocab, &a->new_tokens)); }
    if (vocab + a->new_tokens > INT32_MAX) {
        FAIL(PEFT_E_SHAPE, "num_new_tokens: %lld tokens are too many", (long long)a->new_tokens);
    }
    bool tied = k->head.site != NULL && k->head.site->tied_to == k->table.site->id, listed = k->head.ids != NULL;
    TRY(tokens_both(a, key, single, tied, k));
    TRY(tokens_complete(a, key, vocab, &k->table));
    TRY(tokens_complete(a, key, vocab, &k->head));
    k->shared = tied && k->table.n > 0 && (!listed || tokens_same(&k->table, &k->head));
    if (k->shared) { k->head.n = 0; }
    k->twin = single && k->shared;
    TRY(tokens_write_back(a, key, k, !single && k->head.n > 0));
    a->tokens = k;
out:
    peft__arena_free(&scratch);
    return st;
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status tokens_attach(peft__adapter *a, const peft__token_rows *rows, peft__attachment **out) {
    peft_status st = peft__adapter_attach(a, rows->site, out);
    if (st != PEFT_OK) { return st; }
    if ((*out)->weight_param >= 0) {
        return peft__fail(PEFT_E_UNSUPPORTED, "\"%s\" is trained whole by modules_to_save, and rows of it for single tokens: one "
                          "of them is too many", rows->site->path);
    }
    return PEFT_OK;
}

peft_status peft__tokens_add(peft__adapter *a, const peft__site *s) {
    peft_status st = PEFT_OK;
    const peft__tokens *k = a->tokens;
    peft__attachment *at = NULL, *table = NULL;
    if (k == NULL || (s != k->table.site && s != k->head.site)) { return PEFT_OK; }
    const peft__token_rows *rows = s == k->table.site ? &k->table : &k->head;
    if (rows->n > 0) {
        TRY(tokens_attach(a, rows, &at));
        TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%strainable_tokens_delta", s->path, k->wrapper),
                                    PEFT__SLOT_TOKENS, rows->n, s->weight->cols, 2, false, false));
        at->rows_param = (int32_t)peft__adapter_param_count(a) - 1;
        at->tokens = rows->ids;
        at->product = true;
    } else if (s == k->head.site && k->shared) { /* the table comes before it */
        TRY(peft__adapter_attach(a, k->table.site, &table));
        int32_t shared = table->rows_param;
        TRY(tokens_attach(a, rows, &at));
        at->rows_param = shared;
        at->tokens = k->table.ids;
    }
out:
    return st;
}

static const peft__token_rows *tokens_rows(const peft__adapter *a, size_t i) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    if (a->tokens == NULL || p->slot != PEFT__SLOT_TOKENS || p->whole) { return NULL; }
    return p->site == a->tokens->table.site->id ? &a->tokens->table : &a->tokens->head;
}

bool peft__tokens_init(const peft__adapter *a, size_t i, bool normal, peft__rng *rng, const peft__kernels *k) {
    const peft__token_rows *rows = tokens_rows(a, i);
    const peft__param *p = &peft__adapter_param_at(a, i)->p;
    if (rows == NULL) { return false; }
    for (int64_t r = 0; r < p->rows; r++) {
        if (!normal && rows->ids[r] < rows->site->weight->rows) {
            peft__weight_row(k, rows->site->weight, rows->ids[r], p->value + r * p->cols);
        }
        for (int64_t c = 0; c < p->cols && normal; c++) { p->value[r * p->cols + c] = PEFT__R(peft__rng_normal(rng)); }
    }
    return true;
}

/* mean[cols] of a matrix's rows; row: room for one. */
static void tokens_mean(const peft__weight *w, const peft__kernels *k, double *mean, peft__real *row) {
    memset(mean, 0, (size_t)w->cols * sizeof *mean);
    for (int64_t r = 0; r < w->rows; r++) {
        peft__weight_row(k, w, r, row);
        for (int64_t c = 0; c < w->cols; c++) { mean[c] += (double)row[c]; }
    }
    for (int64_t c = 0; c < w->cols; c++) { mean[c] /= (double)w->rows; }
}

peft_status peft__tokens_settle(peft__adapter *a, bool normal, const peft__kernels *k) {
    for (size_t i = 0; i < peft__adapter_param_count(a) && a->new_tokens > 0 && !normal; i++) {
        const peft__token_rows *rows = tokens_rows(a, i);
        const peft__param *p = &peft__adapter_param_at(a, i)->p;
        if (rows == NULL) { continue; }
        size_t bytes = (size_t)p->cols * (sizeof(double) + sizeof(peft__real));
        double *mean = peft__alloc(a->mem, bytes);
        if (mean == NULL) { return PEFT_E_NOMEM; }
        tokens_mean(rows->site->weight, k, mean, (peft__real *)(void *)(mean + p->cols));
        for (int64_t r = 0; r < p->rows; r++) {
            if (rows->ids[r] < rows->site->weight->rows) { continue; }
            for (int64_t c = 0; c < p->cols; c++) { p->value[r * p->cols + c] = PEFT__R(mean[c]); }
        }
        peft__free(a->mem, mean, bytes);
    }
    return PEFT_OK;
}

peft_status peft__tokens_twin(const peft__adapter *a, peft__arena *arena, peft__param *out) {
    const peft__tokens *k = a->tokens;
    *out = (peft__param){0};
    if (k == NULL || !k->shared) { return PEFT_OK; }
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        if (tokens_rows(a, i) == &k->table) { *out = peft__adapter_param_at(a, i)->p; }
    }
    out->name = peft__arena_printf(arena, "base_model.model.%s.%strainable_tokens_delta", k->head.site->path, k->wrapper);
    return out->name != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

/* ---- what acts ----------------------------------------------------------------------------------------------- */

peft__val peft__tokens_embed(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val y,
                             double scale) {
    (void)s;
    if (at->rows_param < 0) { return y; }
    int64_t n = peft__adapter_param_at(a, (size_t)at->rows_param)->p.rows;
    return peft__op_embed_rows(t, y, at->tokens, n, peft__adapter_tape_copy(a, at->rows_param, t), scale);
}

peft__val peft__tokens_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__head_spec *spec) {
    if (at->rows_param < 0) { return x; }
    if (spec->n_rows > 0) {
        peft__tape_fail(t, PEFT_E_UNSUPPORTED,
                        "adapter \"%s\" and one before it replace rows of tokens in \"%s\", and the head takes one", a->name, s->path);
        return x;
    }
    spec->rows_param = peft__adapter_tape_copy(a, at->rows_param, t);
    spec->row_ids = at->tokens;
    spec->n_rows = peft__adapter_param_at(a, (size_t)at->rows_param)->p.rows;
    spec->extra = a->new_tokens;
    t->vocab_extra = PEFT__MAX(t->vocab_extra, a->new_tokens);
    return x;
}

peft_status peft__tokens_merge(const peft__adapter *a, const peft__attachment *at, peft__real *weight) {
    if (at->rows_param < 0) { return PEFT_OK; }
    const peft__param *p = &peft__adapter_param_at(a, (size_t)at->rows_param)->p;
    if (at->strength != 1) { /* the rows that were there are in no file, so that they cannot be put back either */
        return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\" replaces rows of tokens, which has no factor", a->name);
    }
    for (int64_t r = 0; r < p->rows; r++) {
        memcpy(weight + at->tokens[r] * p->cols, p->value + r * p->cols, (size_t)p->cols * sizeof *weight);
    }
    return PEFT_OK;
}
