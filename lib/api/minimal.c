/* minimal.c - what a minimal build (make MINIMAL=1) answers where the full library has more: PEFT_E_UNSUPPORTED and what is
 * missing. Empty in the full build.
 *
 * lib/minimal.txt lists the sources of a minimal build: LoRA on Llama models from Hugging Face folders, trained, saved, run.
 * Header and exported names are those of the full library; the functions below stand in for those of the sources that are
 * left out, and the registries (methods, architectures, kernels) are shorter. A source that a listed one needs and that is
 * not listed itself is an undefined name when a minimal build is linked: list it, or give it a line here. */
#include "api/api.h"
#include "infer/infer.h"
#include "model/parts.h"
#include "peft/combine.h"
#include "peft/hub.h"
#include "peft/lora.h"
#include "peft/reader.h"
#include "text/parts.h"
#include "train/loop.h"
#include "train/rows.h"

#ifdef PEFT_MINIMAL

static peft_status minimal_lacks(const char *what) {
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: not in this build of libpeft, which is a minimal one", what);
}

static peft_status minimal_lacks_at(const char *path, const char *what) {
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: %s: not in this build of libpeft, which is a minimal one", path, what);
}

/* ---- merged models, combinations, starts from a text, rows -------------------------------------------------------------- */

const peft__schema peft__schema_combine = {"combine", NULL, 0}, peft__schema_check = {"check", NULL, 0};

peft_status peft__combine(struct peft_adapters *set, const char *name, const char *expression, const peft__optset *opts,
                          peft__adapter **out) {
    (void)set, (void)name, (void)opts, (void)out;
    return minimal_lacks_at(expression, "combining adapters into one");
}

peft_status peft__lora_mix(const struct peft__mix *m, peft__adapter **out) {
    (void)out;
    return minimal_lacks_at(m->name, "combining adapters into one");
}

peft_status peft_check_json(peft_context *ctx, const char *path, const peft_model *base, const peft_options *options, char *buf,
                            size_t cap, size_t *needed) {
    (void)ctx, (void)base, (void)options, (void)buf, (void)cap;
    if (needed != NULL) { *needed = 0; }
    return minimal_lacks_at(path != NULL ? path : "NULL", "checking files");
}

peft_status peft_adapters_merge(const peft_adapters *a, const char *expression, const char *path,
                                const peft_options *options) {
    (void)a, (void)expression, (void)options;
    return minimal_lacks_at(path != NULL ? path : "NULL", "merging adapters into a model");
}

peft_status peft_trainer_set_loss(peft_trainer *t, peft_loss_fn fn, void *user) {
    (void)t, (void)fn, (void)user;
    return minimal_lacks("a loss of the host's");
}

peft_status peft_trainer_set_all_reduce(peft_trainer *t, int32_t rank, int32_t size, peft_all_reduce_fn fn, void *user) {
    (void)t, (void)rank, (void)size, (void)fn, (void)user;
    return minimal_lacks("training in several processes");
}

bool peft__hooks_loss(void *trainer, peft__loss_part *part) {
    (void)trainer, (void)part;
    return false;
}

peft_status peft__hooks_reduce(struct peft_trainer *t) {
    (void)t;
    return PEFT_OK;
}

peft_status peft__merge_write(struct peft_model *m, const peft__expression *e, int32_t dtype, bool to_gguf, const char *path) {
    (void)m, (void)e, (void)dtype, (void)to_gguf;
    return minimal_lacks_at(path, "writing a model");
}

peft_status peft_adapters_init(peft_adapters *a, const char *name, const int32_t *ids, size_t n) {
    (void)a, (void)ids, (void)n;
    return minimal_lacks_at(name != NULL ? name : "NULL", "adapters that start from a text");
}

peft_status peft__adapters_start(const peft_adapters *a, peft__adapter *x) {
    (void)a, (void)x;
    return PEFT_OK; /* only methods with virtual tokens start so */
}

peft_status peft_session_row_add(peft_session *s, const char *expression, const peft_tokenizer *tokenizer, const int32_t *ids,
                                 size_t n, const peft_options *options, int64_t *row) {
    (void)s, (void)expression, (void)tokenizer, (void)ids, (void)n, (void)options, (void)row;
    return minimal_lacks("rows together");
}

peft_status peft_session_row_add_text(peft_session *s, const char *expression, const peft_tokenizer *tokenizer, const char *prompt,
                                      size_t len, const peft_options *options, int64_t *row) {
    return peft_session_row_add(s, expression, tokenizer, (const int32_t *)(const void *)prompt, len, options, row);
}

peft_status peft_session_rows_next(peft_session *s, peft_row_fn fn, void *user, size_t *left) {
    (void)s, (void)fn, (void)user, (void)left;
    return minimal_lacks("rows together");
}

peft_status peft_session_row_remove(peft_session *s, int64_t row) {
    (void)s, (void)row;
    return minimal_lacks("rows together");
}

