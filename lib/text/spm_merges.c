/* spm_merges.c - the merges that a SentencePiece vocabulary implies.
 *
 * SentencePiece (T. Kudo, J. Richardson, EMNLP 2018) keeps no list of merges: two neighbouring pieces join where their
 * concatenation is a piece, the largest score first. So each piece, cut at each of its character boundaries into two
 * pieces, is a merge, and its rank follows from the score of what it makes; pieces of equal score share a rank.
 * Left out: a piece with a character that is no piece by itself is never made; trainers write none. */
#include <stdlib.h>

#include "text/parts.h"

static bool spm_merges_usable(const peft__token *k) {
    return k->type == PEFT__TOKEN_NORMAL || k->type == PEFT__TOKEN_UNUSED;
}

typedef struct peft__spm_merge { /* a merge with what it is ordered by */
    peft__merge m;
    float score;
    uint32_t left_len, right_len; /* bytes */
} peft__spm_merge;

static int spm_merges_order(const void *a, const void *b) {
    const peft__spm_merge *x = a, *y = b;
    if (x->score > y->score || x->score < y->score) { return x->score > y->score ? -1 : 1; }
    if (x->left_len != y->left_len) { return x->left_len > y->left_len ? -1 : 1; }
    if (x->right_len != y->right_len) { return x->right_len > y->right_len ? -1 : 1; }
    if (x->m.left != y->m.left) { return x->m.left < y->m.left ? -1 : 1; }
    return x->m.right < y->m.right ? -1 : x->m.right > y->m.right;
}

static peft_status spm_merges_of(peft__tokenizer *t, size_t id, peft__vec *out) {
    const peft__token *k = &t->tokens[id];
    for (uint32_t cut = 1; cut < k->len; cut++) {
        if (((unsigned char)k->text[cut] & 0xC0u) == 0x80u) { continue; }
        int64_t left = peft__map_get(&t->index, k->text, cut);
        if (left < 0 || !spm_merges_usable(&t->tokens[left])) { continue; }
        int64_t right = peft__map_get(&t->index, k->text + cut, k->len - cut);
        if (right < 0 || !spm_merges_usable(&t->tokens[right])) { continue; }
        peft__spm_merge m = {{(int32_t)left, (int32_t)right, (int32_t)id, 0}, k->score, cut, k->len - cut};
        peft_status st = peft__vec_push(out, &m);
        if (st != PEFT_OK) { return st; }
    }
    return PEFT_OK;
}

peft_status peft__bpe_merges_from_scores(peft__tokenizer *t) {
    peft_status st = PEFT_OK;
    peft__vec all;
    peft__vec_init(&all, t->mem, sizeof(peft__spm_merge));
    for (size_t i = 0; i < t->count; i++) {
        if (spm_merges_usable(&t->tokens[i])) { TRY(spm_merges_of(t, i, &all)); }
    }
    if (all.len > INT32_MAX) { FAIL(PEFT_E_UNSUPPORTED, "%zu merges are too many", all.len); }
    if (all.len > 1) { qsort(all.data, all.len, sizeof(peft__spm_merge), spm_merges_order); }
    int32_t rank = 0;
    for (size_t i = 0; i < all.len; i++) {
        peft__spm_merge *m = &PEFT__VEC_AT(&all, peft__spm_merge, i);
        if (i > 0 && m->score < PEFT__VEC_AT(&all, peft__spm_merge, i - 1).score) { rank++; }
        m->m.rank = rank;
        TRY(peft__vec_push(&t->merges, &m->m));
    }
out:
    peft__vec_free(&all);
    return st;
}
