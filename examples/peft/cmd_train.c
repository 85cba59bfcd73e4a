/* cmd_train.c - `peft train` and `peft plan`: both set a run up in the same way; plan then only asks what it would need. */
#include "plot.h"
#include "pretty.h"
#include "probe.h"
#include "progress.h"
#include "report.h"
#include "run_record.h"
#include "system.h"
#include "tool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN_METHODS = 8 };

typedef struct train {
    tool_run run;
    char *methods;                     /* owned: --method, cut at its commas */
    const char *method[TRAIN_METHODS]; /* into methods */
    char *schema[TRAIN_METHODS];       /* owned: "method:<method>" */
    size_t method_count;
    char *checkpoint;          /* owned: OUT/trainer */
    char *log_path;            /* owned; NULL: no log */
    tool_text record, before;  /* for the log: what the run is, until that is written; samples before it */
    int64_t probe_every;       /* steps between two looks at the gradients; 0: none */
    plot plot;
    peft_dataset *data, *eval; /* eval: NULL without --eval */
    peft_trainer *trainer;
    progress progress;
    step_log log;
    int callback_rc;     /* why the progress callback ended the run */
    int64_t steps;       /* done by this process */
    peft_step_info last; /* of the last step; its job is not kept */
} train;

/* ---- Setting up ----------------------------------------------------------------------------------------------------- */

/* Cuts "lora,prompt_tuning" at its commas. */
static int train_split_methods(train *t, const char *list) {
    int rc = TOOL_OK;
    char *rest = NULL;
    t->methods = tool_copy(list, strlen(list));
    for (char *name = strtok_r(t->methods, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest)) {
        if (t->method_count == TRAIN_METHODS) { return tool_usage("--method takes at most %d methods", TRAIN_METHODS); }
        DO(run_check_method("--method", name));
        t->schema[t->method_count] = tool_join("method:", name, "");
        t->method[t->method_count++] = name;
    }
    if (t->method_count == 0) { rc = tool_usage("--method is empty"); }
out:
    return rc;
}

/* One adapter has the tool's name for it; several have the names of their methods, and their union has the tool's. */
static const char *train_adapter_name(const train *t, size_t i) {
    return t->method_count == 1 ? RUN_ADAPTER : t->method[i];
}

/* --init: the folder's adapter is the start; its method and options are those of the folder. */
static int train_load_adapter(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc info = {NULL, NULL};
    TRY(peft_adapters_load(t->run.adapters, RUN_ADAPTER, args->init, NULL));
    READ_TEXT(text, peft_adapters_info_json, t->run.adapters, RUN_ADAPTER);
    if (args->method != NULL && json_parse(&info, text, strlen(text))) {
        const json_value *method = json_get(&info.values[0], "method");
        if (method != NULL && method->kind == JSON_STRING && strcmp(method->text, args->method) != 0) {
            DO(tool_usage("--method %s: the adapter in %s is %s", args->method, args->init, method->text));
        }
    }
    for (size_t i = 0; i < args->setting_count; i++) {
        const char *key = args->settings[i].key;
        if (settings_has_key(&t->run.options, t->schema[0], key) &&
            !settings_has_key(&t->run.options, "trainer", key)) {
            tool_note("warning: %s is taken from %s, not from the command line", key, args->init);
        }
    }
out:
    json_free(&info);
    free(text);
    return rc;
}

/* Several methods act, are trained and saved as one adapter. */
static int train_unite(train *t) {
    int rc = TOOL_OK;
    tool_text names = {NULL, 0, 0};
    peft_options *options = NULL;
    for (size_t i = 0; i < t->method_count; i++) {
        tool_append(&names, ",", i > 0 ? 1 : 0);
        tool_append(&names, t->method[i], strlen(t->method[i]));
    }
    TRY(peft_options_create(t->run.ctx, "method:union", &options));
    TRY(peft_options_set_text(options, "parts", names.text));
    TRY(peft_adapters_add(t->run.adapters, RUN_ADAPTER, "union", options, 0));
out:
    peft_options_free(options);
    free(names.text);
    return rc;
}

