/* dpo.c - preference tuning with a loss of one's own: DPO of a LoRA, the base itself being the reference.
 *
 *   m = (log p(chosen) - log p0(chosen)) - (log p(rejected) - log p0(rejected))      p0: the base without the adapter
 *   loss = -log sigmoid(beta m), the mean over pairs       (Rafailov et al. 2023, arXiv 2305.18290, equation 7)
 *   d loss / d logits of a token of the chosen = beta sigmoid(-beta m) (softmax - onehot), of the rejected minus that
 *
 * m needs whole rows, and the loss function sees some tokens at a time. So a step asks a session for the log-probabilities first,
 * which gives each pair its loss and the factor of its gradient; then the trainer runs the same rows.
 *
 * cc dpo.c -lpeft -lm && ./a.out MODEL PAIRS.jsonl ADAPTER_FOLDER [KEY=VALUE...]
 * PAIRS.jsonl has lines {"prompt": "...", "chosen": "...", "rejected": "..."}. Keys: beta (0.1), steps (30), pairs of a step (4),
 * adapter (a folder to begin with), lora.KEY and optimizer.KEY (options of these schemas).
 *
 * Left out: label smoothing and the other losses of this kind, which change two lines of measure(). */
#include <peft.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)                                           \
    do {                                                    \
        if ((status = (call)) != PEFT_OK) { goto out; }     \
    } while (0)

enum { IGNORE = -100, BETA = 0, STEPS = 1, PAIRS = 2, NUMBERS = 3 };

/* Rows of ids end to end: chosen of pair 0, rejected of pair 0, chosen of pair 1, ... */
typedef struct text_rows {
    size_t pairs, longest;
    int64_t *offsets;     /* [2 pairs + 1] */
    int32_t *ids, *labels; /* a label is the token itself where it is of a completion */
    double *reference;    /* [2 pairs]: log-probability of each completion under the base */
} text_rows;

typedef struct pair_state { /* of one pair in one step */
    double loss, pull;      /* pull: beta sigmoid(-beta m) */
    int booked;             /* its loss is in the step's sum already */
} pair_state;

typedef struct program {
    const char *model_path, *data_path, *out_path, *start; /* start: the folder of an adapter, or NULL */
    double number[NUMBERS];                                /* beta, steps, pairs */
    peft_context *ctx;
    peft_options *lora, *optimizer, *options;
    peft_model *model;
    peft_tokenizer *tokenizer;
    peft_adapters *adapters;
    peft_session *session;
    peft_trainer *trainer;
    peft_batch *batch;
    peft_dataset *side[2]; /* chosen, rejected */
    text_rows rows;
    float *logits;         /* of one row */
    size_t logits_room;    /* in floats */
    double *log_p;         /* [2 pairs of a step] */
    pair_state *state;     /* [pairs of a step] */
} program;

