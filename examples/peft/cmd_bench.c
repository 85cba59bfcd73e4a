/* cmd_bench.c - `peft bench`: how fast a model trains and generates on this machine, and which operation takes the time.
 *
 *   least time of an op = max(FLOPs / peak, bytes / bandwidth)     its share of the limit: least time / time
 *
 * Peak and bandwidth are measured in the same run, a little between steps and calls (peak.c). They are means, as the times are: what
 * others take of the machine is then in both. Times, FLOPs and bytes of the ops are the trainer's own (option "profile"). The first
 * step, which allocates and reads the model, does not count. Rows are made up, as numbers do not change the time. Half of --seconds
 * goes to training, the rest to prompts and tokens.
 *
 * Left out: tasks other than a language model's. */
#include "peak.h"
#include "system.h"
#include "table.h"
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_OPS = 128, BENCH_LEAST = 2 /* steps that count, however long they take */ };

typedef struct bench_op {
    char name[48];      /* "linear backward" */
    double calls, seconds, flops, bytes; /* of a step once they are divided */
} bench_op;

typedef struct bench_samples { /* speeds of like amounts of work */
    double inverse; /* sum of 1 / speed */
    long n;
} bench_samples;

typedef struct bench {
    tool_run run;
    const tool_args *args;
    char *schema;          /* owned: "method:<method>" */
    const char *method;
    peft_batch *batch;
    peft_trainer *trainer;
    int32_t *ids;          /* owned, rows of seq */
    char *memory;          /* owned: what the bandwidth is measured over */
    long seq, rows, vocab;
    double seconds;        /* of the whole run */
    double weights;        /* bytes of the base's matrices and vectors */
    bool encoder;          /* the model has one and a decoder */
    bool generates;        /* it continues texts */
    bench_samples flops, reads;
    double begun, measuring; /* when the first limit was measured; seconds spent on limits */
    bench_op op[BENCH_OPS]; /* by falling time */
    int n_ops;
    double steps, step_seconds, prefill, decode; /* steps that counted, time of one; tokens/s, 0: the model does not generate */
    double peak_bytes;
} bench;

/* ---- arguments, limits ---------------------------------------------------------------------------------------------------- */

static int bench_number(const char *option, const char *text, double least, double most, double fallback, double *out) {
    char *end = NULL;
    *out = fallback;
    if (text == NULL) { return TOOL_OK; }
    *out = strtod(text, &end);
    if (end == text || *end != '\0' || !(*out >= least && *out <= most) || *out != floor(*out)) {
        return tool_usage("%s must be a whole number from %.0f to %.0f, not '%s'", option, least, most, text);
    }
    return TOOL_OK;
}

static double bench_mean(const bench_samples *s) {
    return s->n > 0 ? (double)s->n / s->inverse : 0.0;
}

static void bench_sample(bench_samples *s, double speed) {
    if (speed > 0.0) {
        s->inverse += 1.0 / speed;
        s->n++;
    }
}

/* As often as is a small part of the run. */
static void bench_limits(bench *b) {
    int threads = peft_context_threads(b->run.ctx);
    double now = system_clock();
    b->begun = b->begun > 0.0 ? b->begun : now;
    for (int i = 0; i < 16 && (b->flops.n == 0 || b->measuring < (now - b->begun) / 8); i++) {
        double before = now;
        bench_sample(&b->flops, peak_flops(peft_context_isa(b->run.ctx), threads));
        bench_sample(&b->reads, peak_read(b->memory, b->reads.n, threads));
        now = system_clock();
        b->measuring += now - before;
    }
}

/* Share of what the machine could do; 0: too short to tell. */
static double bench_share(const bench *b, double seconds, double flops, double bytes) {
    double least = fmax(flops / fmax(bench_mean(&b->flops), 1.0), bytes / fmax(bench_mean(&b->reads), 1.0));
    return seconds > 1e-6 ? least / seconds : 0.0;
}

/* ---- set-up --------------------------------------------------------------------------------------------------------------- */

static double bench_member(const json_value *object, const char *key) {
    const json_value *v = json_get(object, key);
    return v != NULL && v->kind == JSON_NUMBER ? v->number : 0.0;
}

