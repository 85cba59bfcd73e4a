/* OFT and BOFT over bases made of sites: shapes, what the options mean for them, the rotations against formulas, merging and
 * taking out again, bad input, failed allocations. */
#include <math.h>

#include "peft_fake.h"

typedef struct oft_run {
    peft__pool *pool;
    peft__run run;
} oft_run;

static peft_status oft_start(oft_run *m, peft__mem *mem) {
    peft_status st = peft__pool_create(mem, 2, &m->pool);
    if (st != PEFT_OK) { return st; }
    size_t size = peft__scratch_size(&peft__kernels_generic, 8, 64);
    m->run = (peft__run){.k = &peft__kernels_generic, .pool = m->pool, .workers = 2, .scratch_size = size};
    m->run.scratch = peft__alloc(mem, 2 * size);
    return m->run.scratch != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

static void oft_end(oft_run *m, peft__mem *mem) {
    peft__free(mem, m->run.scratch, 2 * m->run.scratch_size);
    peft__pool_free(m->pool);
}

static bool oft_has(const peft__adapter *a, const char *key, int32_t ndim, const int64_t *dims) {
    const peft__adapter_param *p = peft__adapter_find(a, key, NULL);
    return p != NULL && p->ndim == ndim && memcmp(p->dims, dims, (size_t)ndim * sizeof *dims) == 0;
}

#define OFT_DIMS(...) ((const int64_t[]){__VA_ARGS__})
#define OFT_Q "model.layers.0.self_attn.q_proj."
#define OFT_DOWN "model.layers.1.mlp.down_proj."

TEST(oft_shapes) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "oft", FAKE("oft_block_size=4", "target_modules=q_proj,down_proj"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * (2 * 6 + 3 * 6)); /* in / b blocks of b (b - 1) / 2: 8 and 12 columns */
    CHECK(oft_has(a, OFT_Q "oft_R.weight", 2, OFT_DIMS(2, 6)) && oft_has(a, OFT_DOWN "oft_R.weight", 2, OFT_DIMS(3, 6)));
    for (int64_t i = 0; i < a->n_values; i++) { CHECK_NEAR(a->values[i], 0, 0); }
    peft__adapter_release(a);
    a = fake_adapter(&b, "oft", FAKE("r=2", "target_modules=q_proj,down_proj", "init_weights=false"), 1, &st);
    CHECK_OK(st);
    CHECK(oft_has(a, OFT_Q "oft_R.weight", 2, OFT_DIMS(2, 6)) && oft_has(a, OFT_DOWN "oft_R.weight", 2, OFT_DIMS(2, 15)));
    CHECK_INT(peft__opt_int(&a->opts, "oft_block_size"), 0); /* as PEFT wants it in the file */
    CHECK(fabs((double)a->values[0]) > 1e-4 && fabs((double)a->values[0]) < 0.5);
    peft__adapter_release(a);
    a = fake_adapter(&b, "oft", FAKE("oft_block_size=4", "block_share=true", "target_modules=down_proj"), 1, &st);
    CHECK_OK(st);
    CHECK(oft_has(a, OFT_DOWN "oft_R.weight", 2, OFT_DIMS(1, 6)));
    peft__adapter_release(a);
    a = fake_adapter(&b, "oft", FAKE("target_modules=q_proj,down_proj"), 1, &st); /* the default goes to the nearest divisor */
    CHECK_OK(st);
    CHECK(oft_has(a, OFT_Q "oft_R.weight", 2, OFT_DIMS(1, 28)) && oft_has(a, OFT_DOWN "oft_R.weight", 2, OFT_DIMS(1, 66)));
    CHECK_INT(peft__opt_int(&a->opts, "oft_block_size"), 32);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(oft_sizes_of_a_file_are_adjusted) {
    static const int64_t given[][3] = {{5, 4, 4}, {7, 8, 6}, {9, 8, 6}, {3, 2, 3}, {13, 8, 12}}; /* size, of 8, of 12 columns */
    fake_base b;
    fake_llama(&b);
    for (size_t i = 0; i < PEFT__COUNT(given); i++) {
        peft__optset opts;
        peft__adapter *a = NULL;
        CHECK_OK(peft__optset_init(&opts, b.mem, peft__method_oft.schema));
        CHECK_OK(peft__opt_set_int(&opts, "oft_block_size", given[i][0]));
        CHECK_OK(peft__opt_set_text(&opts, "target_modules", "q_proj,down_proj"));
        CHECK_OK(peft__adapter_create_empty(b.mem, &b.info, "a", &peft__method_oft, &opts, &a));
        int64_t q = given[i][1], down = given[i][2];
        CHECK(oft_has(a, OFT_Q "oft_R.weight", 2, OFT_DIMS(8 / q, q * (q - 1) / 2)));
        CHECK(oft_has(a, OFT_DOWN "oft_R.weight", 2, OFT_DIMS(12 / down, down * (down - 1) / 2)));
        peft__adapter_release(a);
        peft__optset_free(&opts);
    }
    fake_end(&b);
}

TEST(oft_errors) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    CHECK(fake_adapter(&b, "oft", FAKE("oft_block_size=3"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("oft_block_size is 3, which does not divide the 8 columns of \"model.layers.0.self_attn.q_proj\"");
    CHECK_ERROR_HAS("2 does");
    CHECK(fake_adapter(&b, "oft", FAKE("r=5"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("r is 5, which does not divide the 8 columns");
    CHECK(fake_adapter(&b, "oft", FAKE("r=8"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("r is 8, and blocks of 1 of the 8 columns");
    CHECK(fake_adapter(&b, "oft", FAKE("r=2", "oft_block_size=4"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("r is 2 and oft_block_size is 4");
    CHECK(fake_adapter(&b, "oft", FAKE("oft_block_size=0"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("r and oft_block_size are both 0");
    CHECK(fake_adapter(&b, "oft", FAKE("num_cayley_neumann_terms=1"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "oft", FAKE("eps=0"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "oft", FAKE("target_modules=lm_head"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_UNSUPPORTED);
    fake_end(&b);
}

TEST(boft_shapes) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "boft", FAKE("target_modules=k_proj,down_proj"), 1, &st);
    CHECK_OK(st);
    CHECK_INT(a->n_trainable, 2 * (8 * 4 + 4 + 12 * 4 + 8)); /* factors in b + out */
    CHECK(oft_has(a, OFT_DOWN "boft_R", 4, OFT_DIMS(1, 3, 4, 4)) && oft_has(a, OFT_DOWN "boft_s", 2, OFT_DIMS(8, 1)));
    CHECK_NEAR(a->values[31], 0, 0);
    CHECK_NEAR(a->values[32], 1, 0);
    peft__adapter_release(a);
    a = fake_adapter(&b, "boft", FAKE("boft_block_num=4", "boft_n_butterfly_factor=3", "init_weights=false"), 1, &st);
    CHECK_OK(st);
    CHECK(oft_has(a, OFT_Q "boft_R", 4, OFT_DIMS(3, 4, 2, 2)));
    CHECK_INT(peft__opt_int(&a->opts, "boft_block_size"), 0);
    CHECK(a->values[0] != 0 && fabs((double)a->values[3 * 16]) > 0.5 && a->values[3 * 16] != 1);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(boft_errors) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    CHECK(fake_adapter(&b, "boft", FAKE("boft_block_size=3"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("boft_block_size is 3, which does not divide the 8 columns of \"model.layers.0.self_attn.q_proj\"");
    CHECK(fake_adapter(&b, "boft", FAKE("boft_block_num=5"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("boft_block_num is 5, which does not divide the 8 columns");
    CHECK(fake_adapter(&b, "boft", FAKE("boft_n_butterfly_factor=3"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("boft_n_butterfly_factor is 3, which needs a multiple of 4 blocks; \"model.layers.0.self_attn.q_proj\" has 2 of 4");
    CHECK(fake_adapter(&b, "boft", FAKE("boft_n_butterfly_factor=2", "boft_block_size=1"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_SHAPE);
    CHECK_ERROR_HAS("blocks of an even size");
    CHECK(fake_adapter(&b, "boft", FAKE("boft_block_num=2", "boft_block_size=4"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("boft_block_num is 2 and boft_block_size is 4");
    CHECK(fake_adapter(&b, "boft", FAKE("boft_block_size=0"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK(fake_adapter(&b, "boft", FAKE("boft_n_butterfly_factor=0"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    fake_end(&b);
}

/* ---- rotations ------------------------------------------------------------------------------------------------------- */

/* Blocks of two columns: Q = q J, J J = -I, so that R = c I + s J. */
TEST(oft_blocks_of_two_by_formula) {
    static const int32_t terms[] = {0, 2, 3, 4, 5, 6};
    const double q = 0.3;
    const double c[] = {(1 - q * q) / (1 + q * q), 1, 1 - 2 * q * q, 1 - 2 * q * q, 1 - 2 * q * q + pow(q, 4),
                        1 - 2 * q * q + 2 * pow(q, 4)};
    const double s[] = {-2 * q / (1 + q * q), 2 * q, 2 * q - pow(q, 3), 2 * q - pow(q, 3), 2 * q - 2 * pow(q, 3),
                        2 * q - 2 * pow(q, 3) + pow(q, 5)};
    oft_run m;
    peft__mem *mem = runner_mem();
    CHECK_OK(oft_start(&m, mem));
    for (size_t i = 0; i < PEFT__COUNT(terms); i++) {
        peft__real values[1] = {PEFT__R(q)}, mats[4], work[64];
        peft__rotation r = {.block = 2, .count = 3, .shared = true, .levels = 1, .terms = terms[i]};
        CHECK_INT(peft__rotation_values(&r), 1);
        CHECK(peft__rotation_work(&r) <= 64);
        peft__rotation_form(&r, &m.run, values, mats, work);
        CHECK_NEAR(mats[0], c[i], 1e-6);
        CHECK_NEAR(mats[3], c[i], 1e-6);
        CHECK_NEAR(mats[1], s[i], 1e-6);
        CHECK_NEAR(mats[2], -s[i], 1e-6);
    }
    oft_end(&m, mem);
}

/* Largest element of R R' - I over blocks of a rotation of 48 columns with values of that size. */
static double oft_skewness(const peft__run *run, peft__rotation r, double size) {
    static peft__real values[48 * 48], mats[48 * 48], work[6 * 48 * 48];
    double worst = 0;
    int64_t b = r.block;
    peft__rng rng = {4, 0};
    for (int64_t i = 0; i < peft__rotation_values(&r); i++) { values[i] = PEFT__R(size * peft__rng_normal(&rng)); }
    peft__rotation_form(&r, run, values, mats, work);
    for (int64_t u = 0; u < peft__rotation_units(&r); u++) {
        for (int64_t i = 0; i < b * b; i++) {
            double sum = i / b == i % b ? -1 : 0;
            for (int64_t k = 0; k < b; k++) { sum += (double)mats[u * b * b + i / b * b + k] * (double)mats[u * b * b + i % b * b + k]; }
            worst = fmax(worst, fabs(sum));
        }
    }
    return worst;
}

TEST(oft_rotations_are_orthogonal) {
    oft_run m;
    peft__mem *mem = runner_mem();
    CHECK_OK(oft_start(&m, mem));
    for (int64_t b = 2; b <= 48; b *= b == 16 ? 3 : 2) {
        peft__rotation r = {.block = b, .count = 48 / b, .levels = 1};
        CHECK_NEAR(oft_skewness(&m.run, r, 0.5), 0, 3e-6);
        CHECK_NEAR(oft_skewness(&m.run, r, 50), 0, 1e-4); /* far from the identity: the inverse is of a large matrix */
        r.square = true;
        CHECK_NEAR(oft_skewness(&m.run, r, 0.5), 0, 3e-6);
    }
    /* A series that ends with Q^m is the exact rotation times I - Q^m: R R' is I - Q^2m for an odd m, I - 2 Q^m for an even one. */
    peft__rotation r = {.block = 16, .count = 3, .levels = 1, .terms = 2};
    double two = oft_skewness(&m.run, r, 0.02), four, five, seven;
    r.terms = 4;
    four = oft_skewness(&m.run, r, 0.02);
    r.terms = 5;
    five = oft_skewness(&m.run, r, 0.02);
    r.terms = 7;
    seven = oft_skewness(&m.run, r, 0.02);
    CHECK(two > 5e-3 && five < 0.1 * two && seven < 0.1 * five && four < 0.1 * five);
    oft_end(&m, mem);
}

/* A butterfly moves each column into as many as it should, and B is a product of what the permutations of the paper say. */
TEST(boft_factors_reach) {
    enum { N = 16, B = 4 };
    oft_run m;
    peft__mem *mem = runner_mem();
    peft__real values[N * B], mats[N * B], work[6 * N * B], x[N * N], y[N * N];
    peft__rng rng = {8, 0};
    CHECK_OK(oft_start(&m, mem));
    for (int i = 0; i < N * B; i++) { values[i] = PEFT__R(0.5 * peft__rng_normal(&rng)); }
    for (int32_t level = 0; level < 3; level++) {
        peft__rotation r = {.block = B, .count = N / B, .square = true, .level = level, .levels = 3};
        peft__rotation_form(&r, &m.run, values, mats, work);
        for (int i = 0; i < N * N; i++) { x[i] = i / N == i % N ? 1 : 0; }
        peft__rotation_apply(&r, &m.run, mats, false, x, y, N); /* y = P diag(R) P' */
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                /* Column i's place before the permutation: within a group of B 2^level columns, half blocks of even number come
                 * first. place[q] of a half block q of the group is where its columns are taken from. */
                int group = B << level, half = B / 2, at[2] = {i, j}, from[2];
                for (int k = 0; k < 2; k++) {
                    int c = at[k] % group / half, n = group / half;
                    int seq = c < n / 2 ? 2 * c : 2 * (c - n / 2) + 1;
                    from[k] = at[k] / group * group + seq * half + at[k] % half;
                }
                double want = from[0] / B == from[1] / B ? (double)mats[from[0] / B * B * B + from[0] % B * B + from[1] % B] : 0;
                CHECK_NEAR(y[i * N + j], want, 1e-6);
            }
        }
        peft__rotation_apply(&r, &m.run, mats, true, y, x, N);
        for (int i = 0; i < N * N; i++) { CHECK_NEAR(x[i], i / N == i % N ? 1 : 0, 1e-5); }
    }
    oft_end(&m, mem);
}

TEST(oft_constrained_values_are_shortened) {
    fake_base b;
    peft_status st;
    fake_llama(&b);
    peft__adapter *a = fake_adapter(&b, "oft", FAKE("oft_block_size=4", "target_modules=down_proj", "coft=true", "eps=0.3",
                                    "layers_to_transform=1"), 1, &st);
    CHECK_OK(st);
    for (int i = 0; i < 6; i++) { a->values[i] = PEFT__R(0.01); }      /* |Q| is sqrt(12) 0.01 */
    for (int i = 6; i < 18; i++) { a->values[i] = PEFT__R(i < 12 ? 2 : -0.1); }
    CHECK_OK(a->method->after_step(a, NULL, 1, 1, 1, NULL));
    for (int i = 0; i < 6; i++) { CHECK_NEAR(a->values[i], 0.01, 1e-9); }
    double each = 0.3 / sqrt(3.0) / sqrt(12.0); /* eps / sqrt(blocks) = |Q| */
    for (int i = 6; i < 18; i++) { CHECK_NEAR(a->values[i], i < 12 ? each : -each, 1e-7); }
    peft__adapter_release(a);
    a = fake_adapter(&b, "oft", FAKE("oft_block_size=4", "target_modules=down_proj", "eps=0.3"), 1, &st);
    CHECK_OK(st);
    a->values[0] = 2;
    CHECK_OK(a->method->after_step(a, NULL, 1, 1, 1, NULL));
    CHECK_NEAR(a->values[0], 2, 0);
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- merging --------------------------------------------------------------------------------------------------------- */

static void oft_fill(peft__adapter *a, double size) {
    peft__rng rng = {5, 0};
    for (int64_t i = 0; i < a->n_values; i++) { a->values[i] += PEFT__R(size * peft__rng_normal(&rng)); }
}

static peft_status oft_merge_as(const peft__adapter *a, double strength, const peft__run *run, peft__real *weight) {
    peft__attachment at = PEFT__VEC_AT(&a->attachments, peft__attachment, 0);
    at.strength = strength;
    return a->method->merge(a, &at, &a->base->sites[at.site], run, weight);
}

/* Lengths of rows and angles between them stay; strength -1 gives the base back; nothing else is a factor. */
TEST(oft_merges_and_is_taken_out) {
    static const char *const how[][4] = {{"oft", "use_cayley_neumann=false", "oft_block_size=4", NULL},
                                         {"oft", "num_cayley_neumann_terms=5", "r=1", NULL},
                                         {"oft", "block_share=true", "oft_block_size=2", NULL},
                                         {"boft", "boft_block_num=4", NULL, NULL},
                                         {"boft", "boft_n_butterfly_factor=3", "boft_block_size=2", NULL}};
    fake_base b;
    oft_run m;
    peft_status st;
    fake_gpt2(&b); /* Conv1D: by the logical [out, in] weight */
    CHECK_OK(oft_start(&m, b.mem));
    const peft__site *s = &b.sites[fake_find(&b, "transformer.h.0.attn.c_attn")];
    for (size_t i = 0; i < PEFT__COUNT(how); i++) {
        peft__real w[24 * 8], base[24 * 8];
        const char *const settings[] = {how[i][1], how[i][2] != NULL ? how[i][2] : "init_weights=true", NULL};
        peft__adapter *a = fake_adapter(&b, how[i][0], settings, 1, &st);
        CHECK_OK(st);
        peft__weight_read(&peft__kernels_generic, s->weight, base);
        memcpy(w, base, sizeof w);
        CHECK_OK(oft_merge_as(a, 1, &m.run, w)); /* fresh: the identity */
        for (int e = 0; e < 24 * 8; e++) { CHECK_NEAR(w[e], base[e], 1e-7); }
        oft_fill(a, 0.15);
        const peft__param *scale = i < 3 ? NULL : &peft__adapter_find(a, "transformer.h.0.attn.c_attn.boft_s", NULL)->p;
        CHECK_OK(oft_merge_as(a, 1, &m.run, w));
        double change = 0;
        for (int o = 0; o < 24; o++) {
            double length[2] = {peft__kernels_generic.sum_sq(w + o * 8, 8), peft__kernels_generic.sum_sq(base + o * 8, 8)};
            double f = scale != NULL ? (double)scale->value[o] * (double)scale->value[o] : 1;
            for (int e = 0; e < 8; e++) { change = fmax(change, fabs((double)w[o * 8 + e] - (double)base[o * 8 + e])); }
            CHECK_NEAR(length[0] / length[1] / f, 1, i == 1 || i == 2 ? 0.3 : 1e-5); /* a series is nearly a rotation */
        }
        CHECK(change > 0.05);
        CHECK_OK(oft_merge_as(a, -1, &m.run, w));
        for (int e = 0; e < 24 * 8; e++) { CHECK_NEAR(w[e], base[e], 1e-5); }
        CHECK_STATUS(oft_merge_as(a, 0.5, &m.run, w), PEFT_E_UNSUPPORTED);
        CHECK_ERROR_HAS("merges with a factor of 1 or -1, not 0.5");
        peft__adapter_release(a);
    }
    oft_end(&m, b.mem);
    fake_end(&b);
}

TEST(boft_a_row_of_zero_stays_lost) {
    fake_base b;
    oft_run m;
    peft_status st;
    peft__real w[24 * 8];
    fake_gpt2(&b);
    CHECK_OK(oft_start(&m, b.mem));
    peft__adapter *a = fake_adapter(&b, "boft", NULL, 1, &st);
    CHECK_OK(st);
    peft__adapter_find(a, "transformer.h.0.attn.c_attn.boft_s", NULL)->p.value[7] = 0;
    peft__weight_read(&peft__kernels_generic, b.sites[fake_find(&b, "transformer.h.0.attn.c_attn")].weight, w);
    CHECK_OK(oft_merge_as(a, 1, &m.run, w));
    CHECK_STATUS(oft_merge_as(a, -1, &m.run, w), PEFT_E_NUMERIC);
    CHECK_ERROR_HAS("row 7 of \"transformer.h.0.attn.c_attn\" is multiplied by 0");
    peft__adapter_release(a);
    oft_end(&m, b.mem);
    fake_end(&b);
}

TEST(oft_every_allocation_may_fail) {
    static const char *const names[] = {"oft", "boft"};
    for (size_t i = 0; i < PEFT__COUNT(names); i++) {
        fake_base b;
        oft_run m;
        peft_status st = PEFT_E_NOMEM;
        peft__real w[24 * 8] = {0};
        fake_gpt2(&b);
        CHECK_OK(oft_start(&m, b.mem));
        size_t before = atomic_load(&b.mem->now);
        for (size_t n = 1; n < 2000 && st != PEFT_OK; n++) {
            peft__mem_fail_after(b.mem, n, true);
            peft__adapter *a = fake_adapter(&b, names[i], FAKE("modules_to_save=ln_f"), 1, &st);
            if (a != NULL) { st = oft_merge_as(a, 1, &m.run, w); }
            peft__mem_fail_after(b.mem, 0, false);
            CHECK(st == PEFT_OK || st == PEFT_E_NOMEM);
            peft__adapter_release(a);
            CHECK_INT(atomic_load(&b.mem->now), before);
        }
        CHECK_INT(st, PEFT_OK);
        oft_end(&m, b.mem);
        fake_end(&b);
    }
}
