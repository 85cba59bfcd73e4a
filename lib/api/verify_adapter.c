/* verify_adapter.c - looks for what is wrong in an adapter: its files by themselves (peft/check_files.c), then loaded into its base,
 * with one pass through both.
 *
 * Left out: what a base's own files would say; the check of a model does that. */
#include "api/verify.h"

static peft_status verify_adapter_base(peft__verify *v, const char *path) {
    peft_status st = PEFT_OK;
    struct peft_adapters *set = NULL;
    peft__adapter *made = NULL;
    peft__base_info base = peft__base_of_model(v->base);
    TRY(peft__set_create(v->ctx, &base, &set));
    st = peft__adapters_read(set, "checked", path, true, &made); /* values that are no numbers have been named already */
    if (st == PEFT_OK) {
        TRY(peft__set_add(set, made, false));
        made = NULL;
        TRY(peft__verify_forward(v, path, v->base, set, "checked"));
    } else {
        TRY(peft__finding_failed(&v->f, st, path, ""));
        st = PEFT_OK;
    }
out:
    peft__adapter_release(made);
    peft__set_release(set);
    return st;
}

peft_status peft__verify_adapter(peft__verify *v, const char *path, bool gguf) {
    peft_status st = PEFT_OK;
    peft__adapter_checked seen = {0};
    peft__json_out j;
    v->kind = "adapter";
    TRY(gguf ? peft__adapter_check_gguf(&v->ctx->mem, v->ctx->kernels, path, v->weights, &v->f, &seen)
             : peft__adapter_check_hf(&v->ctx->mem, v->ctx->kernels, path, v->weights, &v->f, &seen));
    v->tensors += seen.tensors;
    v->values += seen.values;
    peft__json_begin(&j, &v->about, 0);
    peft__json_object(&j);
    peft__json_key(&j, "method");
    peft__json_put_text(&j, seen.method);
    peft__json_key(&j, "parameters");
    peft__json_put_int(&j, seen.values);
    peft__json_key(&j, "base");
    peft__json_put_text(&j, v->base != NULL ? v->base->path : NULL);
    peft__json_object_end(&j);
    if (v->base != NULL && seen.method != NULL) { TRY(verify_adapter_base(v, path)); }
out:
    return st;
}
