/* str, vec and map, each also with no memory; the rule of output buffers. */
#include "runner.h"

#include <stdio.h>

TEST(base_str_puts_all_kinds) {
    peft__mem *mem = runner_mem();
    peft__str s;
    peft__str_init(&s, mem);
    CHECK_STR(peft__str_c(&s), "");
    CHECK_OK(peft__str_status(&s));
    peft__str_puts(&s, "a");
    peft__str_putc(&s, ',');
    peft__str_put(&s, "bcd", 2);
    peft__str_put(&s, NULL, 0);
    peft__str_putf(&s, "[%d|%s]", -5, "x");
    peft__str_putd(&s, 0.1, 17);
    CHECK_STR(peft__str_c(&s), "a,bc[-5|x]0.1");
    CHECK_INT(s.len, 13);
    peft__str_clear(&s);
    CHECK_STR(peft__str_c(&s), "");
    for (int i = 0; i < 1000; i++) { peft__str_putf(&s, "%03d", i); }
    CHECK_INT(s.len, 3000);
    CHECK_MEM(peft__str_c(&s) + 2997, "999", 4);
    peft__str_put(&s, "\0z", 2);
    CHECK_INT(s.len, 3002);
    peft__str_free(&s);
    CHECK_STR(peft__str_c(&s), "");
}

TEST(base_str_remembers_a_failed_put) {
    peft__mem *mem = runner_mem();
    peft__str s;
    peft__str_init(&s, mem);
    peft__str_puts(&s, "kept");
    peft__mem_fail_after(mem, 1, false);
    char big[500];
    memset(big, 'b', sizeof big);
    peft__str_put(&s, big, sizeof big);
    peft__str_puts(&s, "ignored"); /* there would be memory again, but a hole in the text is worse than none */
    peft__str_putf(&s, "%d", 1);
    CHECK_STR(peft__str_c(&s), "kept");
    CHECK_STATUS(peft__str_status(&s), PEFT_E_NOMEM);
    peft__str_clear(&s);
    CHECK_OK(peft__str_status(&s));
    peft__str_puts(&s, "again");
    CHECK_STR(peft__str_c(&s), "again");
    peft__str_put(&s, "x", SIZE_MAX - 3);
    CHECK_STATUS(peft__str_status(&s), PEFT_E_NOMEM);
    CHECK_STR(peft__str_c(&s), "again");
    peft__str_free(&s);
}

TEST(base_copy_out_follows_the_buffer_rule) {
    char buf[8] = "zzzzzzz";
    size_t needed = 0;
    CHECK_STATUS(peft__copy_out("hello", 5, NULL, 0, &needed), PEFT_E_BUFFER);
    CHECK_INT(needed, 6);
    CHECK_STATUS(peft__copy_out("hello", 5, buf, 5, &needed), PEFT_E_BUFFER);
    CHECK_ERROR_HAS("has 5 bytes, 6 are needed");
    CHECK_STR(buf, "zzzzzzz");
    CHECK_OK(peft__copy_out("hello", 5, buf, 6, &needed));
    CHECK_STR(buf, "hello");
    CHECK_OK(peft__copy_out("", 0, buf, 1, NULL));
    CHECK_STR(buf, "");
    needed = 0;
    CHECK_STATUS(peft__copy_out("hello", 5, NULL, 10, &needed), PEFT_E_INVALID);
    CHECK_INT(needed, 6);
}

TEST(base_vec_grows_and_keeps_elements) {
    peft__mem *mem = runner_mem();
    peft__vec v;
    peft__vec_init(&v, mem, sizeof(int64_t));
    for (int64_t i = 0; i < 1000; i++) {
        int64_t square = i * i;
        CHECK_OK(peft__vec_push(&v, &square));
    }
    CHECK_INT(v.len, 1000);
    for (int64_t i = 0; i < 1000; i++) { CHECK_INT(PEFT__VEC_AT(&v, int64_t, i), i * i); }
    CHECK(atomic_load(&mem->calls) < 12);
    CHECK_OK(peft__vec_reserve(&v, 5000));
    CHECK_INT(v.cap, 5000);
    CHECK_OK(peft__vec_reserve(&v, 10));
    CHECK_INT(v.cap, 5000);
    CHECK_INT(v.len, 1000);
    peft__vec_free(&v);
    CHECK_INT(v.elem, 8);
}

