/* model.h - layer 4: opened models and the architectures that they have.
 *
 * An architecture is one file with one descriptor: it reads a config, names its tensors, lists its sites and records itself
 * on a tape. load.c turns a Hugging Face folder or a GGUF file into tensors under Hugging Face names; from there on nobody
 * knows which it was. Models know nothing of adapters. */
#ifndef PEFT_MODEL_H
#define PEFT_MODEL_H

#include "autograd/site.h"
#include "io/io.h"

enum { PEFT__ROPE_NONE = 0, PEFT__ROPE_LINEAR = 1, PEFT__ROPE_DYNAMIC = 2, PEFT__ROPE_LLAMA3 = 3, PEFT__ROPE_YARN = 4,
       PEFT__ROPE_LONGROPE = 5 };

/* Sizes of any architecture, from config.json or GGUF metadata. */
typedef struct peft__config {
    int64_t hidden_size, layers, heads, kv_heads, head_dim, intermediate_size, vocab_size;
    int64_t max_positions;       /* context length, with what a rope scaling adds */
    int64_t stated_positions;    /* config.json's max_position_embeddings, where a scaling goes beyond it or position_offset takes
                                    some of it; 0: max_positions */
    int64_t position_offset;     /* rows of the table of positions before that of a row's first token (RoBERTa); 0: none */
    double norm_eps;
    int64_t rotary_dim;          /* columns of a head that rotary positions turn; 0: all */
    double rope_theta;
    int32_t rope_scaling;        /* PEFT__ROPE_* */
    double rope_factor, rope_low_freq, rope_high_freq; /* llama3; linear, dynamic and yarn use the factor */
    double rope_attention;       /* yarn, longrope: what cos and sin are multiplied by; 0: what the scaling says */
    double rope_beta_fast, rope_beta_slow, rope_mscale, rope_mscale_all; /* yarn; mscales 0: not given */
    bool rope_truncate;          /* yarn */
    const double *rope_short, *rope_long; /* longrope: [rotary / 2], in the model's arena */
    int64_t rope_original_positions; /* 0: max_positions */
    double rope_local_theta;     /* of layers with a window, where it differs (Gemma 3); 0: it does not */
    const double *rope_factors;  /* GGUF's rope_freqs.weight: what each inverse frequency is divided by, in place of the
                                    scaling above; [head_dim / 2], in the model's arena; NULL: none */
    int64_t window;              /* sliding window; 0: none */
    bool windows_differ;         /* only the layers of `windowed` have it, else all */
    uint8_t windowed[512];       /* bits by layer; ask peft__config_windowed */
    bool tie_embeddings;
    int32_t act;                 /* PEFT__ACT_* */
    bool attention_bias, mlp_bias;
    bool qk_norm;                /* queries and keys are normed */
    bool parallel;               /* attention and FFN read the same input (GPT-NeoX) */
    bool norm_first, final_norm; /* OPT: norms stand before each part, and one after the last layer */
    int64_t embed_size;          /* OPT: width of the embeddings */
    double embed_scale;          /* embeddings are multiplied by it; 0: not */
    double attn_scale;           /* scores are multiplied by it; 0: 1 / sqrt(head_dim) */
    double attn_softcap, final_softcap; /* of scores and logits; 0: none */
    int32_t bos_id, eos_id;      /* -1: none */
    int64_t type_vocab;          /* BERT: rows of the table of token types; 0: there is none */
    int64_t encoder_layers;      /* encoder-decoder models: layers of the encoder, `layers` are the decoder's; 0: no encoder */
    int64_t encoder_heads, encoder_ffn; /* BART: the same of its encoder; 0: those of the decoder */
    int64_t bias_buckets, bias_distance; /* T5: rows of a table of biases by relative position, and the distance of the last */
    bool glu;                    /* T5: the FFN has a gate */
    double head_scale;           /* T5: logits are multiplied by it; 1 where the head is its own. Above 0: a GGUF has a tied head,
                                    times this, as a tensor of its own too (T5, StableLM) */
    int32_t decoder_start_id, pad_id; /* encoder-decoder models: what stands before a target; for its tokens without a label */
    int32_t forced_bos_id, forced_eos_id; /* the first token that is generated, and the one at the greatest length; -1: any */
    bool norm_bias;              /* ModernBERT: norms have shifts */
    bool head_bias, lm_bias;     /* ModernBERT: heads' dense has a bias, and the decoder of the vocabulary */
    int32_t head_act, head_pool; /* ModernBERT: PEFT__ACT_* after the heads' dense, PEFT__POOL_* of rows */
    double init_range;           /* spread of new heads' matrices */
    peft__task task;             /* what the model is asked for */
} peft__config;

