/* expression.c - the text that says which adapters act:
 *
 *   list   := item { "," item }                      one after the other, as stack(...)
 *   item   := [ number "*" ] ( NAME | block "(" list ")" ) [ ":" number ]
 *   block  := stack | average | parallel | split | batch_split | fuse | freeze
 *
 * A factor before an item scales its effect (0: off; LoRA's -1 takes it out). The number after a colon is a weight in average,
 * a number of tokens in split, of rows in batch_split, and elsewhere a factor again. The names of blocks follow AdapterHub's
 * composition blocks; freeze(x) keeps x out of training. The name of a union stands for the stack of its parts, that of a
 * fusion for the fuse of its.
 *
 * Left out: parallel and batch_split inside of another (rows are divided once). */
#include "peft/expression.h"

typedef struct expression_reader {
    peft__expression *e;
    struct peft_adapters *set;
    const char *at;             /* what is left */
    int32_t depth;
    const peft__expression *of; /* whose adapters are taken; NULL: the set's */
} expression_reader;

enum { EXPRESSION_DEPTH = 16 };

static const char *const expression_blocks[] = {"", "stack", "average", "parallel", "split", "batch_split", "fuse", "freeze"};
enum { EXPRESSION_FREEZE = 7 };

static peft_status expression_list(expression_reader *r, peft__node *into, bool own);

static void expression_space(expression_reader *r) {
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n') { r->at++; }
}

static peft_status expression_fail(const expression_reader *r, const char *expected) {
    return peft__fail(PEFT_E_INVALID, "the expression \"%s\" has \"%.20s\" at byte %zu, expected %s", r->e->text, r->at,
                      (size_t)(r->at - r->e->text), expected);
}

static peft__node *expression_node(peft__expression *e, int32_t kind) {
    peft__node *n = peft__arena_alloc(&e->arena, sizeof *n);
    if (n != NULL) { *n = (peft__node){.kind = kind, .factor = 1, .leaf = -1, .branch = e->branch}; }
    return n;
}

static peft_status expression_children(peft__expression *e, peft__node *into, peft__node *const *list, size_t n) {
    into->child = peft__arena_alloc(&e->arena, PEFT__MAX(n, (size_t)1) * sizeof *into->child);
    if (into->child == NULL) { return PEFT_E_NOMEM; }
    if (n > 0) { memcpy(into->child, list, n * sizeof *list); }
    into->n = n;
    return PEFT_OK;
}

/* ---- adapters -------------------------------------------------------------------------------------------------------- */

static peft_status expression_leaf(peft__expression *e, peft__node *n) {
    for (size_t i = 0; i < e->n_leaves; i++) {
        const peft__node *other = e->leaves[i];
        if (other->adapter == n->adapter && (n->branch < 0 || other->branch < 0 || n->branch == other->branch)) {
            return peft__fail(PEFT_E_INVALID, "the expression has adapter \"%s\" twice", n->adapter->name);
        }
    }
    if (e->n_leaves == PEFT__EXPRESSION_MAX) {
        return peft__fail(PEFT_E_UNSUPPORTED, "the expression has more than %d adapters", PEFT__EXPRESSION_MAX);
    }
    n->leaf = (int32_t)e->n_leaves;
    e->leaves[e->n_leaves++] = n;
    return PEFT_OK;
}

/* A node for an adapter; with parts, the block that it stands for. */
static peft_status expression_adapter(peft__expression *e, peft__adapter *a, int32_t depth, peft__node **out) {
    static const int32_t kinds[] = {PEFT__NODE_ADAPTER, PEFT__NODE_STACK, PEFT__NODE_FUSE};
    peft_status st = PEFT_OK;
    peft__node *n = expression_node(e, kinds[a->method->combine]), *parts[PEFT__EXPRESSION_MAX];
    if (n == NULL) { return PEFT_E_NOMEM; }
    n->adapter = n->kind == PEFT__NODE_STACK ? NULL : a;
    if (depth > EXPRESSION_DEPTH || a->parts.len > PEFT__EXPRESSION_MAX) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" has too many parts", a->name);
    }
    for (size_t i = 0; i < a->parts.len; i++) {
        TRY(expression_adapter(e, PEFT__VEC_AT(&a->parts, peft__adapter *, i), depth + 1, &parts[i]));
    }
    TRY(expression_children(e, n, parts, a->parts.len));
    if (n->adapter != NULL) { TRY(expression_leaf(e, n)); }
    *out = n;
out:
    return st;
}

