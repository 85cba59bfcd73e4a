/* Weighted combinations: golden vectors of Hugging Face PEFT, the algebra of each type, different ranks and modules, errors. */

#include <math.h>

#include "peft/combine.h"
#include "peft/lora.h"
#include "peft_fake.h"

typedef struct combine_world {
    fake_base b;
    struct peft_adapters *s;
} combine_world;

/* Three matrices: of the golden vectors' size, another of it, and a larger one. */
static peft_status combine_begin(combine_world *w) {
    memset(w, 0, sizeof *w);
    fake_start(&w->b, "llama");
    fake_site(&w->b, PEFT__SITE_LINEAR, PEFT__ROLE_Q, 0, "m.one", 4, 3, false, false);
    fake_site(&w->b, PEFT__SITE_LINEAR, PEFT__ROLE_K, 0, "m.two", 4, 3, false, false);
    fake_site(&w->b, PEFT__SITE_LINEAR, PEFT__ROLE_V, 0, "m.wide", 12, 9, true, false);
    peft__mem mem;
    peft__mem_init(&mem, NULL);
    peft_context *ctx = peft__alloc_zero(&mem, sizeof *ctx);
    peft__mem_init(&ctx->mem, NULL);
    ctx->magic = PEFT__MAGIC_CONTEXT;
    atomic_init(&ctx->refs, 1);
    ctx->kernels = &peft__kernels_generic;
    peft_status st = peft__set_create(ctx, &w->b.info, &w->s);
    peft__ctx_release(ctx);
    return st;
}

static void combine_end(combine_world *w) {
    peft__set_release(w->s);
    fake_end(&w->b);
}

static peft_status combine_options(combine_world *w, const char *schema_of, const char *const *settings, peft__optset *o) {
    const peft__schema *schema = schema_of != NULL ? peft__method_find(schema_of)->schema : &peft__schema_combine;
    peft_status st = peft__optset_init(o, &w->s->ctx->mem, schema);
    for (size_t i = 0; settings != NULL && settings[i] != NULL && st == PEFT_OK; i++) {
        char key[64];
        size_t n = strcspn(settings[i], "=");
        memcpy(key, settings[i], n);
        key[n] = '\0';
        st = peft__opt_set_text(o, key, settings[i] + n + 1);
    }
    return st;
}

static peft_status combine_add(combine_world *w, const char *name, const char *method, const char *const *settings) {
    peft__adapter *a = NULL;
    peft__optset o;
    peft_status st = combine_options(w, method, settings, &o);
    if (st == PEFT_OK) {
        st = peft__adapter_create(&w->s->ctx->mem, w->s->ctx->kernels, &w->s->base, name, peft__method_find(method), &o, 1, &a);
    }
    if (st == PEFT_OK) { st = peft__set_add(w->s, a, false); }
    peft__optset_free(&o);
    return st;
}

static peft__adapter *combine_get(combine_world *w, const char *name) {
    for (size_t i = 0; i < w->s->list.len; i++) {
        peft__adapter *a = PEFT__VEC_AT(&w->s->list, peft__adapter *, i);
        if (strcmp(a->name, name) == 0) { return a; }
    }
    return NULL;
}

/* "Fill rule" of the golden vectors. */
static void combine_fill(combine_world *w, const char *name, const char *tensor, int64_t seed) {
    const peft__param *p = &peft__adapter_find(combine_get(w, name), tensor, NULL)->p;
    for (int64_t i = 0; i < p->rows * p->cols; i++) { p->value[i] = PEFT__R((double)((i * 37 + seed * 17) % 101 - 50) / 100); }
}

static peft_status combine_make(combine_world *w, const char *expression, const char *const *settings, peft__adapter **out) {
    peft__optset o;
    *out = NULL;
    peft_status st = combine_options(w, NULL, settings, &o);
    if (st == PEFT_OK) { st = peft__combine(w->s, "new", expression, &o, out); }
    peft__optset_free(&o);
    return st;
}