static int train_add_adapters(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    double seed = settings_number(&t->run.options, "trainer", "seed", 0.0);
    DO(run_load_adapters(&t->run, args));
    if (args->init != NULL) { return train_load_adapter(t, args); }
    for (size_t i = 0; i < t->method_count; i++) {
        TRY(peft_adapters_add(t->run.adapters, train_adapter_name(t, i), t->method[i],
                              settings_of(&t->run.options, t->schema[i]), (uint64_t)seed));
        DO(run_init_adapter(&t->run, train_adapter_name(t, i)));
    }
    if (t->method_count > 1) { DO(train_unite(t)); }
out:
    return rc;
}

static int train_add_job(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    TRY(peft_trainer_add_job(t->trainer, args->compose != NULL ? args->compose : RUN_ADAPTER, t->data, t->eval,
                             settings_of(&t->run.options, "optimizer")));
out:
    return rc;
}

/* checkpoint_dir: where the trainer saves its state as it goes; NULL when nothing is to be written. */
static int train_open(train *t, const tool_args *args, const char *checkpoint_dir) {
    int rc = TOOL_OK;
    const char *schemas[TRAIN_METHODS + 6] = {"trainer", "optimizer", "dataset", "model", "save"};
    if (args->init != NULL && args->method != NULL && strchr(args->method, ',') != NULL) {
        return tool_usage("--init is one adapter; --method %s names several", args->method);
    }
    DO(train_split_methods(t, args->method != NULL ? args->method : "lora"));
    for (size_t i = 0; i < t->method_count; i++) { schemas[5 + i] = t->schema[i]; }
    DO(run_begin(&t->run, args, schemas));
    if (checkpoint_dir != NULL) {
        TRY(peft_options_set_str(settings_of(&t->run.options, "trainer"), "checkpoint_dir", checkpoint_dir));
    }
    bool labels_first = task_wants_labels(args) && system_exists(args->model);
    if (labels_first) {
        DO(run_open_tokenizer(&t->run, args));
        DO(run_load_data(&t->run, args->data, &t->data));
        DO(task_from_data(&t->run, &t->data, 1));
    }
    DO(run_open_model(&t->run, args));
    if (!labels_first) { DO(run_load_data(&t->run, args->data, &t->data)); }
    if (args->eval != NULL) { DO(run_load_data(&t->run, args->eval, &t->eval)); }
    DO(train_add_adapters(t, args));
    if (args->samples.count > 0 && !args->resume && checkpoint_dir == t->checkpoint) {
        DO(probe_samples(&t->run, args, args->init != NULL ? RUN_ADAPTER : NULL, &t->before));
        peft_context_memory_reset_peak(t->run.ctx);
    }
    TRY(peft_trainer_create(t->run.adapters, settings_of(&t->run.options, "trainer"), &t->trainer));
    DO(train_add_job(t, args));
out:
    return rc;
}

static void train_close(train *t) {
    interrupt_forget();
    peft_trainer_free(t->trainer);
    peft_dataset_free(t->eval);
    peft_dataset_free(t->data);
    run_close(&t->run);
    for (size_t i = 0; i < t->method_count; i++) { free(t->schema[i]); }
    free(t->checkpoint);
    free(t->log_path);
    free(t->record.text);
    free(t->before.text);
    free(t->methods);
}

/* ---- Training ------------------------------------------------------------------------------------------------------- */

static int32_t train_progress(void *user, const peft_step_info *info) {
    train *t = user;
    t->steps++;
    t->last = *info;
    t->last.job = NULL; /* the text lives only during the call */
    progress_step(&t->progress, info);
    plot_add(&t->plot, info->step, info->loss, info->eval_loss);
    t->callback_rc = step_log_write(&t->log, info, NULL, t->steps == 1 ? t->record.text : NULL);
    return t->callback_rc != TOOL_OK || interrupt_code() != 0;
}

/* Was the adapter trained? What the plan says. */
static int train_was_trained(const train *t, const char *name, bool *out) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    *out = false;
    READ_TEXT(text, peft_trainer_plan_json, t->trainer);
    const json_value *list = json_parse(&doc, text, strlen(text)) ? json_get(&doc.values[0], "trained") : NULL;
    for (const json_value *v = list != NULL ? list->first : NULL; v != NULL; v = v->next) {
        *out = *out || (v->kind == JSON_STRING && strcmp(v->text, name) == 0);
    }
out:
    json_free(&doc);
    free(text);
    return rc;
}

