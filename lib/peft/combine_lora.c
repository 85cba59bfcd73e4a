/* combine_lora.c - weighted combinations of LoRA adapters. With the change D_i = s_i B_i A_i of a source and its weight w_i:
 *
 *   cat           A = [w_1 s_1 A_1; ...], B = [B_1, ...]: the product is sum w_i D_i exactly; its rank is the sum of the ranks
 *   svd           B = U S, A = V' of sum w_i D_i, cut off at a rank
 *   linear        A = sum sgn(w_i s_i) sqrt|w_i s_i| A_i, B = sum sqrt|w_i s_i| B_i: B A has cross terms of each A_i with each B_j
 *   ties, dare_*, magnitude_prune      as linear, A's and B's pruned and summed as combine_ops.c has it
 *   *_svd         D_i pruned and summed in that way, then svd
 *
 * as add_weighted_adapter of Hugging Face PEFT has them. A module that a source does not have counts as 0 there. The result is
 * scaled by 1 (lora_alpha is the rank, by module where ranks differ), without rsLoRA, so that files say the same; PEFT scales what
 * rsLoRA adapters give by sqrt(r) once more, and earlier releases apply s_i twice in the svd types (option "compat").
 *
 * Left out: DoRA, trained biases and modules_to_save: what they hold is no sum. */
#include "peft/combine.h"
#include "peft/factor.h"
#include "peft/lora.h"

#include <math.h>

typedef struct mix_rule {
    const char *name;
    bool cat, svd;
    int32_t prune;
    bool elect;
} mix_rule;

static const mix_rule mix_rules[] = {
    {"", true, false, PEFT__PRUNE_NONE, false}, /* the default */
    {"cat", true, false, PEFT__PRUNE_NONE, false},
    {"linear", false, false, PEFT__PRUNE_NONE, false},
    {"svd", false, true, PEFT__PRUNE_NONE, false},
    {"ties", false, false, PEFT__PRUNE_MAGNITUDE, true},
    {"ties_svd", false, true, PEFT__PRUNE_MAGNITUDE, true},
    {"dare_linear", false, false, PEFT__PRUNE_RANDOM, false},
    {"dare_linear_svd", false, true, PEFT__PRUNE_RANDOM, false},
    {"dare_ties", false, false, PEFT__PRUNE_RANDOM, true},
    {"dare_ties_svd", false, true, PEFT__PRUNE_RANDOM, true},
    {"magnitude_prune", false, false, PEFT__PRUNE_MAGNITUDE, false},
    {"magnitude_prune_svd", false, true, PEFT__PRUNE_MAGNITUDE, false},
};

/* The sources at one site. */
typedef struct mix_part {
    const peft__real *a, *b; /* [rank, in], [out, rank] */
    int64_t rank;
    double weight, scale;
    size_t source;
} mix_part;

typedef struct mix_job {
    const peft__mix *m;
    const mix_rule *rule;
    const peft__site *site;
    mix_part parts[PEFT__COMBINE_MAX];
    size_t n;
    int64_t rank;                /* of the result here */
    peft__real *a, *b;           /* its values */
} mix_job;

/* ---- where and how wide -------------------------------------------------------------------------------------- */

static void mix_gather(mix_job *j, const peft__site *site) {
    j->site = site;
    j->n = 0;
    for (size_t i = 0; i < j->m->n; i++) {
        const peft__adapter *a = j->m->sources[i];
        const peft__attachment *all = a->attachments.data;
        for (size_t k = 0; k < a->attachments.len; k++) {
            if (all[k].site != site->id || all[k].rank == 0) { continue; }
            const peft__param *pa = peft__lora_param(a, &all[k], PEFT__LORA_A), *pb = peft__lora_param(a, &all[k], PEFT__LORA_B);
            if (pa == NULL || pb == NULL) { continue; }
            j->parts[j->n++] = (mix_part){pa->value, pb->value, all[k].rank, j->m->weights[i], all[k].scale, i};
        }
    }
}

