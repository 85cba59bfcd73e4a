/* lora.h - what the variants of LoRA share: lora.c has the functions, lora_fa.c another descriptor over them. */
#ifndef PEFT_LORA_H
#define PEFT_LORA_H

#include "peft/tokens.h"

enum { PEFT__LORA_A = 0, PEFT__LORA_B = 1, PEFT__LORA_BIAS = 2, PEFT__LORA_M = 3, PEFT__LORA_A0 = 4, PEFT__LORA_B0 = 5 };

peft_status peft__lora_build(peft__adapter *a);
void peft__lora_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k);
peft_status peft__lora_settle(peft__adapter *a, const peft__kernels *k);
peft__val peft__lora_after(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                           peft__val y);
peft__val peft__lora_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                     peft__head_spec *spec);
double peft__lora_rate(const peft__adapter *a, size_t i); /* LoRA+ */
peft_status peft__lora_merge(const peft__adapter *a, const peft__attachment *at, const peft__site *s, const peft__run *run,
                             peft__real *weight);
/* lora_base.c: initial values made from the base's weights (pissa, olora). */
bool peft__lora_from_base(const peft__adapter *a); /* is it one of them, and not from a file */
peft_status peft__lora_add_base(peft__adapter *a, peft__attachment *at, const peft__site *s);
peft_status peft__lora_fill_base(const peft__adapter *a, const peft__kernels *k);
peft_status peft__lora_plain(const peft__adapter *a, peft__adapter **out);
void peft__lora_config_out(const peft__adapter *a, peft__json_out *j);
peft_status peft__lora_config_in(peft__optset *opts, const peft__json *config, const char *what);
/* lora_make.c: a LoRA of the ranks [n_sites] (0: none) with all values 0, scaled by alpha / rank, or by 1 with alpha 0. `like`:
 * where dropout, task and name of the base come from; NULL: defaults. */
peft_status peft__lora_make(peft__mem *mem, const peft__base_info *base, const char *name, const int64_t *ranks, double alpha,
                            const peft__optset *like, peft__adapter **out);
/* The parameter of a slot at an attachment that is no trained copy; NULL: none. */
const peft__param *peft__lora_param(const peft__adapter *a, const peft__attachment *at, int32_t slot);
peft_status peft__lora_only(const peft__adapter *a, const char *what); /* see peft__method.low_rank */
peft_status peft__lora_mix(const struct peft__mix *m, peft__adapter **out); /* combine_lora.c */

/* Options of LoRA; dora: default of use_dora as text. */
#define PEFT__LORA_OPTIONS(dora)                                                                                             \
    {"r", PEFT__OPT_INT, "8", 1, 1 << 20, NULL, "rank: columns of B"},                                                       \
    {"lora_alpha", PEFT__OPT_FLOAT, "8", 1, 0, NULL, "the product is scaled by lora_alpha / r"},                             \
    {"lora_dropout", PEFT__OPT_FLOAT, "0.0", 0, 0.999, NULL, "part of the adapter's input that is dropped in training"},     \
    PEFT__TARGET_OPTIONS, PEFT__LAYER_OPTIONS,                                                                               \
    {"rank_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "rank by pattern of the path's end"},                                    \
    {"alpha_pattern", PEFT__OPT_MAP, "", 1, 0, NULL, "alpha by pattern of the path's end"},                                  \
    {"bias", PEFT__OPT_STR, "none", 1, 0, "none|all|lora_only", "which biases of the base are trained"},                     \
    {"init_lora_weights", PEFT__OPT_STR, "true", 1, 0, "true|gaussian|pissa|olora|false",                           \
     "initial values; pissa, olora: leading factors of the weight; false: also B is random"},    \
    {"use_rslora", PEFT__OPT_BOOL, "false", 1, 0, NULL, "scale by lora_alpha / sqrt(r)"},                                    \
    {"use_dora", PEFT__OPT_BOOL, dora, 1, 0, NULL, "DoRA: the lengths of the weight's rows are trained apart"},              \
    PEFT__TOKENS_OPTIONS,                                                                                                    \
    {"loraplus_lr_ratio", PEFT__OPT_FLOAT, "1", 0, 1e6, NULL, "LoRA+: B learns at so many times the learning rate"},         \
    {"fan_in_fan_out", PEFT__OPT_BOOL, "false", 1, 0, NULL, "set by the library: the base keeps its weights as [in, out]"}

#endif
