/* The orthonormal term of AdaLoRA in double: its gradient against central differences, and its value against the formula. */
#include <math.h>

#include "peft/adalora.h"
#include "unit/peft_fake.h"

/* Mean over all A and B of |A A' - I| and |B' B - I|, times the weight, by loops. */
static double term_value(const peft__adapter *a, double share) {
    double sum = 0, count = 0;
    for (size_t j = 0; j < a->attachments.len; j++) {
        const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, j);
        const peft__site *s = &a->base->sites[at->site];
        for (int32_t slot = PEFT__ADALORA_A; at->product && slot <= PEFT__ADALORA_B; slot++) {
            const peft__real *v = peft__adalora_values(a, at, slot);
            int64_t r = at->rank, n = slot == PEFT__ADALORA_A ? s->in : s->out;
            int64_t along = slot == PEFT__ADALORA_A ? 1 : r, across = slot == PEFT__ADALORA_A ? n : 1;
            double squares = 0;
            for (int64_t i = 0; i < r * r; i++) {
                double c = i / r == i % r ? -1 : 0;
                for (int64_t e = 0; e < n; e++) { c += v[i / r * across + e * along] * v[i % r * across + e * along]; }
                squares += c * c;
            }
            sum += sqrt(squares);
            count++;
        }
    }
    return share * sum / count;
}

static void term_check(const char *const *settings, double share) {
    fake_base b;
    peft_status st;
    peft__rng rng = {17, 0};
    peft__pool *pool = NULL;
    double loss = 0;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "adalora", settings, 3, &st);
    CHECK_OK(st);
    for (int64_t i = 0; i < a->n_trainable; i++) { a->values[i] = 0.4 * peft__rng_normal(&rng); }
    size_t bytes = peft__scratch_size(&peft__kernels_generic, 4, 1), room = (size_t)a->n_trainable * sizeof(peft__real);
    uint8_t *scratch = peft__alloc(b.mem, bytes);
    peft__real *grads = peft__alloc_zero(b.mem, room);
    CHECK_OK(peft__pool_create(b.mem, 1, &pool));
    peft__run run = {&peft__kernels_generic, pool, 1, scratch, bytes, NULL};
    CHECK_OK(a->method->regularise(a, &run, 3, grads, &loss));
    CHECK_NEAR(loss, term_value(a, share), 1e-13);
    double top = 0, worst = 0;
    for (int64_t i = 0; i < a->n_trainable; i++) { top = fmax(top, fabs(grads[i])); }
    for (int64_t i = 0; i < a->n_trainable; i++) {
        const double h = 1e-4, v = a->values[i];
        double f[4];
        for (int k = 0; k < 4; k++) {
            a->values[i] = v + (k < 2 ? k - 2 : k - 1) * h;
            f[k] = term_value(a, share);
        }
        a->values[i] = v;
        worst = fmax(worst, fabs(3 * (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h) - grads[i]));
    }
    CHECK(top > 1e-3);
    CHECK_NEAR(worst / top, 0, 1e-9);
    peft__free(b.mem, grads, room);
    peft__free(b.mem, scratch, bytes);
    peft__pool_free(pool);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(adalora_term_gradient) {
    term_check(FAKE("init_r=3", "target_r=2"), 0.5);
    term_check(FAKE("init_r=9", "target_modules=all-linear", "orth_reg_weight=2"), 2); /* a rank above the sides */
    term_check(FAKE("init_r=2", "target_r=1", "target_modules=q_proj,v_proj", "modules_to_save=lm_head",
                    "rank_pattern={\"model.layers.0.self_attn.q_proj.lora_E\":[false,false],"
                    "\"model.layers.1.self_attn.v_proj.lora_E\":[false,true]}"), 0.5);
}
