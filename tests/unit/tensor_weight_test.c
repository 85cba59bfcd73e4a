/* tensor_weight_test.c - views of stored rows: plain, transposed, a column range, rows in pair order; as numbers and as
 * operands of the matrix product. */
#include "runner.h"
#include "tensor/tensor.h"

static const peft__kernels *weight_kernels(void) { return &peft__kernels_generic; }

static peft__weight weight_plain(const float *data, int64_t rows, int64_t cols) {
    peft__weight w;
    memset(&w, 0, sizeof w);
    w.name = "w";
    w.data = (const uint8_t *)data;
    w.dtype = PEFT_DTYPE_F32;
    w.rows = rows;
    w.cols = cols;
    w.row_bytes = cols * 4;
    return w;
}

TEST(tensor_dtype_table) {
    CHECK_INT(peft__dtype_bytes(PEFT_DTYPE_Q4_K, 512), 288);
    CHECK_INT(peft__dtype_bytes(PEFT_DTYPE_BF16, 3), 6);
    CHECK_INT(peft__dtype_elems(PEFT_DTYPE_Q8_0), 32);
    CHECK_INT(peft__dtype_block_bytes(99), 0);
    CHECK_INT(peft__dtype_elems(99), 0);
    CHECK_STR(peft__dtype_name(PEFT_DTYPE_Q6_K), "Q6_K");
    CHECK_STR(peft__dtype_name(99), "?");
}

TEST(tensor_weight_transposed_reads_as_its_transpose) {
    enum { OUT = 300, IN = 5 }; /* more than one piece of 256 */
    static float stored[IN * OUT];
    static peft__real out[OUT * IN], row[IN];
    for (int32_t i = 0; i < IN * OUT; i++) { stored[i] = (float)i; }
    peft__weight w = weight_plain(stored, OUT, IN);
    w.transposed = true;
    w.row_bytes = OUT * 4;
    peft__weight_read(weight_kernels(), &w, out);
    for (int32_t r = 0; r < OUT; r++) {
        peft__weight_row(weight_kernels(), &w, r, row);
        for (int32_t c = 0; c < IN; c++) {
            CHECK_NEAR(out[r * IN + c], stored[c * OUT + r], 0);
            CHECK_NEAR(row[c], stored[c * OUT + r], 0);
        }
    }
}

TEST(tensor_weight_first_takes_columns) {
    static float x[2 * 96];
    static uint8_t stored[2 * 3 * 34];
    static peft__real whole[2 * 96], part[2 * 32];
    for (int32_t i = 0; i < 192; i++) { x[i] = (float)(i * 7 % 31) - 15.0f; }
    CHECK_OK(peft__quantise(PEFT_DTYPE_Q8_0, x, 192, stored));
    peft__weight w;
    memset(&w, 0, sizeof w);
    w.data = stored;
    w.dtype = PEFT_DTYPE_Q8_0;
    w.rows = 2;
    w.cols = 96;
    w.row_bytes = 102;
    peft__weight_read(weight_kernels(), &w, whole);
    w.first = 32;
    w.cols = 32;
    peft__weight_read(weight_kernels(), &w, part);
    for (int32_t r = 0; r < 2; r++) { CHECK_MEM(part + r * 32, whole + r * 96 + 32, 32 * sizeof *part); }
}

TEST(tensor_weight_pair_order_is_undone) {
    enum { D = 6, ROWS = 12, COLS = 2 };
    float plain[ROWS * COLS], paired[ROWS * COLS];
    peft__real out[ROWS * COLS];
    /* what llama.cpp's converter does: a head's [2, D/2] rows become [D/2, 2] */
    for (int32_t h = 0; h < ROWS / D; h++) {
        for (int32_t j = 0; j < 2; j++) {
            for (int32_t i = 0; i < D / 2; i++) {
                for (int32_t c = 0; c < COLS; c++) {
                    int32_t from = h * D + j * (D / 2) + i, to = h * D + 2 * i + j;
                    plain[from * COLS + c] = paired[to * COLS + c] = (float)(from * 10 + c);
                    CHECK_INT(peft__pair_row(D, from), to);
                    CHECK_INT(peft__unpair_row(D, to), from);
                }
            }
        }
    }
    peft__weight w = weight_plain(paired, ROWS, COLS);
    w.interleave = D;
    peft__weight_read(weight_kernels(), &w, out);
    for (int32_t i = 0; i < ROWS * COLS; i++) { CHECK_NEAR(out[i], plain[i], 0); }
}

/* y = x W' and dx = dy W through the operand, against the definition over the read matrix. */
static void weight_products(const peft__weight *w) {
    enum { N = 8, K = 4, M = 3 };
    peft__real read[N * K], x[M * K], y[M * N], dx[M * K];
    peft__mem *mem = runner_mem();
    peft__pool *pool = NULL;
    CHECK_OK(peft__pool_create(mem, 1, &pool));
    size_t size = peft__scratch_size(weight_kernels(), 64, 64);
    peft__run run = {weight_kernels(), pool, 1, peft__alloc(mem, size), size, NULL};
    CHECK(run.scratch != NULL);
    for (int32_t i = 0; i < M * K; i++) { x[i] = PEFT__R(i % 5 - 2); }
    peft__weight_read(weight_kernels(), w, read);
    peft__gemm_args g;
    memset(&g, 0, sizeof g);
    g.m = M;
    g.n = N;
    g.k = K;
    g.a = x;
    g.lda = K;
    g.b = peft__weight_forward(w);
    g.c = y;
    g.ldc = N;
    g.alpha = 1;
    peft__gemm(&run, &g);
    for (int32_t i = 0; i < M * N; i++) {
        double sum = 0;
        for (int32_t k = 0; k < K; k++) { sum += (double)x[i / N * K + k] * (double)read[i % N * K + k]; }
        CHECK_NEAR(y[i], sum, 1e-4);
    }
    g.n = K;
    g.k = N;
    g.a = y;
    g.lda = N;
    g.b = peft__weight_backward(w);
    g.c = dx;
    g.ldc = K;
    peft__gemm(&run, &g);
    for (int32_t i = 0; i < M * K; i++) {
        double sum = 0;
        for (int32_t n = 0; n < N; n++) { sum += (double)y[i / K * N + n] * (double)read[n * K + i % K]; }
        CHECK_NEAR(dx[i], sum, 1e-3);
    }
    peft__free(mem, run.scratch, size);
    peft__pool_free(pool);
}

TEST(tensor_weight_operands) {
    float data[32];
    for (int32_t i = 0; i < 32; i++) { data[i] = (float)(i * 5 % 13) - 6.0f; }
    peft__weight plain = weight_plain(data, 8, 4), paired = plain, turned = plain;
    paired.interleave = 4;
    turned.transposed = true;
    turned.row_bytes = 8 * 4;
    weight_products(&plain);
    weight_products(&paired);
    weight_products(&turned);
}