/* The adapter goes to OUT itself; adapters of --adapter that were trained along, to a folder of their name in it. */
static int train_save(const train *t, const tool_args *args) {
    int rc = TOOL_OK;
    char *path = NULL;
    TRY(peft_adapters_save(t->run.adapters, RUN_ADAPTER, args->out, settings_of(&t->run.options, "save")));
    for (size_t i = 0; i < args->named_count; i++) {
        bool trained = false;
        DO(train_was_trained(t, args->named[i].key, &trained));
        if (!trained) { continue; }
        free(path);
        path = tool_join(args->out, "/", args->named[i].key);
        TRY(peft_adapters_save(t->run.adapters, args->named[i].key, path, settings_of(&t->run.options, "save")));
    }
out:
    free(path);
    return rc;
}

/* The run ended early with its state whole: keeps it, so that --resume can go on. `rc` is the reason's exit code. */
static int train_stop(const train *t, const tool_args *args, int rc) {
    if (t->steps == 0 && interrupt_code() == 0) {
        return rc; /* nothing was learned that an earlier state in OUT does not have */
    }
    if (tool_check(peft_trainer_checkpoint_save(t->trainer, t->checkpoint)) != TOOL_OK ||
        train_save(t, args) != TOOL_OK) {
        return rc;
    }
    tool_note("stopped after step %lld; the state is in %s, --resume goes on from there", (long long)t->last.step, args->out);
    return rc;
}

/* Where the last step was not evaluated, --eval is done now: a person wants the figure. */
static int train_summary(train *t, const char *out) {
    int rc = TOOL_OK;
    char text[1024], memory[TOOL_SHORT], time[TOOL_SHORT];
    json_doc doc = {NULL, NULL};
    double eval_loss = t->last.eval_loss;
    if (t->eval != NULL && (t->steps == 0 || isnan(eval_loss))) {
        TRY(peft_trainer_evaluate(t->trainer, t->eval, text, sizeof text, NULL));
        if (json_parse(&doc, text, strlen(text))) {
            const json_value *loss = json_get(&doc.values[0], "loss");
            eval_loss = loss != NULL ? loss->number : eval_loss;
        }
    }
    if (t->progress.quiet) { goto out; }
    if (t->steps > 0) {
        (void)fprintf(stderr, "%lld step%s in %s, last loss %.4f, peak memory %s\n", (long long)t->steps, t->steps == 1 ? "" : "s",
                      tool_duration(t->last.seconds, time), t->last.loss,
                      tool_bytes((double)t->last.peak_bytes, memory));
    }
    if (t->eval != NULL) { (void)fprintf(stderr, "loss on held-out rows %.4f\n", eval_loss); }
    (void)fprintf(stderr, "saved in %s\n", out);
out:
    json_free(&doc);
    return rc;
}

/* What the log says beside the steps, as far as it is known before the first. */
static int train_write_head(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    const run_record record = {.run = &t->run, .args = args, .trainer = t->trainer, .adapter = RUN_ADAPTER,
                               .data = args->data, .eval = args->eval, .rows = t->data, .held = t->eval};
    if (t->log_path == NULL) { goto out; }
    DO(run_record_write(&record, &t->record));
    if (t->before.len > 0) { DO(step_log_record(&t->log, 0, "samples", t->before.text)); }
out:
    return rc;
}

/* Ten looks at most, and a twentieth of the steps: they cost as much as steps. */
static int train_plan_probes(train *t) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    READ_TEXT(text, peft_trainer_plan_json, t->trainer);
    const json_value *steps = json_parse(&doc, text, strlen(text)) ? json_get(&doc.values[0], "max_steps") : NULL;
    int64_t n = steps != NULL && steps->number >= 1.0 && steps->number < 1e15 ? (int64_t)steps->number : 1;
    int64_t looks = n / 20 < 1 ? 1 : n / 20 > 10 ? 10 : n / 20;
    t->probe_every = (n + looks - 1) / looks;
out:
    json_free(&doc);
    free(text);
    return rc;
}

static int train_probe(train *t, int64_t step) {
    int rc = TOOL_OK;
    tool_text text = {NULL, 0, 0};
    const char *one = RUN_ADAPTER;
    bool several = t->method_count > 1;
    probe_gradients(&t->run, t->trainer, t->data, several ? t->method : &one, several ? t->method_count : 1, &text);
    if (text.len > 0) { rc = step_log_record(&t->log, step, "gradients", text.text); }
    free(text.text);
    return rc;
}

