/* rope.c - inverse frequencies of rotary positions (Su et al. 2021) and their scalings.
 *
 *   plain    f[i] = theta ^ (-2i / rotary),  0 <= i < rotary / 2
 *   linear   f[i] / factor
 *   llama3   (Llama 3.1 report; transformers' modeling_rope_utils.py) with wavelength l = 2 pi / f[i] and original context n:
 *            l < n / high: f[i];  l > n / low: f[i] / factor;  between, with s = (n / l - low) / (high - low):
 *            (1 - s) f[i] / factor + s f[i]
 *   GGUF     files bake llama3 into rope_freqs.weight: f[i] / rope_freqs[i]
 *
 * Hugging Face keeps the frequencies in float: they are rounded to float here, because at position 10 000 the difference
 * would be an angle of 1e-3. dynamic, yarn and longrope are left out. */
#include <math.h>

#include "model/parts.h"

static double freq_plain(const peft__config *c, int64_t rotary, int64_t i) {
    float power = (float)pow(c->rope_theta, (double)(float)(2 * i) / (double)rotary);
    return (double)(1.0f / power);
}

double peft__rope_factor(const peft__config *c, int64_t rotary, int64_t i) {
    const double two_pi = 6.283185307179586;
    if (c->rope_scaling != PEFT__ROPE_LLAMA3) { return 1; }
    double n = (double)c->rope_original_positions;
    double turns = n * freq_plain(c, rotary, i) / two_pi; /* n / wavelength */
    if (turns > c->rope_high_freq) { return 1; }
    if (turns < c->rope_low_freq) { return c->rope_factor; }
    double s = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return 1 / ((1 - s) / c->rope_factor + s);
}

double *peft__rope_frequencies(const peft__config *c, int64_t rotary, peft__arena *a) {
    double *f = peft__arena_alloc(a, (size_t)(rotary / 2) * sizeof *f);
    if (f == NULL) { return NULL; }
    for (int64_t i = 0; i < rotary / 2; i++) {
        double by = c->rope_factors != NULL ? c->rope_factors[i] : peft__rope_factor(c, rotary, i);
        if (c->rope_scaling == PEFT__ROPE_LINEAR) { by *= c->rope_factor; }
        f[i] = (double)(float)(freq_plain(c, rotary, i) / by);
    }
    return f;
}
