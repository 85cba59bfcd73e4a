/* lora_to_hub.c - LoRA between the two libraries: method `lora` (Hugging Face PEFT's) and `lora_hub` (AdapterHub's), exactly.
 *
 *   one pair a module   the same tensors under other names, alpha as it is
 *   q, k, v of one matrix, to PEFT   one pair of rank n r: A stacked, B by blocks [out, n r]; alpha times n: alpha / r stays
 *   the same, from PEFT              three pairs with the same A, and B's thirds
 *
 * Where modules of both kinds occur, alpha / rank cannot be the same for all: it goes into B, and the rest is scaled by 1.
 *
 * Left out: what the other side has no place for (an error that names it). */
#include "peft/hub.h"
#include "peft/lora.h"

static const peft__attachment *lora_hub_at(const peft__adapter *a, int32_t site) {
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        if (at->site == site) { return at; }
    }
    return NULL;
}

/* ---- AdapterHub to PEFT -------------------------------------------------------------------------------------- */

/* Pairs of an attachment: A has so many times the rank of rows. */
static int64_t lora_hub_pairs(const peft__adapter *a, const peft__attachment *at) {
    return peft__lora_param(a, at, PEFT__LORA_A)->rows / at->rank;
}

/* B by blocks, each times `factor`: those of a third that has no pair stay 0. */
static void lora_hub_blocks(const peft__site *s, const peft__param *from, const peft__param *to, int64_t pairs, const bool attn[3],
                            double factor) {
    int64_t r = from->cols, width = from->rows / pairs, g = 0;
    for (int64_t third = 0; third < to->rows / width; third++) {
        if (pairs > 1 || to->rows > from->rows) {
            if (!attn[third]) { continue; }
        }
        for (int64_t i = 0; i < width * r; i++) {
            double v = (double)from->value[g * width * r + i];
            int64_t row = s->role == PEFT__ROLE_QKV ? peft__lora_hub_row(s, third, i / r) : i / r;
            to->value[row * to->cols + g * r + i % r] = PEFT__R(factor * v);
        }
        g++;
    }
}

static peft_status lora_hub_attn(const peft__adapter *a, bool attn[3]) {
    peft_status st = PEFT_OK;
    peft__names names;
    peft__arena arena;
    peft__arena_init(&arena, a->mem);
    memset(attn, 0, 3 * sizeof *attn);
    TRY(peft__names_read(&arena, peft__opt_str(&a->opts, "attn_matrices"), "attn_matrices", &names));
    for (size_t i = 0; i < names.count; i++) { attn[names.items[i][0] == 'q' ? 0 : names.items[i][0] == 'k' ? 1 : 2] = true; }
out:
    peft__arena_free(&arena);
    return st;
}

peft_status peft__lora_hub_simplify(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    size_t bytes = a->base->n_sites * sizeof(int64_t);
    int64_t *ranks = peft__alloc_zero(a->mem, bytes), pairs = 0;
    peft__adapter *made = NULL;
    double alpha = peft__opt_float(&a->opts, "alpha"), dropout = peft__opt_float(&a->opts, "dropout");
    bool attn[3];
    if (ranks == NULL) { return PEFT_E_NOMEM; }
    if (peft__opt_bool(&a->opts, "use_gating")) {
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" has gates (use_gating), which method \"lora\" has not", a->name);
    }
    TRY(lora_hub_attn(a, attn));
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        int64_t n = lora_hub_pairs(a, at);
        ranks[at->site] = at->rank * n;
        pairs = pairs == 0 || pairs == n ? n : -1;
    }
    alpha = pairs > 0 ? alpha * (double)pairs : 0;
    TRY(peft__lora_make(a->mem, a->base, a->name, ranks, alpha > 0 ? alpha : 0, &a->opts, &made));
    TRY(peft__opt_set_float(&made->opts, "lora_dropout", dropout));
    for (size_t i = 0; i < made->attachments.len; i++) {
        peft__attachment *to = &PEFT__VEC_AT(&made->attachments, peft__attachment, i);
        const peft__attachment *at = lora_hub_at(a, to->site);
        const peft__param *pa = peft__lora_param(a, at, PEFT__LORA_A), *pb = peft__lora_param(a, at, PEFT__LORA_B);
        to->dropout = dropout;
        memcpy(peft__lora_param(made, to, PEFT__LORA_A)->value, pa->value, (size_t)(pa->rows * pa->cols) * sizeof *pa->value);
        lora_hub_blocks(&a->base->sites[at->site], pb, peft__lora_param(made, to, PEFT__LORA_B), lora_hub_pairs(a, at), attn,
                        alpha > 0 ? 1 : at->scale);
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__free(a->mem, ranks, bytes);
    return st;
}

