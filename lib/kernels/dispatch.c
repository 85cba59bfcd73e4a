/* dispatch.c - the built kernel tables, and which of them this CPU can run.
 *
 * Tables are listed from the plainest to the best; "auto" is the last whose needs the CPU and the operating system meet,
 * but for "blas", which must be asked for. */
#include "kernels/arm/arm.h"
#include "kernels/blas.h"
#include "kernels/generic/generic.h"
#include "kernels/x86/x86.h"

static const peft__kernels *const dispatch_tables[] = {
    &peft__kernels_generic,
#ifdef PEFT__X86
    &peft__kernels_avx2,
#endif
#ifdef PEFT__AVX512
    &peft__kernels_avx512,
    &peft__kernels_avx512bf16,
#endif
#ifdef PEFT__NEON
    &peft__kernels_neon,
#endif
#ifdef PEFT__BLAS
    &peft__kernels_blas,
#endif
};

const peft__kernels *peft__kernels_at(size_t index) {
    return index < PEFT__COUNT(dispatch_tables) ? dispatch_tables[index] : NULL;
}

static bool dispatch_runs(const peft__kernels *k, uint32_t features) {
    return (k->needs & ~features) == 0;
}

/* "generic, avx2, ..." into buf; what does not fit is left out. */
static void dispatch_names(char *buf, size_t cap) {
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < PEFT__COUNT(dispatch_tables); i++) {
        const char *name = dispatch_tables[i]->name;
        const size_t len = strlen(name), gap = i > 0 ? 2 : 0;
        if (used + gap + len + 1 > cap) { return; }
        memcpy(buf + used, ", ", gap);
        memcpy(buf + used + gap, name, len + 1);
        used += gap + len;
    }
}

peft_status peft__kernels_find(const char *name, const peft__kernels **out) {
    const uint32_t features = peft__cpu_features();
    if (strcmp(name, "auto") == 0) {
        for (size_t i = PEFT__COUNT(dispatch_tables); i-- > 0;) {
            if (!dispatch_tables[i]->blas && dispatch_runs(dispatch_tables[i], features)) {
                *out = dispatch_tables[i];
                return PEFT_OK;
            }
        }
    }
    for (size_t i = 0; i < PEFT__COUNT(dispatch_tables); i++) {
        if (strcmp(name, dispatch_tables[i]->name) != 0) { continue; }
        if (!dispatch_runs(dispatch_tables[i], features)) {
            return peft__fail(PEFT_E_UNSUPPORTED, "this CPU does not have the instructions of the kernels \"%s\"",
                              name);
        }
#ifdef PEFT__BLAS
        if (dispatch_tables[i]->blas) { peft__blas_prepare(); }
#endif
        *out = dispatch_tables[i];
        return PEFT_OK;
    }
    char known[128];
    dispatch_names(known, sizeof known);
    return peft__fail(PEFT_E_UNSUPPORTED, "unknown kernels \"%s\": expected auto or one of %s", name, known);
}
