/* plan.c - the order of steps of a run: forward, then backward with what was dropped rebuilt just before it is needed.
 *
 *   forward   every op in recording order
 *   backward  ops in reverse; before each, ensure(v) for every value that its backward reads: a kept value is there, a dropped
 *             one is rebuilt by re-running its producer (whose own inputs are ensured first)
 *
 * Dropped are the outputs of element-wise ops (cheap to rebuild: norms, activations, products of gates), and, in segments
 * that the memory limit demands, everything but what other segments read ("gradient checkpointing", Chen et al. 2016).
 * Where everything lives is place.c, what is kept in half of its bytes pack.c. */
#include "autograd/plan.h"

int64_t peft__plan_rows(const peft__tape *t, const peft__caps *caps, int32_t space, int64_t fixed) {
    if (space == PEFT__SPACE_FIXED) { return fixed; }
    if (space == PEFT__SPACE_ROWS) { return caps->max_rows; }
    if (space == PEFT__SPACE_TOKENS) { return caps->max_tokens + caps->max_rows * t->virtual_tokens; }
    if (space == PEFT__SPACE_ENCODER) { return caps->max_source + caps->max_rows * t->source_virtual; }
    return space == PEFT__SPACE_SOURCE ? caps->max_source : caps->max_tokens;
}

size_t peft__plan_value_bytes(const peft__tape *t, const peft__caps *caps, peft__val v) {
    const peft__value *x = peft__tape_value(t, v);
    size_t n = (size_t)peft__plan_rows(t, caps, x->space, x->fixed) * (size_t)x->cols * sizeof(peft__real);
    return (n + 63) & ~(size_t)63;
}

static bool plan_reads(const peft__tape *t, const peft__op *op, int32_t bit) {
    return op->needs_grad && op->kind->reads != NULL && ((op->kind->reads(t, op) >> bit) & 1u) != 0;
}

/* Number of ops that read v, and the last of them. */
static int32_t plan_consumers(const peft__tape *t, peft__val v, int32_t *last_but /* largest index below `skip` */, int32_t skip) {
    int32_t n = 0;
    *last_but = -1;
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        for (int32_t j = 0; j < op->n_in; j++) {
            if (op->in[j] != v) { continue; }
            n++;
            if ((int32_t)i != skip) { *last_but = (int32_t)i; }
        }
    }
    return n;
}

static bool plan_same_shape(const peft__tape *t, peft__val a, peft__val b) {
    const peft__value *x = peft__tape_value(t, a), *y = peft__tape_value(t, b);
    return x->cols == y->cols && x->space == y->space && x->fixed == y->fixed && x->parent == PEFT__NONE && !x->viewed;
}

/* May op write its result over in[j]? Only if nobody reads the old contents later. */
static bool plan_may_overwrite(const peft__tape *t, const peft__op *op, int32_t j) {
    int32_t last = -1;
    peft__val v = op->in[j];
    if (!plan_same_shape(t, v, op->out[0]) || plan_consumers(t, v, &last, -1) != 1 || plan_reads(t, op, j)) { return false; }
    const peft__op *maker = peft__tape_op(t, peft__tape_value(t, v)->producer);
    for (int32_t k = 0; k < maker->n_out; k++) {
        if (maker->out[k] == v && plan_reads(t, maker, PEFT__READS_OUT + k)) { return false; }
    }
    return true;
}

/* May others add to the memory of v's gradient once v's own branch is through with it? Only if all that can share it, from v up
 * through the ops that pass a gradient on, is read by this branch alone (nothing else adds to it) and comes after op `last`
 * (the first of the others to add). */
static bool plan_branch_is_alone(const peft__tape *t, peft__val v, int32_t last) {
    int32_t unused = -1, p = peft__tape_value(t, v)->producer;
    const peft__op *op = peft__tape_op(t, p);
    if (p <= last || plan_consumers(t, v, &unused, -1) != 1) { return false; }
    for (int32_t j = 0; j < 2 && j < op->n_in && op->out[0] == v; j++) {
        uint32_t flag = j == 0 ? PEFT__OPF_PASS0 : PEFT__OPF_PASS1;
        if ((op->kind->flags & flag) == 0 || !peft__tape_value(t, op->in[j])->needs_grad) { continue; }
        if (plan_same_shape(t, op->in[j], v) && !plan_branch_is_alone(t, op->in[j], last)) { return false; }
    }
    return true;
}

