/* Encoder-decoder models in double: the gradient of what adapters train in the encoder, the decoder and the attention between them,
 * and of the whole models with T5's tables of biases, against central differences of the loss, over rows of several lengths. */
#include <math.h>
#include <stdio.h>

#include "api/api.h"
#include "runner.h"
#include "train/loop.h"

enum { SEQ2SEQ_SOME = 90 }; /* parameters that are looked at in each case */

#define SEQ2SEQ_T5(rest) "{\"model_type\":\"t5\",\"vocab_size\":13,\"d_model\":8,\"d_kv\":3,\"d_ff\":10,\"num_layers\":2," \
                         "\"num_heads\":2,\"relative_attention_num_buckets\":8,\"relative_attention_max_distance\":9,"   \
                         "\"decoder_start_token_id\":0" rest "}"
static const char *const seq2seq_configs[][2] = {
    {"t5", SEQ2SEQ_T5(",\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false")},
    {"t5, tied", SEQ2SEQ_T5(",\"feed_forward_proj\":\"gelu\",\"num_decoder_layers\":1")},
    {"bart", "{\"model_type\":\"bart\",\"vocab_size\":13,\"d_model\":8,\"encoder_layers\":2,\"decoder_layers\":2,"
             "\"encoder_attention_heads\":2,"
             "\"decoder_attention_heads\":4,\"encoder_ffn_dim\":10,\"decoder_ffn_dim\":12,\"max_position_embeddings\":24,"
             "\"scale_embedding\":true}"},
};

typedef struct seq2seq_part {
    const char *method, *options;
} seq2seq_part;

static const seq2seq_part seq2seq_cases[][3] = {
    {{"full", ""}},
    {{"lora", "r=2;lora_alpha=3;target_modules=all-linear;lora_dropout=0.2;bias=all"}},
    {{"lora", "r=2;modules_to_save=lm_head"}},
    {{"houlsby", "reduction_factor=2;cross_adapter=true;dropout=0.2"}},
    {{"pfeiffer", "reduction_factor=3;cross_adapter=true;use_gating=true;non_linearity=gelu"}},
    {{"prefix_tuning", "prefix_length=3;flat=true;use_gating=true;dropout=0.2"}},
    {{"prefix_tuning", "prefix_length=2;bottleneck_size=4;non_linearity=gelu;leave_out=1"}},
    {{"prefix", "num_virtual_tokens=2;init=random"}},
    {{"prompt", "num_virtual_tokens=2"}},
    {{"multitask_prompt", "num_virtual_tokens=2;num_tasks=3;num_ranks=2"}},
    {{"trainable_tokens", "token_indices=5,1,12"}},
    {{"lora", "r=2;target_modules=all-linear"}, {"houlsby", "reduction_factor=4;cross_adapter=true;non_linearity=gelu"},
     {"prefix_tuning", "prefix_length=2;flat=true"}},
};

typedef struct seq2seq_run {
    peft_context *ctx;
    peft_model *model;
    peft_adapters *set;
    struct peft_trainer *trainer;
    peft_batch *batch;
} seq2seq_run;

static peft_status seq2seq_add(seq2seq_run *c, const char *name, const seq2seq_part *p) {
    char schema[64], key[64], value[128];
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    (void)snprintf(schema, sizeof schema, "method:%s", p->method);
    TRY(peft_options_create(c->ctx, schema, &o));
    for (const char *text = p->options; *text != '\0';) {
        int used = 0;
        if (sscanf(text, "%63[^=]=%127[^;]%n", key, value, &used) != 2) { FAIL(PEFT_E_INVALID, "options \"%s\"", text); }
        TRY(peft_options_set_text(o, key, value));
        text += used;
        text += *text == ';';
    }
    TRY(peft_adapters_add(c->set, name, p->method, o, 3));
out:
    peft_options_free(o);
    return st;
}

static peft_status seq2seq_open(seq2seq_run *c, const char *config, const seq2seq_part parts[3], int32_t threads) {
    static const int32_t ids[10] = {0, 1, 4, 1, 5, 9, 0, 6, 5, 0}, labels[10] = {1, 4, 1, -100, 9, 2, 6, 5, 12, 7};
    static const int32_t sources[12] = {7, 3, 1, 2, 11, 12, 4, 4, 8, 5, 6, 9}, tasks[3] = {2, 0, 2};
    static const int64_t offsets[4] = {0, 6, 9, 10}, source_offsets[4] = {0, 4, 5, 12};
    peft_status st = PEFT_OK;
    memset(c, 0, sizeof *c);
    TRY(peft_context_create(NULL, &c->ctx));
    TRY(peft_context_set_threads(c->ctx, threads));
    TRY(peft__model_random(c->ctx, config, strlen(config), 7, 0.2, &c->model));
    TRY(peft_adapters_create(c->model, &c->set));
    TRY(seq2seq_add(c, "a", &parts[0]));
    if (parts[1].method != NULL) { TRY(seq2seq_add(c, "b", &parts[1])); }
    if (parts[2].method != NULL) { TRY(seq2seq_add(c, "c", &parts[2])); }
    TRY(peft_trainer_create(c->set, NULL, &c->trainer));
    TRY(peft_trainer_add_job(c->trainer, parts[1].method != NULL ? "a,b,c" : "a", NULL, NULL, NULL));
    TRY(peft_batch_create(c->ctx, &c->batch));
    TRY(peft_batch_set_i32(c->batch, "input_ids", ids, offsets, 3));
    TRY(peft_batch_set_i32(c->batch, "labels", labels, offsets, 3));
    TRY(peft_batch_set_i32(c->batch, "source_ids", sources, source_offsets, 3));
    if (strcmp(parts[0].method, "multitask_prompt") == 0) { TRY(peft_batch_set_i32(c->batch, "task_id", tasks, NULL, 3)); }
    peft__rng rng = {99, 0};
    const peft__expression *e = &peft__trainer_job(c->trainer, 0)->expression;
    for (size_t l = 0; l < e->n_leaves; l++) {
        peft__adapter *x = e->leaves[l]->adapter;
        for (int64_t i = 0; i < x->n_values; i++) { x->values[i] += 0.3 * peft__rng_normal(&rng); }
    }
out:
    return st;
}

