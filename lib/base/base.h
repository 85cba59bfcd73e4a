/* base.h - layer 0: errors, memory, containers, text, numbers, randomness, threads, CPU features and files.
 *
 * Everything above this folder allocates, fails, counts and opens files through here. It includes nothing of
 * ours but the public header, from which it takes status codes and callback types.
 *
 * Left out on purpose: floating-point kernels (kernels/), parsing of any format (io/), printing (nobody prints). */
#ifndef PEFT_BASE_H
#define PEFT_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "peft.h"

/* The arithmetic type of activations, parameters and generic kernels. The tests build the library once more in
 * double, so that every gradient can be checked against differences to 1e-7. */
#ifdef PEFT_DOUBLE
typedef double peft__real;
#else
typedef float peft__real;
#endif
#define PEFT__R(x) ((peft__real)(x))

#if defined(__MINGW32__) && !defined(__clang__) /* its plain "printf" is the old one of Microsoft's, without %zu */
#define PEFT__PRINTF(fmt, first) __attribute__((format(gnu_printf, fmt, first)))
#elif defined(__GNUC__)
#define PEFT__PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define PEFT__PRINTF(fmt, first)
#endif

/* A build of lib/minimal.txt only; and words for errors about what it does not have. */
#ifdef PEFT_MINIMAL
#define PEFT__MINIMAL  1
#define PEFT__OF_BUILD " in this minimal build"
#else
#define PEFT__MINIMAL  0
#define PEFT__OF_BUILD ""
#endif

#define PEFT__MIN(a, b) ((a) < (b) ? (a) : (b))
#define PEFT__MAX(a, b) ((a) > (b) ? (a) : (b))
#define PEFT__COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- status.c: one idiom for failure ----------------------------------------------------------------------------- */

/* Writes the text of the last error of this thread (truncated to 1 KiB, never allocates) and returns `code`. */
peft_status peft__fail(peft_status code, const char *fmt, ...) PEFT__PRINTF(2, 3);
/* Puts "<prefix>: " before the present text: the only way in which an upper layer may add which file it was. */
void peft__fail_prefix(const char *fmt, ...) PEFT__PRINTF(1, 2);
const char *peft__fail_text(void);

#define TRY(expr)                          \
    do {                                   \
        st = (expr);                       \
        if (st != PEFT_OK) { goto out; }   \
    } while (0)
#define FAIL(...)                          \
    do {                                   \
        st = peft__fail(__VA_ARGS__);      \
        goto out;                          \
    } while (0)

/* ---- mem.c: the context's allocator, with accounting ------------------------------------------------------------- */

typedef struct peft__mem {
    peft_allocator host;     /* where the bytes come from; never NULL functions */
    atomic_size_t now;       /* bytes outstanding */
    atomic_size_t peak;      /* largest `now` since creation or peft__mem_reset_peak */
    atomic_size_t calls;     /* allocations asked for since creation or peft__mem_fail_after */
    atomic_size_t fail_at;   /* test seam: the allocation with this number (1-based) fails; 0 = off */
    atomic_bool fail_more;   /* with fail_at: every later allocation fails too */
} peft__mem;

void peft__mem_init(peft__mem *mem, const peft_allocator *host /* NULL: malloc and free */);
/* The n-th allocation from now on fails, with `every` all after it as well; n = 0 switches that off. Resets `calls`. */
void peft__mem_fail_after(peft__mem *mem, size_t n, bool every);
void peft__mem_reset_peak(peft__mem *mem);
/* 64-byte aligned; NULL (and the error text set, PEFT_E_NOMEM) when it fails; size 0 gives a valid pointer.
 * Blocks of 4 MiB and more are aligned to 2 MiB and advised to use huge pages where the system has them. */
