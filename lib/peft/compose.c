/* compose.c - the hooks that put an expression's adapters into a model as it records itself.
 *
 * At a projection: the first adapter that replaces it, else before (each in order) -> base product, with trained copies of
 * weight and bias where an adapter has them -> after (each in order; all see the same input). Norms, embeddings, positions and
 * the head take trained copies. A head tied to the embedding follows a trained copy only if the adapter says so ("full").
 *
 * Those are the adapters that act everywhere with factor 1. Of one with a factor f, or for some rows or tokens only, the site
 * is also computed with it, z, and the result is y + f (z - y) where it acts; LoRA of some rows computes those alone. A factor of
 * a method whose change is proportional to its scale goes there instead. At a stream the expression's tree is followed as it is:
 * each block's children change what the block was given. Virtual tokens and prefixes of several adapters stand one after the other.
 *
 * Left out: factors of prompts, prefixes and the head's terms (errors). */
#include "peft/expression.h"

typedef struct compose_leaf {
    const peft__node *node;
    const peft__adapter *adapter; /* pinned by whoever records */
    const peft__attachment **at;  /* [n_sites], NULL where it does not act; in the tape's arena */
    peft__choice choice;          /* rows and tokens that it acts on */
    double factor;                /* for blends at sites other than streams; 1 where at->scale has it */
    bool plain;                   /* everywhere, factor 1 */
    bool apart;                   /* of an average: adds its part to the result, and no other leaf sees it */
    int64_t prefix_tokens, position_shift; /* that it adds to a row */
} compose_leaf;

typedef struct compose_all {
    const peft__base_info *base;
    const peft__expression *e;
    const peft__node *root;
    compose_leaf *leaves;         /* by number of the expression */
    size_t n;
} compose_all;

static const peft__choice compose_everywhere = {~0U, 0, -1, -1};

static bool compose_is_everywhere(const peft__choice *c) { return c->groups == ~0U && c->begin == 0 && c->end < 0 && c->layer < 0; }

static bool compose_is_apart(const compose_leaf *l) { return !PEFT__MINIMAL && l->apart; } /* a minimal library has LoRA alone */

static const compose_leaf *compose_enter(peft__tape *t, const compose_leaf *l) {
    t->freeze = l->node->frozen;
    return l;
}

/* ---- copies ---------------------------------------------------------------------------------------------------------- */

typedef struct compose_copy { /* trained copies at a site */
    int32_t weight, bias;
} compose_copy;

/* Does it act, as it is, on all of the rows that it acts on? */
static bool compose_is_whole(const compose_leaf *l) { return l->factor == 1 && l->choice.begin == 0 && l->choice.end < 0; }

/* Is the tape's group one that the leaf acts on? */
static bool compose_has_group(const peft__tape *t, const compose_leaf *l) {
    return t->group >= 0 && (l->choice.groups >> t->group & 1U) != 0;
}

/* Does leaf i take part in the product of the plain ones and `only`, or in what is made for the rows of the tape's group? */
static bool compose_takes(const compose_all *c, const peft__tape *t, size_t i, int32_t only) {
    const compose_leaf *l = &c->leaves[i];
    return (int32_t)i == only || (!compose_is_apart(l) && (l->plain || (compose_has_group(t, l) && compose_is_whole(l))));
}

/* Every adapter of a classification has a copy of its head: there the last one's counts, which comes after what all others do. */
static compose_copy compose_copies(const compose_all *c, peft__tape *t, const peft__site *s, int32_t only) {
    const peft__adapter *owner[2] = {NULL, NULL};
    const bool last_counts = peft__heads_has(c->base, s);
    compose_copy out = {PEFT__NONE, PEFT__NONE};
    for (size_t left = c->n; left > 0; left--) {
        const compose_leaf *leaf = &c->leaves[left - 1];
        const peft__attachment *at = leaf->at[s->id];
        if (at == NULL || !compose_takes(c, t, left - 1, only)) { continue; }
        int32_t found[2] = {at->weight_param, at->bias_param};
        for (int k = 0; k < 2; k++) {
            if (found[k] < 0 || (owner[k] != NULL && last_counts)) { continue; }
            if (owner[k] != NULL) {
                peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapters \"%s\" and \"%s\" both replace the %s of \"%s\"",
                                leaf->adapter->name, owner[k]->name, k == 0 ? "weight" : "bias", s->path);
            }
            owner[k] = compose_enter(t, leaf)->adapter;
            *(k == 0 ? &out.weight : &out.bias) = peft__adapter_tape_copy(owner[k], found[k], t);
        }
    }
    t->freeze = false;
    return out;
}