static void plan_alias_grads(const peft__tape *t, peft__aliases *al, int32_t i) {
    const peft__op *op = peft__tape_op(t, i);
    int32_t last = -1;
    int32_t alone[2] = {0, 0};
    for (int32_t j = 0; j < 2 && j < op->n_in; j++) {
        if (op->in[j] != PEFT__NONE) { alone[j] = plan_consumers(t, op->in[j], &last, i) == 1; }
    }
    bool pass1 = (op->kind->flags & PEFT__OPF_PASS1) != 0 && alone[1] && plan_same_shape(t, op->in[1], op->out[0]);
    if (pass1) { al->grad[op->in[1]] = al->grad[op->out[0]]; }
    if ((op->kind->flags & PEFT__OPF_PASS0) == 0 || !plan_same_shape(t, op->in[0], op->out[0])) { return; }
    if (alone[0]) {
        if (!pass1 || (op->kind->flags & PEFT__OPF_PASS1) == 0) { al->grad[op->in[0]] = al->grad[op->out[0]]; return; }
    }
    /* The residual stream: others add to d in[0] too, but not before this op's own backward, when the memory is still d out[0]'s
     * alone, and only after all of in[1]'s branch has read it. */
    (void)plan_consumers(t, op->in[0], &last, i);
    if (last < i && (!pass1 || plan_branch_is_alone(t, op->in[1], last))) { al->grad[op->in[0]] = al->grad[op->out[0]]; }
}

void peft__plan_alias(const peft__tape *t, peft__aliases *al) {
    for (size_t v = 0; v < t->values.len; v++) {
        int32_t parent = peft__tape_value(t, (peft__val)v)->parent;
        al->data[v] = al->grad[v] = parent == PEFT__NONE ? (int32_t)v : parent;
    }
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        if (op->n_out == 0) { continue; }
        if ((op->kind->flags & PEFT__OPF_INPLACE0) != 0 && plan_may_overwrite(t, op, 0)) {
            al->data[op->out[0]] = al->data[op->in[0]];
        } else if ((op->kind->flags & PEFT__OPF_INPLACE1) != 0 && plan_may_overwrite(t, op, 1)) {
            al->data[op->out[0]] = al->data[op->in[1]];
        }
    }
    for (size_t v = 0; v < t->values.len; v++) { /* a parent may itself stand in memory of another */
        int32_t parent = peft__tape_value(t, (peft__val)v)->parent;
        if (parent != PEFT__NONE) { al->data[v] = al->data[parent]; }
    }
    for (int32_t i = (int32_t)t->ops.len - 1; i >= 0; i--) {
        const peft__op *op = peft__tape_op(t, i);
        if (op->needs_grad && op->n_out > 0 && op->n_in > 0 && op->in[0] != PEFT__NONE) { plan_alias_grads(t, al, i); }
    }
}

/* ---- the schedule -------------------------------------------------------------------------------------------------- */

typedef struct plan_build {
    const peft__tape *t;
    peft__plan *p;
    const peft__aliases *al;
    bool *rebuilt;   /* [values]: rebuilt already in this backward pass */
    peft__vec steps; /* of peft__plan_step */
} plan_build;

static peft_status plan_push(plan_build *b, int32_t op, int32_t phase) {
    peft__plan_step s = {op, phase, 0};
    return peft__vec_push(&b->steps, &s);
}

/* Makes v readable in the backward pass. Recursion follows producers within a layer: its depth is bounded by the ops of one. */
static peft_status plan_ensure(plan_build *b, peft__val v) {
    peft_status st = PEFT_OK;
    const peft__value *x = peft__tape_value(b->t, v);
    if (x->parent != PEFT__NONE) { return plan_ensure(b, x->parent); }
    if (!b->p->dropped[b->al->data[v]] || b->rebuilt[v]) { return PEFT_OK; }
    const peft__op *op = peft__tape_op(b->t, x->producer);
    if (peft__plan_packs(b->p, b->al->data[v])) {
        b->rebuilt[v] = b->rebuilt[b->al->data[v]] = true;
        return plan_push(b, x->producer, PEFT__PHASE_UNPACK);
    }
    for (int32_t j = 0; j < op->n_in; j++) {
        if (op->in[j] != PEFT__NONE) { TRY(plan_ensure(b, op->in[j])); }
    }
    TRY(plan_push(b, x->producer, PEFT__PHASE_REBUILD));
    for (int32_t j = 0; j < op->n_out; j++) { b->rebuilt[op->out[j]] = true; }
out:
    return st;
}

