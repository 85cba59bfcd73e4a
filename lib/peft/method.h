/* method.h - layer 4: adaptation methods and the adapters made of them.
 *
 * A method is one `static const` descriptor in one file: which sites it takes, which parameters it has there, how they start,
 * and the ops that it appends. It names no model. compose.c calls it at the sites; set.c owns the adapters; target.c says
 * which sites a pattern means; format_hf.c, merge.c read and write. Adding a method is one file and one line in registry.c. */
#ifndef PEFT_METHOD_H
#define PEFT_METHOD_H

#include "autograd/site.h"
#include "base/options.h"
#include "io/io.h"

struct peft_adapters;
struct peft__adapter;
struct peft__mix;

/* One trainable matrix that an adapter has. */
typedef struct peft__adapter_param {
    peft__param p;               /* name: HF key without "base_model.model."; value: into the adapter's flat vector; grad NULL */
    int32_t site;                /* site id; -1: of no site */
    int32_t slot;                /* which of the method's parameters at that site (lora: 0 A, 1 B, 2 bias) */
    int32_t ndim;                /* as saved: 1 to 4 */
    int64_t dims[4];             /* the same: [cols] or [rows, cols] unless peft__adapter_shape said otherwise */
    bool whole;                  /* stands in for a base tensor (bias, modules_to_save, full): saved by its plain name */
    bool frozen;                 /* has values and a file key, but no gradient and no optimiser state (VeRA's A) */
    bool unsaved;                /* frozen and made again from the options (init): not in the file */
    bool outer;                  /* of no module: the file has "base_model." before its name, not "base_model.model." */
} peft__adapter_param;

/* What a method does at one site. */
typedef struct peft__attachment {
    int32_t site;
    int32_t first, count;        /* its parameters: adapter->params[first .. first + count) */
    double scale;                /* alpha / r, ...; times what the expression says where the method is `proportional` */
    double strength;             /* merge: 1 puts it into the weight, -1 takes it out again; 1 everywhere else */
    int64_t rank;                /* of this site (of a bottleneck the width); 0: none */
    double dropout;
    uint64_t key;                /* of this site's dropout: hash of path */
    int32_t weight_param, bias_param; /* index in adapter->params of a trained copy of the site's weight or bias; -1 */
    bool product;                /* changes the site's product: a merged weight has to follow (merge, merge_bias) */
    int32_t rows_param;          /* index of a parameter whose rows stand in for those of `tokens` (tokens.c); -1 */
    const int32_t *tokens;       /* ids, one a row of it; in the adapter's arena */
} peft__attachment;

enum { PEFT__USER_SESSION = 0, PEFT__USER_JOB = 1, PEFT__USER_ROWS = 2, PEFT__USERS = 3 }; /* who pins adapters for long */

/* Virtual tokens: rows [n * tasks, C] in SPACE_FIXED; n stand before each row, those of the row's task (frame.row_tasks). */
typedef struct peft__prompt {
    peft__val rows;              /* PEFT__NONE: none */
    int64_t n, tasks;            /* tasks 1: the same for all rows */
    int64_t first, stride;       /* the n rows of the first task begin at `first`, those of others each `stride` later; 0: n */
} peft__prompt;

enum { PEFT__COMBINE_NONE = 0, PEFT__COMBINE_STACK = 1, PEFT__COMBINE_FUSE = 2 }; /* of an adapter's parts */

enum { PEFT__NEEDS_TOKENS = 1, PEFT__NEEDS_FORWARD = 2 };

/* What peft_adapters_init hands to a method: the ids of a text and, for PEFT__NEEDS_FORWARD, what the base makes of them. */
typedef struct peft__init_text {
    const int32_t *ids;
    int64_t n;
    peft__real *const *k, *const *v; /* [layers] -> [n, kv_dim]: keys (rotated) and values of each layer; NULL */
    int64_t kv_dim, layers;
} peft__init_text;

