/* registry.c - the architectures that are built in, and which of them a file is of. */
#include <stdio.h>

#include "model/parts.h"

#define ARCH_ENTRY(name) &peft__arch_##name,
static const peft__arch *const arch_list[] = {PEFT__ARCHITECTURES(ARCH_ENTRY)};

const peft__arch *peft__arch_at(size_t index) { return index < PEFT__COUNT(arch_list) ? arch_list[index] : NULL; }

/* "llama", "mistral", ... of all architectures, for errors. */
static void arch_names(bool gguf, char out[512]) {
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < PEFT__COUNT(arch_list); i++) {
        const char *const *n = gguf ? arch_list[i]->gguf_archs : arch_list[i]->model_types;
        for (; *n != NULL && len < 440; n++) {
            int w = snprintf(out + len, 512 - len, "%s\"%s\"", len > 0 ? ", " : "", *n);
            len += w > 0 ? (size_t)w : 0;
        }
    }
}

static const peft__arch *arch_find(const char *name, bool gguf, size_t *type) {
    for (size_t i = 0; i < PEFT__COUNT(arch_list); i++) {
        const char *const *n = gguf ? arch_list[i]->gguf_archs : arch_list[i]->model_types;
        for (size_t k = 0; n[k] != NULL; k++) {
            if (strcmp(n[k], name) == 0) {
                *type = k;
                return arch_list[i];
            }
        }
    }
    return NULL;
}

peft_status peft__arch_of_config(const peft__json *config, const char *what, const peft__arch **out, size_t *type) {
    char names[512];
    const char *name = NULL;
    peft_status st = PEFT_OK;
    arch_names(false, names);
    if (config->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: not a JSON object", what); }
    TRY(peft__json_str(config, what, "model_type", NULL, &name));
    if (name == NULL) { FAIL(PEFT_E_FORMAT, "%s: key \"model_type\" is missing, expected one of %s", what, names); }
    *out = arch_find(name, false, type);
    if (*out == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: model_type \"%s\" is not supported" PEFT__OF_BUILD ", expected one of %s", what, name, names);
    }
    const peft__json *quantised = peft__json_find(config, "quantization_config");
    if (quantised != NULL) {
        const char *method = NULL;
        TRY(peft__json_str(quantised, what, "quant_method", "?", &method));
        FAIL(PEFT_E_UNSUPPORTED, "%s: weights quantised by \"%s\" are not supported, only plain ones; take a GGUF file",
             what, method);
    }
out:
    return st;
}

peft_status peft__arch_of_gguf(const peft__gguf *g, peft__arena *a, const peft__arch **out) {
    char names[512];
    const char *name = NULL, *type = NULL;
    size_t at;
    peft_status st = PEFT_OK;
    arch_names(true, names);
    TRY(peft__gguf_text(g, "general.type", a, "model", &type));
    if (strcmp(type, "model") != 0) {
        FAIL(PEFT_E_FORMAT, "key \"general.type\" is \"%s\", expected \"model\"", type);
    }
    TRY(peft__gguf_text(g, "general.architecture", a, NULL, &name));
    if (name == NULL) {
        FAIL(PEFT_E_FORMAT, "key \"general.architecture\" is missing, expected one of %s", names);
    }
    *out = arch_find(name, true, &at);
    if (*out == NULL) {
        FAIL(PEFT_E_UNSUPPORTED, "general.architecture \"%s\" is not supported, expected one of %s", name, names);
    }
out:
    return st;
}

const char *peft__arch_gguf_name(const peft__arch *arch, const peft__config *c) {
    return arch->gguf_arch != NULL ? arch->gguf_arch(c) : arch->gguf_archs[0];
}
