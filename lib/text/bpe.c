/* bpe.c - byte pair encoding: merges the symbols of a word, the pair of smallest rank first, from left to right.
 *
 * R. Sennrich, B. Haddow, A. Birch: Neural Machine Translation of Rare Words with Subword Units, ACL 2016. A word of a
 * few symbols is scanned for its best pair again and again; a long one keeps its pairs in a heap and its symbols in a
 * linked list, which takes n log n. Both give the same tokens. The only state is the caller's scratch. */
#include "text/parts.h"

#define BPE_NONE INT32_MAX /* rank of a pair that does not merge */

static uint64_t bpe_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t bpe_slot(uint64_t key, size_t cap) {
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (cap - 1);
}

/* Rank of a pair and what it becomes; BPE_NONE if it does not merge. */
static int32_t bpe_rank(const peft__tokenizer *t, int32_t left, int32_t right, int32_t *result) {
    if (t->pair_cap == 0) { return BPE_NONE; }
    uint64_t key = bpe_key(left, right);
    for (size_t i = bpe_slot(key, t->pair_cap);; i = (i + 1) & (t->pair_cap - 1)) {
        const peft__pair *p = &t->pairs[i];
        if (p->key == key) {
            *result = p->result;
            return p->rank;
        }
        if (p->key == UINT64_MAX) { return BPE_NONE; }
    }
}

peft_status peft__bpe_index(peft__tokenizer *t) {
    peft_status st = PEFT_OK;
    size_t cap = 16, bytes = 0;
    while (cap < t->merges.len * 2) { cap *= 2; }
    if (!peft__mul(cap, sizeof *t->pairs, &bytes)) { FAIL(PEFT_E_NOMEM, "a table of %zu merges is too large", cap); }
    t->pairs = peft__alloc(t->mem, bytes);
    if (t->pairs == NULL) { return PEFT_E_NOMEM; }
    t->pair_cap = cap;
    for (size_t i = 0; i < cap; i++) { t->pairs[i].key = UINT64_MAX; }
    for (size_t k = 0; k < t->merges.len; k++) {
        const peft__merge *m = &PEFT__VEC_AT(&t->merges, peft__merge, k);
        uint64_t key = bpe_key(m->left, m->right);
        size_t i = bpe_slot(key, cap);
        while (t->pairs[i].key != UINT64_MAX && t->pairs[i].key != key) { i = (i + 1) & (cap - 1); }
        if (t->pairs[i].key == key) { continue; } /* a merge that is listed twice: the first counts */
        t->pairs[i] = (peft__pair){key, m->rank, m->result};
    }
out:
    return st;
}

void peft__bpe_init(peft__bpe_work *w, peft__mem *mem) {
    *w = (peft__bpe_work){.mem = mem};
}

void peft__bpe_free(peft__bpe_work *w) {
    peft__free(w->mem, w->ids, w->cap * sizeof *w->ids);
    peft__free(w->mem, w->spans, w->cap * sizeof *w->spans);
    peft__unigram_free(w);
    peft__free(w->mem, w->prev, w->link_cap * sizeof *w->prev);
    peft__free(w->mem, w->next, w->link_cap * sizeof *w->next);
    peft__free(w->mem, w->heap, w->heap_cap * sizeof *w->heap);
    *w = (peft__bpe_work){.mem = w->mem};
}

peft_status peft__bpe_reserve(peft__bpe_work *w, size_t n) {
    if (n <= w->cap) { return PEFT_OK; }
    if (n > INT32_MAX / 4) { return peft__fail(PEFT_E_UNSUPPORTED, "a word of %zu bytes is too long to encode", n); }
    size_t cap = w->cap < 64 ? 64 : w->cap;
    while (cap < n) { cap *= 2; }
    int32_t *ids = peft__realloc(w->mem, w->ids, w->cap * sizeof *ids, cap * sizeof *ids);
    if (ids == NULL) { return PEFT_E_NOMEM; }
    w->ids = ids;
    peft__place *spans = peft__realloc(w->mem, w->spans, w->cap * sizeof *spans, cap * sizeof *spans);
    if (spans == NULL) {
        peft__free(w->mem, w->ids, cap * sizeof *ids); /* its size is no longer cap */
        peft__free(w->mem, w->spans, w->cap * sizeof *spans);
        w->ids = NULL;
        w->spans = NULL;
        w->cap = 0;
        return PEFT_E_NOMEM;
    }
    w->spans = spans;
    w->cap = cap;
    return PEFT_OK;
}

