/* site.c - what architectures call where an adapter may act: the hook if there is one, else the base op. */
#include "autograd/site.h"

peft__val peft__base_linear(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int32_t b_param) {
    return peft__op_linear(t, x, s->weight, s->bias_data, w_param, b_param, s->out);
}

peft__val peft__base_norm(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int32_t b_param) {
    if (s->rms) { return peft__op_rms_norm_heads(t, x, s->norm_gain, w_param, s->eps, s->head_dim, s->plus); }
    return peft__op_layer_norm(t, x, s->norm_gain, s->bias_data, w_param, b_param, s->eps);
}

peft__val peft__base_embed(peft__tape *t, const peft__site *s, int32_t w_param, double scale) {
    return peft__op_embed(t, s->weight, w_param, PEFT__R(scale));
}

peft__val peft__base_positions(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param, int64_t offset) {
    return peft__op_add_pos(t, x, s->weight, w_param, offset);
}

peft__val peft__base_types(peft__tape *t, const peft__site *s, peft__val x, int32_t w_param) {
    return peft__op_add_types(t, x, s->weight, w_param);
}

peft__val peft__site_linear(peft__tape *t, const peft__site *s, peft__val x) {
    const peft__hooks *h = t->hooks;
    return h != NULL && h->linear != NULL ? h->linear(h->user, t, s, x) : peft__base_linear(t, s, x, PEFT__NONE, PEFT__NONE);
}

peft__val peft__site_stream(peft__tape *t, const peft__site *s, peft__val h, peft__val residual) {
    return t->hooks != NULL && t->hooks->stream != NULL ? t->hooks->stream(t->hooks->user, t, s, h, residual) : h;
}

peft__past peft__site_kv(peft__tape *t, const peft__site *s, peft__val x) {
    peft__past past = {.k = PEFT__NONE, .v = PEFT__NONE, .gates = PEFT__NONE};
    if (t->hooks != NULL && t->hooks->kv != NULL) { t->hooks->kv(t->hooks->user, t, s, x, &past); }
    return past;
}

peft__val peft__site_input(peft__tape *t, const peft__site *s, peft__val x) {
    return t->hooks != NULL && t->hooks->input != NULL ? t->hooks->input(t->hooks->user, t, s, x) : x;
}

peft__val peft__site_norm(peft__tape *t, const peft__site *s, peft__val x) {
    const peft__hooks *h = t->hooks;
    return h != NULL && h->norm != NULL ? h->norm(h->user, t, s, x) : peft__base_norm(t, s, x, PEFT__NONE, PEFT__NONE);
}

peft__val peft__site_embed(peft__tape *t, const peft__site *s, double scale) {
    const peft__hooks *h = t->hooks;
    return h != NULL && h->embed != NULL ? h->embed(h->user, t, s, PEFT__NONE, scale)
                                         : peft__base_embed(t, s, PEFT__NONE, scale);
}

peft__val peft__site_positions(peft__tape *t, const peft__site *s, peft__val x, int64_t offset) {
    const peft__hooks *h = t->hooks;
    return h != NULL && h->embed != NULL ? h->embed(h->user, t, s, x, (double)offset)
                                         : peft__base_positions(t, s, x, PEFT__NONE, offset);
}

peft__val peft__site_types(peft__tape *t, const peft__site *s, peft__val x) {
    const peft__hooks *h = t->hooks;
    return h != NULL && h->embed != NULL ? h->embed(h->user, t, s, x, 0) : peft__base_types(t, s, x, PEFT__NONE);
}

int32_t peft__site_bias(peft__tape *t, const peft__site *s) {
    return t->hooks != NULL && t->hooks->bias != NULL ? t->hooks->bias(t->hooks->user, t, s) : PEFT__NONE;
}

/* The head as the base has it, and what adapters change of it; *x: what it reads. */
static peft__head_spec site_head_spec(peft__tape *t, const peft__site *s, peft__val *x, double softcap, double scale) {
    peft__head_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.weight = s->weight;
    spec.bias = s->bias_data;
    spec.vocab = s->out;
    spec.softcap = softcap;
    spec.scale = scale;
    spec.w_param = spec.b_param = spec.lora_a = spec.lora_b = spec.rows_param = PEFT__NONE;
    if (t->hooks != NULL && t->hooks->head != NULL) { *x = t->hooks->head(t->hooks->user, t, s, *x, &spec); }
    return spec;
}

/* Groups of rows that have a head each; 1: all have one. */
static int32_t site_heads(const peft__tape *t, const peft__site *s) {
    return t->hooks != NULL && t->hooks->heads != NULL ? t->hooks->heads(t->hooks->user, s) : 1;
}

void peft__site_head(peft__tape *t, const peft__site *s, peft__val x, double softcap, double scale) {
    int32_t heads = site_heads(t, s);
    for (int32_t g = 0; g < heads; g++) {
        peft__val in = x;
        t->group = heads > 1 ? g : -1;
        peft__head_spec spec = site_head_spec(t, s, &in, softcap, scale);
        peft__op_head(t, in, &spec);
    }
    t->group = -1;
}

peft__val peft__site_outputs(peft__tape *t, const peft__site *s, peft__val x) {
    int32_t heads = site_heads(t, s);
    peft__val all = PEFT__NONE;
    for (int32_t g = 0; g < heads; g++) {
        const peft__choice choice = {.groups = 1U << g, .end = -1, .layer = -1};
        peft__val in = x;
        t->group = heads > 1 ? g : -1;
        peft__head_spec spec = site_head_spec(t, s, &in, 0, 1);
        peft__val y = peft__op_linear(t, in, spec.weight, spec.bias, spec.w_param, spec.b_param, spec.vocab);
        if (spec.lora_a != PEFT__NONE) { y = peft__op_low_rank(t, y, in, spec.lora_a, spec.lora_b, spec.lora_scale); }
        t->group = -1;
        all = all == PEFT__NONE ? y : peft__op_blend(t, all, y, PEFT__NONE, 1, &choice);
    }
    return all;
}
