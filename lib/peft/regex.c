/* regex.c - the part of Python's re that targets and patterns use, matched by a set of states.
 *
 * The pattern becomes a small program (character, class, split, jump) whose states are advanced together over the text
 * (Thompson 1968; https://swtch.com/~rsc/regexp/regexp2.html), so that time is text x program whatever the pattern is, and
 * a hostile adapter_config.json cannot make it run for ever. Only whether there is a match is asked, so that lazy and
 * greedy repetition are the same.
 *
 * Left out: captures, back-references, look-around, flags, \b; a byte is a character (module paths are ASCII). */
#include "peft/method.h"

#include <stdio.h>

enum {
    REGEX_CHAR = 0,   /* a: the byte */
    REGEX_ANY = 1,    /* any byte but a line feed */
    REGEX_CLASS = 2,  /* a: index of a set */
    REGEX_SPLIT = 3,  /* goes on at a and at b */
    REGEX_JUMP = 4,   /* goes on at a */
    REGEX_BEGIN = 5,  /* ^ */
    REGEX_END = 6,    /* $ */
    REGEX_MATCH = 7
};
enum { REGEX_CODE = 2048, REGEX_SETS = 64, REGEX_NESTING = 16, REGEX_REPEATS = 1000 };

typedef struct regex_op {
    uint8_t kind;
    uint16_t a, b;
} regex_op;

typedef struct regex_program {
    const char *pattern;
    size_t at;                      /* reading position in pattern */
    bool dry;                       /* read without writing code: to find where an atom ends */
    int32_t depth;                  /* of groups */
    peft_status status;             /* first error; its text is set */
    uint16_t n_code, n_sets;
    regex_op code[REGEX_CODE];
    uint8_t sets[REGEX_SETS][32];   /* bitmaps of bytes */
} regex_program;

static void regex_fail(regex_program *p, peft_status code, const char *what) {
    if (p->status != PEFT_OK) { return; }
    p->status = peft__fail(code, "pattern \"%s\": %s at position %zu%s", p->pattern, what, p->at,
                           code == PEFT_E_UNSUPPORTED
                               ? "; supported: literals . [] \\d \\w \\s () | * + ? {m,n} ^ $"
                               : "");
}

static uint16_t regex_emit(regex_program *p, uint8_t kind, uint16_t a, uint16_t b) {
    if (p->dry || p->status != PEFT_OK) { return 0; }
    if (p->n_code == REGEX_CODE) {
        regex_fail(p, PEFT_E_UNSUPPORTED, "it is too long");
        return 0;
    }
    p->code[p->n_code] = (regex_op){kind, a, b};
    return p->n_code++;
}

static bool regex_class_has(char name, unsigned c) {
    bool digit = c >= '0' && c <= '9';
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    switch (name) {
    case 'd': return digit;
    case 'D': return !digit;
    case 'w': return digit || letter || c == '_';
    case 'W': return !(digit || letter || c == '_');
    case 's': return c == ' ' || (c >= '\t' && c <= '\r');
    default: return !(c == ' ' || (c >= '\t' && c <= '\r')); /* S */
    }
}

static bool regex_is_class(char c) { return c != '\0' && strchr("dDwWsS", c) != NULL; }

static void regex_set_add(uint8_t set[32], unsigned c) { set[c >> 3] = (uint8_t)(set[c >> 3] | (1u << (c & 7))); }

static void regex_set_add_class(uint8_t set[32], char name) {
    for (unsigned c = 0; c < 256; c++) {
        if (regex_class_has(name, c)) { regex_set_add(set, c); }
    }
}

static void regex_emit_set(regex_program *p, const uint8_t set[32]) {
    if (p->dry || p->status != PEFT_OK) { return; }
    uint16_t i = 0;
    while (i < p->n_sets && memcmp(p->sets[i], set, 32) != 0) { i++; }
    if (i == REGEX_SETS) {
        regex_fail(p, PEFT_E_UNSUPPORTED, "too many classes");
        return;
    }
    if (i == p->n_sets) { memcpy(p->sets[p->n_sets++], set, 32); }
    regex_emit(p, REGEX_CLASS, i, 0);
}

