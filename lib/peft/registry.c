/* registry.c - the methods that this library has. A new one is a line here and a file of its own; a minimal build has LoRA. */
#include "peft/method.h"

static const peft__method *const registry_methods[] = {
    &peft__method_lora,
#ifndef PEFT_MINIMAL
    &peft__method_full,
    &peft__method_trainable_tokens,
    &peft__method_dora,
    &peft__method_lora_fa,
    &peft__method_adalora,
    &peft__method_vera,
    &peft__method_loha,
    &peft__method_lokr,
    &peft__method_oft,
    &peft__method_boft,
    &peft__method_ia3,
    &peft__method_ln_tuning,
    &peft__method_bitfit,
    &peft__method_head,
    &peft__method_houlsby,
    &peft__method_pfeiffer,
    &peft__method_parallel,
    &peft__method_houlsby_inv,
    &peft__method_pfeiffer_inv,
    &peft__method_compacter,
    &peft__method_compacterpp,
    &peft__method_prompt,
    &peft__method_multitask_prompt,
    &peft__method_ptuning,
    &peft__method_prefix,
    &peft__method_ptuning_v2,
    &peft__method_prefix_tuning,
    &peft__method_lora_hub,
    &peft__method_mam,
    &peft__method_unipelt,
    &peft__method_union,
    &peft__method_fusion,
#endif
};

const peft__method *peft__method_at(size_t index) {
    return index < PEFT__COUNT(registry_methods) ? registry_methods[index] : NULL;
}

const peft__method *peft__method_find(const char *name) {
    for (size_t i = 0; i < PEFT__COUNT(registry_methods); i++) {
        if (strcmp(registry_methods[i]->name, name) == 0) { return registry_methods[i]; }
    }
    return NULL;
}