/* peft_trainer_run, which makes the same steps, but for the looks between them. */
static int train_steps(train *t, const tool_args *args, peft_status *status) {
    int rc = TOOL_OK;
    int32_t more = 1;
    if (t->probe_every == 0) {
        *status = peft_trainer_run(t->trainer);
        return rc;
    }
    if (!args->resume) { DO(train_probe(t, 0)); }
    for (*status = PEFT_OK; *status == PEFT_OK && more;) {
        int64_t before = t->steps;
        *status = peft_trainer_step(t->trainer, &more);
        if (*status != PEFT_OK || t->steps == before || (more && t->last.step % t->probe_every != 0)) { continue; }
        DO(train_probe(t, t->last.step));
    }
out:
    return rc;
}

static int train_samples_after(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    tool_text text = {NULL, 0, 0};
    if (args->samples.count == 0 || t->steps == 0) { return TOOL_OK; }
    DO(probe_samples(&t->run, args, args->compose != NULL ? args->compose : RUN_ADAPTER, &text));
    DO(step_log_record(&t->log, t->last.step, "samples", text.text));
out:
    free(text.text);
    return rc;
}

static int train_run(train *t, const tool_args *args) {
    int rc = TOOL_OK;
    peft_status status = PEFT_OK;
    if (args->resume) { TRY(peft_trainer_checkpoint_load(t->trainer, t->checkpoint)); }
    DO(train_write_head(t, args));
    if (args->report != NULL) { DO(train_plan_probes(t)); }
    TRY(peft_trainer_set_progress(t->trainer, train_progress, t));
    interrupt_watch(t->trainer, NULL);
    DO(train_steps(t, args, &status));
    progress_end(&t->progress);
    if (status == PEFT_OK) {
        DO(train_samples_after(t, args));
        DO(train_save(t, args));
        DO(train_summary(t, args->out));
    } else if (interrupt_code() != 0 && (status == PEFT_E_CANCELLED || status == PEFT_E_CALLBACK)) {
        rc = train_stop(t, args, interrupt_code());
    } else if (status == PEFT_E_CALLBACK) {
        rc = train_stop(t, args, t->callback_rc); /* the log could not be written; that was said */
    } else if (status == PEFT_E_NUMERIC) {
        rc = train_stop(t, args, tool_check(status));
    } else {
        TRY(status);
    }
out:
    return rc;
}

static int train_main(const tool_args *args) {
    int rc = TOOL_OK;
    train t = {.steps = 0};
    bool made = false;
    if (args->jobs != NULL) { return jobs_train(args); }
    if (args->data == NULL) { return tool_usage("train needs --data FILE or --jobs FILE; see 'peft train --help'"); }
    t.checkpoint = tool_join(args->out, "/", "trainer");
    progress_init(&t.progress, args->quiet);
    DO(report_begin(args, &t.log_path));
    DO(train_open(&t, args, t.checkpoint));
    made = !system_exists(args->out);
    DO(tool_make_folder(args->out));
    if (!system_may_write(args->out)) { DO(tool_fail("the folder %s is read-only", args->out)); }
    DO(step_log_open(&t.log, t.log_path, args->resume));
    DO(train_run(&t, args));
out:
    if (args->plot) { plot_print(&t.plot, stderr, NULL, system_columns(), t.progress.unicode, t.progress.colour); }
    if (step_log_close(&t.log) != TOOL_OK && rc == TOOL_OK) { rc = TOOL_FAILED; }
    if (t.steps > 0 && report_end(args, t.log_path) != TOOL_OK && rc == TOOL_OK) { rc = TOOL_FAILED; }
    train_close(&t);
    if (made && rc != TOOL_OK) { system_remove_folder(args->out); /* only succeeds where the run left nothing in it */ }
    return rc;
}

static int plan_main(const tool_args *args) {
    int rc = TOOL_OK;
    train t = {.steps = 0};
    char *text = NULL;
    if (args->jobs != NULL) { return jobs_plan(args); }
    if (args->data == NULL) { return tool_usage("plan needs --data FILE or --jobs FILE; see 'peft plan --help'"); }
    DO(train_open(&t, args, "trainer")); /* counted, never written: train keeps a checkpoint */
    READ_TEXT(text, peft_trainer_plan_json, t.trainer);
    if (args->json) {
        printf("%s\n", text);
    } else {
        DO(pretty_print(text));
    }
out:
    free(text);
    train_close(&t);
    return rc;
}

