/* peft.h - libpeft, parameter-efficient fine-tuning of transformers inside a program.
 *
 * This is the only header that an application includes, and it reads as the manual. In a minute:
 *
 *     peft_context_create -> peft_model_open -> peft_adapters_create -> peft_adapters_add("a", "lora", options)
 *       -> peft_trainer_create -> peft_trainer_add_job -> peft_trainer_run -> peft_adapters_save
 *     peft_session_create -> peft_session_generate
 *
 * Conventions
 *   Status     Every call that can fail returns a peft_status: PEFT_OK (0) or a negative PEFT_E_*. The text of the
 *              thread's last error is peft_last_error(); it names the file, tensor, key or value and what was expected.
 *              A call that fails leaves every handle and file as it was. Any call may return PEFT_E_INVALID (NULL or the
 *              wrong kind of handle where one must be, text that is no UTF-8) and PEFT_E_NOMEM: functions list the others.
 *   Handles    Opaque and reference-counted inside: freeing a model that a set still uses only drops the caller's
 *              reference, so handles may be freed in any order. Freeing NULL is a no-op.
 *   Text       UTF-8. Names and paths are NUL-terminated; content is pointer and length.
 *   Buffers    Output of variable size is written by one rule, (buf, cap, *needed): *needed is always set (NULL is
 *              allowed), too small a buffer is PEFT_E_BUFFER, and buf may be NULL when cap is 0. Text counts its NUL.
 *   Results    A handle that a call makes is written to its last argument, NULL when it fails; the caller frees it.
 *   Pointers   A returned `const char *` lives as long as its handle, or for ever where it has none.
 *   Options    An options object is a set of (key, value) checked against one schema; functions copy what they need.
 *              NULL means all defaults. `peft_schema_json` lists keys, types, defaults, ranges and help.
 *   Callbacks  Run on the thread that called the library (parallel-for bodies and log excepted). They return 0 to go on;
 *              anything else ends the call with PEFT_E_CALLBACK. They must not unwind (no throw, panic, longjmp) through
 *              the library. Progress and token functions may use other handles; the one that is running answers
 *              PEFT_E_BUSY. All others (log, allocator, release, parallel-for) call callback-safe functions only.
 *   Threads    A context, a model and a tokenizer are immutable once made: use them from any number of threads. An adapter
 *              set may be read by many, changed by one at a time (it locks itself). A session, dataset, batch, options
 *              object or trainer is used by one thread at a time; peft_trainer_cancel and peft_session_cancel may be
 *              called from any. Different trainers and sessions of one model run at the same time; but while a trainer's call
 *              runs, no other call may use the adapters that it trains. A data set that a trainer has may be read by others.
 *   Marks      Each function's comment ends with them. [any thread]: from any number of threads at once; [one thread]: from
 *              one at a time for each handle; [locks]: from any, and the handle orders what changes it; [callback-safe]:
 *              also from within every callback; [since 0.1]: the first release that has it.
 *   Output     The library prints nothing, reads no environment variable, installs no signal handler, and never ends the
 *              process. What a file, an argument or a full disk can cause is a status. */
#ifndef PEFT_H
#define PEFT_H

#include <stddef.h>
#include <stdint.h>

#if defined(PEFT_STATIC)
#define PEFT_API
#elif defined(_WIN32)
#ifdef PEFT_BUILD
#define PEFT_API __declspec(dllexport)
#else
#define PEFT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define PEFT_API __attribute__((visibility("default")))
#else
#define PEFT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PEFT_VERSION_MAJOR 0
#define PEFT_VERSION_MINOR 1
#define PEFT_VERSION_PATCH 0

/* ==== Status ================================================================================================== */

typedef int32_t peft_status;

enum {
    PEFT_OK = 0,
    PEFT_E_INVALID = -1,     /* an argument that cannot be: NULL, negative, wrong kind of handle */
    PEFT_E_NOMEM = -2,       /* the allocator or the memory limit said no */
    PEFT_E_IO = -3,          /* the operating system said no; the text has its reason */
    PEFT_E_FORMAT = -4,      /* a file is damaged or not what it claims to be */
    PEFT_E_UNSUPPORTED = -5, /* a sound request or file that this version cannot serve; the text lists what it can */
    PEFT_E_NOT_FOUND = -6,   /* no such file, tensor, adapter, token or row */
    PEFT_E_EXISTS = -7,      /* the name is taken */
    PEFT_E_KEY = -8,         /* unknown option key (the text has the nearest) or value out of its range */
    PEFT_E_SHAPE = -9,       /* sizes that do not fit together, or a batch beyond the planned caps */
    PEFT_E_BUFFER = -10,     /* the caller's buffer is too small; *needed says how large */
    PEFT_E_BUSY = -11,       /* in use: a pinned adapter, a call from a callback that is not callback-safe */
    PEFT_E_CANCELLED = -12,  /* peft_*_cancel was called; the state is whole and can go on */
    PEFT_E_CALLBACK = -13,   /* a callback returned non-zero */
    PEFT_E_NUMERIC = -14,    /* NaN or infinity; the text says where it was first seen */
    PEFT_E_VERSION = -15,    /* a file of a newer version than this library reads */
    PEFT_E_INTERNAL = -16    /* a bug in libpeft: please report it */
};

/* Name of a status such as "PEFT_E_NOMEM"; "PEFT_E_?" for an unknown one, never NULL. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_status_name(peft_status status);
/* Text of the last error on the calling thread, one sentence; "" if there was none. Valid until that thread's next failing
 * call. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_last_error(void);

/* ==== Library ================================================================================================= */

/* Version of the library that runs: major << 16 | minor << 8 | patch. PEFT_VERSION_* is what a program was compiled against.
 * [any thread; callback-safe; since 0.1] */
PEFT_API uint32_t peft_version(void);
/* The same as text: "0.1.0". [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_version_string(void);
/* How the library was built, as words "key=value": "version=0.1.0 isa=generic,avx2,avx512 threads=futex minimal=no". [any
 * thread; callback-safe; since 0.1] */
PEFT_API const char *peft_build_info(void);
/* Methods that are built in, by index from 0: "lora", "full", ...; NULL past the end. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_method_name(size_t index);
/* Architectures, by index from 0: "llama", "gpt2", ...; NULL past the end. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_arch_name(size_t index);
/* Optimisers, by index from 0: "adamw", "sgd", "lion", ...; NULL past the end. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_optimizer_name(size_t index);
/* Option schemas, by index from 0: "trainer", "method:lora", "generate", ...; NULL past the end. [any thread; callback-safe;
 * since 0.1] */
PEFT_API const char *peft_schema_name(size_t index);

/* ==== Context: allocator, threads, instruction set, log ======================================================== */

