/* autograd_multitask_test.c - the table of a prompt of several tasks against Hugging Face PEFT's numbers, its gradients against
 * the formula, and which rows of a batch may ask for what. */
#include "autograd/autograd.h"
#include "runner.h"

enum { MULTITASK_TASKS = 3, MULTITASK_P = 2, MULTITASK_R = 2, MULTITASK_C = 4 };

typedef struct multitask_kit {
    peft__tape tape;
    peft__plan plan;
    peft__exec exec;
    peft__pool *pool;
    peft__real e[8], u[12], v[24];
    peft__val out;
} multitask_kit;

/* The rule that fills the tensors of the reference numbers. */
static void multitask_fill_rule(peft__real *out, int64_t n, int64_t seed) {
    for (int64_t i = 0; i < n; i++) { out[i] = (peft__real)((i * 37 + seed * 17) % 101 - 50) / 100; }
}

static peft_status multitask_open(multitask_kit *k, peft__mem *mem) {
    peft_status st = PEFT_OK;
    peft__caps caps = {.max_rows = 4, .max_tokens = 8, .max_length = 4};
    memset(k, 0, sizeof *k);
    multitask_fill_rule(k->u, 12, 20);
    multitask_fill_rule(k->v, 24, 21);
    multitask_fill_rule(k->e, 8, 22);
    const peft__param params[3] = {{"e", k->e, NULL, MULTITASK_P, MULTITASK_C, false},
                                   {"u", k->u, NULL, MULTITASK_TASKS * MULTITASK_P, MULTITASK_R, false},
                                   {"v", k->v, NULL, MULTITASK_TASKS * MULTITASK_R, MULTITASK_C, false}};
    int32_t index[3];
    peft__tape_init(&k->tape, mem, false);
    for (int i = 0; i < 3; i++) { index[i] = peft__tape_param(&k->tape, &params[i]); }
    k->out = peft__op_multitask(&k->tape, index, MULTITASK_TASKS);
    TRY(peft__tape_finish(&k->tape));
    TRY(peft__pool_create(mem, 1, &k->pool));
    TRY(peft__plan_make(&k->plan, mem, &k->tape, &caps, 0, &peft__kernels_generic, 1, 64));
    TRY(peft__exec_create(&k->exec, mem, &k->tape, &k->plan, &peft__kernels_generic, k->pool));
out:
    return st;
}

static void multitask_close(multitask_kit *k) {
    peft__exec_free(&k->exec);
    peft__plan_free(&k->plan);
    peft__pool_free(k->pool);
    peft__tape_free(&k->tape);
}

/* What PEFT 0.21.2's MultitaskPromptEmbedding gives for tasks 1 and 2 of three, from tensors filled by the rule. */
TEST(autograd_multitask_is_peft) {
    static const double wanted[2 * MULTITASK_P * MULTITASK_C] = {
        -0.029862, -0.075508, 0.00918,  0.051088, -0.063195, -0.002568, 0.022058, 0.046437,
        0.017409,  0.042957,  -0.00546, 0.024769, -0.0033,   -0.003996, 0.067199, 0.01081};
    multitask_kit k;
    peft__frame f;
    memset(&f, 0, sizeof f);
    CHECK_OK(multitask_open(&k, runner_mem()));
    CHECK_INT(peft__tape_value(&k.tape, k.out)->fixed, MULTITASK_TASKS * MULTITASK_P);
    CHECK_INT(k.tape.tasks, MULTITASK_TASKS);
    CHECK_OK(peft__exec_run(&k.exec, &f, false));
    const peft__real *y = peft__exec_data(&k.exec, k.out) + MULTITASK_P * MULTITASK_C;
    for (int i = 0; i < 16; i++) { CHECK_NEAR(y[i], wanted[i], 1e-6); }
    multitask_close(&k);
}

TEST(autograd_multitask_refuses_tasks_that_there_are_not) {
    static const int64_t offsets[] = {0, 1, 2};
    multitask_kit k;
    peft__frame f;
    int32_t tasks[2] = {2, 3};
    memset(&f, 0, sizeof f);
    f.n_rows = 2;
    f.count[PEFT__SPACE_INPUT] = f.count[PEFT__SPACE_TOKENS] = 2;
    f.offsets[PEFT__SPACE_TOKENS] = f.offsets[PEFT__SPACE_INPUT] = offsets;
    f.row_tasks = tasks;
    CHECK_OK(multitask_open(&k, runner_mem()));
    CHECK_STATUS(peft__exec_run(&k.exec, &f, false), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 1 has task_id 3, and the adapter's num_tasks is 3");
    tasks[1] = -1;
    CHECK_STATUS(peft__exec_run(&k.exec, &f, false), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 1 has task_id -1");
    tasks[1] = 0;
    CHECK_OK(peft__exec_run(&k.exec, &f, false));
    f.row_tasks = NULL; /* all of task 0 */
    CHECK_OK(peft__exec_run(&k.exec, &f, false));
    multitask_close(&k);
}
