/* cmd_jobs.c - `peft train --jobs` and `peft plan --jobs`: adapters that are trained together, each on data of its own, over one
 * pass through the base. What is to be done is said by a file (jobs_file.c).
 *
 *   a key of     goes to
 *   "options"    trainer, model, save; and to each job whose schemas (its method, optimizer, dataset) have it. Keys that trainer
 *                and optimizer both have are the trainer's: a job's own then come first
 *   a job's      that job alone
 *   --set        as "options", over what the file says
 *
 * Leaves out: unions and whole models as jobs (the library says so of the latter). */
#include "jobs_file.h"
#include "plot.h"
#include "pretty.h"
#include "progress.h"
#include "report.h"
#include "run_record.h"
#include "system.h"
#include "table.h"
#include "tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct jobs_part { /* an adapter of the file: a shared one, or a job's own */
    const jobs_entry *entry;
    char *schema;              /* owned: "method:lora"; NULL for one that is loaded */
    tool_options options;      /* of its method; of a job also optimizer and dataset */
    peft_dataset *data, *eval; /* of a job */
    tool_text record;          /* for the log: what the job is, until that is written */
    plot plot;
} jobs_part;

typedef struct jobs {
    tool_run run; /* options: those of the run as a whole */
    jobs_file file;
    tool_args args;       /* the command line's, with the file's "options" before its settings (owned list) */
    jobs_part *parts;     /* owned: shared adapters, then jobs */
    size_t count, first;  /* parts; the first job among them */
    peft_trainer *trainer;
    char *checkpoint;     /* owned: OUT/trainer */
    char *log_path;       /* owned; NULL: no log */
    json_doc plan;        /* peft_trainer_plan_json, read anew when the run is over */
    char **expressions;   /* owned: of each job, as the library writes it */
    progress_jobs progress;
    step_log log;
    int callback_rc;      /* why the progress callback ended the run */
    int64_t step;         /* last that this process made; 0: none */
    double seconds;
    size_t peak_bytes;
    peft_status status;   /* of the run */
} jobs;

static size_t jobs_number(const jobs *j) { return j->count - j->first; }

/* A call of the library about one entry. */
static int jobs_check(const char *where, peft_status status) {
    return status == PEFT_OK ? TOOL_OK : tool_fail("%s: %s", where, peft_last_error());
}

static void jobs_log(void *user, int32_t level, const char *text) {
    jobs *j = user;
    progress_jobs_end(&j->progress);
    tool_note("%s%s", level <= PEFT_LOG_WARN ? "warning: " : "", text);
}

/* ---- Options ---------------------------------------------------------------------------------------------------------- */

/* No schema has the key: the error names what is nearest in any. */
static int jobs_refuse(jobs *j, const tool_setting *s) {
    tool_options all = {.count = 0};
    const char *schemas[SETTINGS_SCHEMAS + 1] = {"trainer", "optimizer", "dataset", "model", "save"};
    size_t n = 5;
    for (size_t i = 0; i < j->count && n < SETTINGS_SCHEMAS; i++) {
        const char *schema = j->parts[i].schema;
        bool there = schema == NULL;
        for (size_t k = 5; k < n && !there; k++) { there = strcmp(schemas[k], schema) == 0; }
        if (!there) { schemas[n++] = schema; }
    }
    int rc = settings_open(j->run.ctx, schemas, &all);
    if (rc == TOOL_OK) { rc = settings_take(&all, s); }
    settings_free(&all);
    return rc != TOOL_OK ? rc : tool_usage("%s: no job has such a key", s->option);
}

/* A setting of the file's "options" or of the command line. A job's rows are cut by its data set, so the trainer needs no length. */
static int jobs_spread(jobs *j, const tool_setting *s, bool over_file) {
    int rc = TOOL_OK;
    bool known = false, limit = strcmp(s->key, "max_length") == 0;
    bool of_trainer = settings_has_key(&j->run.options, "trainer", s->key);
    if (!limit) { DO(settings_offer(&j->run.options, s, &known)); }
    for (size_t i = 0; i < j->count; i++) {
        tool_options *own = &j->parts[i].options;
        if (of_trainer && !over_file && settings_has_key(own, "optimizer", s->key)) { continue; }
        DO(settings_offer(own, s, &known));
    }
    if (!known) { rc = jobs_refuse(j, s); }
out:
    return rc;
}