/* ---- sites that are products of an input ------------------------------------------------------------------------------- */

/* y as the plain leaves and `only` (-1: none) make it; *in: what adapters that add to it read. */
static peft__val compose_linear_with(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, int32_t only,
                                     peft__val *in) {
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (l->at[s->id] == NULL || !compose_takes(c, t, i, only) || l->adapter->method->replace == NULL) { continue; }
        return l->adapter->method->replace(l->adapter, l->at[s->id], t, s, x);
    }
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (l->at[s->id] == NULL || !compose_takes(c, t, i, only) || l->adapter->method->before == NULL) { continue; }
        x = l->adapter->method->before(l->adapter, l->at[s->id], t, s, x);
    }
    compose_copy copy = compose_copies(c, t, s, only);
    peft__val y = peft__base_linear(t, s, x, copy.weight, copy.bias);
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (l->at[s->id] == NULL || !compose_takes(c, t, i, only) || l->adapter->method->after == NULL) { continue; }
        y = l->adapter->method->after(l->adapter, l->at[s->id], t, s, x, y);
    }
    *in = x;
    return y;
}

/* Has it copies of the module there, and nothing of its method? */
static bool compose_only_copies(const peft__adapter *a, const peft__attachment *at) {
    int32_t slot = at->count > 0 ? peft__adapter_param_at(a, (size_t)at->first)->slot : -1;
    return slot == PEFT__SLOT_COPY || slot == PEFT__SLOT_COPY + 1;
}

/* Embeddings that have their positions, or the norm behind these. */
static peft__val compose_ready_with(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, int32_t only) {
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (l->at[s->id] == NULL || !compose_takes(c, t, i, only) || l->adapter->method->input == NULL ||
            compose_only_copies(l->adapter, l->at[s->id])) { continue; }
        x = l->adapter->method->input(l->adapter, l->at[s->id], t, s, x);
    }
    return x;
}

/* For positions `scale` carries the offset that is added to each of them. */
static peft__val compose_table_with(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale,
                                    int32_t only) {
    compose_copy copy = compose_copies(c, t, s, only);
    if (s->kind == PEFT__SITE_NORM) {
        return compose_ready_with(c, t, s, peft__base_norm(t, s, x, copy.weight, copy.bias), only);
    }
    if (s->role == PEFT__ROLE_TYPES) { return peft__base_types(t, s, x, copy.weight); }
    if (s->role == PEFT__ROLE_POSITIONS) {
        return compose_ready_with(c, t, s, peft__base_positions(t, s, x, copy.weight, (int64_t)scale), only);
    }
    peft__val y = peft__base_embed(t, s, copy.weight, scale);
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (l->at[s->id] == NULL || !compose_takes(c, t, i, only) || l->adapter->method->embed == NULL) { continue; }
        y = l->adapter->method->embed(l->adapter, l->at[s->id], t, s, y, scale);
    }
    return y;
}

/* Does all that the leaf does at the projection come after the product? */
static bool compose_only_after(const compose_leaf *l, const peft__site *s) {
    const peft__method *m = l->adapter->method;
    const peft__attachment *at = l->at[s->id];
    return m->before == NULL && m->replace == NULL && at->weight_param < 0 && at->bias_param < 0;
}

/* The group of rows that the leaf acts on, if its operations can keep to these; -1: all rows are computed, and chosen from. */
static int32_t compose_group(const compose_leaf *l) {
    const peft__choice *c = &l->choice;
    int32_t group = 0;
    if (!l->adapter->method->by_rows || l->adapter->bent || l->factor != 1) { return -1; }
    if (c->groups == 0 || (c->groups & (c->groups - 1)) != 0 || c->begin != 0 || c->end >= 0 || c->layer >= 0) { return -1; }
    while ((c->groups >> group & 1U) == 0) { group++; }
    return group;
}