typedef struct peft_context peft_context;

/* Where the library's memory comes from. `alloc` returns `size` bytes aligned to `align` (a power of two) or NULL;
 * `release` gets the same size back. Both are called from any thread that uses the context. This layout is frozen. */
typedef struct peft_allocator {
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*release)(void *user, void *p, size_t size);
    void *user;
} peft_allocator;

enum { PEFT_LOG_ERROR = 1, PEFT_LOG_WARN = 2, PEFT_LOG_INFO = 3, PEFT_LOG_DEBUG = 4 };
typedef void (*peft_log_fn)(void *user, int32_t level, const char *text);
/* A host's thread pool: calls body(arg, i, worker) once for each 0 <= i < n, from up to `workers` threads at a time,
 * each with its own 0 <= worker < workers, and returns when all have returned. */
typedef void (*peft_parallel_for_fn)(void *user, int64_t n, int32_t workers,
                                     void (*body)(void *arg, int64_t i, int32_t worker), void *arg);

/* Makes a context. alloc: where all its memory comes from, copied; NULL for malloc. It starts with as many threads as the
 * process has CPUs, the best instruction set and no log. PEFT_E_INVALID for an allocator without functions. [any thread;
 * since 0.1] */
PEFT_API peft_status peft_context_create(const peft_allocator *alloc, peft_context **out);
/* Drops the caller's reference; what was made with the context goes on. NULL is fine. [any thread; since 0.1] */
PEFT_API void peft_context_free(peft_context *ctx);
/* Threads of sessions and trainers made afterwards: 1 to 1024, 0 for one a CPU; no result depends on it. PEFT_E_INVALID for
 * other numbers. [one thread; since 0.1] */
PEFT_API peft_status peft_context_set_threads(peft_context *ctx, int32_t n);
/* How many threads are set; 0 for a NULL context. [any thread; since 0.1] */
PEFT_API int32_t peft_context_threads(const peft_context *ctx);
/* Runs the loops of sessions and trainers made afterwards on the host's threads (see peft_parallel_for_fn), `workers` being
 * the number of threads set; fn NULL: on the library's own. `user` must live as long as they do. [one thread; since 0.1] */
PEFT_API peft_status peft_context_set_parallel_for(peft_context *ctx, peft_parallel_for_fn fn, void *user);
/* Instruction set of sessions and trainers made afterwards: "generic", "avx2", "avx512", "avx512bf16" (the same, with the CPU's
 * bfloat16 for the option compute_dtype), "neon" (AArch64), or "auto" (the best that this CPU has, the default). A library built
 * with BLAS=... has "blas" as well, whose bits depend on the number of rows, and which "auto" never is. PEFT_E_UNSUPPORTED for
 * one that the CPU or the build lacks, naming those that there are. [one thread; since 0.1] */
PEFT_API peft_status peft_context_set_isa(peft_context *ctx, const char *name);
/* Name of the instruction set in use: "avx2"; NULL for a NULL context. [any thread; since 0.1] */
PEFT_API const char *peft_context_isa(const peft_context *ctx);
/* Sends messages of up to `level` to fn, from the thread that caused them; fn NULL (the default): silence. fn must be
 * callable from several threads at once. [one thread; since 0.1] */
PEFT_API peft_status peft_context_set_log(peft_context *ctx, int32_t level, peft_log_fn fn, void *user);
/* Bytes that the context's allocator has outstanding now and had at most; either may be NULL. Mapped model files are not in
 * it: see "resident_bytes" of peft_model_info_json. [any thread; callback-safe; since 0.1] */
PEFT_API void peft_context_memory(const peft_context *ctx, size_t *now, size_t *peak);
/* Lets the peak of peft_context_memory begin anew at what is outstanding. [any thread; since 0.1] */
PEFT_API void peft_context_memory_reset_peak(peft_context *ctx);

/* ==== Options ================================================================================================== */

typedef struct peft_options peft_options;

/* Makes a set of options with all defaults. schema: one of peft_schema_name; PEFT_E_KEY for another, naming the nearest.
 * [any thread; since 0.1] */
PEFT_API peft_status peft_options_create(peft_context *ctx, const char *schema, peft_options **out);
/* Frees the set; what was made with it keeps its values. NULL is fine. [one thread; since 0.1] */
PEFT_API void peft_options_free(peft_options *o);
/* Sets an integer, or a float by a whole number. PEFT_E_KEY for an unknown key (naming the nearest), another type or a value
 * out of range. The last value wins. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_int(peft_options *o, const char *key, int64_t value);
/* Sets a float. PEFT_E_KEY for an unknown key (naming the nearest), another type or a value out of range. The last value
 * wins. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_float(peft_options *o, const char *key, double value);
/* Sets a switch: 0 is false, anything else true. PEFT_E_KEY for an unknown key (naming the nearest), another type or a value
 * out of range. The last value wins. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_bool(peft_options *o, const char *key, int32_t value);
/* Sets a text; a list by its JSON text. PEFT_E_KEY for an unknown key (naming the nearest), another type or a value out of
 * range. The last value wins. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_str(peft_options *o, const char *key, const char *value);
/* Sets from text in the key's own type, as a command line would: "16", "true", "q_proj,v_proj", "1GiB". PEFT_E_KEY for an
 * unknown key (naming the nearest), another type or a value out of range. The last value wins. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_text(peft_options *o, const char *key, const char *text);
/* Sets every key of a JSON object, or none: PEFT_E_KEY as above for the first that cannot be, PEFT_E_FORMAT for a text that
 * is no JSON object. [one thread; since 0.1] */
PEFT_API peft_status peft_options_set_json(peft_options *o, const char *json, size_t len);
/* The whole set with defaults filled in, as one JSON object, by the buffer rule. [one thread; since 0.1] */
PEFT_API peft_status peft_options_get_json(const peft_options *o, char *buf, size_t cap, size_t *needed);
/* A schema as a JSON array of {"key","type","default","min","max","choices","help"}, by the buffer rule. PEFT_E_KEY for an
 * unknown schema. [any thread; callback-safe; since 0.1] */
PEFT_API peft_status peft_schema_json(const char *schema, char *buf, size_t cap, size_t *needed);

/* ==== Model ==================================================================================================== */

/* A frozen base: mapped from its file, in the types that the file has, never written. A mapped file is trusted not to
 * shrink while it is open; for storage that may change set load=copy. */
typedef struct peft_model peft_model;

/* Told that the caller's memory is no longer in use, once, on whichever thread dropped the last reference. */
typedef void (*peft_release_fn)(void *user);