static int jobs_own_settings(jobs *j, jobs_part *part) {
    int rc = TOOL_OK;
    const jobs_entry *e = part->entry;
    for (size_t i = 0; i < e->setting_count; i++) {
        const tool_setting *s = &e->settings[i];
        bool known = false;
        DO(settings_offer(&part->options, s, &known));
        for (size_t k = 0; k < j->run.options.count && !known; k++) {
            if (!settings_has_key(&j->run.options, j->run.options.schema[k], s->key)) { continue; }
            DO(tool_usage("%s is of the whole run: it belongs to the \"options\" of the file", s->option));
        }
        if (!known && part->options.count == 0) { DO(tool_usage("%s: an adapter that is loaded has its options", s->option)); }
        if (!known) { DO(settings_take(&part->options, s)); }
    }
out:
    return rc;
}

static int jobs_open_part(jobs *j, jobs_part *part, const jobs_entry *entry, bool job) {
    int rc = TOOL_OK;
    const char *schemas[4] = {NULL}, *method = entry->method != NULL ? entry->method : "lora";
    size_t n = 0;
    part->entry = entry;
    if (entry->adapter == NULL) {
        DO(run_check_method(entry->source, method));
        schemas[n++] = part->schema = tool_join("method:", method, "");
    }
    if (job) {
        schemas[n++] = "optimizer";
        schemas[n++] = "dataset";
    }
    DO(settings_open(j->run.ctx, schemas, &part->options));
out:
    return rc;
}

static int jobs_open_options(jobs *j, const tool_args *args) {
    static const char *const schemas[] = {"trainer", "model", "save", NULL};
    int rc = TOOL_OK;
    size_t written = j->file.setting_count;
    tool_args bare = *args;
    bare.setting_count = 0; /* they go further than to the schemas of the run */
    DO(run_begin(&j->run, &bare, schemas));
    TRY(peft_context_set_log(j->run.ctx, PEFT_LOG_WARN, jobs_log, j));
    for (size_t i = 0; i < j->count; i++) {
        bool job = i >= j->first;
        DO(jobs_open_part(j, &j->parts[i], job ? &j->file.jobs[i - j->first] : &j->file.adapters[i], job));
    }
    j->args = *args;
    j->args.setting_count += written;
    j->args.settings = tool_alloc(j->args.setting_count * sizeof *j->args.settings);
    for (size_t i = 0; i < j->args.setting_count; i++) {
        j->args.settings[i] = i < written ? j->file.settings[i] : args->settings[i - written];
    }
    for (size_t i = 0; i < written; i++) { DO(jobs_spread(j, &j->args.settings[i], false)); }
    for (size_t i = 0; i < j->count; i++) { DO(jobs_own_settings(j, &j->parts[i])); }
    for (size_t i = written; i < j->args.setting_count; i++) { DO(jobs_spread(j, &j->args.settings[i], true)); }
out:
    return rc;
}

/* ---- Setting up -------------------------------------------------------------------------------------------------------- */

static int jobs_load_rows(jobs *j, const jobs_part *part, const char *path, peft_dataset **out) {
    int rc = TOOL_OK;
    DO(jobs_check(part->entry->where,
                  peft_dataset_create(j->run.ctx, j->run.tokenizer, settings_of(&part->options, "dataset"), out)));
    DO(jobs_check(part->entry->where, peft_dataset_load_jsonl(*out, path)));
out:
    return rc;
}

static int jobs_load_data(jobs *j) {
    int rc = TOOL_OK;
    for (size_t i = j->first; i < j->count; i++) {
        jobs_part *part = &j->parts[i];
        DO(jobs_load_rows(j, part, part->entry->data, &part->data));
        if (part->entry->eval != NULL) { DO(jobs_load_rows(j, part, part->entry->eval, &part->eval)); }
    }
out:
    return rc;
}

