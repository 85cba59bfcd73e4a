/* normalise.c - the steps that a text goes through before it is split: normal forms, BERT's cleaning, replacements.
 *
 * They are those of tokenizer.json (https://huggingface.co/docs/tokenizers, normalizers) and SentencePiece's character map.
 * Every character made keeps the place of the one it was made from, as in Hugging Face's NormalizedString. WordPiece and
 * unigram know no bytes: one that is no UTF-8 counts as U+FFFD there. Regular expressions: only the two of the families. */
#include "text/parts.h"

peft_status peft__normalise_add(peft__tokenizer *t, int32_t op, int32_t flags) {
    peft__norm_step step = {.op = op, .flags = flags};
    return peft__vec_push(&t->steps, &step);
}

/* The character at in[i]; its bytes are 1 and it is U+FFFD where they are no UTF-8. */
static size_t norm_read(const peft__aligned *in, size_t i, uint32_t *cp) {
    size_t n = peft__utf8_read(in->text.data + i, in->text.len - i, cp);
    if (n > 0) { return n; }
    *cp = 0xFFFD;
    return 1;
}

static peft_status norm_keep(const peft__aligned *in, size_t i, size_t n, peft__aligned *out) {
    return peft__aligned_put(out, in->text.data + i, n, peft__aligned_at(in, i));
}

static bool norm_any_above(const peft__aligned *in, unsigned char least) {
    for (size_t i = 0; i < in->text.len; i++) {
        if ((unsigned char)in->text.data[i] >= least) { return true; }
    }
    return false;
}

static peft_status norm_clean(const peft__aligned *in, bool clean, bool han, peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < in->text.len; i += n) {
        n = norm_read(in, i, &cp);
        peft__place place = peft__aligned_at(in, i);
        bool space = clean && peft__unicode_class(cp) == PEFT__UNI_SPACE;
        if (clean && (cp == 0 || cp == 0xFFFD || peft__unicode_is_control(cp))) { continue; }
        if (space) {
            TRY(peft__aligned_put(out, " ", 1, place));
        } else if (han && peft__unicode_is_han(cp)) {
            TRY(peft__aligned_put(out, " ", 1, place));
            TRY(norm_keep(in, i, n, out));
            TRY(peft__aligned_put(out, " ", 1, place));
        } else {
            TRY(norm_keep(in, i, n, out));
        }
    }
out:
    return st;
}

static peft_status norm_accents(const peft__aligned *in, bool all, peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < in->text.len; i += n) {
        n = norm_read(in, i, &cp);
        if (!peft__unicode_is_accent(cp, all)) { TRY(norm_keep(in, i, n, out)); }
    }
out:
    return st;
}

static peft_status norm_lower(const peft__aligned *in, peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < in->text.len; i += n) {
        n = norm_read(in, i, &cp);
        uint32_t small = peft__unicode_lower(cp);
        char buf[4];
        if (cp == 0x130) { /* a capital I with a dot: i and a dot above */
            TRY(peft__aligned_put(out, "i\xCC\x87", 3, peft__aligned_at(in, i)));
        } else if (small == cp) {
            TRY(norm_keep(in, i, n, out));
        } else {
            TRY(peft__aligned_put(out, buf, peft__utf8_write(small, buf), peft__aligned_at(in, i)));
        }
    }
out:
    return st;
}

static peft_status norm_nmt(const peft__aligned *in, peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < in->text.len; i += n) {
        n = norm_read(in, i, &cp);
        bool dropped =
            (cp >= 1 && cp <= 8) || cp == 0x0B || (cp >= 0x0E && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F;
        bool space = cp == 9 || cp == 0x0A || cp == 0x0C || cp == 0x0D || cp == 0x1680 ||
                     (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF ||
                     cp == 0xFFFD;
        if (space) {
            TRY(peft__aligned_put(out, " ", 1, peft__aligned_at(in, i)));
        } else if (!dropped) {
            TRY(norm_keep(in, i, n, out));
        }
    }
out:
    return st;
}

static peft_status norm_strip(const peft__aligned *in, int32_t sides, peft__aligned *out) {
    size_t from = 0, to = 0, len = in->text.len;
    bool begun = false;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = norm_read(in, i, &cp);
        if (peft__unicode_class(cp) == PEFT__UNI_SPACE) { continue; }
        from = begun ? from : i;
        begun = true;
        to = i + n;
    }
    from = (sides & 1) ? (begun ? from : len) : 0;
    to = (sides & 2) ? PEFT__MAX(to, from) : len;
    for (size_t i = from; i < to; i++) {
        peft_status st = norm_keep(in, i, 1, out);
        if (st != PEFT_OK) { return st; }
    }
    return PEFT_OK;
}