/* Columns of the widest head that any attention of the model has. */
static inline int64_t peft__config_head_dim(const peft__config *c) {
    return c->encoder_heads > 0 ? PEFT__MAX(c->head_dim, c->hidden_size / c->encoder_heads) : c->head_dim;
}

/* What a caller asks of a model; all zero but `kind` -1: as the file says. */
typedef struct peft__task_ask {
    int32_t kind, problem, pool; /* PEFT__TASK_*, PEFT__PROBLEM_*, PEFT__POOL_*; -1: as the file says, or the usual one */
    int32_t normalize;           /* 1, 0; -1: as the file says */
    int64_t labels;              /* 0: as many as names, or as the file says */
    const char *names;           /* LIST text of the labels' names; NULL or "": none */
    uint64_t seed;               /* of a new head */
} peft__task_ask;

/* The parts of a head, in their order: pool, dense, act, norm, out (heads.c). */
typedef struct peft__head_layout {
    int32_t task;                /* PEFT__TASK_* */
    int32_t pool;                /* PEFT__POOL_* */
    const char *dense;           /* "pooler.dense"; NULL: none. Paths are those of the model with this head */
    bool dense_bias;
    int32_t act;                 /* PEFT__ACT_* after dense, PEFT__HEAD_ACT_CONFIG for the model's own */
    const char *norm;            /* a LayerNorm after that; NULL: none */
    bool norm_bias;
    const char *out;             /* "classifier"; NULL: the head ends here (embeddings) */
    bool out_bias;
    const char *out_bias_name;   /* of its bias, where that is not OUT.bias */
} peft__head_layout;
enum { PEFT__HEAD_ACT_CONFIG = -1 };

typedef struct peft__model_tensor { /* one tensor under its Hugging Face name */
    peft__weight w;
    int32_t ndim;                /* as Hugging Face has it: 1 or 2 */
    int64_t dims[2];
    const char *gguf_name;       /* in the arena */
    bool conv1d;                 /* Hugging Face's dims are [in, out], those of w [out, in] */
    bool interleaved;            /* GGUF has its rows (a vector: its elements) in pair order */
    double gguf_plus;            /* GGUF has its values plus this */
    bool gguf_f32;               /* a matrix that is written into a GGUF as F32, whatever type is asked for */
    bool fused;                  /* GGUF has its rows (a vector: its elements) part by part, Hugging Face head by head */
} peft__model_tensor;

struct peft__arch;
struct peft__tensor_spec;

/* The inside of peft_model. Immutable once opened; reference-counted. */
struct peft_model {
    uint32_t magic;              /* PEFT__MAGIC_MODEL; poisoned on free */
    atomic_int refs;
    peft_context *ctx;           /* retained */
    peft__arena arena;           /* names, sites, vectors as reals, config text */
    const struct peft__arch *arch;
    const char *model_type;      /* config.json's "model_type" */
    peft__config config;
    const char *path;            /* where it was opened from; "" for a random one */
    const char *config_json;     /* Hugging Face config.json text (written from metadata for a GGUF) */
    size_t config_json_len;
    peft__safetensors *shards;   /* owned; HF folder, or one without a file: tensors in memory */
    size_t n_shards;
    peft__gguf *gguf;            /* owned; GGUF file */
    uint8_t *owned;              /* weights of a random model, or of tensors that were copied; or NULL */
    size_t owned_bytes;
    peft_release_fn release;     /* called when the model goes: the caller's tensors are free; NULL: none */
    void *release_user;
    peft__model_tensor *tensors; /* [n_tensors], in the architecture's order */
    size_t n_tensors;
    peft__map index;             /* HF name -> position */
    peft__site *sites;           /* [n_sites] */
    size_t n_sites;
    peft__task_ask ask;          /* what the caller wants of it */
    size_t n_base;               /* tensors that the architecture lists; those of the head come after them */
    const peft__head_layout *head; /* of its task; NULL: the architecture's own, over the vocabulary */
    const peft__site *head_sites[3]; /* dense, norm, out of it; NULL: it has no such part */
    const char *class_name;      /* transformers' class of it with its head */
    bool new_head;               /* some of its head is random: no file has it */
    void *arch_data;             /* of the architecture, in the arena: sites by name, inverse frequencies */
    int64_t parameters;          /* elements of all tensors, tied ones once */
    size_t bytes;                /* of the tensors as stored */
};
enum { PEFT__MAGIC_MODEL = 0x4d464550 };

