/* golden_checkpoint_test.c - checkpoints that earlier versions wrote are read, and runs go on from them bit for bit.
 *
 * Each run made two steps when its state was saved (state.safetensors), and two more after which its parameters were (next.safetensors).
 * With the generic kernels bits depend on no processor and no compiler. Losses and places are of the runs below, whichever version wrote
 * them. How to write the files of a new version stands in golden_kit.h. */
#include "golden_kit.h"
#include "train/loop.h"

enum { GOLDEN_MOST = 5 };

typedef struct golden_run {
    const char *name;
    const char *adapters[GOLDEN_MOST][3]; /* name, method, options */
    const char *trainer;
    const char *jobs[GOLDEN_MOST][2];     /* expression, optimizer; data of job j: golden_rows(j), the first has some for evaluation */
    bool half;                            /* a batch of a third step has been accumulated when it is saved */
    struct { int64_t epoch, position, steps; } places[GOLDEN_MOST]; /* of each job, after two steps */
    double best;                          /* lowest loss in evaluation of the first job until then; 0: none */
    float last;                           /* the last value of the first adapter then */
    double loss[GOLDEN_MOST];             /* of each job in the third step; 0: it makes none */
} golden_run;

static const golden_run golden_runs[] = {
    {.name = "one",
     .adapters = {{"x", "lora", "{'r':1,'lora_dropout':0.25,'target_modules':['q_proj','v_proj']}"}},
     .trainer = "{'max_steps':6,'batch_size':5,'eval_steps':1,'load_best_model_at_end':true,'seed':7}",
     .jobs = {{"x", "{'learning_rate':0.01,'weight_decay':0.01,'lr_scheduler_type':'cosine','warmup_steps':1}"}},
     .half = true,
     .places = {{0, 10, 2}},
     .best = 3.3202714125315347,
     .last = -0x1.415112p-4F,
     .loss = {3.4100533028443656}},
    {.name = "pair",
     .adapters = {{"x", "adalora", "{'init_r':2,'target_r':1,'tinit':0,'tfinal':1,'target_modules':['v_proj']}"},
                  {"y", "prompt", "{'num_virtual_tokens':2}"}},
     .trainer = "{'max_steps':6,'batch_size':4,'group_by_length':true,'gradient_accumulation_steps':2}",
     .jobs = {{"x, y", "{'optimizer':'sgd','momentum':0.9,'learning_rate':0.05,'max_grad_norm':0.5}"}},
     .places = {{0, 11, 2}},
     .last = -0x1.b87442p-3F,
     .loss = {3.4480963860715059}},
    {.name = "jobs",
     .adapters = {{"a", "lora", "{'r':1,'use_dora':true,'target_modules':['v_proj'],'modules_to_save':['norm']}"},
                  {"b", "pfeiffer", "{'reduction_factor':16,'leave_out':[1]}"},
                  {"c", "ia3", "{'target_modules':['k_proj'],'feedforward_modules':[]}"},
                  {"d", "adalora", "{'init_r':2,'target_r':1,'tinit':0,'tfinal':1,'target_modules':['q_proj'],'layers_to_transform':[1]}"},
                  {"e", "prompt", "{'num_virtual_tokens':1}"}},
     .trainer = "{'max_steps':6,'batch_size':8,'eval_steps':1,'load_best_model_at_end':true}",
     .jobs = {{"a", "{'learning_rate':0.01,'lr_scheduler_type':'polynomial','lr_power':2,'early_stopping_patience':5}"},
              {"b, c", "{'optimizer':'lion','learning_rate':0.001,'weight_decay':0.1}"},
              {"d", "{'learning_rate':0.02}"},
              {"e", "{'optimizer':'sgd','learning_rate':0.1,'max_steps':1}"}},
     .places = {{0, 4, 2}, {0, 4, 2}, {0, 4, 2}, {0, 2, 1}},
     .best = 2.6815068339928985,
     .last = 0x1.9005f2p-5F,
     .loss = {2.4578099921345711, 2.7584123512109122, 3.0030029938659304, 0}},
};

typedef struct golden_world {
    api_host host;
    peft_context *ctx;
    peft_model *m;
    peft_adapters *a;
    peft_dataset *data[GOLDEN_MOST], *eval;
    peft_trainer *t;
    double loss[GOLDEN_MOST]; /* of the last step, a job each */
} golden_world;

static int32_t golden_note(void *user, const peft_step_info *info) {
    golden_world *w = user;
    for (size_t i = 0; i < w->t->jobs.len; i++) {
        if (strcmp(peft__trainer_job(w->t, i)->expression.text, info->job) == 0) { w->loss[i] = info->loss; }
    }
    return 0;
}

