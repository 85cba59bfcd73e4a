/* update.c - one optimiser step over n elements: AdamW (Loshchilov and Hutter 2019) and Lion (Chen et al. 2023).
 *
 * The scalars come ready from optim/: step carries the learning rate and the bias correction of m, vscale the one of
 * sqrt(v), decay the learning rate times the weight decay, gscale the clipping factor.
 *
 * Left out: the loop over tensors, the schedule, 8-bit states. */
#include <math.h>

#include "kernels/generic/generic.h"

void peft__generic_adamw(peft__real *p, const peft__real *g, peft__real *m, peft__real *v, int64_t n, peft__real gscale,
                         peft__real b1, peft__real b2, peft__real step, peft__real vscale, peft__real eps,
                         peft__real decay) {
    for (int64_t i = 0; i < n; i++) {
        peft__real d = g[i] * gscale;
        m[i] = b1 * m[i] + (1 - b1) * d;
        v[i] = b2 * v[i] + (1 - b2) * d * d;
        peft__real q = p[i] - decay * p[i];
        p[i] = q - step * m[i] / ((peft__real)sqrt((double)v[i]) * vscale + eps);
    }
}

void peft__generic_lion(peft__real *p, const peft__real *g, peft__real *m, int64_t n, peft__real gscale, peft__real b1,
                        peft__real b2, peft__real step, peft__real decay) {
    for (int64_t i = 0; i < n; i++) {
        peft__real d = g[i] * gscale, u = b1 * m[i] + (1 - b1) * d;
        peft__real sign = u > 0 ? 1 : u < 0 ? -1 : 0;
        p[i] -= decay * p[i] + step * sign;
        m[i] = b2 * m[i] + (1 - b2) * d;
    }
}