/* The site as a whole, of the plain leaves and `only`, or of those and the leaves of the tape's group. */
static peft__val compose_make(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale, int32_t only,
                              peft__val *in) {
    return s->kind == PEFT__SITE_LINEAR ? compose_linear_with(c, t, s, x, only, in) : compose_table_with(c, t, s, x, scale, only);
}

/* What leaf i makes of y at a projection, to whose output alone it adds. */
static peft__val compose_add(const compose_leaf *l, peft__tape *t, const peft__site *s, peft__val in, peft__val y) {
    int32_t outer = t->group;
    if (l->adapter->method->after == NULL) { return y; }
    t->group = compose_group(l);
    peft__val z = l->adapter->method->after(l->adapter, l->at[s->id], t, s, in, y);
    if (t->group < 0 && !l->plain) { z = peft__op_blend(t, y, z, PEFT__NONE, l->factor, &l->choice); }
    t->group = outer;
    return z;
}

/* What leaves that are not in `plain` make of it: of the tape's group, or where it has none all of them. */
static peft__val compose_rest(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale, peft__val in,
                              peft__val plain);

/* Have the leaves of a group of rows to be recorded together, as they are where there are no other rows? Where each only adds to the
 * product, one after the other will do. */
static bool compose_is_joint(const compose_all *c, const peft__site *s, uint32_t group) {
    size_t whole = 0, others = 0;
    bool inside = false; /* one changes what the site reads or multiplies by */
    if (PEFT__MINIMAL || (group & (group - 1)) != 0) { return false; }
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = &c->leaves[i];
        if (l->plain || l->at[s->id] == NULL || l->choice.groups != group) { continue; }
        bool is_whole = compose_is_whole(l) && !compose_is_apart(l);
        whole += is_whole;
        others += !is_whole;
        inside = inside || (is_whole && !(s->kind == PEFT__SITE_LINEAR && compose_only_after(l, s)));
    }
    return inside || (whole > 0 && others > 0);
}

/* The site as the rows of one group have it, which take it there. */
static peft__val compose_branch(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale, peft__val y,
                                uint32_t group) {
    const peft__choice choice = {group, 0, -1, -1};
    peft__val in = x;
    t->freeze = false;
    for (t->group = 0; (group >> t->group & 1U) == 0;) { t->group++; }
    peft__val z = compose_make(c, t, s, x, scale, -1, &in);
    z = compose_rest(c, t, s, x, scale, in, z);
    t->group = -1;
    return peft__op_blend(t, y, z, PEFT__NONE, 1, &choice);
}

static peft__val compose_rest(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale, peft__val in,
                              peft__val plain) {
    peft__val y = plain, unused;
    uint32_t changed = 0; /* groups whose rows of y are not those of plain */
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        uint32_t groups = l->choice.groups;
        if (l->at[s->id] == NULL || compose_takes(c, t, i, -1) || (t->group >= 0 && !compose_has_group(t, l))) { continue; }
        if (t->group < 0 && compose_is_joint(c, s, groups)) {
            if ((changed & groups) != 0) { continue; } /* it was done with the group's first */
            y = compose_branch(c, t, s, x, scale, y, groups);
        } else if (s->kind == PEFT__SITE_LINEAR && compose_only_after(l, s)) {
            y = compose_add(l, t, s, in, y);
        } else {
            peft__val z = compose_make(c, t, s, x, scale, (int32_t)i, &unused);
            y = peft__op_blend(t, y, z, (changed & groups) == 0 ? PEFT__NONE : plain, l->factor, &l->choice);
        }
        changed |= groups;
    }
    return y;
}

static peft__val compose_value(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, double scale) {
    peft__val in = x, plain = compose_make(c, t, s, x, scale, -1, &in);
    plain = compose_rest(c, t, s, x, scale, in, plain);
    t->freeze = false;
    return plain;
}

