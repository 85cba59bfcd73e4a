/* adamw.c - Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019), as torch.optim.AdamW:
 *
 *   p -= lr wd p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
 *   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps) */
#include <math.h>

#include "optim/kinds.h"

static void adamw_update(const peft__optim *o, const peft__kernels *k, int64_t begin, int64_t end, peft__real gscale,
                         double learning_rate) {
    double t = (double)o->step;
    double step = learning_rate / (1 - pow(o->beta1, t)), vscale = 1 / sqrt(1 - pow(o->beta2, t));
    k->adamw(o->params + begin, o->grads + begin, o->state[0] + begin, o->state[1] + begin, end - begin, gscale,
             PEFT__R(o->beta1), PEFT__R(o->beta2), PEFT__R(step), PEFT__R(vscale), PEFT__R(o->epsilon),
             PEFT__R(learning_rate * o->weight_decay));
}

const peft__optim_kind peft__optim_adamw = {"adamw", 2, {"m", "v"}, adamw_update};
