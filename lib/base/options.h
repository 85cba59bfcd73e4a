/* options.h - layer 0: options by string key, checked against one table per schema.
 *
 * A schema is a static table; its keys, types, ranges, defaults and help drive the setters, the tool, the docs, the
 * bindings and adapter_config.json alike. A set is the values that a caller gave, with defaults behind them.
 * JSON in and out is api/'s business; lists and objects are kept here as canonical JSON text. */
#ifndef PEFT_OPTIONS_H
#define PEFT_OPTIONS_H

#include "base/base.h"

enum {
    PEFT__OPT_INT = 0,
    PEFT__OPT_FLOAT = 1,
    PEFT__OPT_BOOL = 2,
    PEFT__OPT_STR = 3,    /* any text, or one of `choices` */
    PEFT__OPT_LIST = 4,   /* JSON text: an array ["q_proj","v_proj"], or a string "all-linear" / "regex"; "" or "null": unset.
                             From plain text "a,b" becomes an array; one word that is a regex (has one of \^$*+?()[]{}|) or
                             "all-linear" becomes a string */
    PEFT__OPT_MAP = 5,    /* JSON text: an object {"k_proj": 4} */
    PEFT__OPT_SIZE = 6,   /* bytes: an integer, or text such as 512MiB, 1GiB, 2GB */
    PEFT__OPT_LISTS = 7,  /* as LIST, or an object of lists {"embed_tokens": [3, 5]} */
    PEFT__OPT_PAIRS = 8   /* as MAP; from plain text a=x,b="y z" becomes {"a":"x","b":"y z"} */
};

typedef struct peft__option {
    const char *key;
    int32_t type;         /* PEFT__OPT_* */
    const char *dflt;     /* as text; "" for an unset STR, LIST, MAP, LISTS or PAIRS */
    double min, max;      /* INT, FLOAT, SIZE: inclusive range; min > max: none */
    const char *choices;  /* STR: "a|b|c"; NULL: any */
    const char *help;     /* one line */
} peft__option;

typedef struct peft__schema {
    const char *name;     /* "trainer", "method:lora" */
    const peft__option *options;
    size_t count;
} peft__schema;

typedef struct peft__opt_value {
    bool set;             /* given by the caller; else the default holds */
    int64_t i;            /* INT, BOOL, SIZE */
    double f;             /* FLOAT (and INT) */
    char *s;              /* STR, LIST, MAP: owned, NUL-terminated */
} peft__opt_value;

typedef struct peft__optset {
    peft__mem *mem;
    const peft__schema *schema;
    peft__opt_value *values; /* one an option, defaults filled in */
} peft__optset;

peft_status peft__optset_init(peft__optset *o, peft__mem *mem, const peft__schema *schema);
void peft__optset_free(peft__optset *o); /* a zeroed set is fine */
peft_status peft__optset_copy(peft__optset *dst, peft__mem *mem, const peft__optset *src);
/* All setters: PEFT_E_KEY for an unknown key (with the nearest known one), a wrong type or a value out of range. */
peft_status peft__opt_set_int(peft__optset *o, const char *key, int64_t v);
peft_status peft__opt_set_float(peft__optset *o, const char *key, double v);
peft_status peft__opt_set_bool(peft__optset *o, const char *key, bool v);
peft_status peft__opt_set_str(peft__optset *o, const char *key, const char *v);
peft_status peft__opt_set_text(peft__optset *o, const char *key, const char *text);
/* For LIST, MAP and LISTS: canonical JSON as it is (the caller parsed it). */
peft_status peft__opt_set_raw(peft__optset *o, const char *key, const char *json_text);
const peft__option *peft__schema_find(const peft__schema *s, const char *key); /* NULL: absent */
bool peft__option_is_json(const peft__option *opt); /* LIST, MAP, LISTS, PAIRS: the value is kept as JSON text */

/* Reads; the key must exist with that type (a bug otherwise: the zero value is returned). */
int64_t peft__opt_int(const peft__optset *o, const char *key);
double peft__opt_float(const peft__optset *o, const char *key);
bool peft__opt_bool(const peft__optset *o, const char *key);
const char *peft__opt_str(const peft__optset *o, const char *key); /* "" when unset; LIST and MAP: their JSON text */
bool peft__opt_is_set(const peft__optset *o, const char *key);
/* Edit distance based suggestion among n names: NULL when nothing is near. */
const char *peft__nearest(const char *word, const char *const *names, size_t n);

#endif
