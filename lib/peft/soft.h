/* soft.h - what the methods that put trained rows before a text share (prompt, P-tuning, prefix): options, sizes of the base,
 * rows of the embedding table, starts, and encoders of rows. */
#ifndef PEFT_SOFT_H
#define PEFT_SOFT_H

#include "peft/method.h"

/* Options that each of them begins with. The sizes are keys of adapter_config.json, filled in by peft__soft_sizes. */
#define PEFT__SOFT_OPTIONS                                                                                                 \
    {"num_virtual_tokens", PEFT__OPT_INT, "20", 1, 1 << 16, NULL, "number of virtual tokens"},                             \
        {"token_dim", PEFT__OPT_INT, "0", 0, 1 << 30, NULL, "set by the library: width of a virtual token's vectors"},     \
        {"num_layers", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "set by the library: layers of the base"},                    \
        {"num_attention_heads", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "set by the library: heads that token_dim is cut into"}, \
        {"num_transformer_submodules", PEFT__OPT_INT, "1", 1, 2, NULL,                                              \
         "set by the library: 1, a decoder; 2, an encoder and a decoder"}
#define PEFT__SOFT_OPTIONS_END                                                                                             \
    {"task_type", PEFT__OPT_STR, "CAUSAL_LM", 1, 0, NULL, "task_type of adapter_config.json"},                             \
        {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL,                                                         \
         "as written to adapter_config.json; unset: the model's path"}