void *peft__alloc(peft__mem *mem, size_t size);
void *peft__alloc_zero(peft__mem *mem, size_t size);
void peft__free(peft__mem *mem, void *p, size_t size); /* NULL is fine; size must be the one asked for */
void *peft__realloc(peft__mem *mem, void *p, size_t old_size, size_t new_size); /* keeps p on failure */

/* Checked arithmetic for sizes that come from a file: false on overflow, *out untouched. */
bool peft__mul(size_t a, size_t b, size_t *out);
bool peft__add(size_t a, size_t b, size_t *out);

/* ---- arena.c: many small blocks that die together ---------------------------------------------------------------- */

typedef struct peft__arena {
    peft__mem *mem;      /* borrowed */
    struct peft__chunk *chunks; /* owned, newest first */
} peft__arena;

void peft__arena_init(peft__arena *a, peft__mem *mem);
void peft__arena_free(peft__arena *a);
void *peft__arena_alloc(peft__arena *a, size_t size);      /* zeroed, 16-byte aligned; NULL + text on failure */
char *peft__arena_strdup(peft__arena *a, const char *s, size_t len); /* NUL added */
char *peft__arena_printf(peft__arena *a, const char *fmt, ...) PEFT__PRINTF(2, 3);

/* ---- containers.c: str (growing bytes), vec (growing array), map (string -> int64) ------------------------------- */

typedef struct peft__str {
    peft__mem *mem;  /* borrowed */
    char *data;      /* owned, NUL-terminated once anything was put; "" semantics through peft__str_c */
    size_t len, cap; /* bytes used (without NUL) and reserved */
    bool failed;     /* an allocation failed: later puts are no-ops, peft__str_status tells */
} peft__str;

void peft__str_init(peft__str *s, peft__mem *mem);
void peft__str_free(peft__str *s);
void peft__str_clear(peft__str *s);
void peft__str_put(peft__str *s, const char *bytes, size_t len);
void peft__str_puts(peft__str *s, const char *text);
void peft__str_putc(peft__str *s, char c);
/* Integers and strings; floats go by peft__str_putd, which knows no locale. */
void peft__str_putf(peft__str *s, const char *fmt, ...) PEFT__PRINTF(2, 3);
void peft__str_putd(peft__str *s, double v, int32_t digits); /* locale-free, `digits` significant */
const char *peft__str_c(const peft__str *s);
peft_status peft__str_status(const peft__str *s);
/* Copies to a caller's buffer by the public header's rule: *needed always set (with NUL), PEFT_E_BUFFER if short. */
peft_status peft__copy_out(const char *text, size_t len, char *buf, size_t cap, size_t *needed);

typedef struct peft__vec {
    peft__mem *mem;   /* borrowed */
    void *data;       /* owned, elements of `elem` bytes */
    size_t len, cap;  /* elements used and reserved */
    size_t elem;      /* bytes of one element */
} peft__vec;

void peft__vec_init(peft__vec *v, peft__mem *mem, size_t elem);
void peft__vec_free(peft__vec *v);
peft_status peft__vec_push(peft__vec *v, const void *elem);
peft_status peft__vec_reserve(peft__vec *v, size_t n);
#define PEFT__VEC_AT(v, type, i) (((type *)(v)->data)[i])

typedef struct peft__map {
    peft__mem *mem;               /* borrowed */
    struct peft__map_slot *slots; /* owned; open addressing */
    size_t len, cap;              /* entries and slots (a power of two) */
} peft__map;

void peft__map_init(peft__map *m, peft__mem *mem);
void peft__map_free(peft__map *m);
/* Keys are borrowed: they must outlive the map. An existing key is PEFT_E_EXISTS and stays as it was. */
peft_status peft__map_put(peft__map *m, const char *key, size_t len, int64_t value);
int64_t peft__map_get(const peft__map *m, const char *key, size_t len); /* -1: absent */

/* ---- utf8.c ------------------------------------------------------------------------------------------------------ */

