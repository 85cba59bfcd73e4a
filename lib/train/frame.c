/* frame.c - rows of ids packed end to end into the frame of one execution. Nothing is padded.
 *
 * Labels come as Hugging Face has them (the label AT each token) and are shifted here: the frame's label of token t is what
 * the model must say after it. Virtual tokens (soft prompts) lengthen their own row at its start; the last of them has the
 * first token as its label where the caller labels that. */
#include "train/train.h"

/* Most tokens of a frame, virtual ones included. */
static size_t frame_tokens(const peft__caps *c) { return (size_t)(c->max_tokens + c->max_rows * c->virtual_tokens); }

peft_status peft__frame_room_create(peft__frame_room *r, peft__mem *mem, const peft__caps *caps) {
    size_t rows = (size_t)caps->max_rows, tokens = (size_t)caps->max_tokens, all = frame_tokens(caps);
    memset(r, 0, sizeof *r);
    r->mem = mem;
    r->caps = *caps;
    r->offsets = peft__alloc(mem, (rows + 1) * sizeof *r->offsets);
    r->token_offsets = peft__alloc(mem, (rows + 1) * sizeof *r->token_offsets);
    r->ids = peft__alloc(mem, tokens * sizeof *r->ids);
    r->positions = peft__alloc(mem, all * sizeof *r->positions);
    r->labels = peft__alloc(mem, all * sizeof *r->labels);
    r->weights = peft__alloc(mem, all * sizeof *r->weights);
    r->keys = peft__alloc(mem, rows * sizeof *r->keys);
    r->row_groups = peft__alloc(mem, rows * sizeof *r->row_groups);
    r->row_tasks = peft__alloc(mem, rows * sizeof *r->row_tasks);
    for (int32_t g = 0; g < PEFT__GROUPS; g++) {
        r->group_tokens[g] = caps->virtual_tokens;
        r->group_shift[g] = caps->position_shift;
    }
    if (r->offsets == NULL || r->token_offsets == NULL || r->ids == NULL || r->positions == NULL || r->labels == NULL ||
        r->weights == NULL || r->keys == NULL || r->row_groups == NULL || r->row_tasks == NULL) {
        peft__frame_room_free(r);
        return PEFT_E_NOMEM;
    }
    return PEFT_OK;
}

size_t peft__frame_room_bytes(const peft__caps *caps) {
    const peft__frame_room *r = NULL; /* for its types */
    size_t rows = (size_t)caps->max_rows, tokens = (size_t)caps->max_tokens, all = frame_tokens(caps);
    return 2 * (rows + 1) * sizeof *r->offsets + rows * (sizeof *r->keys + sizeof *r->row_groups + sizeof *r->row_tasks) +
           tokens * sizeof *r->ids +
           all * (sizeof *r->positions + sizeof *r->labels + sizeof *r->weights);
}

void peft__frame_room_free(peft__frame_room *r) {
    if (r->mem == NULL) { return; }
    size_t rows = (size_t)r->caps.max_rows, tokens = (size_t)r->caps.max_tokens, all = frame_tokens(&r->caps);
    peft__free(r->mem, r->offsets, (rows + 1) * sizeof *r->offsets);
    peft__free(r->mem, r->token_offsets, (rows + 1) * sizeof *r->token_offsets);
    peft__free(r->mem, r->ids, tokens * sizeof *r->ids);
    peft__free(r->mem, r->positions, all * sizeof *r->positions);
    peft__free(r->mem, r->labels, all * sizeof *r->labels);
    peft__free(r->mem, r->weights, all * sizeof *r->weights);
    peft__free(r->mem, r->keys, rows * sizeof *r->keys);
    peft__free(r->mem, r->row_groups, rows * sizeof *r->row_groups);
    peft__free(r->mem, r->row_tasks, rows * sizeof *r->row_tasks);
    memset(r, 0, sizeof *r);
}

void peft__frame_room_divide(peft__frame_room *r, const peft__tape *t, const peft__expression *e) {
    r->e = e;
    memcpy(r->group_tokens, t->group_tokens, sizeof r->group_tokens);
    memcpy(r->group_shift, t->group_shift, sizeof r->group_shift);
}

void peft__frame_begin(peft__frame_room *r) {
    memset(&r->frame, 0, sizeof r->frame);
    r->offsets[0] = r->token_offsets[0] = 0;
    r->frame.offsets[PEFT__SPACE_INPUT] = r->offsets;
    r->frame.offsets[PEFT__SPACE_TOKENS] = r->token_offsets;
    r->frame.ids = r->ids;
    r->frame.positions = r->positions;
    r->frame.labels = r->labels;
    r->frame.row_keys = r->keys;
    r->frame.row_groups = r->row_groups;
    r->frame.row_tasks = r->row_tasks;
    r->task = 0;
    r->frame.loss_scale = 1;
}

/* One row, which fits. */
static void frame_row(peft__frame_room *r, const int32_t *ids, const int32_t *labels, const float *weights, int64_t n,
                      uint64_t key, int32_t group) {
    peft__frame *f = &r->frame;
    int64_t at = f->count[PEFT__SPACE_INPUT], to = f->count[PEFT__SPACE_TOKENS], v = r->group_tokens[group];
    memcpy(r->ids + at, ids, (size_t)n * sizeof *ids);
    for (int64_t t = 0; t < v + n; t++) {
        int64_t next = t + 1 - v; /* the row's token that comes after place t */
        bool labelled = next >= 0 && next < n && (labels != NULL || next > 0);
        r->positions[to + t] = (int32_t)(t + r->group_shift[group]);
        r->labels[to + t] = !labelled ? -100 : labels != NULL ? labels[next] : ids[next];
        r->weights[to + t] = weights != NULL && next >= 0 && next < n ? weights[next] : 1.0F;
    }
    if (weights != NULL) { f->weights = r->weights; }
    r->keys[f->n_rows] = key;
    r->row_groups[f->n_rows] = group;
    r->row_tasks[f->n_rows] = r->task;
    f->n_rows++;
    f->count[PEFT__SPACE_INPUT] = at + n;
    f->count[PEFT__SPACE_TOKENS] = to + v + n;
    f->count[PEFT__SPACE_ROWS] = f->n_rows;
    r->offsets[f->n_rows] = at + n;
    r->token_offsets[f->n_rows] = to + v + n;
}

bool peft__frame_add(peft__frame_room *r, const int32_t *ids, const int32_t *labels, const float *weights, int64_t n,
                     uint64_t key) {
    const peft__frame *f = &r->frame;
    int64_t copies = r->e != NULL ? peft__expression_copies(r->e) : 1, most = r->e != NULL ? peft__expression_rows(r->e) : 0;
    int64_t row = f->n_rows / copies; /* of the caller */
    if (f->n_rows + copies > r->caps.max_rows || copies * n > r->caps.max_tokens - f->count[PEFT__SPACE_INPUT] ||
        n > r->caps.max_length || (most > 0 && row >= most)) {
        return false;
    }
    for (int64_t c = 0; c < copies; c++) {
        frame_row(r, ids, labels, weights, n, key, r->e != NULL ? peft__expression_group(r->e, row, c) : 0);
    }
    return true;
}

int64_t peft__frame_labelled(const peft__frame_room *r) {
    int64_t n = 0;
    for (int64_t t = 0; t < r->frame.count[PEFT__SPACE_TOKENS]; t++) { n += r->labels[t] >= 0; }
    return n;
}