/* Bytes of what a replacement looks for at in[i]; 0: it is not there. *last: where its last character begins. */
static size_t norm_match(const peft__norm_step *step, const peft__aligned *in, size_t i, size_t *last) {
    const char *s = in->text.data + i;
    size_t left = in->text.len - i, end = 0;
    uint32_t cp = 0;
    if (step->flags == 0) {
        if (step->from_len == 0 || step->from_len > left || memcmp(s, step->from, step->from_len) != 0) { return 0; }
        *last = i + step->from_len - 1;
        return step->from_len;
    }
    if (step->flags == 1) {
        while (end < left && s[end] == ' ') { end++; }
        if (end < 2) { return 0; }
        *last = i + end - 1;
        return end;
    }
    for (size_t n; end < left; end += n) {
        n = norm_read(in, i + end, &cp);
        if (peft__unicode_class(cp) != PEFT__UNI_SPACE) { break; }
        *last = i + end;
    }
    return end;
}

static peft_status norm_replace(const peft__norm_step *step, const peft__aligned *in, peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    for (size_t i = 0, n; i < in->text.len; i += n) {
        size_t last = i;
        n = norm_match(step, in, i, &last);
        if (n > 0) {
            TRY(peft__aligned_put(out, step->to, step->to_len, peft__aligned_at(in, last)));
        } else {
            n = norm_read(in, i, &cp);
            TRY(norm_keep(in, i, n, out));
        }
    }
out:
    return st;
}

/* The k-th character of the replacement comes from the k-th of what it replaces, the others from its last. */
static peft_status norm_put_mapped(const peft__aligned *in, size_t i, size_t len, const char *to, size_t to_len,
                                   peft__aligned *out) {
    peft_status st = PEFT_OK;
    uint32_t cp = 0;
    size_t at = i;
    if (!out->placed) { return peft__aligned_put(out, to, to_len, (peft__place){0, 0}); }
    for (size_t k = 0, n; k < to_len; k += n) {
        n = peft__utf8_read(to + k, to_len - k, &cp);
        n = n == 0 ? 1 : n;
        TRY(peft__aligned_put(out, to + k, n, peft__aligned_at(in, at)));
        size_t step = norm_read(in, at, &cp);
        at = at + step < i + len ? at + step : at;
    }
out:
    return st;
}

/* SentencePiece: the longest stretch that has a replacement; the user's own pieces stay as they are. */
static peft_status norm_map_spm(const peft__tokenizer *t, const peft__aligned *in, peft__aligned *out) {
    peft_status st = PEFT_OK;
    const char *s = in->text.data;
    size_t len = in->text.len;
    uint32_t cp = 0;
    for (size_t i = 0, used = 0, to_len = 0; i < len; i += used) {
        used = t->users_inside ? peft__added_user(t, s + i, len - i) : 0;
        const char *to = used > 0 ? NULL : peft__charsmap_find(&t->charsmap, s + i, len - i, true, &used, &to_len);
        if (to != NULL) {
            TRY(norm_put_mapped(in, i, used, to, to_len, out));
            continue;
        }
        size_t n = used > 0 ? used : norm_read(in, i, &cp);
        for (size_t k = i; k < i + n; k++) { TRY(norm_keep(in, k, 1, out)); }
        used = n;
    }
out:
    return st;
}

/* Hugging Face: a grapheme cluster of less than six bytes as one, by its shortest beginning that has a replacement; else
 * character by character. That this loses accents is so there too. */
static peft_status norm_map_hf(const peft__tokenizer *t, const peft__aligned *in, peft__aligned *out) {
    peft_status st = PEFT_OK;
    const char *s = in->text.data;
    size_t len = in->text.len;
    uint32_t cp = 0;
    for (size_t i = 0, whole = 0, used = 0, to_len = 0; i < len; i += whole) {
        whole = peft__unicode_cluster(s + i, len - i);
        const char *to = whole < 6 ? peft__charsmap_find(&t->charsmap, s + i, whole, false, &used, &to_len) : NULL;
        if (to != NULL) {
            TRY(norm_put_mapped(in, i, whole, to, to_len, out));
            continue;
        }
        for (size_t k = i, n; k < i + whole; k += n) {
            n = norm_read(in, k, &cp);
            const char *one = n < whole ? peft__charsmap_find(&t->charsmap, s + k, n, false, &used, &to_len) : NULL;
            if (one != NULL) {
                TRY(norm_put_mapped(in, k, n, one, to_len, out));
            } else {
                TRY(norm_keep(in, k, n, out));
            }
        }
    }
out:
    return st;
}

