/* bottleneck_kit.h - what tests of bottleneck adapters share: a base that is nothing but places for them, and values by key. */
#ifndef BOTTLENECK_KIT_H
#define BOTTLENECK_KIT_H

#include "peft_fake.h"

enum { BN_LAYERS = 2 };

static inline void bn_base(fake_base *b, int64_t width) {
    fake_start(b, "llama");
    fake_site(b, PEFT__SITE_EMBED, PEFT__ROLE_TOKENS, -1, "model.embed_tokens", 10, width, false, false);
    for (int32_t l = 0; l < BN_LAYERS; l++) {
        char path[64];
        (void)snprintf(path, sizeof path, "model.layers.%d.self_attn", l);
        fake_site(b, PEFT__SITE_STREAM, PEFT__ROLE_ATTN, l, path, width, width, false, false);
        (void)snprintf(path, sizeof path, "model.layers.%d.mlp", l);
        fake_site(b, PEFT__SITE_STREAM, PEFT__ROLE_FFN, l, path, width, width, false, false);
    }
    fake_site(b, PEFT__SITE_HEAD, PEFT__ROLE_NONE, -1, "lm_head", width, 10, false, false);
}

/* Every parameter from its key: adapters with other options have the same values where they have the same keys. */
static inline void bn_shake(peft__adapter *a) {
    for (size_t i = 0; i < a->params.len; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        peft__rng rng = {peft__hash_str(3, p->p.name, strlen(p->p.name)), 0};
        for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(0.7 * peft__rng_normal(&rng)); }
    }
}

#endif
