/* answers.c - which span of the context answers a question, and how well, as Hugging Face's run_qa and the scripts of SQuAD do:
 *
 *   span   of each window the 20 largest start and the 20 largest end logits; of their pairs those of at most 30 tokens, from
 *          the context, in order; the largest sum of both wins. Where questions may have no answer, "none" scores start + end
 *          of the window's first token, the lowest of the windows, and wins if that is more than the best text's sum.
 *   words  lower case; no ASCII punctuation; no "a", "an", "the"; then what white space separates (Rajpurkar et al. 2016)
 *   exact  the same words;  F1 = 2 common / (predicted + true words), words counted as often as they occur
 *
 * Both are the largest over a question's answers. SQuAD 2's rules (nulls): answers without words do not count; where none is
 * left, only a text without words is right. Of equal logits the first token counts, of equal spans the first. Sums are in float,
 * as there.
 *
 * Left out: probabilities of the best 20, a threshold for "none" other than 0, which of two windows sees more around a span;
 * the word "empty", which run_qa answers where no span is left: here the text is empty. Lower case is that of Python but for
 * capital sigmas behind letters of other scripts than Europe's. */
#include <math.h>

#include "train/metrics.h"

enum { ANSWERS_BEST = 20, ANSWERS_TOKENS = 30 };

/* ---- words ------------------------------------------------------------------------------------------------------------------- */

/* The character at s[0..len); a byte that is no UTF-8 is one of its own, of no class. */
static size_t answers_read(const char *s, size_t len, uint32_t *cp) {
    size_t n = peft__utf8_read(s, len, cp);
    if (n == 0) { *cp = 0xFFFD; }
    return n == 0 ? 1 : n;
}

static bool answers_is_space(uint32_t cp) {
    return (cp >= 0x1C && cp <= 0x1F) || peft__unicode_class(cp) == PEFT__UNI_SPACE;
}

static bool answers_is_word(uint32_t cp) {
    int32_t c = peft__unicode_class(cp);
    return c == PEFT__UNI_LETTER || c == PEFT__UNI_NUMBER;
}

static bool answers_is_removed(uint32_t cp) {
    return cp < 128 && cp > 32 && cp != 127 && !answers_is_word(cp);
}

/* Has, or is of a script whose letters have, a capital and a small form. */
static bool answers_is_cased(uint32_t cp) {
    bool letter = peft__unicode_class(cp) == PEFT__UNI_LETTER;
    return (letter && (cp < 0x590 || (cp >= 0x1D00 && cp < 0x2000))) || peft__unicode_lower(cp) != cp;
}

/* Passed over when it is asked whether a letter is the last of its word. */
static bool answers_is_between(uint32_t cp) {
    return cp == '\'' || cp == '.' || cp == ':' || cp == '^' || cp == '`' || cp == 0xAD || cp == 0xB7 || cp == 0x2018 || cp == 0x2019 ||
           peft__unicode_is_accent(cp, true);
}

static bool answers_letter_follows(const char *s, size_t len) {
    uint32_t cp = 0;
    for (size_t i = 0; i < len;) {
        i += answers_read(s + i, len - i, &cp);
        if (!answers_is_between(cp)) { return answers_is_cased(cp); }
    }
    return false;
}

/* Lower case without punctuation. Two letters are not lowered alone: a capital sigma that ends a word, and I with a dot, which
 * becomes i and a combining dot. */
static void answers_lower(const char *s, size_t len, peft__str *out) {
    bool after_letter = false;
    char bytes[4];
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0, lower;
        size_t n = answers_read(s + i, len - i, &cp);
        bool final = cp == 0x3A3 && after_letter && !answers_letter_follows(s + i + n, len - i - n);
        lower = final ? 0x3C2 : cp == 0x130 ? 'i' : peft__unicode_lower(cp);
        if (cp == 0xFFFD || lower == cp) {
            if (!answers_is_removed(cp)) { peft__str_put(out, s + i, n); }
        } else {
            peft__str_put(out, bytes, peft__utf8_write(lower, bytes));
            if (cp == 0x130) { peft__str_put(out, "\xCC\x87", 2); }
        }
        if (!answers_is_between(cp)) { after_letter = answers_is_cased(cp); }
        i += n;
    }
}

