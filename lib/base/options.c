/* options.c - a set of values by key, checked against the table of its schema.
 *
 * Text of a LIST or MAP is brought to compact JSON here, by a reader that knows no more of JSON than its grammar (RFC
 * 8259); what the elements mean is the business of whoever reads the option. An unknown key is answered with the nearest
 * known one, by Levenshtein's distance (1966).
 *
 * Left out: whole sets from and to JSON (api/), duplicate keys of a MAP (whoever parses it). */
#include "base/options.h"

#include <math.h>
#include <stdio.h>

/* ---- the nearest name ---------------------------------------------------------------------------------------- */

enum { NEAREST_LONGEST = 64 }; /* longer words are compared by nobody */

/* '-' and '_' and the case of letters are what people mistake without noticing: they cost nothing. */
static int nearest_fold(char c) {
    if (c >= 'A' && c <= 'Z') { return c - 'A' + 'a'; }
    return c == '-' ? '_' : (unsigned char)c;
}

static size_t nearest_distance(const char *a, size_t n, const char *b, size_t m) {
    size_t row[NEAREST_LONGEST + 1];
    for (size_t j = 0; j <= m; j++) { row[j] = j; }
    for (size_t i = 1; i <= n; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = corner + (nearest_fold(a[i - 1]) != nearest_fold(b[j - 1]));
            corner = row[j];
            row[j] = PEFT__MIN(PEFT__MIN(row[j - 1], row[j]) + 1, change);
        }
    }
    return row[m];
}

const char *peft__nearest(const char *word, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t len = strlen(word), least = SIZE_MAX;
    if (len == 0 || len > NEAREST_LONGEST) { return NULL; }
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(names[i]);
        if (other == 0 || other > NEAREST_LONGEST) { continue; }
        size_t d = nearest_distance(word, len, names[i], other);
        /* A part of a name ("alpha" of "lora_alpha") is nearer than its distance says. */
        if (len >= 3 && d > 2 && strstr(names[i], word) != NULL) { d = 2; }
        if (d < least && d < len && d <= 1 + len / 4) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

/* ---- JSON text, checked and made compact --------------------------------------------------------------------- */

enum { OPTION_JSON_DEPTH = 16 };

typedef struct option_json {
    const char *at, *end; /* what is left of the text */
    peft__str *out;       /* the compact text */
    int32_t depth;
} option_json;

static void option_json_space(option_json *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) { r->at++; }
}

static bool option_json_char(option_json *r, char c) {
    option_json_space(r);
    if (r->at == r->end || *r->at != c) { return false; }
    peft__str_putc(r->out, c);
    r->at++;
    return true;
}

/* A string with its quotes; escapes are kept as they are. */
static bool option_json_string(option_json *r) {
    const char *from = r->at;
    if (r->at == r->end || *r->at != '"') { return false; }
    for (r->at++; r->at < r->end && *r->at != '"'; r->at++) {
        if ((unsigned char)*r->at < 0x20) { return false; }
        if (*r->at != '\\') { continue; }
        r->at++;
        if (r->at == r->end || *r->at == '\0' || strchr("\"\\/bfnrtu", *r->at) == NULL) { return false; }
        for (int i = 0; i < 4 && *r->at == 'u'; i++) {
            if (r->end - r->at < 5 || strchr("0123456789abcdefABCDEF", r->at[1 + i]) == NULL) { return false; }
        }
    }
    if (r->at == r->end) { return false; }
    r->at++;
    peft__str_put(r->out, from, (size_t)(r->at - from));
    return true;
}

/* true, false, null or a number. */
static bool option_json_word(option_json *r) {
    const char *from = r->at;
    while (r->at < r->end && *r->at != '\0' && strchr(",]} \t\r\n:", *r->at) == NULL) { r->at++; }
    size_t len = (size_t)(r->at - from);
    double number;
    bool name = (len == 4 && (memcmp(from, "true", 4) == 0 || memcmp(from, "null", 4) == 0)) ||
                (len == 5 && memcmp(from, "false", 5) == 0);
    if (!name && !peft__parse_f64(from, len, &number)) { return false; }
    peft__str_put(r->out, from, len);
    return true;
}