typedef struct peft__arch {
    const char *name;                    /* "llama" */
    const char *const *model_types;      /* config.json "model_type" values, NULL-ended: "llama", "mistral" */
    const char *const *architectures;    /* the "architectures" value for each of them, for written configs */
    const char *const *gguf_archs;       /* general.architecture values, NULL-ended; none: llama.cpp does not know it */
    int32_t lm_task;                     /* PEFT__TASK_* of the head that it lists itself; -1: it lists none */
    const peft__head_layout *heads;      /* [n_heads] others that it can have; of an encoder the first is what a bare base gets */
    size_t n_heads;
    const char *prefix;                  /* what stands before the base's names in files of a model with a head ("bert."), or "" */
    const char *class_prefix;            /* "Bert" of "BertForSequenceClassification"; NULL: what is before "For" in its class */
    int32_t gguf_act;                    /* the one PEFT__ACT_* that a GGUF file of it can mean; -1: write_gguf says */
    /* Fill config; errors name the key. */
    peft_status (*read_config)(const peft__json *config, const char *what, peft__arena *a, peft__config *out);
    peft_status (*read_gguf)(const peft__gguf *g, peft__arena *a, peft__config *out);
    /* Which of model_types a config read from a GGUF file is; NULL: the first. */
    size_t (*gguf_type)(const peft__config *c);
    /* Writes the keys of config.json that read_config reads; "architectures" and "model_type" are the caller's. */
    void (*write_config)(const peft__config *c, peft__json_out *j);
    /* The general.architecture of a config (NULL: the first of gguf_archs; ask peft__arch_gguf_name), and its hyper-parameters
     * ("llama.block_count", ...); PEFT_E_UNSUPPORTED for what GGUF cannot say. */
    const char *(*gguf_arch)(const peft__config *c);
    peft_status (*write_gguf)(const struct peft_model *m, peft__gguf_out *w);
    /* Tensors that a model of this config has, by index from 0: HF name, GGUF name (both printf'd into the arena), logical
     * [out, in] shape, flags. false past the end. */
    bool (*tensor)(const peft__config *c, peft__arena *a, size_t index, struct peft__tensor_spec *out);
    /* Lists the sites and prepares arch_data. */
    peft_status (*sites)(struct peft_model *m);
    /* Fits a layout of `heads` to the config; NULL: they are as listed. */
    void (*fit_head)(const peft__config *c, peft__head_layout *head);
    /* Records embeddings, layers and final norm; then the head. */
    void (*record)(const struct peft_model *m, peft__tape *t);
} peft__arch;

struct peft__tensor_spec {
    const char *hf_name, *gguf_name;
    const char *alias;           /* what Hugging Face's files call it, too; NULL: nothing else */
    int32_t ndim;
    int64_t rows, cols;          /* a vector: rows 1, cols n */
    bool conv1d;                 /* HF stores [in][out] (GPT-2), GGUF [out][in] */
    bool interleaved;            /* GGUF stores q, k rows in pair order with this config's head_dim */
    bool optional;               /* may be absent: a tied head; rope_freqs */
    bool fresh;                  /* of a head: made at random where it is absent */
    bool unused;                 /* of a head that the task does not have: passed over */
    double gguf_plus;            /* GGUF has the values plus this (Gemma's gains: 1) */
    bool gguf_f32;               /* GGUF has it as F32 (T5's biases, whose rows are as short as there are heads) */
    bool fused;                  /* q, k and v of each head are one module: GGUF has [3][heads][d] rows, HF [heads][3][d] */
};

/* The registry: what is built in, each defined in the file of its name. */
#ifdef PEFT_MINIMAL
#define PEFT__ARCHITECTURES(X) X(llama)
#else
#define PEFT__ARCHITECTURES(X) \
    X(llama)                   \
    X(gpt2)                    \
    X(qwen)                    \
    X(gemma)                   \
    X(phi3)                    \
    X(olmo2)                   \
    X(neox)                    \
    X(stablelm)                \
    X(opt)                     \
    X(t5)                      \
    X(bart)                    \
    X(bert)                    \
    X(roberta)                 \
    X(distilbert)              \
    X(modernbert)