/* Rank of the result at the gathered site; 0: no source has it. */
static peft_status mix_rank(mix_job *j) {
    peft_status st = PEFT_OK;
    int64_t most = 0, sum = 0, asked = peft__opt_int(j->m->opts, "svd_rank");
    for (size_t i = 0; i < j->n; i++) {
        most = PEFT__MAX(most, j->parts[i].rank);
        sum += j->parts[i].rank;
    }
    j->rank = j->rule->cat ? sum : most;
    if (j->rule->svd && j->n > 0) {
        j->rank = PEFT__MIN(asked > 0 ? asked : most, PEFT__MIN(j->site->in, j->site->out));
        if (j->rule->prune == PEFT__PRUNE_NONE) { j->rank = PEFT__MIN(j->rank, sum); } /* there is no more than that */
    }
    for (size_t i = 0; i < j->n && !j->rule->cat && !j->rule->svd; i++) {
        if (j->parts[i].rank != most) {
            FAIL(PEFT_E_SHAPE,
                 "\"%s\" has rank %lld in adapter \"%s\" and %lld in another: type=%s adds matrices of the same rank; cat and the svd "
                 "types take any", j->site->path, (long long)j->parts[i].rank, j->m->sources[j->parts[i].source]->name,
                 (long long)most, j->rule->name);
        }
    }
out:
    return st;
}

/* ---- factors ------------------------------------------------------------------------------------------------- */

static void mix_cat(const mix_job *j) {
    int64_t in = j->site->in, out = j->site->out, first = 0;
    for (size_t i = 0; i < j->n; i++) {
        const mix_part *p = &j->parts[i];
        double factor = p->weight * p->scale;
        for (int64_t e = 0; e < p->rank * in; e++) { j->a[first * in + e] = PEFT__R(factor * (double)p->a[e]); }
        for (int64_t o = 0; o < out; o++) {
            memcpy(j->b + o * j->rank + first, p->b + o * p->rank, (size_t)p->rank * sizeof *j->b);
        }
        first += p->rank;
    }
}

static int32_t mix_elect(const mix_job *j) {
    if (!j->rule->elect) { return PEFT__ELECT_NONE; }
    return strcmp(peft__opt_str(j->m->opts, "majority_sign_method"), "total") == 0 ? PEFT__ELECT_TOTAL : PEFT__ELECT_FREQUENCY;
}

/* What drops elements of part i by chance is fixed by seed, module, the source's name and the side. */
static uint64_t mix_key(const mix_job *j, size_t i, uint64_t side) {
    const char *name = j->m->sources[j->parts[i].source]->name;
    uint64_t key = peft__hash_str((uint64_t)peft__opt_int(j->m->opts, "seed"), j->site->path, strlen(j->site->path));
    return peft__mix64(peft__hash_str(key, name, strlen(name)) + side);
}

/* Prunes the stacked tensors all[n][count] and sums them up. */
static void mix_sum(const mix_job *j, double *all, const double *weights, int64_t count, uint64_t side, double *out) {
    double density = peft__opt_float(j->m->opts, "density");
    for (size_t i = 0; i < j->n; i++) {
        peft__mix_prune(all + (int64_t)i * count, count, j->rule->prune, density, mix_key(j, i, side));
    }
    peft__mix_sum(all, weights, j->n, count, mix_elect(j), out);
}

static peft_status mix_factors(const mix_job *j) {
    for (uint64_t side = 0; side < 2; side++) {
        int64_t count = j->rank * (side == 0 ? j->site->in : j->site->out);
        size_t bytes = (j->n + 1) * (size_t)count * sizeof(double);
        double *all = peft__alloc(j->m->mem, bytes), weights[PEFT__COMBINE_MAX];
        peft__real *to = side == 0 ? j->a : j->b;
        if (all == NULL) { return PEFT_E_NOMEM; }
        for (size_t i = 0; i < j->n; i++) {
            const peft__real *from = side == 0 ? j->parts[i].a : j->parts[i].b;
            double w = j->parts[i].weight * j->parts[i].scale;
            weights[i] = (side == 0 && w < 0 ? -1 : 1) * sqrt(fabs(w));
            for (int64_t e = 0; e < count; e++) { all[(int64_t)i * count + e] = (double)from[e]; }
        }
        double *sum = all + (int64_t)j->n * count;
        mix_sum(j, all, weights, count, side, sum);
        for (int64_t e = 0; e < count; e++) { to[e] = PEFT__R(sum[e]); }
        peft__free(j->m->mem, all, bytes);
    }
    return PEFT_OK;
}

