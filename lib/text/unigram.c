/* unigram.c - the unigram model: the most probable way to cover a text with pieces.
 *
 * T. Kudo: Subword Regularization, ACL 2018; the search goes over the ends of pieces from left to right (Viterbi). Of equal
 * sums the first found stays: shorter pieces that begin earlier. A character that is no piece counts as one whose score is
 * 10 below the least; neighbouring ones become one unknown token, or the tokens of their bytes. Sums are kept in float64, as
 * in Hugging Face's tokenizers and in SentencePiece from 0.2 on; older ones keep float32 and may part equal sums. */
#include "text/parts.h"

#define UNIGRAM_PENALTY 10.0

typedef struct peft__unigram_node { /* the best way that ends at a byte */
    double score;
    int32_t id;    /* of its last piece; -1: an unknown character */
    uint32_t from; /* where that begins; UINT32_MAX: no way ends here */
} peft__unigram_node;

void peft__unigram_free(peft__bpe_work *w) {
    peft__free(w->mem, w->path, w->path_cap * sizeof *w->path);
    w->path = NULL;
    w->path_cap = 0;
}

static peft_status unigram_reserve(peft__bpe_work *w, size_t n) {
    size_t bytes = 0, cap = PEFT__MAX(n, (size_t)256);
    if (n <= w->path_cap) { return PEFT_OK; }
    if (!peft__mul(cap, sizeof *w->path, &bytes)) {
        return peft__fail(PEFT_E_UNSUPPORTED, "a text of %zu bytes is too long", n);
    }
    peft__unigram_free(w);
    w->path = peft__alloc(w->mem, bytes);
    if (w->path == NULL) { return PEFT_E_NOMEM; }
    w->path_cap = cap;
    return PEFT_OK;
}

/* The sum at the end of a piece that follows on `before`. */
static double unigram_sum(const peft__tokenizer *t, double before, int32_t id, size_t len) {
    if (id < 0) { return before + t->least - UNIGRAM_PENALTY; }
    if (t->tokens[id].type == PEFT__TOKEN_USER) { return (double)len * t->most - 0.1 + before; } /* always chosen */
    return before + (t->scores != NULL ? t->scores[id] : (double)t->tokens[id].score);
}

static void unigram_offer(const peft__tokenizer *t, peft__unigram_node *path, size_t from, size_t len, int32_t id) {
    double sum = unigram_sum(t, path[from].score, id, len);
    peft__unigram_node *end = &path[from + len];
    if (end->from == UINT32_MAX || sum > end->score) { *end = (peft__unigram_node){sum, id, (uint32_t)from}; }
}

static void unigram_search(const peft__tokenizer *t, peft__unigram_node *path, const char *s, size_t len) {
    uint32_t cp = 0;
    for (size_t i = 0; i <= len; i++) { path[i] = (peft__unigram_node){0, -1, UINT32_MAX}; }
    for (size_t at = 0, n; at < len; at += n) {
        n = peft__utf8_read(s + at, len - at, &cp);
        n = n == 0 ? 1 : n;
        bool single = false;
        uint32_t node = 0;
        for (size_t k = at; k < len; k++) {
            node = peft__trie_child(&t->trie, node, (uint8_t)s[k]);
            if (node == PEFT__TRIE_NONE) { break; }
            if (t->trie.ids[node] < 0) { continue; }
            unigram_offer(t, path, at, k + 1 - at, t->trie.ids[node]);
            single = single || k + 1 - at == n;
        }
        if (!single) { unigram_offer(t, path, at, n, -1); }
    }
}

/* Unknown characters s[from..to), written backwards. */
static void unigram_unknown(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t from, size_t to) {
    bool bytes = true;
    peft__place place = {(uint32_t)from, (uint32_t)to};
    for (size_t i = from; i < to; i++) { bytes = bytes && t->byte_ids[(unsigned char)s[i]] >= 0; }
    for (size_t i = to; bytes && i > from; i--) {
        w->spans[w->n] = place;
        w->ids[w->n++] = t->byte_ids[(unsigned char)s[i - 1]];
    }
    if (!bytes && t->unk >= 0) {
        w->spans[w->n] = place;
        w->ids[w->n++] = t->unk;
    }
}

peft_status peft__unigram_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    peft_status st = PEFT_OK;
    TRY(peft__bpe_reserve(w, len + 1)); /* refuses what does not fit 32 bits, too */
    TRY(unigram_reserve(w, len + 1));
    unigram_search(t, w->path, s, len);
    w->n = 0;
    for (size_t to = len; to > 0;) {
        size_t from = w->path[to].from;
        int32_t id = w->path[to].id;
        if (id >= 0) {
            w->spans[w->n] = (peft__place){(uint32_t)from, (uint32_t)to};
            w->ids[w->n++] = id;
        } else {
            while (from > 0 && t->fuse_unk && w->path[from].id < 0) { from = w->path[from].from; }
            unigram_unknown(t, w, s, from, to);
        }
        to = from;
    }
    for (size_t i = 0, k = w->n; i + 1 < k; i++) {
        k--;
        int32_t id = w->ids[i];
        peft__place place = w->spans[i];
        w->ids[i] = w->ids[k];
        w->spans[i] = w->spans[k];
        w->ids[k] = id;
        w->spans[k] = place;
    }
out:
    return st;
}

peft_status peft__unigram_finish(peft__tokenizer *t) {
    bool any = false;
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        double score = t->scores != NULL ? t->scores[i] : (double)k->score;
        if (k->type != PEFT__TOKEN_NORMAL && (t->scores == NULL || k->type == 0)) { continue; }
        t->least = any ? PEFT__MIN(t->least, score) : score;
        t->most = any ? PEFT__MAX(t->most, score) : score;
        any = true;
    }
    return peft__trie_build(t);
}
#undef UNIGRAM_PENALTY
