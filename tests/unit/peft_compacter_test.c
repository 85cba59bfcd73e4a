/* Bottleneck adapters: Compacter's tensors, initial values, the config's keys, layers that a config leaves out, bad input. */
#include <math.h>

#include "bottleneck_kit.h"

/* ---- Compacter ----------------------------------------------------------------------------------------------------------------- */

static bool bn_has(const peft__adapter *a, const char *key, int32_t ndim, int64_t d0, int64_t d1, int64_t d2) {
    const peft__adapter_param *p = peft__adapter_find(a, key, NULL);
    int64_t want[3] = {d0, d1, d2};
    bool ok = p != NULL && p->ndim == ndim && memcmp(p->dims, want, (size_t)ndim * sizeof *want) == 0;
    if (!ok) { printf("%s is not there as that\n", key); }
    return ok;
}

TEST(compacter_tensors) {
    fake_base b;
    peft_status st;
    bn_base(&b, 16);
    peft__adapter *a = fake_adapter(&b, "compacter", FAKE("reduction_factor=2"), 1, &st);
    CHECK_OK(st);
    CHECK(bn_has(a, "model.shared_parameters.phm_rule", 3, 4, 4, 4));
    CHECK(bn_has(a, "model.layers.1.attention_adapters.adapter_down.0.W_left", 3, 4, 4, 1));
    CHECK(bn_has(a, "model.layers.1.attention_adapters.adapter_down.0.W_right", 3, 4, 1, 2));
    CHECK(bn_has(a, "model.layers.1.attention_adapters.adapter_down.0.b", 1, 8, 0, 0));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_up.W_left", 3, 4, 2, 1));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_up.W_right", 3, 4, 1, 4));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_up.b", 1, 16, 0, 0));
    CHECK_INT(a->n_trainable, 64 + 4 * (2 * (16 + 8) + 8 + 16));
    peft__adapter_release(a);
    a = fake_adapter(&b, "compacter++", FAKE("reduction_factor=4", "phm_dim=2", "phm_rank=3", "shared_phm_rule=false", "learn_phm=false",
                                             "factorized_phm_rule=true", "ln_before=true", "phm_bias=false"), 1, &st);
    CHECK_OK(st);
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_down.1.phm_rule_left", 3, 2, 2, 1));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_up.phm_rule_right", 3, 2, 1, 2));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_down.1.W_left", 3, 2, 8, 3));
    CHECK(bn_has(a, "model.layers.0.output_adapters.adapter_down.1.W_right", 3, 2, 3, 2));
    CHECK_INT(a->n_trainable, 2 * (2 * (3 * 2 * 10) + 32));
    CHECK_INT(a->n_values - a->n_trainable, 2 * 2 * 8); /* rules that are not trained */
    peft__adapter_release(a);
    a = fake_adapter(&b, "compacter", FAKE("reduction_factor=4", "shared_W_phm=true", "factorized_phm_W=false"), 1, &st);
    CHECK_OK(st);
    CHECK(bn_has(a, "model.shared_parameters.W_down", 3, 4, 4, 1));
    CHECK(bn_has(a, "model.shared_parameters.W_up", 3, 4, 1, 4));
    CHECK_INT(a->n_trainable, 64 + 2 * 16 + 4 * (4 + 16));
    peft__adapter_release(a);
    fake_end(&b);
}