/* ---- through the whole change -------------------------------------------------------------------------------- */

/* The weight of part i before D_i, which has its s_i already. */
static double mix_weight(const mix_job *j, size_t i) {
    return j->parts[i].weight * (peft__opt_bool(j->m->opts, "compat") ? j->parts[i].scale : 1);
}

/* u[out, rank], s[rank], v[in, rank] of sum w_i D_i, all of it formed. */
static peft_status mix_dense(const mix_job *j, double *u, double *s, double *v) {
    peft_status st = PEFT_OK;
    int64_t in = j->site->in, out = j->site->out, count = in * out;
    double *all = NULL, weights[PEFT__COMBINE_MAX];
    size_t bytes;
    if (!peft__mul((size_t)count, (j->n + 1) * sizeof(double), &bytes)) { FAIL(PEFT_E_SHAPE, "\"%s\" is too large", j->site->path); }
    all = peft__alloc_zero(j->m->mem, bytes);
    if (all == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < j->n; i++) {
        const mix_part *p = &j->parts[i];
        weights[i] = mix_weight(j, i);
        for (int64_t o = 0; o < out; o++) {
            double *row = all + (int64_t)i * count + o * in;
            for (int64_t k = 0; k < p->rank; k++) {
                double b = p->scale * (double)p->b[o * p->rank + k];
                for (int64_t c = 0; c < in; c++) { row[c] += b * (double)p->a[k * in + c]; }
            }
        }
    }
    double *sum = all + (int64_t)j->n * count;
    mix_sum(j, all, weights, count, 2, sum);
    st = peft__factor_svd(j->m->mem, sum, out, in, j->rank, u, s, v);
    peft__free(j->m->mem, all, bytes);
out:
    return st;
}

/* x[n, b] = q[n, k] y[k, b] */
static void mix_times(const double *q, const double *y, int64_t n, int64_t k, int64_t b, double *x) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < b; c++) {
            double sum = 0;
            for (int64_t e = 0; e < k; e++) { sum += q[i * k + e] * y[e * b + c]; }
            x[i * b + c] = sum;
        }
    }
}

/* The same where the ranks of the sources add up to less than the matrix has: of [B_i] [w_i s_i A_i] through their Q R. */
static peft_status mix_narrow(const mix_job *j, int64_t sum, double *u, double *s, double *v) {
    peft_status st = PEFT_OK;
    int64_t in = j->site->in, out = j->site->out, first = 0;
    size_t bytes = (size_t)(sum * (2 * in + 2 * out + 3 * sum + 2 * j->rank)) * sizeof(double);
    double *b = peft__alloc(j->m->mem, bytes);
    if (b == NULL) { return PEFT_E_NOMEM; }
    double *a = b + out * sum, *qb = a + in * sum, *qa = qb + out * sum, *rb = qa + in * sum, *ra = rb + sum * sum;
    double *core = ra + sum * sum, *cu = core + sum * sum, *cv = cu + sum * j->rank;
    for (size_t i = 0; i < j->n; i++) {
        const mix_part *p = &j->parts[i];
        double factor = mix_weight(j, i) * p->scale;
        for (int64_t k = 0; k < p->rank; k++) {
            for (int64_t o = 0; o < out; o++) { b[o * sum + first + k] = (double)p->b[o * p->rank + k]; }
            for (int64_t c = 0; c < in; c++) { a[c * sum + first + k] = factor * (double)p->a[k * in + c]; }
        }
        first += p->rank;
    }
    TRY(peft__factor_qr(j->m->mem, b, out, sum, sum, qb, rb));
    TRY(peft__factor_qr(j->m->mem, a, in, sum, sum, qa, ra));
    for (int64_t r = 0; r < sum; r++) {
        for (int64_t c = 0; c < sum; c++) {
            double dot = 0;
            for (int64_t e = 0; e < sum; e++) { dot += rb[r * sum + e] * ra[c * sum + e]; }
            core[r * sum + c] = dot;
        }
    }
    TRY(peft__factor_svd(j->m->mem, core, sum, sum, j->rank, cu, s, cv));
    mix_times(qb, cu, out, sum, j->rank, u);
    mix_times(qa, cv, in, sum, j->rank, v);
out:
    peft__free(j->m->mem, b, bytes);
    return st;
}