/* What the adapter adds to the weight of a site. */
static void combine_delta(const peft__adapter *a, const char *path, double *out) {
    const peft__attachment *all = a->attachments.data;
    for (size_t k = 0; k < a->attachments.len; k++) {
        const peft__site *s = &a->base->sites[all[k].site];
        if (strcmp(s->path, path) != 0) { continue; }
        const peft__real *pa = peft__lora_param(a, &all[k], PEFT__LORA_A)->value, *pb = peft__lora_param(a, &all[k], PEFT__LORA_B)->value;
        for (int64_t e = 0; e < s->out * s->in; e++) {
            out[e] = 0;
            for (int64_t r = 0; r < all[k].rank; r++) {
                out[e] += all[k].scale * (double)pb[e / s->in * all[k].rank + r] * (double)pa[r * s->in + e % s->in];
            }
        }
    }
}

static double combine_apart(const double *a, const double *b, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) { most = fmax(most, fabs(a[i] - b[i])); }
    return most;
}

/* The two adapters of the golden vectors, at m.one. */
static peft_status combine_golden(combine_world *w) {
    peft_status st = combine_begin(w);
    if (st == PEFT_OK) { st = combine_add(w, "a", "lora", FAKE("r=2", "lora_alpha=4", "target_modules=one")); }
    if (st == PEFT_OK) { st = combine_add(w, "b", "lora", FAKE("r=2", "lora_alpha=2", "target_modules=one")); }
    if (st != PEFT_OK) { return st; }
    combine_fill(w, "a", "m.one.lora_A.weight", 3);
    combine_fill(w, "a", "m.one.lora_B.weight", 4);
    combine_fill(w, "b", "m.one.lora_A.weight", 8);
    combine_fill(w, "b", "m.one.lora_B.weight", 7);
    return st;
}

static const double combine_exact[12] = {-0.2884, 0.20496, -0.22684, 0.24632, 0.21356, -0.15992,
                                         0.1736,  -0.111,  0.07316,  -0.242,  0.14984, 0.03264};

TEST(combine_golden_deltas) {
    static const struct {
        const char *settings[4];
        double delta[12];
    } cases[] = {
        {{"type=linear"},
         {-0.1533, -0.0142483, -0.0936107, 0.3471254, 0.0718782, 0.0508359, 0.0300476, -0.0980443, -0.1283814, -0.0911037, -0.053572,
          0.1746682}},
        {{"type=ties", "density=0.5"},
         {-0.0814884, -0.1862301, 0.0019413, 0.23736, 0.0496016, 0.1726508, -0.002548, -0.14448, -0.0501157, -0.22688, 0.0037828,
          0.1459772}},
        {{"type=ties", "density=0.5", "majority_sign_method=frequency"},
         {-0.0814884, -0.1862301, 0.0019413, 0.1338529, 0.0496016, 0.1726508, -0.002548, -0.0814757, -0.0501157, -0.22688, 0.0037828,
          0.08232}},
        {{"type=magnitude_prune", "density=0.5"},
         {-0.1629768, -0.1862301, 0.0038827, 0.3712129, 0.0992033, 0.1726508, -0.005096, -0.2259557, -0.1002313, -0.22688, 0.0075656,
          0.2282972}},
        {{"type=svd", "svd_rank=2", "compat=true"},
         {-0.5667228, 0.3710825, -0.4021104, 0.4901119, 0.3479308, -0.2618375, 0.2669312, -0.2961934, 0.0770616, -0.4074018, 0.265186,
          -0.0172921}},
    };
    combine_world w;
    double delta[12];
    CHECK_OK(combine_golden(&w));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        peft__adapter *made;
        CHECK_OK(combine_make(&w, "a:0.6,b:-0.4", cases[i].settings, &made));
        combine_delta(made, "m.one", delta);
        CHECK_NEAR(combine_apart(delta, cases[i].delta, 12), 0, 3e-7);
        CHECK_NEAR(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).scale, 1, 0);
        CHECK_INT(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).rank, 2);
        peft__adapter_release(made);
    }
    combine_end(&w);
}