static peft__val compose_linear(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    return compose_value(user, t, s, x, 1);
}

static peft__val compose_norm(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    return compose_value(user, t, s, x, 1);
}

static peft__val compose_embed(void *user, peft__tape *t, const peft__site *s, peft__val x, double scale) {
    return compose_value(user, t, s, x, scale);
}

static int32_t compose_bias(void *user, peft__tape *t, const peft__site *s) {
    const compose_all *c = user;
    for (size_t i = 0; i < c->n; i++) {
        if (c->leaves[i].at[s->id] == NULL || c->leaves[i].plain) { continue; }
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapter \"%s\" acts on \"%s\", where it has neither a factor nor rows of its own",
                        c->leaves[i].adapter->name, s->path);
        return PEFT__NONE;
    }
    return compose_copies(c, t, s, -1).weight;
}

static int32_t compose_heads(void *user, const peft__site *s) {
    const compose_all *c = user;
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = &c->leaves[i];
        if (l->at[s->id] != NULL && !l->plain && compose_is_whole(l)) { return peft__expression_groups(c->e); }
    }
    return 1;
}

/* Has the head of the tape's group something of this leaf? */
static bool compose_at_head(const peft__tape *t, const peft__site *s, const compose_leaf *l) {
    return l->at[s->id] != NULL && (t->group < 0 || compose_has_group(t, l));
}

static peft__val compose_head(void *user, peft__tape *t, const peft__site *s, peft__val x, peft__head_spec *spec) {
    const compose_all *c = user;
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = &c->leaves[i];
        if (!compose_at_head(t, s, l) || l->plain || compose_takes(c, t, i, -1)) { continue; }
        peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapter \"%s\" acts on \"%s\", where it has neither a factor nor rows of its own",
                        l->adapter->name, s->path);
        return x;
    }
    compose_copy copy = compose_copies(c, t, s, -1);
    spec->w_param = copy.weight;
    spec->b_param = copy.bias;
    for (size_t i = c->n; i-- > 0;) { /* the last to change the embeddings is the first to undo it */
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        if (!compose_at_head(t, s, l) || l->adapter->method->head == NULL || compose_only_copies(l->adapter, l->at[s->id])) { continue; }
        x = l->adapter->method->head(l->adapter, l->at[s->id], t, s, x, spec);
    }
    t->freeze = false;
    return x;
}

/* ---- streams --------------------------------------------------------------------------------------------------------- */

typedef struct compose_place { /* the stream site that is recorded */
    const compose_all *c;
    peft__tape *t;
    const peft__site *s;
    peft__val residual;
} compose_place;

static peft__val compose_fuse(const compose_place *p, const peft__node *n, peft__val h) {
    peft__val up[PEFT__EXPRESSION_MAX], query = h, inner = h;
    size_t count = 0;
    const compose_leaf *fusion = &p->c->leaves[n->leaf];
    for (size_t i = 0; i < n->n; i++) {
        const compose_leaf *l = compose_enter(p->t, &p->c->leaves[n->child[i]->leaf]);
        const peft__attachment *at = l->at[p->s->id];
        if (at != NULL) { up[count++] = l->adapter->method->up(l->adapter, at, p->t, p->s, h, p->residual, &query, &inner); }
    }
    if (count == 0 || fusion->at[p->s->id] == NULL) { return h; }
    if (count != n->n) {
        peft__tape_fail(p->t, PEFT_E_UNSUPPORTED, "not all adapters of fusion \"%s\" act on \"%s\"", fusion->adapter->name, p->s->path);
        return h;
    }
    (void)compose_enter(p->t, fusion);
    return fusion->adapter->method->fuse(fusion->adapter, fusion->at[p->s->id], p->t, p->s, h, p->residual, query, inner, up, count);
}

