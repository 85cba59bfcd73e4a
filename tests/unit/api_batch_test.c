/* api_batch_test.c - peft_batch and peft_dataset through the public functions. */
#include "api_kit.h"
#include "train/train.h"

TEST(api_batch_rows) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 2, 3, 4, 5}, labels[] = {-100, 2, 3, -100, 5};
    static const float weights[] = {0, 1, 2, 1, 1};
    static const int64_t offsets[] = {0, 3, 5};
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(peft_batch_create(ctx, &b));
    CHECK_INT(peft_batch_rows(b), 0);
    CHECK_STATUS(peft_batch_set_i32(b, "labels", labels, offsets, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("\"input_ids\" come before");
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 2));
    CHECK_OK(peft_batch_set_i32(b, "labels", labels, offsets, 2));
    CHECK_OK(peft_batch_set_f32(b, "loss_weights", weights, offsets, 2));
    CHECK_INT(peft_batch_rows(b), 2);
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 1)); /* other rows: labels and weights are gone */
    CHECK_INT(peft_batch_rows(b), 1);
    CHECK_INT(b->labels.len, 0);
    CHECK_INT(b->weights.len, 0);
    peft_batch_clear(b);
    CHECK_INT(peft_batch_rows(b), 0);
    peft_context_free(ctx);
    peft_batch_free(b);
    CHECK_INT(h.now, 0);
}

