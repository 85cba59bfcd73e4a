/* minimal_tasks.c - what a minimal build (minimal.c) has of tasks and of single tokens: the next token alone. Models with other heads,
 * encoders and measures of anything but tokens are refused where a caller asks for them; what follows from them is never reached.
 * Empty in the full build. */
#include "api/api.h"
#include "infer/parts.h"
#include "model/parts.h"
#include "peft/reader.h"
#include "peft/tokens.h"
#include "train/metrics.h"
#include "train/rows.h"

#ifdef PEFT_MINIMAL

static peft_status minimal_no_task(const char *what) {
    return peft__fail(PEFT_E_UNSUPPORTED, "%s: not in this build of libpeft, which is a minimal one", what);
}

/* ---- heads ----------------------------------------------------------------------------------------------------------------- */

const peft__head_layout peft__heads_decoder[PEFT__HEADS_DECODER] = {{.task = PEFT__TASK_SEQUENCE}};

peft_status peft__heads_choose(struct peft_model *m, const peft__json *config, const char *what) {
    (void)config, (void)what;
    m->config.task = (peft__task){.kind = PEFT__TASK_CAUSAL_LM};
    return m->ask.kind > 0 ? minimal_no_task(peft__task_name(m->ask.kind)) : PEFT_OK;
}

bool peft__model_spec(struct peft_model *m, peft__arena *a, size_t index, struct peft__tensor_spec *out) {
    return m->arch->tensor(&m->config, a, index, out);
}

peft_status peft__heads_make(struct peft_model *m, const struct peft__tensor_spec *spec, peft__model_tensor *out) {
    return (void)m, (void)out, minimal_no_task(spec->hf_name);
}

peft_status peft__heads_sites(struct peft_model *m) { return (void)m, PEFT_OK; }
void peft__heads_write_config(const struct peft_model *m, peft__json_out *j) { (void)m, (void)j; }
const char *peft__heads_class(const struct peft_model *m, peft__arena *a) { return (void)a, m->arch->architectures[0]; }

void peft__model_head(const struct peft_model *m, peft__tape *t, const peft__site *lm, peft__val x, double softcap, double scale) {
    (void)m;
    peft__site_head(t, lm, x, softcap, scale);
}

peft_status peft__heads_list(peft__adapter *a) { return (void)a, PEFT_OK; }
peft_status peft__heads_copy(peft__adapter *a) { return (void)a, PEFT_OK; }
bool peft__heads_has(const peft__base_info *base, const peft__site *s) { return (void)base, (void)s, false; }
bool peft__hub_in_head(const peft__adapter *a, size_t i) { return (void)a, (void)i, false; }
peft_status peft__hub_write_head(const peft__adapter *a, const char *dir) { return (void)a, (void)dir, PEFT_OK; }

peft_status peft__hub_find_head(peft__mem *mem, const char *dir, bool *there, size_t *size) {
    return (void)mem, (void)dir, (void)there, (void)size, PEFT_OK;
}

peft_status peft__hub_read_head(const char *dir, const peft__adapter *a, size_t i, const peft__kernels *k, bool allow_nan) {
    return (void)a, (void)i, (void)k, (void)allow_nan, minimal_no_task(dir);
}

/* ---- rows of tokens ---------------------------------------------------------------------------------------------------------- */

peft_status peft__tokens_resolve(peft__adapter *a, const char *key, uint32_t sites, const char *wrapper) {
    (void)sites, (void)wrapper;
    bool asked = peft__opt_str(&a->opts, key)[0] != '\0' || peft__opt_int(&a->opts, "num_new_tokens") > 0;
    return asked ? minimal_no_task("training rows of tokens") : PEFT_OK;
}

peft_status peft__tokens_add(peft__adapter *a, const peft__site *s) { return (void)a, (void)s, PEFT_OK; }
bool peft__tokens_init(const peft__adapter *a, size_t i, bool normal, peft__rng *rng, const peft__kernels *k) {
    return (void)a, (void)i, (void)normal, (void)rng, (void)k, false;
}
peft_status peft__tokens_settle(peft__adapter *a, bool normal, const peft__kernels *k) { return (void)a, (void)normal, (void)k, PEFT_OK; }
peft__val peft__tokens_embed(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val y,
                             double scale) {
    return (void)a, (void)at, (void)t, (void)s, (void)scale, y;
}
peft__val peft__tokens_head(const peft__adapter *a, const peft__attachment *at, peft__tape *t, const peft__site *s, peft__val x,
                            peft__head_spec *spec) {
    return (void)a, (void)at, (void)t, (void)s, (void)spec, x;
}
peft_status peft__tokens_merge(const peft__adapter *a, const peft__attachment *at, peft__real *weight) {
    return (void)a, (void)at, (void)weight, PEFT_OK;
}
peft_status peft__tokens_twin(const peft__adapter *a, peft__arena *arena, peft__param *out) {
    return (void)a, (void)arena, (void)out, PEFT_OK;
}

/* ---- labels and measures --------------------------------------------------------------------------------------------------- */

peft_status peft__labels_match(const struct peft_dataset *d, const peft__task *task, const char *what, peft__mem *mem, int32_t **classes) {
    (void)task, (void)mem;
    *classes = NULL;
    return peft__dataset_labelled(d, what);
}