/* The classes, where nobody says them, are those of all jobs' rows: the model has one task. */
static int jobs_take_labels(jobs *j) {
    peft_dataset **data = tool_alloc(jobs_number(j) * sizeof(peft_dataset *));
    for (size_t i = j->first; i < j->count; i++) { data[i - j->first] = j->parts[i].data; }
    int rc = task_from_data(&j->run, data, jobs_number(j));
    free(data);
    return rc;
}

static int jobs_add_adapters(jobs *j) {
    int rc = TOOL_OK;
    uint64_t seed = (uint64_t)settings_number(&j->run.options, "trainer", "seed", 0.0);
    TRY(peft_adapters_create(j->run.model, &j->run.adapters));
    for (size_t i = 0; i < j->count; i++) {
        const jobs_part *part = &j->parts[i];
        const jobs_entry *e = part->entry;
        if (e->adapter != NULL) {
            DO(jobs_check(e->where, peft_adapters_load(j->run.adapters, e->name, e->adapter, NULL)));
            continue;
        }
        const char *method = e->method != NULL ? e->method : "lora";
        DO(jobs_check(e->source, peft_adapters_add(j->run.adapters, e->name, method, settings_of(&part->options, part->schema), seed)));
        DO(run_init_adapter(&j->run, e->name));
    }
out:
    return rc;
}

static int jobs_add_jobs(jobs *j) {
    int rc = TOOL_OK;
    TRY(peft_trainer_create(j->run.adapters, settings_of(&j->run.options, "trainer"), &j->trainer));
    for (size_t i = j->first; i < j->count; i++) {
        const jobs_part *part = &j->parts[i];
        const jobs_entry *e = part->entry;
        DO(jobs_check(e->where, peft_trainer_add_job(j->trainer, e->compose != NULL ? e->compose : e->name, part->data, part->eval,
                                                     settings_of(&part->options, "optimizer"))));
    }
out:
    return rc;
}

static int jobs_read_plan(jobs *j) {
    int rc = TOOL_OK;
    char *text = NULL;
    READ_TEXT(text, peft_trainer_plan_json, j->trainer);
    json_free(&j->plan);
    if (!json_parse(&j->plan, text, strlen(text))) { DO(tool_fail("the plan is no JSON")); }
out:
    free(text);
    return rc;
}

/* How the i-th job stands, as the plan has it. */
static const json_value *jobs_state(const jobs *j, size_t i, const char *key) {
    const json_value *list = json_get(&j->plan.values[0], "jobs");
    const json_value *v = list != NULL ? list->first : NULL;
    for (; v != NULL && i > 0; i--) { v = v->next; }
    return json_get(v, key);
}

static bool jobs_trains(const jobs *j, const char *name) {
    const json_value *list = json_get(&j->plan.values[0], "trained");
    for (const json_value *v = list != NULL ? list->first : NULL; v != NULL; v = v->next) {
        if (v->kind == JSON_STRING && strcmp(v->text, name) == 0) { return true; }
    }
    return false;
}

/* Names for the progress, and a look at what each job would train. */
static int jobs_read_names(jobs *j) {
    int rc = TOOL_OK;
    DO(jobs_read_plan(j));
    j->expressions = tool_alloc(jobs_number(j) * sizeof *j->expressions);
    for (size_t i = 0; i < jobs_number(j); i++) {
        const jobs_entry *e = j->parts[j->first + i].entry;
        const json_value *text = jobs_state(j, i, "adapter");
        j->expressions[i] = text != NULL ? tool_copy(text->text, text->len) : tool_copy("", 0);
        progress_jobs_name(&j->progress, i, e->name);
        if (!jobs_trains(j, e->name)) { DO(tool_usage("%s: \"%s\" is not trained by \"%s\"", e->where, e->name, e->compose)); }
    }
out:
    return rc;
}

