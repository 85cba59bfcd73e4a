/* parts.h - between the files of this folder: reading configs, binding tensors, listing sites, writing. */
#ifndef PEFT_MODEL_PARTS_H
#define PEFT_MODEL_PARTS_H

#include "model/model.h"

enum { /* what a config may claim, so that no size overflows anywhere */
    PEFT__MODEL_MAX_WIDTH = 1 << 20,
    PEFT__MODEL_MAX_LAYERS = 1 << 12,
    PEFT__MODEL_MAX_VOCAB = 1 << 26,
    PEFT__MODEL_MAX_POSITIONS = 1 << 30
};

/* ---- registry.c -------------------------------------------------------------------------------------------------------- */

/* The architecture of a config.json's "model_type"; `type` is its position in model_types. */
peft_status peft__arch_of_config(const peft__json *config, const char *what, const peft__arch **out, size_t *type);
/* The architecture of a GGUF file's general.architecture. */
peft_status peft__arch_of_gguf(const peft__gguf *g, peft__arena *a, const peft__arch **out);

/* ---- config.c ----------------------------------------------------------------------------------------------------------- */

/* A required integer from 1 to max. */
peft_status peft__config_need(const peft__json *config, const char *what, const char *key, int64_t max, int64_t *out);
peft_status peft__config_need_gguf(const peft__gguf *g, const char *key, int64_t max, int64_t *out);
peft_status peft__config_act(const peft__json *config, const char *what, const char *key, const char *dflt, int32_t *out);
bool peft__config_act_find(const char *name, int32_t *out); /* false: not known */
const char *peft__config_act_name(int32_t act); /* as config.json spells it */
/* "bos_token_id" and "eos_token_id": an id, a list of which the first is meant, or null. */
peft_status peft__config_ids(const peft__json *config, const char *what, int32_t bos, int32_t eos, peft__config *c);
peft_status peft__config_ids_gguf(const peft__gguf *g, peft__config *c);
/* A number that GGUF stores as a float: the shortest decimal that rounds to it, as it stood in the original config. */
peft_status peft__config_float_gguf(const peft__gguf *g, const char *key, double dflt, double *out);
/* vocab_size of a GGUF: rows of token_embd.weight, which the key A.vocab_size or else the token list must equal. */
peft_status peft__config_vocab_gguf(const peft__gguf *g, const char *key, peft__config *c);
/* Fills head_dim if it is 0; checks what heads divide and the norms' epsilon. */
peft_status peft__config_heads(const char *what, const char *width_key, peft__config *c);
/* A switch that must have its usual value, because no other is implemented. */
peft_status peft__config_only(const peft__json *config, const char *what, const char *key, bool dflt, bool only);
/* The text of config.json for a config of architecture `arch`. */
peft_status peft__config_text(const peft__arch *arch, size_t type, const peft__config *c, peft__str *out);

/* Columns of a head that rotary positions turn. */
static inline int64_t peft__config_rotary(const peft__config *c) { return c->rotary_dim > 0 ? c->rotary_dim : c->head_dim; }

/* What config.json says of positions. */
static inline int64_t peft__config_stated(const peft__config *c) {
    return c->stated_positions > 0 ? c->stated_positions : c->max_positions;
}

/* ---- rope_config.c: after max_positions, head_dim and rotary_dim ----------------------------------------------------------- */

/* "rope_theta" (else theta) and "rope_scaling" (or "rope_parameters" with both). */
peft_status peft__config_rope(const peft__json *config, const char *what, double theta, peft__arena *a, peft__config *c);
void peft__config_write_rope(const peft__config *c, peft__json_out *j);
peft_status peft__config_rope_gguf(const peft__gguf *g, const char *arch, peft__arena *a, peft__config *c);
/* A tensor of `half` factors, which stand beside the weights. */
peft_status peft__config_rope_vector(const peft__gguf *g, const char *name, int64_t half, peft__arena *a, const double **out);
peft_status peft__config_write_rope_gguf(const peft__config *c, const char *arch, peft__gguf_out *w);

/* ---- decoder.c ----------------------------------------------------------------------------------------------------------- */