typedef struct peft__norm { /* one run: the text goes from one buffer to the other */
    const peft__tokenizer *t;
    peft__aligned *in, *out;
} peft__norm;

static void norm_next(peft__norm *r) {
    peft__aligned *done = r->out;
    r->out = r->in;
    r->in = done;
    peft__aligned_clear(r->out);
}

static peft_status norm_bert(peft__norm *r, int32_t flags) {
    peft_status st = PEFT_OK;
    if (flags & 3) {
        TRY(norm_clean(r->in, (flags & 1) != 0, (flags & 2) != 0, r->out));
        norm_next(r);
    }
    if ((flags & 4) && norm_any_above(r->in, 0xC3)) { /* U+00C0 is the first that has a form D of its own */
        TRY(peft__unicode_form(r->t->mem, r->in, false, false, r->out));
        norm_next(r);
        TRY(norm_accents(r->in, false, r->out));
        norm_next(r);
    }
    if (flags & 8) {
        TRY(norm_lower(r->in, r->out));
        norm_next(r);
    }
out:
    return st;
}

static peft_status norm_step(peft__norm *r, const peft__norm_step *step) {
    peft_status st = PEFT_OK;
    bool compat = (step->flags & 1) != 0, compose = (step->flags & 2) != 0;
    switch (step->op) {
        case PEFT__NORM_BERT: return norm_bert(r, step->flags);
        case PEFT__NORM_FORM:
            if (!norm_any_above(r->in, compat ? 0xC2 : compose ? 0xCC : 0xC3)) { return st; }
            TRY(peft__unicode_form(r->t->mem, r->in, compat, compose, r->out));
            break;
        case PEFT__NORM_LOWER: TRY(norm_lower(r->in, r->out)); break;
        case PEFT__NORM_ACCENTS: TRY(norm_accents(r->in, true, r->out)); break;
        case PEFT__NORM_NMT: TRY(norm_nmt(r->in, r->out)); break;
        case PEFT__NORM_STRIP: TRY(norm_strip(r->in, step->flags, r->out)); break;
        case PEFT__NORM_REPLACE: TRY(norm_replace(step, r->in, r->out)); break;
        case PEFT__NORM_PREPEND:
            if (r->in->text.len == 0) { return st; }
            TRY(peft__aligned_put(r->out, step->to, step->to_len, peft__aligned_at(r->in, 0)));
            for (size_t i = 0; i < r->in->text.len; i++) { TRY(norm_keep(r->in, i, 1, r->out)); }
            break;
        case PEFT__NORM_CHARSMAP:
            TRY(step->flags == 1 ? norm_map_spm(r->t, r->in, r->out) : norm_map_hf(r->t, r->in, r->out));
            break;
        default: return st;
    }
    norm_next(r);
out:
    return st;
}

/* The text as given; without bytes that are no UTF-8 where the model has no tokens for bytes. */
static peft_status norm_load(const peft__tokenizer *t, const char *s, size_t len, size_t base, peft__aligned *a) {
    peft_status st = PEFT_OK;
    bool bytes = t->kind == PEFT__TOK_BYTES || t->kind == PEFT__TOK_SPM;
    size_t from = 0;
    uint32_t cp = 0;
    for (size_t i = 0; !bytes && i < len;) {
        size_t n = (unsigned char)s[i] < 128 ? 1 : peft__utf8_read(s + i, len - i, &cp);
        if (n == 0) {
            TRY(peft__aligned_copy(a, s + from, i - from, base + from));
            TRY(peft__aligned_put(a, "\xEF\xBF\xBD", 3, (peft__place){(uint32_t)(base + i), (uint32_t)(base + i + 1)}));
            from = i + 1;
        }
        i += n == 0 ? 1 : n;
    }
    TRY(peft__aligned_copy(a, s + from, len - from, base + from));
out:
    return st;
}

peft_status peft__normalise(const peft__tokenizer *t, const char *s, size_t len, size_t base, peft__aligned *a,
                            peft__aligned *b, const peft__aligned **out) {
    peft_status st = PEFT_OK;
    peft__norm r = {t, a, b};
    peft__aligned_clear(a);
    peft__aligned_clear(b);
    TRY(norm_load(t, s, len, base, a));
    for (size_t i = 0; i < t->steps.len; i++) { TRY(norm_step(&r, &PEFT__VEC_AT(&t->steps, peft__norm_step, i))); }
    *out = r.in;
out:
    return st;
}