void peft__rows_free(struct peft__rows *b) { (void)b; }

/* Refused when the LoRA is made; there is none that would have to become a plain one. */
bool peft__lora_from_base(const peft__adapter *a) {
    const char *how = peft__opt_str(&a->opts, "init_lora_weights");
    return !a->from_file && (strcmp(how, "pissa") == 0 || strcmp(how, "olora") == 0);
}

peft_status peft__lora_add_base(peft__adapter *a, peft__attachment *at, const peft__site *s) {
    (void)at, (void)s;
    return minimal_lacks_at(a->name, "init_lora_weights=pissa or olora");
}

peft_status peft__lora_fill_base(const peft__adapter *a, const peft__kernels *k) {
    return (void)a, (void)k, minimal_lacks("init_lora_weights=pissa or olora");
}

peft_status peft__lora_plain(const peft__adapter *a, peft__adapter **out) {
    (void)a;
    *out = NULL;
    return PEFT_OK;
}

const peft__method peft__method_lora_fa = {.name = "lora_fa"}; /* only ever compared with */

/* ---- GGUF: a file is told from others, and not opened ---------------------------------------------------------------- */

static const char minimal_gguf[] = "GGUF files";

bool peft__gguf_probe(const char *path) { return peft__path_starts(path, "GGUF", 4); }

peft_status peft__gguf_open(peft__mem *mem, const char *path, bool copy, peft__gguf *out) {
    (void)mem, (void)copy, (void)out;
    return minimal_lacks_at(path, minimal_gguf);
}

peft_status peft__model_load_gguf(struct peft_model *m, bool copy) {
    (void)copy;
    return minimal_lacks_at(m->path, minimal_gguf);
}

peft_status peft__tokenizer_open_gguf(peft__mem *mem, const char *path, peft__tokenizer **out) {
    (void)mem, (void)out;
    return minimal_lacks_at(path, minimal_gguf);
}

peft_status peft__adapter_save_gguf(const peft__adapter *a, const char *path) {
    (void)a;
    return minimal_lacks_at(path, minimal_gguf);
}

peft_status peft__adapter_load_gguf(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name,
                                    const char *path, bool allow_nan, peft__adapter **out) {
    (void)mem, (void)k, (void)base, (void)name, (void)allow_nan, (void)out;
    return minimal_lacks_at(path, minimal_gguf);
}

peft_status peft__adapter_inspect_gguf(peft__mem *mem, const char *path, peft__str *out) {
    (void)mem, (void)out;
    return minimal_lacks_at(path, minimal_gguf);
}

bool peft__adapter_probe_gguf(peft__mem *mem, const char *path) {
    (void)mem, (void)path;
    return false; /* it is a model's, then, whose opening says what is missing */
}

/* Reached by nothing, because no file is ever open; architectures name them. */
void peft__gguf_close(peft__gguf *g) { (void)g; }
const peft__io_tensor *peft__gguf_find(const peft__gguf *g, const char *name) { return (void)g, (void)name, NULL; }
const peft__gguf_kv *peft__gguf_get(const peft__gguf *g, const char *key) { return (void)g, (void)key, NULL; }
void peft__gguf_put_f32(peft__gguf_out *w, const char *key, float v) { (void)w, (void)key, (void)v; }
void peft__gguf_put_text(peft__gguf_out *w, const char *key, const char *v, size_t len) { (void)w, (void)key, (void)v, (void)len; }
void peft__gguf_put_u32(peft__gguf_out *w, const char *key, uint32_t v) { (void)w, (void)key, (void)v; }

peft_status peft__gguf_int(const peft__gguf *g, const char *key, int64_t dflt, int64_t min, int64_t max, int64_t *out) {
    (void)g, (void)key, (void)min, (void)max;
    *out = dflt;
    return minimal_lacks(minimal_gguf);
}

peft_status peft__gguf_float(const peft__gguf *g, const char *key, double dflt, double *out) {
    (void)g, (void)key;
    *out = dflt;
    return minimal_lacks(minimal_gguf);
}

peft_status peft__gguf_text(const peft__gguf *g, const char *key, peft__arena *a, const char *dflt, const char **out) {
    (void)g, (void)key, (void)a;
    *out = dflt != NULL ? dflt : "";
    return minimal_lacks(minimal_gguf);
}

/* ---- tokenizers of others, and their files --------------------------------------------------------------------------- */

peft_status peft__tokenizer_open_gpt2(peft__mem *mem, const char *vocab, const char *merges, const char *dir, peft__tokenizer **out) {
    (void)mem, (void)merges, (void)dir, (void)out;
    return minimal_lacks_at(vocab, "a tokenizer without tokenizer.json");
}

peft_status peft__tokenizer_open_bert(peft__mem *mem, const char *path, const char *dir, peft__tokenizer **out) {
    (void)mem, (void)dir, (void)out;
    return minimal_lacks_at(path, "WordPiece tokenizers");
}

