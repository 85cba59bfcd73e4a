/* invertible.c - invertible adapters (MAD-X, Pfeiffer et al. 2020, arXiv 2005.00052, section 5.2): a trained bijection of the
 * embeddings, undone on the final hidden states before the output projection. With x = [x1 | x2], the halves of a row:
 *
 *   nice  y1 = x1 + F(x2), y2 = x2 + G(y1)                  undone: x2 = y2 - G(y1), x1 = y1 - F(x2)
 *   glow  y1 = x1 e(s) + t with [s | t] = S2(x2), then y2 = x2 e(s') + t' with [s' | t'] = S1(y1);   undone in reverse
 *
 * (NICE: Dinh et al. 2015, 1410.8516; e(): op_couple.c). Networks: linear, the adapter's activation, linear; the inner width is
 * that of the half that is read over inv_adapter_reduction_factor. An odd row's second half is one longer.
 *
 * Embeddings are those of the table of tokens; with GPT-2 those with positions added, as its class there has it; with encoder-decoders
 * the encoder's, which nothing undoes ("encoder." before the name). Files, as
 * AdapterHub has them (2-D, biases 1-D):  PREFIX.invertible_adapters.NAME.F.0.weight, F.0.bias, F.2.weight, F.2.bias, G...;  glow: s1, s2.
 *
 * adapters 1.3.0 undoes the bijection in its flexible heads (LlamaAdapterModel) and in models known by their interface
 * (Qwen2ForCausalLM), but not in LlamaForCausalLM, MistralForCausalLM, GPT2LMHeadModel, GPTJForCausalLM: option inv_head, which
 * files keep as their model_class. With encoder-decoders its flexible heads undo the encoder's bijection on the decoder's states:
 * folders of those classes are refused. Its glow can be saved, not run: it cuts the batch along the tokens. Here it is what its own
 * inverse undoes.
 *
 * Left out: the old nested config "invertible_adapter" of 2020's releases. */
#include <math.h>

#include "peft/invertible.h"

enum { INVERTIBLE_SLOT = 40 };        /* first parameter's: 4 of each network, weight 0, bias 0, weight 2, bias 2 */

typedef struct invertible_net {
    const char *name;
    int64_t in, out;
} invertible_net;

static bool invertible_is(const peft__optset *opts, const char *kind) {
    return strcmp(peft__opt_str(opts, "inv_adapter"), kind) == 0;
}

bool peft__invertible_on(const peft__adapter *a) {
    return peft__schema_find(a->opts.schema, "inv_adapter") != NULL && !invertible_is(&a->opts, "none");
}

/* Where the embeddings are ready, the table of tokens, the head; NULL: the model has none. */
static const peft__site *invertible_site(const peft__adapter *a, int32_t kind, int32_t role) {
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        if (s->kind == kind && (role == PEFT__ROLE_NONE || s->role == role)) { return s; }
    }
    return NULL;
}

/* The norm of the embeddings (BERT), which that library's classes wait for; NULL: there is none. */
static const peft__site *invertible_norm(const peft__adapter *a) {
    for (size_t i = 0; i < a->base->n_sites && a->base->sites[i].layer < 0; i++) {
        if (a->base->sites[i].kind == PEFT__SITE_NORM) { return &a->base->sites[i]; }
    }
    return NULL;
}

/* Model types whose class with a fixed head reads the final hidden states as they are: that class, and the one with flexible
 * heads. */
static const char *const invertible_classes[][3] = {
    {"llama", "LlamaForCausalLM", "LlamaAdapterModel"},
    {"mistral", "MistralForCausalLM", "MistralAdapterModel"},
    {"gpt2", "GPT2LMHeadModel", "GPT2AdapterModel"},
    {"gptj", "GPTJForCausalLM", "GPTJAdapterModel"},
};

/* Of encoder-decoders: those with flexible heads. */
static const char *const invertible_undoing[] = {"T5AdapterModel", "MT5AdapterModel", "BartAdapterModel"};

/* Row of a text in one of the columns; the table's length: none. */
static size_t invertible_class_row(const char *text, int column) {
    size_t i = 0;
    while (i < PEFT__COUNT(invertible_classes) && strcmp(invertible_classes[i][column], text) != 0) { i++; }
    return i;
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static peft_status invertible_add_net(peft__adapter *a, peft__attachment *at, const char *place, const invertible_net *n,
                                      int32_t slot) {
    peft_status st = PEFT_OK;
    double factor = peft__opt_float(&a->opts, "inv_adapter_reduction_factor");
    int64_t inner = (int64_t)floor((double)n->in / factor);
    if (inner < 1) {
        FAIL(PEFT_E_KEY, "inv_adapter_reduction_factor %g leaves nothing of the %lld columns that network %s reads", factor,
             (long long)n->in, n->name);
    }
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s.0.weight", place, n->name), slot, inner, n->in, 2,
                                false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s.0.bias", place, n->name), slot + 1, 1, inner, 1,
                                false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s.2.weight", place, n->name), slot + 2, n->out, inner,
                                2, false, false));
    TRY(peft__adapter_add_param(a, at, peft__arena_printf(&a->arena, "%s.%s.2.bias", place, n->name), slot + 3, 1, n->out, 1,
                                false, false));
