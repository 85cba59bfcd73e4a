/* Target matching: HF PEFT's rules one by one, and an error for each name that means nothing. */
#include "base/base.h"
#include <stdio.h>

#include "peft_fake.h"

enum { TARGET_KINDS = 1 << PEFT__SITE_LINEAR | 1 << PEFT__SITE_HEAD };

/* The matched paths, one a line. */
static peft_status targets_of(fake_base *b, const peft__target *t, char out[2048]) {
    bool matched[FAKE_SITES] = {false};
    out[0] = '\0';
    peft_status st = peft__target_match(b->mem, &b->info, t, TARGET_KINDS, matched);
    for (size_t i = 0; i < b->info.n_sites && st == PEFT_OK; i++) {
        if (matched[i]) { (void)snprintf(out + strlen(out), 2048 - strlen(out), "%s\n", b->sites[i].path); }
    }
    return st;
}

static size_t targets_lines(const char *text) {
    size_t n = 0;
    for (; *text != '\0'; text++) { n += *text == '\n'; }
    return n;
}

TEST(target_lists_and_patterns) {
    static const struct { peft__target t; size_t n; const char *has; } rows[] = {
        {{.modules = "[\"q_proj\",\"v_proj\"]"}, 4, "model.layers.1.self_attn.v_proj\n"},
        {{.modules = "[\"self_attn.q_proj\"]"}, 2, "model.layers.0.self_attn.q_proj\n"},
        {{.modules = "[\"model.layers.1.mlp.up_proj\"]"}, 1, "model.layers.1.mlp.up_proj\n"},
        {{.modules = "\".*\\\\.(q|k)_proj\""}, 4, "model.layers.0.self_attn.k_proj\n"},
        {{.modules = "\"model\\\\.layers\\\\.0\\\\..*\""}, 7, "model.layers.0.mlp.down_proj\n"},
        {{.modules = "\"all-linear\""}, 14, "model.layers.1.mlp.down_proj\n"},
        {{.modules = "[\"lm_head\"]"}, 1, "lm_head\n"},
        {{.modules = "", .defaults = "[\"q_proj\",\"v_proj\"]"}, 4, "model.layers.1.self_attn.q_proj\n"},
        {{.modules = "\"all-linear\"", .exclude = "[\"down_proj\"]"}, 12, "up_proj\n"},
        {{.modules = "\"all-linear\"", .exclude = "\".*self_attn.*\""}, 6, "up_proj\n"},
        {{.modules = "[\"q_proj\"]", .layers = "[1]"}, 1, "model.layers.1.self_attn.q_proj\n"},
        {{.modules = "[\"q_proj\"]", .layers = "[0,1]", .layers_pattern = "[\"layers\"]"}, 2, "layers.0.self_attn.q_proj\n"},
        {{.modules = "[\"model.layers.0.self_attn.q_proj\",\"k_proj\"]", .layers = "[1]"}, 2, "layers.0.self_attn.q_proj\n"},
        {{.modules = "\"all-linear\"", .modules_to_save = "[\"mlp\"]"}, 8, "o_proj\n"},
        {{.modules = "[\"q_proj\",\"nothing\"]", .lenient = true}, 2, "q_proj\n"},
    };
    fake_base b;
    char text[2048];
    fake_llama(&b);
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        CHECK_OK(targets_of(&b, &rows[i].t, text));
        CHECK_INT(targets_lines(text), rows[i].n);
        CHECK(strstr(text, rows[i].has) != NULL);
    }
    fake_end(&b);
}