static peft__val compose_node(const compose_place *p, const peft__node *n, peft__val h, int32_t depth) {
    peft__val y = h, z;
    int64_t token = 0;
    if (n->factor == 0 || depth > 64) { return h; }
    if (n->kind == PEFT__NODE_ADAPTER) {
        const compose_leaf *l = compose_enter(p->t, &p->c->leaves[n->leaf]);
        const peft__attachment *at = l->at[p->s->id];
        if (at == NULL || l->adapter->method->stream == NULL) { return h; }
        y = l->adapter->method->stream(l->adapter, at, p->t, p->s, h, p->residual);
    } else if (!PEFT__MINIMAL && n->kind == PEFT__NODE_FUSE) {
        y = compose_fuse(p, n, h);
    }
    for (size_t i = 0; i < n->n && n->kind != PEFT__NODE_FUSE; i++) {
        peft__choice choice = compose_everywhere;
        if (n->kind == PEFT__NODE_STACK) {
            y = compose_node(p, n->child[i], y, depth + 1);
            continue;
        }
        if (n->kind == PEFT__NODE_SPLIT) {
            choice.begin = token;
            choice.end = n->sizes[i] < 0 ? -1 : token + n->sizes[i];
            token = choice.end;
        } else if (n->kind != PEFT__NODE_AVERAGE) {
            choice.groups = 1U << i;
        }
        int32_t outer = p->t->branch;
        if (choice.groups != ~0U) { p->t->branch = (int32_t)i; }
        z = compose_node(p, n->child[i], h, depth + 1);
        p->t->branch = outer;
        if (z == h) { continue; }
        bool average = n->kind == PEFT__NODE_AVERAGE;
        y = peft__op_blend(p->t, y, z, average && y != h ? h : PEFT__NONE, average ? n->weights[i] : 1, &choice);
    }
    return n->factor == 1 || y == h ? y : peft__op_blend(p->t, h, y, PEFT__NONE, n->factor, &compose_everywhere);
}

static peft__val compose_stream(void *user, peft__tape *t, const peft__site *s, peft__val h, peft__val residual) {
    const compose_all *c = user;
    const compose_place p = {c, t, s, residual};
    h = compose_node(&p, c->root, h, 0);
    t->freeze = false;
    return h;
}

/* ---- before the rows ------------------------------------------------------------------------------------------------- */

/* What stands before a row is there or not: no factor, no part of the tokens. */
static bool compose_whole(peft__tape *t, const compose_leaf *l, const char *what) {
    if (compose_is_whole(l)) { return true; }
    peft__tape_fail(t, PEFT_E_UNSUPPORTED, "adapter \"%s\" puts %s before the rows: that has no factor, and no part of the tokens",
                    l->adapter->name, what);
    return false;
}

static peft__val compose_input(void *user, peft__tape *t, const peft__site *s, peft__val x) {
    const compose_all *c = user;
    peft__prepend prompts[PEFT__EXPRESSION_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const compose_leaf *l = compose_enter(t, &c->leaves[i]);
        const peft__method *m = l->adapter->method;
        const peft__attachment *at = l->at[s->id];
        if (at == NULL) { continue; }
        if (m->input != NULL) {
            peft__val z = m->input(l->adapter, at, t, s, x);
            x = l->plain ? z : peft__op_blend(t, x, z, PEFT__NONE, l->factor, &l->choice);
        }
        if (m->prompt == NULL || !compose_whole(t, l, "virtual tokens")) { continue; }
        peft__prompt p = m->prompt(l->adapter, at, t, s);
        if (p.rows != PEFT__NONE) { prompts[n++] = (peft__prepend){p.rows, p.n, p.tasks, p.first, p.stride, l->choice.groups}; }
    }
    t->freeze = false;
    return n > 0 ? peft__op_prepend(t, x, prompts, n) : x;
}

