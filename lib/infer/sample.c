/* sample.c - which token comes next.
 *
 * In the order of Hugging Face's logits processors: repetition penalty (Keskar et al. 2019: positive logits of tokens that
 * occurred are divided by it, negative ones multiplied), temperature, top-k, top-p (Holtzman et al. 2020: the likeliest
 * tokens until their probabilities reach p; the one that crosses it stays), min-p (Nguyen et al. 2024: at least that share
 * of the likeliest one's probability), then one draw by the inverse of the distribution function. Temperature 0 takes the
 * likeliest. Among equals the lower id comes first, so that a seed fixes the result.
 *
 * A heap gives the likeliest tokens one after the other; the vocabulary is never sorted as a whole.
 *
 * Left out: beams, typical and Mirostat sampling. */
#include "infer/infer.h"

typedef struct sample_pair {
    float weight; /* exp((logit - largest) / temperature) */
    int32_t id;
} sample_pair;

size_t peft__sample_work(int64_t n) {
    return (size_t)n * sizeof(sample_pair);
}

static void sample_penalise(float *logits, int64_t n, double penalty, const int32_t *history, size_t n_history,
                            uint8_t *seen) {
    memset(seen, 0, (size_t)n);
    for (size_t i = 0; i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || id >= n || seen[id]) { continue; }
        seen[id] = 1;
        logits[id] = (float)(logits[id] > 0 ? (double)logits[id] / penalty : (double)logits[id] * penalty);
    }
}

static int32_t sample_likeliest(const float *logits, int64_t n) {
    int32_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) { best = (int32_t)i; }
    }
    return best;
}

/* Does a come before b? */
static bool sample_before(const sample_pair *a, const sample_pair *b) {
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

static void sample_sink(sample_pair *heap, int64_t n, int64_t at) {
    sample_pair moved = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) { break; }
        if (child + 1 < n && sample_before(&heap[child + 1], &heap[child])) { child++; }
        if (!sample_before(&heap[child], &moved)) { break; }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* Takes the first of heap[0..n) to heap[n - 1]: what was taken stands at the end, the latest first. */
static sample_pair sample_take(sample_pair *heap, int64_t n) {
    sample_pair top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sample_sink(heap, n - 1, 0);
    return top;
}

/* Weights of all tokens; returns their sum. */
static double sample_weights(const float *logits, int64_t n, double temperature, sample_pair *pairs) {
    double top = (double)logits[sample_likeliest(logits, n)], total = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = ((double)logits[i] - top) / temperature;
        pairs[i].weight = x < -80 ? 0.0F : (float)peft__exp(PEFT__R(x));
        pairs[i].id = (int32_t)i;
        total += (double)pairs[i].weight;
    }
    return total;
}

/* How many of the likeliest tokens may be chosen: they are moved to the end of the pairs, the likeliest last. */
static int64_t sample_cut(const peft__sampler *s, sample_pair *pairs, int64_t n, double total) {
    int64_t most = s->top_k > 0 ? PEFT__MIN(s->top_k, n) : n, taken = 0;
    for (int64_t i = n / 2 - 1; i >= 0; i--) { sample_sink(pairs, n, i); }
    if (s->top_k > 0) { /* the probabilities of top-p are those among the k */
        total = 0;
        for (; taken < most; taken++) { total += (double)sample_take(pairs, n - taken).weight; }
    }
    double sum = 0;
    float first = 0;
    for (int64_t i = 0; i < most; i++) {
        if (i == taken) {
            sample_take(pairs, n - taken);
            taken++;
        }
        float weight = pairs[n - 1 - i].weight;
        if (i == 0) { first = weight; }
        bool out = i > 0 && ((s->top_p < 1 && sum >= s->top_p * total) || (double)weight < s->min_p * (double)first);
        if (out) { return i; }
        sum += (double)weight;
    }
    return most;
}

int32_t peft__sample(peft__sampler *s, float *logits, int64_t n, const int32_t *history, size_t n_history, void *work) {
    sample_pair *pairs = work;
    if (s->repetition_penalty != 1) { sample_penalise(logits, n, s->repetition_penalty, history, n_history, work); }
    if (s->temperature <= 0) { return sample_likeliest(logits, n); }
    double total = sample_weights(logits, n, s->temperature, pairs), sum = 0;
    int64_t kept = n;
    if (s->top_k > 0 || s->top_p < 1 || s->min_p > 0) {
        kept = sample_cut(s, pairs, n, total);
        total = 0;
        for (int64_t i = 0; i < kept; i++) { total += (double)pairs[n - 1 - i].weight; }
    }
    double at = peft__rng_uniform(&s->rng) * total;
    int32_t chosen = pairs[n - 1].id;
    for (int64_t i = 0; i < kept; i++) {
        const sample_pair *p = &pairs[n - 1 - i];
        if (p->weight <= 0) { continue; }
        chosen = p->id;
        sum += (double)p->weight;
        if (sum > at) { break; }
    }
    return chosen;
}