static bool option_json_value(option_json *r);

/* What stands between brackets: values, with a key before each in an object. */
static bool option_json_items(option_json *r, bool object) {
    char close = object ? '}' : ']';
    if (++r->depth > OPTION_JSON_DEPTH) { return false; }
    peft__str_putc(r->out, *r->at++);
    if (!option_json_char(r, close)) {
        do {
            option_json_space(r);
            if (object && (!option_json_string(r) || !option_json_char(r, ':'))) { return false; }
            if (!option_json_value(r)) { return false; }
        } while (option_json_char(r, ','));
        if (!option_json_char(r, close)) { return false; }
    }
    r->depth--;
    return true;
}

static bool option_json_value(option_json *r) {
    option_json_space(r);
    if (r->at == r->end) { return false; }
    switch (*r->at) {
    case '{': return option_json_items(r, true);
    case '[': return option_json_items(r, false);
    case '"': return option_json_string(r);
    default: return option_json_word(r);
    }
}

/* Whole text is one value; *out gets it without spaces. */
static bool option_json_compact(const char *text, size_t len, peft__str *out) {
    option_json r = {text, text + len, out, 0};
    if (!peft__utf8_valid(text, len) || !option_json_value(&r)) { return false; }
    option_json_space(&r);
    return r.at == r.end;
}

/* ---- LIST and MAP from plain text ---------------------------------------------------------------------------- */

static void option_quote(peft__str *out, const char *text, size_t len) {
    peft__str_putc(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20) {
            peft__str_putf(out, "\\u%04x", (unsigned)c);
        } else {
            if (c == '"' || c == '\\') { peft__str_putc(out, '\\'); }
            peft__str_putc(out, (char)c);
        }
    }
    peft__str_putc(out, '"');
}

static bool option_same_word(const char *text, size_t len, const char *word) {
    if (strlen(word) != len) { return false; }
    for (size_t i = 0; i < len; i++) {
        if (nearest_fold(text[i]) != nearest_fold(word[i])) { return false; }
    }
    return true;
}

/* "a, b" becomes ["a","b"]; whole numbers stay numbers. */
static bool option_list_words(peft__str *out, const char *text, size_t len) {
    peft__str_putc(out, '[');
    for (size_t at = 0; at <= len;) {
        size_t end = at;
        while (end < len && text[end] != ',') { end++; }
        size_t from = at, to = end;
        while (from < to && (text[from] == ' ' || text[from] == '\t')) { from++; }
        while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t')) { to--; }
        if (from == to) { return false; }
        int64_t number;
        if (at > 0) { peft__str_putc(out, ','); }
        if (peft__parse_i64(text + from, to - from, &number)) {
            peft__str_put(out, text + from, to - from);
        } else {
            option_quote(out, text + from, to - from);
        }
        at = end + 1;
    }
    peft__str_putc(out, ']');
    return true;
}

/* The canonical text of a LIST; empty for an unset one. */
static bool option_list(peft__str *out, const char *text) {
    size_t len = strlen(text);
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\n')) { len--; }
    while (len > 0 && (*text == ' ' || *text == '\n')) {
        text++;
        len--;
    }
    if (len == 0 || option_same_word(text, len, "null")) { return true; }
    if (!peft__utf8_valid(text, len)) { return false; }
    if (text[0] == '[' || text[0] == '"') {
        if (option_json_compact(text, len, out)) { return true; }
        if (text[0] == '"' || out->failed) { return false; }
        peft__str_clear(out); /* "[qv]_proj" is a pattern */
    }
    if (option_same_word(text, len, "all-linear")) {
        peft__str_puts(out, "\"all-linear\"");
        return true;
    }
    for (size_t i = 0; i < len; i++) {
        if (strchr("\\^$*+?()[]{}|", text[i]) != NULL) {
            option_quote(out, text, len);
            return true;
        }
    }
    return option_list_words(out, text, len);
}

static bool option_map(peft__str *out, const char *text) {
    size_t len = strlen(text);
    while (len > 0 && (*text == ' ' || *text == '\n')) {
        text++;
        len--;
    }
    if (len == 0 || option_same_word(text, len, "null")) { return true; }
    return text[0] == '{' && option_json_compact(text, len, out);
}

