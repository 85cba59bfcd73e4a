/* pretok.c - the pre-tokenizer: splits text into the words that are encoded one by one.
 *
 * Tokenizers describe their splitting by a few regular expressions. Each known one is written here as a scan over code
 * points that finds where the piece at the front of a text ends; all of them match without looking behind, so that is
 * all there is to a rule. The expressions themselves stand in pretok_names.c. Bytes that are no UTF-8 count as symbols.
 * Left out: any other regular expression (there is no engine for them). */
#include "text/parts.h"

typedef struct peft__split_char {
    uint32_t cp; /* 0xFFFD for a byte that is no UTF-8 */
    int32_t cls; /* PEFT__UNI_* */
    size_t len;  /* bytes; 0 at the end of the text */
} peft__split_char;

static peft__split_char split_read(const char *s, size_t n) {
    peft__split_char c = {0, -1, 0};
    if (n == 0) { return c; }
    c.len = peft__utf8_read(s, n, &c.cp);
    if (c.len == 0) {
        c.len = 1;
        c.cp = 0xFFFD;
    }
    c.cls = peft__unicode_class(c.cp);
    return c;
}

/* What the rules call a symbol: neither letter, number nor white space. */
static bool split_symbol(int32_t cls) {
    return cls == PEFT__UNI_OTHER || cls == PEFT__UNI_PUNCT;
}

static bool split_same(int32_t a, int32_t b) {
    return a == b || (split_symbol(a) && split_symbol(b));
}

/* End of the run of class cls from `from`. */
static size_t split_run(const char *s, size_t n, size_t from, int32_t cls) {
    for (;;) {
        peft__split_char c = split_read(s + from, n - from);
        if (c.len == 0 || !split_same(c.cls, cls)) { return from; }
        from += c.len;
    }
}