peft_status peft__lora_hub_loaded(const peft__adapter *a, peft__adapter **out) {
    *out = NULL;
    if (peft__opt_bool(&a->opts, "use_gating")) { return PEFT_OK; }
    for (size_t i = 0; i < a->attachments.len; i++) {
        if (a->base->sites[PEFT__VEC_AT(&a->attachments, peft__attachment, i).site].role == PEFT__ROLE_QKV) { return PEFT_OK; }
    }
    return peft__lora_hub_simplify(a, out);
}

/* ---- PEFT to AdapterHub -------------------------------------------------------------------------------------- */

typedef struct lora_hub_plan {
    uint32_t roles;              /* bit PEFT__ROLE_*: that all layers with a LoRA have */
    int64_t rank;
    double scale;
    peft__str attn, left;        /* options attn_matrices, leave_out */
} lora_hub_plan;

enum { LORA_HUB_ROLES = 1 << PEFT__ROLE_Q | 1 << PEFT__ROLE_K | 1 << PEFT__ROLE_V | 1 << PEFT__ROLE_QKV | 1 << PEFT__ROLE_UP |
                        1 << PEFT__ROLE_DOWN };

static peft_status lora_hub_check(const peft__adapter *a, lora_hub_plan *p) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < a->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, i);
        const peft__site *s = &a->base->sites[at->site];
        if (s->kind != PEFT__SITE_LINEAR || (1 << s->role & LORA_HUB_ROLES) == 0) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" has a LoRA at \"%s\", where AdapterHub's library has none", a->name, s->path);
        }
        if (i == 0) { p->rank = at->rank, p->scale = at->scale; }
        if (at->rank != p->rank || at->scale != p->scale) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" has rank %lld and factor %g at \"%s\", and others elsewhere (%lld, %g): "
                 "AdapterHub's library has one for all", a->name, (long long)at->rank, at->scale, s->path, (long long)p->rank, p->scale);
        }
        p->roles |= 1u << s->role;
    }
out:
    return st;
}

/* Which layers have none: others must have all roles. */
static peft_status lora_hub_layers(const peft__adapter *a, lora_hub_plan *p) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    int32_t layers = 0;
    size_t left = 0;
    for (size_t i = 0; i < base->n_sites; i++) { layers = PEFT__MAX(layers, base->sites[i].layer + 1); }
    for (int32_t l = 0; l < layers; l++) {
        const char *missing = NULL;
        bool any = false;
        for (size_t i = 0; i < base->n_sites; i++) {
            const peft__site *s = &base->sites[i];
            if (s->layer != l || s->kind != PEFT__SITE_LINEAR || (1u << s->role & p->roles) == 0) { continue; }
            if (lora_hub_at(a, s->id) != NULL) { any = true; } else { missing = s->path; }
        }
        if (any && missing != NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" has no LoRA at \"%s\", and has at others of its layer and at the same place of "
                 "other layers: AdapterHub's library has all or none", a->name, missing);
        }
        if (!any) { peft__str_putf(&p->left, "%s%d", left++ > 0 ? "," : "[", (int)l); }
    }
    if (left > 0) { peft__str_putc(&p->left, ']'); }
    st = peft__str_status(&p->left);
out:
    return st;
}