/* A quoted text, or what stands before `stop` or a comma, without the spaces around it. */
static bool option_pair_word(option_json *r, char stop) {
    option_json_space(r);
    if (r->at < r->end && *r->at == '"') {
        if (!option_json_string(r)) { return false; }
        option_json_space(r);
        return true;
    }
    const char *from = r->at;
    while (r->at < r->end && *r->at != stop && *r->at != ',') { r->at++; }
    const char *to = r->at;
    while (to > from && (to[-1] == ' ' || to[-1] == '\n')) { to--; }
    option_quote(r->out, from, (size_t)(to - from));
    return to > from;
}

/* a=word, b="two words" becomes {"a":"word","b":"two words"}. */
static bool option_pairs(peft__str *out, const char *text) {
    option_json r = {text, text + strlen(text), out, 0};
    if (text[strspn(text, " \n")] == '{' || text[strspn(text, " \n")] == '\0') { return option_map(out, text); }
    if (!peft__utf8_valid(text, strlen(text))) { return false; }
    for (char before = '{';; before = ',') {
        peft__str_putc(out, before);
        if (!option_pair_word(&r, '=') || r.at == r.end || *r.at++ != '=') { return false; }
        peft__str_putc(out, ':');
        if (!option_pair_word(&r, ',')) { return false; }
        if (r.at == r.end || *r.at != ',') { break; }
        r.at++;
    }
    peft__str_putc(out, '}');
    return r.at == r.end;
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

static peft_status option_fail_key(const peft__schema *s, const char *key) {
    const char *names[NEAREST_LONGEST] = {NULL};
    char known[512] = "";
    size_t n = PEFT__MIN(s->count, PEFT__COUNT(names)), len = 0;
    for (size_t i = 0; i < n; i++) { names[i] = s->options[i].key; }
    const char *near = peft__nearest(key, names, n);
    if (near != NULL) { return peft__fail(PEFT_E_KEY, "unknown key \"%s\" of \"%s\"; did you mean \"%s\"?", key, s->name, near); }
    for (size_t i = 0; i < n; i++) {
        size_t more = strlen(names[i]) + 2;
        if (len + more + 5 >= sizeof known) {
            memcpy(known + len, ", ...", 6);
            break;
        }
        (void)snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", names[i]);
        len = strlen(known);
    }
    return peft__fail(PEFT_E_KEY, "unknown key \"%s\" of \"%s\"; known: %s", key, s->name, n > 0 ? known : "none");
}

static const char *option_expected(const peft__option *o) {
    switch (o->type) {
    case PEFT__OPT_INT: return "an integer";
    case PEFT__OPT_FLOAT: return "a number";
    case PEFT__OPT_BOOL: return "true or false";
    case PEFT__OPT_LIST: return "a list such as a,b or [\"a\",\"b\"], or a pattern";
    case PEFT__OPT_MAP: return "an object such as {\"a\": 1}";
    case PEFT__OPT_LISTS: return "a list such as 1,2 or an object of lists such as {\"a\": [1, 2]}";
    case PEFT__OPT_PAIRS: return "a list such as a=x,b=\"y z\" or an object such as {\"a\": \"x\"}";
    case PEFT__OPT_SIZE: return "a number of bytes such as 1048576, 512MiB or 2GB";
    default: return o->choices != NULL ? o->choices : "a text";
    }
}

static peft_status option_fail_value(const peft__option *o, const char *value) {
    return peft__fail(PEFT_E_KEY, "key \"%s\" is \"%s\", expected %s", o->key, value, option_expected(o));
}

static peft_status option_find(const peft__optset *o, const char *key, size_t *index) {
    const peft__option *found = key != NULL ? peft__schema_find(o->schema, key) : NULL;
    *index = found != NULL ? (size_t)(found - o->schema->options) : 0;
    return found != NULL ? PEFT_OK : option_fail_key(o->schema, key != NULL ? key : "");
}

/* ---- values -------------------------------------------------------------------------------------------------- */

const peft__option *peft__schema_find(const peft__schema *s, const char *key) {
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->options[i].key, key) == 0) { return &s->options[i]; }
    }
    return NULL;
}

