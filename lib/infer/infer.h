/* infer.h - layer 5: sessions: logits, the KV cache, sampling and generation.
 *
 * session.c    tape, plan and cache of one session; logits of whole batches
 * sample.c     greedy, temperature, top-k, top-p, min-p, repetition penalty
 * generate.c   the loop over tokens: prefill by chunks, one token at a time
 * beam.c       beam search over the rows of the cache
 * emit.c       what the caller gets of a token: text in whole characters, stop strings */
#ifndef PEFT_INFER_H
#define PEFT_INFER_H

#include "model/model.h"
#include "peft/expression.h"
#include "text/text.h"

extern const peft__schema peft__schema_session, peft__schema_generate;

/* The inside of peft_session. */
struct peft_session {
    uint32_t magic;                                /* PEFT__MAGIC_SESSION; poisoned on free */
    peft_context *ctx;                             /* retained */
    struct peft_model *model;                      /* retained */
    struct peft_adapters *set;                     /* retained, or NULL */
    peft__base_info base;                          /* copied from the set, or empty */
    peft__expression expression;                   /* which adapters act; they are pinned */
    peft__optset opts;                   /* schema "session" */
    peft__pool *pool;                    /* owned */
    const struct peft__kernels *kernels; /* of the context when the session was made */
    peft__tape tape;                     /* recorded when the session is made */
    peft__plan plan; /* for passes of up to `chunk` tokens; made at the first use, as are exec and cache */
    peft__exec exec;
    bool planned;
    int64_t chunk;        /* tokens of one pass at most, virtual ones not counted */
    int64_t max_length;   /* tokens of a row at most, virtual ones not counted */
    peft__kv_cache cache; /* of one row, or of several beams: prefix, virtual tokens, tokens; grows by need */
    int64_t whole;        /* positions of the row that is read in parts; 0: what is read is whole */
    int32_t group, task;  /* of the cached rows: which branch of the expression it takes, and its task */
    const int32_t *tasks; /* borrowed during a call for logits: of the batch's rows; NULL: the option's */
    int64_t max_stream;   /* tokens of one pass at most, virtual ones counted */
    int32_t *positions;   /* owned, [max_stream] */
    int64_t *wanted;      /* owned, [chunk]: which tokens' logits a pass is asked for */
    int64_t vocab;        /* the model's, and tokens that adapters add */
    float *logits;        /* owned, [vocab] */
    atomic_int cancel;    /* asked to end; taken back by the call that does */
    struct peft__generation *generation; /* owned: started and asked for a token at a time; NULL: none */
    bool running;         /* inside a call: callbacks may not re-enter */
};
enum { PEFT__MAGIC_SESSION = 0x53464550 };

typedef struct peft__sampler {
    double temperature;        /* 0: greedy */
    int64_t top_k;             /* 0: all */
    double top_p, min_p;       /* 1 and 0: all */
    double repetition_penalty; /* 1: none */
    peft__rng rng;
} peft__sampler;
/* Chooses a token; logits [n], all finite, are overwritten; work: peft__sample_work(n) bytes. history: ids so far, for the
 * penalty. */
int32_t peft__sample(peft__sampler *s, float *logits, int64_t n, const int32_t *history, size_t n_history, void *work);
size_t peft__sample_work(int64_t n); /* bytes of work */

/* expression: "" or NULL the base alone, else an adapter's name (names joined by "," act in that order). */
peft_status peft__session_create(struct peft_model *m, struct peft_adapters *set, const char *expression,
                                 const peft__optset *opts, struct peft_session **out);
/* Records the session anew with other adapters; on failure it is as before. */
peft_status peft__session_set_adapters(struct peft_session *s, const char *expression);
void peft__session_free(struct peft_session *s);
/* Logits of every token of rows given end to end: [tokens, vocab]; with a parallel block [branches, tokens, vocab]. */
/* tasks: of each row; NULL: the option "task_id". */
peft_status peft__session_logits(struct peft_session *s, const int32_t *ids, const int64_t *offsets, const int32_t *tasks,
                                 size_t n_rows, float *out);
/* Continues ids; new ids are pushed to out (int32_t), text to text (NULL: not wanted). */
peft_status peft__session_generate(struct peft_session *s, const struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                   const peft__optset *opts, peft_token_fn fn, void *user, peft__vec *out,
                                   peft__str *text);
/* The same a token at a time; *id -1: it is over. Any other pass through the session ends it, and so does stop. */
peft_status peft__session_start(struct peft_session *s, struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                const peft__optset *opts);
peft_status peft__session_next(struct peft_session *s, int32_t *id, char *buf, size_t cap, size_t *needed);
void peft__session_stop(struct peft_session *s);

#endif