static void *room(size_t n, size_t size) {
    void *p = calloc(n > 0 ? n : 1, size);
    if (p != NULL) { return p; }
    fprintf(stderr, "dpo: out of memory\n");
    exit(1);
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

/* One side of the pairs, as prompt and completion. What is too long is an error: half an answer is another answer. */
static peft_status read_side(program *p, const char *completion, peft_dataset **out) {
    peft_status status = PEFT_OK;
    peft_options *o = NULL;
    TRY(peft_options_create(p->ctx, "dataset", &o));
    TRY(peft_options_set_str(o, "prompt_template", "{prompt}"));
    TRY(peft_options_set_str(o, "completion_template", completion));
    TRY(peft_options_set_str(o, "truncation", "error"));
    TRY(peft_dataset_create(p->ctx, p->tokenizer, o, out));
    TRY(peft_dataset_load_jsonl(*out, p->data_path));
out:
    peft_options_free(o);
    return status;
}

static peft_status read_rows(program *p) {
    text_rows *r = &p->rows;
    peft_status status = PEFT_OK;
    size_t n = 0;
    TRY(read_side(p, "{chosen}", &p->side[0]));
    TRY(read_side(p, "{rejected}", &p->side[1]));
    r->pairs = peft_dataset_size(p->side[0]);
    r->offsets = room(2 * r->pairs + 1, sizeof *r->offsets);
    r->reference = room(2 * r->pairs, sizeof *r->reference);
    for (size_t i = 0; i < 2 * r->pairs; i++) {
        status = peft_dataset_row(p->side[i % 2], i / 2, NULL, NULL, 0, &n);
        if (status != PEFT_E_BUFFER) { goto out; } /* no row is empty */
        r->offsets[i + 1] = r->offsets[i] + (int64_t)n;
        if (n > r->longest) { r->longest = n; }
    }
    r->ids = room((size_t)r->offsets[2 * r->pairs], sizeof *r->ids);
    r->labels = room((size_t)r->offsets[2 * r->pairs], sizeof *r->labels);
    for (size_t i = 0; i < 2 * r->pairs; i++) {
        int64_t at = r->offsets[i], length = r->offsets[i + 1] - at;
        TRY(peft_dataset_row(p->side[i % 2], i / 2, r->ids + at, r->labels + at, (size_t)length, &n));
    }
out:
    return status;
}

/* n rows from `first` on, into the batch. */
static peft_status take_rows(program *p, size_t first, size_t n) {
    const text_rows *r = &p->rows;
    int64_t begin = r->offsets[first], *offsets = room(n + 1, sizeof *offsets);
    peft_status status = PEFT_OK;
    for (size_t i = 0; i <= n; i++) offsets[i] = r->offsets[first + i] - begin;
    peft_batch_clear(p->batch);
    TRY(peft_batch_set_i32(p->batch, "input_ids", r->ids + begin, offsets, n));
    TRY(peft_batch_set_i32(p->batch, "labels", r->labels + begin, offsets, n));
out:
    free(offsets);
    return status;
}

/* ---- the loss ------------------------------------------------------------------------------------------------ */

static double log_sum_exp(const float *x, int64_t n) {
    double top = (double)x[0], sum = 0;
    for (int64_t j = 1; j < n; j++) top = fmax(top, (double)x[j]);
    for (int64_t j = 0; j < n; j++) sum += exp((double)x[j] - top);
    return top + log(sum);
}

/* out[i]: log-probability of the completion of row first + i under the session's adapters. */
static peft_status log_probabilities(program *p, size_t first, size_t n, double *out) {
    const text_rows *r = &p->rows;
    peft_status status = PEFT_OK;
    for (size_t i = 0; i < n; i++) {
        const int32_t *labels = r->labels + r->offsets[first + i];
        int64_t tokens = r->offsets[first + i + 1] - r->offsets[first + i];
        size_t floats = 0;
        TRY(take_rows(p, first + i, 1));
        status = peft_session_logits(p->session, p->batch, p->logits, p->logits_room, &floats);
        if (status == PEFT_E_BUFFER) {
            free(p->logits);
            p->logits = room(floats, sizeof *p->logits);
            p->logits_room = floats;
            TRY(peft_session_logits(p->session, p->batch, p->logits, p->logits_room, &floats));
        } else if (status != PEFT_OK) {
            goto out;
        }
        int64_t columns = (int64_t)floats / tokens;
        out[i] = 0;
        for (int64_t t = 1; t < tokens; t++) { /* logits of t - 1 tell of t */
            const float *l = p->logits + (t - 1) * columns;
            if (labels[t] != IGNORE) { out[i] += (double)l[labels[t]] - log_sum_exp(l, columns); }
        }
    }
out:
    return status;
}

/* Loss and pull of each pair of the step; the step's mean margin and share of positive margins. */
static void measure(program *p, size_t first_pair, size_t n, double *margin, double *accuracy) {
    const double *reference = p->rows.reference + 2 * first_pair, beta = p->number[BETA];
    *margin = *accuracy = 0;
    for (size_t i = 0; i < n; i++) {
        double m = (p->log_p[2 * i] - reference[2 * i]) - (p->log_p[2 * i + 1] - reference[2 * i + 1]);
        double x = beta * m;
        p->state[i].loss = x > 0 ? log1p(exp(-x)) : log1p(exp(x)) - x; /* -log sigmoid(x) */
        p->state[i].pull = beta / (1 + exp(x));
        p->state[i].booked = 0;
        *margin += m / (double)n;
        *accuracy += (m > 0) / (double)n;
    }
}

/* Logits of some tokens of the pass become their gradients. A pair's loss is booked at its first token, so that the sum of
 * weights is the number of pairs. */
static int32_t dpo_loss(void *user, const peft_loss_chunk *chunk, double *loss, double *weight) {
    pair_state *state = user;
    *loss = *weight = 0;
    for (int64_t i = 0; i < chunk->rows; i++) {
        int64_t row = chunk->batch_rows[i];
        pair_state *pair = &state[row / 2];
        float *l = chunk->values + i * chunk->columns;
        double pull = row % 2 == 0 ? pair->pull : -pair->pull, sum = log_sum_exp(l, chunk->columns);
        for (int64_t j = 0; j < chunk->columns; j++) l[j] = (float)(pull * exp((double)l[j] - sum));
        l[chunk->labels[i]] -= (float)pull;
        if (!pair->booked) {
            pair->booked = 1;
            *loss += pair->loss;
            *weight += 1;
        }
    }
    return 0;
}

/* ---- the run ------------------------------------------------------------------------------------------------- */

/* KEY=VALUE; values of options are checked by the library. */
static peft_status set(program *p, const char *setting) {
    static const char *const names[NUMBERS] = {"beta", "steps", "pairs"};
    const char *value = strchr(setting, '=');
    size_t length = value == NULL ? 0 : (size_t)(value++ - setting);
    char key[64], *end = NULL;
    if (length > 0 && length < sizeof key) {
        memcpy(key, setting, length);
        key[length] = '\0';
        if (strncmp(key, "lora.", 5) == 0) { return peft_options_set_text(p->lora, key + 5, value); }
        if (strncmp(key, "optimizer.", 10) == 0) { return peft_options_set_text(p->optimizer, key + 10, value); }
        if (strcmp(key, "adapter") == 0) {
            p->start = value;
            return PEFT_OK;
        }
        for (int i = 0; i < NUMBERS; i++) {
            if (strcmp(key, names[i]) != 0) { continue; }
            p->number[i] = strtod(value, &end);
            if (*value != '\0' && *end == '\0' && p->number[i] <= 1e6 && (i == BETA ? p->number[i] > 0 : p->number[i] >= 1)) {
                return PEFT_OK;
            }
        }
    }
    fprintf(stderr, "dpo: cannot take \"%s\"\n", setting);
    exit(2);
}

static peft_status open_all(program *p) {
    peft_status status = PEFT_OK;
    TRY(peft_model_open(p->ctx, p->model_path, NULL, &p->model));
    TRY(peft_tokenizer_open(p->ctx, p->model_path, &p->tokenizer));
    TRY(peft_adapters_create(p->model, &p->adapters));
    if (p->start != NULL) {
        TRY(peft_adapters_load(p->adapters, "preferred", p->start, NULL));
    } else {
        TRY(peft_adapters_add(p->adapters, "preferred", "lora", p->lora, 1));
    }
    TRY(read_rows(p));
    if ((double)p->rows.pairs < p->number[PAIRS]) { p->number[PAIRS] = (double)p->rows.pairs; }
    size_t rows = 2 * (size_t)p->number[PAIRS];
    p->log_p = room(rows, sizeof *p->log_p);
    p->state = room(rows / 2, sizeof *p->state);
    TRY(peft_batch_create(p->ctx, &p->batch));
    TRY(peft_session_create(p->model, p->adapters, NULL, NULL, &p->session)); /* the base alone: the reference */
    TRY(peft_options_create(p->ctx, "trainer", &p->options));
    TRY(peft_options_set_int(p->options, "batch_size", (int64_t)rows));
    TRY(peft_options_set_int(p->options, "max_length", (int64_t)p->rows.longest));
    TRY(peft_options_set_int(p->options, "max_steps", (int64_t)p->number[STEPS]));
    TRY(peft_trainer_create(p->adapters, p->options, &p->trainer));
    TRY(peft_trainer_add_job(p->trainer, "preferred", NULL, NULL, p->optimizer));
    TRY(peft_trainer_set_loss(p->trainer, dpo_loss, p->state));
out:
    return status;
}

static peft_status train(program *p) {
    size_t first = 0, count = (size_t)p->number[PAIRS];
    peft_status status = PEFT_OK;
    TRY(log_probabilities(p, 0, 2 * p->rows.pairs, p->rows.reference));
    TRY(peft_session_set_adapters(p->session, "preferred"));
    for (int step = 1; step <= (int)p->number[STEPS]; step++) {
        size_t left = p->rows.pairs - first, n = left < count ? left : count;
        double loss = 0, margin = 0, accuracy = 0;
        TRY(log_probabilities(p, 2 * first, 2 * n, p->log_p));
        measure(p, first, n, &margin, &accuracy);
        TRY(take_rows(p, 2 * first, 2 * n));
        TRY(peft_trainer_accumulate(p->trainer, p->batch, &loss));
        TRY(peft_trainer_apply(p->trainer));
        printf("step %d  loss %.7f  accuracy %.3f  margin %.6f\n", step, loss, accuracy, margin);
        first = left > n ? first + n : 0;
    }
    TRY(peft_adapters_save(p->adapters, "preferred", p->out_path, NULL));
out:
    return status;
}

static void free_all(program *p) {
    peft_trainer_free(p->trainer), peft_session_free(p->session), peft_batch_free(p->batch);
    peft_dataset_free(p->side[0]), peft_dataset_free(p->side[1]), peft_adapters_free(p->adapters);
    peft_tokenizer_free(p->tokenizer), peft_model_free(p->model);
    peft_options_free(p->lora), peft_options_free(p->optimizer), peft_options_free(p->options), peft_context_free(p->ctx);
    free(p->rows.offsets), free(p->rows.ids), free(p->rows.labels), free(p->rows.reference);
    free(p->logits), free(p->log_p), free(p->state);
}

int main(int argc, char **argv) {
    program p = {.number = {0.1, 30, 4}};
    peft_status status = PEFT_OK;
    if (argc < 4) {
        fprintf(stderr, "usage: dpo MODEL PAIRS.jsonl ADAPTER_FOLDER [KEY=VALUE...]\n");
        return 2;
    }
    p.model_path = argv[1];
    p.data_path = argv[2];
    p.out_path = argv[3];
    TRY(peft_context_create(NULL, &p.ctx));
    TRY(peft_options_create(p.ctx, "method:lora", &p.lora));
    TRY(peft_options_create(p.ctx, "optimizer", &p.optimizer));
    for (int i = 4; i < argc; i++) TRY(set(&p, argv[i]));
    TRY(open_all(&p));
    TRY(train(&p));
out:
    if (status != PEFT_OK) { fprintf(stderr, "dpo: %s\n", peft_last_error()); }
    free_all(&p);
    return status != PEFT_OK;
}