static int bench_read_model(bench *b) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    READ_TEXT(text, peft_model_info_json, b->run.model);
    if (!json_parse(&doc, text, strlen(text))) { DO(tool_fail("%s: its description is no JSON", b->args->model)); }
    const json_value *info = &doc.values[0], *task = json_get(info, "task");
    double positions = bench_member(info, "max_position_embeddings");
    if (task == NULL || task->kind != JSON_STRING || strstr(task->text, "_lm") == NULL) {
        DO(tool_fail("the task of %s is none of a language model: --set task=causal_lm, masked_lm or seq2seq_lm", b->args->model));
    }
    b->generates = strcmp(task->text, "masked_lm") != 0;
    b->encoder = strcmp(task->text, "seq2seq_lm") == 0;
    b->vocab = (long)bench_member(info, "vocab_size");
    b->weights = bench_member(info, "bytes");
    if (positions > 0.0 && (double)b->seq > positions) {
        if (b->args->seq != NULL) { DO(tool_fail("--seq %ld is more than the model's %.0f positions", b->seq, positions)); }
        b->seq = (long)positions;
    }
out:
    json_free(&doc);
    free(text);
    return rc;
}

static int bench_make_rows(bench *b) {
    int rc = TOOL_OK;
    long n = b->seq * b->rows;
    uint32_t state = 1;
    int64_t *offsets = tool_alloc(((size_t)b->rows + 1) * sizeof *offsets);
    b->ids = tool_alloc((size_t)n * sizeof *b->ids);
    for (long i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        b->ids[i] = (int32_t)((state >> 8) % (uint32_t)b->vocab);
    }
    for (long i = 0; i <= b->rows; i++) { offsets[i] = i * b->seq; }
    TRY(peft_batch_create(b->run.ctx, &b->batch));
    TRY(peft_batch_set_i32(b->batch, "input_ids", b->ids, offsets, (size_t)b->rows));
    TRY(peft_batch_set_i32(b->batch, "labels", b->ids, offsets, (size_t)b->rows));
    if (b->encoder) { TRY(peft_batch_set_i32(b->batch, "source_ids", b->ids, offsets, (size_t)b->rows)); }
out:
    free(offsets);
    return rc;
}

static int bench_open(bench *b) {
    int rc = TOOL_OK;
    double seq = 0, rows = 0;
    peft_options *trainer = NULL;
    b->method = b->args->method != NULL ? b->args->method : "lora";
    b->schema = tool_join("method:", b->method, "");
    const char *schemas[] = {b->schema, "trainer", "optimizer", "session", "model", NULL};
    DO(bench_number("--seq", b->args->seq, 8, 1 << 20, 512, &seq));
    DO(bench_number("--batch", b->args->batch, 1, 1024, 1, &rows));
    DO(bench_number("--seconds", b->args->seconds, 1, 86400, 30, &b->seconds));
    b->seq = (long)seq;
    b->rows = (long)rows;
    if (!settings_known(b->schema)) { DO(tool_usage("--method %s: there is no such method; 'peft options' lists them", b->method)); }
    DO(run_begin(&b->run, b->args, schemas));
    trainer = settings_of(&b->run.options, "trainer");
    TRY(peft_model_open(b->run.ctx, b->args->model, settings_of(&b->run.options, "model"), &b->run.model));
    DO(bench_read_model(b));
    TRY(peft_options_set_int(trainer, "batch_size", b->rows));
    TRY(peft_options_set_int(trainer, "max_length", b->seq));
    TRY(peft_options_set_int(trainer, "max_steps", 1000000));
    TRY(peft_options_set_bool(trainer, "profile", 1));
    DO(bench_make_rows(b));
    b->memory = tool_alloc(PEAK_BYTES);
    memset(b->memory, 1, PEAK_BYTES); /* pages of its own */
out:
    return rc;
}

/* ---- training ------------------------------------------------------------------------------------------------------------- */

/* Adds `sign` times the profile so far to the ops. */
static int bench_profile(bench *b, double sign) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    READ_TEXT(text, peft_trainer_plan_json, b->trainer);
    if (!json_parse(&doc, text, strlen(text))) { DO(tool_fail("the trainer's plan is no JSON")); }
    const json_value *ops = json_get(json_get(&doc.values[0], "profile"), "ops");
    b->peak_bytes = bench_member(&doc.values[0], "peak_bytes");
    for (const json_value *o = ops != NULL ? ops->first : NULL; o != NULL; o = o->next) {
        char name[sizeof b->op[0].name];
        (void)snprintf(name, sizeof name, "%s %s", json_get(o, "op")->text, json_get(o, "phase")->text);
        int i = 0;
        while (i < b->n_ops && strcmp(b->op[i].name, name) != 0) { i++; }
        if (i == BENCH_OPS) { continue; }
        if (i == b->n_ops) { memcpy(b->op[b->n_ops++].name, name, sizeof name); }
        b->op[i].calls += sign * bench_member(o, "calls");
        b->op[i].seconds += sign * bench_member(o, "seconds");
        b->op[i].flops += sign * bench_member(o, "flops");
        b->op[i].bytes += sign * bench_member(o, "bytes");
    }
