/* bitfit.c - BitFit: the biases of the base are trained and nothing else (Ben-Zaken et al. 2022, arXiv 2106.10199).
 *
 * Every projection, norm and head that has a bias gets a trained copy of it, "<path>.bias" in the file; target_modules and its
 * companions narrow the choice. Hugging Face PEFT has no such type: the folder is laid out as its folders are, with peft_type
 * "BITFIT", which PEFT refuses by name. Merging writes the copies in place of the base's.
 *
 * Left out: biases for projections that have none in the base. */
#include "peft/method.h"

enum { BITFIT_BIAS = 0 };

static const peft__option bitfit_options[] = {PEFT__TARGET_OPTIONS, PEFT__LAYER_OPTIONS};
static const peft__schema bitfit_schema = {"method:bitfit", bitfit_options, PEFT__COUNT(bitfit_options)};

static peft_status bitfit_add_site(peft__adapter *a, const peft__site *s, bool target, bool saved) {
    peft_status st = PEFT_OK;
    peft__attachment *at = NULL;
    if (saved) { return peft__adapter_save_site(a, s); }
    if (!target || s->bias == NULL) { return PEFT_OK; }
    TRY(peft__adapter_attach(a, s, &at));
    TRY(peft__adapter_copy_bias(a, at, s, NULL, BITFIT_BIAS));
out:
    return st;
}

static peft_status bitfit_build(peft__adapter *a) {
    enum { KINDS = 1 << PEFT__SITE_LINEAR | 1 << PEFT__SITE_NORM | 1 << PEFT__SITE_HEAD };
    peft_status st = PEFT_OK;
    TRY(peft__adapter_targets(a, KINDS, "\".*\"", bitfit_add_site));
    if (a->attachments.len == 0) {
        FAIL(PEFT_E_NOT_FOUND, "there is no bias to train: the %s model has none%s", a->base->model_type,
             strcmp(peft__opt_str(&a->opts, "target_modules"), "\".*\"") == 0 ? "" : " in target_modules");
    }
out:
    return st;
}

static void bitfit_init(const peft__adapter *a, size_t i, peft__rng *rng, const peft__kernels *k) {
    (void)rng;
    peft__adapter_init_copy(a, i, k);
}

static void bitfit_config_out(const peft__adapter *a, peft__json_out *j) { peft__config_put_targets(&a->opts, j); }

const peft__method peft__method_bitfit = {
    .name = "bitfit",
    .hf_type = "BITFIT",
    .schema = &bitfit_schema,
    .build = bitfit_build,
    .init = bitfit_init,
    .config_out = bitfit_config_out,
    .config_in = peft__config_get_targets,
    .learning_rate = 1e-3,
};