TEST(target_errors_name_the_culprit) {
    static const struct { peft__target t; peft_status code; const char *has; } rows[] = {
        {{.modules = "[\"q_proj\",\"v_porj\"]"}, PEFT_E_NOT_FOUND,
         "target_modules: no module of this llama model matches \"v_porj\"; did you mean \"v_proj\"? there are: q_proj, k_proj"},
        {{.modules = "[\"proj\"]"}, PEFT_E_NOT_FOUND, "matches \"proj\""},
        {{.modules = "\"q_.roj\""}, PEFT_E_NOT_FOUND, "matches \"q_.roj\""},
        {{.modules = "[\"embed_tokens\"]"}, PEFT_E_UNSUPPORTED, "\"model.embed_tokens\" is a table of embeddings"},
        {{.modules = "[\"embed_tokens\",\"q_proj\"]", .lenient = true}, PEFT_E_UNSUPPORTED, "a table of embeddings"},
        {{.modules = "[\"norm\"]"}, PEFT_E_UNSUPPORTED, "\"model.norm\" is no projection"},
        {{.modules = ""}, PEFT_E_NOT_FOUND, "target_modules must be given: there are no default targets for model type \"llama\""},
        {{.modules = "[\"q_proj\"]", .exclude = "[\"x\"]"}, PEFT_E_NOT_FOUND, "exclude_modules: no module"},
        {{.modules = "[\"q_proj\"]", .exclude = "[\"q_proj\"]"}, PEFT_E_NOT_FOUND, "no module is left"},
        {{.modules = "[\"q_proj\"]", .layers = "[0,7]"}, PEFT_E_NOT_FOUND, "layers_to_transform: no target is in layer 7"},
        {{.modules = "[\"q_proj\"]", .layers = "[\"x\"]"}, PEFT_E_KEY, "\"x\" is no number of a layer"},
        {{.modules = "[\"q_proj\"]", .layers = "[0]", .layers_pattern = "[\"blocks\"]"}, PEFT_E_NOT_FOUND, "in layer 0"},
        {{.modules = "\".*\"", .layers = "[0]"}, PEFT_E_KEY, "layers_to_transform needs target_modules to be a list"},
        {{.modules = "[\"q_proj\"]", .layers_pattern = "[\"layers\"]"}, PEFT_E_KEY, "layers_to_transform is not"},
        {{.modules = "\"(q\""}, PEFT_E_INVALID, "pattern \"(q\""},
        {{.modules = "[true]"}, PEFT_E_KEY, "item 0 is neither a name nor a whole number"},
    };
    fake_base b;
    char text[2048];
    fake_llama(&b);
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        CHECK_STATUS(targets_of(&b, &rows[i].t, text), rows[i].code);
        CHECK_ERROR_HAS(rows[i].has);
    }
    fake_end(&b);
}

TEST(target_gpt2_layers) {
    fake_base b;
    char text[2048];
    fake_gpt2(&b);
    CHECK_OK(targets_of(&b, &(peft__target){.modules = "[\"c_proj\"]", .layers = "[1]", .layers_pattern = "[\"h\"]"}, text));
    CHECK_STR(text, "transformer.h.1.attn.c_proj\ntransformer.h.1.mlp.c_proj\n");
    CHECK_OK(targets_of(&b, &(peft__target){.modules = "[\"mlp.c_proj\"]", .layers = "[0]"}, text));
    CHECK_STR(text, "transformer.h.0.mlp.c_proj\n");
    fake_end(&b);
}

TEST(target_saved_modules) {
    fake_base b;
    bool saved[FAKE_SITES];
    fake_llama(&b);
    CHECK_OK(peft__target_saved(b.mem, &b.info, "[\"lm_head\",\"norm\",\"layers.1.mlp\"]", false, saved));
    size_t n = 0;
    for (size_t i = 0; i < b.info.n_sites; i++) { n += saved[i]; }
    CHECK_INT(n, 5);
    CHECK(saved[fake_find(&b, "lm_head")] && saved[fake_find(&b, "model.norm")]);
    CHECK(saved[fake_find(&b, "model.layers.1.mlp.gate_proj")] && !saved[fake_find(&b, "model.layers.0.mlp.gate_proj")]);
    CHECK(!saved[fake_find(&b, "model.layers.0.input_layernorm")]);
    CHECK_STATUS(peft__target_saved(b.mem, &b.info, "[\"embed_token\"]", false, saved), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("modules_to_save: no module of this llama model matches \"embed_token\"; did you mean \"embed_tokens\"?");
    CHECK_OK(peft__target_saved(b.mem, &b.info, "[\"score\"]", true, saved));
    CHECK_STATUS(peft__target_saved(b.mem, &b.info, "\"a.*\"", false, saved), PEFT_E_KEY);
    fake_end(&b);
}

TEST(target_patterns) {
    peft__mem *mem = runner_mem();
    const char *map = "{\"k_proj\":4,\"layers.0.self_attn.q_proj\":16,\"^model.*\\\\.up_proj\":2.5,\".*proj\":3}";
    static const struct { const char *path; double value; } rows[] = {
        {"model.layers.0.self_attn.k_proj", 4},  {"model.layers.0.self_attn.q_proj", 16},
        {"model.layers.1.self_attn.q_proj", 3},  {"model.layers.1.mlp.up_proj", 2.5},
        {"lm_head", 8},                          {"model.layers.10.self_attn.q_proj", 3},
    };
    double v;
    for (size_t i = 0; i < PEFT__COUNT(rows); i++) {
        CHECK_OK(peft__target_pattern(mem, map, rows[i].path, 8, &v));
        CHECK_NEAR(v, rows[i].value, 0);
    }
    CHECK_OK(peft__target_pattern(mem, "", "x", 8, &v));
    CHECK_NEAR(v, 8, 0);
    CHECK_STATUS(peft__target_pattern(mem, "{\"x\":\"4\"}", "x", 8, &v), PEFT_E_KEY);
    CHECK_ERROR_HAS("the value of pattern \"x\" is no number");
}