typedef struct peft__method {
    const char *name;            /* "lora" */
    const char *hf_type;         /* peft_type of its files: "LORA"; NULL: not saved as HF PEFT's folders are */
    const peft__schema *schema;  /* "method:lora" */
    bool whole_model;            /* saved as a model folder, not as an adapter (full) */
    bool alias;                  /* another name for the options of the method that reads hf_type's files (dora) */
    /* Adds attachments and parameters (peft__adapter_attach, _add_param); values come later. PEFT_E_NOT_FOUND if no site
     * matches. `opts` may be adjusted to what was resolved. */
    peft_status (*build)(struct peft__adapter *a);
    /* Fills the values of parameter i from its own stream of random numbers. */
    void (*init)(const struct peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k);
    /* Emitters; NULL: the base op. `a` is attached to s through `at`. */
    peft__val (*before)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                        peft__val x);                       /* changes a linear's input */
    peft__val (*after)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                       peft__val x, peft__val y);           /* adds to a linear's output */
    peft__val (*replace)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                         peft__val x);                      /* instead of the linear */
    peft__val (*stream)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                        peft__val h, peft__val residual);
    peft__val (*head)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                      peft__val x, peft__head_spec *spec);  /* may change spec; returns what the head reads, x or another */
    peft__val (*embed)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                       peft__val y, double scale);          /* changes the rows of a table that were read, times scale */
    peft__val (*input)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
                       peft__val x);                        /* changes the embeddings: [INPUT, C] at the INPUT site; at a
                                                               table of positions [TOKENS, C], which have them already */
    peft__prompt (*prompt)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t,
                           const peft__site *s);            /* virtual tokens before each row's own, at the INPUT site */
    /* A bottleneck's output before it is added: stream(h) = up + *inner. For blocks that weigh several (fusion): *query is what
     * the network read. NULL: the method's stream cannot be fused. */
    peft__val (*up)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                    peft__val residual, peft__val *query, peft__val *inner);
    /* combine FUSE: several outputs up[n] of the parts become one, at a STREAM site. query, inner: the last part's, as `up`. */
    peft__val (*fuse)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val h,
                      peft__val residual, peft__val query, peft__val inner, const peft__val *up, size_t n);
    void (*kv)(const struct peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s,
               peft__val x, peft__past *past);              /* keys and values that stand before each row's own; x: see site.h */
    /* Initial values from a text, where options ask for it: PEFT__NEEDS_*. from_text gets what was asked for. */
    uint32_t (*needs)(const struct peft__adapter *a);
    peft_status (*from_text)(struct peft__adapter *a, const peft__init_text *text, const peft__kernels *k);
    const char *(*text)(const struct peft__adapter *a);  /* the text that options name for it, or a neutral one; NULL: none */
    /* After init of all parameters: initial values that depend on several of them. Never called for an adapter from a file. */
    peft_status (*settle)(struct peft__adapter *a, const peft__kernels *k);
    /* How many of the first layers are without the adapter in training step `step` (frame.skip_layers); NULL: none. */
    int32_t (*skip_layers)(const struct peft__adapter *a, uint64_t seed, uint64_t step);
    int32_t combine;             /* PEFT__COMBINE_*: what an expression that names it means */
    bool reversible;             /* merge and merge_bias honour at->strength -1 (proportional methods any factor) */
    bool proportional;           /* its change is proportional to at->scale: a factor of the expression goes there */
    bool by_rows;                /* what it adds behind a projection can be computed for some rows of a batch alone (op.group) */
    /* Takes what its options name from the set into a->parts (retained), before the adapter is published. NULL: nothing. */
    peft_status (*refer)(struct peft__adapter *a, struct peft_adapters *set);
    const char *config_file, *tensors_file; /* names of its files; NULL: the usual ones */
    char *(*hub_name)(const struct peft__adapter *a, peft__arena *arena); /* its name in AdapterHub's files; NULL: its own */
    bool hub;                    /* saved as AdapterHub's library does (format_adapterhub.c) */
    const char *hub_architecture; /* "architecture" of its config there; NULL: a bottleneck's, which has none */
    /* Members of that "config" but architecture and leave_out, and back (root: the whole object). NULL: a bottleneck's. */
    peft_status (*hub_out)(const struct peft__adapter *a, peft__json_out *j);
    peft_status (*hub_in)(peft__optset *opts, const peft__json *root, const char *what);
    /* What is used in place of an adapter that was read; *out NULL: itself. */
    peft_status (*loaded)(const struct peft__adapter *a, struct peft__adapter **out);
    /* Makes the same adapter, exactly, as that library has it. NULL: it has none, or `hub`. */
    peft_status (*to_hub)(const struct peft__adapter *a, struct peft__adapter **out);
    bool prompt_keys;            /* keys in files as PEFT's prompt methods have them: see peft__adapter_file_key */
    /* Where an encoder's parameters make a table, which files hold as "prompt_embeddings" beside them: its shape, and its values
     * if out is not NULL. No rows: the parameters are the table (option "baked"). */
    peft_status (*bake)(const struct peft__adapter *a, int64_t *rows, int64_t *cols, peft__real *out);
    /* weight [out, in] becomes what it is with the adapter. at->strength -1: what it was before; other values where the algebra
     * allows (proportional methods see it in at->scale). PEFT_E_UNSUPPORTED otherwise. NULL: cannot be merged. */
    peft_status (*merge)(const struct peft__adapter *a, const peft__attachment *at, const peft__site *s,
                         const peft__run *run, peft__real *weight);
    /* bias[out]: the same for the site's bias; NULL: the method leaves biases alone. Called for attachments with `product`. */
    void (*merge_bias)(const struct peft__adapter *a, const peft__attachment *at, const peft__site *s, peft__real *bias);
    /* Factor of the learning rate of parameter i; NULL: 1 for all. */
    double (*rate)(const struct peft__adapter *a, size_t i);
    /* Turns gradients [n_trainable] into what the optimiser is to see, before an update; must be linear. NULL: as they are. */
    peft_status (*project)(const struct peft__adapter *a, peft__real *grads);
    /* Training beyond the loss of the labels (AdaLoRA, fusion). `state`: state_count reals that the trainer keeps for the job,
     * zero at first, and saves with its checkpoints. */
    int64_t (*state_count)(const struct peft__adapter *a); /* NULL: none */
    /* Adds weight times the gradient of a term of its own to grads [n_trainable], and the term's value to *loss. weight: what a
     * sum of losses is divided by later (labelled tokens), so that the term counts once a step. NULL: no term. */
    peft_status (*regularise)(const struct peft__adapter *a, const peft__run *run, double weight, peft__real *grads, double *loss);
    /* After the optimiser's step number `step` (from 1) of `total`; grads times gscale are the gradients of that step. */
    peft_status (*after_step)(struct peft__adapter *a, const peft__real *grads, double gscale, int64_t step, int64_t total,
                              peft__real *state);
    peft_status (*save)(const struct peft__adapter *a, const char *dir); /* in a form of its own; NULL: as the others */
    /* Makes what files hold in place of the adapter, if that is another one; else *out is NULL. */
    peft_status (*plain)(const struct peft__adapter *a, struct peft__adapter **out);
    /* Makes the same adapter, exactly, of a method that more programs know (VeRA: lora; P-tuning: prompt). NULL: there is none. */
    peft_status (*simplify)(const struct peft__adapter *a, struct peft__adapter **out);
    /* Makes a weighted combination of adapters that all have this function (combine.h). NULL: they can be averaged only. */
    peft_status (*mix)(const struct peft__mix *m, struct peft__adapter **out);
    /* LoRA: PEFT_OK if all that the adapter does is weight += at->scale B A at sites with a rank, slots PEFT__LORA_A and _B; else
     * an error that says what `what` cannot hold. NULL: no LoRA. */
    peft_status (*low_rank)(const struct peft__adapter *a, const char *what);
    /* adapter_config.json: writes the method's own keys / reads them into options. */
    void (*config_out)(const struct peft__adapter *a, peft__json_out *j);
    peft_status (*config_in)(peft__optset *opts, const peft__json *config, const char *what);
    double learning_rate;        /* the method's default: what an unset learning_rate means */
    double (*default_rate)(const struct peft__adapter *a); /* the same where it depends on options; NULL: learning_rate */
} peft__method;