/* Every leaf's own keys and values at the site, and what they add to a row's length and positions. */
static size_t compose_pasts(const compose_all *c, peft__tape *t, const peft__site *s, peft__val x, peft__past *own) {
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        compose_leaf *l = &c->leaves[i];
        const peft__attachment *at = compose_enter(t, l)->at[s->id];
        own[i] = (peft__past){.k = PEFT__NONE, .v = PEFT__NONE, .gates = PEFT__NONE};
        if (at == NULL || l->adapter->method->kv == NULL || !compose_whole(t, l, "a prefix")) { continue; }
        int64_t tokens = t->prefix_tokens, shift = t->position_shift;
        l->adapter->method->kv(l->adapter, at, t, s, x, &own[i]);
        l->prefix_tokens += t->prefix_tokens - tokens; /* at its first layer */
        l->position_shift += t->position_shift - shift;
        for (size_t j = 0; !PEFT__MINIMAL && j < i; j++) { /* an adapter of several branches counts on the tape once */
            if (c->leaves[j].adapter != l->adapter) { continue; }
            l->prefix_tokens = c->leaves[j].prefix_tokens;
            l->position_shift = c->leaves[j].position_shift;
        }
        n += own[i].k != PEFT__NONE;
    }
    t->freeze = false;
    return n;
}

/* Rows of the leaves of one group are put behind those that past has. */
static void compose_past_group(const compose_all *c, peft__tape *t, const peft__past *own, uint32_t group, peft__past *past) {
    for (size_t i = 0; i < c->n; i++) {
        if (own[i].k == PEFT__NONE || (c->leaves[i].choice.groups & group) == 0) { continue; }
        if (past->k == PEFT__NONE) {
            past->k = own[i].k;
            past->v = own[i].v;
        } else {
            past->k = peft__op_stack_rows(t, past->k, own[i].k);
            past->v = peft__op_stack_rows(t, past->v, own[i].v);
        }
    }
}

/* Most tokens of a prefix and most that positions are shifted by, of the rows of any group. */
static void compose_past_sizes(const compose_all *c, peft__tape *t) {
    int32_t groups = peft__expression_groups(c->e);
    t->prefix_tokens = t->position_shift = 0;
    for (int32_t g = 0; g < groups; g++) {
        int64_t tokens = 0;
        t->group_shift[g] = 0;
        for (size_t i = 0; i < c->n; i++) {
            bool in = (c->leaves[i].choice.groups >> g & 1u) != 0;
            tokens += in ? c->leaves[i].prefix_tokens : 0;
            t->group_shift[g] += in ? c->leaves[i].position_shift : 0;
        }
        t->group_prefix[g] = tokens;
        t->prefix_tokens = PEFT__MAX(t->prefix_tokens, tokens);
        t->position_shift = PEFT__MAX(t->position_shift, t->group_shift[g]);
    }
}

static int64_t compose_past_rows(const peft__tape *t, const peft__past *past) {
    return past->k != PEFT__NONE && t->status == PEFT_OK ? peft__tape_value(t, past->k)->fixed : 0;
}

static void compose_kv(void *user, peft__tape *t, const peft__site *s, peft__val x, peft__past *past) {
    const compose_all *c = user;
    peft__past own[PEFT__EXPRESSION_MAX];
    size_t n = compose_pasts(c, t, s, x, own);
    compose_past_sizes(c, t);
    for (size_t i = 0; i < c->n; i++) {
        if (own[i].k == PEFT__NONE) { continue; }
        bool all = c->leaves[i].choice.groups == ~0U;
        past->divided = past->divided || !all;
        if (n == 1 && all) { *past = own[i]; }
        if (own[i].gates != PEFT__NONE && (n > 1 || !all)) {
            peft__tape_fail(t, PEFT_E_UNSUPPORTED,
                            "adapter \"%s\" puts a prefix with gates beside another, or before some of the rows only",
                            c->leaves[i].adapter->name);
        }
    }
    for (int32_t g = 0; past->divided && g < peft__expression_groups(c->e); g++) {
        past->first[g] = compose_past_rows(t, past);
        compose_past_group(c, t, own, 1U << g, past);
        past->count[g] = compose_past_rows(t, past) - past->first[g];
    }
    if (!past->divided && n > 1) { compose_past_group(c, t, own, ~0U, past); }
}

/* ---- the leaves ------------------------------------------------------------------------------------------------------ */