static peft_status option_put_number(peft__optset *o, size_t i, int64_t whole, double v) {
    const peft__option *opt = &o->schema->options[i];
    if (!isfinite(v) || (opt->min <= opt->max && (v < opt->min || v > opt->max))) {
        char value[40], low[40], high[40];
        value[peft__format_f64(v, 17, value)] = low[peft__format_f64(opt->min, 17, low)] = '\0';
        high[peft__format_f64(opt->max, 17, high)] = '\0';
        if (!isfinite(v)) { return peft__fail(PEFT_E_KEY, "key \"%s\" is not finite, expected %s", opt->key, option_expected(opt)); }
        return peft__fail(PEFT_E_KEY, "key \"%s\" is %s, expected %s to %s", opt->key, value, low, high);
    }
    o->values[i].i = whole;
    o->values[i].f = v;
    o->values[i].set = true;
    return PEFT_OK;
}

static peft_status option_put_bool(peft__optset *o, size_t i, bool v) {
    o->values[i].i = v;
    o->values[i].set = true;
    return PEFT_OK;
}

static peft_status option_put_text(peft__optset *o, size_t i, const char *text, size_t len) {
    peft__opt_value *value = &o->values[i];
    char *copy = peft__alloc(o->mem, len + 1);
    if (copy == NULL) { return PEFT_E_NOMEM; }
    if (len > 0) { memcpy(copy, text, len); }
    copy[len] = '\0';
    if (value->s != NULL) { peft__free(o->mem, value->s, strlen(value->s) + 1); }
    value->s = copy;
    value->set = true;
    return PEFT_OK;
}

static peft_status option_put_choice(peft__optset *o, size_t i, const char *text) {
    const peft__option *opt = &o->schema->options[i];
    size_t len = strlen(text);
    bool unset = len == 0 && opt->dflt[0] == '\0';
    if (!peft__utf8_valid(text, len)) { return peft__fail(PEFT_E_KEY, "key \"%s\" is no valid UTF-8", opt->key); }
    for (const char *c = opt->choices; c != NULL && !unset;) {
        const char *bar = strchr(c, '|');
        size_t n = bar != NULL ? (size_t)(bar - c) : strlen(c);
        if (n == len && memcmp(c, text, n) == 0) { break; }
        if (bar == NULL) { return option_fail_value(opt, text); }
        c = bar + 1;
    }
    return option_put_text(o, i, text, len);
}

static peft_status option_put_json(peft__optset *o, size_t i, const char *text) {
    const peft__option *opt = &o->schema->options[i];
    peft_status st = PEFT_OK;
    peft__str out;
    peft__str_init(&out, o->mem);
    bool map = opt->type == PEFT__OPT_MAP || (opt->type == PEFT__OPT_LISTS && text[strspn(text, " \n")] == '{');
    bool good = opt->type == PEFT__OPT_PAIRS ? option_pairs(&out, text) : map ? option_map(&out, text) : option_list(&out, text);
    TRY(peft__str_status(&out));
    if (!good) {
        st = option_fail_value(opt, text);
        goto out;
    }
    st = option_put_text(o, i, peft__str_c(&out), out.len);
out:
    peft__str_free(&out);
    return st;
}