out:
    json_free(&doc);
    free(text);
    return rc;
}

static int bench_slower_first(const void *a, const void *b) {
    double x = ((const bench_op *)a)->seconds, y = ((const bench_op *)b)->seconds;
    return (x < y) - (x > y);
}

static int bench_train(bench *b) {
    int rc = TOOL_OK;
    double end = 0, spent = 0;
    TRY(peft_adapters_create(b->run.model, &b->run.adapters));
    TRY(peft_adapters_add(b->run.adapters, RUN_ADAPTER, b->method, settings_of(&b->run.options, b->schema), 0));
    TRY(peft_trainer_create(b->run.adapters, settings_of(&b->run.options, "trainer"), &b->trainer));
    TRY(peft_trainer_add_job(b->trainer, RUN_ADAPTER, NULL, NULL, settings_of(&b->run.options, "optimizer")));
    for (long step = -1; step < BENCH_LEAST || system_clock() < end; step++) {
        double begun = system_clock();
        TRY(peft_trainer_accumulate(b->trainer, b->batch, NULL));
        TRY(peft_trainer_apply(b->trainer));
        if (step < 0) { /* the first does not count */
            DO(bench_profile(b, -1));
            end = system_clock() + b->seconds / 2;
        } else {
            spent += system_clock() - begun;
            b->steps += 1;
        }
        bench_limits(b);
    }
    DO(bench_profile(b, 1));
    b->step_seconds = spent / b->steps;
    for (int i = 0; i < b->n_ops; i++) {
        b->op[i].calls /= b->steps;
        b->op[i].seconds /= b->steps;
        b->op[i].flops /= b->steps;
        b->op[i].bytes /= b->steps;
    }
    qsort(b->op, (size_t)b->n_ops, sizeof b->op[0], bench_slower_first);
out:
    return rc;
}

/* ---- prompts and tokens --------------------------------------------------------------------------------------------------- */

/* Prompts of half a row; the first makes the plan and does not count. */
static int bench_prompts(bench *b, const peft_options *generate) {
    int rc = TOOL_OK;
    size_t n = (size_t)(b->seq / 2);
    double spent = 0, end = 0;
    long count = 0;
    for (long i = -1; i < 1 || system_clock() < end; i++) {
        double begun = system_clock();
        TRY(peft_session_start(b->run.session, NULL, b->ids, n, generate));
        if (i < 0) { end = system_clock() + b->seconds / 6; continue; }
        spent += system_clock() - begun;
        count++;
    }
    b->prefill = (double)count * (double)n / spent;
out:
    return rc;
}

/* Tokens behind the last prompt, which is read again where they have filled the row. */
static int bench_tokens(bench *b, const peft_options *generate) {
    int rc = TOOL_OK;
    char text[256];
    double spent = 0, end = system_clock() + b->seconds / 6;
    long count = 0;
    while (count < BENCH_LEAST || system_clock() < end) {
        int32_t id = 0;
        double begun = system_clock();
        TRY(peft_session_next(b->run.session, &id, text, sizeof text, NULL));
        if (id < 0) { TRY(peft_session_start(b->run.session, NULL, b->ids, (size_t)(b->seq / 2), generate)); continue; }
        spent += system_clock() - begun;
        count++;
    }
    b->decode = (double)count / spent;
out:
    return rc;
}

/* Of a model that does not generate: what its head gives of the rows. */
static int bench_passes(bench *b) {
    int rc = TOOL_OK;
    size_t n = 0;
    float *out = NULL;
    double spent = 0, end = 0;
    long count = 0;
    (void)peft_session_logits(b->run.session, b->batch, NULL, 0, &n);
    out = tool_alloc((n + 1) * sizeof *out);
    for (long i = -1; i < 1 || system_clock() < end; i++) {
        double begun = system_clock();
        TRY(peft_session_logits(b->run.session, b->batch, out, n, NULL));
        if (i < 0) { end = system_clock() + b->seconds / 6; continue; }
        spent += system_clock() - begun;
        count++;
    }
    b->prefill = (double)count * (double)(b->seq * b->rows) / spent;
out:
    free(out);
    return rc;
}