extern const peft__method peft__method_lora, peft__method_full, peft__method_houlsby, peft__method_pfeiffer,
    peft__method_parallel, peft__method_houlsby_inv, peft__method_pfeiffer_inv, peft__method_compacter,
    peft__method_compacterpp;
extern const peft__method peft__method_multitask_prompt;
extern const peft__method peft__method_fusion, peft__method_union;
extern const peft__method peft__method_prompt, peft__method_ptuning, peft__method_prefix, peft__method_ptuning_v2;
extern const peft__method peft__method_ia3, peft__method_ln_tuning, peft__method_bitfit, peft__method_head, peft__method_dora,
    peft__method_lora_fa, peft__method_vera, peft__method_loha, peft__method_lokr;
extern const peft__method peft__method_adalora;
extern const peft__method peft__method_prefix_tuning, peft__method_lora_hub, peft__method_mam, peft__method_unipelt;
extern const peft__method peft__method_trainable_tokens;
extern const peft__method peft__method_oft, peft__method_boft;
const peft__method *peft__method_at(size_t index); /* NULL past the end */
const peft__method *peft__method_find(const char *name);

/* What peft/ needs to know of the base, copied from the model by api/ (peft never includes model/). Borrowed, immutable. */
typedef struct peft__base_info {
    const peft__site *sites;
    size_t n_sites;
    const char *architecture, *model_type, *path; /* "llama"; config.json's model_type; where it came from */
    struct peft_adapters *set;    /* whose base it is; NULL: of none */
    const char *config_json;      /* Hugging Face config.json text */
    const peft__task *task;       /* what the base is asked for; NULL: the next token */
    const char *model_class;      /* transformers' class of the base with its head */
    int64_t parameters;
    void (*retain)(void *owner);  /* of the model's reference */
    void (*release)(void *owner);
    void *owner;                  /* the model */
    /* every tensor of the base, for full fine-tuning and bias="all": HF name, weight, [1, n] for vectors; site that uses it */
    size_t n_tensors;
    const peft__weight *(*tensor)(void *owner, size_t index, int32_t *ndim);
    /* the same tensor's name in GGUF files, and the head size if they have its rows in pair order, else 0; NULL: no such name */
    const char *(*gguf_name)(void *owner, size_t index, int32_t *interleave);
    const char *gguf_architecture; /* general.architecture of the base as a GGUF file */
} peft__base_info;

