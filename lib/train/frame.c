/* frame.c - rows of ids packed end to end into the frame of one execution. Nothing is padded.
 *
 * Labels come as Hugging Face has them (the label AT each token) and are shifted here: the frame's label of token t is what
 * the model must say after it. Virtual tokens (soft prompts) lengthen their own row at its start; the last of them has the
 * first token as its label where the caller labels that. */
#include "train/train.h"

/* Most tokens of a frame, virtual ones included. */
static size_t frame_tokens(const peft__caps *c) { return (size_t)(c->max_tokens + c->max_rows * c->virtual_tokens); }

/* Numbers that rows of the kind have. */
static size_t frame_targets(const peft__frame_room *r) {
    return (size_t)r->caps.max_rows * (size_t)PEFT__MAX(r->kind->labels, (int64_t)1);
}

peft_status peft__frame_room_task(peft__frame_room *r, const peft__config *config) {
    r->kind = &config->task;
    r->start_id = config->decoder_start_id;
    r->pad_id = config->pad_id;
    r->targets = peft__alloc(r->mem, frame_targets(r) * sizeof *r->targets);
    return r->targets != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

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
    r->types = peft__alloc(mem, all * sizeof *r->types);
    r->row_labels = peft__alloc(mem, rows * sizeof *r->row_labels);
    r->spans = peft__alloc(mem, 2 * rows * sizeof *r->spans);
    r->parts = peft__alloc(mem, rows * sizeof *r->parts);
    r->masking.mask_id = -1;
    r->group = -1;
    bool source = peft__frame_source_create(r) == PEFT_OK;
    for (int32_t g = 0; g < PEFT__GROUPS; g++) {
        r->group_tokens[g] = caps->virtual_tokens;
        r->group_shift[g] = caps->position_shift;
    }
    if (r->offsets == NULL || r->token_offsets == NULL || r->ids == NULL || r->positions == NULL || r->labels == NULL ||
        r->weights == NULL || r->keys == NULL || r->row_groups == NULL || r->row_tasks == NULL || r->types == NULL ||
        r->row_labels == NULL || r->spans == NULL || r->parts == NULL || !source) {
        peft__frame_room_free(r);
        return PEFT_E_NOMEM;
    }
    return PEFT_OK;
}

size_t peft__frame_room_bytes(const peft__caps *caps) {
    const peft__frame_room *r = NULL; /* for its types */
    size_t rows = (size_t)caps->max_rows, tokens = (size_t)caps->max_tokens, all = frame_tokens(caps);
    return peft__frame_source_bytes(caps) + 2 * (rows + 1) * sizeof *r->offsets +
           rows * (sizeof *r->keys + sizeof *r->row_groups + sizeof *r->row_tasks) +
           rows * (sizeof *r->row_labels + 2 * sizeof *r->spans + sizeof *r->parts) + tokens * sizeof *r->ids +
           all * (sizeof *r->positions + sizeof *r->labels + sizeof *r->weights + sizeof *r->types);
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
    peft__free(r->mem, r->types, all * sizeof *r->types);
    peft__free(r->mem, r->row_labels, rows * sizeof *r->row_labels);
    peft__free(r->mem, r->spans, 2 * rows * sizeof *r->spans);
    peft__free(r->mem, r->parts, rows * sizeof *r->parts);
    peft__frame_source_free(r);
    if (r->targets != NULL) { peft__free(r->mem, r->targets, frame_targets(r) * sizeof *r->targets); }
    memset(r, 0, sizeof *r);
}

void peft__frame_room_divide(peft__frame_room *r, const peft__tape *t, const peft__expression *e) {
    r->e = e;
    memcpy(r->group_tokens, t->group_tokens, sizeof r->group_tokens);
    memcpy(r->group_shift, t->group_shift, sizeof r->group_shift);
    memcpy(r->group_source, t->group_source, sizeof r->group_source);
}

void peft__frame_begin(peft__frame_room *r) {
    memset(&r->frame, 0, sizeof r->frame);
    r->offsets[0] = r->token_offsets[0] = 0;
    r->frame.offsets[PEFT__SPACE_INPUT] = r->offsets;
    r->frame.offsets[PEFT__SPACE_TOKENS] = r->token_offsets;
    r->frame.ids = r->ids;
    r->frame.positions = r->positions;
    r->frame.labels = r->labels;
    r->frame.types = r->types;
    r->frame.similarity_scale = 20;
    r->frame.row_keys = r->keys;
    r->frame.row_groups = r->row_groups;
    r->frame.row_tasks = r->row_tasks;
    r->task = 0;
    r->frame.loss_scale = 1;
    peft__frame_source_begin(r);
}