#endif
#define PEFT__ARCH_DECLARE(name) extern const peft__arch peft__arch_##name;
PEFT__ARCHITECTURES(PEFT__ARCH_DECLARE)
const peft__arch *peft__arch_at(size_t index); /* NULL past the end */
const char *peft__arch_gguf_name(const peft__arch *arch, const peft__config *c); /* NULL: llama.cpp does not know it */

/* load.c, load_hf.c, load_gguf.c */
peft_status peft__model_open(peft_context *ctx, const char *path, bool copy, const peft__task_ask *ask /* NULL: nothing */,
                             struct peft_model **out);
/* load_memory.c: tensors by Hugging Face's names in the caller's memory; `release` is called in any case. */
typedef struct peft__model_memory {
    const char *const *names;    /* [n] */
    const int32_t *dtypes, *ndims; /* [n] */
    const int64_t *dims;         /* [n, PEFT__IO_MAX_DIMS] */
    const void *const *data;     /* [n] */
    size_t n;
    peft_release_fn release;     /* NULL: nothing to tell */
    void *user;
} peft__model_memory;
peft_status peft__model_of_memory(peft_context *ctx, const char *config_json, size_t len, const peft__model_memory *in, bool copy,
                                  const peft__task_ask *ask, struct peft_model **out);
/* random.c: matrices N(0, 0.02), gains 1, biases 0 (tests ask for noise in both: `noise` adds N(0, noise) to every vector). */
peft_status peft__model_random(peft_context *ctx, const char *config_json, size_t len, uint64_t seed, double noise,
                               struct peft_model **out);
void peft__model_retain(struct peft_model *m);
void peft__model_release(struct peft_model *m);
bool peft__model_probe(const char *path); /* a folder with config.json + weights, or a GGUF model */
const peft__model_tensor *peft__model_find(const struct peft_model *m, const char *hf_name); /* NULL: absent */
const peft__site *peft__model_site(const struct peft_model *m, const char *path); /* the first with it; NULL: absent */
size_t peft__model_resident(const struct peft_model *m); /* bytes of the mappings that are in memory; copies and
                                                               random weights are in the allocator's account */
peft_status peft__model_info(const struct peft_model *m, peft__str *out); /* JSON of peft_model_info_json */
/* Tensor by index as floats, dequantised, in Hugging Face's shape and order: out[dims[0] * dims[1]]. */
void peft__model_read(const struct peft_model *m, size_t index, float *out);

/* rope.c: inverse frequencies [rotary / 2] with the config's scaling, in the arena; false without memory. They are numbers
 * of float precision, as in Hugging Face. */
bool peft__rope_make(const peft__config *c, int64_t rotary, peft__arena *a, peft__rope *out);
double peft__rope_attention(const peft__config *c); /* what cos and sin are multiplied by */
int64_t peft__rope_original(const peft__config *c); /* positions that the scaling starts from */
/* What llama3 scaling divides inverse frequency i of [0, rotary / 2) by; 1 for other scalings. */
double peft__rope_factor(const peft__config *c, int64_t rotary, int64_t i);

/* write_hf.c, write_gguf.c: the model under other weights. `value` gives tensor `index` as floats [rows * cols] in HF's
 * stored order for changed tensors, or says false to copy the stored bytes. */
typedef struct peft__model_change {
    void *user;
    bool (*changed)(void *user, size_t index);
    peft_status (*value)(void *user, size_t index, float *out);
    bool untie;                  /* write the head as a tensor of its own */
    bool (*head)(void *user);    /* untie: whether the head (not the embedding) is what changed */
    int64_t new_tokens;          /* rows after those of the base that the embedding and the head, both changed, have */
} peft__model_change;
/* How many rows tensor `index` gets by new tokens: all of them the embedding and the head, 0 others. */
int64_t peft__model_more_rows(const struct peft_model *m, size_t index, int64_t new_tokens);
/* dtype: -1: every tensor as stored where it can be written, else F32. Otherwise: what every tensor becomes. A row that is no
 * whole number of blocks stays F32, and so do vectors in a GGUF. Copies tokenizer files beside (HF folder to HF
 * folder); a crossing of formats is completed by the caller with the tokenizer's own writer. change NULL: nothing changed. */
peft_status peft__model_write_hf(const struct peft_model *m, const peft__model_change *c, int32_t dtype, const char *dir);
peft_status peft__model_write_gguf(const struct peft_model *m, const peft__model_change *c, int32_t dtype,
                                   peft__gguf_out *meta /* tokenizer keys already put; NULL: copy the base's */,
                                   const char *path);

#endif
