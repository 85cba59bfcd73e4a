/* lion.c - Lion (Chen et al. 2023, algorithm 2): p -= lr (sign(b1 m + (1 - b1) g) + wd p);  m = b2 m + (1 - b2) g.
 *
 * The paper's betas are 0.9 and 0.99; a learning rate is 3 to 10 times smaller than AdamW's. */
#include "optim/kinds.h"

static void lion_update(const peft__optim *o, const peft__kernels *k, int64_t begin, int64_t end, peft__real gscale,
                        double learning_rate) {
    k->lion(o->params + begin, o->grads + begin, o->state[0] + begin, end - begin, gscale, PEFT__R(o->beta1),
            PEFT__R(o->beta2), PEFT__R(learning_rate), PEFT__R(learning_rate * o->weight_decay));
}

const peft__optim_kind peft__optim_lion = {"lion", 1, {"m", NULL}, lion_update};