/* What a row is made of. */
typedef struct frame_source {
    const int32_t *ids, *labels, *types; /* [n]; labels NULL: the tokens; types NULL: 0 */
    const float *weights;                /* [n]; NULL: ones */
    int64_t n;
    uint64_t key;
    int32_t label, span[2], part;        /* of the row as a whole; -100, -1 and 0 without */
    const float *targets;                /* [labels of the task]; NULL: none */
    const int32_t *source;               /* [n_source] for the encoder */
    int64_t n_source;
    bool target;                         /* the decoder's input is made of the labels */
} frame_source;

/* Does a token's label say what comes after it? Else what is there: of a target, which the decoder's input is behind, too. */
static bool frame_shifts(const peft__frame_room *r, const frame_source *s) {
    if (r->kind != NULL && r->kind->kind == PEFT__TASK_SEQ2SEQ_LM) { return s->labels == NULL; }
    return r->kind == NULL || r->kind->kind == PEFT__TASK_CAUSAL_LM;
}

/* One row, which fits. */
static void frame_row(peft__frame_room *r, const frame_source *s, int32_t group) {
    peft__frame *f = &r->frame;
    int64_t at = f->count[PEFT__SPACE_INPUT], to = f->count[PEFT__SPACE_TOKENS], v = r->group_tokens[group], n = s->n;
    int64_t ahead = frame_shifts(r, s) ? 1 : 0, row = f->n_rows;
    memcpy(r->ids + at, s->ids, (size_t)n * sizeof *s->ids);
    if (s->target) { peft__frame_decoder_input(r, s->labels, n, r->ids + at); }
    peft__frame_source_put(r, s->source, s->n_source, group);
    for (int64_t t = 0; t < v + n; t++) {
        int64_t own = t - v, next = own + ahead; /* the row's token that the label of place t is about */
        bool labelled = next >= 0 && next < n && (s->labels != NULL || next > 0 || ahead == 0);
        r->positions[to + t] = (int32_t)(t + r->group_shift[group]);
        r->labels[to + t] = !labelled ? -100 : s->labels != NULL ? s->labels[next] : s->ids[next];
        r->weights[to + t] = s->weights != NULL && next >= 0 && next < n ? s->weights[next] : 1.0F;
        r->types[to + t] = s->types != NULL && own >= 0 ? s->types[own] : 0;
    }
    if (s->weights != NULL) { f->weights = r->weights; }
    r->keys[row] = s->key;
    r->row_groups[row] = group;
    r->row_tasks[row] = r->task;
    r->row_labels[row] = s->label;
    r->parts[row] = s->part;
    if (s->targets != NULL) {
        memmove(r->targets + row * r->kind->labels, s->targets, (size_t)r->kind->labels * sizeof *s->targets);
    }
    for (int32_t j = 0; j < 2; j++) { r->spans[2 * row + j] = s->span[j] >= 0 ? s->span[j] + (int32_t)v : -1; }
    f->n_rows++;
    f->count[PEFT__SPACE_INPUT] = at + n;
    f->count[PEFT__SPACE_TOKENS] = to + v + n;
    f->count[PEFT__SPACE_ROWS] = f->n_rows;
    r->offsets[f->n_rows] = at + n;
    r->token_offsets[f->n_rows] = to + v + n;
}

static bool frame_put(peft__frame_room *r, const frame_source *s) {
    const peft__frame *f = &r->frame;
    int64_t copies = r->e != NULL ? peft__expression_copies(r->e) : 1, most = r->e != NULL ? peft__expression_rows(r->e) : 0;
    int64_t row = f->n_rows / copies; /* of the caller */
    if (f->n_rows + copies > r->caps.max_rows || copies * s->n > r->caps.max_tokens - f->count[PEFT__SPACE_INPUT] ||
        s->n > r->caps.max_length || (r->group < 0 && most > 0 && row >= most) || !peft__frame_source_fits(r, s->n_source, copies)) {
        return false;
    }
    for (int64_t c = 0; c < copies; c++) {
        frame_row(r, s, r->group >= 0 ? r->group : r->e != NULL ? peft__expression_group(r->e, row, c) : 0);
    }
    return true;
}

