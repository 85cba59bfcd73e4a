/* frame_source.c - rows of encoder-decoder models in a frame: the tokens that the encoder reads, in spaces of their own, and the
 * decoder's input, which is the target shifted right (Sutskever et al. 2014; transformers' shift_tokens_right):
 *
 *   input[0] = decoder_start_token_id;   input[t] = label[t - 1], or pad_token_id where that has no label
 *
 * so that the label of place t is the target's token t. Positions of the source begin at 0, its virtual tokens' included.
 *
 * Left out: masks within a source, as nothing is padded. */
#include "train/train.h"

static size_t source_tokens(const peft__caps *c) { return (size_t)(c->max_source + c->max_rows * c->source_virtual); }

peft_status peft__frame_source_create(peft__frame_room *r) {
    size_t rows = (size_t)r->caps.max_rows;
    if (r->caps.max_source == 0) { return PEFT_OK; }
    r->source_offsets = peft__alloc(r->mem, (rows + 1) * sizeof *r->source_offsets);
    r->encoder_offsets = peft__alloc(r->mem, (rows + 1) * sizeof *r->encoder_offsets);
    r->source_ids = peft__alloc(r->mem, (size_t)r->caps.max_source * sizeof *r->source_ids);
    r->source_positions = peft__alloc(r->mem, source_tokens(&r->caps) * sizeof *r->source_positions);
    for (int32_t g = 0; g < PEFT__GROUPS; g++) { r->group_source[g] = r->caps.source_virtual; }
    bool all = r->source_offsets != NULL && r->encoder_offsets != NULL && r->source_ids != NULL && r->source_positions != NULL;
    return all ? PEFT_OK : PEFT_E_NOMEM;
}

void peft__frame_source_free(peft__frame_room *r) {
    size_t rows = (size_t)r->caps.max_rows;
    peft__free(r->mem, r->source_offsets, (rows + 1) * sizeof *r->source_offsets);
    peft__free(r->mem, r->encoder_offsets, (rows + 1) * sizeof *r->encoder_offsets);
    peft__free(r->mem, r->source_ids, (size_t)r->caps.max_source * sizeof *r->source_ids);
    peft__free(r->mem, r->source_positions, source_tokens(&r->caps) * sizeof *r->source_positions);
}

size_t peft__frame_source_bytes(const peft__caps *caps) {
    size_t rows = (size_t)caps->max_rows, tokens = (size_t)caps->max_source + source_tokens(caps);
    return caps->max_source == 0 ? 0 : 2 * (rows + 1) * sizeof(int64_t) + tokens * sizeof(int32_t);
}

void peft__frame_source_begin(peft__frame_room *r) {
    peft__frame *f = &r->frame;
    if (r->caps.max_source == 0) { return; }
    r->source_offsets[0] = r->encoder_offsets[0] = 0;
    f->offsets[PEFT__SPACE_SOURCE] = r->source_offsets;
    f->offsets[PEFT__SPACE_ENCODER] = r->encoder_offsets;
    f->source_ids = r->source_ids;
    f->source_positions = r->source_positions;
}

bool peft__frame_source_fits(const peft__frame_room *r, int64_t n, int64_t copies) {
    return n <= r->caps.max_source_length && copies * n <= r->caps.max_source - r->frame.count[PEFT__SPACE_SOURCE];
}

void peft__frame_source_put(peft__frame_room *r, const int32_t *ids, int64_t n, int32_t group) {
    peft__frame *f = &r->frame;
    int64_t at = f->count[PEFT__SPACE_SOURCE], to = f->count[PEFT__SPACE_ENCODER], all = n + r->group_source[group];
    if (r->caps.max_source == 0) { return; }
    memcpy(r->source_ids + at, ids, (size_t)n * sizeof *ids);
    for (int64_t t = 0; t < all; t++) { r->source_positions[to + t] = (int32_t)t; }
    f->count[PEFT__SPACE_SOURCE] = r->source_offsets[f->n_rows + 1] = at + n;
    f->count[PEFT__SPACE_ENCODER] = r->encoder_offsets[f->n_rows + 1] = to + all;
}

void peft__frame_source_drop(peft__frame_room *r, int64_t rows) {
    if (r->caps.max_source == 0) { return; }
    r->frame.count[PEFT__SPACE_SOURCE] = r->source_offsets[rows];
    r->frame.count[PEFT__SPACE_ENCODER] = r->encoder_offsets[rows];
}

void peft__frame_decoder_input(const peft__frame_room *r, const int32_t *labels, int64_t n, int32_t *out) {
    for (int64_t t = 0; t < n; t++) { out[t] = t == 0 ? r->start_id : labels[t - 1] < 0 ? r->pad_id : labels[t - 1]; }
}
