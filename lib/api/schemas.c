/* schemas.c - the list of all option schemas, those of the calls that have no folder of their own, and a schema as JSON. */
#include "api/api.h"

static const peft__option schemas_model[] = {
    {"load", PEFT__OPT_STR, "mmap", 1, 0, "mmap|copy", "map the files, or copy them into memory where they may change"},
    {"task", PEFT__OPT_STR, "", 1, 0,
     "|causal_lm|masked_lm|seq2seq_lm|sequence_classification|token_classification|question_answering|embedding",
     "what the model is asked for, and so which head it has; unset: what config.json's architectures says"},
#ifndef PEFT_MINIMAL
    {"labels", PEFT__OPT_LIST, "", 1, 0, NULL, "names of a classification's labels; unset: those of config.json"},
    {"num_labels", PEFT__OPT_INT, "0", 0, 1 << 20, NULL, "how many labels, or numbers of a regression; 0: as many as names"},
    {"problem_type", PEFT__OPT_STR, "", 1, 0, "|single_label_classification|multi_label_classification|regression",
     "of sequence_classification; unset: what config.json says, else regression for one label and single_label for more"},
    {"pooling", PEFT__OPT_STR, "", 1, 0, "|mean|cls|last",
     "of embeddings: the row's mean, first or last state; unset: what the files say, else mean"},
    {"normalize", PEFT__OPT_BOOL, "true", 1, 0, NULL, "embeddings have length 1"},
    {"head_seed", PEFT__OPT_INT, "0", 0, 0x1p53, NULL, "seed of a head that no file has"},
#endif
};
const peft__schema peft__schema_model = {"model", schemas_model, PEFT__COUNT(schemas_model)};

static const peft__option schemas_save[] = {
    {"format", PEFT__OPT_STR, "", 1, 0, "hf|adapterhub|gguf",
     "hf: as Hugging Face PEFT; adapterhub: as AdapterHub's library; gguf: a LoRA file of llama.cpp; unset: gguf where the path ends "
     "in .gguf, else what has the method"},
    {"method", PEFT__OPT_STR, "", 1, 0, "lora|prompt",
     "write it as this method, where that is exact: lora (from vera, adalora), prompt (from ptuning)"},
    {"dtype", PEFT__OPT_STR, "", 1, 0, "float32|float16|bfloat16",
     "type of the tensors of a whole model (method full); empty: as in the base; adapters are float32"},
};
const peft__schema peft__schema_save = {"save", schemas_save, PEFT__COUNT(schemas_save)};

static const peft__option schemas_merge[] = {
    {"dtype", PEFT__OPT_STR, "", 1, 0, "float32|float16|bfloat16|q8_0|q4_0|q4_1",
     "type of the written tensors; empty: as in the base; q8_0, q4_0 and q4_1 in a GGUF file only"},
};
const peft__schema peft__schema_merge = {"merge", schemas_merge, PEFT__COUNT(schemas_merge)};

static const peft__option schemas_load[] = {
    {"allow_nan", PEFT__OPT_BOOL, "false", 1, 0, NULL, "accept weights that are NaN or infinite"},
#ifndef PEFT_MINIMAL
    {"replace", PEFT__OPT_BOOL, "false", 1, 0, NULL, "take the place of an adapter of the same name; who uses that one goes on with it"},
#endif
};
const peft__schema peft__schema_load = {"load", schemas_load, PEFT__COUNT(schemas_load)};

static const peft__schema *const schemas_plain[] = {
    &peft__schema_trainer,  &peft__schema_dataset, &peft__schema_optimizer, &peft__schema_model, &peft__schema_session,
    &peft__schema_generate, &peft__schema_save,    &peft__schema_merge,     &peft__schema_load,  &peft__schema_combine,
    &peft__schema_check,
};

const peft__schema *peft__schema_at(size_t index) {
    if (index < PEFT__COUNT(schemas_plain)) { return schemas_plain[index]; }
    const peft__method *m = peft__method_at(index - PEFT__COUNT(schemas_plain));
    return m != NULL ? m->schema : NULL;
}

peft_status peft__schema_by_name(const char *name, const peft__schema **out) {
    const char *names[64];
    char known[512] = "";
    size_t n = 0, len = 0;
    for (const peft__schema *s; (s = peft__schema_at(n)) != NULL && n < PEFT__COUNT(names); n++) {
        if (strcmp(s->name, name) == 0) {
            *out = s;
            return PEFT_OK;
        }
        size_t more = strlen(s->name);
        names[n] = s->name;
        if (len + more + 3 > sizeof known) { continue; }
        if (len > 0) {
            memcpy(known + len, ", ", 2);
            len += 2;
        }
        memcpy(known + len, s->name, more + 1);
        len += more;
    }
    const char *near = peft__nearest(name, names, n);
    if (near != NULL) {
        return peft__fail(PEFT_E_KEY, "unknown schema \"%s\"; did you mean \"%s\"? known: %s", name, near, known);
    }
    return peft__fail(PEFT_E_KEY, "unknown schema \"%s\"; known: %s", name, known);
}