/* Reads one code point at s[0..len); returns its byte length (1-4), or 0 when the bytes are no valid UTF-8. */
size_t peft__utf8_read(const char *s, size_t len, uint32_t *cp);
size_t peft__utf8_write(uint32_t cp, char out[4]);
bool peft__utf8_valid(const char *s, size_t len);

/* ---- numbers.c: locale-free text <-> number ---------------------------------------------------------------------- */

bool peft__parse_i64(const char *s, size_t len, int64_t *out); /* whole text must be the number */
bool peft__parse_f64(const char *s, size_t len, double *out);  /* JSON grammar, correctly rounded, no inf/nan */
/* %g style with 1 to 17 significant digits; 17 means the shortest text that reads back equal. */
size_t peft__format_f64(double v, int32_t digits, char out[40]);

/* ---- rng.c: counter-based, so that any element can be drawn without the others ----------------------------------- */

/* Philox4x32-10 (Salmon et al. 2011): four words from a 128-bit counter and a 64-bit key. */
void peft__philox(uint64_t key, uint64_t ctr_hi, uint64_t ctr_lo, uint32_t out[4]);
uint64_t peft__mix64(uint64_t x);                       /* splitmix64's finaliser: a hash of a word */
uint64_t peft__hash_str(uint64_t seed, const char *s, size_t len);

typedef struct peft__rng { /* a stream: key and position are all of its state */
    uint64_t key, pos;
} peft__rng;
uint32_t peft__rng_u32(peft__rng *r);
uint64_t peft__rng_below(peft__rng *r, uint64_t n);     /* unbiased, 0 <= result < n */
double peft__rng_uniform(peft__rng *r);                 /* [0,1), 53 bits */
double peft__rng_normal(peft__rng *r);                  /* N(0,1), with own log and cos: same bits anywhere */

/* ---- threads.c: pool, mutex -------------------------------------------------------------------------------------- */

typedef void (*peft__task_fn)(void *arg, int64_t task, int32_t worker);
typedef struct peft__pool peft__pool;

#if defined(PEFT_NO_THREADS)
#define PEFT__THREADS_KIND "none"
#elif defined(_WIN32)
#define PEFT__THREADS_KIND "windows"
#elif defined(__linux__) && !defined(PEFT_NO_FUTEX)
#define PEFT__THREADS_KIND "futex"
#else
#define PEFT__THREADS_KIND "condvar"
#endif

/* A pool of n workers, the caller being worker 0; threads start at the first run with more than one task. They
 * spin about 0.1 ms, then sleep. Tasks are claimed one by one; the caller waits for claimed tasks only. */
peft_status peft__pool_create(peft__mem *mem, int32_t n, peft__pool **out);
void peft__pool_free(peft__pool *p);
int32_t peft__pool_size(const peft__pool *p);
void peft__pool_set_host(peft__pool *p, peft_parallel_for_fn fn, void *user); /* NULL: own threads */
void peft__pool_run(peft__pool *p, peft__task_fn fn, void *arg, int64_t tasks); /* not re-entrant from a task */

typedef struct peft__mutex peft__mutex;
peft_status peft__mutex_create(peft__mem *mem, peft__mutex **out);
void peft__mutex_free(peft__mem *mem, peft__mutex *m);
void peft__mutex_lock(peft__mutex *m);
void peft__mutex_unlock(peft__mutex *m);

/* ---- cpu.c ------------------------------------------------------------------------------------------------------- */

enum { /* bits of peft__cpu_features; those the operating system saves as well */
    PEFT__CPU_AVX2 = 1 << 0,        /* with FMA and F16C */
    PEFT__CPU_AVX512 = 1 << 1,      /* F, BW, VL, DQ */
    PEFT__CPU_AVX512_BF16 = 1 << 2,
    PEFT__CPU_AVX512_VNNI = 1 << 3,
    PEFT__CPU_NEON = 1 << 4,
};
uint32_t peft__cpu_features(void);
int32_t peft__cpu_count(void);      /* CPUs this process may use; of the system, as the next */
double peft__clock(void);           /* monotonic seconds */

