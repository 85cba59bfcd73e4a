/* library.c - status names, the last error, versions, and what is built in. */
#include "api/api.h"
#include "kernels/blas.h" /* which tables are built */

#define LIBRARY_TEXT_(x) #x
#define LIBRARY_TEXT(x)  LIBRARY_TEXT_(x)

const char *peft__status_name(peft_status status) {
    static const char *const names[] = {
        "PEFT_OK",          "PEFT_E_INVALID",     "PEFT_E_NOMEM",     "PEFT_E_IO",
        "PEFT_E_FORMAT",    "PEFT_E_UNSUPPORTED", "PEFT_E_NOT_FOUND", "PEFT_E_EXISTS",
        "PEFT_E_KEY",       "PEFT_E_SHAPE",       "PEFT_E_BUFFER",    "PEFT_E_BUSY",
        "PEFT_E_CANCELLED", "PEFT_E_CALLBACK",    "PEFT_E_NUMERIC",   "PEFT_E_VERSION",
        "PEFT_E_INTERNAL",
    };
    return status <= 0 && status > -(peft_status)PEFT__COUNT(names) ? names[-status] : "PEFT_E_?";
}

const char *peft_status_name(peft_status status) { return peft__status_name(status); }

const char *peft_last_error(void) {
    return peft__fail_text();
}

uint32_t peft_version(void) {
    return PEFT_VERSION_MAJOR << 16 | PEFT_VERSION_MINOR << 8 | PEFT_VERSION_PATCH;
}

const char *peft_version_string(void) {
    return LIBRARY_TEXT(PEFT_VERSION_MAJOR) "." LIBRARY_TEXT(PEFT_VERSION_MINOR) "." LIBRARY_TEXT(PEFT_VERSION_PATCH);
}

const char *peft_build_info(void) {
    return "version=" LIBRARY_TEXT(PEFT_VERSION_MAJOR) "." LIBRARY_TEXT(PEFT_VERSION_MINOR) "." LIBRARY_TEXT(PEFT_VERSION_PATCH)
           " isa=generic"
#ifdef PEFT__X86
           ",avx2"
#endif
#ifdef PEFT__AVX512
           ",avx512,avx512bf16"
#endif
#ifdef PEFT__NEON
           ",neon"
#endif
#ifdef PEFT__BLAS
           ",blas"
#endif
           " threads=" PEFT__THREADS_KIND
#ifdef PEFT_MINIMAL
           " minimal=yes";
#else
           " minimal=no";
#endif
}

const char *peft_method_name(size_t index) {
    const peft__method *m = peft__method_at(index);
    return m != NULL ? m->name : NULL;
}

const char *peft_arch_name(size_t index) {
    const peft__arch *a = peft__arch_at(index);
    return a != NULL ? a->name : NULL;
}

const char *peft_optimizer_name(size_t index) {
    const peft__optim_kind *k = peft__optim_at(index);
    return k != NULL ? k->name : NULL;
}

const char *peft_schema_name(size_t index) {
    const peft__schema *s = peft__schema_at(index);
    return s != NULL ? s->name : NULL;
}

const char *peft_dtype_name(int32_t dtype) {
    return peft__dtype_name(dtype);
}

#undef LIBRARY_TEXT
#undef LIBRARY_TEXT_
