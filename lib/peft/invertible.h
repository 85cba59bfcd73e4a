/* invertible.h - invertible adapters, as part of the bottleneck methods (bottleneck.c). */
#ifndef PEFT_INVERTIBLE_H
#define PEFT_INVERTIBLE_H

#include "peft/method.h"

/* Options of a method that may have them; kind: the default. */
#define PEFT__INVERTIBLE_OPTIONS(kind)                                                                                       \
    {"inv_adapter", PEFT__OPT_STR, kind, 1, 0, "none|nice|glow", "invertible network on the embeddings, undone before the head"}, \
    {"inv_adapter_reduction_factor", PEFT__OPT_FLOAT, "2", 1e-3, 1e9, NULL, "half the hidden size over the width of its networks"}, \
    {"inv_head", PEFT__OPT_BOOL, "true", 1, 0, NULL, "it is undone before the head; false: as AdapterHub's static classes"}

bool peft__invertible_on(const peft__adapter *a);
/* Adds what the options ask for: an attachment where the embeddings are ready, with the parameters, and one at the head. */
peft_status peft__invertible_build(peft__adapter *a);
/* Fills parameter i if it is one of these; false: it is not. */
bool peft__invertible_init(const peft__adapter *a, size_t i, peft__rng *rng);
/* What the two hooks append; act: PEFT__ACT_* of the networks. */
peft__val peft__invertible_emit(const peft__adapter *a, peft__tape *t, peft__val x, int32_t act, bool inverse);
/* The keys in AdapterHub's config; reading takes the file's whole config, whose model_class says if the head is undone. */
void peft__invertible_config_out(const peft__adapter *a, peft__json_out *j);
peft_status peft__invertible_config_in(peft__optset *opts, const peft__json *config, const char *what);
/* The model_class to write, in place of that of the base's config. */
const char *peft__invertible_class(const peft__adapter *a, const char *model_class);

#endif