/* Bytes of the stretch at the front that is of letters and numbers, or of none. */
static size_t answers_stretch(const char *s, size_t len, bool word) {
    size_t i = 0;
    uint32_t cp = 0;
    while (i < len) {
        size_t n = answers_read(s + i, len - i, &cp);
        if (answers_is_word(cp) != word) { break; }
        i += n;
    }
    return i;
}

static bool answers_is_article(const char *s, size_t len) {
    return (len == 1 && s[0] == 'a') || (len == 2 && memcmp(s, "an", 2) == 0) || (len == 3 && memcmp(s, "the", 3) == 0);
}

/* Appends the text with white space and articles, which are as white space, as one space between words. */
static void answers_join(const char *s, size_t len, peft__str *out) {
    size_t start = out->len;
    bool gap = false;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t n = answers_stretch(s + i, len - i, true);
        bool skip = n > 0 && answers_is_article(s + i, n);
        if (n == 0) {
            n = answers_read(s + i, len - i, &cp);
            skip = answers_is_space(cp);
        }
        if (!skip) {
            if (gap && out->len > start) { peft__str_putc(out, ' '); }
            peft__str_put(out, s + i, n);
        }
        gap = skip;
        i += n;
    }
}

peft_status peft__answer_words(peft__mem *mem, const char *text, size_t len, peft__str *out) {
    peft__str lower;
    peft__str_init(&lower, mem);
    answers_lower(text, len, &lower);
    answers_join(peft__str_c(&lower), lower.len, out);
    peft_status st = peft__str_status(&lower);
    peft__str_free(&lower);
    return st == PEFT_OK ? peft__str_status(out) : st;
}

/* ---- comparison -------------------------------------------------------------------------------------------------------------- */

/* The next word of text[*at..len), which has one space between words; 0: no more. */
static size_t answers_next(const peft__str *text, size_t *at, const char **word) {
    const char *s = peft__str_c(text);
    size_t i = *at < text->len && s[*at] == ' ' ? *at + 1 : *at, from = i;
    while (i < text->len && s[i] != ' ') { i++; }
    *word = s + from;
    *at = i;
    return i - from;
}

/* How often the word is among those that begin in text[0..end); *all: how many words do. */
static int64_t answers_times(const peft__str *text, size_t end, const char *word, size_t len, int64_t *all) {
    int64_t times = 0;
    const char *other = NULL;
    *all = 0;
    for (size_t at = 0, n; (n = answers_next(text, &at, &other)) > 0 && other < peft__str_c(text) + end;) {
        times += n == len && memcmp(other, word, len) == 0;
        ++*all;
    }
    return times;
}

static double answers_f1(const peft__str *predicted, const peft__str *truth) {
    int64_t common = 0, n_predicted = 0, n_true = 0, before = 0;
    const char *word = "";
    (void)answers_times(truth, truth->len, word, 0, &n_true);
    for (size_t at = 0, n; (n = answers_next(predicted, &at, &word)) > 0; n_predicted++) {
        size_t begin = (size_t)(word - peft__str_c(predicted));
        int64_t there = answers_times(truth, truth->len, word, n, &n_true);
        common += answers_times(predicted, begin, word, n, &before) < there; /* as often as both have it */
    }
    return common == 0 ? 0 : 2 * (double)common / (double)(n_predicted + n_true);
}