/* Element types. Values are those of GGUF where it has the type. */
enum {
    PEFT_DTYPE_F32 = 0, PEFT_DTYPE_F16 = 1, PEFT_DTYPE_Q4_0 = 2, PEFT_DTYPE_Q4_1 = 3, PEFT_DTYPE_Q5_0 = 6,
    PEFT_DTYPE_Q5_1 = 7, PEFT_DTYPE_Q8_0 = 8, PEFT_DTYPE_Q4_K = 12, PEFT_DTYPE_Q5_K = 13, PEFT_DTYPE_Q6_K = 14,
    PEFT_DTYPE_BF16 = 30
};
/* Name of an element type: "F32"; "?" for an unknown one. [any thread; callback-safe; since 0.1] */
PEFT_API const char *peft_dtype_name(int32_t dtype);

/* Opens a Hugging Face folder (config.json with model.safetensors or its shards) or a GGUF file (v2, v3). options: schema
 * "model". Every tensor's presence, type and shape is checked; weights are read on use. PEFT_E_NOT_FOUND for a missing file
 * or tensor, PEFT_E_FORMAT, PEFT_E_SHAPE, PEFT_E_IO, PEFT_E_UNSUPPORTED for an architecture or element type that is not
 * built in. [any thread; since 0.1] */
PEFT_API peft_status peft_model_open(peft_context *ctx, const char *path, const peft_options *options, peft_model **out);
/* A model with seeded random weights from a Hugging Face config.json text: for tests and for training from scratch.
 * PEFT_E_FORMAT, PEFT_E_UNSUPPORTED as for a folder. [any thread; since 0.1] */
PEFT_API peft_status peft_model_create_random(peft_context *ctx, const char *config_json, size_t len, uint64_t seed,
                                              peft_model **out);
/* A model of n named tensors in the caller's memory (a state dict): config_json as in a Hugging Face folder; for tensor i
 * names[i], dtypes[i] (PEFT_DTYPE_*), ndims[i], dims[8*i ..] slowest first, and data[i], little-endian, of any alignment.
 * Tensors that the architecture does not use are ignored. options: schema "model"; load=copy copies the data, otherwise it
 * must stay unchanged until `release` (NULL: none) is called once with `user`: when the last handle that uses the model
 * goes, and in any case if the call fails. Errors as peft_model_open; PEFT_E_EXISTS for a name that comes twice. [any
 * thread; since 0.1] */
PEFT_API peft_status peft_model_create_from_tensors(peft_context *ctx, const char *config_json, size_t len,
                                                    const char *const *names, const int32_t *dtypes, const int32_t *ndims,
                                                    const int64_t *dims, const void *const *data, size_t n,
                                                    const peft_options *options, peft_release_fn release, void *user,
                                                    peft_model **out);
/* Drops the caller's reference. NULL is fine. [any thread; since 0.1] */
PEFT_API void peft_model_free(peft_model *m);
/* Name of the architecture: "llama"; NULL for a NULL model. [any thread; since 0.1] */
PEFT_API const char *peft_model_arch(const peft_model *m);
/* One JSON object: "kind", "architecture", sizes ("hidden_size", "num_hidden_layers", ...), "parameters", "dtypes", "bytes",
 * "resident_bytes" (of the mapping, now), "sites": [{"path","kind","in","out","dtype"}]. [any thread; since 0.1] */
PEFT_API peft_status peft_model_info_json(const peft_model *m, char *buf, size_t cap, size_t *needed);
/* The model's config in Hugging Face's keys, as JSON, by the buffer rule. [any thread; since 0.1] */
PEFT_API peft_status peft_model_config_json(const peft_model *m, char *buf, size_t cap, size_t *needed);
/* Number of tensors; tied ones count once. [any thread; since 0.1] */
PEFT_API size_t peft_model_tensor_count(const peft_model *m);
/* Name, PEFT_DTYPE_*, number of dimensions and sizes (slowest first) of tensor `index`, in Hugging Face's names and shapes
 * whatever the file was. Any output may be NULL. PEFT_E_NOT_FOUND past the end. [any thread; since 0.1] */
PEFT_API peft_status peft_model_tensor_info(const peft_model *m, size_t index, const char **name, int32_t *dtype,
                                            int32_t *ndim, int64_t dims[8]);
/* Reads a tensor as float, dequantised, row-major in the shape of peft_model_tensor_info; cap and needed count floats.
 * PEFT_E_NOT_FOUND for an unknown name. [any thread; since 0.1] */
PEFT_API peft_status peft_model_tensor_read(const peft_model *m, const char *name, float *buf, size_t cap, size_t *needed);

/* ==== Tokenizer ================================================================================================ */

typedef struct peft_tokenizer peft_tokenizer;

enum {
    PEFT_TOKENIZE_SPECIAL = 1, /* encode: recognise special tokens in the text; decode: write them */
    PEFT_TOKENIZE_BOS_EOS = 2  /* encode: add what the tokenizer's file says to add (BOS, EOS) */
};

/* Opens the tokenizer of a folder (tokenizer.json, a SentencePiece model, vocab.json + merges.txt or vocab.txt), one of these
 * files, or a GGUF file. PEFT_E_NOT_FOUND, PEFT_E_FORMAT, PEFT_E_IO, PEFT_E_UNSUPPORTED for a kind that is not built in.
 * [any thread; since 0.1] */
PEFT_API peft_status peft_tokenizer_open(peft_context *ctx, const char *path, peft_tokenizer **out);
/* Drops the caller's reference. NULL is fine. [any thread; since 0.1] */
PEFT_API void peft_tokenizer_free(peft_tokenizer *t);
/* Size of the vocabulary: ids are below it. [any thread; since 0.1] */
PEFT_API size_t peft_tokenizer_size(const peft_tokenizer *t);
/* Id of a token as the vocabulary spells it; -1: absent. [any thread; since 0.1] */
PEFT_API int32_t peft_tokenizer_token_id(const peft_tokenizer *t, const char *token);
/* Id of the token that begins a text; -1: none. [any thread; since 0.1] */
PEFT_API int32_t peft_tokenizer_bos_id(const peft_tokenizer *t);
/* Id of the token that ends a text; -1: none. [any thread; since 0.1] */
PEFT_API int32_t peft_tokenizer_eos_id(const peft_tokenizer *t);
/* Text to ids; cap and needed count ids. flags: PEFT_TOKENIZE_*. Any bytes are accepted; those that are no UTF-8 become byte
 * or unknown tokens. [any thread; since 0.1] */
PEFT_API peft_status peft_tokenizer_encode(const peft_tokenizer *t, const char *text, size_t len, int32_t flags,
                                           int32_t *ids, size_t cap, size_t *needed);
/* Ids to text; needed counts bytes without a NUL, none is written. An id out of range is PEFT_E_INVALID. [any thread; since
 * 0.1] */
