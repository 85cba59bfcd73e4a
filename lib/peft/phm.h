/* phm.h - Compacter's layers, as part of the bottleneck methods (bottleneck.c). */
#ifndef PEFT_PHM_H
#define PEFT_PHM_H

#include "peft/method.h"

/* Options of a method that may have them; on: the default of phm_layer. */
#define PEFT__PHM_OPTIONS(on)                                                                                                \
    {"phm_layer", PEFT__OPT_BOOL, on, 1, 0, NULL, "both matrices are sums of Kronecker products (Compacter)"},                \
    {"phm_dim", PEFT__OPT_INT, "4", 1, 256, NULL, "n: summands, and rows and columns of each rule; divides both widths"},      \
    {"phm_rank", PEFT__OPT_INT, "1", 1, 65536, NULL, "rank of W_i, with factorized_phm_W"},                                  \
    {"factorized_phm_W", PEFT__OPT_BOOL, "true", 1, 0, NULL, "W_i are products of two factors"},                             \
    {"shared_W_phm", PEFT__OPT_BOOL, "false", 1, 0, NULL, "all places have the same W_i"},                                   \
    {"shared_phm_rule", PEFT__OPT_BOOL, "true", 1, 0, NULL, "all places have the same rules"},                               \
    {"factorized_phm_rule", PEFT__OPT_BOOL, "false", 1, 0, NULL, "rules are a column times a row"},                          \
    {"learn_phm", PEFT__OPT_BOOL, "true", 1, 0, NULL, "rules are trained; else they stay as they start"},                     \
    {"phm_bias", PEFT__OPT_BOOL, "true", 1, 0, NULL, "the products have a bias"},                                            \
    {"phm_c_init", PEFT__OPT_STR, "normal", 1, 0, "normal|uniform",                                                           \
     "initial rules: N(0, phm_init_range), N(0, 0.01) of a place's own; U(-1, 1), U(-0.01, 0.01)"},                          \
    {"phm_init_range", PEFT__OPT_FLOAT, "0.0001", 0, 1e3, NULL, "deviation of the normal initial values"},                    \
    {"hypercomplex_nonlinearity", PEFT__OPT_STR, "glorot-uniform", 1, 0, "glorot-uniform|glorot-normal|normal|phm",           \
     "initial W_i: Glorot and Bengio's two; N(0, phm_init_range); phm is glorot-normal"}

/* Slots of a product's parameters: `base` and these. Shared ones have the slot and no site. */
enum { PEFT__PHM_RULE = 0, PEFT__PHM_RULE_RIGHT = 1, PEFT__PHM_W = 2, PEFT__PHM_W_RIGHT = 3, PEFT__PHM_BIAS = 4 };
enum { PEFT__PHM_DOWN = 20, PEFT__PHM_UP = 25, PEFT__PHM_SHARED = 30 }; /* bases; SHARED: of the rules alone */

/* The parameters of one product [in] -> [out] under the module path `place`, but for shared ones. base: PEFT__PHM_DOWN or _UP. */
peft_status peft__phm_add(peft__adapter *a, peft__attachment *at, const char *place, int32_t base, int64_t in, int64_t out);
/* What all places share, under PREFIX.shared_parameters; d, m: the outer and inner width. */
peft_status peft__phm_add_shared(peft__adapter *a, const char *prefix, int64_t d, int64_t m);
/* Fills parameter i if it is one of these; false: it is not. */
bool peft__phm_init(const peft__adapter *a, size_t i, peft__rng *rng);
peft__val peft__phm_emit(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, int32_t base,
                         int64_t out);

#endif
