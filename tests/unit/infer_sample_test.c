/* infer_sample_test.c - which token is chosen: exact sets for top-k, top-p, min-p, the penalty, and the frequencies. */
#include <math.h>

#include "infer/infer.h"
#include "runner.h"

enum { SAMPLE_N = 5, SAMPLE_DRAWS = 4000 };
static uint64_t sample_room[16];

static peft__sampler sample_make(double temperature, int64_t top_k, double top_p, double min_p) {
    return (peft__sampler){temperature, top_k, top_p, min_p, 1, {peft__mix64(7), 0}};
}

/* Draws often; counts[i] of token i. Probabilities are .1 .4 .2 .25 .05 at temperature 1. */
static void sample_count(peft__sampler *s, int counts[SAMPLE_N]) {
    static const double p[SAMPLE_N] = {0.1, 0.4, 0.2, 0.25, 0.05};
    memset(counts, 0, SAMPLE_N * sizeof *counts);
    for (int d = 0; d < SAMPLE_DRAWS; d++) {
        float logits[SAMPLE_N];
        for (int i = 0; i < SAMPLE_N; i++) { logits[i] = (float)log(p[i]) + 3; }
        counts[peft__sample(s, logits, SAMPLE_N, NULL, 0, sample_room)]++;
    }
}

TEST(infer_sample_work_fits) {
    CHECK(peft__sample_work(SAMPLE_N) <= sizeof sample_room);
}

TEST(infer_sample_greedy_takes_the_first_of_equals) {
    float logits[] = {1, 3, 2, 3, -1};
    peft__sampler s = sample_make(0, 0, 1, 0);
    CHECK_INT(peft__sample(&s, logits, 5, NULL, 0, sample_room), 1);
    CHECK_INT(s.rng.pos, 0);
}

TEST(infer_sample_penalty) {
    peft__sampler s = sample_make(0, 0, 1, 0);
    static const int32_t history[] = {1, 1, 1, 99, -1};
    s.repetition_penalty = 2;
    float logits[] = {1, 3, 2, -3, -1};
    CHECK_INT(peft__sample(&s, logits, 5, history, 5, sample_room), 2); /* 3 / 2, once however often it occurred */
    CHECK_NEAR(logits[1], 1.5, 0);
    float low[] = {-3, -2};
    static const int32_t second[] = {1};
    CHECK_INT(peft__sample(&s, low, 2, second, 1, sample_room), 0); /* -2 * 2 */
    CHECK_NEAR(low[1], -4, 0);
}

TEST(infer_sample_frequencies) {
    int counts[SAMPLE_N];
    peft__sampler s = sample_make(1, 0, 1, 0);
    static const double p[SAMPLE_N] = {0.1, 0.4, 0.2, 0.25, 0.05};
    sample_count(&s, counts);
    for (int i = 0; i < SAMPLE_N; i++) { CHECK_NEAR(counts[i] / (double)SAMPLE_DRAWS, p[i], 0.025); }
    s = sample_make(0.5, 0, 1, 0); /* squares of the probabilities */
    sample_count(&s, counts);
    CHECK_NEAR(counts[1] / (double)SAMPLE_DRAWS, 0.16 / 0.275, 0.03);
}

TEST(infer_sample_top_k) {
    int counts[SAMPLE_N];
    peft__sampler s = sample_make(1, 2, 1, 0);
    sample_count(&s, counts);
    CHECK_INT(counts[0] + counts[2] + counts[4], 0);
    CHECK_NEAR(counts[1] / (double)SAMPLE_DRAWS, 0.4 / 0.65, 0.03);
    s = sample_make(1, 1, 1, 0);
    sample_count(&s, counts);
    CHECK_INT(counts[1], SAMPLE_DRAWS);
    s = sample_make(1, 100, 1, 0);
    sample_count(&s, counts);
    CHECK(counts[4] > 0);
}

TEST(infer_sample_top_p) {
    int counts[SAMPLE_N];
    peft__sampler s = sample_make(1, 0, 0.7, 0); /* .4 + .25 < .7: the third one crosses it and stays */
    sample_count(&s, counts);
    CHECK_INT(counts[0] + counts[4], 0);
    CHECK(counts[2] > 0);
    s = sample_make(1, 0, 0.6, 0);
    sample_count(&s, counts);
    CHECK_INT(counts[0] + counts[2] + counts[4], 0);
    s = sample_make(1, 0, 0, 0); /* the likeliest is always there */
    sample_count(&s, counts);
    CHECK_INT(counts[1], SAMPLE_DRAWS);
    s = sample_make(1, 3, 0.45, 0); /* among three: .4/.85 = .47 is enough */
    sample_count(&s, counts);
    CHECK_INT(counts[1], SAMPLE_DRAWS);
}

TEST(infer_sample_min_p) {
    int counts[SAMPLE_N];
    peft__sampler s = sample_make(1, 0, 1, 0.45); /* .18 and more */
    sample_count(&s, counts);
    CHECK_INT(counts[0] + counts[4], 0);
    CHECK(counts[2] > 0 && counts[3] > 0);
    s = sample_make(1, 0, 1, 1);
    sample_count(&s, counts);
    CHECK_INT(counts[1], SAMPLE_DRAWS);
}

TEST(infer_sample_filters_agree_with_no_filter) {
    int all[SAMPLE_N], heap[SAMPLE_N];
    peft__sampler a = sample_make(1, 0, 1, 0), b = sample_make(1, SAMPLE_N, 1, 0);
    sample_count(&a, all);
    sample_count(&b, heap);
    for (int i = 0; i < SAMPLE_N; i++) {
        CHECK_NEAR(all[i] / (double)SAMPLE_DRAWS, heap[i] / (double)SAMPLE_DRAWS, 0.04);
    }
}

TEST(infer_sample_far_apart) {
    float logits[] = {-1e30F, 0, 1e30F};
    peft__sampler s = sample_make(1e-3, 2, 0.9, 0);
    CHECK_INT(peft__sample(&s, logits, 3, NULL, 0, sample_room), 2);
}
