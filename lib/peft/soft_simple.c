/* soft_simple.c - virtual tokens without what made them: an adapter whose encoder's result is all that the network reads, such as
 * P-tuning, is prompt tuning of that result. */
#include "peft/soft.h"

peft_status peft__soft_simplify(const peft__adapter *a, peft__adapter **out) {
    static const char *const kept[] = {"task_type", "base_model_name_or_path"};
    peft_status st = PEFT_OK;
    int64_t rows = 0, cols = 0;
    peft__optset opts = {0};
    peft__adapter *made = NULL;
    const peft__adapter_param *own = peft__adapter_find(a, "prompt_embeddings", NULL);
    TRY(a->method->bake(a, &rows, &cols, NULL));
    if (rows == 0 && own != NULL) { rows = own->p.rows; }
    TRY(peft__optset_init(&opts, a->mem, peft__method_prompt.schema));
    TRY(peft__opt_set_int(&opts, "num_virtual_tokens", rows / peft__soft_stacks(a)));
    TRY(peft__opt_set_int(&opts, "num_transformer_submodules", peft__soft_stacks(a)));
    TRY(peft__opt_set_str(&opts, "prompt_tuning_init", "RANDOM")); /* what it started from is not known to its files */
    for (size_t i = 0; i < PEFT__COUNT(kept); i++) { TRY(peft__opt_set_str(&opts, kept[i], peft__opt_str(&a->opts, kept[i]))); }
    TRY(peft__adapter_create_empty(a->mem, a->base, a->name, &peft__method_prompt, &opts, &made));
    const peft__param *to = &peft__adapter_find(made, "prompt_embeddings", NULL)->p;
    if (own != NULL) {
        memcpy(to->value, own->p.value, (size_t)(to->rows * to->cols) * sizeof *to->value);
    } else {
        TRY(a->method->bake(a, &rows, &cols, to->value));
    }
    *out = made;
    made = NULL;
out:
    peft__adapter_release(made);
    peft__optset_free(&opts);
    return st;
}