PEFT_API peft_status peft_tokenizer_decode(const peft_tokenizer *t, const int32_t *ids, size_t n, int32_t flags,
                                           char *buf, size_t cap, size_t *needed);
/* Messages (a JSON array of {"role","content"}) as the model's chat format writes them, by the buffer rule;
 * add_generation_prompt non-zero appends what opens the assistant's turn. PEFT_E_FORMAT for other JSON, PEFT_E_UNSUPPORTED
 * for a template that is not among the recognised ones. [any thread; since 0.1] */
PEFT_API peft_status peft_tokenizer_chat(const peft_tokenizer *t, const char *messages_json, size_t len,
                                         int32_t add_generation_prompt, char *buf, size_t cap, size_t *needed);
/* {"kind","size","bos_id","eos_id","pad_id","pre_tokenizer","chat_template", ...}, by the buffer rule. [any thread; since
 * 0.1] */
PEFT_API peft_status peft_tokenizer_info_json(const peft_tokenizer *t, char *buf, size_t cap, size_t *needed);

/* ==== Adapters ================================================================================================= */

/* A set of named adapters over one model. Which of them act is said by the session, job or row, never set-wide. */
typedef struct peft_adapters peft_adapters;

/* Makes an empty set over a model, which it keeps. [any thread; since 0.1] */
PEFT_API peft_status peft_adapters_create(peft_model *m, peft_adapters **out);
/* Drops the caller's reference; sessions and trainers go on. NULL is fine. [any thread; since 0.1] */
PEFT_API void peft_adapters_free(peft_adapters *a);
/* Adds a fresh adapter. method: one of peft_method_name; options: schema "method:<method>"; seed fixes the initial values.
 * PEFT_E_EXISTS if the name is taken, PEFT_E_UNSUPPORTED for an unknown method (naming those that there are) and for what
 * the method cannot do on this model, PEFT_E_NOT_FOUND if no module matches a target. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_add(peft_adapters *a, const char *name, const char *method,
                                       const peft_options *options, uint64_t seed);
/* Gives an adapter that starts from a text (see "init_text" of peft_adapters_info_json) its initial values from these ids:
 * rows of the embedding (prompt, ptuning), or the keys and values that the base computes for them (prefix). Fewer ids than
 * virtual tokens are repeated. PEFT_E_NOT_FOUND for the name, PEFT_E_UNSUPPORTED for a method, or options, that do not;
 * before training only. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_init(peft_adapters *a, const char *name, const int32_t *ids, size_t n);
/* Adds an adapter from a folder of Hugging Face PEFT or of AdapterHub's library, or from a LoRA file of llama.cpp (GGUF).
 * options: schema "load"; with "replace" it takes the place of one of its name, with which sessions, rows and trainers that have it
 * go on. Missing, surplus or mis-shaped tensors are errors by name; so are pickles, which run code.
 * PEFT_E_EXISTS, PEFT_E_NOT_FOUND, PEFT_E_FORMAT, PEFT_E_SHAPE, PEFT_E_IO, PEFT_E_UNSUPPORTED. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_load(peft_adapters *a, const char *name, const char *path, const peft_options *options);
/* Writes an adapter as the library reads it that has its method: Hugging Face PEFT, or AdapterHub for bottleneck adapters;
 * "full" writes a model folder. Where path ends in ".gguf": as a LoRA file of llama.cpp. options: schema "save", whose
 * "format" asks for one of these; what it cannot hold is PEFT_E_UNSUPPORTED. Each file is replaced atomically.
 * PEFT_E_NOT_FOUND, PEFT_E_IO. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_save(const peft_adapters *a, const char *name, const char *path,
                                        const peft_options *options);
/* Adds the weighted combination of adapters of the set that `expression` names: "a:0.6, b:-0.4"; a name alone weighs 1. The
 * sources stay as they are. options: schema "combine" (type, svd_rank, density, ...); by default the sum of what the
 * adapters change, exactly. LoRA and IA3 combine as HF PEFT's add_weighted_adapter; type=average takes adapters of any one
 * method that have the same tensors. PEFT_E_EXISTS if `name` is taken, PEFT_E_NOT_FOUND for an unknown source, PEFT_E_SHAPE
 * where ranks or structures do not fit the type, PEFT_E_UNSUPPORTED for what has no sum. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_combine(peft_adapters *a, const char *name, const char *expression,
                                           const peft_options *options);
/* Removes an adapter. PEFT_E_NOT_FOUND; PEFT_E_BUSY while a session, a trainer or another adapter uses it. [locks; since
 * 0.1] */
PEFT_API peft_status peft_adapters_remove(peft_adapters *a, const char *name);
/* Number of adapters. [locks; since 0.1] */
PEFT_API size_t peft_adapters_count(const peft_adapters *a);
/* Name of an adapter by index from 0, in the order of addition; NULL past the end. Valid until it is removed or
 * replaced. [locks; since 0.1] */
PEFT_API const char *peft_adapters_name(const peft_adapters *a, size_t index);
/* {"name","method","parameters","bytes","sites":[...],"options":{...}} of one adapter, by the buffer rule; "init_text",
 * where it wants a text to start from that peft_adapters_init has to be given as ids. PEFT_E_NOT_FOUND. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_info_json(const peft_adapters *a, const char *name, char *buf, size_t cap, size_t *needed);
/* Number of an adapter's trainable tensors; 0 for an unknown name. [locks; since 0.1] */
PEFT_API size_t peft_adapters_tensor_count(const peft_adapters *a, const char *name);
/* Name, number of dimensions and sizes (slowest first) of tensor `index`, as in the Hugging Face file without
 * "base_model.model.". Any output may be NULL. Where parts of a union have one of the same name each (two heads, say), the name
 * alone means that of the last part. PEFT_E_NOT_FOUND for an unknown adapter or past the end. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_tensor_info(const peft_adapters *a, const char *name, size_t index,
                                               const char **tensor, int32_t *ndim, int64_t dims[8]);
/* Reads a tensor, row-major in its shape; cap and needed count floats. PEFT_E_NOT_FOUND. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_tensor_read(const peft_adapters *a, const char *name, const char *tensor,
                                               float *buf, size_t cap, size_t *needed);
/* Overwrites a tensor with n floats, row-major; sessions see it at their next call. Not while a call on another thread uses the
 * adapter. PEFT_E_NOT_FOUND; PEFT_E_SHAPE for another number of floats. [locks; since 0.1] */
PEFT_API peft_status peft_adapters_tensor_write(peft_adapters *a, const char *name, const char *tensor,
                                                const float *buf, size_t n);