/* An adapter: structure immutable once published, values written by its trainer only. Reference-counted. */
typedef struct peft__adapter {
    atomic_int refs;             /* the set's own, and one a trainer or session that pins it */
    atomic_int users[PEFT__USERS]; /* of these, by what they are: for whoever wants to remove it */
    peft__mem *mem;              /* borrowed from the context */
    peft__arena arena;           /* names, attachments */
    const char *name;
    const peft__method *method;
    const peft__base_info *base; /* borrowed from the set, which the model outlives */
    peft__optset opts;           /* schema of the method */
    peft__vec attachments;       /* of peft__attachment */
    peft__vec params;            /* of peft__adapter_param; trainable ones first, in one stretch of `values` */
    peft__real *values;          /* owned, flat; 64-byte aligned */
    int64_t n_values, n_trainable; /* reals in all, and in the trainable stretch at its start */
    uint64_t seed;
    const char *file_name;       /* while it is read from an AdapterHub folder: its name there; else NULL */
    bool heads;                  /* it trains and keeps the head of the base's task */
    bool from_file;              /* names of its options that match nothing are no error: the file's tensors say what there is */
    peft__real *shared;          /* scratch of the method, or NULL */
    int64_t new_tokens;          /* ids after the base's vocabulary that exist with it only (tokens.c) */
    struct peft__tokens *tokens; /* rows of tokens that it trains (tokens.h), in the arena; NULL: none */
    peft__vec parts;             /* of struct peft__adapter *, each with a reference: of a union or a fusion */
    bool bent;                   /* its change is not proportional to at->scale although the method's is (DoRA) */
    const peft__kernels *kernels; /* while it is made: NULL if a file will give the values */
} peft__adapter;

/* For methods, during build. Sizes are checked; params get their places in `values` when build is over. */
peft_status peft__adapter_attach(peft__adapter *a, const peft__site *s, peft__attachment **out);
peft_status peft__adapter_add_param(peft__adapter *a, peft__attachment *at, const char *key, int32_t slot, int64_t rows,
                                    int64_t cols, int32_t ndim, bool whole, bool frozen);