peft_status peft__wordpiece_finish(peft__tokenizer *t, const char *what) {
    (void)t;
    return minimal_lacks_at(what, "WordPiece tokenizers");
}

peft_status peft__wordpiece_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    (void)t, (void)w, (void)s, (void)len;
    return minimal_lacks("WordPiece tokenizers");
}

peft_status peft__unigram_finish(peft__tokenizer *t) { return (void)t, minimal_lacks("Unigram tokenizers"); }

peft_status peft__unigram_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    (void)t, (void)w, (void)s, (void)len;
    return minimal_lacks("Unigram tokenizers");
}

void peft__unigram_free(peft__bpe_work *w) { (void)w; }

peft_status peft__charsmap_read(const uint8_t *blob, size_t len, const char *what, peft__charsmap *out) {
    (void)blob, (void)len, (void)out;
    return minimal_lacks_at(what, "normalisation by a map of SentencePiece");
}

peft_status peft__charsmap_base64(peft__arena *a, const char *text, size_t len, const char *what, peft__charsmap *out) {
    (void)a, (void)text, (void)len, (void)out;
    return minimal_lacks_at(what, "normalisation by a map of SentencePiece");
}

const char *peft__charsmap_find(const peft__charsmap *map, const char *s, size_t len, bool longest, size_t *used, size_t *to_len) {
    (void)map, (void)s, (void)len, (void)longest;
    *used = *to_len = 0;
    return NULL;
}

/* What families of other architectures need beyond their files. */
peft_status peft__tok_family(peft__tokenizer *t, const peft__json *config, const peft__json *model) {
    return (void)t, (void)config, (void)model, PEFT_OK;
}
size_t peft__tok_family_extra(const peft__json *config, const peft__json *model) { return (void)config, (void)model, 0; }

/* ---- rows of tasks other than causal_lm --------------------------------------------------------------------------------- */

static peft_status minimal_lacks_rows(const struct peft_dataset *d) {
    return minimal_lacks_at(peft__task_name(d->kind), "rows of this task");
}

peft_status peft__rows_sequence(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_tokens(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_span(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_masked(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_embedding(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_seq2seq(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }
peft_status peft__rows_verbalized(struct peft_dataset *d, peft__row_in *in) { return (void)in, minimal_lacks_rows(d); }

peft_status peft__verbalizer_read(struct peft_dataset *d) {
    return peft__opt_str(&d->opts, "verbalizer")[0] != '\0' ? minimal_lacks("option \"verbalizer\"") : PEFT_OK;
}

/* ---- AdapterHub's folders: told from others, and not read ------------------------------------------------------------ */

static const char minimal_hub[] = "adapters of AdapterHub's library";

bool peft__hub_is(const peft__json *config) {
    return peft__json_find(config, "config") != NULL && peft__json_find(config, "peft_type") == NULL;
}

peft_status peft__hub_method(const peft__json *config, const char *what, const peft__method **out) {
    (void)config, (void)out;
    return minimal_lacks_at(what, minimal_hub);
}

peft_status peft__hub_options(peft__optset *opts, const peft__json *config, const char *what) {
    (void)opts, (void)config;
    return minimal_lacks_at(what, minimal_hub);
}

peft_status peft__hub_config(const peft__adapter *a, peft__str *out) {
    (void)out;
    return minimal_lacks_at(a->name, minimal_hub);
}

peft_status peft__lora_to_hub(const peft__adapter *a, peft__adapter **out) {
    (void)out;
    return minimal_lacks_at(a->name, minimal_hub);
}

peft_status peft__hub_add_head(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *dir, bool allow_nan,
                               peft__adapter **adapter) {
    (void)mem, (void)k, (void)base, (void)allow_nan, (void)adapter;
    return minimal_lacks_at(dir, minimal_hub);
}

char *peft__hub_key(peft__arena *arena, const peft__adapter *a, const char *name) { return (void)arena, (void)a, (void)name, NULL; }
bool peft__hub_left_tensor(const peft__adapter *a, peft__arena *arena, const char *key) {
    return (void)a, (void)arena, (void)key, false;
}

/* ---- unions ---------------------------------------------------------------------------------------------------------- */

bool peft__union_probe(const char *dir) { return (void)dir, false; } /* no adapter_config.json there: said by who reads on */

peft_status peft__union_load(peft__mem *mem, const peft__kernels *k, const peft__base_info *base, const char *name, const char *dir,
                             bool allow_nan, peft__adapter **out) {
    (void)mem, (void)k, (void)base, (void)name, (void)allow_nan, (void)out;
    return minimal_lacks_at(dir, "unions of adapters");
}

peft_status peft__union_inspect(peft__mem *mem, const char *dir, peft__str *out) {
    return (void)mem, (void)out, minimal_lacks_at(dir, "unions of adapters");
}

#endif