static bool answers_same(const peft__str *a, const peft__str *b) {
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

peft_status peft__answer_match(peft__mem *mem, const char *text, size_t len, const peft__example *e, bool nulls, double *exact,
                               double *f1) {
    peft_status st = PEFT_OK;
    bool any = false;
    peft__str predicted, truth;
    peft__str_init(&predicted, mem);
    peft__str_init(&truth, mem);
    *exact = *f1 = 0;
    TRY(peft__answer_words(mem, text, len, &predicted));
    for (size_t i = 0; i < e->n_answers; i++) {
        peft__str_clear(&truth);
        TRY(peft__answer_words(mem, e->answers[i], strlen(e->answers[i]), &truth));
        if (nulls && truth.len == 0) { continue; }
        any = true;
        *exact = answers_same(&predicted, &truth) ? 1 : *exact;
        *f1 = PEFT__MAX(*f1, answers_f1(&predicted, &truth));
    }
    if (nulls && !any) { *exact = *f1 = predicted.len == 0; }
out:
    peft__str_free(&predicted);
    peft__str_free(&truth);
    return st;
}

/* ---- spans ------------------------------------------------------------------------------------------------------------------- */

/* Tokens with the largest logits of the column, largest first; returns how many. */
static int64_t answers_largest(const float *logits, int64_t n, int64_t column, int64_t best[ANSWERS_BEST]) {
    int64_t count = 0;
    for (int64_t t = 0; t < n; t++) {
        float v = logits[2 * t + column];
        int64_t i = count;
        while (i > 0 && v > logits[2 * best[i - 1] + column]) { i--; }
        if (i == ANSWERS_BEST) { continue; }
        count = PEFT__MIN(count + 1, (int64_t)ANSWERS_BEST);
        for (int64_t k = count - 1; k > i; k--) { best[k] = best[k - 1]; }
        best[i] = t;
    }
    return count;
}

static void answers_window(peft__answers *a, const peft__row *row, const float *logits) {
    const int32_t *offsets = (const int32_t *)a->d->offsets.data + 2 * row->first;
    int64_t starts[ANSWERS_BEST], ends[ANSWERS_BEST];
    int64_t n_starts = answers_largest(logits, row->n, 0, starts), n_ends = answers_largest(logits, row->n, 1, ends);
    for (int64_t i = 0; i < n_starts; i++) {
        for (int64_t k = 0; k < n_ends; k++) {
            int64_t s = starts[i], e = ends[k];
            if (e < s || e - s >= ANSWERS_TOKENS || offsets[2 * s] < 0 || offsets[2 * e] < 0) { continue; }
            peft__answer x = {logits[2 * s], logits[2 * e + 1], offsets[2 * s], offsets[2 * e + 1], true};
            if (a->nulls && x.from >= x.to) { continue; }
            if (!a->best.found || x.start + x.end > a->best.start + a->best.end) { a->best = x; }
        }
    }
}

/* Measures the question whose windows are complete. */
static peft_status answers_close(peft__answers *a) {
    peft_status st = PEFT_OK;
    double exact = 0, f1 = 0;
    const char *text = NULL;
    size_t len = 0;
    if (a->example < 0) { return PEFT_OK; }
    peft__answers_best(a, &text, &len);
    TRY(peft__answer_match(a->mem, text, len, &PEFT__VEC_AT(&a->d->examples, peft__example, a->example), a->nulls, &exact, &f1));
    a->exact += exact;
    a->f1 += f1;
    a->questions++;
out:
    return st;
}

void peft__answers_begin(peft__answers *a, peft__mem *mem, const struct peft_dataset *d) {
    memset(a, 0, sizeof *a);
    a->mem = mem;
    a->d = d;
    a->example = -1;
    for (size_t i = 0; i < d->examples.len; i++) { a->nulls = a->nulls || PEFT__VEC_AT(&d->examples, peft__example, i).n_answers == 0; }
}

peft_status peft__answers_add_window(peft__answers *a, const peft__row *row, const float *logits) {
    peft_status st = PEFT_OK;
    bool first = row->example != a->example;
    if (first) {
        TRY(answers_close(a));
        a->example = row->example;
        a->best.found = false;
    }
    if (row->n > 0 && (first || logits[0] + logits[1] < a->null_score)) { a->null_score = logits[0] + logits[1]; }
    answers_window(a, row, logits);
out:
    return st;
}

void peft__answers_best(const peft__answers *a, const char **text, size_t *len) {
    const peft__answer *b = &a->best;
    *text = "";
    *len = 0;
    if (a->example < 0 || !b->found || b->to <= b->from) { return; }
    if (a->nulls && a->null_score - b->start - b->end > 0) { return; }
    *text = PEFT__VEC_AT(&a->d->examples, peft__example, a->example).context + b->from;
    *len = (size_t)(b->to - b->from);
}

peft_status peft__answers_end(peft__answers *a) {
    peft_status st = answers_close(a);
    a->example = -1;
    return st;
}

void peft__answers_write(const peft__answers *a, peft__json_out *j) {
    double n = a->questions > 0 ? (double)a->questions : (double)NAN;
    peft__json_key(j, "exact_match");
    peft__json_put_float(j, a->exact / n);
    peft__json_key(j, "f1");
    peft__json_put_float(j, a->f1 / n);
}