/* Does a factor of at->scale multiply all that the adapter changes? */
bool peft__adapter_proportional(const peft__adapter *a);
/* Parts whose parameters are the adapter's own: not those of a fusion. */
static inline size_t peft__adapter_own_parts(const peft__adapter *a) {
    return a->method->combine == PEFT__COMBINE_STACK ? a->parts.len : 0;
}
/* The last parameter added is saved with these dims, whose product is rows * cols. */
void peft__adapter_shape(peft__adapter *a, int32_t ndim, const int64_t *dims);
const peft__adapter_param *peft__adapter_param_at(const peft__adapter *a, size_t i);
size_t peft__adapter_param_count(const peft__adapter *a);
const peft__adapter_param *peft__adapter_find(const peft__adapter *a, const char *key, size_t *index); /* NULL: absent */
/* The tape's index of parameter `slot` of an attachment; PEFT__NONE if it has none. */
int32_t peft__adapter_tape_param(const peft__adapter *a, const peft__attachment *at, int32_t slot, peft__tape *t);

/* The same of a trained copy, by its position (at->weight_param, at->bias_param); PEFT__NONE for -1. */
int32_t peft__adapter_tape_copy(const peft__adapter *a, int32_t param, peft__tape *t);
/* Adds trained copies of the site's weight (and bias, where it has one) under "<path>.weight", "<path>.bias". */
peft_status peft__adapter_copy_weight(peft__adapter *a, peft__attachment *at, const peft__site *s, int32_t slot);
peft_status peft__adapter_copy_bias(peft__adapter *a, peft__attachment *at, const peft__site *s, const char *key, int32_t slot);
/* Fills parameter i, a trained copy, with what the base has there. */
void peft__adapter_init_copy(const peft__adapter *a, size_t i, const peft__kernels *k);
/* Is parameter i the trained copy of a weight that files hold as [in][out] (Conv1D)? */
bool peft__adapter_flipped(const peft__adapter *a, size_t i);
/* Parameter i's key in files: "base_model.model." and its name; with prompt_keys the name itself, of a trained copy
 * "base_model." and its name. NULL: no memory. */
char *peft__adapter_file_key(peft__arena *arena, const peft__adapter *a, size_t i);

/* adapter.c: makes one outside any set. seed: initial values. */
peft_status peft__adapter_create(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                 const peft__method *method, const peft__optset *opts, uint64_t seed, peft__adapter **out);
/* The same with from_file set and all values 0: the reader of a file fills them. */
peft_status peft__adapter_create_empty(peft__mem *mem, const peft__base_info *base, const char *name,
                                       const peft__method *method, const peft__optset *opts, peft__adapter **out);
/* Both with trained copies of the head that the base's task has (heads.c): what users make, and files hold. */
peft_status peft__adapter_create_headed(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                        const peft__method *method, const peft__optset *opts, uint64_t seed, peft__adapter **out);
peft_status peft__adapter_create_empty_headed(peft__mem *mem, const peft__base_info *base, const char *name,
                                              const peft__method *method, const peft__optset *opts, peft__adapter **out);
/* The same before its file is read, which has room for `most` values: PEFT_E_SHAPE for more, before memory is taken for them. */
peft_status peft__adapter_create_for_file(peft__mem *mem, const peft__base_info *base, const char *name, const peft__method *method,
                                          const peft__optset *opts, bool heads, size_t most, peft__adapter **out);
/* heads.c: the task's modules among the names of modules_to_save, before build; copies of what is not copied yet, after it. */
peft_status peft__heads_list(peft__adapter *a);
peft_status peft__heads_copy(peft__adapter *a);
peft_status peft__hub_write_head(const peft__adapter *a, const char *dir); /* beside a folder of AdapterHub's; nothing: no head */
bool peft__heads_has(const peft__base_info *base, const peft__site *s); /* is the site part of the task's head? */
void peft__adapter_retain(peft__adapter *a);
void peft__adapter_release(peft__adapter *a);

/* ---- sites.c: what methods share --------------------------------------------------------------------------------------- */