static void seq2seq_close(seq2seq_run *c) {
    peft_batch_free(c->batch);
    peft_trainer_free(c->trainer);
    peft_adapters_free(c->set);
    peft_model_free(c->model);
    peft_context_free(c->ctx);
}

static double seq2seq_loss(seq2seq_run *c) {
    double loss = (double)NAN;
    peft__job *job = peft__trainer_job(c->trainer, 0);
    for (size_t i = 0; i < job->members.len; i++) {
        peft__member *m = peft__trainer_member(c->trainer, job, i);
        memset(m->grads, 0, (size_t)m->adapter->n_trainable * sizeof(peft__real));
    }
    job->accumulated = 0;
    job->accumulated_rows = 0; /* the same dropout again */
    return peft_trainer_accumulate(c->trainer, c->batch, &loss) == PEFT_OK ? loss * job->accumulated : (double)NAN;
}

static double seq2seq_slope(seq2seq_run *c, peft__real *v, double h) {
    static const double at[4] = {-2, -1, 1, 2};
    double f[4], v0 = *v;
    for (int k = 0; k < 4; k++) {
        *v = v0 + at[k] * h;
        f[k] = seq2seq_loss(c);
    }
    *v = v0;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

/* Largest error, relative to the gradient or to a tenth of the largest one; of two steps the better, as none suits all. */
static double seq2seq_worst(seq2seq_run *c) {
    double worst = 0, top = 0;
    static peft__real grads[1 << 16];
    peft__job *job = peft__trainer_job(c->trainer, 0);
    if (peft__trainer_plan(c->trainer) != PEFT_OK || isnan(seq2seq_loss(c))) { return (double)NAN; }
    for (size_t m = 0; m < job->members.len; m++) {
        const peft__member *x = peft__trainer_member(c->trainer, job, m);
        int64_t some = runner_few() ? SEQ2SEQ_SOME / 4 : SEQ2SEQ_SOME, n = x->adapter->n_trainable, step = (n + some - 1) / some;
        if (isnan(seq2seq_loss(c)) || n > (int64_t)PEFT__COUNT(grads)) { return (double)NAN; }
        memcpy(grads, x->grads, (size_t)n * sizeof *grads);
        for (int64_t i = 0; i < n; i++) { top = fmax(top, fabs(grads[i])); }
        for (int64_t i = (int64_t)m; i < n; i += step) {
            double size = fmax(fmax(fabs(grads[i]), 0.1 * top), 1e-3);
            double error = fabs(seq2seq_slope(c, &x->adapter->values[i], 2e-5) - grads[i]) / size;
            if (!(error < 2e-8)) { error = fmin(error, fabs(seq2seq_slope(c, &x->adapter->values[i], 2e-4) - grads[i]) / size); }
            worst = fmax(worst, error);
        }
    }
    return top > 0 ? worst : (double)NAN;
}

TEST(seq2seq_gradients) {
    for (size_t m = 0; m < PEFT__COUNT(seq2seq_cases); m++) {
        for (size_t a = 0; a < PEFT__COUNT(seq2seq_configs); a++) {
            seq2seq_run c;
            peft_status st = seq2seq_open(&c, seq2seq_configs[a][1], seq2seq_cases[m], 1 + (int32_t)(m % 2));
            double worst = st == PEFT_OK ? seq2seq_worst(&c) : (double)NAN;
            if (!(worst < 1e-7)) {
                fprintf(stderr, "%s [%s] on %s: %.3g %s\n", seq2seq_cases[m][0].method, seq2seq_cases[m][0].options, seq2seq_configs[a][0],
                        worst, peft_last_error());
            }
            seq2seq_close(&c);
            CHECK_OK(st);
            CHECK_NEAR(worst, 0, 1e-7);
        }
    }
}

/* The tables of biases are tensors that `full` trains, with gradients of their own in both stacks. */
TEST(seq2seq_gradient_of_biases) {
    static const char *const tables[] = {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                         "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"};
    seq2seq_run c;
    CHECK_OK(seq2seq_open(&c, seq2seq_configs[0][1], seq2seq_cases[0], 2));
    CHECK_OK(peft__trainer_plan(c.trainer));
    CHECK(!isnan(seq2seq_loss(&c)));
    const peft__member *x = peft__trainer_member(c.trainer, peft__trainer_job(c.trainer, 0), 0);
    for (size_t i = 0; i < PEFT__COUNT(tables); i++) {
        double sum = 0;
        const peft__adapter_param *p = peft__adapter_find(x->adapter, tables[i], NULL);
        CHECK(p != NULL && p->p.rows == 8 && p->p.cols == 2);
        const peft__real *g = x->grads + (p->p.value - x->adapter->values);
        for (int64_t k = 0; k < 16; k++) { sum += fabs(g[k]); }
        CHECK(sum > 1e-6);
    }
    seq2seq_close(&c);
}