/* 's 't 're 've 'm 'll 'd at the front; 0: none. Folded: in capitals too, and U+017F is an s. */
static size_t split_contraction(const char *s, size_t n, bool fold) {
    if (n < 2 || s[0] != '\'') { return 0; }
    char a = s[1], b = n > 2 ? s[2] : '\0';
    if (fold) {
        if (n > 2 && s[1] == '\xC5' && s[2] == '\xBF') { return 3; }
        a = (char)(a >= 'A' && a <= 'Z' ? a + 32 : a);
        b = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') { return 2; }
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to the word after it. */
static size_t split_space(const char *s, size_t n) {
    size_t end = 0, last = 0;
    for (;;) {
        peft__split_char c = split_read(s + end, n - end);
        if (c.len == 0) { return end; }
        if (c.cls != PEFT__UNI_SPACE) { return last > 0 ? last : end; }
        last = end;
        end += c.len;
    }
}

static size_t split_gpt2(const char *s, size_t n) {
    size_t k = split_contraction(s, n, false);
    if (k > 0) { return k; }
    peft__split_char c = split_read(s, n);
    size_t from = 0;
    if (c.cp == ' ') {
        from = 1;
        c = split_read(s + 1, n - 1);
    }
    if (c.len > 0 && c.cls != PEFT__UNI_SPACE) { return split_run(s, n, from + c.len, c.cls); }
    return split_space(s, n);
}

static size_t split_digits(const char *s, size_t n, int32_t max) {
    size_t end = 0;
    for (int32_t i = 0; max == 0 || i < max; i++) {
        peft__split_char c = split_read(s + end, n - end);
        if (c.len == 0 || c.cls != PEFT__UNI_NUMBER) { break; }
        end += c.len;
    }
    return end;
}

/* \s*[\r\n]+ : white space up to the last line end of the run; 0: there is none. */
static size_t split_lines(const char *s, size_t n) {
    size_t end = 0, line = 0;
    for (;;) {
        peft__split_char c = split_read(s + end, n - end);
        if (c.len == 0 || c.cls != PEFT__UNI_SPACE) { return line; }
        end += c.len;
        if (c.cp == '\n' || c.cp == '\r') { line = end; }
    }
}

static size_t split_llama3(const char *s, size_t n, int32_t max) {
    size_t k = split_contraction(s, n, true);
    if (k > 0) { return k; }
    peft__split_char c = split_read(s, n);
    if (c.cls == PEFT__UNI_LETTER) { return split_run(s, n, c.len, c.cls); }
    if (c.cls == PEFT__UNI_NUMBER) { return split_digits(s, n, max); }
    peft__split_char d = split_read(s + c.len, n - c.len);
    if (d.cls == PEFT__UNI_LETTER && c.cp != '\n' && c.cp != '\r') { return split_run(s, n, c.len + d.len, d.cls); }
    size_t from = 0;
    if (c.cp == ' ') {
        from = 1;
        c = d;
    }
    if (c.len > 0 && split_symbol(c.cls)) {
        size_t end = split_run(s, n, from + c.len, c.cls);
        while (end < n && (s[end] == '\n' || s[end] == '\r')) { end++; }
        return end;
    }
    k = split_lines(s, n);
    return k > 0 ? k : split_space(s, n);
}

/* Numbers of at most `max` digits, and what lies between them. */
static size_t split_isolated_digits(const char *s, size_t n, int32_t max) {
    size_t end = split_digits(s, n, max);
    if (end > 0) { return end; }
    for (;;) {
        peft__split_char c = split_read(s + end, n - end);
        if (c.len == 0 || c.cls == PEFT__UNI_NUMBER) { return end; }
        end += c.len;
    }
}

static bool split_is_punct(const peft__split_char *c, bool grave) {
    static const char extra[] = "$+<=>^~|";
    if (c->cls == PEFT__UNI_PUNCT || (grave && c->cp == '`')) { return true; }
    return c->cp > 0 && c->cp < 128 && strchr(extra, (int)c->cp) != NULL;
}

/* Runs of punctuation, and what lies between them. */
static size_t split_punct(const char *s, size_t n, bool grave) {
    peft__split_char c = split_read(s, n);
    bool first = split_is_punct(&c, grave);
    size_t end = c.len;
    for (;;) {
        c = split_read(s + end, n - end);
        if (c.len == 0 || split_is_punct(&c, grave) != first) { return end; }
        end += c.len;
    }
}

static bool split_is_triple(const char *s, size_t n) {
    return n >= 3 && s[0] >= '0' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9';
}

static size_t split_triple(const char *s, size_t n) {
    if (split_is_triple(s, n)) { return 3; }
    size_t end = 1;
    while (end < n && !split_is_triple(s + end, n - end)) { end++; }
    return end;
}

/* A piece begins with one U+2581 (or with all of a run) and ends before the next. */
static size_t split_mark(const char *s, size_t n, bool runs) {
    size_t end = 0;
    while (n - end >= 3 && memcmp(s + end, "\xE2\x96\x81", 3) == 0 && (runs || end == 0)) { end += 3; }
    while (end < n && !(n - end >= 3 && memcmp(s + end, "\xE2\x96\x81", 3) == 0)) { end++; }
    return end;
}

/* A run of white space, a punctuation mark, or a run of the rest (`marks` false: of all that is no white space). */
static size_t split_bert(const char *s, size_t n, bool marks) {
    peft__split_char c = split_read(s, n);
    bool space = c.cls == PEFT__UNI_SPACE;
    if (marks && peft__unicode_is_punct(c.cp)) { return c.len; }
    for (size_t end = c.len;; end += c.len) {
        c = split_read(s + end, n - end);
        bool stop = (c.cls == PEFT__UNI_SPACE) != space || (marks && peft__unicode_is_punct(c.cp));
        if (c.len == 0 || stop) { return end; }
    }
}

/* 0: white space, 1: part of a word, 2: neither. */
static int32_t split_word_kind(const peft__split_char *c) {
    return c->cls == PEFT__UNI_SPACE ? 0 : peft__unicode_is_word(c->cp) ? 1 : 2;
}

static size_t split_words(const char *s, size_t n) {
    peft__split_char c = split_read(s, n);
    int32_t kind = split_word_kind(&c);
    for (size_t end = c.len;; end += c.len) {
        c = split_read(s + end, n - end);
        if (c.len == 0 || split_word_kind(&c) != kind) { return end; }
    }
}

static size_t split_signs(const char *s, size_t n, bool each) {
    peft__split_char c = split_read(s, n);
    bool sign = peft__unicode_is_punct(c.cp);
    for (size_t end = c.len;; end += c.len) {
        c = split_read(s + end, n - end);
        if (c.len == 0 || (sign && each) || peft__unicode_is_punct(c.cp) != sign) { return end; }
    }
}

/* A piece of this rule that is no word. */
static bool split_drops(int32_t rule, const char *s, size_t n) {
    bool drops = rule == PEFT__SPLIT_BERT || rule == PEFT__SPLIT_SPACE || rule == PEFT__SPLIT_WORDS;
    return drops && split_read(s, n).cls == PEFT__UNI_SPACE;
}

/* Bytes of the first piece of s[0..n), n > 0: at least 1. */
static size_t split_piece(const peft__split_stage *stage, const char *s, size_t n) {
    switch (stage->rule) {
        case PEFT__SPLIT_GPT2: return split_gpt2(s, n);
        case PEFT__SPLIT_LLAMA3: return split_llama3(s, n, stage->max);
        case PEFT__SPLIT_DIGITS: return split_isolated_digits(s, n, stage->max);
        case PEFT__SPLIT_PUNCT: return split_punct(s, n, stage->max == 1);
        case PEFT__SPLIT_TRIPLE: return split_triple(s, n);
        case PEFT__SPLIT_MARK: return split_mark(s, n, false);
        case PEFT__SPLIT_MARKS: return split_mark(s, n, true);
        case PEFT__SPLIT_BERT: return split_bert(s, n, true);
        case PEFT__SPLIT_SPACE: return split_bert(s, n, false);
        case PEFT__SPLIT_WORDS: return split_words(s, n);
        case PEFT__SPLIT_SIGNS: return split_signs(s, n, stage->max == 1);
        default: return n;
    }
}

void peft__pretok_begin(peft__pretok_walk *w, const peft__pretok *rules, const char *text, size_t len) {
    *w = (peft__pretok_walk){.rules = rules, .text = text, .len = len, .to = rules->count};
}

bool peft__pretok_next(peft__pretok_walk *w, const char **word, size_t *len) {
    while (w->pos < w->len) {
        size_t limit = w->len;
        bool dropped = false;
        for (size_t k = w->from; k < w->to && !dropped; k++) {
            const peft__split_stage *stage = &w->rules->stages[k];
            if (w->ends[k] <= w->pos) { w->ends[k] = w->pos + split_piece(stage, w->text + w->pos, limit - w->pos); }
            limit = w->ends[k];
            dropped = split_drops(stage->rule, w->text + w->pos, limit - w->pos);
        }
        *word = w->text + w->pos;
        *len = limit - w->pos;
        w->pos = limit;
        if (!dropped) { return true; }
    }
    return false;
}

peft_status peft__pretok_add(peft__pretok *p, int32_t rule, int32_t max, const char *what) {
    if (p->count == PEFT__SPLIT_STAGES) {
        return peft__fail(PEFT_E_UNSUPPORTED, "%s: the pre-tokenizer has more than %d steps", what, PEFT__SPLIT_STAGES);
    }
    p->stages[p->count++] = (peft__split_stage){rule, max};
    return PEFT_OK;
}