/* Options of a method whose parameters hang on modules. */
#define PEFT__TARGET_OPTIONS                                                                                                 \
    {"target_modules", PEFT__OPT_LIST, "", 1, 0, NULL,                                                                       \
     "names that end a module's path, or a pattern for the whole path, or all-linear; unset: usual ones of the model type"}, \
    {"exclude_modules", PEFT__OPT_LIST, "", 1, 0, NULL, "names or a pattern of modules that are no targets"},                \
    {"modules_to_save", PEFT__OPT_LIST, "", 1, 0, NULL, "names of modules that are trained and saved whole"},                \
    {"task_type", PEFT__OPT_STR, "CAUSAL_LM", 1, 0, NULL, "task_type of adapter_config.json"},                               \
    {"base_model_name_or_path", PEFT__OPT_STR, "", 1, 0, NULL, "as written to adapter_config.json; unset: the model's path"}
#define PEFT__LAYER_OPTIONS                                                                                                  \
    {"layers_to_transform", PEFT__OPT_LIST, "", 1, 0, NULL, "numbers of the layers that have targets; unset: all"},          \
    {"layers_pattern", PEFT__OPT_LIST, "", 1, 0, NULL, "name of the list of layers in a path, such as layers"}

enum { PEFT__SLOT_COPY = 100 };  /* slot of a module saved whole; its bias has the next one */
/* target: the options of targets mean this site; saved: it is trained whole. At most one of them. */
typedef peft_status (*peft__site_fn)(peft__adapter *a, const peft__site *s, bool target, bool saved);
/* Calls add for every site, and writes back to the options what an unset target_modules (defaults: LIST text) meant. */
peft_status peft__adapter_targets(peft__adapter *a, uint32_t kinds, const char *defaults, peft__site_fn add);
peft_status peft__adapter_save_site(peft__adapter *a, const peft__site *s); /* trained copies of weight and bias */
/* Sets at->rank and at->scale from r, rank_pattern, the option `alpha` and alpha_pattern: alpha / r. */
peft_status peft__adapter_rank(peft__adapter *a, peft__attachment *at, const peft__site *s, const char *alpha);
/* PEFT_E_SHAPE where a caller asks for a rank that no matrix of the site's size has. Files may have one, and so may a default. */
peft_status peft__adapter_check_rank(const peft__adapter *a, const peft__site *s, int64_t rank);
/* y + x D', D formed from the parameters with slots 0 to 3; and weight += D. */
peft__val peft__adapter_delta(const peft__adapter *a, const peft__attachment *at, peft__tape *t, peft__val x, peft__val y,
                              const peft__delta *d);
peft_status peft__adapter_merge_delta(const peft__adapter *a, const peft__attachment *at, const peft__run *run,
                                      const peft__delta *d, peft__real *weight);
/* Second text of the row whose first is model_type; "" without one. */
const char *peft__model_type_find(const char *const (*table)[2], size_t n, const char *model_type);
const char *peft__usual_projections(const peft__base_info *base); /* PEFT's default targets of LoRA, LIST text */
/* The matched sites [n_sites] as LIST text for target_modules: endings of paths where they mean no other site, else paths. */
peft_status peft__target_names(const peft__base_info *base, const bool *matched, peft__str *list);
/* The same options as keys of adapter_config.json, where the schema has them, and back. */
void peft__config_put_targets(const peft__optset *opts, peft__json_out *j);
peft_status peft__config_get_targets(peft__optset *opts, const peft__json *config, const char *what);
/* null, false, "none" and empty containers are how PEFT writes that something is not used. */
bool peft__config_unused(const peft__json *node);
peft_status peft__config_refuse(const peft__json *config, const char *what, const char *const *keys, size_t n); /* if used */

/* ---- set.c: the inside of peft_adapters -------------------------------------------------------------------------------- */