#define TRAIN_ROWS                                                                                                 \
    ARG_ROW_TEXT("--model", "PATH", model, true, "model: a Hugging Face folder or a GGUF file"),                   \
        ARG_ROW_TEXT("--tokenizer", "PATH", tokenizer, false, "tokenizer (default: the model's)"),                 \
        ARG_ROW_TEXT("--data", "FILE", data, false, "rows to train on, JSON Lines (required without --jobs)"),     \
        ARG_ROW_TEXT("--eval", "FILE", eval, false, "held-out rows, JSON Lines"),                                  \
        ARG_ROW_TEXT("--jobs", "FILE", jobs, false, "adapters to train together, one JSON object, instead of --data"), \
        ARG_ROW_TEXT("--method", "NAME[,NAME]", method, false, "method, or several at once (default: lora)"),        \
        ARG_ROW_ADAPTERS("an adapter that is there besides the new one, \"default\"; repeatable"),                                 \
        ARG_ROW_TEXT("--init", "DIR", init, false, "start from this adapter instead of a fresh one"), ARG_ROW_SET, \
        ARG_ROW_KEY("--prompt-template", "TEXT", "prompt_template",                                                \
                    "prompt from a row's fields, as in 'Record: {mr}'"),                                           \
        ARG_ROW_KEY("--completion-template", "TEXT", "completion_template", "completion from a row's fields"),     \
        ARG_ROW_TASK,                                                                                                \
        ARG_ROW_KEY("--seed", "N", "seed", "seed of initial values, data order and dropout"), ARG_ROW_THREADS

static const arg_spec train_args[] = {
    TRAIN_ROWS,
    ARG_ROW_TEXT("--out", "DIR", out, true, "folder for the adapter (of --jobs: folders in it); what --resume needs is in DIR/trainer"),
    ARG_ROW_FLAG("--resume", resume, "go on from the state in DIR/trainer"),
    ARG_ROW_TEXT("--json-log", "FILE", json_log, false, "write one JSON object a step"),
    ARG_ROW_TEXT("--report", "FILE", report, false, "write a page about the run, HTML; without --json-log the log is DIR/log.jsonl"),
    ARG_ROW_LIST("--sample-prompt", "TEXT", samples, "for log and page: what the model makes of it, before and after; repeatable"),
    ARG_ROW_FLAG("--plot", plot, "show the curve of losses at the end"),
    ARG_ROW_FLAG("--quiet", quiet, "show no progress"),
    ARG_ROW_HELP,
    ARG_ROW_END,
};

static const arg_spec plan_args[] = {
    TRAIN_ROWS,
    ARG_ROW_TEXT("--out", "DIR", out, false, "accepted, so that a train command can be planned; nothing is written"),
    ARG_ROW_FLAG("--resume", resume, "accepted, and without effect"),
    ARG_ROW_TEXT("--json-log", "FILE", json_log, false, "accepted, and without effect"),
    ARG_ROW_TEXT("--report", "FILE", report, false, "accepted, and without effect"),
    ARG_ROW_LIST("--sample-prompt", "TEXT", samples, "accepted, and without effect"),
    ARG_ROW_FLAG("--plot", plot, "accepted, and without effect"),
    ARG_ROW_FLAG("--quiet", quiet, "accepted, and without effect"),
    ARG_ROW_FLAG("--json", json, "print the plan as one JSON object"),
    ARG_ROW_HELP,
    ARG_ROW_END,
};

#define TRAIN_SCHEMAS \
    "--set takes the keys of the schemas method:<method>, trainer, optimizer, dataset, model and save."

const tool_command command_train = {
    "train",
    "--model PATH (--data FILE | --jobs FILE) --out DIR [options]",
    "train an adapter, or the whole model with --method full",
    TRAIN_SCHEMAS
    "\n"
    "--jobs: {\"jobs\": [{\"name\", \"method\", \"data\", \"eval\", \"share\", \"options\": {...}}, ...], \"options\": {...}}\n"
    "Ctrl-C saves the state and the adapter and exits with 130.\n"
    "Example: peft train --model base --data train.jsonl --out adapter --set r=16 --set learning_rate=2e-4",
    train_args,
    train_main};

const tool_command command_plan = {"plan",
                                   "--model PATH (--data FILE | --jobs FILE) [options]",
                                   "say what a training run would need; nothing is trained",
                                   TRAIN_SCHEMAS,
                                   plan_args,
                                   plan_main};