/* Cuts u and v, of n values together, off at +- the quantile of these and their negatives. */
static void mix_clamp(double *values, int64_t n, double quantile) {
    if (quantile >= 1 || n == 0) { return; }
    double at = (2 * quantile - 1) * (double)(n - 1);
    int64_t low = (int64_t)at;
    double x = peft__mix_nth(values, n, n - low), y = low + 1 < n ? peft__mix_nth(values, n, n - low - 1) : x;
    double most = x + (at - (double)low) * (y - x);
    for (int64_t i = 0; i < n; i++) { values[i] = fmin(fmax(values[i], -most), most); }
}

static peft_status mix_svd(const mix_job *j) {
    peft_status st = PEFT_OK;
    int64_t in = j->site->in, out = j->site->out, r = j->rank, sum = 0;
    size_t bytes = (size_t)(r * (in + out + 1)) * sizeof(double);
    double *u = peft__alloc(j->m->mem, bytes);
    if (u == NULL) { return PEFT_E_NOMEM; }
    double *v = u + out * r, *s = v + in * r;
    for (size_t i = 0; i < j->n; i++) { sum += j->parts[i].rank; }
    bool narrow = j->rule->prune == PEFT__PRUNE_NONE && sum < PEFT__MIN(in, out);
    TRY(narrow ? mix_narrow(j, sum, u, s, v) : mix_dense(j, u, s, v));
    for (int64_t e = 0; e < out * r; e++) { u[e] *= s[e % r]; }
    mix_clamp(u, (out + in) * r, peft__opt_float(j->m->opts, "svd_clamp"));
    for (int64_t e = 0; e < out * r; e++) { j->b[e] = PEFT__R(u[e]); }
    for (int64_t e = 0; e < r * in; e++) { j->a[e] = PEFT__R(v[e % in * r + e / in]); }
out:
    peft__free(j->m->mem, u, bytes);
    return st;
}

/* ---- all of it ----------------------------------------------------------------------------------------------- */

static peft_status mix_fill(mix_job *j, const peft__adapter *made) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < made->attachments.len; i++) {
        const peft__attachment *at = &PEFT__VEC_AT(&made->attachments, peft__attachment, i);
        mix_gather(j, &made->base->sites[at->site]);
        TRY(mix_rank(j));
        j->a = peft__lora_param(made, at, PEFT__LORA_A)->value;
        j->b = peft__lora_param(made, at, PEFT__LORA_B)->value;
        if (j->rule->cat) {
            mix_cat(j);
        } else {
            TRY(j->rule->svd ? mix_svd(j) : mix_factors(j));
        }
    }
out:
    return st;
}

peft_status peft__lora_mix(const peft__mix *m, peft__adapter **out) {
    peft_status st = PEFT_OK;
    size_t bytes = m->base->n_sites * sizeof(int64_t);
    int64_t *ranks = peft__alloc_zero(m->mem, bytes);
    mix_job *j = peft__alloc_zero(m->mem, sizeof *j);
    peft__adapter *made = NULL;
    if (ranks == NULL || j == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    j->m = m;
    for (size_t i = 0; i < PEFT__COUNT(mix_rules) && j->rule == NULL; i++) {
        if (strcmp(mix_rules[i].name, m->type) == 0) { j->rule = &mix_rules[i]; }
    }
    if (j->rule == NULL) { FAIL(PEFT_E_INTERNAL, "type \"%s\" is in a schema, but not known", m->type); }
    for (size_t i = 0; i < m->n; i++) { TRY(m->sources[i]->method->low_rank(m->sources[i], "a combination of LoRA adapters")); }
    for (size_t i = 0; i < m->base->n_sites; i++) {
        mix_gather(j, &m->base->sites[i]);
        TRY(mix_rank(j));
        ranks[i] = j->rank;
    }
    TRY(peft__lora_make(m->mem, m->base, m->name, ranks, 0, &m->sources[0]->opts, &made));
    TRY(mix_fill(j, made));
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__free(m->mem, ranks, bytes);
    peft__free(m->mem, j, sizeof *j);
    return st;
}