/* What another expression holds by this name (NULL: any name) and, of a fusion, with these parts. */
static peft__adapter *expression_held(const peft__expression *of, const char *name, peft__adapter *const *parts, size_t n) {
    for (size_t i = 0; i < of->n_pinned; i++) {
        peft__adapter *a = of->pinned[i];
        if (name != NULL ? strcmp(a->name, name) == 0 : peft__set_is_fusion(a, parts, n)) { return a; }
    }
    return NULL;
}

static peft_status expression_pin(expression_reader *r, const char *name, size_t len, peft__node **out) {
    peft_status st = PEFT_OK;
    peft__expression *e = r->e;
    char text[256];
    if (r->set == NULL) { FAIL(PEFT_E_INVALID, "there are no adapters to take \"%.*s\" from", (int)PEFT__MIN(len, 200), name); }
    if (len >= sizeof text) { FAIL(PEFT_E_NOT_FOUND, "there is no adapter \"%.60s...\"", name); }
    memcpy(text, name, len);
    text[len] = '\0';
    if (e->n_pinned == PEFT__EXPRESSION_MAX) {
        FAIL(PEFT_E_UNSUPPORTED, "the expression has more than %d adapters", PEFT__EXPRESSION_MAX);
    }
    peft__adapter *held = !PEFT__MINIMAL && r->of != NULL ? expression_held(r->of, text, NULL, 0) : NULL;
    if (held != NULL) {
        peft__adapter_retain(held);
        e->pinned[e->n_pinned] = held;
    } else {
        TRY(peft__set_pin(r->set, text, &e->pinned[e->n_pinned]));
    }
    e->n_pinned++;
    TRY(expression_adapter(e, e->pinned[e->n_pinned - 1], 0, out));
out:
    return st;
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------- */

static peft_status expression_average(peft__expression *e, peft__node *n, const double *numbers) {
    peft_status st = PEFT_OK;
    double sum = 0;
    n->weights = peft__arena_alloc(&e->arena, n->n * sizeof *n->weights);
    if (n->weights == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < n->n; i++) { sum += numbers[i] >= 0 ? numbers[i] : 1; }
    if (sum <= 0) { FAIL(PEFT_E_INVALID, "the weights of average(...) add up to 0"); }
    for (size_t i = 0; i < n->n; i++) { n->weights[i] = (numbers[i] >= 0 ? numbers[i] : 1) / sum; }
out:
    return st;
}

static peft_status expression_sizes(peft__expression *e, peft__node *n, const double *numbers, const char *what) {
    peft_status st = PEFT_OK;
    n->sizes = peft__arena_alloc(&e->arena, n->n * sizeof *n->sizes);
    if (n->sizes == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < n->n; i++) {
        bool rest = numbers[i] < 0 && i + 1 == n->n && n->kind == PEFT__NODE_SPLIT;
        if (!rest && (numbers[i] < 1 || numbers[i] > 1e9 || numbers[i] != (double)(int64_t)numbers[i])) {
            FAIL(PEFT_E_INVALID, "item %zu of %s(...) has no number of %s: write %s(a:2, b:3)", i + 1, what,
                 n->kind == PEFT__NODE_SPLIT ? "tokens" : "rows", what);
        }
        n->sizes[i] = rest ? -1 : (int64_t)numbers[i];
    }
out:
    return st;
}

static peft_status expression_fusion(expression_reader *r, peft__node *n) {
    peft_status st = PEFT_OK;
    peft__expression *e = r->e;
    peft__adapter *parts[PEFT__EXPRESSION_MAX];
    for (size_t i = 0; i < n->n; i++) {
        if (n->child[i]->kind != PEFT__NODE_ADAPTER || n->child[i]->factor != 1) {
            FAIL(PEFT_E_UNSUPPORTED, "fuse(...) takes names of adapters, without factors");
        }
        parts[i] = n->child[i]->adapter;
    }
    if (e->n_pinned == PEFT__EXPRESSION_MAX) {
        FAIL(PEFT_E_UNSUPPORTED, "the expression has more than %d adapters", PEFT__EXPRESSION_MAX);
    }
    n->adapter = !PEFT__MINIMAL && r->of != NULL ? expression_held(r->of, NULL, parts, n->n) : NULL;
    if (n->adapter != NULL) {
        peft__adapter_retain(n->adapter);
    } else {
        TRY(peft__set_pin_fusion(r->set, parts, n->n, &n->adapter));
    }
    e->pinned[e->n_pinned++] = n->adapter;
    TRY(expression_leaf(e, n));
out:
    return st;
}

/* The rows of a batch are divided by one block. */
static peft_status expression_divides(peft__expression *e, const peft__node *n) {
    if (e->rows != NULL) { return peft__fail(PEFT_E_UNSUPPORTED, "an expression has one parallel(...) or batch_split(...) at most"); }
    if (n->n > PEFT__GROUPS) {
        return peft__fail(PEFT_E_UNSUPPORTED, "a block that divides rows has %zu items, at most %d", n->n, (int)PEFT__GROUPS);
    }
    e->rows = n;
    return PEFT_OK;
}

static peft_status expression_block(expression_reader *r, int32_t which, peft__node **out) {
    static const int32_t kinds[] = {PEFT__NODE_STACK, PEFT__NODE_STACK, PEFT__NODE_AVERAGE, PEFT__NODE_PARALLEL, PEFT__NODE_SPLIT,
                                    PEFT__NODE_BATCH_SPLIT, PEFT__NODE_FUSE, PEFT__NODE_STACK};
    peft_status st = PEFT_OK;
    peft__node *n = expression_node(r->e, kinds[which]);
    if (n == NULL) { return PEFT_E_NOMEM; }
    if (++r->depth > EXPRESSION_DEPTH) { FAIL(PEFT_E_UNSUPPORTED, "the expression nests deeper than %d blocks", EXPRESSION_DEPTH); }
    n->frozen = which == EXPRESSION_FREEZE;
    TRY(expression_list(r, n, true));
    if (*r->at != ')') { st = expression_fail(r, "\",\" or \")\""); goto out; }
    r->at++;
    r->depth--;
    if (n->kind == PEFT__NODE_FUSE) {
        TRY(PEFT__MINIMAL ? expression_fail(r, "another block: a minimal library has no fusion") : expression_fusion(r, n));
    }
    if (n->kind == PEFT__NODE_PARALLEL || n->kind == PEFT__NODE_BATCH_SPLIT) { TRY(expression_divides(r->e, n)); }
    *out = n;
out:
    return st;
}

/* ---- items ----------------------------------------------------------------------------------------------------------- */

/* A number, if one begins here. */
static bool expression_number(expression_reader *r, double *out) {
    size_t len = strspn(r->at, "+-.0123456789eE");
    if (len == 0 || !peft__parse_f64(r->at, len, out)) { return false; }
    r->at += len;
    return true;
}

/* `number *` before an item; a name that begins with digits is a name. */
static double expression_factor(expression_reader *r) {
    const char *begin = r->at;
    double v = 1;
    if (expression_number(r, &v)) {
        expression_space(r);
        if (*r->at == '*') {
            r->at++;
            expression_space(r);
            return v;
        }
    }
    r->at = begin;
    return 1;
}

static peft_status expression_item(expression_reader *r, peft__node **out, double *number) {
    peft_status st = PEFT_OK;
    int32_t which = 0;
    expression_space(r);
    double factor = expression_factor(r);
    const char *name = r->at;
    size_t len = strcspn(name, ",()[]|:*+");
    while (len > 0 && (name[len - 1] == ' ' || name[len - 1] == '\t' || name[len - 1] == '\n')) { len--; }
    if (len == 0) { st = expression_fail(r, "the name of an adapter or a block"); goto out; }
    r->at = name + len;
    expression_space(r);
    if (*r->at == '(') {
        for (size_t i = 1; i < PEFT__COUNT(expression_blocks); i++) {
            if (strlen(expression_blocks[i]) == len && memcmp(expression_blocks[i], name, len) == 0) { which = (int32_t)i; }
        }
        if (which == 0) {
            FAIL(PEFT_E_INVALID, "there is no block \"%.*s\": known are stack, average, parallel, split, batch_split, fuse, freeze",
                 (int)PEFT__MIN(len, 60), name);
        }
        r->at++;
        TRY(expression_block(r, which, out));
    } else {
        TRY(expression_pin(r, name, len, out));
    }
    (*out)->factor *= factor;
    expression_space(r);
    if (*r->at == ':') {
        r->at++;
        expression_space(r);
        if (!expression_number(r, number)) { st = expression_fail(r, "a number"); goto out; }
        expression_space(r);
    }
out:
    return st;
}

/* Items up to a ")" or the end. own: the colon's numbers are `into`'s; else factors of the items. */
static peft_status expression_list(expression_reader *r, peft__node *into, bool own) {
    peft_status st = PEFT_OK;
    peft__node *list[PEFT__EXPRESSION_MAX];
    double numbers[PEFT__EXPRESSION_MAX];
    size_t n = 0;
    bool divides = into->kind == PEFT__NODE_PARALLEL || into->kind == PEFT__NODE_BATCH_SPLIT;
    bool named = own && (into->kind == PEFT__NODE_AVERAGE || into->kind == PEFT__NODE_SPLIT || into->kind == PEFT__NODE_BATCH_SPLIT);
    for (;; r->at++) {
        const double none = -1e300; /* no colon */
        double number = none;
        if (divides) { r->e->branch = (int32_t)n; }
        if (n == PEFT__EXPRESSION_MAX) { FAIL(PEFT_E_UNSUPPORTED, "a block has more than %d items", PEFT__EXPRESSION_MAX); }
        TRY(expression_item(r, &list[n], &number));
        if (named && number > none && number < 0) { FAIL(PEFT_E_INVALID, "a weight or a size of a block is negative"); }
        if (!named && number > none) { list[n]->factor *= number; }
        numbers[n++] = number > none ? number : -1;
        if (*r->at != ',') { break; }
    }
    if (divides) { r->e->branch = -1; }
    TRY(expression_children(r->e, into, list, n));
    if (into->kind == PEFT__NODE_AVERAGE) { TRY(expression_average(r->e, into, numbers)); }
    if (into->kind == PEFT__NODE_SPLIT) { TRY(expression_sizes(r->e, into, numbers, "split")); }
    if (into->kind == PEFT__NODE_BATCH_SPLIT) { TRY(expression_sizes(r->e, into, numbers, "batch_split")); }
out:
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static void expression_freeze(peft__node *n, bool frozen) {
    n->frozen = n->frozen || frozen;
    for (size_t i = 0; i < n->n; i++) { expression_freeze(n->child[i], n->frozen || n->kind == PEFT__NODE_FUSE); }
}

static void expression_begin(peft__expression *e, peft__mem *mem, const char *text) {
    memset(e, 0, sizeof *e);
    e->mem = mem;
    e->branch = e->user = -1;
    peft__arena_init(&e->arena, mem);
    e->text = peft__arena_strdup(&e->arena, text, strlen(text));
}

peft_status peft__expression_parse(peft__expression *e, peft__mem *mem, struct peft_adapters *set, const char *text) {
    peft_status st = PEFT_OK;
    expression_begin(e, mem, text != NULL ? text : "");
    if (e->text == NULL) { st = PEFT_E_NOMEM; goto out; }
    expression_reader r = {e, set, e->text, 0, NULL};
    expression_space(&r);
    if (*r.at == '\0') { return PEFT_OK; }
    e->root = expression_node(e, PEFT__NODE_STACK);
    if (e->root == NULL) { st = PEFT_E_NOMEM; goto out; }
    TRY(expression_list(&r, e->root, false));
    if (*r.at != '\0') { st = expression_fail(&r, "\",\" or the end"); goto out; }
    expression_freeze(e->root, false);
out:
    if (st != PEFT_OK) { peft__expression_free(e); }
    return st;
}

#ifndef PEFT_MINIMAL
bool peft__expression_same(const peft__expression *a, const peft__expression *b) {
    if (a->n_pinned != b->n_pinned || strcmp(a->text, b->text) != 0) { return false; }
    return a->n_pinned == 0 || memcmp(a->pinned, b->pinned, a->n_pinned * sizeof a->pinned[0]) == 0;
}

/* One branch: a list of its own, of which errors quote the text. */
static peft_status expression_branch(peft__expression *e, struct peft_adapters *set, const peft__expression *of, peft__node **out) {
    peft_status st = PEFT_OK;
    e->text = of->text;
    *out = expression_node(e, PEFT__NODE_STACK);
    if (*out == NULL) { return PEFT_E_NOMEM; }
    expression_reader r = {e, set, e->text, 0, of};
    expression_space(&r);
    if (*r.at == '\0') { return PEFT_OK; }
    TRY(expression_list(&r, *out, false));
    if (*r.at != '\0') { st = expression_fail(&r, "\",\" or the end"); }
out:
    return st;
}

peft_status peft__expression_branches(peft__expression *e, peft__mem *mem, struct peft_adapters *set, const peft__expression *const *of,
                                      size_t n) {
    peft_status st = PEFT_OK;
    peft__node *list[PEFT__GROUPS], *rows;
    expression_begin(e, mem, "");
    const char *text = e->text;
    rows = expression_node(e, PEFT__NODE_PARALLEL);
    e->root = expression_node(e, PEFT__NODE_STACK);
    if (text == NULL || rows == NULL || e->root == NULL) { st = PEFT_E_NOMEM; goto out; }
    if (n > PEFT__GROUPS) { FAIL(PEFT_E_UNSUPPORTED, "rows have %zu different expressions, at most %d", n, (int)PEFT__GROUPS); }
    if (n > 1) { e->rows = rows; }
    for (size_t i = 0; i < n; i++) {
        e->branch = n > 1 ? (int32_t)i : -1;
        TRY(expression_branch(e, set, of[i], &list[i]));
    }
    e->branch = -1;
    e->text = text;
    TRY(expression_children(e, rows, list, n));
    TRY(expression_children(e, e->root, n > 1 ? &rows : list, 1));
    expression_freeze(e->root, false);
out:
    if (st != PEFT_OK) { peft__expression_free(e); }
    return st;
}
#endif

peft_status peft__expression_of(peft__expression *e, peft__mem *mem, peft__adapter *const *list, size_t n) {
    peft_status st = PEFT_OK;
    peft__node *nodes[PEFT__EXPRESSION_MAX];
    expression_begin(e, mem, n > 0 ? list[0]->name : "");
    if (e->text == NULL) { st = PEFT_E_NOMEM; goto out; }
    if (n > PEFT__EXPRESSION_MAX) { FAIL(PEFT_E_UNSUPPORTED, "%zu adapters, at most %d", n, PEFT__EXPRESSION_MAX); }
    if (n == 0) { return PEFT_OK; }
    e->root = expression_node(e, PEFT__NODE_STACK);
    if (e->root == NULL) { st = PEFT_E_NOMEM; goto out; }
    for (size_t i = 0; i < n; i++) {
        peft__adapter_retain(list[i]);
        e->pinned[e->n_pinned++] = list[i];
        TRY(expression_adapter(e, list[i], 0, &nodes[i]));
    }
    TRY(expression_children(e, e->root, nodes, n));
    expression_freeze(e->root, false);
out:
    if (st != PEFT_OK) { peft__expression_free(e); }
    return st;
}

static void expression_count(const peft__expression *e, int by) {
    for (size_t i = 0; !PEFT__MINIMAL && i < e->n_pinned && e->user >= 0; i++) { atomic_fetch_add(&e->pinned[i]->users[e->user], by); }
}

void peft__expression_used_by(peft__expression *e, int32_t user) {
    e->user = user;
    expression_count(e, 1);
}

void peft__expression_free(peft__expression *e) {
    if (e->mem == NULL) { return; }
    expression_count(e, -1);
    while (e->n_pinned > 0) { peft__adapter_release(e->pinned[--e->n_pinned]); }
    peft__arena_free(&e->arena);
    memset(e, 0, sizeof *e);
}

static bool expression_is_flat(const peft__node *n) {
    if (n->kind != PEFT__NODE_ADAPTER && n->kind != PEFT__NODE_STACK) { return false; }
    for (size_t i = 0; i < n->n; i++) {
        if (!expression_is_flat(n->child[i])) { return false; }
    }
    return true;
}

peft_status peft__expression_flat(const peft__expression *e, const char *doing) {
    if (e->root == NULL || expression_is_flat(e->root)) { return PEFT_OK; }
    return peft__fail(PEFT_E_UNSUPPORTED, "\"%s\": %s takes adapters that act one after the other, not blocks", e->text, doing);
}

int32_t peft__expression_groups(const peft__expression *e) { return e->rows != NULL ? (int32_t)e->rows->n : 1; }

int64_t peft__expression_new_tokens(const peft__expression *e) {
    int64_t n = 0;
    for (size_t i = 0; i < e->n_leaves; i++) { n = PEFT__MAX(n, e->leaves[i]->adapter->new_tokens); }
    return n;
}

int64_t peft__expression_copies(const peft__expression *e) {
    return e->rows != NULL && e->rows->kind == PEFT__NODE_PARALLEL ? (int64_t)e->rows->n : 1;
}

int64_t peft__expression_rows(const peft__expression *e) {
    int64_t rows = 0;
    if (e->rows == NULL || e->rows->kind != PEFT__NODE_BATCH_SPLIT) { return 0; }
    for (size_t i = 0; i < e->rows->n; i++) { rows += e->rows->sizes[i]; }
    return rows;
}

int32_t peft__expression_group(const peft__expression *e, int64_t row, int64_t copy) {
    if (e->rows == NULL) { return 0; }
    if (e->rows->kind == PEFT__NODE_PARALLEL) { return (int32_t)copy; }
    int32_t g = 0;
    for (; (size_t)g + 1 < e->rows->n && row >= e->rows->sizes[g]; g++) { row -= e->rows->sizes[g]; }
    return g;
}