TEST(combine_golden_factors) {
    static const double linear_a[8] = {0.1058228, 0.2771289, -0.0191844, 0.1521218, 0.3234279, 0.0271145, 0.1984207, -0.7366728};
    static const double linear_b[6] = {-0.0052056, -0.472282, 0.1670412, 0.1675844, -0.2994919, -0.2989488};
    static const double ties_a[8] = {0.0, 0.4162692, -0.0095922, 0.0, 0.1617139, 0.2023858, 0.0, -0.4710414};
    static const double ties_b[6] = {-0.2023858, -0.5039048, 0.2656313, 0.3067246, -0.3943603, -0.3099032};
    combine_world w;
    peft__adapter *made;
    CHECK_OK(combine_golden(&w));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(combine_make(&w, "a:0.6,b:-0.4", i == 0 ? FAKE("type=linear") : FAKE("type=ties", "density=0.5"), &made));
        const peft__real *a = peft__adapter_find(made, "m.one.lora_A.weight", NULL)->p.value;
        const peft__real *b = peft__adapter_find(made, "m.one.lora_B.weight", NULL)->p.value;
        for (int e = 0; e < 8; e++) { CHECK_NEAR(a[e], (i == 0 ? linear_a : ties_a)[e], 2e-7); }
        for (int e = 0; e < 6; e++) { CHECK_NEAR(b[e], (i == 0 ? linear_b : ties_b)[e], 2e-7); }
        peft__adapter_release(made);
    }
    combine_end(&w);
}

/* cat, the default, is the sum exactly, of rank 4; so is svd at that rank (at most 3 here), and without compat s counts once. */
TEST(combine_exact_types) {
    combine_world w;
    peft__adapter *made;
    double delta[12];
    CHECK_OK(combine_golden(&w));
    CHECK_OK(combine_make(&w, "a:0.6,b:-0.4", NULL, &made));
    combine_delta(made, "m.one", delta);
    CHECK_NEAR(combine_apart(delta, combine_exact, 12), 0, 1e-7);
    CHECK_INT(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).rank, 4);
    CHECK_STR(peft__opt_str(&made->opts, "target_modules"), "[\"one\"]");
    CHECK_INT(peft__opt_int(&made->opts, "r"), 4);
    CHECK_NEAR(peft__opt_float(&made->opts, "lora_alpha"), 4, 0);
    CHECK_STR(made->name, "new");
    peft__adapter_release(made);
    CHECK_OK(combine_make(&w, " a : 0.6 , b:-0.4 ", FAKE("type=svd", "svd_rank=16"), &made));
    combine_delta(made, "m.one", delta);
    CHECK_NEAR(combine_apart(delta, combine_exact, 12), 0, 1e-7);
    CHECK_INT(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).rank, 3);
    peft__adapter_release(made);
    CHECK_OK(combine_make(&w, "a,b:0", FAKE("type=linear"), &made)); /* a name alone weighs 1 */
    double own[12];
    combine_delta(combine_get(&w, "a"), "m.one", own);
    combine_delta(made, "m.one", delta);
    CHECK_NEAR(combine_apart(delta, own, 12), 0, 1e-7);
    peft__adapter_release(made);
    combine_end(&w);
}

/* Singular values and the best approximation: the error of rank 1 is the second singular value's share. */
TEST(combine_svd_truncates) {
    combine_world w;
    peft__adapter *made;
    double full[108], cut[108], rest = 0, both = 0;
    CHECK_OK(combine_begin(&w));
    CHECK_OK(combine_add(&w, "a", "lora", FAKE("r=1", "lora_alpha=1", "target_modules=wide")));
    CHECK_OK(combine_add(&w, "b", "lora", FAKE("r=1", "lora_alpha=1", "target_modules=wide")));
    for (int i = 0; i < 2; i++) { /* orthogonal pairs: 3 e1 e1' and 2 e2 e2' */
        const peft__adapter *a = combine_get(&w, i == 0 ? "a" : "b");
        peft__real *pa = peft__adapter_find(a, "m.wide.lora_A.weight", NULL)->p.value;
        peft__real *pb = peft__adapter_find(a, "m.wide.lora_B.weight", NULL)->p.value;
        memset(pa, 0, 12 * sizeof *pa);
        memset(pb, 0, 9 * sizeof *pb);
        pa[i] = 1;
        pb[i] = PEFT__R(3 - i);
    }
    static const char *const types[] = {"type=svd", "type=magnitude_prune_svd"};
    for (int t = 0; t < 2; t++) { /* through QR, and through the whole matrix */
        rest = both = 0;
        CHECK_OK(combine_make(&w, "a,b", FAKE(types[t], "svd_rank=2", "density=1"), &made));
        combine_delta(made, "m.wide", full);
        peft__adapter_release(made);
        CHECK_OK(combine_make(&w, "a,b", FAKE(types[t], "density=1"), &made)); /* rank 1: the largest of the sources */
        combine_delta(made, "m.wide", cut);
        CHECK_INT(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).rank, 1);
        peft__adapter_release(made);
        for (int e = 0; e < 108; e++) {
            rest += (full[e] - cut[e]) * (full[e] - cut[e]);
            both += full[e] * full[e];
        }
        CHECK_NEAR(full[0], 3, 1e-6);
        CHECK_NEAR(full[13], 2, 1e-6);
        CHECK_NEAR(both, 13, 1e-5);
        CHECK_NEAR(rest, 4, 1e-5);
        CHECK_NEAR(cut[0], 3, 1e-6);
    }
    CHECK_OK(combine_make(&w, "a,b", FAKE("type=svd", "svd_rank=2", "svd_clamp=0.99"), &made));
    combine_delta(made, "m.wide", cut);
    CHECK(cut[0] < 2.99 && cut[0] > 0.5);
    peft__adapter_release(made);
    combine_end(&w);
}