/* Writes base plus adapters (an expression, as in peft_session_create) as a model: a Hugging Face folder, or a GGUF file
 * where path ends in ".gguf". options: schema "merge". A factor of -1 takes an adapter out of a model that it was merged
 * into. PEFT_E_UNSUPPORTED where the algebra has no merge or no such factor, and for blocks other than the stack. [locks;
 * since 0.1] */
PEFT_API peft_status peft_adapters_merge(const peft_adapters *a, const char *expression, const char *path,
                                         const peft_options *options);

/* ==== Batch: rows of every kind ================================================================================= */

/* Rows for a dataset, a forward pass or an accumulation, packed end to end. Keys hold one value a token ("input_ids",
 * "token_type_ids", "labels", "loss_weights"), or something of each row: "task_id": which task of a multitask_prompt;
 * "row_labels": a class of sequence_classification, -100 for none, or of an embedding 0 for an anchor, 1 for its positive, which
 * follows it, 2 for a negative of it; "targets": numbers of a regression, or a 0 or 1 for each of several labels; "spans": the
 * first and the last token of an answer, counted from the row's first, -1 and -1 for none; "jobs": which of a trainer's jobs it is
 * of, as they were added. For an encoder-decoder model
 * "source_ids" are what its encoder reads, as many rows of lengths of their own, and "input_ids" what its decoder does, from
 * decoder_start_token_id on; "labels" then say what is right at i. */
typedef struct peft_batch peft_batch;

/* Makes an empty batch. [any thread; since 0.1] */
PEFT_API peft_status peft_batch_create(peft_context *ctx, peft_batch **out);
/* Frees the batch. NULL is fine. [one thread; since 0.1] */
PEFT_API void peft_batch_free(peft_batch *b);
/* Takes all rows out and keeps the memory. [one thread; since 0.1] */
PEFT_API void peft_batch_clear(peft_batch *b);
/* Copies rows in: row r is data[row_offsets[r] .. row_offsets[r+1]), n_rows + 1 offsets from 0. "input_ids" first; "labels"
 * must have the same offsets, -100 marks a token without loss; label i is what the model must say at i, before the shift (as
 * in Hugging Face), in tasks without a next token what is right at i. Without "labels" every token but a row's first is one of a
 * causal_lm. What rows have as wholes: n_rows values, of "spans" twice as many; row_offsets NULL. PEFT_E_KEY for another key,
 * PEFT_E_SHAPE for offsets that do not fit. [one thread; since 0.1] */
PEFT_API peft_status peft_batch_set_i32(peft_batch *b, const char *key, const int32_t *data, const int64_t *row_offsets,
                                        size_t n_rows);
/* The same for numbers: "loss_weights", one a token, by which its loss is multiplied; "targets", as many a row of all rows, one
 * with row_offsets NULL. Errors as peft_batch_set_i32. [one thread; since 0.1] */
PEFT_API peft_status peft_batch_set_f32(peft_batch *b, const char *key, const float *data, const int64_t *row_offsets,
                                        size_t n_rows);
/* Number of rows. [one thread; since 0.1] */
PEFT_API size_t peft_batch_rows(const peft_batch *b);

/* ==== Dataset ================================================================================================== */

typedef struct peft_dataset peft_dataset;

/* Makes an empty data set. options: schema "dataset" (task, max_length, packing, prompt_template, verbalizer, ...). The tokenizer is
 * kept; NULL for rows of input_ids. PEFT_E_KEY where options exclude each other. [any thread; since 0.1] */
PEFT_API peft_status peft_dataset_create(peft_context *ctx, const peft_tokenizer *tokenizer, const peft_options *options,
                                         peft_dataset **out);
/* Drops the caller's reference; a trainer that uses the set keeps it. NULL is fine. [one thread; since 0.1] */
PEFT_API void peft_dataset_free(peft_dataset *d);
/* Adds rows from JSON Lines. The option "task" says which task they are for; unset, the fields of the first row do. All rows of a
 * set are of one task; masked_lm and seq2seq_lm need the option.
 *
 *   causal_lm                {"text"}, {"prompt","completion"}, {"messages"}, {"input_ids"[,"labels"]}, or any fields through the
 *                            templates of the options; {"text" or "prompt","label"} with the option verbalizer
 *   sequence_classification  {"text"[,"text_pair"],"label"}, {"input_ids"[,"token_type_ids"],"label"}: the label is a number, the
 *                            name of a class, or a list of either
 *   token_classification     {"tokens","labels"}: words, and a class number or name of each; {"input_ids","labels"}
 *   question_answering       {"question","context","answers":{"text":[],"answer_start":[]}}; long contexts become several rows
 *   embedding                {"anchor","positive"[,"negative"][,"score"]}
 *   masked_lm                {"text"}, {"input_ids"[,"labels"]}
 *   seq2seq_lm               {"source","target"}, {"input_ids","labels"}
 *
 * A bad row is PEFT_E_FORMAT naming file and line; then nothing is added. PEFT_E_UNSUPPORTED for packing of other rows than those
 * of causal_lm; PEFT_E_NOT_FOUND, PEFT_E_IO; PEFT_E_BUSY once a trainer uses the set. [one thread; since 0.1] */
PEFT_API peft_status peft_dataset_load_jsonl(peft_dataset *d, const char *path);
/* Adds one row given as the text of a JSON object, as in a line of the file. PEFT_E_FORMAT; PEFT_E_BUSY once a trainer uses
 * the set. [one thread; since 0.1] */
PEFT_API peft_status peft_dataset_add_json(peft_dataset *d, const char *json, size_t len);
/* Adds the rows of a batch, cut at max_length: rows of causal_lm, or with the option "task" of masked_lm or token_classification.
 * PEFT_E_UNSUPPORTED for other tasks and for what a set does not keep of a batch, as loss weights; PEFT_E_BUSY once a trainer uses
 * the set. [one thread; since 0.1] */
PEFT_API peft_status peft_dataset_add(peft_dataset *d, const peft_batch *rows);
/* Number of rows, after packing. [one thread; since 0.1] */
PEFT_API size_t peft_dataset_size(const peft_dataset *d);
/* One row as it is trained: its ids, and its labels (NULL: not wanted) before any shift, -100 for none; cap and needed count
 * tokens. Labels are those of tokens: a row with one label in all has -100 everywhere. An embedding's texts stand end to end, and of
 * seq2seq_lm these are the decoder's tokens. PEFT_E_NOT_FOUND past the end. [one thread; since 0.1] */
PEFT_API peft_status peft_dataset_row(const peft_dataset *d, size_t index, int32_t *ids, int32_t *labels, size_t cap,
                                      size_t *needed);
