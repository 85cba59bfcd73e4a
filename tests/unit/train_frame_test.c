/* train_frame_test.c - rows to frames: the shift of labels, weights, positions, virtual tokens, and what does not fit. */
#include "runner.h"
#include "train/train.h"

static const int32_t frame_ids[] = {5, 6, 7, 8}, frame_labels[] = {5, -100, 7, 9};
static const float frame_weights[] = {1, 2, 3, 4};

TEST(train_frame_shifts_labels) {
    peft__mem *mem = runner_mem();
    peft__caps caps = {.max_rows = 3, .max_tokens = 9, .max_length = 5};
    peft__frame_room r;
    CHECK_OK(peft__frame_room_create(&r, mem, &caps));
    peft__frame_begin(&r);
    CHECK(peft__frame_add(&r, frame_ids, frame_labels, NULL, 4, 11));
    CHECK(peft__frame_add(&r, frame_ids, NULL, NULL, 2, 12)); /* without labels: all but the first */
    CHECK(peft__frame_add(&r, frame_ids, NULL, NULL, 1, 13));
    const int32_t labels[] = {-100, 7, 9, -100, 6, -100, -100}, ids[] = {5, 6, 7, 8, 5, 6, 5};
    const int32_t positions[] = {0, 1, 2, 3, 0, 1, 0};
    const int64_t offsets[] = {0, 4, 6, 7};
    const uint64_t keys[] = {11, 12, 13};
    CHECK_MEM(r.frame.labels, labels, sizeof labels);
    CHECK_MEM(r.frame.ids, ids, sizeof ids);
    CHECK_MEM(r.frame.positions, positions, sizeof positions);
    CHECK_MEM(r.frame.offsets[PEFT__SPACE_TOKENS], offsets, sizeof offsets);
    CHECK_MEM(r.frame.offsets[PEFT__SPACE_INPUT], offsets, sizeof offsets);
    CHECK_MEM(r.frame.row_keys, keys, sizeof keys);
    CHECK_INT(r.frame.n_rows, 3);
    CHECK_INT(r.frame.count[PEFT__SPACE_TOKENS], 7);
    CHECK_INT(r.frame.count[PEFT__SPACE_ROWS], 3);
    CHECK_INT(peft__frame_labelled(&r), 3);
    CHECK(r.frame.weights == NULL);
    peft__frame_begin(&r);
    CHECK_INT(r.frame.n_rows, 0);
    CHECK_INT(r.frame.count[PEFT__SPACE_TOKENS], 0);
    peft__frame_room_free(&r);
}

TEST(train_frame_weights) {
    peft__mem *mem = runner_mem();
    peft__caps caps = {.max_rows = 2, .max_tokens = 8, .max_length = 8};
    peft__frame_room r;
    CHECK_OK(peft__frame_room_create(&r, mem, &caps));
    peft__frame_begin(&r);
    CHECK(peft__frame_add(&r, frame_ids, NULL, frame_weights, 3, 0));
    CHECK(peft__frame_add(&r, frame_ids, NULL, NULL, 2, 1)); /* ones beside the weights of another row */
    const float weights[] = {2, 3, 1, 1, 1};
    CHECK_MEM(r.frame.weights, weights, sizeof weights);
    peft__frame_room_free(&r);
}

TEST(train_frame_caps) {
    peft__mem *mem = runner_mem();
    peft__caps caps = {.max_rows = 2, .max_tokens = 6, .max_length = 4};
    peft__frame_room r;
    int32_t five[5] = {1, 2, 3, 4, 5};
    CHECK_OK(peft__frame_room_create(&r, mem, &caps));
    CHECK_INT(atomic_load(&mem->now), peft__frame_room_bytes(&caps));
    peft__frame_begin(&r);
    CHECK(!peft__frame_add(&r, five, NULL, NULL, 5, 0)); /* longer than a row may be */
    CHECK(peft__frame_add(&r, five, NULL, NULL, 4, 0));
    CHECK(!peft__frame_add(&r, five, NULL, NULL, 3, 1)); /* more tokens than there is room for */
    CHECK(peft__frame_add(&r, five, NULL, NULL, 2, 1));
    CHECK(!peft__frame_add(&r, five, NULL, NULL, 0, 2)); /* a third row */
    CHECK_INT(r.frame.n_rows, 2);
    CHECK_INT(r.frame.count[PEFT__SPACE_INPUT], 6);
    peft__frame_room_free(&r);
    peft__frame_room_free(&r);
}

/* Two virtual tokens before each row; a label of the first token is what the last virtual one must say. */
TEST(train_frame_virtual_tokens) {
    peft__mem *mem = runner_mem();
    peft__caps caps = {.max_rows = 2, .max_tokens = 6, .max_length = 4, .virtual_tokens = 2, .position_shift = 3};
    peft__frame_room r;
    CHECK_OK(peft__frame_room_create(&r, mem, &caps));
    CHECK_INT(atomic_load(&mem->now), peft__frame_room_bytes(&caps));
    peft__frame_begin(&r);
    CHECK(peft__frame_add(&r, frame_ids, frame_labels, frame_weights, 4, 0));
    CHECK(peft__frame_add(&r, frame_ids, NULL, NULL, 2, 1));
    const int32_t labels[] = {-100, 5, -100, 7, 9, -100, -100, -100, 6, -100};
    const int32_t positions[] = {3, 4, 5, 6, 7, 8, 3, 4, 5, 6};
    const float weights[] = {1, 1, 2, 3, 4, 1, 1, 1, 1, 1};
    const int64_t input[] = {0, 4, 6}, tokens[] = {0, 6, 10};
    CHECK_MEM(r.frame.labels, labels, sizeof labels);
    CHECK_MEM(r.frame.positions, positions, sizeof positions);
    CHECK_MEM(r.frame.weights, weights, sizeof weights);
    CHECK_MEM(r.frame.offsets[PEFT__SPACE_INPUT], input, sizeof input);
    CHECK_MEM(r.frame.offsets[PEFT__SPACE_TOKENS], tokens, sizeof tokens);
    CHECK_INT(r.frame.count[PEFT__SPACE_TOKENS], 10);
    peft__frame_room_free(&r);
}

TEST(train_frame_without_memory) {
    peft__mem *mem = runner_mem();
    peft__caps caps = {.max_rows = 2, .max_tokens = 6, .max_length = 4};
    peft__frame_room r;
    for (size_t n = 1; n <= 7; n++) {
        peft__mem_fail_after(mem, n, true);
        CHECK_STATUS(peft__frame_room_create(&r, mem, &caps), PEFT_E_NOMEM);
        CHECK_INT(atomic_load(&mem->now), 0);
    }
    peft__mem_fail_after(mem, 0, false);
}
