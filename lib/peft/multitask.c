/* multitask.c - multitask prompt tuning: one shared table of virtual tokens, and for each task a matrix of low rank that it is
 * multiplied with (Wang et al. 2023, arXiv 2303.02861).
 *
 *   the stream of a row of task t is [E o (U_t V_t); E[ids]]     E [n, hidden], U_t [n, num_ranks], V_t [num_ranks, hidden]
 *
 * The task is the row's task_id, 0 where it has none. Saved as PEFT's MULTITASK_PROMPT_TUNING: prompt_embeddings (E),
 * prefix_task_cols (U, [tasks, n, ranks]) and prefix_task_rows (V, [tasks, ranks, hidden]).
 *
 * Unlike in PEFT, whose U and V from N(0, 0.02) make a prompt that is near 0 and hardly learns, all tasks begin with the shared
 * table itself: the first column of U and row of V are 1, the other rows of V 0, so that U V is 1. task_init=random is PEFT's.
 *
 * In encoder-decoder models E and U have rows for both stacks, the encoder's first.
 *
 * Left out: distillation from prompts of single tasks, the paper's way to train E. */
#include "peft/soft.h"

#define MULTITASK_STATE "prompt_tuning_init_state_dict_path"
enum { MULTITASK_TABLE = 0, MULTITASK_COLS = 1, MULTITASK_ROWS = 2 };

static const peft__option multitask_options[] = {
    PEFT__SOFT_OPTIONS,
    {"num_tasks", PEFT__OPT_INT, "1", 1, 1 << 16, NULL, "tasks; the task_id of a row is below it"},
    {"num_ranks", PEFT__OPT_INT, "1", 1, 1 << 12, NULL, "rank of each task's matrix"},
    PEFT__SOFT_START_OPTIONS("SAMPLE_VOCAB|TEXT|RANDOM|AVERAGE_SOURCE_TASKS|EXACT_SOURCE_TASK|ONLY_SOURCE_SHARED",
                             "initial shared vectors: rows of random tokens, rows of a text's tokens, or N(0, 1); or those of a "
                             "source, with its tasks' matrices averaged, of one task, or left alone"),
    {MULTITASK_STATE, PEFT__OPT_STR, "", 1, 0, NULL,
     "the source: a safetensors file of such an adapter, or its folder"},
    PEFT__SOFT_FROM_OPTION("virtual tokens"),
    PEFT__SOFT_TASK_OPTION,
    {"task_init", PEFT__OPT_STR, "shared", 1, 0, "shared|random",
     "initial matrices of the tasks: 1, so that each begins with the shared vectors, or from N(0, 0.02) as PEFT's"},
    PEFT__SOFT_OPTIONS_END,
};
static const peft__schema multitask_schema = {"method:multitask_prompt", multitask_options, PEFT__COUNT(multitask_options)};

/* prompt_tuning_init names a source; *tasks: whose matrices are taken, too. */
static bool multitask_has_state(const peft__adapter *a, bool *tasks) {
    *tasks = peft__soft_starts_as(a, "AVERAGE_SOURCE_TASKS") || peft__soft_starts_as(a, "EXACT_SOURCE_TASK");
    return *tasks || peft__soft_starts_as(a, "ONLY_SOURCE_SHARED");
}

/* ---- building ------------------------------------------------------------------------------------------------ */

static peft_status multitask_check(const peft__adapter *a) {
    peft_status st = PEFT_OK;
    const char *how = peft__opt_str(&a->opts, "prompt_tuning_init");
    bool tasks, state = multitask_has_state(a, &tasks), path = peft__opt_str(&a->opts, MULTITASK_STATE)[0] != '\0';
    if (a->from_file) { return PEFT_OK; }
    TRY(peft__soft_check_text(a, "prompt_tuning_init_text"));
    TRY(peft__soft_check_source(a, "prompt_tuning_init", peft__soft_starts_as(a, "EXACT_SOURCE_TASK")));
    if (state && !path) { FAIL(PEFT_E_KEY, "prompt_tuning_init=%s wants " MULTITASK_STATE, how); }
    if (path && !state) { FAIL(PEFT_E_KEY, MULTITASK_STATE " is set, and prompt_tuning_init is %s, which does not read it", how); }
out:
    return st;
}

