/* rope.c - inverse frequencies of rotary positions (Su et al. 2021) and their scalings, as transformers' modeling_rope_utils.py
 * and models compute them:
 *
 *   plain    f[i] = theta ^ (-2i / rotary),  0 <= i < rotary / 2
 *   linear   f[i] / factor
 *   dynamic  plain for rows up to the model's positions; beyond, theta grows with the row (op_rope.c)
 *   yarn     (Peng et al. 2023) f[i] / factor where a wavelength turns fewer than beta_slow times within the original context, f[i]
 *            where it turns more than beta_fast times, a linear ramp over i between; cos and sin times 0.1 ln(factor) + 1
 *   longrope (Ding et al. 2024) f[i] / short[i], for rows beyond the original context f[i] / long[i]; cos and sin times
 *            sqrt(1 + ln(positions / original) / ln(original))
 *   llama3   (Llama 3.1 report) with wavelength l = 2 pi / f[i] and original context n:
 *            l < n / high: f[i];  l > n / low: f[i] / factor;  between, with s = (n / l - low) / (high - low):
 *            (1 - s) f[i] / factor + s f[i]
 *   GGUF     files bake llama3 into rope_freqs.weight: f[i] / rope_freqs[i]
 *
 * Hugging Face keeps the frequencies in float: they are rounded to float here, because at position 10 000 the difference
 * would be an angle of 1e-3. */
#include <math.h>

#include "model/parts.h"

static const double rope_two_pi = 6.283185307179586;

static double freq_plain(const peft__config *c, int64_t rotary, int64_t i) {
    float power = (float)pow(c->rope_theta, (double)(float)(2 * i) / (double)rotary);
    return (double)(1.0f / power);
}

double peft__rope_factor(const peft__config *c, int64_t rotary, int64_t i) {
    if (c->rope_scaling != PEFT__ROPE_LLAMA3) { return 1; }
    double n = (double)c->rope_original_positions;
    double turns = n * freq_plain(c, rotary, i) / rope_two_pi; /* n / wavelength */
    if (turns > c->rope_high_freq) { return 1; }
    if (turns < c->rope_low_freq) { return c->rope_factor; }
    double s = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return 1 / ((1 - s) / c->rope_factor + s);
}

int64_t peft__rope_original(const peft__config *c) {
    return c->rope_original_positions > 0 ? c->rope_original_positions : peft__config_stated(c);
}

/* ---- yarn ---------------------------------------------------------------------------------------------------------------- */

/* The index whose wavelength turns `turns` times within the original context. */
static double rope_yarn_index(const peft__config *c, int64_t rotary, double turns) {
    double n = (double)peft__rope_original(c);
    return (double)rotary * log(n / (turns * rope_two_pi)) / (2 * log(c->rope_theta));
}

/* How much of f[i] / factor there is in frequency i; the rest is f[i]. */
static double rope_yarn_share(const peft__config *c, int64_t rotary, int64_t i) {
    double low = rope_yarn_index(c, rotary, c->rope_beta_fast), high = rope_yarn_index(c, rotary, c->rope_beta_slow);
    if (c->rope_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(rotary - 1));
    if (!(low < high) && !(low > high)) { high += 0.001; }
    return fmin(fmax(((double)i - low) / (high - low), 0), 1);
}

static double rope_yarn_size(double factor, double by) {
    return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1;
}

double peft__rope_attention(const peft__config *c) {
    if (c->rope_attention > 0) { return c->rope_attention; }
    if (c->rope_scaling == PEFT__ROPE_YARN) {
        bool both = c->rope_mscale > 0 && c->rope_mscale_all > 0;
        if (!both) { return rope_yarn_size(c->rope_factor, 1); }
        return rope_yarn_size(c->rope_factor, c->rope_mscale) / rope_yarn_size(c->rope_factor, c->rope_mscale_all);
    }
    if (c->rope_scaling == PEFT__ROPE_LONGROPE) {
        double n = (double)peft__rope_original(c);
        double factor = c->rope_original_positions > 0 ? (double)peft__config_stated(c) / n : c->rope_factor;
        return factor <= 1 ? 1 : sqrt(1 + log(factor) / log(n));
    }
    return 1;
}

/* ---- the frequencies --------------------------------------------------------------------------------------------------------- */

static double rope_frequency(const peft__config *c, int64_t rotary, int64_t i, const double *by) {
    double f = freq_plain(c, rotary, i);
    if (by != NULL) { f /= by[i]; }
    switch (c->rope_scaling) {
    case PEFT__ROPE_LINEAR: return f / c->rope_factor;
    case PEFT__ROPE_LLAMA3: return by != NULL ? f : f / peft__rope_factor(c, rotary, i);
    case PEFT__ROPE_YARN: {
        double share = rope_yarn_share(c, rotary, i);
        return f / c->rope_factor * share + f * (1 - share);
    }
    default: return f;
    }
}

static double *rope_frequencies(const peft__config *c, int64_t rotary, const double *by, peft__arena *a) {
    double *f = peft__arena_alloc(a, (size_t)(rotary / 2) * sizeof *f);
    for (int64_t i = 0; f != NULL && i < rotary / 2; i++) { f[i] = (double)(float)rope_frequency(c, rotary, i, by); }
    return f;
}

bool peft__rope_make(const peft__config *c, int64_t rotary, peft__arena *a, peft__rope *out) {
    memset(out, 0, sizeof *out);
    bool longrope = c->rope_scaling == PEFT__ROPE_LONGROPE;
    out->rotary = rotary;
    out->scale = peft__rope_attention(c);
    out->freq = rope_frequencies(c, rotary, longrope ? c->rope_short : c->rope_factors, a);
    if (longrope) {
        out->beyond = peft__rope_original(c);
        out->far = rope_frequencies(c, rotary, c->rope_long, a);
        return out->freq != NULL && out->far != NULL;
    }
    if (c->rope_scaling == PEFT__ROPE_DYNAMIC) {
        out->beyond = peft__config_stated(c);
        out->theta = c->rope_theta;
        out->factor = c->rope_factor;
    }
    return out->freq != NULL;
}
