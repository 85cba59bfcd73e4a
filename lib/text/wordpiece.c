/* wordpiece.c - WordPiece: of each word the longest piece at its front, again and again.
 *
 * M. Schuster, K. Nakajima: Japanese and Korean Voice Search, ICASSP 2012; as in BERT (J. Devlin et al., NAACL 2019): pieces
 * inside a word begin with "##", and a word that cannot be covered, or is too long, is the unknown token as a whole. */
#include "text/parts.h"

/* The longest token at s below `node`: its bytes and id; 0: none. */
static size_t wordpiece_longest(const peft__trie *trie, uint32_t node, const char *s, size_t len, int32_t *id) {
    size_t best = 0;
    for (size_t i = 0; i < len; i++) {
        node = peft__trie_child(trie, node, (uint8_t)s[i]);
        if (node == PEFT__TRIE_NONE) { break; }
        if (trie->ids[node] >= 0) {
            best = i + 1;
            *id = trie->ids[node];
        }
    }
    return best;
}

static bool wordpiece_too_long(const peft__tokenizer *t, const char *s, size_t len) {
    int64_t chars = 0;
    if ((uint64_t)len <= (uint64_t)t->max_chars) { return false; }
    for (size_t i = 0; i < len; i++) { chars += ((unsigned char)s[i] & 0xC0u) != 0x80u; }
    return chars > t->max_chars;
}

peft_status peft__wordpiece_run(const peft__tokenizer *t, peft__bpe_work *w, const char *s, size_t len) {
    peft_status st = peft__bpe_reserve(w, len + 1);
    if (st != PEFT_OK) { return st; }
    w->n = 0;
    bool covered = !wordpiece_too_long(t, s, len);
    for (size_t at = 0; covered && at < len;) {
        int32_t id = -1;
        uint32_t node = at == 0 ? 0 : t->joint_node;
        bool dead = at > 0 && node == PEFT__TRIE_NONE && !t->joint_all;
        size_t n = dead ? 0 : wordpiece_longest(&t->trie, node, s + at, len - at, &id);
        covered = n > 0;
        if (covered) {
            w->spans[w->n] = (peft__place){(uint32_t)at, (uint32_t)(at + n)};
            w->ids[w->n++] = id;
        }
        at += n;
    }
    if (!covered) {
        w->n = t->unk >= 0 ? 1 : 0;
        w->ids[0] = t->unk;
        w->spans[0] = (peft__place){0, (uint32_t)len};
    }
    return st;
}

peft_status peft__wordpiece_finish(peft__tokenizer *t, const char *what) {
    peft_status st = PEFT_OK;
    if (t->unk < 0) { FAIL(PEFT_E_FORMAT, "%s: the unknown token of WordPiece is not in the vocabulary", what); }
    TRY(peft__trie_build(t));
    uint32_t node = 0;
    bool there = true;
    for (const char *p = t->joint; *p != '\0' && there; p++) {
        node = peft__trie_child(&t->trie, node, (uint8_t)*p);
        there = node != PEFT__TRIE_NONE;
    }
    t->joint_node = there ? node : PEFT__TRIE_NONE;
    t->joint_all = t->joint[0] == '\0';
out:
    return st;
}