static peft_status multitask_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__soft_base base;
    peft__attachment *at = NULL;
    int64_t tasks = peft__opt_int(&a->opts, "num_tasks");
    int64_t ranks = peft__opt_int(&a->opts, "num_ranks");
    TRY(multitask_check(a));
    TRY(peft__soft_sizes_of(a, &base));
    TRY(peft__soft_sizes(a, base.hidden, base.layers, base.heads));
    int64_t n = peft__soft_count(a);
    TRY(peft__adapter_attach(a, base.input, &at));
    TRY(peft__adapter_add_param(a, at, "prompt_embeddings", MULTITASK_TABLE, n, base.hidden, 2, false, false));
    TRY(peft__adapter_add_param(a, at, "prefix_task_cols", MULTITASK_COLS, tasks * n, ranks, 2, false, false));
    peft__adapter_shape(a, 3, (int64_t[]){tasks, n, ranks});
    TRY(peft__adapter_add_param(a, at, "prefix_task_rows", MULTITASK_ROWS, tasks * ranks, base.hidden, 2, false, false));
    peft__adapter_shape(a, 3, (int64_t[]){tasks, ranks, base.hidden});
    if (peft__soft_stacks(a) == 2) { TRY(peft__adapter_attach(a, base.decoder_input, &at)); }
out:
    return st;
}

/* The matrices of further ranks begin at 0 through V alone, so that both can move. */
static void multitask_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    int64_t ranks = peft__opt_int(&a->opts, "num_ranks"), cols = p->p.cols;
    bool shared = strcmp(peft__opt_str(&a->opts, "task_init"), "shared") == 0;
    (void)k;
    for (int64_t e = 0; e < p->p.rows * cols; e++) {
        double v = peft__rng_normal(rng);
        bool first = p->slot == MULTITASK_COLS ? e % ranks == 0 : e / cols % ranks == 0;
        if (p->slot != MULTITASK_TABLE && !shared) {
            v *= 0.02;
        } else if (p->slot != MULTITASK_TABLE && first) {
            v = 1;
        } else if (p->slot == MULTITASK_ROWS) {
            v = 0;
        }
        p->p.value[e] = PEFT__R(v);
    }
}

static peft__prompt multitask_prompt(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s) {
    int32_t params[3];
    const int64_t tasks = peft__opt_int(&a->opts, "num_tasks");
    int64_t n = peft__opt_int(&a->opts, "num_virtual_tokens"), stacks = peft__soft_stacks(a);
    bool second = stacks == 2 && s->part == PEFT__PART_DECODER;
    (void)at;
    for (int32_t slot = 0; slot < 3; slot++) { params[slot] = peft__soft_tape_param(a, slot, t); }
    return (peft__prompt){peft__op_multitask(t, params, tasks), n, tasks, second ? n : 0, n * stacks};
}

/* ---- initial values of a source ------------------------------------------------------------------------------- */