/* What follows a backslash as one character: false for a class or something that is not supported. */
static bool regex_escape(regex_program *p, unsigned *c) {
    char e = p->pattern[p->at];
    if (e == '\0') {
        regex_fail(p, PEFT_E_INVALID, "it ends in a backslash");
        return false;
    }
    if (e == 'n' || e == 't' || e == 'r') {
        *c = e == 'n' ? '\n' : e == 't' ? '\t' : '\r';
    } else if ((e >= '0' && e <= '9') || (e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z')) {
        char what[32];
        (void)snprintf(what, sizeof what, "\"\\%c\" is not supported", e);
        regex_fail(p, PEFT_E_UNSUPPORTED, what);
        return false;
    } else {
        *c = (unsigned char)e;
    }
    p->at++;
    return true;
}

/* One member of a [class]; a predefined class is added whole and gives false. */
static bool regex_set_member(regex_program *p, uint8_t set[32], unsigned *c) {
    if (p->pattern[p->at] != '\\') {
        *c = (unsigned char)p->pattern[p->at++];
        return true;
    }
    p->at++;
    if (regex_is_class(p->pattern[p->at])) {
        regex_set_add_class(set, p->pattern[p->at++]);
        return false;
    }
    return regex_escape(p, c);
}

static void regex_parse_set(regex_program *p) {
    uint8_t set[32] = {0};
    bool negate = p->pattern[p->at] == '^';
    if (negate) { p->at++; }
    for (bool first = true; p->status == PEFT_OK && (first || p->pattern[p->at] != ']'); first = false) {
        unsigned low, high;
        if (p->pattern[p->at] == '\0') {
            regex_fail(p, PEFT_E_INVALID, "a \"[\" is not closed");
            return;
        }
        if (!regex_set_member(p, set, &low)) { continue; }
        high = low;
        if (p->pattern[p->at] == '-' && p->pattern[p->at + 1] != ']' && p->pattern[p->at + 1] != '\0') {
            p->at++;
            if (!regex_set_member(p, set, &high) || high < low) {
                regex_fail(p, PEFT_E_INVALID, "bad range in a class");
                return;
            }
        }
        for (unsigned c = low; c <= high; c++) { regex_set_add(set, c); }
    }
    if (p->status != PEFT_OK) { return; } /* perhaps at the end of the pattern */
    p->at++;
    for (size_t i = 0; negate && i < 32; i++) { set[i] = (uint8_t)~set[i]; }
    regex_emit_set(p, set);
}

static void regex_parse_choice(regex_program *p);

static void regex_parse_group(regex_program *p) {
    if (p->pattern[p->at] == '?') {
        if (p->pattern[p->at + 1] != ':') {
            char what[40];
            (void)snprintf(what, sizeof what, "\"(?%.1s\" is not supported", p->pattern + p->at + 1);
            regex_fail(p, PEFT_E_UNSUPPORTED, what);
            return;
        }
        p->at += 2;
    }
    if (++p->depth > REGEX_NESTING) {
        regex_fail(p, PEFT_E_UNSUPPORTED, "groups are nested too deeply");
        return;
    }
    regex_parse_choice(p);
    p->depth--;
    if (p->pattern[p->at] != ')') {
        regex_fail(p, PEFT_E_INVALID, "a \"(\" is not closed");
        return;
    }
    p->at++;
}

/* One character, class, assertion or group; reading stands at it and moves past it. */
static void regex_parse_atom(regex_program *p) {
    unsigned c = (unsigned char)p->pattern[p->at++];
    switch (c) {
    case '(': regex_parse_group(p); return;
    case '[': regex_parse_set(p); return;
    case '.': regex_emit(p, REGEX_ANY, 0, 0); return;
    case '^': regex_emit(p, REGEX_BEGIN, 0, 0); return;
    case '$': regex_emit(p, REGEX_END, 0, 0); return;
    case '*':
    case '+':
    case '?':
        p->at--;
        regex_fail(p, PEFT_E_INVALID, "nothing to repeat");
        return;
    case '\\':
        if (regex_is_class(p->pattern[p->at])) {
            uint8_t set[32] = {0};
            regex_set_add_class(set, p->pattern[p->at++]);
            regex_emit_set(p, set);
            return;
        }
        if (!regex_escape(p, &c)) { return; }
        break;
    default: break;
    }
    regex_emit(p, REGEX_CHAR, (uint16_t)c, 0);
}

static bool regex_number(regex_program *p, size_t *at, int32_t *out) {
    int32_t v = 0;
    size_t from = *at;
    for (; p->pattern[*at] >= '0' && p->pattern[*at] <= '9'; (*at)++) {
        v = PEFT__MIN(v * 10 + (p->pattern[*at] - '0'), REGEX_REPEATS + 1);
    }
    if (*at > from) { *out = v; }
    return *at > from;
}

/* Reads a quantifier into least and most (-1: no bound); {} that is none stays literal text, as in Python. */
static bool regex_quantifier(regex_program *p, int32_t *least, int32_t *most) {
    char c = p->pattern[p->at];
    *least = 1;
    *most = 1;
    if (c == '*' || c == '+' || c == '?') {
        *least = c == '+';
        *most = c == '?' ? 1 : -1;
        p->at++;
    } else if (c == '{') {
        size_t at = p->at + 1;
        *least = 0;
        bool low = regex_number(p, &at, least), high = low;
        *most = *least;
        if (p->pattern[at] == ',') {
            at++;
            *most = -1;
            high = regex_number(p, &at, most) || low;
        }
        if (p->pattern[at] != '}' || !high) {
            *least = *most = 1;
            return false;
        }
        p->at = at + 1;
        if (*least > REGEX_REPEATS || *most > REGEX_REPEATS || (*most >= 0 && *most < *least)) {
            regex_fail(p, PEFT_E_INVALID, "bad counts of a repetition");
        }
    } else {
        return false;
    }
    if (p->pattern[p->at] == '?') { p->at++; } /* lazy: the same matches */
    c = p->pattern[p->at];
    if (c == '*' || c == '+' || c == '?') { regex_fail(p, PEFT_E_INVALID, "a repetition of a repetition"); }
    return true;
}

/* An atom with its quantifier. The atom is read once to find its end, then written as often as it is needed. */
static void regex_parse_piece(regex_program *p) {
    size_t from = p->at, after;
    int32_t least, most;
    bool dry = p->dry;
    p->dry = true;
    regex_parse_atom(p);
    p->dry = dry;
    if (p->status != PEFT_OK) { return; }
    regex_quantifier(p, &least, &most);
    after = p->at;
    if (dry || p->status != PEFT_OK) { return; }
    uint16_t last = p->n_code;
    for (int32_t i = 0; i < least && p->status == PEFT_OK; i++) {
        last = p->n_code;
        p->at = from;
        regex_parse_atom(p);
        if (p->n_code == last) { break; } /* of nothing one copy will do: nested ones would be read without end */
    }
    if (most < 0 && least > 0) { /* x+ : back to the last copy */
        regex_emit(p, REGEX_SPLIT, last, (uint16_t)(p->n_code + 1));
    } else if (most < 0) { /* x* */
        uint16_t split = regex_emit(p, REGEX_SPLIT, (uint16_t)(p->n_code + 1), 0);
        p->at = from;
        regex_parse_atom(p);
        regex_emit(p, REGEX_JUMP, split, 0);
        p->code[split].b = p->n_code;
    } else {
        for (int32_t i = least; i < most && p->status == PEFT_OK; i++) { /* x? each */
            uint16_t split = regex_emit(p, REGEX_SPLIT, (uint16_t)(p->n_code + 1), 0);
            p->at = from;
            regex_parse_atom(p);
            p->code[split].b = p->n_code;
        }
    }
    p->at = after;
}

static void regex_parse_sequence(regex_program *p) {
    while (p->status == PEFT_OK && p->pattern[p->at] != '\0' && p->pattern[p->at] != '|' && p->pattern[p->at] != ')') {
        regex_parse_piece(p);
    }
}

static void regex_skip_sequence(regex_program *p) {
    bool dry = p->dry;
    p->dry = true;
    regex_parse_sequence(p);
    p->dry = dry;
}

/* a|b|c: a split before each alternative but the last, a jump to the end after it. Jumps form a chain until the end is known. */
static void regex_parse_choice(regex_program *p) {
    uint16_t chain = REGEX_CODE;
    for (;;) {
        size_t from = p->at;
        regex_skip_sequence(p);
        bool more = p->pattern[p->at] == '|';
        uint16_t split = more ? regex_emit(p, REGEX_SPLIT, (uint16_t)(p->n_code + 1), 0) : 0;
        if (!p->dry) {
            p->at = from;
            regex_parse_sequence(p);
        }
        if (p->status != PEFT_OK) { return; }
        if (!more) { break; }
        chain = regex_emit(p, REGEX_JUMP, chain, 0);
        if (!p->dry) { p->code[split].b = p->n_code; }
        p->at++;
    }
    while (!p->dry && chain != REGEX_CODE) {
        uint16_t next = p->code[chain].a;
        p->code[chain].a = p->n_code;
        chain = next;
    }
}

/* ---- matching ------------------------------------------------------------------------------------------------ */

typedef struct regex_states {
    uint16_t list[REGEX_CODE];
    size_t n;
    bool has[REGEX_CODE];
} regex_states;

/* Adds a state and all that it reaches without reading a character; true when one of them is the end. */
static bool regex_reach(const regex_program *p, regex_states *s, uint16_t from, bool begin, bool end) {
    uint16_t stack[REGEX_CODE];
    size_t n = 0;
    bool match = false;
    if (!s->has[from]) {
        s->has[from] = true;
        stack[n++] = from;
    }
    while (n > 0) {
        uint16_t at = stack[--n];
        const regex_op *op = &p->code[at];
        uint16_t next[2] = {(uint16_t)(at + 1), 0};
        size_t count = 1;
        switch (op->kind) {
        case REGEX_SPLIT:
            next[0] = op->a;
            next[1] = op->b;
            count = 2;
            break;
        case REGEX_JUMP: next[0] = op->a; break;
        case REGEX_BEGIN: count = begin; break;
        case REGEX_END: count = end; break;
        case REGEX_MATCH:
            match = true;
            count = 0;
            break;
        default:
            s->list[s->n++] = at;
            count = 0;
            break;
        }
        for (size_t i = 0; i < count; i++) {
            if (!s->has[next[i]]) {
                s->has[next[i]] = true;
                stack[n++] = next[i];
            }
        }
    }
    return match;
}

static bool regex_takes(const regex_program *p, const regex_op *op, unsigned char c) {
    switch (op->kind) {
    case REGEX_CHAR: return op->a == c;
    case REGEX_ANY: return c != '\n';
    default: return (p->sets[op->a][c >> 3] >> (c & 7) & 1) != 0;
    }
}

static bool regex_run(const regex_program *p, const char *text, bool full) {
    regex_states states[2];
    regex_states *now = &states[0], *next = &states[1];
    memset(now, 0, sizeof *now);
    size_t len = strlen(text);
    bool match = regex_reach(p, now, 0, true, len == 0);
    for (size_t i = 0; i < len && (now->n > 0 || full); i++) {
        if (match && !full) { return true; }
        match = false;
        memset(next, 0, sizeof *next);
        for (size_t s = 0; s < now->n; s++) {
            if (!regex_takes(p, &p->code[now->list[s]], (unsigned char)text[i])) { continue; }
            match = regex_reach(p, next, (uint16_t)(now->list[s] + 1), false, i + 1 == len) || match;
        }
        regex_states *swap = now;
        now = next;
        next = swap;
    }
    return match;
}

peft_status peft__regex_match(const char *pattern, const char *text, bool full, bool *out) {
    regex_program p;
    p.pattern = pattern;
    p.at = 0;
    p.dry = false;
    p.depth = 0;
    p.status = PEFT_OK;
    p.n_code = p.n_sets = 0;
    regex_parse_choice(&p);
    if (p.status == PEFT_OK && pattern[p.at] == ')') { regex_fail(&p, PEFT_E_INVALID, "a \")\" without its \"(\""); }
    regex_emit(&p, REGEX_MATCH, 0, 0);
    if (p.status != PEFT_OK) { return p.status; }
    *out = regex_run(&p, text, full);
    return PEFT_OK;
}