struct peft_adapters {
    uint32_t magic;
    atomic_int refs;
    peft_context *ctx;           /* retained */
    peft__base_info base;        /* base.owner retained */
    peft__mutex *lock;
    peft__vec list;              /* of peft__adapter *, each with a reference */
};
enum { PEFT__MAGIC_ADAPTERS = 0x41464550 };
peft_status peft__set_create(peft_context *ctx, const peft__base_info *base, struct peft_adapters **out);
void peft__set_retain(struct peft_adapters *s);
void peft__set_release(struct peft_adapters *s);
/* Takes the reference on success; replace: one of its name goes, otherwise PEFT_E_EXISTS. */
peft_status peft__set_add(struct peft_adapters *s, peft__adapter *a, bool replace);
peft_status peft__set_remove(struct peft_adapters *s, const char *name); /* PEFT_E_BUSY while pinned elsewhere */
/* A pinned adapter (retained for the caller); PEFT_E_NOT_FOUND listing the names there are. */
peft_status peft__set_pin(struct peft_adapters *s, const char *name, peft__adapter **out);
/* A pinned fusion of these parts in this order; PEFT_E_NOT_FOUND naming them. */
peft_status peft__set_pin_fusion(struct peft_adapters *s, peft__adapter *const *parts, size_t n, peft__adapter **out);
bool peft__set_is_fusion(const peft__adapter *a, peft__adapter *const *parts, size_t n); /* of these parts? */
size_t peft__set_count(const struct peft_adapters *s);
const char *peft__set_name(const struct peft_adapters *s, size_t index);

/* ---- target.c: HF PEFT's rules of module matching (peft-formats 4.2) ------------------------------------------------------ */

typedef struct peft__target {
    const char *modules;         /* LIST text: array of suffixes, or string: regex (full match) or "all-linear" */
    const char *exclude;         /* LIST text; "" none */
    const char *layers;          /* LIST text of ints, "" all */
    const char *layers_pattern;  /* LIST text; "" none */
    const char *modules_to_save; /* LIST text; "" none: never targets */
    const char *defaults;        /* what an unset `modules` means: LIST text, by architecture */
    bool lenient;                /* names that match nothing are passed over, as HF does, as long as one matches */
} peft__target;
/* matched: [n_sites], set to true for matches among the sites whose kind is in kind_mask (1 << PEFT__SITE_*). Every element
 * of a list must match something: PEFT_E_NOT_FOUND names the one that does not, with the names there are. */
peft_status peft__target_match(peft__mem *mem, const peft__base_info *base, const peft__target *target,
                               uint32_t kind_mask, bool *matched);
/* Value of a rank_pattern / alpha_pattern (MAP text) for a path, or dflt. */
peft_status peft__target_pattern(peft__mem *mem, const char *map, const char *path, double dflt, double *out);

/* A LIST option, parsed. Items that are numbers have their text in `items` too. */
typedef struct peft__names {
    bool pattern;                /* one text: a regex or "all-linear" */
    size_t count;
    const char **items;          /* [count], in the arena */
    int64_t *numbers;            /* [count]; -1: no whole number */
} peft__names;
peft_status peft__names_read(peft__arena *a, const char *list, const char *key, peft__names *out);
/* Pins the adapters of those names into a->parts; accepts says why one may be no part (set.c). */
peft_status peft__set_pin_parts(struct peft_adapters *s, const peft__names *names, peft__adapter *a,
                                peft_status (*accepts)(const peft__adapter *part));
bool peft__path_ends(const char *path, const char *name);   /* is it, or ends with "." and it */
bool peft__path_within(const char *path, const char *name); /* has it as whole components anywhere */
const char *peft__path_leaf(const char *path);              /* last component */
/* Which sites a modules_to_save names: those at or below a module whose path ends with one of the names. */
peft_status peft__target_saved(peft__mem *mem, const peft__base_info *base, const char *modules_to_save, bool lenient,
                               bool *matched);

/* regex.c: the part of Python's re that targets use: literals . [] classes \d \w \. () | * + ? {m,n} ^ $, in time text x
 * pattern. full: the whole text must match; else its beginning (re.match). PEFT_E_UNSUPPORTED names the construct,
 * PEFT_E_INVALID a mistake. */
peft_status peft__regex_match(const char *pattern, const char *text, bool full, bool *out);

/* ---- compose.c ---------------------------------------------------------------------------------------------------------------- */

/* See expression.h. */

/* ---- files: format_hf.c, merge.c ------------------------------------------------------------------------------------------------ */

