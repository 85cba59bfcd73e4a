/* Stretches of the parameters with a learning rate of their own: exact, whatever the pieces and the threads; bad stretches. */
#include "optim/optim.h"
#include "runner.h"

enum { SEGMENT_N = 100000 };

static peft_status segment_run(peft__mem *mem, int32_t threads, bool segments, peft__real *params, peft__real *grads) {
    peft_status st = PEFT_OK;
    peft__optset opts = {0};
    peft__optim o = {0};
    peft__run run = {.k = &peft__kernels_generic};
    for (int64_t i = 0; i < SEGMENT_N; i++) {
        params[i] = 1;
        grads[i] = PEFT__R(0.5);
    }
    run.scratch_size = 4096;
    TRY(peft__pool_create(mem, threads, &run.pool));
    run.workers = peft__pool_size(run.pool);
    run.scratch = peft__alloc(mem, run.scratch_size * (size_t)run.workers);
    TRY(peft__optset_init(&opts, mem, &peft__schema_optimizer));
    TRY(peft__opt_set_str(&opts, "optimizer", "sgd"));
    TRY(peft__opt_set_float(&opts, "learning_rate", 0.25));
    TRY(peft__opt_set_float(&opts, "max_grad_norm", 0));
    TRY(peft__opt_set_str(&opts, "lr_scheduler_type", "constant"));
    TRY(peft__optim_create(&o, mem, &opts, 1, params, grads, SEGMENT_N, 0));
    if (segments) {
        TRY(peft__optim_add_segment(&o, 10, 20, 2));
        TRY(peft__optim_add_segment(&o, 20, 30, 2)); /* joins the one before */
        TRY(peft__optim_add_segment(&o, 32000, 70000, 0)); /* over the pieces of 32768 */
        TRY(peft__optim_add_segment(&o, SEGMENT_N - 1, SEGMENT_N, 4));
        if (o.segments.len != 3) { FAIL(PEFT_E_INTERNAL, "%zu segments", o.segments.len); }
        if (peft__optim_add_segment(&o, 5, 9, 1) != PEFT_E_INTERNAL) { FAIL(PEFT_E_INTERNAL, "took one that is out of order"); }
        if (peft__optim_add_segment(&o, 0, SEGMENT_N + 1, 1) != PEFT_E_INTERNAL) { FAIL(PEFT_E_INTERNAL, "took one past the end"); }
    }
    peft__optim_step(&o, &run, 1, 1);
out:
    peft__optim_free(&o);
    peft__optset_free(&opts);
    if (run.scratch != NULL) { peft__free(mem, run.scratch, run.scratch_size * (size_t)run.workers); }
    peft__pool_free(run.pool);
    return st;
}

TEST(optim_segments_scale_the_rate) {
    static peft__real params[SEGMENT_N], grads[SEGMENT_N];
    peft__mem *mem = runner_mem();
    for (int32_t threads = 1; threads <= 3; threads++) {
        CHECK_OK(segment_run(mem, threads, true, params, grads));
        for (int64_t i = 0; i < SEGMENT_N; i++) {
            double factor = i >= 10 && i < 30 ? 2 : i >= 32000 && i < 70000 ? 0 : i == SEGMENT_N - 1 ? 4 : 1;
            CHECK_NEAR(params[i], 1 - 0.125 * factor, 0);
        }
    }
    CHECK_OK(segment_run(mem, 2, false, params, grads));
    for (int64_t i = 0; i < SEGMENT_N; i++) { CHECK_NEAR(params[i], 0.875, 0); }
}