/* Opens a file of tensors, or that of a folder. */
static peft_status multitask_open(const peft__adapter *a, peft__arena *arena, peft__safetensors *out) {
    static const char unsafe[] = "is a Python pickle, which runs code when it is read; convert it once: "
                                 "safetensors.torch.save_file(torch.load(path, weights_only=True), \"source.safetensors\")";
    peft_status st = PEFT_OK;
    const char *path = peft__opt_str(&a->opts, MULTITASK_STATE);
    char *tensors = NULL, *pickle = NULL;
    peft__file file = {0};
    if (peft__path_is_dir(path)) {
        TRY(peft__path_join(arena, path, "adapter_model.safetensors", &tensors));
        TRY(peft__path_join(arena, path, "adapter_model.bin", &pickle));
        if (!peft__path_exists(tensors) && peft__path_exists(pickle)) { FAIL(PEFT_E_UNSUPPORTED, "%s %s", pickle, unsafe); }
        path = tensors;
    }
    TRY(peft__file_open(a->mem, path, false, &file));
    bool zip = file.size >= 4 && memcmp(file.data, "PK\3\4", 4) == 0; /* torch.save has two forms */
    bool bare = file.size >= 2 && file.data[0] == 0x80 && file.data[1] < 8;
    peft__file_close(&file);
    if (zip || bare) { FAIL(PEFT_E_UNSUPPORTED, "%s %s", path, unsafe); }
    TRY(peft__safetensors_open(a->mem, path, false, out));
out:
    return st;
}

/* The source's tensor of a parameter, which has the parameter's shape but for the number of tasks. */
static peft_status multitask_find(const peft__adapter *a, const peft__safetensors *f, int32_t slot,
                                  const peft__io_tensor **out) {
    const peft__adapter_param *p = peft__soft_param(a, slot);
    const char *path = peft__opt_str(&a->opts, MULTITASK_STATE);
    const peft__io_tensor *t = peft__safetensors_find(f, p->p.name);
    int32_t first = slot == MULTITASK_TABLE ? 0 : 1;
    if (t == NULL) { return peft__fail(PEFT_E_NOT_FOUND, "%s: there is no tensor \"%s\"", path, p->p.name); }
    if (t->dtype != PEFT_DTYPE_F32 && t->dtype != PEFT_DTYPE_F16 && t->dtype != PEFT_DTYPE_BF16) {
        return peft__fail(PEFT_E_UNSUPPORTED, "%s: tensor \"%s\" is %s, expected F32, F16 or BF16", path, t->name, t->dtype_name);
    }
    if (t->ndim != p->ndim || t->dims[0] < 1 ||
        memcmp(t->dims + first, p->dims + first, (size_t)(p->ndim - first) * sizeof *t->dims) != 0) {
        if (t->ndim < 2) { return peft__fail(PEFT_E_SHAPE, "%s: tensor \"%s\" is a vector", path, t->name); }
        const int64_t *have = t->dims + t->ndim - 2, *want = p->dims + first;
        return peft__fail(PEFT_E_SHAPE, "%s: tensor \"%s\" ends in [%lld, %lld], expected [%lld, %lld]: num_virtual_tokens or "
                          "num_ranks is another, or the base", path, t->name, (long long)have[0], (long long)have[1],
                          (long long)want[0], (long long)want[1]);
    }
    *out = t;
    return PEFT_OK;
}

/* Fills all tasks of a parameter with one of the source's, or with the mean of all (task -1). */
static peft_status multitask_fill(const peft__adapter *a, const peft__io_tensor *t, int32_t slot, int64_t task,
                                  const peft__kernels *k) {
    peft_status st = PEFT_OK;
    const peft__param *p = &peft__soft_param(a, slot)->p;
    int64_t tasks = slot == MULTITASK_TABLE ? 1 : peft__opt_int(&a->opts, "num_tasks"), n = p->rows * p->cols / tasks;
    int64_t have = slot == MULTITASK_TABLE ? 1 : t->dims[0], begin = task < 0 ? 0 : task, end = task < 0 ? have : task + 1;
    size_t element = t->size / (size_t)(have * n), bytes = (size_t)n * sizeof(peft__real);
    if (begin >= have) {
        return peft__fail(PEFT_E_KEY, "prompt_tuning_init_task is %lld, and the source has %lld task%s", (long long)task,
                          (long long)have, have == 1 ? "" : "s");
    }
    peft__real *one = peft__alloc(a->mem, bytes);
    if (one == NULL) { return PEFT_E_NOMEM; }
    memset(p->value, 0, bytes);
    for (int64_t s = begin; s < end; s++) {
        k->dequant(t->dtype, t->data + (size_t)(s * n) * element, n, one);
        k->add(p->value, p->value, one, n);
    }
    k->scale(p->value, PEFT__R(1.0 / (double)(end - begin)), p->value, n);
    for (int64_t s = 1; s < tasks; s++) { memcpy(p->value + s * n, p->value, bytes); }
    if (!k->finite(p->value, n)) {
        FAIL(PEFT_E_NUMERIC, "%s: tensor \"%s\" has a NaN or an infinite value", peft__opt_str(&a->opts, MULTITASK_STATE), t->name);
    }
out:
    peft__free(a->mem, one, bytes);
    return st;
}