static int bench_infer(bench *b) {
    int rc = TOOL_OK;
    peft_options *generate = NULL;
    TRY(peft_session_create(b->run.model, NULL, NULL, settings_of(&b->run.options, "session"), &b->run.session));
    if (!b->generates) { return bench_passes(b); }
    TRY(peft_options_create(b->run.ctx, "generate", &generate));
    TRY(peft_options_set_bool(generate, "ignore_eos", 1));
    TRY(peft_options_set_int(generate, "max_new_tokens", b->seq / 2));
    DO(bench_prompts(b, generate));
    bench_limits(b);
    DO(bench_tokens(b, generate));
out:
    peft_options_free(generate);
    return rc;
}

/* ---- what came of it ------------------------------------------------------------------------------------------------------ */

/* All ops, as one. */
static bench_op bench_sum(const bench *b) {
    bench_op sum = {.name = "a step"};
    for (int i = 0; i < b->n_ops; i++) {
        sum.calls += b->op[i].calls;
        sum.flops += b->op[i].flops;
        sum.bytes += b->op[i].bytes;
    }
    sum.seconds = b->step_seconds;
    return sum;
}

static double bench_other(const bench *b) {
    double seconds = b->step_seconds;
    for (int i = 0; i < b->n_ops; i++) { seconds -= b->op[i].seconds; }
    return fmax(seconds, 0.0);
}

static void bench_cell(table *t, size_t row, size_t column, double value, int digits, const char *unit) {
    char text[TOOL_SHORT];
    if (value > 0.0) { (void)snprintf(text, sizeof text, "%.*f%s", digits, value, unit); }
    table_put(t, row, column, value > 0.0 ? text : "-");
}

static void bench_row(const bench *b, table *t, const bench_op *op, double share_of_limit) {
    size_t row = t->rows;
    table_put(t, row, 0, op->name);
    bench_cell(t, row, 1, op->calls, 0, "");
    bench_cell(t, row, 2, 1e3 * op->seconds, 2, "");
    bench_cell(t, row, 3, 100.0 * op->seconds / b->step_seconds, 1, " %");
    bench_cell(t, row, 4, op->seconds > 0.0 ? 1e-9 * op->flops / op->seconds : 0.0, 1, "");
    bench_cell(t, row, 5, op->seconds > 0.0 ? 1e-9 * op->bytes / op->seconds : 0.0, 1, "");
    bench_cell(t, row, 6, 100.0 * fmin(share_of_limit, 1.0), 0, share_of_limit > 1.0 ? " % +" : " %");
}

static void bench_print_ops(const bench *b) {
    static const char *const heads[] = {"op", "calls", "ms", "share", "GFLOP/s", "GB/s", "of limit"};
    table t;
    bench_op sum = bench_sum(b), other = {.name = "other", .seconds = bench_other(b)};
    double least = 0.0;
    table_init(&t, sizeof heads / sizeof *heads);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) { table_put(&t, 0, i, heads[i]); }
    for (int i = 0; i < b->n_ops; i++) {
        const bench_op *op = &b->op[i];
        double share = bench_share(b, op->seconds, op->flops, op->bytes);
        least += fmin(share, 1.0) * op->seconds;
        bench_row(b, &t, op, share);
    }
    bench_row(b, &t, &other, 0.0);
    bench_row(b, &t, &sum, least / b->step_seconds);
    table_print(&t, 0);
    table_free(&t);
}

static void bench_print(const bench *b) {
    char bytes[TOOL_SHORT], weights[TOOL_SHORT];
    double reads = bench_mean(&b->reads), least = b->weights / reads * b->decode;
    printf("%s: %s, %ld x %ld tokens, kernels %s, %d thread%s\n", b->args->model, b->method, b->rows, b->seq,
           peft_context_isa(b->run.ctx), (int)peft_context_threads(b->run.ctx), peft_context_threads(b->run.ctx) == 1 ? "" : "s");
    printf("limits: %.1f GFLOP/s, %.1f GB/s\n\n", 1e-9 * bench_mean(&b->flops), 1e-9 * reads);
    bench_print_ops(b);
    printf("\ntraining  %10.1f tokens/s  (%.0f steps)\n", (double)(b->seq * b->rows) / b->step_seconds, b->steps);
    printf("prefill   %10.1f tokens/s\n", b->prefill);
    if (b->generates) {
        printf("decode    %10.1f tokens/s  (the base's %s a token: %.0f %% of the bandwidth)\n", b->decode,
               tool_bytes(b->weights, weights), 100.0 * least);
    }
    printf("memory    %10s peak of training\n", tool_bytes(b->peak_bytes, bytes));
}