/* How a table of virtual tokens starts, as PEFT names it (soft_start.c). */
#define PEFT__SOFT_START_OPTIONS(choices, help)                                                                            \
    {"prompt_tuning_init", PEFT__OPT_STR, "SAMPLE_VOCAB", 1, 0, choices, help},                                            \
        {"prompt_tuning_init_text", PEFT__OPT_STR, "", 1, 0, NULL,                                                         \
         "text to start from with TEXT; unset: a neutral instruction"},                                                    \
        {"tokenizer_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL,                                                          \
         "as written to adapter_config.json with TEXT; unset: base_model_name_or_path"}
#define PEFT__SOFT_FROM_OPTION(what)                                                                                       \
    {"init_from", PEFT__OPT_STR, "", 1, 0, NULL, "folder of a saved adapter whose " what " these start from"}
#define PEFT__SOFT_TASK_OPTION                                                                                             \
    {"prompt_tuning_init_task", PEFT__OPT_INT, "0", 0, 1 << 30, NULL, "which task of a multitask prompt to start from"}

/* The text that virtual tokens start from when no other is given: says little, in the tone of an instruction. */
#define PEFT__SOFT_TEXT                                                                                                    \
    "Below is a request. Read it carefully, think about what is being asked for, and then write the best possible answer " \
    "to it, complete and to the point."

typedef struct peft__soft_base {
    const peft__site *input, *tokens, *first_kv; /* NULL: the base has no such site. Of an encoder its input, the decoder's keys */
    const peft__site *decoder_input; /* encoder-decoder models; NULL: one stack */
    int64_t layers, heads, kv_heads; /* layers: as config.json counts them, of an encoder-decoder model the encoder's */
    int64_t hidden, width;       /* of embeddings; of the residual stream, which may be another (OPT-350m) */
    int64_t kv_dim, vocab;
} peft__soft_base;
/* PEFT_E_UNSUPPORTED when a site that every decoder has is missing. */
peft_status peft__soft_sizes_of(const peft__adapter *a, peft__soft_base *out);
int64_t peft__soft_stacks(const peft__adapter *a); /* num_transformer_submodules */
/* Fills the options that say the base's sizes, or, where a file has set them, checks them. */
peft_status peft__soft_sizes(peft__adapter *a, int64_t token_dim, int64_t layers, int64_t heads);
void peft__soft_config_out(const peft__adapter *a, peft__json_out *j);
peft_status peft__soft_config_in(peft__optset *opts, const peft__json *config, const char *what);

/* Ids of n tokens, each drawn from the whole vocabulary; the same for the same seed. */
void peft__soft_sample(const peft__adapter *a, int64_t vocab, int64_t n, int32_t *ids);
/* out[n, hidden]: rows of the embedding table, of ids repeated as often as it takes. */
peft_status peft__soft_rows(const peft__adapter *a, const peft__init_text *text, int64_t n, const peft__kernels *k,
                            peft__real *out);
/* The text that option `key` names; PEFT__SOFT_TEXT where it is unset. Set and empty: PEFT_E_KEY. */
peft_status peft__soft_check_text(const peft__adapter *a, const char *key);
const char *peft__soft_text(const peft__adapter *a, const char *key);

/* ---- starts ----------------------------------------------------------------------------------------------------------------- */

bool peft__soft_starts_as(const peft__adapter *a, const char *how); /* prompt_tuning_init */
bool peft__soft_has_source(const peft__adapter *a);                 /* init_from is set */
/* init_from and option `how`, which names another start, are not both set; a task is named only where `tasks` is. */
peft_status peft__soft_check_source(const peft__adapter *a, const char *how, bool tasks);
/* out[rows, cols]: virtual tokens, or keys and values, of the adapter that init_from names, of one of its tasks. PEFT_E_SHAPE
 * where it has another number of them; PEFT_E_UNSUPPORTED where it has none. */
peft_status peft__soft_source(const peft__adapter *a, const peft__kernels *k, int64_t rows, int64_t cols, peft__real *out);
/* Fills a table as init_from and prompt_tuning_init say, with random tokens until a text comes. RANDOM: it has been. */
peft_status peft__soft_start(peft__adapter *a, const peft__param *table, const peft__kernels *k);
uint32_t peft__soft_start_needs(const peft__adapter *a);
const char *peft__soft_start_text(const peft__adapter *a);
/* The same as keys of adapter_config.json; how: what to write as prompt_tuning_init. */
void peft__soft_start_out(const peft__adapter *a, const char *how, peft__json_out *j);
peft_status peft__soft_start_in(peft__optset *opts, const peft__json *config, const char *what);

/* soft_simple.c: prompt tuning of what the encoder makes. */
peft_status peft__soft_simplify(const peft__adapter *a, peft__adapter **out);

/* ---- encoders -------------------------------------------------------------------------------------------------------------- */

/* Puts an encoder on a tape: the rows that it makes, and what its last layer reads. */
typedef peft__val (*peft__soft_emit)(const peft__adapter *a, peft__tape *t, peft__val *hidden);
/* What it makes now: values[rows, cols] of the result, hidden[rows, width]; NULL: not wanted. */
peft_status peft__soft_run(const peft__adapter *a, peft__soft_emit emit, peft__real *values, peft__real *hidden);
/* The parameter of a slot, which the first attachment has. */
const peft__adapter_param *peft__soft_param(const peft__adapter *a, int32_t slot);
/* Rows of its table: virtual tokens, by whatever name the options have for them, those of both stacks where each has its own. */
int64_t peft__soft_count(const peft__adapter *a);
int32_t peft__soft_tape_param(const peft__adapter *a, int32_t slot, peft__tape *t);
peft__val peft__soft_linear(const peft__adapter *a, peft__tape *t, peft__val x, int32_t weight_slot, int32_t bias_slot);
/* Adds "<name>.weight" [out, in] and "<name>.bias" [out]. */
peft_status peft__soft_add_linear(peft__adapter *a, peft__attachment *at, const char *name, int32_t weight_slot,
                                  int32_t bias_slot, int64_t out, int64_t in);
/* Chooses the last layer so that the encoder makes target[rows, cols]: its bias is the mean row, its weight the smallest
 * that gives the rest (as nearly as rows <= width allow). */
peft_status peft__soft_fit(peft__adapter *a, peft__soft_emit emit, const peft__real *target, int32_t weight_slot,
                           int32_t bias_slot);

#endif
