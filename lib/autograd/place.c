/* place.c - where each value and gradient lives: intervals of steps packed into one block of memory.
 *
 * Every piece of memory has a lifetime [first, last] over the plan's steps and a size. Pieces are placed from the largest to
 * the smallest, each at the lowest offset at which nothing that lives at the same time stands (best fit decreasing; the
 * offline form of dynamic storage allocation). */
#include "autograd/plan.h"

typedef struct place_piece {
    int64_t first, last; /* steps, inclusive; first < 0: not used */
    size_t size, at;     /* bytes */
    size_t *out;         /* where its offset is wanted */
} place_piece;

static void place_touch(place_piece *p, int64_t step) {
    if (p->first < 0 || step < p->first) { p->first = step; }
    if (step > p->last) { p->last = step; }
}

/* Larger first; then by birth, so that the order is the same everywhere. */
static bool place_before(const place_piece *a, const place_piece *b) {
    if (a->size != b->size) { return a->size > b->size; }
    return a->first != b->first ? a->first < b->first : a->out < b->out;
}

static void place_sift(place_piece **h, size_t n, size_t i) {
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= n) { return; }
        if (k + 1 < n && place_before(h[k], h[k + 1])) { k++; }
        if (!place_before(h[i], h[k])) { return; }
        place_piece *x = h[i];
        h[i] = h[k];
        h[k] = x;
        i = k;
    }
}

static void place_sort(place_piece **h, size_t n) { /* heap sort: no recursion, no allocation */
    for (size_t i = n / 2; i-- > 0;) { place_sift(h, n, i); }
    for (size_t m = n; m > 1; m--) {
        place_piece *x = h[0];
        h[0] = h[m - 1];
        h[m - 1] = x;
        place_sift(h, m - 1, 0);
    }
}

/* `placed` is ordered by offset. Finds the lowest gap among those that live with p, and inserts it. */
static size_t place_one(place_piece **placed, size_t n, place_piece *p) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const place_piece *q = placed[i];
        if (q->last < p->first || q->first > p->last) { continue; }
        if (q->at >= at + p->size) { break; }
        at = PEFT__MAX(at, q->at + q->size);
    }
    p->at = at;
    size_t i = n;
    for (; i > 0 && placed[i - 1]->at > at; i--) { placed[i] = placed[i - 1]; }
    placed[i] = p;
    return at + p->size;
}

typedef struct place_lives { /* pieces by the value whose memory they are */
    place_piece *data, *rebuilt, *grad; /* [values] */
    place_piece *packed;                /* [values]; NULL: nothing is */
} place_lives;

static void place_forward(const peft__plan *p, const peft__aliases *al, place_lives *L, int64_t step,
                          const peft__op *op, bool rebuild) {
    for (int32_t j = 0; j < op->n_out + op->n_in; j++) {
        peft__val v = j < op->n_out ? op->out[j] : op->in[j - op->n_out];
        if (v == PEFT__NONE) { continue; }
        int32_t m = al->data[v];
        place_touch(rebuild && p->dropped[m] ? &L->rebuilt[m] : &L->data[m], step);
    }
}

static void place_backward(const peft__tape *t, const peft__plan *p, const peft__aliases *al, place_lives *L, int64_t step,
                           const peft__op *op) {
    bool loss = (op->kind->flags & PEFT__OPF_LOSS) != 0;
    uint32_t reads = op->needs_grad && op->kind->reads != NULL ? op->kind->reads(t, op) : 0;
    for (int32_t j = 0; j < op->n_in; j++) {
        if (op->in[j] == PEFT__NONE) { continue; }
        int32_t m = al->data[op->in[j]];
        if (loss || ((reads >> j) & 1u) != 0) { place_touch(p->dropped[m] ? &L->rebuilt[m] : &L->data[m], step); }
        if (peft__tape_value(t, op->in[j])->needs_grad) { place_touch(&L->grad[al->grad[op->in[j]]], step); }
    }
    for (int32_t j = 0; j < op->n_out; j++) {
        int32_t m = al->data[op->out[j]];
        if (((reads >> (PEFT__READS_OUT + j)) & 1u) != 0) { place_touch(p->dropped[m] ? &L->rebuilt[m] : &L->data[m], step); }
        if (peft__tape_value(t, op->out[j])->needs_grad) { place_touch(&L->grad[al->grad[op->out[j]]], step); }
    }
}

static void place_collect(place_piece *pieces, size_t n, const peft__tape *t, const peft__plan *p,
                          const int32_t *alias, size_t *out) {
    for (size_t v = 0; v < n; v++) {
        out[v] = SIZE_MAX;
        pieces[v].first = pieces[v].last = -1;
        pieces[v].out = &out[v];
        pieces[v].size = alias[v] == (int32_t)v ? peft__plan_value_bytes(t, &p->caps, (peft__val)v) : 0;
    }
}

