/* trie.c - the vocabulary by bytes: one walk from a place of a text meets all tokens that begin there.
 *
 * The nodes lie level by level, the children of one next to each other in the order of their bytes: a child is found by
 * halving. A unigram vocabulary of 250,000 pieces takes about a million nodes, nine bytes each. */
#include <stdlib.h>

#include "text/parts.h"

typedef struct peft__trie_key {
    const char *text;
    uint32_t len;
    int32_t id;
} peft__trie_key;

static int trie_order(const void *a, const void *b) {
    const peft__trie_key *x = a, *y = b;
    int cmp = memcmp(x->text, y->text, PEFT__MIN(x->len, y->len));
    if (cmp != 0) { return cmp; }
    return x->len < y->len ? -1 : x->len > y->len;
}

static peft_status trie_keys(const peft__tokenizer *t, peft__vec *keys) {
    for (size_t i = 0; i < t->count; i++) {
        const peft__token *k = &t->tokens[i];
        bool plain = k->type == PEFT__TOKEN_NORMAL || (k->type == PEFT__TOKEN_USER && t->users_inside);
        if (!plain || k->len == 0 || peft__map_get(&t->index, k->text, k->len) != (int64_t)i) { continue; }
        peft__trie_key key = {k->text, k->len, (int32_t)i};
        peft_status st = peft__vec_push(keys, &key);
        if (st != PEFT_OK) { return st; }
    }
    if (keys->len > 1) { qsort(keys->data, keys->len, sizeof(peft__trie_key), trie_order); }
    return PEFT_OK;
}

/* Nodes of the sorted keys: each adds those past what it shares with the one before it. */
static size_t trie_count(const peft__vec *keys) {
    size_t count = 1;
    for (size_t i = 0; i < keys->len; i++) {
        const peft__trie_key *k = &PEFT__VEC_AT(keys, peft__trie_key, i);
        const peft__trie_key *last = i > 0 ? k - 1 : NULL;
        size_t same = 0;
        while (last != NULL && same < last->len && same < k->len && last->text[same] == k->text[same]) { same++; }
        count += k->len - same;
    }
    return count;
}

/* lo, hi: the keys below each node, scratch of trie->count each. */
static void trie_fill(peft__trie *trie, const peft__vec *keys, uint32_t *lo, uint32_t *hi) {
    size_t made = 1, level_end = 1;
    uint32_t depth = 0;
    lo[0] = 0;
    hi[0] = (uint32_t)keys->len;
    for (size_t i = 0; i < trie->count; i++) {
        if (i == level_end) {
            depth++;
            level_end = made;
        }
        uint32_t at = lo[i];
        trie->ids[i] = -1;
        trie->first[i] = (uint32_t)made;
        if (at < hi[i] && PEFT__VEC_AT(keys, peft__trie_key, at).len == depth) {
            trie->ids[i] = PEFT__VEC_AT(keys, peft__trie_key, at++).id;
        }
        while (at < hi[i]) {
            char byte = PEFT__VEC_AT(keys, peft__trie_key, at).text[depth];
            lo[made] = at;
            trie->bytes[made] = (uint8_t)byte;
            while (at < hi[i] && PEFT__VEC_AT(keys, peft__trie_key, at).text[depth] == byte) { at++; }
            hi[made++] = at;
        }
    }
    trie->first[trie->count] = (uint32_t)made;
    for (uint32_t k = trie->first[0]; k < trie->first[1]; k++) { trie->root[trie->bytes[k]] = k; }
}

peft_status peft__trie_build(peft__tokenizer *t) {
    peft_status st = PEFT_OK;
    peft__trie *trie = &t->trie;
    peft__vec keys;
    uint32_t *lo = NULL, *hi = NULL;
    peft__vec_init(&keys, t->mem, sizeof(peft__trie_key));
    trie->mem = t->mem;
    TRY(trie_keys(t, &keys));
    size_t n = trie_count(&keys);
    if (n > INT32_MAX / 8) {
        FAIL(PEFT_E_UNSUPPORTED, "the tokens have %zu different beginnings, which are too many", n);
    }
    trie->count = n;
    trie->first = peft__alloc(t->mem, (n + 1) * sizeof *trie->first);
    trie->ids = peft__alloc(t->mem, n * sizeof *trie->ids);
    trie->bytes = peft__alloc(t->mem, n);
    lo = peft__alloc(t->mem, n * sizeof *lo);
    hi = peft__alloc(t->mem, n * sizeof *hi);
    if (trie->first == NULL || trie->ids == NULL || trie->bytes == NULL || lo == NULL || hi == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    trie->bytes[0] = 0;
    trie_fill(trie, &keys, lo, hi);
out:
    peft__free(t->mem, lo, trie->count * sizeof *lo);
    peft__free(t->mem, hi, trie->count * sizeof *hi);
    peft__vec_free(&keys);
    return st;
}

void peft__trie_free(peft__trie *trie) {
    if (trie->mem == NULL) { return; }
    peft__free(trie->mem, trie->first, (trie->count + 1) * sizeof *trie->first);
    peft__free(trie->mem, trie->ids, trie->count * sizeof *trie->ids);
    peft__free(trie->mem, trie->bytes, trie->count);
    *trie = (peft__trie){0};
}

uint32_t peft__trie_child(const peft__trie *trie, uint32_t node, uint8_t byte) {
    if (node == 0) { return trie->root[byte]; }
    uint32_t lo = trie->first[node], hi = trie->first[node + 1];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (trie->bytes[mid] == byte) { return mid; }
        if (trie->bytes[mid] < byte) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return PEFT__TRIE_NONE;
}