TEST(api_batch_refuses) {
    peft_context *ctx = NULL;
    peft_batch *b = NULL;
    static const int32_t ids[] = {1, 2, 3}, bad[] = {1, -2, 3}, hole[] = {-100, 2, -99};
    static const float weights[] = {1, NAN, 1}, negative[] = {1, -1, 1};
    static const int64_t offsets[] = {0, 2, 3}, late[] = {1, 2, 3}, down[] = {0, 2, 1}, empty[] = {0, 3, 3},
                         other[] = {0, 1, 3};
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_STATUS(peft_batch_create(NULL, &b), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_create(ctx, NULL), PEFT_E_INVALID);
    CHECK_OK(peft_batch_create(ctx, &b));
    CHECK_STATUS(peft_batch_set_i32(NULL, "input_ids", ids, offsets, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_i32(b, NULL, ids, offsets, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", NULL, offsets, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", ids, NULL, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", ids, late, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("begin with 1");
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", ids, down, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("row 1");
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", ids, empty, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("row 1 is empty");
    CHECK_STATUS(peft_batch_set_i32(b, "input_ids", bad, offsets, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("-2");
    CHECK_STATUS(peft_batch_set_i32(b, "adapter", ids, offsets, 2), PEFT_E_KEY);
    CHECK_STATUS(peft_batch_set_i32(b, "class_labels", ids, NULL, 2), PEFT_E_KEY);
    CHECK_ERROR_HAS("row_labels");
    CHECK_ERROR_HAS("known: input_ids, ");
    CHECK_OK(peft_batch_set_i32(b, "input_ids", ids, offsets, 2));
    CHECK_STATUS(peft_batch_set_i32(b, "labels", hole, offsets, 2), PEFT_E_INVALID);
    CHECK_ERROR_HAS("-99");
    CHECK_STATUS(peft_batch_set_i32(b, "labels", ids, other, 2), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("row 0");
    CHECK_STATUS(peft_batch_set_i32(b, "labels", ids, offsets, 1), PEFT_E_SHAPE);
    CHECK_STATUS(peft_batch_set_f32(b, "loss_weights", weights, offsets, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_f32(b, "loss_weights", negative, offsets, 2), PEFT_E_INVALID);
    CHECK_STATUS(peft_batch_set_f32(b, "labels", negative, offsets, 2), PEFT_E_KEY);
    CHECK_ERROR_HAS("are integers");
    CHECK_INT(peft_batch_rows(b), 2); /* nothing of this changed it */
    CHECK_INT(peft_batch_rows(NULL), 0);
    peft_batch_clear(NULL);
    peft_batch_free(NULL);
    peft_batch_free(b);
    peft_context_free(ctx);
}

TEST(api_dataset_rows_of_every_kind) {
    api_host h = {0};
    peft_context *ctx = NULL;
    peft_tokenizer *t = NULL;
    peft_dataset *d = NULL;
    peft_batch *b = NULL;
    char text[512];
    const char *path = runner_path(runner_tmpdir(), "rows.jsonl");
    static const char rows[] = "{\"text\":\"abc ab\"}\n\n{\"prompt\":\"a\",\"completion\":\"bc\"}\n";
    static const int32_t ids[] = {1, 2, 3};
    const int64_t len = 3;
    CHECK_OK(api_context(&h, &ctx));
    CHECK_OK(api_tokenizer(ctx, TEXT_BYTES, &t));
    CHECK_OK(peft_dataset_create(ctx, t, NULL, &d));
    peft_tokenizer_free(t);
    CHECK_OK(peft__save_text(runner_mem(), path, rows, sizeof rows - 1));
    CHECK_OK(peft_dataset_load_jsonl(d, path));
    CHECK_INT(peft_dataset_size(d), 2);
    CHECK_OK(peft_dataset_add_json(d, "{\"input_ids\":[1,2]}", 19));
    CHECK_OK(api_batch(ctx, ids, &len, 1, &b));
    CHECK_OK(peft_dataset_add(d, b));
    peft_batch_free(b);
    CHECK_INT(peft_dataset_size(d), 4);
    CHECK_OK(peft_dataset_info_json(d, text, sizeof text, NULL));
    CHECK(strstr(text, "\"rows\":4") != NULL);
    CHECK_STATUS(peft_dataset_info_json(d, text, 3, NULL), PEFT_E_BUFFER);
    peft_context_free(ctx);
    peft_dataset_free(d);
    CHECK_INT(h.now, 0);
}

TEST(api_dataset_refuses) {
    peft_context *ctx = NULL;
    peft_dataset *d = NULL;
    const char *path = runner_path(runner_tmpdir(), "bad.jsonl");
    static const char rows[] = "{\"input_ids\":[1,2]}\n{\"input_ids\":[1,\n";
    CHECK_OK(peft_context_create(NULL, &ctx));
    CHECK_STATUS(peft_dataset_create(NULL, NULL, NULL, &d), PEFT_E_INVALID);
    CHECK_STATUS(peft_dataset_create(ctx, NULL, NULL, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_dataset_create(ctx, (peft_tokenizer *)(void *)ctx, NULL, &d), PEFT_E_INVALID);
    CHECK_ERROR_HAS("tokenizer is a context, expected a tokenizer");
    CHECK_OK(peft_dataset_create(ctx, NULL, NULL, &d));
    CHECK_OK(peft__save_text(runner_mem(), path, rows, sizeof rows - 1));
    CHECK_STATUS(peft_dataset_load_jsonl(d, path), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("bad.jsonl line 2");
    CHECK_INT(peft_dataset_size(d), 0);
    CHECK_STATUS(peft_dataset_load_jsonl(d, "/no/such.jsonl"), PEFT_E_NOT_FOUND);
    CHECK_STATUS(peft_dataset_load_jsonl(d, NULL), PEFT_E_INVALID);
    CHECK_STATUS(peft_dataset_load_jsonl(NULL, path), PEFT_E_INVALID);
    CHECK_STATUS(peft_dataset_add_json(d, NULL, 4), PEFT_E_INVALID);
    CHECK_STATUS(peft_dataset_add_json(d, "{}", 2), PEFT_E_FORMAT);
    CHECK_STATUS(peft_dataset_add(d, NULL), PEFT_E_INVALID);
    CHECK_INT(peft_dataset_size(NULL), 0);
    CHECK_STATUS(peft_dataset_info_json(NULL, NULL, 0, NULL), PEFT_E_INVALID);
    peft_dataset_free(NULL);
    peft_dataset_free(d);
    peft_context_free(ctx);
}