static void bench_json_op(const bench *b, const bench_op *op, const char *before) {
    printf("%s{\"op\": \"%s\", \"calls\": %.9g, \"seconds\": %.9g, \"share\": %.9g, \"flops\": %.9g, \"bytes\": %.9g, "
           "\"share_of_limit\": %.9g}", before, op->name, op->calls, op->seconds, op->seconds / b->step_seconds, op->flops,
           op->bytes, bench_share(b, op->seconds, op->flops, op->bytes));
}

static void bench_print_json(const bench *b) {
    tool_text model = {NULL, 0, 0};
    bench_op other = {.name = "other", .seconds = bench_other(b)};
    double reads = bench_mean(&b->reads);
    tool_append_json(&model, b->args->model, strlen(b->args->model));
    printf("{\"model\": %s, \"method\": \"%s\", \"kernels\": \"%s\", \"threads\": %d, \"seq\": %ld, \"batch\": %ld, ", model.text,
           b->method, peft_context_isa(b->run.ctx), (int)peft_context_threads(b->run.ctx), b->seq, b->rows);
    printf("\"limits\": {\"flops_per_second\": %.9g, \"bytes_per_second\": %.9g}, \"ops\": [", bench_mean(&b->flops), reads);
    for (int i = 0; i < b->n_ops; i++) { bench_json_op(b, &b->op[i], i > 0 ? ", " : ""); }
    bench_json_op(b, &other, ", ");
    printf("], \"training\": {\"steps\": %.0f, \"step_seconds\": %.9g, \"tokens_per_second\": %.9g}, ", b->steps, b->step_seconds,
           (double)(b->seq * b->rows) / b->step_seconds);
    printf("\"prefill\": {\"tokens_per_second\": %.9g}, \"decode\": ", b->prefill);
    if (b->generates) {
        printf("{\"tokens_per_second\": %.9g, \"share_of_limit\": %.9g}", b->decode, b->weights / reads * b->decode);
    } else {
        printf("null");
    }
    printf(", \"peak_bytes\": %.0f}\n", b->peak_bytes);
    free(model.text);
}

static int bench_main(const tool_args *args) {
    int rc = TOOL_OK;
    bench b = {.args = args};
    DO(bench_open(&b));
    bench_limits(&b);
    DO(bench_train(&b));
    bench_limits(&b);
    DO(bench_infer(&b));
    bench_limits(&b);
    if (args->json) {
        bench_print_json(&b);
    } else {
        bench_print(&b);
    }
out:
    peft_trainer_free(b.trainer);
    peft_batch_free(b.batch);
    run_close(&b.run);
    free(b.memory);
    free(b.ids);
    free(b.schema);
    return rc;
}

static const arg_spec bench_args[] = {
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),
    ARG_ROW_TEXT("--method", "NAME", method, false, "method that is trained (default: lora)"),
    ARG_ROW_TEXT("--seq", "N", seq, false, "tokens of a row (default: 512, or the model's positions)"),
    ARG_ROW_TEXT("--batch", "N", batch, false, "rows of a step (default: 1)"),
    ARG_ROW_TEXT("--seconds", "N", seconds, false, "how long, about; two steps at least (default: 30)"),
    ARG_ROW_FLAG("--json", json, "print one JSON object"),
    ARG_ROW_SET,
    ARG_ROW_THREADS,
    ARG_ROW_HELP,
    ARG_ROW_END,
};

const tool_command command_bench = {"bench",
                                    "--model PATH [options]",
                                    "speed on this machine, and what each operation takes of it",
                                    "--set takes the keys of the schemas method:<method>, trainer, optimizer, session and model.\n"
                                    "The table is of one training step; \"of limit\" is what the operation would take at the peak of\n"
                                    "multiply-adds and at the bandwidth that are measured meanwhile, over what it takes; with a +\n"
                                    "it is more, as what it reads was in a cache.",
                                    bench_args,
                                    bench_main};
