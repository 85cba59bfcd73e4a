/* The plan: what recomputation and threads may not change, and what a limit must. */
#include "runner.h"
#include "support/tiny.h"

/* Loss and all gradients of a run, end to end; NULL on failure. */
static peft__real *plan_run(int shape, int train, int32_t threads, size_t limit, peft__mem *mem, size_t *n, size_t *bytes,
                            int32_t *recomputed) {
    tiny m;
    peft__real *out = NULL;
    const peft__kernels *k = NULL;
    size_t at = 0;
    if (peft__kernels_find("auto", &k) != PEFT_OK) { return NULL; }
    if (tiny_create(&m, mem, shape, train, 0.25, k, threads, limit, 0) == PEFT_OK &&
        peft__exec_run(&m.exec, &m.frame, true) == PEFT_OK) {
        *n = 1;
        for (int32_t i = 0; i < m.n_params; i++) { *n += (size_t)(m.params[i].rows * m.params[i].cols); }
        out = peft__alloc(mem, *n * sizeof *out);
        out[at++] = PEFT__R(m.frame.loss_sum);
        for (int32_t i = 0; i < m.n_params; i++) {
            size_t count = (size_t)(m.params[i].rows * m.params[i].cols);
            memcpy(out + at, m.params[i].grad, count * sizeof *out);
            at += count;
        }
        *bytes = peft__plan_bytes(&m.plan);
        *recomputed = m.plan.recomputed;
    }
    tiny_free(&m);
    return out;
}

static bool plan_equal(int shape, int train, int32_t threads, bool limited) {
    peft__mem *mem = runner_mem();
    size_t n = 0, n2 = 0, bytes = 0, bytes2 = 0;
    int32_t none = 0, some = 0;
    peft__real *a = plan_run(shape, train, 1, 0, mem, &n, &bytes, &none);
    size_t own = bytes; /* scratch grows with the threads: the limit is below what they need without recomputation */
    if (limited && threads > 1) { peft__free(mem, plan_run(shape, train, threads, 0, mem, &n2, &own, &some), n * sizeof *a); }
    size_t limit = own - 64;
    peft__real *b = plan_run(shape, train, threads, limited ? limit : 0, mem, &n2, &bytes2, &some);
    bool same = a != NULL && b != NULL && n == n2 && memcmp(a, b, n * sizeof *a) == 0 && none == 0;
    bool obeyed = !limited || (some > 0 && bytes2 <= limit);
    bool alive = a != NULL && a[0] > 0;
    peft__free(mem, a, n * sizeof *a);
    peft__free(mem, b, n2 * sizeof *b);
    return same && obeyed && alive;
}

TEST(plan_recompute_same_bits_llama_lora) { CHECK(plan_equal(TINY_LLAMA, TINY_LORA, 1, true)); }
TEST(plan_recompute_same_bits_llama_full) { CHECK(plan_equal(TINY_LLAMA, TINY_FULL, 1, true)); }
TEST(plan_recompute_same_bits_gpt_lora) { CHECK(plan_equal(TINY_GPT, TINY_LORA, 1, true)); }
TEST(plan_recompute_same_bits_gpt_full) { CHECK(plan_equal(TINY_GPT, TINY_FULL, 1, true)); }
TEST(plan_threads_same_bits_2) { CHECK(plan_equal(TINY_LLAMA, TINY_LORA, 2, false)); }
TEST(plan_threads_same_bits_4) { CHECK(plan_equal(TINY_GPT, TINY_FULL, 4, false)); }
TEST(plan_threads_and_recompute_same_bits) { CHECK(plan_equal(TINY_LLAMA, TINY_FULL, 3, true)); }

TEST(plan_limit_too_small_states_the_least) {
    tiny m;
    peft_status st = tiny_create(&m, runner_mem(), TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, 1000, 0);
    size_t least = m.plan.least_bytes;
    tiny_free(&m);
    CHECK_INT(st, PEFT_E_NOMEM);
    CHECK_ERROR_HAS("1000 bytes");
    CHECK(least > 1000);
    tiny n;
    st = tiny_create(&n, runner_mem(), TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, least, 0);
    tiny_free(&n);
    CHECK_INT(st, PEFT_OK);
}

