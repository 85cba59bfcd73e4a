/* seq2seq.c - what encoder-decoder models share: keys of config.json about how the decoder begins and ends (transformers'
 * PretrainedConfig and GenerationConfig), and their attention.
 *
 *   decoder_start_token_id   stands before the tokens of a target, which are shifted right by it
 *   pad_token_id             stands there for tokens of a target that have no label
 *   forced_bos_token_id, forced_eos_token_id   the first token that is generated; the one at the greatest length
 *
 * Left out: the other defaults of a generation_config.json (beams, lengths, n-grams), which callers say in options. */
#include "model/parts.h"

static peft_status seq2seq_id(const peft__json *config, const char *what, const char *key, int32_t dflt, int32_t *out) {
    int64_t id = dflt;
    const peft__json *node = peft__json_get(config, key);
    bool none = node != NULL && node->kind == PEFT__JSON_NULL;
    peft_status st = none ? PEFT_OK : peft__json_int(config, what, key, dflt, -1, INT32_MAX, &id);
    *out = none ? -1 : (int32_t)id;
    return st;
}

/* An id of the model, or none. */
static peft_status seq2seq_check_id(const peft__config *c, const char *what, const char *key, int32_t id) {
    if (id < c->vocab_size) { return PEFT_OK; }
    return peft__fail(PEFT_E_FORMAT, "%s: key \"%s\" is %d, and the vocabulary has %lld tokens", what, key, (int)id,
                      (long long)c->vocab_size);
}

peft_status peft__seq2seq_ids(const peft__json *config, const char *what, const peft__seq2seq_keys *k, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(peft__config_only(config, what, "is_encoder_decoder", true, true));
    TRY(peft__config_ids(config, what, k->bos, k->eos, c));
    TRY(seq2seq_id(config, what, "pad_token_id", k->pad, &c->pad_id));
    TRY(seq2seq_id(config, what, "decoder_start_token_id", k->start >= 0 ? k->start : c->pad_id, &c->decoder_start_id));
    TRY(seq2seq_id(config, what, "forced_bos_token_id", -1, &c->forced_bos_id));
    TRY(seq2seq_id(config, what, "forced_eos_token_id", k->forced_eos, &c->forced_eos_id));
    if (c->decoder_start_id < 0 || c->pad_id < 0) {
        FAIL(PEFT_E_FORMAT, "%s: key \"%s\" is missing", what, c->pad_id < 0 ? "pad_token_id" : "decoder_start_token_id");
    }
    TRY(seq2seq_check_id(c, what, "pad_token_id", c->pad_id));
    TRY(seq2seq_check_id(c, what, "decoder_start_token_id", c->decoder_start_id));
    TRY(seq2seq_check_id(c, what, "forced_bos_token_id", c->forced_bos_id));
    TRY(seq2seq_check_id(c, what, "forced_eos_token_id", c->forced_eos_id));
out:
    return st;
}

void peft__seq2seq_write_ids(const peft__config *c, peft__json_out *j) {
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"pad_token_id", c->pad_id}, {"decoder_start_token_id", c->decoder_start_id},
               {"forced_bos_token_id", c->forced_bos_id}, {"forced_eos_token_id", c->forced_eos_id}};
    peft__json_key(j, "is_encoder_decoder");
    peft__json_put_bool(j, true);
    for (size_t i = 0; i < PEFT__COUNT(ids); i++) {
        peft__json_key(j, ids[i].key);
        if (ids[i].id < 0) { peft__json_put_null(j); } else { peft__json_put_int(j, ids[i].id); }
    }
}

/* A key of generation_config.json; absent there is none. */
peft_status peft__seq2seq_generation(const peft__json *generation, const char *what, peft__config *c) {
    peft_status st = PEFT_OK;
    TRY(seq2seq_id(generation, what, "decoder_start_token_id", c->decoder_start_id, &c->decoder_start_id));
    TRY(seq2seq_id(generation, what, "forced_bos_token_id", -1, &c->forced_bos_id));
    TRY(seq2seq_id(generation, what, "forced_eos_token_id", -1, &c->forced_eos_id));
    if (c->decoder_start_id < 0) { FAIL(PEFT_E_FORMAT, "%s: key \"decoder_start_token_id\" is null", what); }
    TRY(seq2seq_check_id(c, what, "decoder_start_token_id", c->decoder_start_id));
    TRY(seq2seq_check_id(c, what, "forced_bos_token_id", c->forced_bos_id));
    TRY(seq2seq_check_id(c, what, "forced_eos_token_id", c->forced_eos_id));
out:
    return st;
}

peft__val peft__seq2seq_attention(const peft__seq2seq_sites *s, peft__tape *t, peft__val h, peft__val states, peft__attn_spec *spec) {
    bool cross = s->kv->part == PEFT__PART_CROSS;
    peft__val from = cross ? states : h;
    peft__val q = peft__site_linear(t, s->q, h);
    peft__val k = peft__site_linear(t, s->k, from);
    peft__val v = peft__site_linear(t, s->v, from);
    peft__past past = peft__site_kv(t, s->kv, h);
    if (cross && past.k != PEFT__NONE) { t->cross_prefix = PEFT__MAX(t->cross_prefix, peft__tape_value(t, past.k)->fixed); }
    spec->cross = cross;
    spec->causal = s->kv->part == PEFT__PART_DECODER;
    return peft__site_linear(t, s->o, peft__op_attention(t, q, k, v, &past, spec));
}