static void bpe_short(const peft__tokenizer *t, int32_t *ids, size_t *count) {
    int32_t rank[PEFT__BPE_SHORT], result[PEFT__BPE_SHORT];
    size_t n = *count;
    for (size_t i = 0; i + 1 < n; i++) { rank[i] = bpe_rank(t, ids[i], ids[i + 1], &result[i]); }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (rank[i] < rank[best]) { best = i; }
        }
        if (rank[best] == BPE_NONE) { break; }
        ids[best] = result[best];
        for (size_t i = best + 1; i + 1 < n; i++) { ids[i] = ids[i + 1]; }
        for (size_t i = best + 1; i + 2 < n; i++) {
            rank[i] = rank[i + 1];
            result[i] = result[i + 1];
        }
        n--;
        if (best + 1 < n) { rank[best] = bpe_rank(t, ids[best], ids[best + 1], &result[best]); }
        if (best > 0) { rank[best - 1] = bpe_rank(t, ids[best - 1], ids[best], &result[best - 1]); }
    }
    *count = n;
}

static bool bpe_before(const peft__bpe_item *a, const peft__bpe_item *b) {
    return a->rank < b->rank || (a->rank == b->rank && a->pos < b->pos);
}

static void bpe_push(const peft__tokenizer *t, peft__bpe_work *w, int32_t pos) {
    int32_t right = w->next[pos], result = 0;
    if (right < 0) { return; }
    int32_t rank = bpe_rank(t, w->ids[pos], w->ids[right], &result);
    if (rank == BPE_NONE) { return; }
    peft__bpe_item item = {rank, pos, w->ids[pos], w->ids[right]};
    size_t i = w->heap_len++;
    while (i > 0 && bpe_before(&item, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = item;
}

static peft__bpe_item bpe_pop(peft__bpe_work *w) {
    peft__bpe_item top = w->heap[0], last = w->heap[--w->heap_len];
    size_t i = 0, n = w->heap_len;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) { break; }
        if (child + 1 < n && bpe_before(&w->heap[child + 1], &w->heap[child])) { child++; }
        if (!bpe_before(&w->heap[child], &last)) { break; }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Every merge removes one symbol and adds at most two pairs: 3 n items bound the heap. */
static peft_status bpe_reserve_long(peft__bpe_work *w) {
    size_t n = w->n, items = 3 * w->n;
    if (n > w->link_cap) {
        int32_t *prev = peft__realloc(w->mem, w->prev, w->link_cap * sizeof *prev, n * sizeof *prev);
        if (prev == NULL) { return PEFT_E_NOMEM; }
        w->prev = prev;
        int32_t *next = peft__realloc(w->mem, w->next, w->link_cap * sizeof *next, n * sizeof *next);
        if (next == NULL) {
            peft__free(w->mem, w->prev, n * sizeof *prev); /* its size is no longer link_cap */
            w->prev = NULL;
            peft__free(w->mem, w->next, w->link_cap * sizeof *next);
            w->next = NULL;
            w->link_cap = 0;
            return PEFT_E_NOMEM;
        }
        w->next = next;
        w->link_cap = n;
    }
    if (items > w->heap_cap) {
        peft__bpe_item *heap = peft__realloc(w->mem, w->heap, w->heap_cap * sizeof *heap, items * sizeof *heap);
        if (heap == NULL) { return PEFT_E_NOMEM; }
        w->heap = heap;
        w->heap_cap = items;
    }
    return PEFT_OK;
}

static peft_status bpe_long(const peft__tokenizer *t, peft__bpe_work *w) {
    peft_status st = PEFT_OK;
    int32_t n = (int32_t)w->n;
    TRY(bpe_reserve_long(w));
    w->heap_len = 0;
    for (int32_t i = 0; i < n; i++) {
        w->prev[i] = i - 1;
        w->next[i] = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i + 1 < n; i++) { bpe_push(t, w, i); }
    while (w->heap_len > 0) {
        peft__bpe_item top = bpe_pop(w);
        int32_t pos = top.pos, right = w->next[pos], result = 0;
        /* A pair whose symbols have changed since it was put into the heap. */
        if (w->ids[pos] != top.left || right < 0 || w->ids[right] != top.right) { continue; }
        (void)bpe_rank(t, top.left, top.right, &result);
        w->ids[pos] = result;
        w->ids[right] = -1;
        w->next[pos] = w->next[right];
        if (w->next[pos] >= 0) { w->prev[w->next[pos]] = pos; }
        bpe_push(t, w, pos);
        if (w->prev[pos] >= 0) { bpe_push(t, w, w->prev[pos]); }
    }
    size_t out = 0;
    for (int32_t i = 0; i >= 0; i = w->next[i]) { w->ids[out++] = w->ids[i]; }
    w->n = out;
out:
    return st;
}

peft_status peft__bpe_run(const peft__tokenizer *t, peft__bpe_work *w) {
    if (w->n <= 1) { return PEFT_OK; }
    if (w->n > PEFT__BPE_SHORT) { return bpe_long(t, w); }
    bpe_short(t, w->ids, &w->n);
    return PEFT_OK;
}
#undef BPE_NONE
