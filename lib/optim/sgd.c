/* sgd.c - stochastic gradient descent with momentum, as torch.optim.SGD without dampening, with decoupled weight decay:
 *
 *   p -= lr wd p;  u = momentum u + g;  p -= lr u */
#include "optim/kinds.h"

static void sgd_update(const peft__optim *o, const peft__kernels *k, int64_t begin, int64_t end, peft__real gscale,
                       double learning_rate) {
    peft__real *p = o->params + begin, *u = o->state[0] + begin;
    const peft__real *g = o->grads + begin;
    peft__real keep = PEFT__R(1 - learning_rate * o->weight_decay);
    (void)k;
    for (int64_t i = 0; i < end - begin; i++) {
        u[i] = PEFT__R(o->momentum) * u[i] + gscale * g[i];
        p[i] = keep * p[i] - PEFT__R(learning_rate) * u[i];
    }
}

const peft__optim_kind peft__optim_sgd = {"sgd", 1, {"momentum", NULL}, sgd_update};
