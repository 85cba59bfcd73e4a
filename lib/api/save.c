/* save.c - peft_adapters_save: an adapter as Hugging Face PEFT, AdapterHub's library or llama.cpp reads it.
 *
 * By itself each method has one format; a format that is asked for and cannot hold the adapter is an error, never an
 * approximation. Left out: the formats (peft/). */
#include "api/api.h"

static bool save_is(const char *format, const char *name) { return strcmp(format, name) == 0; }

/* The adapter of method `name` that is the same; *out NULL: it is one itself. Files of LoRA's variants are LoRA's. */
static peft_status save_as(const peft__adapter *a, const char *name, peft__adapter **out) {
    peft_status st = PEFT_OK;
    const peft__method *wanted = peft__method_find(name);
    *out = NULL;
    if (name[0] == '\0' || a->method == wanted) { return PEFT_OK; }
    if (wanted != NULL && a->method->hf_type != NULL && wanted->hf_type != NULL && strcmp(a->method->hf_type, wanted->hf_type) == 0) {
        return PEFT_OK;
    }
    if (a->method->simplify != NULL) { TRY(a->method->simplify(a, out)); }
    if (*out == NULL || (*out)->method != wanted) {
        peft__adapter_release(*out);
        *out = NULL;
        FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\" of method \"%s\" is not exactly one of method \"%s\"", a->name, a->method->name, name);
    }
out:
    return st;
}

static peft_status save_hub(const peft__adapter *a, const char *path) {
    peft__adapter *hub = NULL;
    if (a->method->hub) { return peft__adapter_save_hf(a, path); }
    if (a->method->to_hub != NULL) {
        peft_status st = a->method->to_hub(a, &hub);
        if (st == PEFT_OK) { st = peft__adapter_save_hf(hub, path); }
        peft__adapter_release(hub);
        return st;
    }
    return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" is not written as a folder of AdapterHub's library", a->name,
                      a->method->name);
}

static peft_status save_gguf(const peft__adapter *a, const char *path) {
    peft_status st = PEFT_OK;
    peft__adapter *lora = NULL;
    if (a->method->low_rank == NULL && a->method->simplify != NULL) { TRY(a->method->simplify(a, &lora)); }
    TRY(peft__adapter_save_gguf(lora != NULL && lora->method->low_rank != NULL ? lora : a, path));
out:
    peft__adapter_release(lora);
    return st;
}

static peft_status save_adapter(const peft__adapter *a, const char *format, const char *path) {
    if (save_is(format, "gguf")) { return save_gguf(a, path); }
    if (save_is(format, "adapterhub")) { return save_hub(a, path); }
    if (save_is(format, "hf") && a->method->hf_type == NULL) {
        return peft__fail(PEFT_E_UNSUPPORTED, "adapter \"%s\": Hugging Face PEFT has no adapters of method \"%s\"", a->name,
                          a->method->name);
    }
    return peft__adapter_save_hf(a, path);
}

peft_status peft_adapters_save(const peft_adapters *a, const char *name, const char *path, const peft_options *options) {
    peft_status st = PEFT_OK;
    peft__optset own = {0};
    const peft__optset *o = NULL;
    peft__adapter *pinned = NULL, *other = NULL;
    peft__expression e = {0};
    int32_t dtype = -1;
    TRY(peft__check_handle(a, PEFT__MAGIC_ADAPTERS, "adapters"));
    TRY(peft__check_text(name, "name"));
    TRY(peft__check_text(path, "path"));
    TRY(peft__pick_options(options, &a->ctx->mem, &peft__schema_save, &own, &o));
    TRY(peft__dtype_option(o, &dtype));
    TRY(peft__set_pin((peft_adapters *)(uintptr_t)a, name, &pinned));
    const char *format = peft__opt_str(o, "format");
    size_t len = strlen(path);
    bool file = len > 5 && strcmp(path + len - 5, ".gguf") == 0;
    if (format[0] == '\0' && file) { format = "gguf"; }
    if (pinned->method->whole_model) {
        if (save_is(format, "adapterhub") || peft__opt_str(o, "method")[0] != '\0') {
            FAIL(PEFT_E_UNSUPPORTED, "adapter \"%s\": method \"%s\" is saved as a model, not as an adapter", name, pinned->method->name);
        }
        TRY(peft__expression_of(&e, &a->ctx->mem, &pinned, 1));
        TRY(peft__merge_write(a->base.owner, &e, dtype, save_is(format, "gguf"), path));
        goto out;
    }
    if (dtype >= 0 && dtype != PEFT_DTYPE_F32) {
        FAIL(PEFT_E_UNSUPPORTED, "an adapter of method \"%s\" is saved as float32 only", pinned->method->name);
    }
    TRY(save_as(pinned, peft__opt_str(o, "method"), &other));
    TRY(save_adapter(other != NULL ? other : pinned, format, path));
out:
    peft__expression_free(&e);
    peft__adapter_release(other);
    peft__adapter_release(pinned);
    peft__optset_free(&own);
    return st;
}