static peft_status multitask_from_state(peft__adapter *a, bool tasks, const peft__kernels *k) {
    peft_status st = PEFT_OK;
    peft__safetensors f = {0};
    peft__arena arena;
    int64_t task = peft__soft_starts_as(a, "AVERAGE_SOURCE_TASKS") ? -1 : peft__opt_int(&a->opts, "prompt_tuning_init_task");
    peft__arena_init(&arena, a->mem);
    TRY(multitask_open(a, &arena, &f));
    for (int32_t slot = MULTITASK_TABLE; slot <= (tasks ? MULTITASK_ROWS : MULTITASK_TABLE); slot++) {
        const peft__io_tensor *t = NULL;
        TRY(multitask_find(a, &f, slot, &t));
        TRY(multitask_fill(a, t, slot, slot == MULTITASK_TABLE ? 0 : task, k));
    }
out:
    peft__safetensors_close(&f);
    peft__arena_free(&arena);
    return st;
}

static peft_status multitask_settle(peft__adapter *a, const peft__kernels *k) {
    bool tasks;
    if (multitask_has_state(a, &tasks)) { return multitask_from_state(a, tasks, k); }
    return peft__soft_start(a, &peft__soft_param(a, MULTITASK_TABLE)->p, k);
}

static peft_status multitask_from_text(peft__adapter *a, const peft__init_text *text, const peft__kernels *k) {
    const peft__param *p = &peft__soft_param(a, MULTITASK_TABLE)->p;
    return peft__soft_rows(a, text, p->rows, k, p->value);
}

/* ---- adapter_config.json ------------------------------------------------------------------------------------- */

/* A source is where the adapter came from, and PEFT would open it again: it is written as RANDOM. */
static void multitask_config_out(const peft__adapter *a, peft__json_out *j) {
    bool tasks;
    peft__soft_config_out(a, j);
    peft__config_put(&a->opts, "num_tasks", j);
    peft__config_put(&a->opts, "num_ranks", j);
    peft__soft_start_out(a, multitask_has_state(a, &tasks) ? "RANDOM" : peft__opt_str(&a->opts, "prompt_tuning_init"), j);
}

static peft_status multitask_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    TRY(peft__soft_config_in(opts, config, what));
    TRY(peft__config_get(opts, config, what, "num_tasks"));
    TRY(peft__config_get(opts, config, what, "num_ranks"));
    TRY(peft__soft_start_in(opts, config, what));
out:
    return st;
}

const peft__method peft__method_multitask_prompt = {
    .name = "multitask_prompt",
    .hf_type = "MULTITASK_PROMPT_TUNING",
    .schema = &multitask_schema,
    .build = multitask_build,
    .init = multitask_init,
    .settle = multitask_settle,
    .prompt = multitask_prompt,
    .needs = peft__soft_start_needs,
    .from_text = multitask_from_text,
    .text = peft__soft_start_text,
    .prompt_keys = true,
    .config_out = multitask_config_out,
    .config_in = multitask_config_in,
    .learning_rate = 3e-2,
};

#undef MULTITASK_STATE