void peft__labels_free(const struct peft_dataset *d, peft__mem *mem, int32_t *classes) { (void)d, (void)mem, (void)classes; }
peft_status peft__labels_undivided(const peft__task *task, const peft__expression *e) { return (void)task, (void)e, PEFT_OK; }

peft_status peft__labels_weights(const struct peft_dataset *d, const peft__task *task, const int32_t *classes, const char *option,
                                 peft__mem *mem, float **out) {
    (void)d, (void)task, (void)classes, (void)mem;
    *out = NULL;
    return option[0] != '\0' ? minimal_no_task("option \"class_weights\"") : PEFT_OK;
}

peft_status peft__scores_begin(peft__scores *s, peft__mem *mem, const peft__task *task) {
    return (void)s, (void)mem, (void)task, minimal_no_task("measures of labels");
}

void peft__scores_free(peft__scores *s) { (void)s; }
void peft__scores_class(peft__scores *s, int32_t truth, int32_t prediction) { (void)s, (void)truth, (void)prediction; }
void peft__scores_several(peft__scores *s, const float *logits, const float *targets) { (void)s, (void)logits, (void)targets; }
void peft__scores_tokens(peft__scores *s, const int32_t *truth, const int32_t *prediction, int64_t n) {
    (void)s, (void)truth, (void)prediction, (void)n;
}
peft_status peft__scores_numbers(peft__scores *s, const float *predicted, const float *truth) {
    return (void)s, (void)predicted, (void)truth, PEFT_OK;
}
peft_status peft__scores_write(const peft__scores *s, peft__json_out *j) { return (void)s, (void)j, PEFT_OK; }
double peft__cosine(const float *a, const float *b, int64_t n) { return (void)a, (void)b, (void)n, 0; }
int32_t peft__candidate_best(const double *scores, int64_t n) { return (void)scores, (void)n, 0; }

void peft__answers_begin(peft__answers *a, peft__mem *mem, const struct peft_dataset *d) { (void)a, (void)mem, (void)d; }
peft_status peft__answers_add_window(peft__answers *a, const peft__row *row, const float *logits) {
    return (void)a, (void)row, (void)logits, PEFT_OK;
}
peft_status peft__answers_end(peft__answers *a) { return (void)a, PEFT_OK; }
void peft__answers_write(const peft__answers *a, peft__json_out *j) { (void)a, (void)j; }

/* ---- encoders ------------------------------------------------------------------------------------------------------------------ */

peft_status peft__seq2seq_generation(const peft__json *generation, const char *what, peft__config *c) {
    return (void)generation, (void)what, (void)c, PEFT_OK;
}

bool peft__session_has_source(const struct peft_session *s) { return (void)s, false; }
peft_status peft__session_source_need(struct peft_session *s, int64_t tokens) { return (void)s, (void)tokens, PEFT_OK; }
void peft__session_source_free(struct peft_session *s) { (void)s; }
peft_status peft__session_check_source(const struct peft_session *s, int64_t row, int64_t n) {
    return (void)s, (void)row, (void)n, PEFT_OK;
}
void peft__session_source_rows(struct peft_session *s, peft__frame *f, const int32_t *ids, const int64_t *offsets,
                               const int32_t *groups) {
    (void)s, (void)f, (void)ids, (void)offsets, (void)groups;
}
peft_status peft__session_source_prepare(struct peft_session *s, const peft__session_rows *rows) { return (void)s, (void)rows, PEFT_OK; }
bool peft__session_source_fits(const struct peft_session *s, size_t first, size_t end) { return (void)s, (void)first, (void)end, true; }
void peft__session_source_is(struct peft_session *s, size_t r) { (void)s, (void)r; }
void peft__session_cross_free(struct peft_session *s) { (void)s; }
peft_status peft__session_cross_grow(struct peft_session *s, int64_t rows, int64_t tokens) {
    return (void)s, (void)rows, (void)tokens, PEFT_OK;
}
void peft__session_cross_copy(struct peft_session *s, int32_t from, int32_t to) { (void)s, (void)from, (void)to; }
void peft__session_cross_rewind(struct peft_session *s) { (void)s; }
peft_status peft__session_source_begins(struct peft_session *s, peft__frame *f, int32_t slot) {
    return (void)s, (void)f, (void)slot, PEFT_OK;
}

size_t peft__frame_source_bytes(const peft__caps *caps) { return (void)caps, 0; }
peft_status peft__frame_source_create(peft__frame_room *r) { return (void)r, PEFT_OK; }
void peft__frame_source_free(peft__frame_room *r) { (void)r; }
void peft__frame_source_begin(peft__frame_room *r) { (void)r; }
bool peft__frame_source_fits(const peft__frame_room *r, int64_t n, int64_t copies) { return (void)r, (void)n, (void)copies, true; }
void peft__frame_source_put(peft__frame_room *r, const int32_t *ids, int64_t n, int32_t group) { (void)r, (void)ids, (void)n, (void)group; }
void peft__frame_source_drop(peft__frame_room *r, int64_t rows) { (void)r, (void)rows; }
void peft__frame_decoder_input(const peft__frame_room *r, const int32_t *labels, int64_t n, int32_t *out) {
    (void)r, (void)labels, (void)n, (void)out;
}

#endif
