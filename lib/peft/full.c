/* full.c - full fine-tuning: every tensor of the base has a trained copy that stands in for it.
 *
 * The copy of a projection is kept as [out, in] whatever the file's order; whoever writes it turns a Conv1D's back. A head
 * that is tied to the embedding uses the embedding's copy, so that their gradients are summed. It is saved as a whole model
 * through peft__merge_*.
 *
 * Left out: biases and gains of sites that the architecture does not list. */
#include "peft/method.h"

enum { FULL_WEIGHT = 0, FULL_BIAS = 1 };

static const peft__schema full_schema = {"method:full", NULL, 0};

static peft_status full_add_site(peft__adapter *a, const peft__site *s) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    bool taken = s->kind == PEFT__SITE_LINEAR || s->kind == PEFT__SITE_NORM || s->kind == PEFT__SITE_EMBED ||
                 s->kind == PEFT__SITE_HEAD;
    if (!taken || s->weight == NULL) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    if (s->kind != PEFT__SITE_HEAD || s->tied_to < 0) { TRY(peft__adapter_copy_weight(a, at, s, FULL_WEIGHT)); }
    if (s->bias != NULL) { TRY(peft__adapter_copy_bias(a, at, s, NULL, FULL_BIAS)); }
out:
    return st;
}

static peft_status full_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const peft__base_info *base = a->base;
    for (size_t i = 0; i < base->n_sites; i++) { TRY(full_add_site(a, &base->sites[i])); }
    for (size_t i = 0; i < base->n_sites; i++) { /* when the embedding has its copy */
        const peft__site *s = &base->sites[i];
        peft__attachment *head = NULL, *table = NULL;
        if (s->kind != PEFT__SITE_HEAD || s->tied_to < 0) { continue; }
        TRY(peft__adapter_attach(a, &base->sites[s->tied_to], &table));
        int32_t shared = table->weight_param;
        TRY(peft__adapter_attach(a, s, &head));
        head->weight_param = shared;
    }
out:
    return st;
}

static void full_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)rng;
    peft__adapter_init_copy(a, i, k);
}

const peft__method peft__method_full = {
    .name = "full",
    .schema = &full_schema,
    .whole_model = true,
    .build = full_build,
    .init = full_init,
};
