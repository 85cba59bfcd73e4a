/* model_stories_test.c - the trained stories260K model in five types of GGUF against the numbers of its reference file:
 * llama2.c's own forward pass in float over the dequantised weights. Skipped without PEFT_TESTDATA. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit/model_kit.h"

static const char *stories_path(const char *name, char out[512]) {
    const char *root = getenv("PEFT_TESTDATA");
    if (root == NULL || root[0] == '\0') { return NULL; }
    (void)snprintf(out, 512, "%s/models/stories260k/%s", root, name);
    return peft__path_exists(out) ? out : NULL;
}

typedef struct stories_case {
    int32_t ids[512];
    int64_t n;
    const peft__json *node;
} stories_case;

static void stories_check_f32(const struct peft_model *m, const stories_case *c) {
    static float logits[512 * 512];
    const peft__json *nll = peft__json_get(c->node, "nll"), *last = peft__json_get(c->node, "last_logits");
    CHECK_OK(kit_forward(m, c->ids, c->n, logits, NULL));
    double largest = 0, worst = 0;
    for (size_t i = 0; i < last->len; i++) {
        largest = PEFT__MAX(largest, fabs(last->items[i].num));
        worst = PEFT__MAX(worst, fabs((double)logits[(size_t)(c->n - 1) * 512 + i] - last->items[i].num));
    }
    CHECK(worst <= 1e-5 * largest);
    for (int64_t t = 0; t + 1 < c->n; t++) {
        const float *row = logits + t * 512;
        double max = (double)row[0], sum = 0;
        for (int32_t i = 0; i < 512; i++) { max = PEFT__MAX(max, (double)row[i]); }
        for (int32_t i = 0; i < 512; i++) { sum += exp((double)row[i] - max); }
        CHECK_NEAR(log(sum) + max - (double)row[c->ids[t + 1]], nll->items[t].num, 1e-4);
    }
}

static void stories_check(const char *variant, const char *isa) {
    char name[64], path[512], ref[512];
    peft_context ctx;
    struct peft_model *m = NULL;
    peft__file file;
    peft__arena a;
    kit_context(&ctx);
    if (peft__kernels_find(isa, &ctx.kernels) != PEFT_OK) { return; }
    (void)snprintf(name, sizeof name, "stories260k-%s.gguf", variant);
    if (stories_path(name, path) == NULL || stories_path("reference.jsonl", ref) == NULL) { return; }
    CHECK_OK(peft__model_open(&ctx, path, false, NULL, &m));
    CHECK_OK(peft__file_open(&ctx.mem, ref, false, &file));
    peft__arena_init(&a, &ctx.mem);
    const char *at = (const char *)file.data, *end = at + file.size;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) { stop = end; }
        stories_case c;
        CHECK_OK(peft__json_parse(&a, at, (size_t)(stop - at), "reference.jsonl", &c.node));
        at = stop + 1;
        const peft__json *ids = peft__json_get(c.node, "ids");
        const peft__json *mean = peft__json_get(peft__json_get(c.node, "mean_nll"), variant);
        c.n = (int64_t)ids->len;
        for (size_t i = 0; i < ids->len; i++) { c.ids[i] = (int32_t)ids->items[i].i; }
        if (strcmp(variant, "f32") == 0) { stories_check_f32(m, &c); }
        if (c.n < 2) { continue; }
        double nll = 0;
        CHECK_OK(kit_forward(m, c.ids, c.n, NULL, &nll));
        CHECK(mean != NULL);
        CHECK_NEAR(nll / (double)(c.n - 1), mean->num, 1e-5);
    }
    peft__arena_free(&a);
    peft__file_close(&file);
    peft__model_release(m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_stories_f32_equals_reference) { stories_check("f32", "generic"); }
TEST(model_stories_f32_on_this_cpu) { stories_check("f32", "auto"); }
TEST(model_stories_f16) { stories_check("f16", "auto"); }
TEST(model_stories_q8_0) { stories_check("q8_0", "auto"); }
TEST(model_stories_q4_0) { stories_check("q4_0", "generic"); }
TEST(model_stories_q4_1) { stories_check("q4_1", "auto"); }