/* {"rows","tokens","labelled_tokens","max_length","truncated","task"}, by the buffer rule. "task" is null before the first row. Rows
 * with classes add "labels": their names, or how many their numbers tell of, or null for numbers that are no classes;
 * sequence_classification and question_answering "labelled_rows", question_answering "questions", seq2seq_lm "source_tokens" and
 * "max_source_length". [one thread; since 0.1] */
PEFT_API peft_status peft_dataset_info_json(const peft_dataset *d, char *buf, size_t cap, size_t *needed);

/* ==== Trainer ================================================================================================== */

typedef struct peft_trainer peft_trainer;

/* What a progress callback sees after each step. Owned by the library, valid during the call; grows at its end only:
 * a field may be read if struct_size reaches beyond it. */
typedef struct peft_step_info {
    size_t struct_size;
    int64_t step, max_steps;      /* optimiser steps done, and in all */
    double loss;                  /* mean over the step's labelled tokens, before its update */
    double learning_rate;
    double grad_norm;             /* before clipping */
    int64_t tokens;               /* tokens of the step */
    double tokens_per_second;     /* of the step */
    double seconds, eta_seconds;  /* since the run began, and to its end */
    size_t peak_bytes;            /* resident part of the base + peak of the context's allocator */
    double eval_loss;             /* NaN where the step was not followed by an evaluation */
    double epoch;
    const char *job;              /* adapter expression of the job */
} peft_step_info;
typedef int32_t (*peft_progress_fn)(void *user, const peft_step_info *info);

/* Values of some rows of a job in one pass, for a loss of the host's. Owned by the library, valid during the call; grows at its
 * end only. */
typedef struct peft_loss_chunk {
    size_t struct_size;
    const char *job;              /* adapter expression of the job */
    int64_t rows, columns;
    float *values;                /* [rows, columns]. In: logits of each token with a label; of other tasks what the head computes
                                     of each row or token. Out: the gradient of *loss by them */
    const int64_t *batch_rows;    /* [rows]: row of the pass; of a peft_batch its number there */
    const uint64_t *data_rows;    /* [rows]: which row of the data set it is, as it was loaded */
    const int64_t *tokens;        /* [rows]: token of that row, virtual ones counted */
    const int32_t *labels;        /* [rows]: what is right there (the next token of a causal_lm); -100: none */
} peft_loss_chunk;
/* Sets *loss, a sum over the chunk, and *weight, what the step's sum of losses is to be divided by for it (the number of rows before
 * the call). Return 0 to go on. */
typedef int32_t (*peft_loss_fn)(void *user, const peft_loss_chunk *chunk, double *loss, double *weight);
/* Adds up n floats over all processes of a run, in place, the same bits in each. Return 0 to go on. */
typedef int32_t (*peft_all_reduce_fn)(void *user, float *values, size_t n);

/* Makes a trainer over a set, which it keeps. options: schema "trainer". [any thread; since 0.1] */
PEFT_API peft_status peft_trainer_create(peft_adapters *a, const peft_options *options, peft_trainer **out);
/* Frees the trainer; the adapters keep what they learnt. NULL is fine. Inside the trainer's own callback it does nothing.
 * [one thread; since 0.1] */
PEFT_API void peft_trainer_free(peft_trainer *t);
/* Adds what is to be trained: an adapter by name or an expression (see peft_session_create), of which every adapter is
 * trained that freeze(...) does not hold and that is no part of a fusion; its data, and the optimiser that each of them gets
 * (schema "optimizer"; NULL: AdamW; an unset learning_rate is that of each one's method; gradients are clipped together).
 * eval may be NULL, and train for callers who own the loop. The trainer keeps references.
 *
 * Several jobs (16 at most) are trained at a time: a pass is one batch of rows of all of them, and each learns from its own, as
 * it would alone; an adapter that several jobs have learns from the rows of all. Schema "optimizer" also has a job's share of the
 * batch, its steps and when it stops early. A job whose numbers are not finite ends, and the others go on.
 *
 * PEFT_E_NOT_FOUND for a name; PEFT_E_SHAPE for rows that do not fit the model; PEFT_E_EXISTS for a job with the same expression;
 * PEFT_E_UNSUPPORTED for what cannot be trained together; PEFT_E_BUSY after the first step. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_add_job(peft_trainer *t, const char *adapter, peft_dataset *train, peft_dataset *eval,
                                          const peft_options *optimizer);
/* Calls fn after each step of a run, for each job, before what the step saves; NULL: nothing. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_set_progress(peft_trainer *t, peft_progress_fn fn, void *user);
/* Another loss than the task's in training: fn gets the values by chunks. Evaluation keeps the task's own. loss_weights,
 * label_smoothing and class_weights are then fn's business. NULL: the task's again. PEFT_E_UNSUPPORTED for a model whose logits are
 * capped (Gemma 2). [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_set_loss(peft_trainer *t, peft_loss_fn fn, void *user);
/* Makes the trainer one of `size` processes that train together, number `rank` from 0: each takes its part of every batch of
 * batch_size rows, and fn adds up their gradients before each update. All must have the same model, data, options and seed; all end
 * with the same adapters, bit for bit. Process 0 alone writes checkpoints during a run; any number of processes may go on from one.
 * size 1 and NULL: alone. PEFT_E_INVALID for a rank that is none; PEFT_E_BUSY after the first step. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_set_all_reduce(peft_trainer *t, int32_t rank, int32_t size, peft_all_reduce_fn fn, void *user);
/* What the run will need, before it runs: {"peak_bytes","activation_bytes","trainable_parameters","flops_per_step",
 * "segments":[{"segment","recomputed","kept_bytes"}], "jobs":[{"adapter","rows","max_steps","state","loss","eval_loss",...}],
 * ...}, by the buffer rule; "jobs" say how each stands at present. Makes the plan if there is none yet. With the option profile
 * also what has run so far: "profile":{"runs","seconds","ops":[{"op","phase","calls","seconds","flops","bytes"}]}.
 * PEFT_E_NOMEM if memory_limit cannot be kept. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_plan_json(peft_trainer *t, char *buf, size_t cap, size_t *needed);
/* Trains to the end, evaluating, logging and saving as the options say. PEFT_E_CANCELLED after peft_trainer_cancel,
 * PEFT_E_CALLBACK, PEFT_E_NUMERIC at a NaN or infinite loss (of several jobs: where all others are done): in all cases parameters
 * and optimiser are those of the last good step, and another call goes on from there. PEFT_E_IO where a checkpoint cannot be saved.
 * [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_run(peft_trainer *t);
/* One step of that run, with its evaluation, saving and progress call; the steps make the same bits as the run. *more: 1
 * while steps are left. Errors as peft_trainer_run. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_step(peft_trainer *t, int32_t *more);
/* For callers who own the loop: adds the gradients of a batch. *loss (NULL: not wanted): the mean over its labelled tokens, or
 * rows. PEFT_E_SHAPE for a batch beyond the planned caps, ids beyond the vocabulary and labels that the model has not,
 * PEFT_E_INVALID for a batch without what a loss of the model's task needs, PEFT_E_NUMERIC for a loss that is no number
 * (all gradients of the step are then dropped). [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_accumulate(peft_trainer *t, const peft_batch *batch, double *loss);
/* Clips and updates by the gradients accumulated so far, which are the mean over their labelled tokens or rows. PEFT_E_INVALID if
 * there are none, PEFT_E_NUMERIC for a gradient that is no number. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_apply(peft_trainer *t);
/* Gradient accumulated so far of one trainable tensor, in its shape; cap and needed count floats. PEFT_E_NOT_FOUND. [one
 * thread; since 0.1] */