out:
    return st;
}

static bool invertible_has_encoder(const peft__base_info *base) {
    for (size_t i = 0; i < base->n_sites; i++) {
        if (base->sites[i].part == PEFT__PART_ENCODER) { return true; }
    }
    return false;
}

peft_status peft__invertible_build(peft__adapter *a) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (!peft__invertible_on(a)) { return PEFT_OK; }
    const peft__site *tokens = invertible_site(a, PEFT__SITE_EMBED, PEFT__ROLE_TOKENS);
    bool late = a->base->model_type != NULL && strcmp(a->base->model_type, "gpt2") == 0; /* that library's class adds positions first */
    const peft__site *ready = late ? invertible_site(a, PEFT__SITE_EMBED, PEFT__ROLE_POSITIONS) : invertible_norm(a);
    const peft__site *head = invertible_site(a, PEFT__SITE_HEAD, PEFT__ROLE_NONE);
    if (ready == NULL) { ready = invertible_site(a, PEFT__SITE_INPUT, PEFT__ROLE_NONE); }
    bool pair = invertible_has_encoder(a->base); /* there it is, and no head undoes it */
    bool lm = !pair && (a->base->task == NULL || peft__task_is_lm(a->base->task)); /* other heads read what the layers give */
    if (tokens == NULL || ready == NULL || (lm && head == NULL)) {
        FAIL(PEFT_E_UNSUPPORTED, "option \"inv_adapter\": the %s model has no embeddings and head of its own", a->base->model_type);
    }
    int64_t first = tokens->out / 2, second = tokens->out - first;
    bool nice = invertible_is(&a->opts, "nice");
    invertible_net nets[2] = {{nice ? "F" : "s1", nice ? second : first, nice ? first : 2 * second},
                              {nice ? "G" : "s2", nice ? first : second, nice ? second : 2 * first}};
    const char *dot = strchr(tokens->path, '.'); /* behind the name of the model without its head */
    int prefix = dot != NULL ? (int)(dot - tokens->path) + 1 : 0;
    const char *place = peft__arena_printf(&a->arena, "%.*s%sinvertible_adapters", prefix, tokens->path, pair ? "encoder." : "");
    if (place == NULL) { return PEFT_E_NOMEM; }
    if (lm && !peft__opt_bool(&a->opts, "inv_head") && invertible_class_row(a->base->model_type, 0) == PEFT__COUNT(invertible_classes)) {
        FAIL(PEFT_E_UNSUPPORTED, "option \"inv_head\" can be false for llama, mistral, gpt2 and gptj models; this one is %s, whose "
             "adapters AdapterHub's library undoes before the head", a->base->model_type);
    }
    if (first == 0) { FAIL(PEFT_E_UNSUPPORTED, "option \"inv_adapter\": a hidden size of 1 has no halves"); }
    TRY(peft__adapter_attach(a, ready, &at));
    TRY(invertible_add_net(a, at, place, &nets[0], INVERTIBLE_SLOT));
    TRY(invertible_add_net(a, at, place, &nets[1], INVERTIBLE_SLOT + 4));
    if (lm && peft__opt_bool(&a->opts, "inv_head")) { TRY(peft__adapter_attach(a, head, &at)); }
out:
    return st;
}

bool peft__invertible_init(const peft__adapter *a, size_t i, peft__rng *rng) {
    const peft__adapter_param *p = peft__adapter_param_at(a, i);
    if (p->slot < INVERTIBLE_SLOT || p->slot >= INVERTIBLE_SLOT + 8) { return false; }
    bool matrix = (p->slot - INVERTIBLE_SLOT) % 2 == 0; /* whatever init_weights says of the bottlenecks */
    for (int64_t e = 0; e < p->p.rows * p->p.cols; e++) { p->p.value[e] = PEFT__R(matrix ? 0.02 * peft__rng_normal(rng) : 0); }
    return true;
}

/* ---- the networks ------------------------------------------------------------------------------------------------ */

