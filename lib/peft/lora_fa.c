/* lora_fa.c - LoRA-FA: LoRA whose A stays as it was drawn; only B is trained (Zhang et al. 2023, arXiv 2308.03303; the projection
 * is that of Zhang and Pilanci 2024 as in Hugging Face PEFT's LoraFAOptimizer).
 *
 * The gradient of B is turned into the one whose step changes s B A most like a step of full fine-tuning would:
 *   g' = g (A A' + 1e-8 I)^-1 / s^2
 * in double, by a Cholesky factor of r x r. Files are those of LoRA: a folder that is loaded is trained on as plain LoRA.
 *
 * Left out: the optimiser's own defaults of PEFT (epsilon 1e-6); any optimiser sees g'. */
#include "peft/hub.h"
#include "peft/lora.h"

#include <math.h>

static const peft__option fa_options[] = {PEFT__LORA_OPTIONS("false")};
static const peft__schema fa_schema = {"method:lora_fa", fa_options, PEFT__COUNT(fa_options)};

/* l[r, r]: lower Cholesky factor of A A' + 1e-8 I. */
static void fa_factor(const peft__real *a, int64_t r, int64_t in, double *l) {
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = i == j ? 1e-8 : 0;
            for (int64_t c = 0; c < in; c++) { sum += (double)a[i * in + c] * (double)a[j * in + c]; }
            for (int64_t p = 0; p < j; p++) { sum -= l[i * r + p] * l[j * r + p]; }
            l[i * r + j] = i == j ? sqrt(fmax(sum, 1e-16)) : sum / l[j * r + j];
        }
    }
}

/* Row g[r] becomes g (L L')^-1 / s^2. */
static void fa_solve(const double *l, int64_t r, double factor, peft__real *g, double *row) {
    for (int64_t i = 0; i < r; i++) {
        double sum = (double)g[i];
        for (int64_t p = 0; p < i; p++) { sum -= l[i * r + p] * row[p]; }
        row[i] = sum / l[i * r + i];
    }
    for (int64_t i = r; i-- > 0;) {
        double sum = row[i];
        for (int64_t p = i + 1; p < r; p++) { sum -= l[p * r + i] * row[p]; }
        row[i] = sum / l[i * r + i];
        g[i] = PEFT__R(row[i] * factor);
    }
}

static peft_status fa_project(const peft__adapter *a, peft__real *grads) {
    const peft__attachment *all = a->attachments.data;
    for (size_t j = 0; j < a->attachments.len; j++) {
        int64_t r = all[j].rank;
        if (r == 0) { continue; }
        const peft__param *pa = &peft__adapter_param_at(a, (size_t)all[j].first)->p;
        const peft__param *pb = &peft__adapter_param_at(a, (size_t)all[j].first + 1)->p;
        size_t bytes = (size_t)(r * r + r) * sizeof(double);
        double *l = peft__alloc(a->mem, bytes);
        if (l == NULL) { return PEFT_E_NOMEM; }
        fa_factor(pa->value, r, pa->cols, l);
        peft__real *g = grads + (pb->value - a->values);
        for (int64_t o = 0; o < pb->rows; o++) { fa_solve(l, r, 1 / (all[j].scale * all[j].scale), g + o * r, l + r * r); }
        peft__free(a->mem, l, bytes);
    }
    return PEFT_OK;
}

const peft__method peft__method_lora_fa = {
    .name = "lora_fa",
    .hf_type = "LORA",
    .to_hub = peft__lora_to_hub,
    .schema = &fa_schema,
    .alias = true,
    .build = peft__lora_build,
    .init = peft__lora_init,
    .settle = peft__lora_settle,
    .after = peft__lora_after,
    .embed = peft__tokens_embed,
    .head = peft__lora_head,
    .proportional = true,
    .by_rows = true,
    .merge = peft__lora_merge,
    .rate = peft__lora_rate,
    .project = fa_project,
    .mix = peft__lora_mix,
    .low_rank = peft__lora_only,
    .config_out = peft__lora_config_out,
    .config_in = peft__lora_config_in,
    .learning_rate = 5e-4,
};
