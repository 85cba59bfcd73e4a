/* correlate.c - errors and correlations of predicted numbers p with true ones y, over n rows, column by column:
 *
 *   mse       sum (p - y)^2 / n,  mae  sum |p - y| / n
 *   Pearson   sum (p - mean p) (y - mean y) / (|p - mean p| |y - mean y|), cut to -1..1
 *   Spearman  Pearson of the ranks; equal values share the mean of their ranks (Kendall 1948)
 *
 * as scikit-learn's and SciPy's functions of these names; like those, a correlation is NaN when all values of one side are
 * the same, and when one is NaN.
 *
 * Left out: p-values, correlations of weighted rows. */
#include <math.h>

#include "train/metrics.h"

static double correlate_mean(const double *v, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) { sum += v[i]; }
    return sum / (double)n;
}

static bool correlate_constant(const double *v, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        if (!(v[i] == v[0])) { return false; }
    }
    return true;
}

double peft__pearson(const double *a, const double *b, int64_t n) {
    if (n < 2 || correlate_constant(a, n) || correlate_constant(b, n)) { return (double)NAN; }
    double mean_a = correlate_mean(a, n), mean_b = correlate_mean(b, n), ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = a[i] - mean_a, y = b[i] - mean_b;
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    double r = ab / (sqrt(aa) * sqrt(bb));
    return r > 1 ? 1 : r < -1 ? -1 : r;
}

/* Sinks order[root] in the heap whose largest value is on top. */
static void correlate_sink(const double *v, int64_t *order, int64_t root, int64_t n) {
    int64_t moved = order[root];
    for (int64_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && v[order[child + 1]] > v[order[child]]) { child++; }
        if (!(v[order[child]] > v[moved])) { break; }
        order[root] = order[child];
    }
    order[root] = moved;
}

/* Heapsort: equal values come in any order, which their shared rank does not show. The C library's sort may allocate. */
void peft__ranks(const double *values, int64_t n, int64_t *order, double *ranks) {
    for (int64_t i = 0; i < n; i++) { order[i] = i; }
    for (int64_t i = n / 2 - 1; i >= 0; i--) { correlate_sink(values, order, i, n); }
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t largest = order[0];
        order[0] = order[i];
        order[i] = largest;
        correlate_sink(values, order, 0, i);
    }
    for (int64_t i = 0, end; i < n; i = end) {
        end = i + 1;
        while (end < n && values[order[end]] == values[order[i]]) { end++; }
        for (int64_t k = i; k < end; k++) { ranks[order[k]] = (double)(i + 1 + end) / 2; }
    }
}

double peft__cosine(const float *a, const float *b, int64_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)a[i], y = (double)b[i];
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    return aa > 0 && bb > 0 ? ab / (sqrt(aa) * sqrt(bb)) : 0;
}

typedef struct correlate_room { /* of one column, [rows] each */
    double *p, *y, *ranks_p, *ranks_y;
    int64_t *order;
} correlate_room;

static void correlate_column(const correlate_room *r, int64_t n, peft__number_scores *out) {
    double squares = 0, sizes = 0;
    bool nan = false;
    for (int64_t i = 0; i < n; i++) {
        double d = r->p[i] - r->y[i];
        squares += d * d;
        sizes += fabs(d);
        nan = nan || isnan(r->p[i]) || isnan(r->y[i]);
    }
    peft__ranks(r->p, n, r->order, r->ranks_p);
    peft__ranks(r->y, n, r->order, r->ranks_y);
    out->mse += squares / (double)n;
    out->mae += sizes / (double)n;
    out->pearson += peft__pearson(r->p, r->y, n);
    out->spearman += nan ? (double)NAN : peft__pearson(r->ranks_p, r->ranks_y, n);
}

peft_status peft__number_scores_of(peft__mem *mem, const float *pairs, int64_t rows, int64_t columns, peft__number_scores *out) {
    const double none = (double)NAN;
    *out = (peft__number_scores){none, none, none, none};
    if (rows == 0) { return PEFT_OK; }
    size_t n = (size_t)rows, bytes = n * (4 * sizeof(double) + sizeof(int64_t));
    double *block = peft__alloc(mem, bytes), count = (double)columns;
    if (block == NULL) { return PEFT_E_NOMEM; }
    correlate_room r = {block, block + n, block + 2 * n, block + 3 * n, (int64_t *)(void *)(block + 4 * n)};
    *out = (peft__number_scores){0, 0, 0, 0};
    for (int64_t c = 0; c < columns; c++) {
        for (int64_t i = 0; i < rows; i++) {
            r.p[i] = (double)pairs[2 * i * columns + c];
            r.y[i] = (double)pairs[(2 * i + 1) * columns + c];
        }
        correlate_column(&r, rows, out);
    }
    *out = (peft__number_scores){out->mse / count, out->mae / count, out->pearson / count, out->spearman / count};
    peft__free(mem, block, bytes);
    return PEFT_OK;
}