/* Ranks by module and modules that one source lacks. */
TEST(combine_unions) {
    combine_world w;
    peft__adapter *made;
    double got[108], one[108], other[108], s[12];
    CHECK_OK(combine_begin(&w));
    CHECK_OK(combine_add(&w, "a", "lora", FAKE("r=2", "lora_alpha=3", "target_modules=one,wide", "init_lora_weights=false",
                                               "rank_pattern={\"wide\":3}", "alpha_pattern={\"wide\":5}")));
    CHECK_OK(combine_add(&w, "b", "lora", FAKE("r=1", "target_modules=two,wide", "init_lora_weights=false", "use_rslora=true")));
    CHECK_OK(combine_make(&w, "a:2,b:-1", NULL, &made));
    combine_delta(made, "m.wide", got);
    combine_delta(combine_get(&w, "a"), "m.wide", one);
    combine_delta(combine_get(&w, "b"), "m.wide", other);
    for (int e = 0; e < 108; e++) { CHECK_NEAR(got[e], 2 * one[e] - other[e], 2e-6); }
    combine_delta(made, "m.one", got);
    combine_delta(combine_get(&w, "a"), "m.one", s);
    for (int e = 0; e < 12; e++) { CHECK_NEAR(got[e], 2 * s[e], 1e-6); }
    combine_delta(made, "m.two", got);
    combine_delta(combine_get(&w, "b"), "m.two", s);
    for (int e = 0; e < 12; e++) { CHECK_NEAR(got[e], -s[e], 1e-6); }
    CHECK_STR(peft__opt_str(&made->opts, "target_modules"), "[\"one\",\"two\",\"wide\"]");
    CHECK_STR(peft__opt_str(&made->opts, "rank_pattern"), "{\"two\":1,\"wide\":4}");
    CHECK_STR(peft__opt_str(&made->opts, "alpha_pattern"), "{\"two\":1,\"wide\":4}");
    CHECK(!peft__opt_bool(&made->opts, "use_rslora"));
    peft__adapter_release(made);
    CHECK_STATUS(combine_make(&w, "a,b", FAKE("type=linear"), &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("\"m.wide\" has rank 1 in adapter \"b\" and 3 in another");
    combine_end(&w);
}

/* What is kept, how much, and that the seed chooses. */
TEST(combine_prunes) {
    combine_world w;
    peft__adapter *made, *again;
    CHECK_OK(combine_golden(&w));
    static const char *const types[] = {"type=dare_linear", "type=dare_ties", "type=dare_linear_svd", "type=dare_ties_svd"};
    for (size_t t = 0; t < 4; t++) {
        CHECK_OK(combine_make(&w, "a:0.5,b:0.5", FAKE(types[t], "seed=1"), &made));
        CHECK_OK(combine_make(&w, "a:0.5,b:0.5", FAKE(types[t], "seed=1"), &again));
        CHECK_MEM(made->values, again->values, (size_t)made->n_values * sizeof *made->values);
        peft__adapter_release(again);
        CHECK_OK(combine_make(&w, "a:0.5,b:0.5", FAKE(types[t], "seed=2"), &again));
        CHECK(memcmp(made->values, again->values, (size_t)made->n_values * sizeof *made->values) != 0);
        peft__adapter_release(again);
        peft__adapter_release(made);
    }
    /* density 1 drops nothing; 0 drops all */
    double delta[12];
    CHECK_OK(combine_make(&w, "a:0.6,b:-0.4", FAKE("type=dare_linear_svd", "density=1", "svd_rank=3"), &made));
    combine_delta(made, "m.one", delta);
    CHECK_NEAR(combine_apart(delta, combine_exact, 12), 0, 1e-7);
    peft__adapter_release(made);
    CHECK_OK(combine_make(&w, "a:0.6,b:-0.4", FAKE("type=dare_linear", "density=0"), &made));
    for (int64_t e = 0; e < made->n_values; e++) { CHECK_NEAR(made->values[e], 0, 0); }
    peft__adapter_release(made);
    combine_end(&w);
}

TEST(combine_operations) {
    double v[6] = {3, -1, 2, -2, 0.5, 0};
    CHECK_NEAR(peft__mix_nth(v, 6, 1), 3, 0);
    CHECK_NEAR(peft__mix_nth(v, 6, 2), 2, 0);
    CHECK_NEAR(peft__mix_nth(v, 6, 4), 1, 0);
    CHECK_NEAR(peft__mix_nth(v, 6, 6), 0, 0);
    peft__mix_prune(v, 6, PEFT__PRUNE_MAGNITUDE, 0.34, 0); /* 2.04: two, and of 2 and -2 the first */
    static const double kept[6] = {3, 0, 2, 0, 0, 0};
    CHECK_MEM(v, kept, sizeof kept);
    enum { MANY = 20000 };
    static double many[MANY];
    double sum = 0;
    for (int i = 0; i < MANY; i++) { many[i] = 1; }
    peft__mix_prune(many, MANY, PEFT__PRUNE_RANDOM, 0.25, 7);
    for (int i = 0; i < MANY; i++) {
        CHECK(many[i] == 0 || many[i] == 4);
        sum += many[i];
    }
    CHECK_NEAR(sum / MANY, 1, 0.05); /* deviation 0.012 */
    /* three tensors of four elements; weights count after the election */
    static const double x[12] = {1, -5, 1, 0, 2, 2, -1, 0, 3, 2, 0, 0}, weights[3] = {1, 10, -2};
    double out[4];
    peft__mix_sum(x, weights, 3, 4, PEFT__ELECT_NONE, out);
    static const double plain[4] = {15, 11, -9, 0};
    CHECK_MEM(out, plain, sizeof plain);
    peft__mix_sum(x, weights, 3, 4, PEFT__ELECT_TOTAL, out); /* signs +, -, tie: +, + */
    static const double total[4] = {5, -5, 1, 0};
    CHECK_MEM(out, total, sizeof total);
    peft__mix_sum(x, weights, 3, 4, PEFT__ELECT_FREQUENCY, out);
    static const double frequency[4] = {5, 8, 1, 0};
    CHECK_MEM(out, frequency, sizeof frequency);
}

TEST(combine_ia3) {
    combine_world w;
    peft__adapter *made;
    CHECK_OK(combine_begin(&w));
    CHECK_OK(combine_add(&w, "a", "ia3", FAKE("target_modules=one,wide", "feedforward_modules=wide")));
    CHECK_OK(combine_add(&w, "b", "ia3", FAKE("target_modules=wide,two", "feedforward_modules=wide")));
    CHECK_OK(combine_add(&w, "c", "ia3", FAKE("target_modules=wide,two", "feedforward_modules=two")));
    combine_fill(&w, "a", "m.one.ia3_l", 3);
    combine_fill(&w, "a", "m.wide.ia3_l", 4);
    combine_fill(&w, "b", "m.wide.ia3_l", 5);
    const peft__real *x = peft__adapter_find(combine_get(&w, "a"), "m.wide.ia3_l", NULL)->p.value;
    const peft__real *y = peft__adapter_find(combine_get(&w, "b"), "m.wide.ia3_l", NULL)->p.value;
    const peft__real *o = peft__adapter_find(combine_get(&w, "a"), "m.one.ia3_l", NULL)->p.value;
    for (int compat = 0; compat < 2; compat++) {
        CHECK_OK(combine_make(&w, "a:0.75,b:0.5", FAKE(compat ? "compat=true" : "type=linear"), &made));
        const peft__param *wide = &peft__adapter_find(made, "m.wide.ia3_l", NULL)->p;
        const peft__param *one = &peft__adapter_find(made, "m.one.ia3_l", NULL)->p;
        CHECK_INT(wide->rows, 1);
        CHECK_INT(wide->cols, 12);
        for (int e = 0; e < 12; e++) { CHECK_NEAR(wide->value[e], 0.75 * (double)x[e] + 0.5 * (double)y[e], 1e-7); }
        for (int e = 0; e < 3; e++) { CHECK_NEAR(one->value[e], 0.75 * (double)o[e] + (compat ? 0 : 0.5), 1e-7); }
        peft__adapter_release(made);
    }
    CHECK_STATUS(combine_make(&w, "b,c", NULL, &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("feedforward_modules");
    CHECK_STATUS(combine_make(&w, "a,b", FAKE("type=cat"), &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("linear");
    combine_end(&w);
}

TEST(combine_averages) {
    combine_world w;
    peft__adapter *made;
    CHECK_OK(combine_begin(&w));
    CHECK_OK(combine_add(&w, "a", "loha", FAKE("r=2", "target_modules=one", "init_weights=false")));
    CHECK_OK(combine_add(&w, "b", "loha", FAKE("r=2", "target_modules=one")));
    CHECK_OK(combine_add(&w, "c", "loha", FAKE("r=3", "target_modules=one")));
    CHECK_OK(combine_add(&w, "d", "loha", FAKE("r=2", "target_modules=one", "alpha=3")));
    CHECK_OK(combine_add(&w, "e", "lora", FAKE("r=2", "target_modules=one")));
    CHECK_OK(combine_add(&w, "f", "lora", FAKE("r=2", "target_modules=one", "use_rslora=true", "lora_alpha=8")));
    CHECK_OK(combine_add(&w, "g", "loha", FAKE("r=2", "target_modules=two")));
    for (int64_t i = 0; i < 4; i++) {
        static const char *const names[] = {"w1_a", "w1_b", "w2_a", "w2_b"};
        char name[64];
        (void)snprintf(name, sizeof name, "m.one.hada_%s", names[i]);
        combine_fill(&w, "a", name, i);
        combine_fill(&w, "b", name, i + 30);
    }
    const peft__adapter *a = combine_get(&w, "a"), *b = combine_get(&w, "b");
    CHECK_OK(combine_make(&w, "a:1,b:3", FAKE("type=average"), &made));
    CHECK_STR(made->method->name, "loha");
    CHECK_INT(made->n_values, a->n_values);
    for (int64_t e = 0; e < a->n_values; e++) {
        CHECK_NEAR(made->values[e], 0.25 * (double)a->values[e] + 0.75 * (double)b->values[e], 1e-7);
    }
    peft__adapter_release(made);
    CHECK_OK(combine_make(&w, "a:1,b:3", FAKE("type=average", "normalize_weights=false"), &made));
    for (int64_t e = 0; e < a->n_values; e++) { CHECK_NEAR(made->values[e], (double)a->values[e] + 3 * (double)b->values[e], 1e-6); }
    peft__adapter_release(made);
    CHECK_STATUS(combine_make(&w, "a,c", FAKE("type=average"), &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("m.one.hada_w1_a");
    CHECK_STATUS(combine_make(&w, "a,d", FAKE("type=average"), &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("scale \"m.one\" differently");
    CHECK_STATUS(combine_make(&w, "a,e", FAKE("type=average"), &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("of method \"loha\" and \"e\" of \"lora\"");
    CHECK_STATUS(combine_make(&w, "a,g", FAKE("type=average"), &made), PEFT_E_SHAPE);
    CHECK_STATUS(combine_make(&w, "e,f", FAKE("type=average"), &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("use_rslora");
    CHECK_STATUS(combine_make(&w, "a:1,b:-1", FAKE("type=average"), &made), PEFT_E_INVALID);
    CHECK_ERROR_HAS("normalize_weights");
    CHECK_STATUS(combine_make(&w, "a,b", NULL, &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("average");
    CHECK_STATUS(combine_make(&w, "e,a", NULL, &made), PEFT_E_UNSUPPORTED);
    combine_end(&w);
}

TEST(combine_reads_expressions) {
    static const struct {
        const char *text, *says;
        peft_status st;
    } bad[] = {
        {"", "no name", PEFT_E_INVALID},          {"a,,b", "no name", PEFT_E_INVALID},
        {":1", "no name", PEFT_E_INVALID},        {"a:x", "a:x", PEFT_E_INVALID},
        {"a:", "no number", PEFT_E_INVALID},      {"a:1,a:2", "\"a\" twice", PEFT_E_INVALID},
        {"a:nan", "no number", PEFT_E_INVALID},   {"a:1e999", "no number", PEFT_E_INVALID},
        {"a:1:2", "no number", PEFT_E_INVALID},   {"a,nobody", "\"nobody\"", PEFT_E_NOT_FOUND},
    };
    combine_world w;
    peft__adapter *made;
    CHECK_OK(combine_golden(&w));
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        CHECK_STATUS(combine_make(&w, bad[i].text, NULL, &made), bad[i].st);
        CHECK_ERROR_HAS(bad[i].says);
        CHECK(made == NULL);
    }
    CHECK_INT(combine_get(&w, "a")->refs, 1); /* nothing is left pinned */
    char many[512] = "n0";
    for (int i = 1; i <= PEFT__COMBINE_MAX; i++) { (void)snprintf(many + strlen(many), 8, ",n%d", i); }
    CHECK_STATUS(combine_make(&w, many, NULL, &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("64");
    combine_end(&w);
}

TEST(combine_refuses) {
    combine_world w;
    peft__adapter *made;
    CHECK_OK(combine_golden(&w));
    CHECK_OK(combine_add(&w, "dora", "dora", FAKE("r=2", "target_modules=one")));
    CHECK_OK(combine_add(&w, "bias", "lora", FAKE("r=2", "target_modules=wide", "bias=lora_only")));
    CHECK_OK(combine_add(&w, "saved", "lora", FAKE("r=2", "target_modules=one", "modules_to_save=two")));
    CHECK_OK(combine_add(&w, "ia3", "ia3", FAKE("target_modules=one", "feedforward_modules=[]")));
    CHECK_OK(combine_add(&w, "fa", "lora_fa", FAKE("r=2", "target_modules=one")));
    CHECK_STATUS(combine_make(&w, "a,dora", NULL, &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("use_dora");
    CHECK_STATUS(combine_make(&w, "a,bias", NULL, &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("bias");
    CHECK_STATUS(combine_make(&w, "a,saved", NULL, &made), PEFT_E_UNSUPPORTED);
    CHECK_ERROR_HAS("m.two.weight");
    CHECK_STATUS(combine_make(&w, "a,ia3", NULL, &made), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("do not combine");
    CHECK_OK(combine_make(&w, "a,fa", NULL, &made)); /* files of both are LoRA's */
    CHECK_STR(made->method->name, "lora");
    peft__adapter_release(made);
    const peft__adapter *a = combine_get(&w, "a");
    a->values[0] = (peft__real)NAN;
    CHECK_STATUS(combine_make(&w, "a,b", NULL, &made), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("NaN");
    combine_end(&w);
}

/* A fresh PiSSA adapter is combined as the LoRA of twice the rank that its file would hold. */
TEST(combine_takes_what_files_hold) {
    combine_world w;
    peft__adapter *made;
    double delta[12];
    CHECK_OK(combine_golden(&w));
    CHECK_OK(combine_add(&w, "p", "lora", FAKE("r=2", "lora_alpha=2", "target_modules=one", "init_lora_weights=pissa")));
    CHECK_OK(combine_make(&w, "p", NULL, &made));
    CHECK_INT(PEFT__VEC_AT(&made->attachments, peft__attachment, 0).rank, 4);
    combine_delta(made, "m.one", delta);
    for (int e = 0; e < 12; e++) { CHECK_NEAR(delta[e], 0, 1e-6); }
    peft__adapter_release(made);
    combine_end(&w);
}