/* "512MiB", "2GB", "1.5g" (a bare letter is binary), "4096". */
static bool option_parse_size(const char *text, double *out) {
    static const char letters[] = "kmgt";
    size_t len = strlen(text), digits = 0;
    while (digits < len && ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.')) { digits++; }
    if (!peft__parse_f64(text, digits, out)) { return false; }
    const char *unit = text + digits;
    while (*unit == ' ') { unit++; }
    if (*unit == '\0' || strcmp(unit, "B") == 0) { return true; }
    const char *letter = strchr(letters, nearest_fold(*unit));
    if (letter == NULL) { return false; }
    double base = 1024;
    if (strcmp(unit + 1, "B") == 0) {
        base = 1000;
    } else if (unit[1] != '\0' && strcmp(unit + 1, "iB") != 0) {
        return false;
    }
    for (const char *c = letters; c <= letter; c++) { *out *= base; }
    return true;
}

static peft_status option_put_size(peft__optset *o, size_t i, const char *text) {
    double v;
    if (!option_parse_size(text, &v) || v > 0x1p53) { return option_fail_value(&o->schema->options[i], text); }
    return option_put_number(o, i, (int64_t)v, floor(v));
}

static bool option_parse_bool(const char *text, bool *out) {
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};
    for (size_t i = 0; i < PEFT__COUNT(words); i++) {
        if (option_same_word(text, strlen(text), words[i])) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static peft_status option_put(peft__optset *o, size_t i, const char *text) {
    const peft__option *opt = &o->schema->options[i];
    int64_t whole;
    double v;
    bool truth;
    switch (opt->type) {
    case PEFT__OPT_INT:
        if (!peft__parse_i64(text, strlen(text), &whole)) { return option_fail_value(opt, text); }
        return option_put_number(o, i, whole, (double)whole);
    case PEFT__OPT_FLOAT:
        if (!peft__parse_f64(text, strlen(text), &v)) { return option_fail_value(opt, text); }
        return option_put_number(o, i, 0, v);
    case PEFT__OPT_BOOL:
        if (!option_parse_bool(text, &truth)) { return option_fail_value(opt, text); }
        return option_put_bool(o, i, truth);
    case PEFT__OPT_SIZE: return option_put_size(o, i, text);
    case PEFT__OPT_STR: return option_put_choice(o, i, text);
    default: return option_put_json(o, i, text);
    }
}

/* ---- sets ---------------------------------------------------------------------------------------------------- */

peft_status peft__optset_init(peft__optset *o, peft__mem *mem, const peft__schema *schema) {
    peft_status st = PEFT_OK;
    *o = (peft__optset){.mem = mem, .schema = schema};
    o->values = peft__alloc_zero(mem, schema->count * sizeof *o->values);
    if (o->values == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < schema->count; i++) {
        const peft__option *opt = &schema->options[i];
        bool number = opt->type == PEFT__OPT_INT || opt->type == PEFT__OPT_FLOAT || opt->type == PEFT__OPT_SIZE;
        if ((number || opt->type == PEFT__OPT_BOOL) && opt->dflt[0] == '\0') { continue; }
        st = option_put(o, i, opt->dflt);
        if (st == PEFT_E_KEY) {
            st = PEFT_E_INTERNAL; /* the table itself is wrong */
            peft__fail_prefix("default of schema \"%s\"", schema->name);
        }
        if (st != PEFT_OK) { goto out; }
        o->values[i].set = false;
    }
out:
    if (st != PEFT_OK) { peft__optset_free(o); }
    return st;
}

void peft__optset_free(peft__optset *o) {
    if (o->values == NULL) { return; }
    for (size_t i = 0; i < o->schema->count; i++) {
        char *s = o->values[i].s;
        if (s != NULL) { peft__free(o->mem, s, strlen(s) + 1); }
    }
    peft__free(o->mem, o->values, o->schema->count * sizeof *o->values);
    *o = (peft__optset){0};
}

peft_status peft__optset_copy(peft__optset *dst, peft__mem *mem, const peft__optset *src) {
    peft_status st = PEFT_OK;
    *dst = (peft__optset){.mem = mem, .schema = src->schema};
    dst->values = peft__alloc_zero(mem, src->schema->count * sizeof *dst->values);
    if (dst->values == NULL) { return PEFT_E_NOMEM; }
    for (size_t i = 0; i < src->schema->count; i++) {
        const peft__opt_value *from = &src->values[i];
        if (from->s != NULL) { TRY(option_put_text(dst, i, from->s, strlen(from->s))); }
        char *copy = dst->values[i].s;
        dst->values[i] = *from;
        dst->values[i].s = copy;
    }
out:
    if (st != PEFT_OK) { peft__optset_free(dst); }
    return st;
}

/* ---- setters ------------------------------------------------------------------------------------------------- */

peft_status peft__opt_set_int(peft__optset *o, const char *key, int64_t v) {
    size_t i;
    char text[24];
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    const peft__option *opt = &o->schema->options[i];
    (void)snprintf(text, sizeof text, "%lld", (long long)v);
    switch (opt->type) {
    case PEFT__OPT_INT:
    case PEFT__OPT_FLOAT:
    case PEFT__OPT_SIZE: return option_put_number(o, i, v, (double)v);
    case PEFT__OPT_LIST:
    case PEFT__OPT_LISTS: return option_put_json(o, i, text); /* layers_to_transform = 3 */
    default: return option_fail_value(opt, text);
    }
}

peft_status peft__opt_set_float(peft__optset *o, const char *key, double v) {
    size_t i;
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    if (o->schema->options[i].type == PEFT__OPT_FLOAT) { return option_put_number(o, i, 0, v); }
    char text[40];
    text[peft__format_f64(v, 17, text)] = '\0';
    return option_fail_value(&o->schema->options[i], text);
}

peft_status peft__opt_set_bool(peft__optset *o, const char *key, bool v) {
    size_t i;
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    const peft__option *opt = &o->schema->options[i];
    const char *text = v ? "true" : "false";
    if (opt->type == PEFT__OPT_BOOL) { return option_put_bool(o, i, v); }
    /* A choice among others: init_lora_weights is true, false or the name of a scheme. */
    if (opt->type == PEFT__OPT_STR && opt->choices != NULL) { return option_put_choice(o, i, text); }
    return option_fail_value(opt, text);
}

peft_status peft__opt_set_str(peft__optset *o, const char *key, const char *v) {
    size_t i;
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    const peft__option *opt = &o->schema->options[i];
    if (v == NULL) { return peft__fail(PEFT_E_INVALID, "the value of key \"%s\" is NULL", opt->key); }
    switch (opt->type) {
    case PEFT__OPT_INT:
    case PEFT__OPT_FLOAT:
    case PEFT__OPT_BOOL: return option_fail_value(opt, v);
    default: return option_put(o, i, v);
    }
}

peft_status peft__opt_set_text(peft__optset *o, const char *key, const char *text) {
    size_t i;
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    if (text == NULL) { return peft__fail(PEFT_E_INVALID, "the value of key \"%s\" is NULL", o->schema->options[i].key); }
    return option_put(o, i, text);
}

peft_status peft__opt_set_raw(peft__optset *o, const char *key, const char *json_text) {
    size_t i;
    peft_status st = option_find(o, key, &i);
    if (st != PEFT_OK) { return st; }
    const peft__option *opt = &o->schema->options[i];
    if (strcmp(json_text, "null") == 0) { json_text = ""; }
    char first = json_text[0];
    bool list = (opt->type == PEFT__OPT_LIST || opt->type == PEFT__OPT_LISTS) && (first == '[' || first == '"');
    bool map = peft__option_is_json(opt) && opt->type != PEFT__OPT_LIST && first == '{';
    bool unset = peft__option_is_json(opt) && first == '\0';
    if (!list && !map && !unset) { return option_fail_value(opt, json_text); }
    return option_put_text(o, i, json_text, strlen(json_text));
}

bool peft__option_is_json(const peft__option *opt) {
    return opt->type == PEFT__OPT_LIST || opt->type == PEFT__OPT_MAP || opt->type == PEFT__OPT_LISTS || opt->type == PEFT__OPT_PAIRS;
}

/* ---- reads --------------------------------------------------------------------------------------------------- */

static const peft__opt_value *option_get(const peft__optset *o, const char *key) {
    static const peft__opt_value none;
    const peft__option *opt = o->values != NULL ? peft__schema_find(o->schema, key) : NULL;
    return opt != NULL ? &o->values[opt - o->schema->options] : &none;
}

int64_t peft__opt_int(const peft__optset *o, const char *key) { return option_get(o, key)->i; }
double peft__opt_float(const peft__optset *o, const char *key) { return option_get(o, key)->f; }
bool peft__opt_bool(const peft__optset *o, const char *key) { return option_get(o, key)->i != 0; }
bool peft__opt_is_set(const peft__optset *o, const char *key) { return option_get(o, key)->set; }

const char *peft__opt_str(const peft__optset *o, const char *key) {
    const char *s = option_get(o, key)->s;
    return s != NULL ? s : "";
}
