/* weight.c - a weight as an operand of the matrix product, and as numbers.
 *
 * A weight is a view of stored rows: [out][in] as a Linear has it, or [in][out] as GPT-2's Conv1D has it (`transposed`); a
 * column range of wider rows (`first`); rows in GGUF's pair order (`interleave`), where row h*D + j*D/2 + i of a head of D
 * rows is stored at h*D + 2i + j. Everything that reads a weight goes through here or through a peft__operand, so nothing
 * above knows how it is stored.
 *
 * Left out: writing (quantise.c) and the arithmetic of each type (kernels/). */
#include "tensor/tensor.h"

static peft__operand weight_operand(const peft__weight *w, bool trans) {
    peft__operand b;
    memset(&b, 0, sizeof b);
    b.data = w->data;
    b.dtype = w->dtype;
    b.row_bytes = w->row_bytes;
    b.trans = trans;
    b.interleave = w->interleave;
    b.heads = w->heads;
    b.part = w->heads > 0 ? (int32_t)(w->rows / (3 * w->heads)) : 0;
    b.first = w->first;
    b.frozen = true;
    return b;
}

peft__operand peft__weight_forward(const peft__weight *w) { return weight_operand(w, !w->transposed); }

peft__operand peft__weight_backward(const peft__weight *w) { return weight_operand(w, w->transposed); }

static peft__operand weight_real(const peft__real *w, int64_t cols, bool trans) {
    peft__operand b;
    memset(&b, 0, sizeof b);
    b.data = w;
    b.dtype = PEFT__DTYPE_REAL;
    b.row_bytes = cols * (int64_t)sizeof *w;
    b.trans = trans;
    return b;
}

peft__operand peft__real_forward(const peft__real *w, int64_t cols) { return weight_real(w, cols, true); }

peft__operand peft__real_backward(const peft__real *w, int64_t cols) { return weight_real(w, cols, false); }

int64_t peft__pair_row(int64_t d, int64_t r) {
    int64_t in_head = r % d;
    return r - in_head + in_head % (d / 2) * 2 + in_head / (d / 2);
}

int64_t peft__unpair_row(int64_t d, int64_t r) {
    int64_t in_head = r % d;
    return r - in_head + in_head % 2 * (d / 2) + in_head / 2;
}

int64_t peft__fused_row(int64_t heads, int64_t d, int64_t r) {
    return (r / d % 3 * heads + r / (3 * d)) * d + r % d;
}

int64_t peft__unfused_row(int64_t heads, int64_t d, int64_t r) {
    return (r / d % heads * 3 + r / (heads * d)) * d + r % d;
}

int64_t peft__weight_stored_row(const peft__weight *w, int64_t r) {
    if (w->heads > 0) { return peft__fused_row(w->heads, w->rows / (3 * w->heads), r); }
    return w->interleave == 0 ? r : peft__pair_row(w->interleave, r);
}

/* Element e (a multiple of the block) of stored row r. */
static const uint8_t *weight_at(const peft__weight *w, int64_t r, int64_t e) {
    return w->data + r * w->row_bytes + peft__dtype_bytes(w->dtype, w->first + e);
}

void peft__weight_row(const peft__kernels *k, const peft__weight *w, int64_t r, peft__real *out) {
    if (!w->transposed) {
        k->dequant(w->dtype, weight_at(w, peft__weight_stored_row(w, r), 0), w->cols, out);
        return;
    }
    for (int64_t c = 0; c < w->cols; c++) { k->dequant(w->dtype, weight_at(w, c, r), 1, out + c); }
}

/* Stored rows are columns here; they are spread by pieces that are whole blocks of every type. */
static void weight_read_transposed(const peft__kernels *k, const peft__weight *w, peft__real *out) {
    enum { PIECE = 256 };
    peft__real piece[PIECE];
    for (int64_t c = 0; c < w->cols; c++) {
        for (int64_t r = 0; r < w->rows; r += PIECE) {
            int64_t n = PEFT__MIN((int64_t)PIECE, w->rows - r);
            k->dequant(w->dtype, weight_at(w, c, r), n, piece);
            for (int64_t i = 0; i < n; i++) { out[(r + i) * w->cols + c] = piece[i]; }
        }
    }
}

void peft__weight_read(const peft__kernels *k, const peft__weight *w, peft__real *out) {
    if (w->transposed) {
        weight_read_transposed(k, w, out);
        return;
    }
    for (int64_t r = 0; r < w->rows; r++) { peft__weight_row(k, w, r, out + r * w->cols); }
}