#ifdef PEFT_MINIMAL
#define plan_pack_after(b, i) PEFT_OK
#define plan_pack_less(b)     ((void)0)
#else
/* Packs the memory whose last op of the forward pass is i. */
static peft_status plan_pack_after(plan_build *b, int32_t i) {
    peft_status st = PEFT_OK;
    for (int64_t v = 0; v < b->p->n_values && b->p->packed != NULL; v++) {
        if (b->p->packed[v] == i) { TRY(plan_push(b, peft__tape_value(b->t, (peft__val)v)->producer, PEFT__PHASE_PACK)); }
    }
out:
    return st;
}

/* What the backward pass never asked for need not be packed. */
static void plan_pack_less(plan_build *b) {
    peft__plan_step *s = b->steps.data;
    size_t n = 0;
    int64_t forward = 0;
    for (size_t i = 0; i < b->steps.len; i++) {
        if (s[i].phase == PEFT__PHASE_PACK && !b->rebuilt[peft__tape_op(b->t, s[i].op)->out[0]]) { continue; }
        forward += (int64_t)i < b->p->n_forward;
        s[n++] = s[i];
    }
    b->steps.len = n;
    b->p->n_forward = forward;
}
#endif

static peft_status plan_schedule(plan_build *b) {
    peft_status st = PEFT_OK;
    const peft__tape *t = b->t;
    memset(b->rebuilt, 0, t->values.len * sizeof *b->rebuilt);
    b->steps.len = 0;
    for (size_t i = 0; i < t->ops.len; i++) {
        TRY(plan_push(b, (int32_t)i, PEFT__PHASE_FORWARD));
        TRY(plan_pack_after(b, (int32_t)i));
    }
    b->p->n_forward = (int64_t)b->steps.len;
    for (int32_t i = (int32_t)t->ops.len - 1; i >= 0 && b->p->training; i--) {
        const peft__op *op = peft__tape_op(t, i);
        if (!op->needs_grad && (op->kind->flags & PEFT__OPF_LOSS) == 0) { continue; }
        for (int32_t j = 0; j < op->n_in; j++) {
            bool loss = (op->kind->flags & PEFT__OPF_LOSS) != 0;
            if (op->in[j] != PEFT__NONE && (loss || plan_reads(t, op, j))) { TRY(plan_ensure(b, op->in[j])); }
        }
        for (int32_t j = 0; j < op->n_out; j++) {
            if (plan_reads(t, op, PEFT__READS_OUT + j)) { TRY(plan_ensure(b, op->out[j])); }
        }
        TRY(plan_push(b, i, PEFT__PHASE_BACKWARD));
    }
    plan_pack_less(b);
    b->p->steps = b->steps.data;
    b->p->n_steps = (int64_t)b->steps.len;
#ifndef PEFT_MINIMAL
    peft__plan_together(b->p, t, b->al);
#endif
out:
    return st;
}

/* Which memory is not kept. A shared one is kept if any of its values must be. */
static void plan_drop(const peft__tape *t, peft__plan *p, const peft__aliases *al, bool keep_cheap) {
    for (int64_t v = 0; v < p->n_values; v++) {
        const peft__value *x = peft__tape_value(t, (peft__val)v);
        const peft__op *op = peft__tape_op(t, x->producer);
        bool cheap = !keep_cheap && (op->kind->flags & PEFT__OPF_CHEAP) != 0 && al->data[v] == (int32_t)v;
        p->dropped[v] = p->training && op->segment > 0 && (cheap || p->recompute[op->segment]);
    }
    for (size_t i = 0; i < t->ops.len; i++) { /* what another segment reads is kept */
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        for (int32_t j = 0; j < op->n_in; j++) {
            if (op->in[j] == PEFT__NONE) { continue; }
            const peft__value *x = peft__tape_value(t, op->in[j]);
            if (peft__tape_op(t, x->producer)->segment != op->segment) { p->dropped[al->data[op->in[j]]] = false; }
        }
    }
    for (int64_t v = 0; v < p->n_values; v++) {
        if (al->data[v] != (int32_t)v) { p->dropped[v] = p->dropped[al->data[v]]; }
    }
#ifndef PEFT_MINIMAL
    peft__pack_choose(t, p, al);
#endif
}