TEST(plan_frozen_layers_take_no_gradient) {
    tiny m;
    CHECK_OK(tiny_create(&m, runner_mem(), TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, 0, 0));
    const peft__op *embed = peft__tape_op(&m.tape, 0);
    bool needs = embed->needs_grad || peft__tape_value(&m.tape, embed->out[0])->needs_grad;
    bool backward_of_it = false;
    for (int64_t i = m.plan.n_forward; i < m.plan.n_steps; i++) {
        backward_of_it = backward_of_it || m.plan.steps[i].op == 0;
    }
    tiny_free(&m);
    CHECK(!needs);
    CHECK(!backward_of_it);
}

TEST(plan_step_allocates_nothing) {
    tiny m;
    peft__mem *mem = runner_mem();
    CHECK_OK(tiny_create(&m, mem, TINY_GPT, TINY_FULL, 0, &peft__kernels_generic, 2, 0, 0));
    CHECK_OK(peft__exec_run(&m.exec, &m.frame, true));
    size_t calls = atomic_load(&mem->calls);
    CHECK_OK(peft__exec_run(&m.exec, &m.frame, true));
    size_t after = atomic_load(&mem->calls);
    tiny_free(&m);
    CHECK_INT((int64_t)after, (int64_t)calls);
}

TEST(plan_larger_batch_is_refused) {
    tiny m;
    CHECK_OK(tiny_create(&m, runner_mem(), TINY_GPT, TINY_LORA, 0, &peft__kernels_generic, 1, 0, 0));
    m.frame.count[PEFT__SPACE_INPUT] = TINY_TOKENS + 1;
    peft_status st = peft__exec_run(&m.exec, &m.frame, true);
    tiny_free(&m);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("12 tokens");
}

/* A row's loss and gradient do not depend on its neighbours: the sum over rows alone equals the batch. */
TEST(plan_row_alone_has_the_same_loss) {
    tiny m;
    CHECK_OK(tiny_create(&m, runner_mem(), TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, 0, 0));
    CHECK_OK(peft__exec_run(&m.exec, &m.frame, false));
    double whole = m.frame.loss_sum, sum = 0;
    for (int64_t r = 0; r < TINY_ROWS; r++) {
        int64_t offsets[2] = {0, tiny_offsets[r + 1] - tiny_offsets[r]};
        m.frame.n_rows = 1;
        m.frame.count[PEFT__SPACE_TOKENS] = m.frame.count[PEFT__SPACE_INPUT] = offsets[1];
        m.frame.offsets[PEFT__SPACE_TOKENS] = m.frame.offsets[PEFT__SPACE_INPUT] = offsets;
        m.frame.ids = tiny_ids + tiny_offsets[r];
        m.frame.labels = tiny_labels + tiny_offsets[r];
        m.frame.positions = tiny_positions + tiny_offsets[r];
        CHECK_OK(peft__exec_run(&m.exec, &m.frame, false));
        sum += m.frame.loss_sum;
    }
    tiny_free(&m);
    CHECK_NEAR(sum, whole, 1e-12 * whole);
}

/* The tape and the weights are there; planning and taking memory fail at every allocation in turn. */
TEST(plan_failing_allocations_leak_nothing) {
    peft__mem *mem = runner_mem();
    tiny m;
    peft__caps caps = {.max_rows = TINY_ROWS, .max_tokens = TINY_TOKENS, .max_length = 8};
    int failed = 0;
    CHECK_OK(tiny_create(&m, mem, TINY_LLAMA, TINY_LORA, 0, &peft__kernels_generic, 1, 0, 0));
    size_t before = atomic_load(&mem->now);
    for (size_t n = 1; n < 200; n++) {
        peft__plan plan;
        peft__exec exec;
        memset(&exec, 0, sizeof exec);
        peft__mem_fail_after(mem, n, false);
        peft_status st = peft__plan_make(&plan, mem, &m.tape, &caps, 0, &peft__kernels_generic, 1, TINY_D);
        if (st == PEFT_OK) { st = peft__exec_create(&exec, mem, &m.tape, &plan, &peft__kernels_generic, m.pool); }
        peft__mem_fail_after(mem, 0, false);
        peft__exec_free(&exec);
        peft__plan_free(&plan);
        if (atomic_load(&mem->now) != before) { failed = -1; }
        if (st == PEFT_OK || failed < 0) { break; }
        if (st != PEFT_E_NOMEM) { failed = -2; }
        failed++;
    }
    tiny_free(&m);
    CHECK(failed > 8);
}