/* Attachments by site; with the factor in them where the method takes it there. */
static peft_status compose_attachments(const compose_all *c, peft__tape *t, compose_leaf *l) {
    const peft__adapter *a = l->adapter;
    bool inside = peft__adapter_proportional(a) && l->factor != 1;
    l->at = peft__arena_alloc(&t->arena, PEFT__MAX(c->base->n_sites, (size_t)1) * sizeof *l->at);
    peft__attachment *own = inside ? peft__arena_alloc(&t->arena, PEFT__MAX(a->attachments.len, (size_t)1) * sizeof *own) : NULL;
    if (l->at == NULL || (inside && own == NULL)) { return PEFT_E_NOMEM; }
    for (size_t j = 0; j < a->attachments.len && l->factor != 0; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        if (inside) {
            own[j] = *at;
            own[j].scale *= l->factor;
            at = &own[j];
        }
        l->at[at->site] = at;
    }
    if (inside) { l->factor = 1; }
    return PEFT_OK;
}

static peft_status compose_leaf_add(compose_all *c, peft__tape *t, const peft__node *n, double factor, const peft__choice *choice,
                                    bool fused, bool averaged) {
    peft_status st = PEFT_OK;
    compose_leaf *l = &c->leaves[n->leaf];
    const peft__adapter *a = n->adapter;
    *l = (compose_leaf){.node = n, .adapter = a, .choice = *choice, .factor = factor};
    if (a->base->n_sites != c->base->n_sites) { FAIL(PEFT_E_INVALID, "adapter \"%s\" is of another model", a->name); }
    if (fused && a->method->up == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" is a \"%s\", and fuse(...) takes bottleneck adapters", a->name, a->method->name);
    }
    TRY(compose_attachments(c, t, l));
    l->apart = !PEFT__MINIMAL && averaged && factor != 1 && l->factor == 1;
    l->plain = l->factor == 1 && compose_is_everywhere(choice);
out:
    return st;
}

static peft_status compose_walk(compose_all *c, peft__tape *t, const peft__node *n, double factor, const peft__choice *choice,
                                bool fused, bool averaged) {
    peft_status st = PEFT_OK;
    int64_t token = 0;
    factor *= n->factor;
    if (n->leaf >= 0) { TRY(compose_leaf_add(c, t, n, factor, choice, fused, averaged)); }
    for (size_t i = 0; i < n->n; i++) {
        peft__choice own = *choice;
        double f = factor;
        if (n->kind == PEFT__NODE_AVERAGE) { f *= n->weights[i]; }
        if (n->kind == PEFT__NODE_SPLIT) {
            if (choice->begin != 0 || choice->end >= 0) { FAIL(PEFT_E_UNSUPPORTED, "a split(...) inside of another"); }
            own.begin = token;
            own.end = n->sizes[i] < 0 ? -1 : token + n->sizes[i];
            token = own.end;
        }
        if (n == c->e->rows) { own.groups = 1U << i; }
        TRY(compose_walk(c, t, n->child[i], f, &own, fused || n->kind == PEFT__NODE_FUSE, averaged || n->kind == PEFT__NODE_AVERAGE));
    }
out:
    return st;
}

peft_status peft__compose(peft__tape *t, const peft__base_info *base, const peft__expression *e) {
    peft_status st = PEFT_OK;
    if (e->root == NULL) { return PEFT_OK; }
    compose_all *c = peft__arena_alloc(&t->arena, sizeof *c);
    peft__hooks *hooks = peft__arena_alloc(&t->arena, sizeof *hooks);
    if (c == NULL || hooks == NULL) { return PEFT_E_NOMEM; }
    *c = (compose_all){.base = base, .e = e, .root = e->root, .n = e->n_leaves};
    c->leaves = peft__arena_alloc(&t->arena, PEFT__MAX(c->n, (size_t)1) * sizeof *c->leaves);
    if (c->leaves == NULL) { return PEFT_E_NOMEM; }
    TRY(compose_walk(c, t, e->root, 1, &compose_everywhere, false, false));
    *hooks = (peft__hooks){.user = c,
                           .linear = compose_linear,
                           .stream = compose_stream,
                           .input = compose_input,
                           .kv = compose_kv,
                           .norm = compose_norm,
                           .embed = compose_embed,
                           .bias = compose_bias,
                           .heads = compose_heads,
                           .head = compose_head};
    t->hooks = hooks;
out:
    return st;
}