peft_status peft__dtype_option(const peft__optset *o, int32_t *out) {
    static const struct {
        const char *name;
        int32_t dtype;
    } names[] = {{"", -1},
                 {"float32", PEFT_DTYPE_F32},
                 {"float16", PEFT_DTYPE_F16},
                 {"bfloat16", PEFT_DTYPE_BF16},
                 {"q8_0", PEFT_DTYPE_Q8_0},
                 {"q4_0", PEFT_DTYPE_Q4_0},
                 {"q4_1", PEFT_DTYPE_Q4_1}};
    const char *name = peft__opt_str(o, "dtype");
    for (size_t i = 0; i < PEFT__COUNT(names); i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].dtype;
            return PEFT_OK;
        }
    }
    return peft__fail(PEFT_E_INTERNAL, "dtype \"%s\" is in a schema, but not known", name);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------ */

/* LIST and MAP are JSON text already; the writer wants its comma first. */
static void schemas_put_raw(peft__json_out *j, const char *text) {
    if (text == NULL || text[0] == '\0') {
        peft__json_put_null(j);
        return;
    }
    peft__json_put_bool(j, true); /* sets the comma; its four letters make room for the text */
    j->s->len -= j->s->failed ? 0 : strlen("true");
    peft__str_puts(j->s, text);
}

void peft__option_json(const peft__option *opt, const peft__opt_value *v, peft__json_out *j) {
    bool number = opt->type == PEFT__OPT_INT || opt->type == PEFT__OPT_FLOAT || opt->type == PEFT__OPT_SIZE;
    if (number && !v->set && opt->dflt[0] == '\0') {
        peft__json_put_null(j);
        return;
    }
    switch (opt->type) {
        case PEFT__OPT_INT:
        case PEFT__OPT_SIZE: peft__json_put_int(j, v->i); break;
        case PEFT__OPT_FLOAT: peft__json_put_double(j, v->f); break;
        case PEFT__OPT_BOOL: peft__json_put_bool(j, v->i != 0); break;
        case PEFT__OPT_STR: peft__json_put_text(j, v->s != NULL ? v->s : ""); break;
        default: schemas_put_raw(j, v->s); break;
    }
}

static void schemas_put_limit(const peft__option *opt, double limit, peft__json_out *j) {
    bool number = opt->type == PEFT__OPT_INT || opt->type == PEFT__OPT_FLOAT || opt->type == PEFT__OPT_SIZE;
    if (!number || opt->min > opt->max) {
        peft__json_put_null(j);
    } else if (opt->type == PEFT__OPT_FLOAT || limit < -0x1p53 || limit > 0x1p53) {
        peft__json_put_double(j, limit);
    } else {
        peft__json_put_int(j, (int64_t)limit);
    }
}

static void schemas_put_choices(const char *choices, peft__json_out *j) {
    if (choices == NULL) {
        peft__json_put_null(j);
        return;
    }
    peft__json_array(j);
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        peft__json_put_str(j, at, n);
        at += n;
        if (*at == '\0') { break; }
    }
    peft__json_array_end(j);
}

static void schemas_put_option(const peft__option *opt, const peft__opt_value *v, peft__json_out *j) {
    static const char *const types[] = {"int", "float", "bool", "str", "list", "map", "size", "list or map", "map"};
    peft__json_object(j);
    peft__json_key(j, "key");
    peft__json_put_text(j, opt->key);
    peft__json_key(j, "type");
    peft__json_put_text(j, types[opt->type]);
    peft__json_key(j, "default");
    peft__option_json(opt, v, j);
    peft__json_key(j, "min");
    schemas_put_limit(opt, opt->min, j);
    peft__json_key(j, "max");
    schemas_put_limit(opt, opt->max, j);
    peft__json_key(j, "choices");
    schemas_put_choices(opt->choices, j);
    peft__json_key(j, "help");
    peft__json_put_text(j, opt->help);
    peft__json_object_end(j);
}

/* There is no context here, hence no allocator of the host's: the two blocks come from malloc and are gone at the end. */
peft_status peft_schema_json(const char *schema, char *buf, size_t cap, size_t *needed) {
    peft_status st = PEFT_OK;
    const peft__schema *s = NULL;
    peft__mem mem;
    peft__optset defaults;
    peft__str text;
    peft__json_out j;
    peft__mem_init(&mem, NULL);
    peft__str_init(&text, &mem);
    memset(&defaults, 0, sizeof defaults);
    TRY(peft__check_buffer(buf, cap, needed));
    TRY(peft__check_text(schema, "schema"));
    TRY(peft__schema_by_name(schema, &s));
    TRY(peft__optset_init(&defaults, &mem, s));
    peft__json_begin(&j, &text, 0);
    peft__json_array(&j);
    for (size_t i = 0; i < s->count; i++) { schemas_put_option(&s->options[i], &defaults.values[i], &j); }
    peft__json_array_end(&j);
out:
    peft__optset_free(&defaults);
    return peft__finish_text(st, &text, buf, cap, needed);
}