bool peft__frame_add(peft__frame_room *r, const int32_t *ids, const int32_t *labels, const float *weights, int64_t n,
                     uint64_t key) {
    const frame_source s = {.ids = ids, .labels = labels, .weights = weights, .n = n, .key = key, .label = -100, .span = {-1, -1}};
    return frame_put(r, &s);
}

/* ---- rows of a caller's batch ---------------------------------------------------------------------------------------------- */

bool peft__frame_add_batch(peft__frame_room *r, const struct peft_batch *b, size_t i, uint64_t key) {
    int64_t at = PEFT__VEC_AT(&b->offsets, int64_t, i);
    const peft__task *t = r->kind;
    const int32_t *row_labels = b->row_labels.len > 0 ? b->row_labels.data : NULL, *spans = b->spans.data;
    frame_source s = {.ids = (const int32_t *)b->ids.data + at, .n = PEFT__VEC_AT(&b->offsets, int64_t, i + 1) - at, .key = key,
                      .label = -100, .span = {-1, -1}};
    if (b->labels.len > 0) { s.labels = (const int32_t *)b->labels.data + at; }
    if (b->types.len > 0) { s.types = (const int32_t *)b->types.data + at; }
    if (b->weights.len > 0) { s.weights = (const float *)b->weights.data + at; }
    r->task = b->tasks.len > 0 ? PEFT__VEC_AT(&b->tasks, int32_t, i) : 0;
    if (b->source_offsets.len > 0) {
        const int64_t *source = (const int64_t *)b->source_offsets.data + i;
        s.source = (const int32_t *)b->source_ids.data + source[0];
        s.n_source = source[1] - source[0];
    }
    if (t->kind == PEFT__TASK_SPAN) {
        memcpy(s.span, spans + 2 * i, sizeof s.span);
        r->frame.spans = r->spans;
    } else if (t->kind == PEFT__TASK_EMBEDDING) {
        s.part = row_labels[i];
        r->frame.parts = r->parts;
    } else if (t->kind == PEFT__TASK_SEQUENCE) {
        bool single = t->problem == PEFT__PROBLEM_SINGLE;
        s.label = row_labels != NULL ? row_labels[i] : 0;
        r->frame.row_labels = r->row_labels;
        r->frame.targets = single ? NULL : r->targets;
        if (!single) { s.targets = (const float *)b->targets.data + (int64_t)i * t->labels; }
    }
    return frame_put(r, &s);
}

/* ---- rows of data sets ----------------------------------------------------------------------------------------------------- */

/* Masks tokens of the row that was added last: ids change, and labels stay where a token is to be guessed. */
static void frame_mask(peft__frame_room *r, uint64_t key) {
    const peft__masking *m = &r->masking;
    const peft__frame *f = &r->frame;
    int64_t first = r->offsets[f->n_rows - 1], n = r->offsets[f->n_rows] - first;
    int64_t to = r->token_offsets[f->n_rows] - n; /* the row's own tokens are its last */
    peft__rng rng = {peft__mix64(m->seed ^ peft__mix64(key + 0x6d61736bU)), 0};
    for (int64_t t = 0; t < n; t++) {
        double pick = peft__rng_uniform(&rng), how = peft__rng_uniform(&rng);
        uint64_t other = peft__rng_below(&rng, (uint64_t)m->vocab);
        if (r->labels[to + t] < 0) { continue; }
        if (pick >= m->probability) {
            r->labels[to + t] = -100;
        } else if (how < 0.8) {
            r->ids[first + t] = m->mask_id;
        } else if (how < 0.9) {
            r->ids[first + t] = (int32_t)other;
        }
    }
}

/* The class that a label of the set is. */
static int32_t frame_class(const peft__frame_room *r, int32_t label, bool named) {
    return label >= 0 && named && r->classes != NULL ? r->classes[label] : label;
}