static void plan_cost(peft__plan *p, const peft__tape *t) {
    p->forward_flops = p->backward_flops = p->rebuild_flops = 0;
    for (int64_t s = 0; s < p->n_steps; s++) {
        const peft__op *op = peft__tape_op(t, p->steps[s].op);
        if (op->kind->flops == NULL) { continue; }
        const peft__value *x = peft__tape_value(t, op->n_out > 0 ? op->out[0] : op->in[0]);
        double rows = (double)peft__plan_rows(t, &p->caps, x->space, x->fixed);
        double f = rows * op->kind->flops(t, op, &p->caps, p->steps[s].phase == PEFT__PHASE_BACKWARD);
        bool loss_forward = (op->kind->flags & PEFT__OPF_LOSS) != 0 && p->training && s < p->n_forward;
        if (loss_forward) { continue; } /* runs in the backward pass */
        if (p->steps[s].phase == PEFT__PHASE_FORWARD) { p->forward_flops += f; }
        if (p->steps[s].phase == PEFT__PHASE_REBUILD) { p->rebuild_flops += f; }
        if (p->steps[s].phase == PEFT__PHASE_BACKWARD) { p->backward_flops += f; }
    }
}

/* Rebuilds the first n layers' segments (the last ones are in memory when the backward pass begins anyway). */
static peft_status plan_try(plan_build *b, int32_t n, size_t *bytes) {
    peft_status st = PEFT_OK;
    peft__plan *p = b->p;
    for (int32_t s = 0; s < p->segments; s++) { p->recompute[s] = s >= 1 && s <= n; }
    p->recomputed = n;
    plan_drop(b->t, p, b->al, false);
    TRY(plan_schedule(b));
    TRY(peft__plan_place(p, b->t, b->al));
    *bytes = peft__plan_bytes(p);
out:
    return st;
}

/* The fewest rebuilt segments that fit, by bisection: bytes fall as more are rebuilt. */
static peft_status plan_fit(plan_build *b, size_t limit) {
    peft_status st = PEFT_OK;
    size_t bytes = 0;
    TRY(plan_try(b, 0, &bytes));
    if (limit == 0 || bytes <= limit) { goto out; }
    int32_t layers = b->p->training ? PEFT__MAX(b->p->segments - 2, 0) : 0;
    TRY(plan_try(b, layers, &bytes));
    if (bytes > limit) {
        b->p->least_bytes = bytes;
        FAIL(PEFT_E_NOMEM, "the memory limit leaves %zu bytes for activations and scratch, and this batch needs at least %zu",
             limit, bytes);
    }
    int32_t low = 0, high = layers; /* low does not fit, high does */
    while (high - low > 1) {
        int32_t mid = low + (high - low) / 2;
        TRY(plan_try(b, mid, &bytes));
        if (bytes <= limit) { high = mid; } else { low = mid; }
    }
    TRY(plan_try(b, high, &bytes));
out:
    return st;
}

#ifndef PEFT_MINIMAL
bool peft__compute_bf16(const peft__optset *opts, const peft__kernels *k) {
    const char *type = peft__opt_str(opts, "compute_dtype");
    return strcmp(type, "bfloat16") == 0 || (strcmp(type, "auto") == 0 && k->tile_bf16 != NULL);
}
#endif

static void plan_scratch(peft__plan *p, const peft__tape *t, const peft__kernels *k, int32_t workers, int64_t head_dim) {
    int64_t keys = p->caps.max_length + t->virtual_tokens + t->prefix_tokens;
    keys = PEFT__MAX(keys, p->caps.max_source_length + t->source_virtual + t->prefix_tokens);
    p->scratch_bytes = peft__scratch_size(k, head_dim, keys) * (size_t)workers;
#ifndef PEFT_MINIMAL
    p->scratch_bytes += p->caps.bf16 ? PEFT__ROUNDED_BYTES : 0;
#endif
    for (size_t i = 0; i < t->ops.len; i++) {
        const peft__op *op = peft__tape_op(t, (int32_t)i);
        if (op->kind->scratch == NULL) { continue; }
        size_t n = op->kind->scratch(t, op, &p->caps);
        size_t *most = (op->kind->flags & PEFT__OPF_LOSS) != 0 ? &p->loss_bytes : &p->op_scratch_bytes;
        *most = PEFT__MAX(*most, (n + 63) & ~(size_t)63);
    }
}