TEST(base_vec_failure_changes_nothing) {
    peft__mem *mem = runner_mem();
    peft__vec v;
    peft__vec_init(&v, mem, 16);
    char elem[16] = "0123456789abcde";
    for (int i = 0; i < 8; i++) { CHECK_OK(peft__vec_push(&v, elem)); }
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__vec_push(&v, elem), PEFT_E_NOMEM);
    CHECK_INT(v.len, 8);
    CHECK_STATUS(peft__vec_reserve(&v, SIZE_MAX / 4), PEFT_E_NOMEM);
    CHECK_ERROR_HAS("elements of 16 bytes");
    CHECK_OK(peft__vec_push(&v, elem));
    CHECK_MEM((char *)v.data + 128, elem, 16);
    peft__vec_free(&v);
}

TEST(base_map_finds_what_was_put) {
    peft__mem *mem = runner_mem();
    peft__map m;
    peft__map_init(&m, mem);
    CHECK_INT(peft__map_get(&m, "a", 1), -1);
    static char keys[3000][16];
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "key.%d", i);
        CHECK_OK(peft__map_put(&m, keys[i], strlen(keys[i]), i * 3));
    }
    for (int i = 0; i < 3000; i++) { CHECK_INT(peft__map_get(&m, keys[i], strlen(keys[i])), i * 3); }
    CHECK_INT(m.len, 3000);
    CHECK_INT(m.cap, 4096);
    CHECK_INT(peft__map_get(&m, "key.3000", 8), -1);
    CHECK_INT(peft__map_get(&m, "key.29", 5), 6); /* only the first 5 bytes: key.2 */
    peft__map_free(&m);
    CHECK_INT(peft__map_get(&m, "key.1", 5), -1);
}

TEST(base_map_keys_are_bytes_and_unique) {
    peft__mem *mem = runner_mem();
    peft__map m;
    peft__map_init(&m, mem);
    CHECK_OK(peft__map_put(&m, "", 0, 1));
    CHECK_OK(peft__map_put(&m, "\0", 1, 2));
    CHECK_OK(peft__map_put(&m, "\0\0", 2, 3));
    CHECK_OK(peft__map_put(&m, "ab\0c", 4, INT64_MIN));
    CHECK_STATUS(peft__map_put(&m, "ab\0c", 4, 9), PEFT_E_EXISTS);
    CHECK_ERROR_HAS("\"ab");
    CHECK_INT(peft__map_get(&m, "", 0), 1);
    CHECK_INT(peft__map_get(&m, "\0", 1), 2);
    CHECK_INT(peft__map_get(&m, "\0\0", 2), 3);
    CHECK_INT(peft__map_get(&m, "ab\0c", 4), INT64_MIN);
    CHECK_INT(m.len, 4);
    peft__map_free(&m);
}

TEST(base_map_failure_changes_nothing) {
    peft__mem *mem = runner_mem();
    peft__map m;
    peft__map_init(&m, mem);
    const char *keys = "abcdefghijklmnopqrstuvwxyz";
    peft__mem_fail_after(mem, 1, false);
    CHECK_STATUS(peft__map_put(&m, keys, 1, 0), PEFT_E_NOMEM);
    CHECK_INT(m.len, 0);
    size_t n = 0;
    peft__mem_fail_after(mem, 2, true);
    while (peft__map_put(&m, keys + n, 1, (int64_t)n) == PEFT_OK) { n++; }
    CHECK_INT(n, 12);
    CHECK_STATUS(peft__map_put(&m, keys, 1, 5), PEFT_E_EXISTS); /* needs no memory */
    for (size_t i = 0; i < n; i++) { CHECK_INT(peft__map_get(&m, keys + i, 1), i); }
    CHECK_INT(peft__map_get(&m, keys + n, 1), -1);
    peft__mem_fail_after(mem, 0, false);
    CHECK_OK(peft__map_put(&m, keys + n, 1, 99));
    CHECK_INT(peft__map_get(&m, keys + n, 1), 99);
    peft__map_free(&m);
}