static int jobs_open(jobs *j, const tool_args *args, const char *checkpoint) {
    static const char *const others[] = {"--data", "--eval", "--method", "--init", "--compose"};
    const char *const given[] = {args->data, args->eval, args->method, args->init, args->compose};
    int rc = TOOL_OK;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        if (given[i] != NULL) { return tool_usage("%s is of one adapter: with --jobs the file says it of each", others[i]); }
    }
    if (args->samples.count > 0) { return tool_usage("--sample-prompt is of one adapter: 'peft generate' shows what each of --jobs says"); }
    if (args->named_count > 0) { return tool_usage("--adapter is of one adapter: with --jobs the file has \"adapters\""); }
    DO(jobs_file_read(args->jobs, &j->file));
    j->first = j->file.adapter_count;
    j->count = j->first + j->file.job_count;
    j->parts = tool_alloc(j->count * sizeof *j->parts);
    progress_jobs_init(&j->progress, args->quiet, jobs_number(j));
    DO(jobs_open_options(j, args));
    TRY(peft_options_set_str(settings_of(&j->run.options, "trainer"), "checkpoint_dir", checkpoint));
    bool labels_first = task_wants_labels(&j->args) && system_exists(args->model);
    if (labels_first) {
        DO(run_open_tokenizer(&j->run, args));
        DO(jobs_load_data(j));
        DO(jobs_take_labels(j));
    }
    DO(run_open_model(&j->run, args));
    if (!labels_first) { DO(jobs_load_data(j)); }
    DO(jobs_add_adapters(j));
    DO(jobs_add_jobs(j));
    DO(jobs_read_names(j));
out:
    return rc;
}

static void jobs_close(jobs *j) {
    interrupt_forget();
    peft_trainer_free(j->trainer);
    for (size_t i = 0; i < j->count && j->parts != NULL; i++) {
        peft_dataset_free(j->parts[i].data);
        peft_dataset_free(j->parts[i].eval);
        settings_free(&j->parts[i].options);
        free(j->parts[i].schema);
        free(j->parts[i].record.text);
    }
    for (size_t i = 0; i < jobs_number(j) && j->expressions != NULL; i++) { free(j->expressions[i]); }
    free(j->expressions);
    free(j->parts);
    run_close(&j->run);
    progress_jobs_free(&j->progress);
    json_free(&j->plan);
    free(j->args.settings);
    jobs_file_free(&j->file);
    free(j->checkpoint);
    free(j->log_path);
}

/* ---- Training ------------------------------------------------------------------------------------------------------------- */

static int32_t jobs_progress(void *user, const peft_step_info *info) {
    jobs *j = user;
    size_t i = 0;
    while (i + 1 < jobs_number(j) && strcmp(j->expressions[i], info->job) != 0) { i++; }
    j->step = info->step;
    j->seconds = info->seconds;
    j->peak_bytes = info->peak_bytes;
    progress_jobs_step(&j->progress, i, info);
    jobs_part *part = &j->parts[j->first + i];
    plot_add(&part->plot, info->step, info->loss, info->eval_loss);
    int rc = step_log_write(&j->log, info, part->entry->name, part->record.text);
    free(part->record.text);
    part->record = (tool_text){NULL, 0, 0};
    j->callback_rc = rc;
    return j->callback_rc != TOOL_OK; /* an interruption has cancelled the run, which ends when all jobs have shown this step */
}

static const char *jobs_state_name(const jobs *j, size_t i) {
    const json_value *v = jobs_state(j, i, "state");
    const char *state = v != NULL && v->kind == JSON_STRING ? v->text : "-";
    /* the last job that is left fails with the run, which could go on with it */
    return j->status == PEFT_E_NUMERIC && strcmp(state, "runs") == 0 ? "failed" : state;
}

/* Every adapter that was trained to a folder of its name; not those of jobs that failed, nor what they alone trained. */
static int jobs_save(const jobs *j, const tool_args *args) {
    int rc = TOOL_OK;
    char *path = NULL;
    bool good = false;
    for (size_t i = 0; i < jobs_number(j); i++) { good = good || strcmp(jobs_state_name(j, i), "failed") != 0; }
    for (size_t i = 0; i < j->count; i++) {
        const char *name = j->parts[i].entry->name;
        bool failed = i >= j->first ? strcmp(jobs_state_name(j, i - j->first), "failed") == 0 : !good;
        if (failed || !jobs_trains(j, name)) { continue; }
        free(path);
        path = tool_join(args->out, "/", name);
        TRY(peft_adapters_save(j->run.adapters, name, path, settings_of(&j->run.options, "save")));
    }
out:
    free(path);
    return rc;
}

