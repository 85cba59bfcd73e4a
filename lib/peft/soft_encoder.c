/* soft_encoder.c - the small networks whose output is a set of virtual tokens (P-tuning, prefix with a projection).
 *
 * The same emitter serves training and files: outside of training the encoder is put on a tape of its own and run once.
 *
 * An encoder that starts anywhere gives rows like nothing that the model knows. The last layer, y = h W' + b, is therefore
 * solved for: b is the mean of the wanted rows T, and W = (T - b)' G^-1 H with G = H H' + e I, the solution of least norm
 * where there are no more rows than columns of H. e is a millionth of G's mean diagonal. */
#include "peft/soft.h"

#include <math.h>

const peft__adapter_param *peft__soft_param(const peft__adapter *a, int32_t slot) {
    const peft__attachment *at = a->attachments.data;
    for (int32_t i = at->first; i < at->first + at->count; i++) {
        if (peft__adapter_param_at(a, (size_t)i)->slot == slot) { return peft__adapter_param_at(a, (size_t)i); }
    }
    return NULL;
}

int64_t peft__soft_count(const peft__adapter *a) {
    bool hub = peft__schema_find(a->opts.schema, "prefix_length") != NULL;
    int64_t n = peft__opt_int(&a->opts, hub ? "prefix_length" : "num_virtual_tokens");
    return a->method->prompt != NULL ? n * peft__soft_stacks(a) : n;
}

int32_t peft__soft_tape_param(const peft__adapter *a, int32_t slot, peft__tape *t) {
    return peft__adapter_tape_param(a, a->attachments.data, slot, t);
}

peft__val peft__soft_linear(const peft__adapter *a, peft__tape *t, peft__val x, int32_t weight_slot, int32_t bias_slot) {
    int32_t w = peft__soft_tape_param(a, weight_slot, t), b = peft__soft_tape_param(a, bias_slot, t);
    return peft__op_linear(t, x, NULL, NULL, w, b, peft__soft_param(a, weight_slot)->p.rows);
}

peft_status peft__soft_add_linear(peft__adapter *a, peft__attachment *at, const char *name, int32_t weight_slot,
                                  int32_t bias_slot, int64_t out, int64_t in) {
    peft_status st = PEFT_OK;
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.weight", name), weight_slot, out, in, 2, false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.bias", name), bias_slot, 1, out, 1, false, false));
out:
    return st;
}

/* ---- running ------------------------------------------------------------------------------------------------- */

static void soft_copy(const peft__exec *x, peft__val v, peft__real *out) {
    const peft__value *value = peft__tape_value(x->tape, v);
    if (out != NULL) { memcpy(out, peft__exec_data(x, v), (size_t)(value->fixed * value->cols) * sizeof *out); }
}

peft_status peft__soft_run(const peft__adapter *a, peft__soft_emit emit, peft__real *values, peft__real *hidden) {
    peft_status st = PEFT_OK;
    const peft__kernels *k = &peft__kernels_generic; /* files do not depend on the CPU */
    peft__caps caps = {.max_rows = 1, .max_tokens = 1, .max_length = 1};
    peft__pool *pool = NULL;
    peft__tape tape;
    peft__plan plan = {0};
    peft__exec exec = {0};
    peft__frame frame;
    memset(&frame, 0, sizeof frame);
    peft__tape_init(&tape, a->mem, false);
    peft__val before = PEFT__NONE, v = emit(a, &tape, &before);
    TRY(peft__tape_finish(&tape));
    TRY(peft__pool_create(a->mem, 1, &pool));
    TRY(peft__plan_make(&plan, a->mem, &tape, &caps, 0, k, 1, 64));
    TRY(peft__exec_create(&exec, a->mem, &tape, &plan, k, pool));
    TRY(peft__exec_run(&exec, &frame, false));
    soft_copy(&exec, v, values);
    soft_copy(&exec, before, hidden); /* the last step has read it: its memory is whole */
out:
    peft__exec_free(&exec);
    peft__plan_free(&plan);
    peft__pool_free(pool);
    peft__tape_free(&tape);
    return st;
}

/* ---- fitting ------------------------------------------------------------------------------------------------- */

/* g[n, n] = H H' + e I, then its Cholesky factor in the lower half. */
static void soft_factor(double *g, const peft__real *hidden, int64_t n, int64_t width) {
    double trace = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t c = 0; c < width; c++) { sum += (double)hidden[i * width + c] * (double)hidden[j * width + c]; }
            g[i * n + j] = sum;
        }
        trace += g[i * n + i];
    }
    double e = trace > 0 ? 1e-6 * trace / (double)n : 1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = g[i * n + j] + (i == j ? e : 0);
            for (int64_t c = 0; c < j; c++) { sum -= g[i * n + c] * g[j * n + c]; }
            g[i * n + j] = i == j ? sqrt(sum > e / 2 ? sum : e / 2) : sum / g[j * n + j];
        }
    }
}

/* x := G^-1 x for one column. */
static void soft_solve(const double *g, double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < i; c++) { x[i] -= g[i * n + c] * x[c]; }
        x[i] /= g[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        for (int64_t c = i + 1; c < n; c++) { x[i] -= g[c * n + i] * x[c]; }
        x[i] /= g[i * n + i];
    }
}

peft_status peft__soft_fit(peft__adapter *a, peft__soft_emit emit, const peft__real *target, int32_t weight_slot,
                           int32_t bias_slot) {
    peft_status st = PEFT_OK;
    const peft__param *w = &peft__soft_param(a, weight_slot)->p, *b = &peft__soft_param(a, bias_slot)->p;
    int64_t n = peft__soft_count(a), width = w->cols;
    size_t hidden_bytes = (size_t)(n * width) * sizeof(peft__real), bytes = (size_t)(n * n + n) * sizeof(double);
    peft__real *hidden = peft__alloc(a->mem, hidden_bytes);
    double *g = peft__alloc(a->mem, bytes);
    if (hidden == NULL || g == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    double *x = g + n * n;
    TRY(peft__soft_run(a, emit, NULL, hidden));
    soft_factor(g, hidden, n, width);
    for (int64_t o = 0; o < w->rows; o++) {
        double mean = 0;
        for (int64_t i = 0; i < n; i++) { mean += (double)target[i * w->rows + o] / (double)n; }
        for (int64_t i = 0; i < n; i++) { x[i] = (double)target[i * w->rows + o] - mean; }
        soft_solve(g, x, n);
        b->value[o] = PEFT__R(mean);
        for (int64_t c = 0; c < width; c++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++) { sum += x[i] * (double)hidden[i * width + c]; }
            w->value[o * width + c] = PEFT__R(sum);
        }
    }
out:
    peft__free(a->mem, hidden, hidden_bytes);
    peft__free(a->mem, g, bytes);
    return st;
}