/* Root of the mean square of the values whose keys end so, and the largest. */
static void bn_spread(const char *const *settings, const char *end, double *rms, double *most) {
    fake_base b;
    peft_status st;
    double sum = 0;
    int64_t n = 0;
    *most = 0;
    bn_base(&b, 256);
    peft__adapter *a = fake_adapter(&b, "compacter", settings, 9, &st);
    for (size_t i = 0; a != NULL && i < a->params.len; i++) {
        const peft__adapter_param *p = peft__adapter_param_at(a, i);
        if (!peft__path_ends(p->p.name, end)) { continue; }
        for (int64_t e = 0; e < p->p.rows * p->p.cols; e++, n++) {
            double v = (double)p->p.value[e];
            sum += v * v;
            *most = fmax(*most, fabs(v));
        }
    }
    *rms = sqrt(sum / (double)n);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(compacter_initial_values) {
    double rms, most, fans = 64 + 1; /* W_left of the matrices down: [4, 64, 1] */
    bn_spread(FAKE("reduction_factor=8"), "adapter_down.0.W_left", &rms, &most);
    CHECK_NEAR(rms, sqrt(2 / fans), 0.01);
    CHECK(most <= sqrt(6 / fans) && most > 0.98 * sqrt(6 / fans));
    bn_spread(FAKE("reduction_factor=8", "hypercomplex_nonlinearity=glorot-normal"), "adapter_down.0.W_left", &rms, &most);
    CHECK_NEAR(rms, sqrt(2 / fans), 0.01);
    CHECK(most > sqrt(6 / fans)); /* the tails of a normal distribution */
    bn_spread(FAKE("reduction_factor=8", "hypercomplex_nonlinearity=normal", "phm_init_range=0.5"), "adapter_down.0.W_left", &rms, &most);
    CHECK_NEAR(rms, 0.5, 0.03);
    bn_spread(FAKE("reduction_factor=8", "factorized_phm_W=false"), "adapter_up.W", &rms, &most);
    CHECK_NEAR(most, sqrt(6.0 / (64 + 8)), 0.001);
    bn_spread(FAKE("reduction_factor=8"), "phm_rule", &rms, &most);
    CHECK_NEAR(rms, 1e-4, 2e-5);
    bn_spread(FAKE("reduction_factor=8", "phm_init_range=0.2"), "phm_rule", &rms, &most);
    CHECK_NEAR(rms, 0.2, 0.04);
    bn_spread(FAKE("reduction_factor=8", "phm_c_init=uniform"), "phm_rule", &rms, &most);
    CHECK(most <= 1 && most > 0.9);
    bn_spread(FAKE("reduction_factor=8", "shared_phm_rule=false"), "phm_rule", &rms, &most);
    CHECK_NEAR(rms, 0.01, 0.001);
    bn_spread(FAKE("reduction_factor=8", "shared_phm_rule=false", "phm_c_init=uniform"), "phm_rule", &rms, &most);
    CHECK(most <= 0.01 && most > 0.0098);
    bn_spread(FAKE("reduction_factor=8"), "adapter_up.b", &rms, &most);
    CHECK_NEAR(most, 0, 0);
}

TEST(bottleneck_initial_values) {
    fake_base b;
    peft_status st;
    bn_base(&b, 64);
    peft__adapter *a = fake_adapter(
        &b, "houlsby", FAKE("reduction_factor=2", "init_weights_seed=3", "use_gating=true", "scaling=channel"), 1, &st);
    CHECK_OK(st);
    static const char *const leaves[] = {"adapter_down.0.weight", "adapter_up.weight", "gate.weight"};
    for (size_t i = 0; i < 3; i++) { /* all places alike */
        char key[2][96];
        (void)snprintf(key[0], 96, "model.layers.0.attention_adapters.%s", leaves[i]);
        (void)snprintf(key[1], 96, "model.layers.1.output_adapters.%s", leaves[i]);
        const peft__param *p = &peft__adapter_find(a, key[0], NULL)->p, *q = &peft__adapter_find(a, key[1], NULL)->p;
        CHECK_MEM(p->value, q->value, (size_t)(p->rows * p->cols) * sizeof *p->value);
        CHECK(p->value[0] != 0 && fabs((double)p->value[0]) < 0.1);
    }
    const peft__param *ones = &peft__adapter_find(a, "model.layers.0.output_adapters.scaling", NULL)->p;
    CHECK_INT(ones->cols, 64);
    CHECK_NEAR(ones->value[63], 1, 0);
    CHECK_NEAR(peft__adapter_find(a, "model.layers.0.output_adapters.gate.bias", NULL)->p.value[0], 0, 0);
    peft__real first = a->values[0];
    peft__adapter_release(a);
    a = fake_adapter(&b, "houlsby", FAKE("reduction_factor=2", "init_weights_seed=4", "use_gating=true", "scaling=channel"), 1, &st);
    CHECK(a->values[0] != first);
    peft__adapter_release(a);
    a = fake_adapter(&b, "houlsby", FAKE("reduction_factor=2", "init_weights_seed=3", "use_gating=true", "scaling=channel"), 2, &st);
    CHECK_NEAR(a->values[0], first, 0); /* the adapter's own seed does not matter then */
    peft__adapter_release(a);
    a = fake_adapter(&b, "parallel", NULL, 1, &st);
    const peft__param *up = &peft__adapter_find(a, "model.layers.0.output_adapters.adapter_up.weight", NULL)->p;
    for (int64_t e = 0; e < up->rows * up->cols; e++) { CHECK_NEAR(up->value[e], 0, 0); }
    peft__adapter_release(a);
    fake_end(&b);
}

/* ---- files and errors ----------------------------------------------------------------------------------------------------------- */

/* Options that are written and read again come out as they were. */
TEST(bottleneck_config_has_every_option) {
    fake_base b;
    peft_status st;
    peft__str text;
    peft__arena arena;
    peft__optset back;
    const peft__json *config = NULL;
    const peft__method *method = NULL;
    bn_base(&b, 64);
    peft__adapter *a = fake_adapter(
        &b, "compacter",
        FAKE("reduction_factor=8", "phm_dim=2", "phm_rank=3", "factorized_phm_W=false", "shared_W_phm=true", "shared_phm_rule=false",
             "factorized_phm_rule=true", "learn_phm=false", "phm_bias=false", "phm_c_init=uniform", "phm_init_range=0.5",
             "hypercomplex_nonlinearity=normal", "use_gating=true", "scaling=channel", "dropout=0.25", "stochastic_depth=0.125",
             "adapter_drop=2", "original_ln_before=true", "original_ln_after=false", "residual_before_ln=false", "ln_before=true",
             "ln_after=true", "adapter_residual_before_ln=true", "init_weights_seed=12", "output_adapter=false", "leave_out=1",
             "non_linearity=identity"), 1, &st);
    CHECK_OK(st);
    peft__str_init(&text, b.mem);
    CHECK_OK(peft__hub_config(a, &text));
    CHECK(strstr(peft__str_c(&text), "\"linear\"") != NULL);
    peft__arena_init(&arena, b.mem);
    CHECK_OK(peft__json_parse(&arena, peft__str_c(&text), strlen(peft__str_c(&text)), "config", &config));
    CHECK_OK(peft__hub_method(config, "config", &method));
    CHECK_STR(method->name, "compacter");
    CHECK_OK(peft__optset_init(&back, b.mem, method->schema));
    CHECK_OK(peft__hub_options(&back, config, "config"));
    for (size_t i = 0; i < method->schema->count; i++) {
        const peft__option *o = &method->schema->options[i];
        const peft__opt_value *v = &a->opts.values[i], *w = &back.values[i];
        bool same = v->i == w->i && v->f == w->f && strcmp(v->s != NULL ? v->s : "", w->s != NULL ? w->s : "") == 0;
        CHECK_STR(same || strcmp(o->key, "base_model_name_or_path") == 0 || strcmp(o->key, "inv_head") == 0 ? "" : o->key, "");
    }
    peft__optset_free(&back);
    peft__arena_free(&arena);
    peft__str_free(&text);
    peft__adapter_release(a);
    fake_end(&b);
}

TEST(bottleneck_hub_names_the_method) {
    static const char *const configs[][2] = {
        {"\"mh_adapter\":true", "houlsby"}, {"\"mh_adapter\":false", "pfeiffer"}, {"\"is_parallel\":true", "parallel"},
        {"\"mh_adapter\":true,\"phm_layer\":true", "compacter"}, {"\"phm_layer\":true", "compacter++"},
        {"\"phm_layer\":true,\"is_parallel\":true", "parallel"}};
    for (size_t i = 0; i < PEFT__COUNT(configs); i++) {
        char text[128];
        peft__arena arena;
        const peft__json *config = NULL;
        const peft__method *method = NULL;
        peft__arena_init(&arena, runner_mem());
        (void)snprintf(text, sizeof text, "{\"config\":{%s}}", configs[i][0]);
        CHECK_OK(peft__json_parse(&arena, text, strlen(text), "c", &config));
        CHECK_OK(peft__hub_method(config, "c", &method));
        CHECK_STR(method->name, configs[i][1]);
        peft__arena_free(&arena);
    }
}

static peft_status bn_read_config(const char *member, fake_base *b) {
    peft_status st = PEFT_OK;
    char text[256];
    const peft__json *config = NULL;
    const peft__method *method = NULL;
    peft__optset opts = {0};
    peft__arena arena;
    peft__adapter *a = NULL;
    peft__arena_init(&arena, b->mem);
    (void)snprintf(text, sizeof text, "{\"config\":{\"mh_adapter\":true,\"output_adapter\":true,\"reduction_factor\":4,%s}}", member);
    TRY(peft__json_parse(&arena, text, strlen(text), "c", &config));
    TRY(peft__hub_method(config, "c", &method));
    TRY(peft__optset_init(&opts, b->mem, method->schema));
    TRY(peft__hub_options(&opts, config, "c"));
    TRY(peft__adapter_create_empty(b->mem, &b->info, "a", method, &opts, &a));
out:
    peft__adapter_release(a);
    peft__optset_free(&opts);
    peft__arena_free(&arena);
    return st;
}

TEST(bottleneck_refuses_configs_by_key) {
    static const struct { const char *member; peft_status code; const char *words; } cases[] = {
        {"\"cross_adapter\":3", PEFT_E_FORMAT, "cross_adapter"},
        {"\"residual_before_ln\":\"post_add\"", PEFT_E_FORMAT, "residual_before_ln"},
        {"\"non_linearity\":\"leakyrelu\"", PEFT_E_FORMAT, "non_linearity"},
        {"\"phm_c_init\":\"xavier\"", PEFT_E_FORMAT, "phm_c_init"},
        {"\"hypercomplex_nonlinearity\":\"quaternion\"", PEFT_E_FORMAT, "hypercomplex_nonlinearity"},
        {"\"phm_dim\":0", PEFT_E_FORMAT, "phm_dim"},
        {"\"stochastic_depth\":1.5", PEFT_E_FORMAT, "stochastic_depth"},
        {"\"use_gating\":\"yes\"", PEFT_E_FORMAT, "use_gating"},
        {"\"phm_layer\":true,\"phm_dim\":3", PEFT_E_KEY, "phm_dim 3 does not divide the hidden size 16"},
    };
    fake_base b;
    bn_base(&b, 16);
    CHECK_OK(bn_read_config("\"dropout\":0.5", &b));
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        CHECK_STATUS(bn_read_config(cases[i].member, &b), cases[i].code);
        CHECK_ERROR_HAS(cases[i].words);
    }
    fake_end(&b);
}