/* What transformers takes for keys that are absent, and which keys a family has for the same thing. */
typedef struct peft__decoder_keys {
    const char *eps_key, *act_key, *act; /* "rms_norm_eps", "hidden_act", "silu" */
    const char *gguf_eps;                /* "attention.layer_norm_rms_epsilon" */
    const char *rotary_key;              /* share of a head that turns; NULL: a whole head always */
    double eps, theta, rotary;
    int64_t positions, head_dim;         /* head_dim 0: hidden_size / heads */
    bool tied;
    int32_t bos, eos;                    /* -1: none */
} peft__decoder_keys;
peft_status peft__decoder_read(const peft__json *config, const char *what, const peft__decoder_keys *k, peft__arena *a,
                               peft__config *c);
void peft__decoder_write(const peft__config *c, const peft__decoder_keys *k, peft__json_out *j);
peft_status peft__decoder_read_gguf(const peft__gguf *g, const char *arch, const peft__decoder_keys *k, peft__arena *a,
                                    peft__config *c);
peft_status peft__decoder_write_gguf(const peft__config *c, const char *arch, const peft__decoder_keys *k, peft__gguf_out *w);
/* Causal attention of a layer, as the config says; h: what q, k and v are made of. */
peft__val peft__decoder_attention(const peft__config *c, const peft__site *kv, peft__tape *t, peft__val h, peft__val q, peft__val k,
                                  peft__val v, int32_t layer);
/* The same where every token sees every token, in layers with a window those at most `window` away. */
peft__val peft__encoder_attention(const peft__config *c, const peft__site *kv, peft__tape *t, peft__val h, peft__val q, peft__val k,
                                  peft__val v, int32_t layer);
/* act(h Wg') * h Wu' */
peft__val peft__decoder_glu(const peft__config *c, const peft__site *gate, const peft__site *up, peft__tape *t, peft__val h);
bool peft__config_windowed(const peft__config *c, int64_t layer);
void peft__config_set_windowed(peft__config *c, int64_t layer, bool windowed);
/* "layer_types"; *found false: there is no such key. */
peft_status peft__config_layer_types(const peft__json *config, const char *what, peft__config *c, bool *found);
void peft__config_write_layer_types(const peft__config *c, peft__json_out *j);
enum { PEFT__GGUF_KEY = 96 };
const char *peft__gguf_key(char buf[PEFT__GGUF_KEY], const char *arch, const char *key); /* "ARCH.key" */

/* A module with a weight [rows, cols] (a vector: rows 1; rows 0: there is none) and perhaps a bias. */
typedef struct peft__module {
    const char *hf, *gguf;        /* names without what stands before them in a layer */
    int64_t rows, cols;
    bool bias, interleaved, conv1d, optional, fused;
    bool matrix;                  /* a matrix even with one row */
    double gguf_plus;
} peft__module;
typedef struct peft__modules {
    const peft__module *before, *layer, *after;
    size_t n_before, n_layer, n_after;
    const char *hf_layers, *gguf_layers; /* "model.layers", "blk" */
} peft__modules;
/* peft__arch.tensor for a table: module by module, weight then bias. */
bool peft__modules_tensor(const peft__modules *m, int64_t layers, peft__arena *a, size_t index, struct peft__tensor_spec *out);
/* The same with `prefix` before Hugging Face's names. */
bool peft__modules_tensor_in(const peft__modules *m, const char *prefix, int64_t layers, peft__arena *a, size_t index,
                             struct peft__tensor_spec *out);

/* ---- seq2seq.c ------------------------------------------------------------------------------------------------------------- */

/* What transformers takes for keys that are absent; -1: none, of `start` the pad's. */
typedef struct peft__seq2seq_keys {
    int32_t bos, eos, pad, start, forced_eos;
} peft__seq2seq_keys;
/* After vocab_size: bos, eos, pad, how the decoder begins, which tokens are forced. */
peft_status peft__seq2seq_ids(const peft__json *config, const char *what, const peft__seq2seq_keys *k, peft__config *c);
void peft__seq2seq_write_ids(const peft__config *c, peft__json_out *j);
/* What generation_config.json says of these takes the place of what config.json does. */
peft_status peft__seq2seq_generation(const peft__json *generation, const char *what, peft__config *c);
typedef struct peft__seq2seq_sites {
    const peft__site *q, *k, *v, *kv, *o, *stream, *norm; /* of one attention */
} peft__seq2seq_sites;
/* Attention of the part that its sites are of, with Wo: h to itself, or in cross attention to the encoder's states. */
peft__val peft__seq2seq_attention(const peft__seq2seq_sites *s, peft__tape *t, peft__val h, peft__val states, peft__attn_spec *spec);