/* The tables of n values; peft__plan_free gives back what is there. */
static peft_status plan_tables(peft__plan *p, peft__mem *mem, size_t n) {
    p->place = peft__alloc(mem, n * sizeof(size_t));
    p->rebuilt_place = peft__alloc(mem, n * sizeof(size_t));
    p->grad_place = peft__alloc(mem, n * sizeof(size_t));
    p->dropped = peft__alloc_zero(mem, n * sizeof(bool));
    p->recompute = peft__alloc_zero(mem, (size_t)p->segments * sizeof(bool));
    p->kept = peft__alloc_zero(mem, (size_t)p->segments * sizeof(size_t));
#ifndef PEFT_MINIMAL
    if (p->caps.pack) {
        p->packed = peft__alloc(mem, n * sizeof(int32_t));
        p->packed_place = peft__alloc(mem, n * sizeof(size_t));
        if (p->packed == NULL || p->packed_place == NULL) { return PEFT_E_NOMEM; }
    }
#endif
    bool all = p->place != NULL && p->rebuilt_place != NULL && p->grad_place != NULL && p->dropped != NULL && p->recompute != NULL;
    return all && p->kept != NULL ? PEFT_OK : PEFT_E_NOMEM;
}

peft_status peft__plan_make(peft__plan *p, peft__mem *mem, const peft__tape *t, const peft__caps *caps, size_t limit,
                            const peft__kernels *k, int32_t workers, int64_t head_dim) {
    peft_status st = PEFT_OK;
    size_t n = t->values.len;
    plan_build b;
    peft__aliases al = {NULL, NULL};
    memset(p, 0, sizeof *p);
    memset(&b, 0, sizeof b);
    p->mem = mem;
    p->caps = *caps;
    p->training = t->training;
    p->n_values = (int64_t)n;
    p->segments = t->segments;
    b.t = t;
    b.p = p;
    b.al = &al;
    peft__vec_init(&b.steps, mem, sizeof(peft__plan_step));
    b.rebuilt = peft__alloc_zero(mem, n * sizeof(bool));
    al.data = peft__alloc(mem, n * sizeof(int32_t));
    al.grad = peft__alloc(mem, n * sizeof(int32_t));
    TRY(plan_tables(p, mem, n));
    if (b.rebuilt == NULL || al.data == NULL || al.grad == NULL) { st = PEFT_E_NOMEM; goto out; }
    peft__plan_alias(t, &al);
    plan_scratch(p, t, k, workers, head_dim);
    TRY(plan_fit(&b, limit));
    plan_cost(p, t);
    p->steps = peft__alloc(mem, b.steps.len * sizeof(peft__plan_step)); /* exactly as many: peft__plan_free knows the size */
    if (p->steps == NULL) { st = PEFT_E_NOMEM; goto out; }
    memcpy(p->steps, b.steps.data, b.steps.len * sizeof(peft__plan_step));
out:
    if (st != PEFT_OK) { p->steps = NULL; p->n_steps = 0; }
    peft__vec_free(&b.steps);
    peft__free(mem, b.rebuilt, n * sizeof(bool));
    peft__free(mem, al.data, n * sizeof(int32_t));
    peft__free(mem, al.grad, n * sizeof(int32_t));
    if (st != PEFT_OK) {
        size_t least = p->least_bytes;
        peft__plan_free(p);
        p->least_bytes = least;
    }
    return st;
}

void peft__plan_free(peft__plan *p) {
    if (p->mem == NULL) { return; }
    size_t n = (size_t)p->n_values;
    peft__free(p->mem, p->steps, (size_t)p->n_steps * sizeof(peft__plan_step));
    peft__free(p->mem, p->place, n * sizeof(size_t));
    peft__free(p->mem, p->rebuilt_place, n * sizeof(size_t));
    peft__free(p->mem, p->grad_place, n * sizeof(size_t));
    peft__free(p->mem, p->dropped, n * sizeof(bool));
#ifndef PEFT_MINIMAL
    peft__free(p->mem, p->packed, n * sizeof(int32_t));
    peft__free(p->mem, p->packed_place, n * sizeof(size_t));
#endif
    peft__free(p->mem, p->recompute, (size_t)p->segments * sizeof(bool));
    peft__free(p->mem, p->kept, (size_t)p->segments * sizeof(size_t));
    memset(p, 0, sizeof *p);
}

size_t peft__plan_bytes(const peft__plan *p) { return p->block_bytes + p->scratch_bytes + p->op_scratch_bytes; }
