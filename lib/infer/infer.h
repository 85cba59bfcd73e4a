/* infer.h - layer 5: sessions: logits, the KV cache, sampling and generation.
 *
 * session.c    the life of one session: its tape and plan
 * pass.c       one run of the tape; logits of whole batches
 * cache.c      keys and values of rows
 * sample.c     greedy, temperature, top-k, top-p, min-p, repetition penalty
 * generate.c   the loop over tokens: prefill by chunks, one token at a time
 * rows.c       rows that are continued together, each with its own adapters
 * beam.c       beam search over the rows of the cache
 * source.c     encoder-decoder models: what the encoder reads, and the cache of cross attention
 * emit.c       what the caller gets of a token: text in whole characters, stop strings */
#ifndef PEFT_INFER_H
#define PEFT_INFER_H

#include "model/model.h"
#include "peft/expression.h"
#include "text/text.h"

extern const peft__schema peft__schema_session, peft__schema_generate;

enum { PEFT__SESSION_ROWS = 64 }; /* most rows of a pass */

/* What an encoder-decoder model's encoder reads (source.c). */
typedef struct peft__session_source {
    const int32_t *ids;      /* borrowed during a call, [n]: of the row that the cache is of */
    int64_t n;
    int64_t room;            /* tokens of a pass that the plan is made for */
    int32_t *positions;      /* owned, [room and virtual tokens of each row] */
    int64_t in[PEFT__SESSION_ROWS + 1], out[PEFT__SESSION_ROWS + 1]; /* offsets of the pass, without and with virtual tokens */
    int64_t rows;            /* that the cache of cross attention has room for */
} peft__session_source;

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
    peft__kv_cache cache; /* of one row, of several beams or of the rows of a batch; grows by need */
    peft__session_source source; /* of encoder-decoder models */
    int64_t whole;        /* positions of the row that is read in parts; 0: what is read is whole */
    int32_t group, task;  /* of the cached rows: which branch of the expression it takes, and its task */
    const struct peft__session_rows *rows; /* borrowed during a call for logits; NULL: none */
    int64_t max_stream;   /* tokens of one pass at most, virtual ones counted */
    int32_t *positions, *types; /* owned, [max_stream]; types: token types */
    int64_t *wanted;      /* owned, [chunk]: which tokens' logits a pass is asked for */
    int64_t vocab;        /* the model's, and tokens that adapters add */
    int64_t columns;      /* numbers that the head gives of a token, or of a row: vocab in a language model */
    bool by_rows;         /* of a row, not of each token */
    bool uncut;           /* a row must be read in one pass: its tokens see those after them, or it becomes a mean */
    float *logits;        /* owned, [vocab or columns] */
    atomic_int cancel;    /* asked to end; taken back by the call that does */
    struct peft__generation *generation; /* owned: started and asked for a token at a time; NULL: none */
    struct peft__rows *batch; /* owned: rows that are continued together; NULL: none yet */
    int32_t branches;     /* of the session of a batch: the groups of its rows; 0: a session as the caller made it */
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
/* Rows end to end. */
typedef struct peft__session_rows {
    const int32_t *ids, *types;  /* [tokens]; types NULL: all 0 */
    const int64_t *offsets;      /* [n + 1] */
    const int32_t *tasks;        /* [n]; NULL: the option "task_id" */
    size_t n;
    const int32_t *source_ids;   /* what an encoder reads; NULL: nothing */
    const int64_t *source_offsets; /* [n + 1] */
} peft__session_rows;
/* What the head gives of every token, [tokens, columns], or row, [rows, columns]; with a parallel block for each branch. */
peft_status peft__session_logits(struct peft_session *s, const peft__session_rows *rows, float *out);
bool peft__session_output_size(const struct peft_session *s, size_t tokens, size_t rows, size_t *n); /* false: too many */
/* Continues ids; new ids are pushed to out (int32_t), text to text (NULL: not wanted). */
peft_status peft__session_generate(struct peft_session *s, const struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                   const peft__optset *opts, peft_token_fn fn, void *user, peft__vec *out,
                                   peft__str *text);
/* The same a token at a time; *id -1: it is over. Any other pass through the session ends it, and so does stop. */
peft_status peft__session_start(struct peft_session *s, struct peft_tokenizer *t, const int32_t *ids, size_t n,
                                const peft__optset *opts);
peft_status peft__session_next(struct peft_session *s, int32_t *id, char *buf, size_t cap, size_t *needed);
void peft__session_stop(struct peft_session *s);

/* ---- rows.c ---- */

/* Adds a row that is continued with others; expression NULL: the session's. */
peft_status peft__rows_add(struct peft_session *s, const char *expression, struct peft_tokenizer *t, const int32_t *ids, size_t n,
                           const peft__optset *opts, int64_t *row);
/* At most one token more for each row; *left: rows that have more to come. */
peft_status peft__rows_next(struct peft_session *s, peft_row_fn fn, void *user, size_t *left);
peft_status peft__rows_remove(struct peft_session *s, int64_t row); /* PEFT_E_NOT_FOUND */
void peft__rows_free(struct peft__rows *b);

#endif
