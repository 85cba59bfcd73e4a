/* pretok_names.c - which splitting rules a name of tokenizer.ggml.pre or a regular expression stands for.
 *
 * The names and what goes with them are those that llama.cpp gives to GGUF files
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp); the expressions are those of the models' own
 * tokenizer.json. Left out: names whose rules tell upper from lower case (tekken, gpt-4o), and rarer ones. */
#include "text/parts.h"

#define PRETOK_GPT2 \
    { {{PEFT__SPLIT_GPT2, 0}}, 1 }
#define PRETOK_LLAMA3 \
    { {{PEFT__SPLIT_LLAMA3, 3}}, 1 }
#define PRETOK_QWEN2 \
    { {{PEFT__SPLIT_LLAMA3, 1}}, 1 }
#define PRETOK_DIGITS \
    { {{PEFT__SPLIT_DIGITS, 1}, {PEFT__SPLIT_GPT2, 0}}, 2 }
#define PRETOK_FALCON \
    { {{PEFT__SPLIT_PUNCT, 1}, {PEFT__SPLIT_GPT2, 0}, {PEFT__SPLIT_TRIPLE, 0}}, 3 }
#define PRETOK_DEFAULT \
    { {{PEFT__SPLIT_PUNCT, 0}, {PEFT__SPLIT_GPT2, 0}, {PEFT__SPLIT_DIGITS, 0}, {PEFT__SPLIT_TRIPLE, 0}}, 4 }

static const peft__pretok_named pretok_names[] = {
    {"gpt-2", PRETOK_GPT2, false, false, false},        {"phi-2", PRETOK_GPT2, false, false, false},
    {"mpt", PRETOK_GPT2, false, false, false},          {"olmo", PRETOK_GPT2, false, false, true},
    {"roberta-bpe", PRETOK_GPT2, false, false, false},  {"modern-bert", PRETOK_GPT2, false, false, true},
    {"gigachat", PRETOK_GPT2, false, false, false},     {"jina-v1-en", PRETOK_GPT2, false, false, false},
    {"jina-v2-es", PRETOK_GPT2, false, false, false},   {"jina-v2-de", PRETOK_GPT2, false, false, false},
    {"jina-v2-code", PRETOK_GPT2, false, false, false}, {"jina-es", PRETOK_GPT2, false, false, false},
    {"jina-de", PRETOK_GPT2, false, false, false},      {"llama-bpe", PRETOK_LLAMA3, true, true, false},
    {"llama3", PRETOK_LLAMA3, true, true, false},       {"llama-v3", PRETOK_LLAMA3, true, true, false},
    {"falcon3", PRETOK_LLAMA3, true, true, false},      {"lfm2", PRETOK_LLAMA3, true, true, false},
    {"dbrx", PRETOK_LLAMA3, false, false, false},       {"smaug-bpe", PRETOK_LLAMA3, false, false, false},
    {"qwen2", PRETOK_QWEN2, false, false, true},        {"deepseek-r1-qwen", PRETOK_QWEN2, false, false, false},
    {"megrez", PRETOK_QWEN2, false, false, false},      {"stablelm2", PRETOK_QWEN2, false, false, false},
    {"smollm", PRETOK_DIGITS, false, false, false},     {"starcoder", PRETOK_DIGITS, false, false, false},
    {"refact", PRETOK_DIGITS, false, false, false},     {"command-r", PRETOK_DIGITS, false, false, false},
    {"codeshell", PRETOK_DIGITS, false, false, false},  {"exaone", PRETOK_DIGITS, false, false, false},
    {"minerva-7b", PRETOK_DIGITS, false, false, false}, {"falcon", PRETOK_FALCON, false, false, false},
    {"default", PRETOK_DEFAULT, false, false, false},
};

#define PRETOK_TAIL  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PRETOK_HEAD  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define PRETOK_HEAD2 "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"

/* The first expression of a rule is the one that is written. */
static const struct {
    const char *regex;
    peft__split_stage stage;
} pretok_regexes[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", {PEFT__SPLIT_GPT2, 0}},
    {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", {PEFT__SPLIT_GPT2, 0}},
    {PRETOK_HEAD "\\p{N}{1,3}|" PRETOK_TAIL, {PEFT__SPLIT_LLAMA3, 3}},
    {PRETOK_HEAD2 "\\p{N}{1,3}|" PRETOK_TAIL, {PEFT__SPLIT_LLAMA3, 3}},
    {PRETOK_HEAD "\\p{N}|" PRETOK_TAIL, {PEFT__SPLIT_LLAMA3, 1}},
    {PRETOK_HEAD2 "\\p{N}|" PRETOK_TAIL, {PEFT__SPLIT_LLAMA3, 1}},
    {"\\p{N}", {PEFT__SPLIT_DIGITS, 1}},
    {"\\p{N}{1,3}", {PEFT__SPLIT_DIGITS, 3}},
    {"\\p{N}+", {PEFT__SPLIT_DIGITS, 0}},
    {"[0-9][0-9][0-9]", {PEFT__SPLIT_TRIPLE, 0}},
    {"[\\p{P}\\$\\+<=>\\^~\\|]+", {PEFT__SPLIT_PUNCT, 0}},
    {"[\\p{P}\\$\\+<=>\\^~\\|`]+", {PEFT__SPLIT_PUNCT, 1}},
};

static bool pretok_equal(const peft__pretok *a, const peft__pretok *b) {
    if (a->count != b->count) { return false; }
    for (size_t i = 0; i < a->count; i++) {
        if (a->stages[i].rule != b->stages[i].rule || a->stages[i].max != b->stages[i].max) { return false; }
    }
    return true;
}

const peft__pretok_named *peft__pretok_by_name(const char *name) {
    for (size_t i = 0; i < PEFT__COUNT(pretok_names); i++) {
        if (strcmp(pretok_names[i].name, name) == 0) { return &pretok_names[i]; }
    }
    return NULL;
}

const char *peft__pretok_name(const peft__pretok *rules) {
    for (size_t i = 0; i < PEFT__COUNT(pretok_names); i++) {
        if (pretok_equal(&pretok_names[i].rules, rules)) { return pretok_names[i].name; }
    }
    return NULL;
}

bool peft__pretok_by_regex(const char *regex, peft__split_stage *out) {
    for (size_t i = 0; i < PEFT__COUNT(pretok_regexes); i++) {
        if (strcmp(pretok_regexes[i].regex, regex) == 0) {
            *out = pretok_regexes[i].stage;
            return true;
        }
    }
    return false;
}

const char *peft__pretok_regex(const peft__split_stage *stage) {
    for (size_t i = 0; i < PEFT__COUNT(pretok_regexes); i++) {
        const peft__split_stage *s = &pretok_regexes[i].stage;
        if (s->rule == stage->rule && s->max == stage->max) { return pretok_regexes[i].regex; }
    }
    return NULL;
}
#undef PRETOK_GPT2
#undef PRETOK_LLAMA3
#undef PRETOK_QWEN2
#undef PRETOK_DIGITS
#undef PRETOK_FALCON
#undef PRETOK_DEFAULT
#undef PRETOK_TAIL
#undef PRETOK_HEAD
#undef PRETOK_HEAD2