static peft_status lora_hub_options_of(const peft__adapter *a, lora_hub_plan *p, peft__optset *o) {
    static const struct { uint32_t role; const char *letter; } letters[] = {
        {1 << PEFT__ROLE_Q | 1 << PEFT__ROLE_QKV, "q"}, {1 << PEFT__ROLE_K | 1 << PEFT__ROLE_QKV, "k"},
        {1 << PEFT__ROLE_V | 1 << PEFT__ROLE_QKV, "v"}};
    peft_status st = PEFT_OK;
    bool turned = peft__lora_hub_turned(a->base);
    bool up = (p->roles & 1u << PEFT__ROLE_UP) != 0, down = (p->roles & 1u << PEFT__ROLE_DOWN) != 0;
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        if ((p->roles & letters[i].role) != 0) { peft__str_putf(&p->attn, "%s\"%s\"", n++ > 0 ? "," : "[", letters[i].letter); }
    }
    if (n > 0) { peft__str_putc(&p->attn, ']'); }
    TRY(peft__str_status(&p->attn));
    TRY(peft__opt_set_int(o, "r", p->rank));
    TRY(peft__opt_set_float(o, "alpha", p->scale * (double)p->rank));
    TRY(peft__opt_set_float(o, "dropout", peft__opt_float(&a->opts, "lora_dropout")));
    TRY(peft__opt_set_bool(o, "selfattn_lora", n > 0));
    if (n > 0) { TRY(peft__opt_set_raw(o, "attn_matrices", peft__str_c(&p->attn))); }
    TRY(peft__opt_set_bool(o, "intermediate_lora", turned ? down : up));
    TRY(peft__opt_set_bool(o, "output_lora", turned ? up : down));
    if (p->left.len > 0) { TRY(peft__opt_set_raw(o, "leave_out", peft__str_c(&p->left))); }
    TRY(peft__opt_set_str(o, "base_model_name_or_path", peft__opt_str(&a->opts, "base_model_name_or_path")));
out:
    return st;
}

static peft_status lora_hub_make(const peft__adapter *a, peft__adapter **out) {
    peft_status st = PEFT_OK;
    lora_hub_plan p = {0};
    peft__optset opts = {0};
    peft__adapter *made = NULL;
    peft__str_init(&p.attn, a->mem);
    peft__str_init(&p.left, a->mem);
    TRY(peft__lora_only(a, "a folder of AdapterHub's library"));
    TRY(lora_hub_check(a, &p));
    TRY(lora_hub_layers(a, &p));
    TRY(peft__optset_init(&opts, a->mem, peft__method_lora_hub.schema));
    TRY(lora_hub_options_of(a, &p, &opts));
    TRY(peft__adapter_create_empty(a->mem, a->base, a->name, &peft__method_lora_hub, &opts, &made));
    for (size_t i = 0; i < made->attachments.len; i++) {
        const peft__attachment *to = &PEFT__VEC_AT(&made->attachments, peft__attachment, i), *at = lora_hub_at(a, to->site);
        const peft__param *pa = peft__lora_param(a, at, PEFT__LORA_A), *pb = peft__lora_param(a, at, PEFT__LORA_B);
        peft__real *ta = peft__lora_param(made, to, PEFT__LORA_A)->value, *tb = peft__lora_param(made, to, PEFT__LORA_B)->value;
        size_t n = (size_t)(pa->rows * pa->cols);
        for (int64_t g = 0; g < lora_hub_pairs(made, to); g++) { memcpy(ta + (size_t)g * n, pa->value, n * sizeof *ta); }
        const peft__site *s = &a->base->sites[to->site];
        for (int64_t row = 0; row < pb->rows; row++) {
            bool parts = s->role == PEFT__ROLE_QKV;
            int64_t from = parts ? peft__lora_hub_row(s, row / (s->out / 3), row % (s->out / 3)) : row;
            memcpy(tb + row * pb->cols, pb->value + from * pb->cols, (size_t)pb->cols * sizeof *tb);
        }
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__optset_free(&opts);
    peft__str_free(&p.attn);
    peft__str_free(&p.left);
    return st;
}

peft_status peft__lora_to_hub(const peft__adapter *a, peft__adapter **out) {
    peft__adapter *plain = NULL;
    peft_status st = a->method->plain != NULL ? a->method->plain(a, &plain) : PEFT_OK;
    if (st == PEFT_OK) { st = lora_hub_make(plain != NULL ? plain : a, out); }
    peft__adapter_release(plain);
    return st;
}
