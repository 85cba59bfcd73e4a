/* Gradients of every macro-op, in double, against central differences of the loss: every trained parameter of two small
 * transformers, along its own axis. h = 1e-6 leaves about 1e-8 of error on these losses, from truncation and rounding; 1e-7 is asked. */
#include <math.h>

#include "runner.h"
#include "support/tiny.h"

static double gradient_loss(tiny *m) {
    if (peft__exec_run(&m->exec, &m->frame, true) != PEFT_OK) { return (double)NAN; }
    return m->frame.loss_sum;
}

/* Largest relative error over all parameters; the floor makes gradients that are zero in theory comparable. */
static double gradient_error(tiny *m) {
    double worst = 0, h = 1e-6, scale = 0;
    tiny_clear(m);
    (void)gradient_loss(m);
    peft__real *grads[TINY_PARAMS];
    for (int32_t i = 0; i < m->n_params; i++) {
        size_t n = (size_t)(m->params[i].rows * m->params[i].cols);
        grads[i] = peft__arena_alloc(&m->arena, n * sizeof(peft__real));
        memcpy(grads[i], m->params[i].grad, n * sizeof(peft__real));
        for (size_t k = 0; k < n; k++) { scale = fmax(scale, fabs(grads[i][k])); }
    }
    for (int32_t i = 0; i < m->n_params; i++) {
        for (int64_t k = 0; k < m->params[i].rows * m->params[i].cols; k++) {
            peft__real *v = &m->params[i].value[k], v0 = *v;
            *v = v0 + h;
            double up = gradient_loss(m);
            *v = v0 - h;
            double down = gradient_loss(m);
            *v = v0;
            double error = fabs((up - down) / (2 * h) - grads[i][k]) / fmax(fabs(grads[i][k]), 0.1 * scale);
            worst = fmax(worst, error);
        }
    }
    return worst;
}

static double gradient_case(int shape, int train, double dropout, double smoothing, double softcap, const float *weights) {
    tiny m;
    double error = (double)NAN;
    if (tiny_create(&m, runner_mem(), shape, train, dropout, &peft__kernels_generic, 1, 0, softcap) == PEFT_OK) {
        m.frame.label_smoothing = smoothing;
        m.frame.weights = weights;
        error = gradient_error(&m);
    }
    tiny_free(&m);
    return error;
}

TEST(autograd_gradient_llama_lora) { CHECK_NEAR(gradient_case(TINY_LLAMA, TINY_LORA, 0, 0, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_llama_full) { CHECK_NEAR(gradient_case(TINY_LLAMA, TINY_FULL, 0, 0, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_gpt_lora) { CHECK_NEAR(gradient_case(TINY_GPT, TINY_LORA, 0, 0, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_gpt_full) { CHECK_NEAR(gradient_case(TINY_GPT, TINY_FULL, 0, 0, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_dropout) { CHECK_NEAR(gradient_case(TINY_LLAMA, TINY_LORA, 0.3, 0, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_label_smoothing) { CHECK_NEAR(gradient_case(TINY_LLAMA, TINY_FULL, 0, 0.1, 0, NULL), 0, 1e-7); }
TEST(autograd_gradient_softcap) { CHECK_NEAR(gradient_case(TINY_LLAMA, TINY_LORA, 0, 0.1, 2.0, NULL), 0, 1e-7); }

TEST(autograd_gradient_loss_weights) {
    static const float weights[TINY_TOKENS] = {1, 0.5F, 3, 0, 2, 1, 1, 0.25F, 1, 1, 4};
    CHECK_NEAR(gradient_case(TINY_GPT, TINY_LORA, 0, 0, 0, weights), 0, 1e-7);
}

/* A gradient that is wrong by one part in a million must not pass. */
TEST(autograd_gradient_check_can_fail) {
    tiny m;
    CHECK_OK(tiny_create(&m, runner_mem(), TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, 0, 0));
    m.frame.loss_scale = 1.000001;
    double error = gradient_error(&m);
    tiny_free(&m);
    CHECK(error > 5e-7);
}
