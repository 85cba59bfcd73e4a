/* combine_ops.c - what combinations do to tensors element by element: pruning, election of signs, sums.
 *
 *   magnitude   keeps the floor(density n) elements of largest magnitude; of equal ones the first
 *   random      keeps each element with probability density and divides it by density (DARE: Yu et al. 2023, arXiv 2311.03099)
 *   election    the sign of the sum (total) or of the sum of signs (frequency), a tie being positive; what has the elected sign
 *               is averaged (TIES: Yadav et al. 2023, arXiv 2306.01708, section 3)
 *
 * Everything is in double. Left out: what the tensors mean (combine_lora.c). */
#include "peft/combine.h"

#include <math.h>

/* Digit by digit from the top: magnitudes order as the bits of their doubles do. */
double peft__mix_nth(const double *v, int64_t count, int64_t n) {
    uint64_t known = 0, bits;
    for (int32_t shift = 56; shift >= 0; shift -= 8) {
        int64_t bins[256] = {0};
        for (int64_t i = 0; i < count; i++) {
            double size = fabs(v[i]);
            memcpy(&bits, &size, sizeof bits);
            if (shift == 56 || bits >> (shift + 8) == known) { bins[bits >> shift & 255]++; }
        }
        uint64_t bin = 255;
        while (bin > 0 && bins[bin] < n) { n -= bins[bin--]; }
        known = known << 8 | bin;
    }
    double out;
    memcpy(&out, &known, sizeof out);
    return out;
}

static void ops_prune_magnitude(double *v, int64_t count, int64_t keep) {
    if (keep <= 0) {
        memset(v, 0, (size_t)count * sizeof *v);
        return;
    }
    double least = peft__mix_nth(v, count, keep);
    for (int64_t i = 0; i < count; i++) { keep -= fabs(v[i]) > least; }
    for (int64_t i = 0; i < count; i++) {
        bool stays = fabs(v[i]) > least || (fabs(v[i]) == least && keep-- > 0);
        if (!stays) { v[i] = 0; }
    }
}

void peft__mix_prune(double *v, int64_t count, int32_t prune, double density, uint64_t key) {
    if (prune == PEFT__PRUNE_NONE || density >= 1) { return; }
    if (prune == PEFT__PRUNE_MAGNITUDE) {
        ops_prune_magnitude(v, count, (int64_t)(density * (double)count));
        return;
    }
    peft__rng rng = {key, 0};
    for (int64_t i = 0; i < count; i++) { v[i] = peft__rng_uniform(&rng) < density ? v[i] / density : 0; }
}

void peft__mix_sum(const double *v, const double *weights, size_t n, int64_t count, int32_t elect, double *out) {
    for (int64_t e = 0; e < count; e++) {
        double vote = 0, sum = 0, kept = 0;
        for (size_t i = 0; i < n && elect != PEFT__ELECT_NONE; i++) {
            double x = v[(int64_t)i * count + e];
            vote += elect == PEFT__ELECT_TOTAL ? x : (x > 0) - (x < 0);
        }
        for (size_t i = 0; i < n; i++) {
            double x = v[(int64_t)i * count + e];
            if (elect != PEFT__ELECT_NONE && !(vote >= 0 ? x > 0 : x < 0)) { continue; }
            sum += weights[i] * x;
            kept++;
        }
        out[e] = elect != PEFT__ELECT_NONE && kept > 1 ? sum / kept : sum;
    }
}