/* Replaces `from` in a file. */
static bool bn_edit(const char *path, const char *from, const char *to) {
    static char text[8192], out[8192];
    FILE *f = fopen(path, "rb");
    size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f != NULL) { (void)fclose(f); }
    text[n] = '\0';
    char *at = strstr(text, from);
    if (at == NULL) { return false; }
    (void)snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    f = fopen(path, "wb");
    bool ok = f != NULL && fputs(out, f) >= 0;
    return f != NULL && fclose(f) == 0 && ok;
}

/* For inference without the first layers: their numbers in the folder's config; what the file has of them is passed over. */
TEST(bottleneck_loses_layers_by_its_config) {
    static const char *const methods[] = {"houlsby", "compacter"};
    for (size_t i = 0; i < 2; i++) {
        fake_base b;
        peft_status st;
        peft__adapter *back = NULL;
        const char *dir = runner_path(runner_tmpdir(), "adapter");
        bn_base(&b, 16);
        peft__adapter *a = fake_adapter(&b, methods[i], FAKE("reduction_factor=4", "adapter_drop=1"), 1, &st);
        CHECK_OK(st);
        bn_shake(a);
        CHECK_OK(peft__adapter_save_hf(a, dir));
        CHECK(bn_edit(runner_path(dir, "adapter_config.json"), "\"leave_out\": []", "\"leave_out\": [0]"));
        CHECK_OK(peft__adapter_load_hf(b.mem, &peft__kernels_generic, &b.info, "y", dir, false, &back));
        for (size_t p = 0; p < a->params.len; p++) {
            const peft__adapter_param *was = peft__adapter_param_at(a, p), *is = peft__adapter_find(back, was->p.name, NULL);
            bool left = strstr(was->p.name, "layers.0.") != NULL;
            CHECK((is == NULL) == left);
            if (!left) { CHECK_MEM(is->p.value, was->p.value, (size_t)(was->p.rows * was->p.cols) * sizeof *was->p.value); }
        }
        CHECK_INT(peft__opt_int(&back->opts, "adapter_drop"), 1);
        peft__adapter_release(back);
        CHECK(bn_edit(runner_path(dir, "adapter_config.json"), "\"leave_out\": [0]", "\"leave_out\": [1]"));
        CHECK(bn_edit(runner_path(dir, "adapter_config.json"), "\"mh_adapter\": true", "\"mh_adapter\": false"));
        CHECK_STATUS(peft__adapter_load_hf(b.mem, &peft__kernels_generic, &b.info, "y", dir, false, &back), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("layers.0.attention_adapters"); /* others are no more passed over than before */
        peft__adapter_release(a);
        fake_end(&b);
    }
}

TEST(bottleneck_errors) {
    fake_base b;
    peft_status st;
    bn_base(&b, 24);
    CHECK(fake_adapter(&b, "compacter", NULL, 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("phm_dim 4 does not divide the bottleneck's width 1, which is the hidden size 24");
    CHECK_ERROR_HAS("a factor of 6 would do");
    CHECK(fake_adapter(&b, "compacter++", FAKE("reduction_factor=4"), 1, &st) == NULL);
    CHECK_ERROR_HAS("phm_dim 4 does not divide the bottleneck's width 6");
    CHECK(fake_adapter(&b, "compacter++", FAKE("reduction_factor=2", "phm_dim=5"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("phm_dim 5 does not divide the hidden size 24");
    CHECK(fake_adapter(&b, "compacter", FAKE("reduction_factor=2", "reduction_factors={\"1\":3}", "shared_W_phm=true"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("shared_W_phm: the bottleneck's width is 12 in layer 0 and 8 in layer 1");
    CHECK(fake_adapter(&b, "houlsby", FAKE("scaling=some"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    CHECK_ERROR_HAS("option \"scaling\" is \"some\", expected a number, learned or channel");
    CHECK(fake_adapter(&b, "pfeiffer", FAKE("output_adapter=false"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("\"mh_adapter\", \"output_adapter\", \"cross_adapter\" and \"leave_out\" leave no layer");
    CHECK(fake_adapter(&b, "pfeiffer", FAKE("adapter_drop=-1"), 1, &st) == NULL);
    CHECK_INT(st, PEFT_E_KEY);
    fake_end(&b);
}

TEST(bottleneck_every_allocation_may_fail) {
    static const char *const methods[] = {"houlsby", "compacter", "compacter"};
    static const char *const settings[] = {"use_gating=true", "shared_W_phm=true", "shared_phm_rule=false"};
    for (size_t i = 0; i < PEFT__COUNT(methods); i++) {
        fake_base b;
        peft_status st = PEFT_E_NOMEM;
        bn_base(&b, 16);
        size_t before = atomic_load(&b.mem->now);
        for (size_t n = 1; n < 2000 && st != PEFT_OK; n++) {
            peft__mem_fail_after(b.mem, n, true);
            peft__adapter *a = fake_adapter(&b, methods[i], FAKE("reduction_factor=4", settings[i]), 1, &st);
            peft__mem_fail_after(b.mem, 0, false);
            CHECK(a != NULL || st == PEFT_E_NOMEM);
            peft__adapter_release(a);
            CHECK_INT(atomic_load(&b.mem->now), before);
        }
        CHECK_INT(st, PEFT_OK);
        fake_end(&b);
    }
}