PEFT_API peft_status peft_trainer_gradient_read(peft_trainer *t, const char *adapter, const char *tensor, float *buf,
                                                size_t cap, size_t *needed);
/* {"loss","perplexity","accuracy","tokens","rows"} of a data set under the trainer's adapters, by the buffer rule.
 * PEFT_E_SHAPE for rows that do not fit the model, PEFT_E_CANCELLED. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_evaluate(peft_trainer *t, peft_dataset *data, char *buf, size_t cap, size_t *needed);
/* Asks a run to stop after the present step, or an evaluation after the present batch. Async-signal-safe. [any thread;
 * callback-safe; since 0.1] */
PEFT_API void peft_trainer_cancel(peft_trainer *t);
/* Writes everything that a run needs to go on bit for bit: adapter, optimiser, schedule, data order, random state. The
 * folder is replaced atomically. PEFT_E_IO. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_checkpoint_save(peft_trainer *t, const char *path);
/* Reads what peft_trainer_checkpoint_save wrote. A trainer of another adapter or data is PEFT_E_SHAPE. PEFT_E_NOT_FOUND,
 * PEFT_E_FORMAT, PEFT_E_VERSION. [one thread; since 0.1] */
PEFT_API peft_status peft_trainer_checkpoint_load(peft_trainer *t, const char *path);

/* ==== Session: inference ======================================================================================= */

typedef struct peft_session peft_session;

/* Makes a session of a model with the adapters of set `a` that an expression names; both may be NULL: the base alone.
 * options: schema "session". The session keeps model, set and the adapters that it names.
 *
 * An expression names the adapters of a that act, and how together:
 *   "x", "x, y"              one, or one after the other: additive ones add up, a bottleneck reads what the one before made,
 *                            prompts and prefixes stand in this order
 *   "0.5 * x", "x:0.5"       its effect times a factor; 0 is off; LoRA's -1 takes it out
 *   stack(x, y)              the same as "x, y", inside of another block
 *   average(x:3, y:1)        the weighted mean of what each makes of the same input
 *   split(x:5, y)            x for the first 5 tokens of each row, y for the rest
 *   parallel(x, y)           every row once for each; logits come for one branch after the other
 *   batch_split(x:2, y:6)    the first 2 rows of a batch of 8 to x, the others to y
 *   fuse(x, y)               bottleneck adapters weighed by a trained fusion (method "fusion") of them
 *   freeze(x)                in jobs: x acts and is not trained
 * The name of a union stands for its parts, that of a fusion for fuse of its. PEFT_E_INVALID for mistakes in the text,
 * PEFT_E_NOT_FOUND for names, PEFT_E_UNSUPPORTED for what cannot act so (a factor of virtual tokens).
 * [any thread; since 0.1] */
PEFT_API peft_status peft_session_create(peft_model *m, peft_adapters *a, const char *expression,
                                         const peft_options *options, peft_session **out);
/* Frees the session. NULL is fine. Inside the session's own callback it does nothing. [one thread; since 0.1] */
PEFT_API void peft_session_free(peft_session *s);
/* Other adapters, or the same with other factors, from now on: a new expression over the set that the session was created
 * with (NULL or "": the base alone). What was cached is forgotten. On an error the session is as before. Errors as
 * peft_session_create. [one thread; since 0.1] */
PEFT_API peft_status peft_session_set_adapters(peft_session *s, const char *expression);
/* What the model's head gives of a batch, row-major; with a parallel block for one branch after the other. cap and needed count
 * floats. A language model: logits of every token, [tokens, vocabulary], the model's vocabulary and the tokens that adapters
 * add. token_classification: [tokens, labels]; question_answering: where the answer begins and ends, [tokens, 2];
 * sequence_classification: [rows, labels], of a regression its numbers; embedding: [rows, hidden_size]. PEFT_E_SHAPE for rows
 * that do not fit the session's max_length (rows of an encoder are not cut into passes of chunk tokens), PEFT_E_INVALID for
 * ids beyond the vocabulary and token types that the model has not. [one thread; since 0.1] */
PEFT_API peft_status peft_session_logits(peft_session *s, const peft_batch *batch, float *buf, size_t cap, size_t *needed);
/* {"loss","perplexity","accuracy","tokens","rows"} of a data set, by the buffer rule. PEFT_E_SHAPE for rows that do not fit
 * the model, PEFT_E_CANCELLED. [one thread; since 0.1] */
PEFT_API peft_status peft_session_evaluate(peft_session *s, const peft_dataset *data, char *buf, size_t cap, size_t *needed);
/* What the head computes for each row of a data set, in their order and one after the other, by the buffer rule (floats, with
 * whatever labels the rows have, or none): [rows, labels] for labels of rows, [texts, hidden_size] for embeddings (an anchor's
 * positive and negative follow it), [tokens, labels] for labels of tokens, [tokens, 2] for answers. The data stays the caller's.
 * PEFT_E_UNSUPPORTED for a language model, PEFT_E_INVALID for rows of another task, PEFT_E_SHAPE, PEFT_E_CANCELLED.
 * [one thread; since 0.1] */
PEFT_API peft_status peft_session_outputs(peft_session *s, const peft_dataset *data, float *buf, size_t cap, size_t *needed);
/* A token as it is chosen: its id and the text that it completes: whole UTF-8 characters, perhaps none, and as they are bytes of
 * which the model makes no character; NULL without a tokenizer. Return 0 to go on. */
typedef int32_t (*peft_token_fn)(void *user, int32_t id, const char *text, size_t len);
/* Continues ids until an end of sequence, a stop string, max_new_tokens or the session's max_length. An encoder-decoder model's
 * encoder reads the ids, and its decoder begins a text of its own. options: schema
 * "generate". tokenizer may be NULL: then there is no text and no stop string. fn (NULL: none) is called for each token. The
 * new ids are written by the buffer rule. PEFT_E_SHAPE for a prompt that fills max_length, PEFT_E_UNSUPPORTED for a
 * model whose task is neither causal_lm nor seq2seq_lm and for an expression that divides rows, PEFT_E_CANCELLED, PEFT_E_CALLBACK,
 * PEFT_E_NUMERIC. [one thread; since 0.1] */