/* 11 rows of 2 to 9 ids; every third token has no label. */
static peft_status golden_rows(peft_context *ctx, int of, peft_dataset **out) {
    peft_status st = peft_dataset_create(ctx, NULL, NULL, out);
    for (int r = 0; st == PEFT_OK && r < 11; r++) {
        char text[256];
        int n = 2 + (5 * r + of) % 8, at = snprintf(text, sizeof text, "{\"input_ids\":[");
        for (int i = 0; i < 2 * n; i++) { /* ids, then labels */
            int k = i % n, id = i >= n && k % 3 == 2 ? -100 : (7 * r + k * k + of) % API_VOCAB;
            at += snprintf(text + at, sizeof text - (size_t)at, "%s%d", i == n ? "],\"labels\":[" : i > 0 ? "," : "", id);
        }
        at += snprintf(text + at, sizeof text - (size_t)at, "]}");
        st = peft_dataset_add_json(*out, text, (size_t)at);
    }
    return st;
}

/* The run's trainer before its first step. `seed`: of values that a checkpoint replaces. */
static peft_status golden_begin(golden_world *w, const golden_run *run, uint64_t seed, int32_t threads) {
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    memset(w, 0, sizeof *w);
    TRY(api_context(&w->host, &w->ctx));
    TRY(peft_context_set_threads(w->ctx, threads));
    TRY(peft_context_set_isa(w->ctx, "generic"));
    TRY(golden_model(w->ctx, API_LLAMA, &w->m));
    TRY(peft_adapters_create(w->m, &w->a));
    for (size_t i = 0; i < GOLDEN_MOST && run->adapters[i][0] != NULL; i++) {
        TRY(api_adapter(w->ctx, w->a, run->adapters[i][0], &run->adapters[i][1], seed, 0));
        if (seed == 0) { TRY(golden_adapter(w->a, run->adapters[i][0], true)); }
    }
    TRY(golden_rows(w->ctx, 9, &w->eval));
    TRY(api_options(w->ctx, "trainer", run->trainer, &o));
    TRY(peft_trainer_create(w->a, o, &w->t));
    TRY(peft_trainer_set_progress(w->t, golden_note, w));
    for (size_t j = 0; j < GOLDEN_MOST && run->jobs[j][0] != NULL; j++) {
        peft_options_free(o);
        o = NULL;
        TRY(golden_rows(w->ctx, (int)j, &w->data[j]));
        TRY(api_options(w->ctx, "optimizer", run->jobs[j][1], &o));
        TRY(peft_trainer_add_job(w->t, run->jobs[j][0], w->data[j], j == 0 || strstr(run->trainer, "best") ? w->eval : NULL, o));
    }
out:
    peft_options_free(o);
    return st;
}

static void golden_end(golden_world *w) {
    peft_trainer_free(w->t);
    for (size_t i = 0; i < GOLDEN_MOST; i++) { peft_dataset_free(w->data[i]); }
    peft_dataset_free(w->eval);
    peft_adapters_free(w->a);
    peft_model_free(w->m);
    peft_context_free(w->ctx);
}

static peft_status golden_accumulate(golden_world *w, const int32_t ids[5], double *loss) {
    static const int64_t lens[] = {3, 2};
    peft_batch *b = NULL;
    peft_status st = api_batch(w->ctx, ids, lens, 2, &b);
    if (st == PEFT_OK) { st = peft_trainer_accumulate(w->t, b, loss); }
    peft_batch_free(b);
    return st;
}

static float golden_last(const golden_world *w) {
    const peft__adapter *a = PEFT__VEC_AT(&w->t->members, peft__member, 0).adapter;
    return (float)a->values[a->n_trainable - 1];
}

/* The third step: where half of it is in the state, the other half and its update. */
static peft_status golden_third(golden_world *w, const golden_run *run) {
    static const int32_t ids[] = {5, 9, 2, 6, 5};
    int32_t more = 0;
    if (!run->half) { return peft_trainer_step(w->t, &more); }
    peft_status st = golden_accumulate(w, ids, &w->loss[0]);
    return st == PEFT_OK ? peft_trainer_apply(w->t) : st;
}

/* One more, by the moments and importances that the third has left. */
static peft_status golden_fourth(golden_world *w) {
    int32_t more = 0;
    return peft_trainer_step(w->t, &more);
}

/* ---- writing, for a new version ------------------------------------------------------------------------------------- */