/* ---- bert.c: what encoders of BERT's layer share ----------------------------------------------------------------------------- */

/* What stands before the names of the base: it is the member `base` ("bert.") of a model with a head. */
const char *peft__encoder_base(const peft__config *c, const char *base);
peft_status peft__bert_read(const peft__json *config, const char *what, peft__config *c);
void peft__bert_write(const peft__config *c, peft__json_out *j);
/* What a family calls its modules; the embeddings are called alike. */
typedef struct peft__bert_names {
    const char *base, *layers;           /* "bert.", "encoder.layer" */
    const char *q, *k, *v, *kv, *o;      /* within a layer; kv: the module that attends */
    const char *attn, *attn_norm;        /* what attention adds to the stream, and the norm behind that */
    const char *up, *down, *ffn, *ffn_norm;
} peft__bert_names;
bool peft__bert_tensor(const peft__config *c, const peft__bert_names *n, peft__arena *a, size_t index, struct peft__tensor_spec *out);
peft_status peft__bert_sites(struct peft_model *m, const peft__bert_names *n);
void peft__bert_record(const struct peft_model *m, peft__tape *t);

/* ---- heads.c --------------------------------------------------------------------------------------------------------------- */

/* Heads of decoders: labels of a row from its last token. */
enum { PEFT__HEADS_DECODER = 1 };
extern const peft__head_layout peft__heads_decoder[PEFT__HEADS_DECODER];
/* The task of a model: what was asked for, else what config.json's "architectures" says; its labels; m->head. */
peft_status peft__heads_choose(struct peft_model *m, const peft__json *config, const char *what);
/* Tensor `index` of the model with its head; false past the end. */
bool peft__model_spec(struct peft_model *m, peft__arena *a, size_t index, struct peft__tensor_spec *out);
/* Memory and values of a head's tensor that no file has. */
peft_status peft__heads_make(struct peft_model *m, const struct peft__tensor_spec *spec, peft__model_tensor *out);
peft_status peft__heads_sites(struct peft_model *m); /* after the architecture's sites */
/* Records the head: that over the vocabulary at `lm`, or the task's. x: [TOKENS, C], normed. */
void peft__model_head(const struct peft_model *m, peft__tape *t, const peft__site *lm, peft__val x, double softcap, double scale);
void peft__heads_write_config(const struct peft_model *m, peft__json_out *j); /* "id2label", "label2id", "problem_type" */
const char *peft__heads_class(const struct peft_model *m, peft__arena *a);   /* "BertForSequenceClassification" */

/* ---- load.c, load_hf.c, load_gguf.c -------------------------------------------------------------------------------------- */

peft_status peft__model_new(peft_context *ctx, const char *path, struct peft_model **out);
/* Where the tensors of a model are: fills out->w.data, dtype, transposed, interleave; *found false: absent. */
typedef peft_status (*peft__model_source)(struct peft_model *m, void *user, const struct peft__tensor_spec *spec,
                                          peft__model_tensor *out, bool *found);
/* With arch and config filled: binds every tensor, lists the sites. `file` names the source in errors. */
peft_status peft__model_bind(struct peft_model *m, const char *file, peft__model_source source, void *user);
/* Tensors of m->shards by their names. */
peft_status peft__model_source_hf(struct peft_model *m, void *user, const struct peft__tensor_spec *spec,
                                  peft__model_tensor *out, bool *found);
peft_status peft__model_load_hf(struct peft_model *m, bool copy);
peft_status peft__model_load_gguf(struct peft_model *m, bool copy);
/* The tensor of a file as spec wants it: dtype and dims are checked, data set. */
peft_status peft__model_accept(const char *file, const peft__io_tensor *t, const struct peft__tensor_spec *spec, bool conv1d,
                               peft__model_tensor *out);
/* config.json as text and as `type` says; both kept by the model. */
peft_status peft__model_set_config(struct peft_model *m, const char *text, size_t len);