/* Writes DIR/adapter_config.json and adapter_model.safetensors as HF PEFT does. */
peft_status peft__adapter_save_hf(const peft__adapter *a, const char *dir);
/* Reads them; missing, surplus or mis-shaped tensors are errors by name; NaN or infinite weights too unless allowed. */
peft_status peft__adapter_load_hf(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                  const char *dir, bool allow_nan, peft__adapter **out);
/* format_gguf.c: a LoRA as one file of llama.cpp, and back; what it holds, without a base; is it one. */
peft_status peft__adapter_save_gguf(const peft__adapter *a, const char *path);
peft_status peft__adapter_load_gguf(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                    const char *path, bool allow_nan, peft__adapter **out);
peft_status peft__adapter_inspect_gguf(peft__mem *mem, const char *path, peft__str *out);
bool peft__adapter_probe_gguf(peft__mem *mem, const char *path);
/* One option as a key of adapter_config.json, in its own type (unset texts, lists and maps as null; maps as {}), and back:
 * an absent or null key leaves the default; a wrong type or range is PEFT_E_FORMAT. */
void peft__config_put(const peft__optset *opts, const char *key, peft__json_out *j);
peft_status peft__config_get(peft__optset *opts, const peft__json *config, const char *what, const char *key);
/* Size of the base as an adapter's file records it, compact JSON. */
void peft__base_record(const peft__base_info *base, peft__str *out);
/* union.c: a folder that has others in it. */
bool peft__union_probe(const char *dir);
peft_status peft__union_load(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name, const char *dir,
                             bool allow_nan, peft__adapter **out);
peft_status peft__union_inspect(peft__mem *mem, const char *dir, peft__str *out); /* compact JSON; each part as peft__adapter_inspect */
typedef peft_status (*peft__union_part_fn)(void *user, const char *dir);
peft_status peft__union_each(peft__mem *mem, const char *dir, peft__union_part_fn fn, void *user); /* the folder of every part */
/* check_files.c: what is wrong in the files of an adapter, without a base. *method: its name; NULL: not known. */
typedef struct peft__adapter_checked {
    const char *method;          /* static */
    int64_t tensors, values;
} peft__adapter_checked;
peft_status peft__adapter_check_hf(peft__mem *mem, const peft__kernels *k, const char *dir, bool values, peft__findings *f,
                                   peft__adapter_checked *out);
peft_status peft__adapter_check_gguf(peft__mem *mem, const peft__kernels *k, const char *path, bool values, peft__findings *f,
                                     peft__adapter_checked *out);
/* format_adapterhub.c: what differs in an AdapterHub folder. */
bool peft__hub_is(const peft__json *config);
peft_status peft__hub_config(const peft__adapter *a, peft__str *out);
peft_status peft__hub_method(const peft__json *config, const char *what, const peft__method **out);
peft_status peft__hub_options(peft__optset *opts, const peft__json *config, const char *what);
char *peft__hub_key(peft__arena *arena, const peft__adapter *a, const char *name); /* NULL: no memory */
/* Is a file's tensor of a layer that leave_out names? Those are passed over: an adapter loses layers by its config. */
bool peft__hub_left_tensor(const peft__adapter *a, peft__arena *arena, const char *key);
bool peft__adapter_probe(const char *path); /* a folder with adapter_config.json */
peft_status peft__adapter_inspect(peft__mem *mem, const char *dir, peft__str *out); /* config and tensors, without a base */
peft_status peft__adapter_info(const peft__adapter *a, peft__str *out);             /* JSON of peft_adapters_info_json */
/* Is base tensor (by HF name) changed by these adapters, and to what: [rows * cols] in logical [out, in] order. */
peft_status peft__merge_changes(peft__adapter *const *adapters, size_t n, const char *tensor, bool *out);
/* After merging, does a head that is tied to the embedding need a tensor of its own? (Only one of them changes, or both do
 * and differently.) With the trained copy of a tied pair ("full") both change alike: false. */
bool peft__merge_unties(peft__adapter *const *adapters, size_t n);
/* factors: [n], what an expression multiplies each by; NULL: 1. */
/* out: [rows * cols], and as many rows more as the adapters add tokens, where the tensor is the embedding or the head. */
peft_status peft__merge_value(peft__adapter *const *adapters, size_t n, const double *factors, const char *tensor, const peft__weight *w,
                              const peft__run *run, peft__real *out);

#endif