/* The parameters in a state's file, as a file of their own. */
static peft_status golden_params(peft__mem *mem, const char *state, const char *to) {
    peft__safetensors f;
    peft__io_source out[2 * GOLDEN_MOST];
    size_t n = 0;
    memset(out, 0, sizeof out);
    peft_status st = peft__safetensors_open(mem, state, true, &f);
    for (size_t i = 0; st == PEFT_OK && i < f.count; i++) {
        const peft__io_tensor *t = &f.tensors[i];
        if (strstr(t->name, "params") == NULL || n == PEFT__COUNT(out)) { continue; }
        out[n++] = (peft__io_source){.name = t->name, .dtype = t->dtype, .ndim = 1, .dims = {t->dims[0]}, .data = t->data};
    }
    if (st == PEFT_OK) { st = peft__safetensors_write(mem, to, out, n, NULL); }
    peft__safetensors_close(&f);
    return st;
}

static peft_status golden_write(const golden_run *run, const char *dir) {
    static const int32_t ids[] = {3, 1, 4, 1, 5};
    const char *own = runner_tmpdir();
    peft_status st = PEFT_OK;
    golden_world w;
    int32_t more = 0;
    TRY(golden_begin(&w, run, 0, 1));
    TRY(peft_trainer_step(w.t, &more));
    TRY(peft_trainer_step(w.t, &more));
    if (run->half) { TRY(golden_accumulate(&w, ids, NULL)); }
    TRY(peft_trainer_checkpoint_save(w.t, dir));
    for (size_t j = 0; j < w.t->jobs.len; j++) {
        const peft__job *job = peft__trainer_job(w.t, j);
        const peft__optim *optim = &peft__trainer_member(w.t, job, 0)->optim;
        printf("%s, job %s: epoch, position, steps {%d, %d, %d}, best loss %.17g, last value %aF\n", run->name, job->expression.text,
               (int)job->epoch, (int)job->position, (int)optim->step, job->best_loss, (double)golden_last(&w));
    }
    memset(w.loss, 0, sizeof w.loss);
    TRY(golden_third(&w, run));
    for (size_t j = 0; j < w.t->jobs.len; j++) {
        printf("%s, job %s: loss of the third step %.17g\n", run->name, run->jobs[j][0], w.loss[j]);
    }
    TRY(golden_fourth(&w));
    TRY(peft_trainer_checkpoint_save(w.t, own));
    TRY(golden_params(&w.ctx->mem, runner_path(own, "state.safetensors"), runner_path(dir, "next.safetensors")));
out:
    golden_end(&w);
    return st;
}