#ifndef PEFT_MINIMAL
/* From memory to its packed copy, or back. */
static void place_pack(const peft__plan *p, place_lives *L, const peft__aliases *al, int64_t step, const peft__op *op) {
    int32_t m = al->data[op->out[0]];
    place_touch(p->steps[step].phase == PEFT__PHASE_PACK ? &L->data[m] : &L->rebuilt[m], step);
    place_touch(&L->packed[m], step);
}

static void place_collect_packed(place_lives *L, size_t n, const peft__tape *t, const peft__plan *p) {
    place_collect(L->packed, n, t, p, p->packed, p->packed_place);
    for (size_t v = 0; v < n; v++) { L->packed[v].size = peft__plan_packs(p, v) ? peft__pack_bytes(t, &p->caps, (peft__val)v) : 0; }
}
#endif

/* What each segment leaves for the backward pass. */
static void place_kept(peft__plan *p, const peft__tape *t, const place_piece *data) {
    for (int64_t v = 0; v < p->n_values; v++) {
        if (data[v].first < 0 || data[v].first >= p->n_forward || data[v].last < p->n_forward) { continue; }
        p->kept[peft__tape_op(t, peft__tape_value(t, (peft__val)v)->producer)->segment] += data[v].size;
    }
}

/* What lives when. Ops that may run at the same time live as one. */
static void place_steps(const peft__plan *p, const peft__tape *t, const peft__aliases *al, place_lives *L, place_piece *loss) {
    int64_t first = 0, last = -1;
    for (int64_t s = 0; s < p->n_steps; s++) {
        const peft__op *op = peft__tape_op(t, p->steps[s].op);
        if (p->steps[s].together > 0) { first = s, last = s + p->steps[s].together - 1; }
        if ((op->kind->flags & PEFT__OPF_LOSS) != 0) { place_touch(loss, s); }
#ifndef PEFT_MINIMAL
        if (p->steps[s].phase >= PEFT__PHASE_PACK) {
            place_pack(p, L, al, s, op);
            continue;
        }
#endif
        if (p->steps[s].phase == PEFT__PHASE_BACKWARD) {
            place_backward(t, p, al, L, s, op);
        } else {
            bool rebuild = p->steps[s].phase == PEFT__PHASE_REBUILD;
            place_forward(p, al, L, s <= last ? first : s, op, rebuild);
            if (s <= last) { place_forward(p, al, L, last, op, rebuild); }
        }
    }
}

peft_status peft__plan_place(peft__plan *p, const peft__tape *t, const peft__aliases *al) {
    peft_status st = PEFT_OK;
    size_t n = t->values.len, used = 0, placed = 0, most = 3 * n + 1;
#ifndef PEFT_MINIMAL
    most += p->packed != NULL ? n : 0;
#endif
    size_t bytes = most * sizeof(place_piece), order_bytes = 2 * most * sizeof(void *);
    place_piece *pieces = peft__alloc(p->mem, bytes);
    place_piece **order = peft__alloc(p->mem, order_bytes);
    if (pieces == NULL || order == NULL) { st = PEFT_E_NOMEM; goto out; }
    place_lives L = {pieces, pieces + n, pieces + 2 * n, most > 3 * n + 1 ? pieces + 3 * n + 1 : NULL};
    place_piece *loss = pieces + 3 * n;
    *loss = (place_piece){-1, -1, p->loss_bytes, 0, &p->loss_place};
    place_collect(L.data, n, t, p, al->data, p->place);
    place_collect(L.rebuilt, n, t, p, al->data, p->rebuilt_place);
    place_collect(L.grad, n, t, p, al->grad, p->grad_place);
#ifndef PEFT_MINIMAL
    if (L.packed != NULL) { place_collect_packed(&L, n, t, p); }
#endif
    place_steps(p, t, al, &L, loss);
    for (size_t i = 0; i < most; i++) {
        if (pieces[i].first >= 0 && pieces[i].size > 0) { order[used++] = &pieces[i]; }
    }
    memset(p->kept, 0, (size_t)p->segments * sizeof *p->kept);
    place_kept(p, t, L.data);
#ifndef PEFT_MINIMAL
    if (L.packed != NULL) { place_kept(p, t, L.packed); }
#endif
    place_sort(order, used);
    p->block_bytes = 0;
    for (size_t i = 0; i < used; i++) {
        size_t end = place_one(order + most, placed++, order[i]);
        p->block_bytes = PEFT__MAX(p->block_bytes, end);
        *order[i]->out = order[i]->at;
    }
    for (size_t v = 0; v < n; v++) {
        p->place[v] = p->place[al->data[v]];
        p->rebuilt_place[v] = p->rebuilt_place[al->data[v]];
        p->grad_place[v] = p->grad_place[al->grad[v]];
#ifndef PEFT_MINIMAL
        if (L.packed != NULL) { p->packed_place[v] = p->packed_place[al->data[v]]; }
#endif
    }
out:
    peft__free(p->mem, pieces, bytes);
    peft__free(p->mem, order, order_bytes);
    return st;
}