/* One of the two networks of a x; slot: its first parameter's. */
static peft__val invertible_network(const peft__adapter *a, peft__tape *t, peft__val x, int32_t act, int32_t slot) {
    int32_t p[4] = {PEFT__NONE, PEFT__NONE, PEFT__NONE, PEFT__NONE};
    for (size_t i = 0; i < peft__adapter_param_count(a); i++) {
        int32_t k = peft__adapter_param_at(a, i)->slot - slot;
        if (k >= 0 && k < 4) { p[k] = peft__adapter_tape_copy(a, (int32_t)i, t); }
    }
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    x = peft__op_linear(t, x, NULL, NULL, p[0], p[1], peft__tape_param_at(t, p[0])->rows);
    x = peft__op_act(t, act, x);
    return peft__op_linear(t, x, NULL, NULL, p[2], p[3], peft__tape_param_at(t, p[2])->rows);
}

static peft__val invertible_minus(peft__tape *t, peft__val x, peft__val y) {
    return peft__op_add(t, x, peft__op_scale_all(t, y, -1, PEFT__NONE));
}

static void invertible_nice(const peft__adapter *a, peft__tape *t, peft__val x[2], int32_t act, bool inverse) {
    enum { F = INVERTIBLE_SLOT, G = INVERTIBLE_SLOT + 4 };
    if (inverse) {
        x[1] = invertible_minus(t, x[1], invertible_network(a, t, x[0], act, G));
        x[0] = invertible_minus(t, x[0], invertible_network(a, t, x[1], act, F));
    } else {
        x[0] = peft__op_add(t, x[0], invertible_network(a, t, x[1], act, F));
        x[1] = peft__op_add(t, x[1], invertible_network(a, t, x[0], act, G));
    }
}

static void invertible_glow(const peft__adapter *a, peft__tape *t, peft__val x[2], int32_t act, bool inverse) {
    enum { S1 = INVERTIBLE_SLOT, S2 = INVERTIBLE_SLOT + 4 };
    if (inverse) {
        x[1] = peft__op_couple(t, x[1], invertible_network(a, t, x[0], act, S1), true);
        x[0] = peft__op_couple(t, x[0], invertible_network(a, t, x[1], act, S2), true);
    } else {
        x[0] = peft__op_couple(t, x[0], invertible_network(a, t, x[1], act, S2), false);
        x[1] = peft__op_couple(t, x[1], invertible_network(a, t, x[0], act, S1), false);
    }
}

peft__val peft__invertible_emit(const peft__adapter *a, peft__tape *t, peft__val x, int32_t act, bool inverse) {
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    int64_t width = peft__tape_value(t, x)->cols, first = width / 2;
    peft__val half[2] = {peft__op_columns(t, x, 0, first), peft__op_columns(t, x, first, width - first)};
    if (t->status != PEFT_OK) { return PEFT__NONE; }
    if (invertible_is(&a->opts, "nice")) {
        invertible_nice(a, t, half, act, inverse);
    } else {
        invertible_glow(a, t, half, act, inverse);
    }
    return t->status == PEFT_OK ? peft__op_join(t, half[0], half[1]) : PEFT__NONE;
}

/* ---- AdapterHub's config ----------------------------------------------------------------------------------------- */

void peft__invertible_config_out(const peft__adapter *a, peft__json_out *j) {
    peft__json_key(j, "inv_adapter");
    if (!peft__invertible_on(a)) {
        peft__json_put_null(j);
        peft__json_key(j, "inv_adapter_reduction_factor"), peft__json_put_null(j);
        return;
    }
    peft__json_put_text(j, peft__opt_str(&a->opts, "inv_adapter"));
    peft__config_put(&a->opts, "inv_adapter_reduction_factor", j);
}

peft_status peft__invertible_config_in(peft__optset *opts, const peft__json *config, const char *what) {
    peft_status st = PEFT_OK;
    const peft__json *c = peft__json_find(config, "config"), *model = peft__json_find(config, "model_class");
    TRY(peft__config_get(opts, c, what, "inv_adapter"));
    TRY(peft__config_get(opts, c, what, "inv_adapter_reduction_factor"));
    if (invertible_is(opts, "none") || model == NULL || model->kind != PEFT__JSON_STRING) { goto out; }
    for (size_t i = 0; i < PEFT__COUNT(invertible_undoing); i++) {
        if (strcmp(model->str, invertible_undoing[i]) != 0) { continue; }
        FAIL(PEFT_E_UNSUPPORTED, "%s: model_class is \"%s\", whose head undoes the encoder's bijection (inv_adapter) on the decoder's "
             "states; here nothing does", what, model->str);
    }
    TRY(peft__opt_set_bool(opts, "inv_head", invertible_class_row(model->str, 1) == PEFT__COUNT(invertible_classes)));
out:
    return st;
}

const char *peft__invertible_class(const peft__adapter *a, const char *model_class) {
    size_t row = invertible_class_row(a->base->model_type, 0);
    if (!peft__invertible_on(a) || row == PEFT__COUNT(invertible_classes)) { return model_class; }
    return invertible_classes[row][peft__opt_bool(&a->opts, "inv_head") ? 2 : 1];
}