/* The row's numbers as the kind wants them; the label says whether there are any. */
static int32_t frame_targets_of(const peft__frame_room *r, const struct peft_dataset *d, const peft__row *row, float *out) {
    const float *given = (const float *)d->targets.data + row->target;
    int64_t n = r->kind->labels;
    if (r->kind->problem == PEFT__PROBLEM_REGRESSION) {
        if (row->n_targets != n) { return -100; }
        memcpy(out, given, (size_t)n * sizeof *out);
        return 0;
    }
    bool marks = !row->named && row->list && row->n_targets == n; /* 0 or 1 for each class, else a list of classes */
    for (int64_t i = 0; i < row->n_targets && marks; i++) { marks = given[i] >= 0 && given[i] <= 1; }
    if (marks) {
        memcpy(out, given, (size_t)n * sizeof *out);
        return 0;
    }
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < row->n_targets; i++) { out[frame_class(r, (int32_t)given[i], row->named)] = 1; }
    if (!row->list && row->label >= 0) { out[frame_class(r, row->label, row->named)] = 1; }
    return row->list || row->label >= 0 ? 0 : -100;
}

/* Takes the rows from number `rows` on back. */
static void frame_drop(peft__frame_room *r, int64_t rows) {
    peft__frame *f = &r->frame;
    f->n_rows = f->count[PEFT__SPACE_ROWS] = rows;
    f->count[PEFT__SPACE_INPUT] = r->offsets[rows];
    f->count[PEFT__SPACE_TOKENS] = r->token_offsets[rows];
    peft__frame_source_drop(r, rows);
}

bool peft__frame_add_row(peft__frame_room *r, const struct peft_dataset *d, const peft__row *row) {
    const int32_t *ids = d->ids.data, *labels = d->labels.data, *types = d->types.len > 0 ? d->types.data : NULL;
    int32_t kind = r->kind != NULL ? r->kind->kind : PEFT__TASK_CAUSAL_LM;
    int64_t rows = r->frame.n_rows, first = row->first;
    frame_source s = {.ids = ids + first, .labels = labels + first, .types = types != NULL ? types + first : NULL, .n = row->n,
                      .key = row->key, .label = -100, .span = {-1, -1}};
    r->task = row->task;
    if (kind == PEFT__TASK_EMBEDDING) {
        int64_t sizes[3] = {row->part[0], row->part[1], row->n - row->part[0] - row->part[1]};
        for (int32_t p = 0; p < 3; p++) {
            if (sizes[p] <= 0) { continue; }
            s = (frame_source){.ids = ids + first, .labels = labels + first, .types = types != NULL ? types + first : NULL,
                               .n = sizes[p], .key = row->key, .label = -100, .span = {-1, -1}, .part = p};
            if (!frame_put(r, &s)) {
                frame_drop(r, rows);
                return false;
            }
            first += sizes[p];
        }
        r->frame.parts = r->unlabelled ? NULL : r->parts;
        return true;
    }
    if (kind == PEFT__TASK_SEQUENCE && !r->unlabelled) {
        bool single = r->kind->problem == PEFT__PROBLEM_SINGLE;
        if (rows >= r->caps.max_rows) { return false; }
        float *own = r->targets + rows * r->kind->labels; /* of the first copy, which the others take theirs from */
        s.label = single ? frame_class(r, row->label, row->named) : frame_targets_of(r, d, row, own);
        s.targets = single ? NULL : own;
        r->frame.row_labels = r->row_labels;
        r->frame.targets = single ? NULL : r->targets;
    }
    if (kind == PEFT__TASK_SEQ2SEQ_LM) {
        s.source = (const int32_t *)d->sources.data + row->source;
        s.n_source = row->n_source;
        s.target = true;
    }
    if (kind == PEFT__TASK_SPAN && !r->unlabelled) {
        s.span[0] = row->begin;
        s.span[1] = row->end;
        r->frame.spans = r->spans;
    }
    if (!frame_put(r, &s)) { return false; }
    if (r->unlabelled) { r->frame.labels = NULL; }
    if (kind == PEFT__TASK_TOKENS && row->named && !r->unlabelled) {
        for (int64_t t = r->token_offsets[rows]; t < r->token_offsets[rows + 1]; t++) { r->labels[t] = frame_class(r, r->labels[t], true); }
    }
    if (kind == PEFT__TASK_MASKED_LM && row->maskable && r->masking.mask_id >= 0) { frame_mask(r, row->key); }
    return true;
}

int64_t peft__frame_labelled(const peft__frame_room *r) {
    int64_t n = 0;
    for (int64_t t = 0; t < r->frame.count[PEFT__SPACE_TOKENS]; t++) { n += r->labels[t] >= 0; }
    return n;
}