static void jobs_put_number(table *t, size_t row, size_t column, int digits, const json_value *v) {
    char text[TOOL_SHORT] = "-";
    if (v != NULL && v->kind == JSON_NUMBER) { (void)snprintf(text, sizeof text, "%.*f", digits, v->number); }
    table_put(t, row, column, text);
}

/* Method and bytes of an adapter. */
static int jobs_put_adapter(const jobs *j, table *t, size_t row, const char *name) {
    int rc = TOOL_OK;
    char *text = NULL, bytes[TOOL_SHORT];
    json_doc info = {NULL, NULL};
    READ_TEXT(text, peft_adapters_info_json, j->run.adapters, name);
    if (!json_parse(&info, text, strlen(text))) { goto out; }
    const json_value *method = json_get(&info.values[0], "method"), *size = json_get(&info.values[0], "bytes");
    table_put(t, row, 1, method != NULL && method->kind == JSON_STRING ? method->text : "-");
    table_put(t, row, 7, size != NULL && size->kind == JSON_NUMBER ? tool_bytes(size->number, bytes) : "-");
out:
    json_free(&info);
    free(text);
    return rc;
}

/* Steps that a job has made: of one that was done before a run went on, all; of one that had stopped early then, nobody knows. */
static void jobs_put_steps(const jobs *j, table *t, size_t row, size_t i) {
    char text[TOOL_SHORT];
    if (!j->progress.seen[i] && strcmp(jobs_state_name(j, i), "done") == 0) {
        jobs_put_number(t, row, 2, 0, jobs_state(j, i, "max_steps"));
        return;
    }
    (void)snprintf(text, sizeof text, "%lld", (long long)j->progress.last[i].step);
    table_put(t, row, 2, j->progress.seen[i] ? text : "-");
}

static int jobs_results(const jobs *j, const tool_args *args) {
    static const char *const head[] = {"job", "method", "steps", "state", "loss", "eval loss", "parameters", "bytes"};
    int rc = TOOL_OK;
    char memory[TOOL_SHORT], time[TOOL_SHORT];
    table t;
    table_init(&t, sizeof head / sizeof *head);
    for (size_t c = 0; c < sizeof head / sizeof *head; c++) { table_put(&t, 0, c, head[c]); }
    for (size_t i = 0; i < jobs_number(j); i++) {
        const char *name = j->parts[j->first + i].entry->name;
        table_put(&t, i + 1, 0, name);
        table_put(&t, i + 1, 3, jobs_state_name(j, i));
        jobs_put_steps(j, &t, i + 1, i);
        jobs_put_number(&t, i + 1, 4, 4, jobs_state(j, i, "loss"));
        jobs_put_number(&t, i + 1, 5, 4, jobs_state(j, i, "eval_loss"));
        jobs_put_number(&t, i + 1, 6, 0, jobs_state(j, i, "trainable_parameters"));
        DO(jobs_put_adapter(j, &t, i + 1, name));
    }
    if (args->quiet) { goto out; }
    table_print(&t, 0);
    if (j->step > 0) {
        (void)fprintf(stderr, "%s, peak memory %s, saved in %s\n", tool_duration(j->seconds, time),
                      tool_bytes((double)j->peak_bytes, memory), args->out);
    }
out:
    table_free(&t);
    return rc;
}

/* The run ended early with its state whole: keeps it for --resume. `rc` is the reason's exit code. */
static int jobs_stop(jobs *j, const tool_args *args, int rc) {
    if (j->step == 0 && interrupt_code() == 0) { return rc; /* nothing was learned that an earlier state has not */ }
    if (tool_check(peft_trainer_checkpoint_save(j->trainer, j->checkpoint)) != TOOL_OK || jobs_read_plan(j) != TOOL_OK ||
        jobs_save(j, args) != TOOL_OK) {
        return rc;
    }
    tool_note("stopped after step %lld; the state is in %s, --resume goes on from there", (long long)j->step, args->out);
    return rc;
}