/* ---- file.c: whole-file reading, mapping, atomic saving ---------------------------------------------------------- */

typedef struct peft__file {
    const uint8_t *data; /* the bytes; mapped, or owned when copied */
    size_t size;         /* bytes */
    bool mapped;         /* unmap rather than free */
    peft__mem *mem;      /* owner of a copy */
} peft__file;

bool peft__path_exists(const char *path);
bool peft__path_is_dir(const char *path);
bool peft__path_starts(const char *path, const void *bytes, size_t n); /* a file whose first n (at most 16) bytes these are */
peft_status peft__path_no_lfs_pointer(const char *path); /* PEFT_E_FORMAT where one is in place of the file */
bool peft__text_ends(const char *text, const char *tail);
const char *peft__path_name(const char *path); /* what follows the last separator; "" after one at the end */
peft_status peft__path_join(peft__arena *a, const char *dir, const char *name, char **out);
peft_status peft__dir_make(const char *path); /* with parents; existing is fine */
/* Opens read-only. `copy`: read into memory, for storage that may change under us. A directory, a missing or an
 * unreadable file is PEFT_E_IO / PEFT_E_NOT_FOUND naming the path. An empty file has size 0 and data "". */
peft_status peft__file_open(peft__mem *mem, const char *path, bool copy, peft__file *out);
void peft__file_close(peft__file *f);
size_t peft__file_resident(const peft__file *f); /* bytes of the mapping in memory now (mincore) */

/* What a test may put in place of the system, for the calling thread, to have a full disk or a failing device. Results
 * are the system's: -1 with errno on failure, a read or write may be short. NULL restores it; returns the former. */
typedef struct peft__file_ops {
    int64_t (*read)(int fd, void *data, size_t size);
    int64_t (*write)(int fd, const void *data, size_t size);
    int (*sync)(int fd);
    int (*rename)(const char *from, const char *to);
} peft__file_ops;
const peft__file_ops *peft__file_set_ops(const peft__file_ops *ops);

typedef struct peft__save peft__save; /* an atomic save: temporary sibling, fsync, rename, fsync of the folder */
peft_status peft__save_begin(peft__mem *mem, const char *path, peft__save **out);
peft_status peft__save_write(peft__save *s, const void *data, size_t size);
/* Frees s in any case. On failure the old file is untouched and there is no litter; only when the folder's fsync fails,
 * the new file is in place and may be the old one again after a crash. */
peft_status peft__save_commit(peft__save *s);
void peft__save_abort(peft__save *s);         /* NULL is fine */
peft_status peft__save_text(peft__mem *mem, const char *path, const char *text, size_t len);
peft_status peft__file_remove(const char *path);

/* ---- ctx.c: what every call needs -------------------------------------------------------------------------------- */

#define PEFT__MAGIC_CONTEXT 0x50435458U
#define PEFT__MAGIC_FREED 0xDEADF2EEU

/* The inside of peft_context, allocated by its own allocator as sizeof(struct peft_context). Reference-counted: handles
 * keep it alive. */
struct peft_context {
    uint32_t magic;                     /* PEFT__MAGIC_CONTEXT; poisoned on free */
    atomic_int refs;
    peft__mem mem;
    int32_t threads;                    /* workers of each trainer's and session's own pool */
    peft_parallel_for_fn parallel_for;  /* host pool; NULL: own threads */
    void *parallel_user;
    const struct peft__kernels *kernels; /* static table of the chosen instruction set */
    int32_t log_level;
    peft_log_fn log;                    /* NULL: silent */
    void *log_user;
};

void peft__log(const peft_context *ctx, int32_t level, const char *fmt, ...) PEFT__PRINTF(3, 4);
void peft__ctx_retain(peft_context *ctx);
void peft__ctx_release(peft_context *ctx);

#endif