/* ---- sites.c --------------------------------------------------------------------------------------------------------------- */

/* Builder of the list of sites: errors stick, later calls return NULL. */
typedef struct peft__sites {
    struct peft_model *m;
    size_t cap;           /* sites that there is room for, without the head's */
    peft_status st;
    int32_t layer;        /* given to what is added; -1: outside the layers */
    int32_t part;         /* the same: PEFT__PART_* */
    const char *prefix;   /* what paths start with: "model.layers.0" */
} peft__sites;
peft_status peft__sites_begin(peft__sites *b, struct peft_model *m, size_t cap);
enum { PEFT__HEAD_SITES = 3 };
void peft__sites_more(peft__sites *b, struct peft_model *m); /* goes on with the sites of a head */
const peft__site *peft__sites_output(peft__sites *b, const char *name, const char *bias, const peft__site *tied);
/* "<format of layer>" as the prefix of what follows; layer -1: "" or the given text. */
void peft__sites_in(peft__sites *b, int32_t layer, const char *prefix);
const peft__site *peft__sites_linear(peft__sites *b, int32_t role, const char *name);
const peft__site *peft__sites_norm(peft__sites *b, int32_t role, const char *name, bool rms, double eps);
/* RMSNorm of each head by itself (head_dim 0: of the row) by the weight and `plus`. */
const peft__site *peft__sites_rms_norm(peft__sites *b, int32_t role, const char *name, double eps, int64_t head_dim, double plus);
const peft__site *peft__sites_embed(peft__sites *b, int32_t role, const char *name);
/* STREAM, KV, INPUT: no weight. */
const peft__site *peft__sites_plain(peft__sites *b, int32_t kind, int32_t role, const char *name, int64_t width);
/* A STREAM site that `norm` follows, after the sum (post-norm layers). */
void peft__sites_norm_of(peft__sites *b, const peft__site *stream, const peft__site *norm);
/* The head's logits get a tensor of constants, [1, vocabulary], where the model has it. It is no parameter. */
void peft__sites_offset(peft__sites *b, const peft__site *head, const char *tensor);
/* The output projection "lm_head", or the matrix of `embed` when the model has no such tensor. */
/* Nothing where the model's task has another head. */
const peft__site *peft__sites_head(peft__sites *b, const char *name, const peft__site *embed);

/* ---- write.c ---------------------------------------------------------------------------------------------------------------- */

/* One tensor on its way into a file. */
typedef struct peft__write_item {
    struct peft__write_job *job;
    size_t index;         /* in the model's tensors */
    bool changed;         /* values come from the caller */
    bool gguf;            /* rows as GGUF has them, else as Hugging Face */
    bool plain;           /* bytes are copied */
    int32_t dtype;        /* written */
    int64_t rows, cols;   /* as written */
    const char *name;     /* as written */
    double times;         /* what its values are multiplied by; 0: they are as they are */
} peft__write_item;

typedef struct peft__write_job {
    const struct peft_model *m;
    const peft__model_change *change; /* NULL: nothing changed */
    int32_t dtype;        /* asked for; -1 */
    peft__mem *mem;
    peft__arena arena;    /* owns items and sources */
    peft__write_item *items;
    peft__io_source *sources;
    size_t count;
    const peft__write_item *whole_of; /* whose tensor `whole` holds; NULL: none */
    float *whole;         /* owned: one tensor in Hugging Face's order */
    size_t whole_size;    /* bytes */
    float *row;           /* owned: one row as written */
    peft__real *real;     /* owned: the same before conversion */
    int64_t row_cap;      /* elements */
    int64_t row_at;       /* which row of `row_of` it is */
    const peft__write_item *row_of;
} peft__write_job;

peft_status peft__write_begin(peft__write_job *job, const struct peft_model *m, const peft__model_change *change,
                              int32_t dtype, bool gguf);
void peft__write_end(peft__write_job *job);
/* Whether a GGUF gets a tied head as a tensor beside the embedding, times the factor of its logits. Its metadata then say so by this
 * key, a bool, so that a reader who knows it goes on with the one tensor. */
bool peft__write_derives_head(const peft__write_job *job);
#define PEFT__GGUF_TIED "peft.tied_head"

#endif