static int jobs_write_records(jobs *j) {
    int rc = TOOL_OK;
    for (size_t i = j->first; i < j->count && j->log_path != NULL; i++) {
        jobs_part *part = &j->parts[i];
        const run_record record = {.run = &j->run, .args = &j->args, .trainer = j->trainer, .adapter = part->entry->name,
                                   .own = &part->options, .data = part->entry->data, .eval = part->entry->eval,
                                   .rows = part->data, .held = part->eval, .job = i - j->first};
        DO(run_record_write(&record, &part->record));
    }
out:
    return rc;
}

static void jobs_plot(const jobs *j) {
    for (size_t i = j->first; i < j->count && j->args.plot && j->parts != NULL; i++) {
        const progress *p = &j->progress.lines[i - j->first];
        plot_print(&j->parts[i].plot, stderr, j->parts[i].entry->name, system_columns(), p->unicode, p->colour);
    }
}

static int jobs_run(jobs *j, const tool_args *args) {
    int rc = TOOL_OK;
    if (args->resume) { TRY(peft_trainer_checkpoint_load(j->trainer, j->checkpoint)); }
    DO(jobs_write_records(j));
    TRY(peft_trainer_set_progress(j->trainer, jobs_progress, j));
    interrupt_watch(j->trainer, NULL);
    j->status = peft_trainer_run(j->trainer);
    progress_jobs_end(&j->progress);
    if (interrupt_code() != 0 && (j->status == PEFT_E_CANCELLED || j->status == PEFT_E_CALLBACK)) {
        rc = jobs_stop(j, args, interrupt_code());
    } else if (j->status == PEFT_E_CALLBACK) {
        rc = jobs_stop(j, args, j->callback_rc); /* the log could not be written; that was said */
    } else if (j->status == PEFT_OK || j->status == PEFT_E_NUMERIC) {
        int failed = tool_check(j->status);
        if (failed != TOOL_OK && j->step > 0) { TRY(peft_trainer_checkpoint_save(j->trainer, j->checkpoint)); }
        DO(jobs_read_plan(j));
        DO(jobs_save(j, args));
        DO(jobs_results(j, args));
        rc = failed;
    } else {
        TRY(j->status);
    }
out:
    return rc;
}

int jobs_train(const tool_args *args) {
    int rc = TOOL_OK;
    jobs j = {.step = 0};
    bool made = false;
    j.checkpoint = tool_join(args->out, "/", "trainer");
    DO(report_begin(args, &j.log_path));
    DO(jobs_open(&j, args, j.checkpoint));
    made = !system_exists(args->out);
    DO(tool_make_folder(args->out));
    if (!system_may_write(args->out)) { DO(tool_fail("the folder %s is read-only", args->out)); }
    DO(step_log_open(&j.log, j.log_path, args->resume));
    DO(jobs_run(&j, args));
out:
    jobs_plot(&j);
    if (step_log_close(&j.log) != TOOL_OK && rc == TOOL_OK) { rc = TOOL_FAILED; }
    if (j.step > 0 && report_end(args, j.log_path) != TOOL_OK && rc == TOOL_OK) { rc = TOOL_FAILED; }
    jobs_close(&j);
    if (made && rc != TOOL_OK) { system_remove_folder(args->out); /* only succeeds where the run left nothing in it */ }
    return rc;
}

int jobs_plan(const tool_args *args) {
    int rc = TOOL_OK;
    jobs j = {.step = 0};
    char *text = NULL;
    DO(jobs_open(&j, args, "trainer")); /* counted, never written */
    READ_TEXT(text, peft_trainer_plan_json, j.trainer);
    if (args->json) {
        printf("%s\n", text);
    } else {
        DO(pretty_print(text));
    }
out:
    free(text);
    jobs_close(&j);
    return rc;
}