PEFT_API peft_status peft_session_generate(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                           const peft_options *options, peft_token_fn fn, void *user, int32_t *out,
                                           size_t cap, size_t *needed);
/* The same from text to text: the prompt is encoded with its special tokens, after a BOS where the tokenizer adds one, for an
 * encoder as the tokenizer encodes any text; the result is written by the buffer rule, with its NUL. [one thread; since 0.1] */
PEFT_API peft_status peft_session_generate_text(peft_session *s, const peft_tokenizer *tokenizer, const char *prompt,
                                                size_t len, const peft_options *options, peft_token_fn fn, void *user,
                                                char *buf, size_t cap, size_t *needed);
/* Begins to continue ids as peft_session_generate does, for callers who ask for each token by peft_session_next; reads the
 * prompt. The tokenizer is kept. Any other pass through the session ends what was begun. Errors as peft_session_generate.
 * [one thread; since 0.1] */
PEFT_API peft_status peft_session_start(peft_session *s, const peft_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                        const peft_options *options);
/* The same from a text, encoded as by peft_session_generate_text. [one thread; since 0.1] */
PEFT_API peft_status peft_session_start_text(peft_session *s, const peft_tokenizer *tokenizer, const char *prompt, size_t len,
                                             const peft_options *options);
/* The next token: its id and the text that it completes (whole UTF-8 characters, perhaps none), by the buffer rule; after
 * PEFT_E_BUFFER the same comes again. *id is -1 when there are no more. The same ids and text as in one call. PEFT_E_INVALID
 * if nothing was begun, PEFT_E_CANCELLED (another call goes on), PEFT_E_NUMERIC. [one thread; since 0.1] */
PEFT_API peft_status peft_session_next(peft_session *s, int32_t *id, char *buf, size_t cap, size_t *needed);
/* What a row among others got. Later versions append fields. */
typedef struct peft_row_info {
    uint32_t struct_size;
    int32_t id;          /* the token that was chosen; -1: none */
    int64_t row;
    const char *text;    /* the text that it completes, as in peft_token_fn: whole UTF-8 characters, perhaps none; NULL: no tokenizer */
    size_t text_len;
    int32_t ended;       /* not 0: nothing comes after it, and the row is gone unless it is held */
    int32_t status;      /* PEFT_OK, or why the row ended without a token: PEFT_E_NUMERIC, its logits had a NaN or an infinity */
    const float *logits; /* [n_logits] what it was chosen by, repetitions penalised; NULL: nothing was */
    size_t n_logits;     /* the model's vocabulary, and the tokens that the row's adapters add */
} peft_row_info;
/* Called for each row that got something, rows in the order of addition. Return 0 to go on, else the row ends. The pointers are valid
 * during the call, in which the session may only be cancelled. */
typedef int32_t (*peft_row_fn)(void *user, const peft_row_info *info);
/* Adds a row to those that the session continues together, one pass of the base for all: with adapters of its own, an expression over
 * the session's set as in peft_session_create (NULL: the session's; "": none), which keep acting on it as they are now though one of
 * the name is loaded in its place. tokenizer (NULL: none) and options as for peft_session_generate, without beams; "hold": the row
 * stays after its end, so that rows which begin with the same tokens need not read these again. *row: its number, which no other row of
 * the session gets. A row's tokens are those that it gets alone. Errors as of both, and PEFT_E_BUSY while the session has as many rows
 * (64), or different expressions (32), as it can have. [one thread; since 0.1] */
PEFT_API peft_status peft_session_row_add(peft_session *s, const char *expression, const peft_tokenizer *tokenizer,
                                          const int32_t *ids, size_t n, const peft_options *options, int64_t *row);
/* The same from a text, encoded as by peft_session_generate_text. [one thread; since 0.1] */
PEFT_API peft_status peft_session_row_add_text(peft_session *s, const char *expression, const peft_tokenizer *tokenizer,
                                               const char *prompt, size_t len, const peft_options *options, int64_t *row);
/* Takes a row out; it gets nothing any more. PEFT_E_NOT_FOUND if it has ended. [one thread; since 0.1] */
PEFT_API peft_status peft_session_row_remove(peft_session *s, int64_t row);
/* Goes on with all rows by at most a token each: new rows are read, as many as fit a pass, and long prompts in parts, while others go
 * on. fn (NULL: none) gets what there is. *left (may be NULL): rows that have more to come. An error leaves the rows as they were, for
 * another call. PEFT_E_CANCELLED, PEFT_E_NOMEM. [one thread; since 0.1] */
PEFT_API peft_status peft_session_rows_next(peft_session *s, peft_row_fn fn, void *user, size_t *left);
/* Asks the call that is under way, or else the next one, to end with PEFT_E_CANCELLED. Async-signal-safe. [any thread;
 * callback-safe; since 0.1] */
PEFT_API void peft_session_cancel(peft_session *s);

/* ==== Files ==================================================================================================== */

/* What a path holds, in one JSON object with "kind": "model", "adapter", "tokenizer" or "data", by the buffer rule. For a
 * model as peft_model_info_json, for an adapter its config and tensors. PEFT_E_NOT_FOUND, PEFT_E_FORMAT, PEFT_E_IO. [any
 * thread; since 0.1] */
PEFT_API peft_status peft_inspect_json(peft_context *ctx, const char *path, char *buf, size_t cap, size_t *needed);
/* Verifies all that can be wrong in a model folder, GGUF file, tokenizer, adapter, data set (JSON Lines) or checkpoint, and goes on after
 * the first error: structure, shapes and ranges; every value of every tensor; the tokenizer against its vocabulary and the model;
 * special ids; an adapter against its config and, where `base` (NULL: none) is given, in its base; every row of data; one pass. One JSON
 * object by the buffer rule, with "kind", "ok", "error_count", "errors" (each with "code", "file", "where" and "message"),
 * "warning_count", "warnings", "checked" (what was looked at) and "about". Options of schema "check". What is wrong in the files is no
 * error of this function: PEFT_E_NOT_FOUND and PEFT_E_FORMAT for a path that is nothing of these. The files are read at every call, also
 * at one for the size. [any thread; since 0.1] */
PEFT_API peft_status peft_check_json(peft_context *ctx, const char *path, const peft_model *base, const peft_options *options, char *buf,
                                     size_t cap, size_t *needed);

#ifdef __cplusplus
}
#endif
#endif