TEST(golden_writes_checkpoints) {
    if (!golden_writing()) { return; }
    const char *dir = golden_new("checkpoint");
    for (size_t r = 0; dir != NULL && r < PEFT__COUNT(golden_runs); r++) {
        CHECK_OK(golden_write(&golden_runs[r], runner_path(dir, golden_runs[r].name)));
    }
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* What the state says of each job. */
static void golden_places(const golden_world *w, const golden_run *run) {
    CHECK_INT(w->t->step, 2);
    for (size_t j = 0; j < w->t->jobs.len; j++) {
        const peft__job *job = peft__trainer_job(w->t, j);
        CHECK_INT(job->epoch, run->places[j].epoch);
        CHECK_INT(job->position, run->places[j].position);
        CHECK_INT(job->accumulated_rows, run->half ? 2 : 0);
        CHECK_INT(peft__trainer_member(w->t, job, 0)->optim.step, run->places[j].steps);
    }
    double best = peft__trainer_job(w->t, 0)->best_loss;
    CHECK_NEAR(isfinite(best) ? best : 0, run->best, 0);
    CHECK_NEAR(golden_last(w), run->last, 0);
}

static void golden_check(const golden_run *run, const char *dir, int32_t threads) {
    golden_world w;
    const char *own = runner_tmpdir(), *state = runner_path(dir, "state.safetensors"), *file = runner_path(own, "state.safetensors");
    char *json = malloc(1 << 14);
    CHECK(json != NULL);
    CHECK_OK(golden_begin(&w, run, 99, threads));
    CHECK_OK(peft_check_json(w.ctx, dir, NULL, NULL, json, 1 << 14, NULL));
    CHECK(strstr(json, "\"ok\":true") != NULL && strstr(json, "\"warning_count\":0") != NULL);
    free(json);
    CHECK_OK(peft_trainer_checkpoint_load(w.t, dir));
    golden_places(&w, run);
    CHECK_OK(peft_trainer_checkpoint_save(w.t, own));
    CHECK_OK(golden_same(&w.ctx->mem, file, state));
    CHECK_OK(golden_third(&w, run));
    CHECK_INT(w.t->step, 3);
    for (size_t j = 0; j < GOLDEN_MOST; j++) { CHECK_NEAR(w.loss[j], run->loss[j], 0); }
    CHECK_OK(golden_fourth(&w));
    CHECK_OK(peft_trainer_checkpoint_save(w.t, own));
    CHECK_OK(golden_same(&w.ctx->mem, file, runner_path(dir, "next.safetensors")));
    CHECK_OK(peft_trainer_run(w.t)); /* and to its end */
    CHECK_INT(w.t->step, 6);
    golden_end(&w);
    CHECK_INT(w.host.now, 0);
}

TEST(golden_checkpoints_go_on) {
    char versions[GOLDEN_VERSIONS][64];
    size_t n = golden_versions("checkpoint", versions), checked = 0;
    CHECK(n > 0); /* tests run in the folder of the sources */
    for (size_t v = 0; v < n; v++) {
        const char *top = runner_path(GOLDEN_DIR, versions[v]);
        for (size_t r = 0; r < PEFT__COUNT(golden_runs); r++) {
            const char *dir = runner_path(top, golden_runs[r].name);
            if (!peft__path_exists(dir)) { continue; } /* a run that this version did not have */
            golden_check(&golden_runs[r], dir, 1);
            golden_check(&golden_runs[r], dir, 3);
            checked++;
        }
    }
    CHECK(checked >= PEFT__COUNT(golden_runs));
}

/* A copy of the file in which the state's `from` (which is there) is `to`, as long. */
static peft_status golden_edit(peft__mem *mem, const char *path, const char *from, const char *to, const char *out) {
    peft__file file;
    peft__str s;
    memset(&file, 0, sizeof file);
    peft__str_init(&s, mem);
    peft_status st = peft__file_open(mem, path, true, &file);
    if (st == PEFT_OK) {
        peft__str_put(&s, (const char *)file.data, file.size);
        st = peft__str_status(&s);
    }
    size_t at = 8, n = strlen(from);
    while (st == PEFT_OK && at + n < s.len && memcmp(s.data + at, from, n) != 0) { at++; }
    if (st == PEFT_OK && at + n < s.len) {
        memcpy(s.data + at, to, n);
        st = peft__save_text(mem, out, s.data, s.len);
    }
    peft__file_close(&file);
    peft__str_free(&s);
    return st;
}

/* The state of a newer library is refused for its version, wherever that stands and whatever else is new in it. */
TEST(golden_checkpoint_of_a_newer_version) {
    static const struct {
        size_t run;
        const char *from, *to, *says;
    } cases[] = {
        {0, "{\\\"version\\\":1", "{\\\"version\\\":3", "version 3 is newer than this library's 2"},
        {1, "{\\\"version\\\":1,\\\"adapter\\\"", "{\\\"version\\\":4,\\\"Adapter\\\"", "version 4 is newer than this library's 2"},
        {2, "{\\\"version\\\":2", "{\\\"version\\\":3", "version 3 is newer than this library's 2"},
        {2, "{\\\"version\\\":2,\\\"step\\\":2,\\\"jobs\\\"", "{\\\"version\\\":5,\\\"step\\\":2,\\\"Jobs\\\"",
         "version 5 is newer than this library's 2"},
        {2, "{\\\"version\\\":1", "{\\\"version\\\":9", "version 9 is newer than this library's 2"},
    };
    char versions[GOLDEN_VERSIONS][64], *json = malloc(1 << 14);
    CHECK(json != NULL && golden_versions("checkpoint", versions) > 0);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        golden_world w;
        const golden_run *run = &golden_runs[cases[i].run];
        const char *dir = runner_tmpdir(), *from = runner_path(runner_path(GOLDEN_DIR, versions[0]), run->name);
        CHECK_OK(golden_begin(&w, run, 99, 1));
        CHECK_OK(golden_edit(&w.ctx->mem, runner_path(from, "state.safetensors"), cases[i].from, cases[i].to,
                             runner_path(dir, "state.safetensors")));
        CHECK_STATUS(peft_trainer_checkpoint_load(w.t, dir), PEFT_E_VERSION);
        CHECK_ERROR_HAS("state.safetensors");
        CHECK_ERROR_HAS(cases[i].says);
        CHECK_INT(w.t->step, 0);
        CHECK_OK(peft_check_json(w.ctx, dir, NULL, NULL, json, 1 << 14, NULL));
        CHECK(strstr(json, "\"ok\":false,\"error_count\":1") != NULL && strstr(json, cases[i].says) != NULL);
        golden_end(&w);
        CHECK_INT(w.host.now, 0);
    }
    free(json);
}
