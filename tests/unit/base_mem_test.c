/* The allocator: alignment, accounting, the failing seam, a host's allocator; the arena; checked arithmetic. */
#include "base/system.h"
#include "runner.h"

#include <stdlib.h>

TEST(base_mem_blocks_are_aligned_and_counted) {
    peft__mem *mem = runner_mem();
    size_t sizes[] = {0, 1, 63, 64, 65, 4095, 1000000};
    void *blocks[PEFT__COUNT(sizes)];
    size_t sum = 0;
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) {
        blocks[i] = peft__alloc(mem, sizes[i]);
        CHECK(blocks[i] != NULL);
        CHECK_INT((uintptr_t)blocks[i] % 64, 0);
        memset(blocks[i], 0xAB, sizes[i]);
        sum += sizes[i];
        CHECK_INT(atomic_load(&mem->now), sum);
    }
    CHECK_INT(atomic_load(&mem->calls), PEFT__COUNT(sizes));
    for (size_t i = 0; i < PEFT__COUNT(sizes); i++) { peft__free(mem, blocks[i], sizes[i]); }
    CHECK_INT(atomic_load(&mem->now), 0);
    CHECK_INT(atomic_load(&mem->peak), sum);
    peft__mem_reset_peak(mem);
    CHECK_INT(atomic_load(&mem->peak), 0);
    peft__free(mem, NULL, 100);
    CHECK_INT(atomic_load(&mem->now), 0);
}

TEST(base_mem_large_blocks_lie_on_two_mebibytes) {
    peft__mem *mem = runner_mem();
    size_t size = (4u << 20) + 5000;
    char *p = peft__alloc_zero(mem, size);
    CHECK(p != NULL);
    CHECK_INT((uintptr_t)p % (2u << 20), 0);
    for (size_t i = 0; i < size; i += 4096) { CHECK_INT(p[i], 0); }
    CHECK_INT(p[size - 1], 0);
    peft__free(mem, p, size);
}

TEST(base_mem_realloc_keeps_content_and_survives_failure) {
    peft__mem *mem = runner_mem();
    char *p = peft__realloc(mem, NULL, 0, 5);
    CHECK(p != NULL);
    memcpy(p, "abcde", 5);
    p = peft__realloc(mem, p, 5, 1000);
    CHECK_MEM(p, "abcde", 5);
    CHECK_INT(atomic_load(&mem->now), 1000);
    peft__mem_fail_after(mem, 1, false);
    CHECK(peft__realloc(mem, p, 1000, 2000) == NULL);
    CHECK_MEM(p, "abcde", 5);
    CHECK_INT(atomic_load(&mem->now), 1000);
    p = peft__realloc(mem, p, 1000, 3);
    CHECK_MEM(p, "abc", 3);
    peft__free(mem, p, 3);
}

TEST(base_mem_seam_fails_the_nth_or_all_after) {
    peft__mem *mem = runner_mem();
    for (int every = 0; every < 2; every++) {
        peft__mem_fail_after(mem, 3, every);
        for (int i = 1; i <= 5; i++) {
            void *p = peft__alloc(mem, 16);
            CHECK_INT(p == NULL, i == 3 || (every && i > 3));
            peft__free(mem, p, 16);
        }
    }
    peft__mem_fail_after(mem, 0, false);
    void *p = peft__alloc(mem, 16);
    CHECK(p != NULL);
    peft__free(mem, p, 16);
}

TEST(base_mem_failure_names_the_bytes) {
    peft__mem *mem = runner_mem();
    void *keep = peft__alloc(mem, 10);
    peft__mem_fail_after(mem, 1, false);
    CHECK(peft__alloc(mem, 12345) == NULL);
    CHECK_STR(peft__fail_text(), "out of memory: 12345 bytes asked for, 10 in use");
    CHECK(peft__alloc(mem, SIZE_MAX) == NULL);
    CHECK(peft__alloc_zero(mem, SIZE_MAX - 4) == NULL);
    CHECK_INT(atomic_load(&mem->now), 10);
    peft__free(mem, keep, 10);
}

typedef struct mem_host {
    size_t allocs, releases, last_size, last_align;
} mem_host;

static void *mem_host_alloc(void *user, size_t size, size_t align) {
    mem_host *h = user;
    h->allocs++;
    h->last_size = size;
    h->last_align = align;
    return peft__sys_alloc(size, align, false);
}

static void mem_host_release(void *user, void *p, size_t size) {
    mem_host *h = user;
    h->releases++;
    h->last_size = size;
    peft__sys_free(p);
}

TEST(base_mem_host_gets_the_same_size_back) {
    mem_host h = {0};
    peft_allocator host = {mem_host_alloc, mem_host_release, &h};
    peft__mem mem;
    peft__mem_init(&mem, &host);
    void *p = peft__alloc(&mem, 77);
    CHECK_INT(h.last_size, 77);
    CHECK_INT(h.last_align, 64);
    h.last_size = 0;
    peft__free(&mem, p, 77);
    CHECK_INT(h.last_size, 77);
    p = peft__alloc(&mem, 0);
    CHECK_INT(h.last_size, 1);
    peft__free(&mem, p, 0);
    CHECK_INT(h.allocs, 2);
    CHECK_INT(h.releases, 2);
}

TEST(base_mem_checked_arithmetic) {
    size_t out = 7;
    CHECK(peft__mul(3, 5, &out));
    CHECK_INT(out, 15);
    CHECK(peft__mul(SIZE_MAX, 1, &out));
    CHECK(peft__mul(SIZE_MAX, 0, &out) && out == 0);
    CHECK(peft__mul(0, SIZE_MAX, &out) && out == 0);
    out = 7;
    CHECK(!peft__mul(SIZE_MAX / 2 + 1, 2, &out));
    CHECK(!peft__mul(SIZE_MAX / 3, SIZE_MAX / 5, &out));
    CHECK_INT(out, 7);
    CHECK(peft__add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    out = 7;
    CHECK(!peft__add(SIZE_MAX, 1, &out));
    CHECK_INT(out, 7);
}

TEST(base_arena_blocks_are_zeroed_aligned_and_apart) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__arena_init(&a, mem);
    static char *blocks[500];
    for (size_t i = 0; i < 500; i++) {
        size_t size = i * i % 977;
        blocks[i] = peft__arena_alloc(&a, size);
        CHECK(blocks[i] != NULL);
        CHECK_INT((uintptr_t)blocks[i] % 16, 0);
        for (size_t k = 0; k < size; k++) { CHECK_INT(blocks[i][k], 0); }
        memset(blocks[i], (int)(i % 251 + 1), size);
    }
    for (size_t i = 0; i < 500; i++) {
        for (size_t k = 0; k < i * i % 977; k++) { CHECK_INT((unsigned char)blocks[i][k], i % 251 + 1); }
    }
    CHECK(atomic_load(&mem->calls) < 20); /* few chunks, not a block each */
    peft__arena_free(&a);
    CHECK_INT(atomic_load(&mem->now), 0);
    CHECK(peft__arena_alloc(&a, 10) != NULL); /* usable again */
    peft__arena_free(&a);
}

TEST(base_arena_large_block_leaves_the_chunk_in_use) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__arena_init(&a, mem);
    char *small = peft__arena_alloc(&a, 16);
    CHECK(peft__arena_alloc(&a, 1000000) != NULL);
    char *next = peft__arena_alloc(&a, 16);
    CHECK_INT(next - small, 16);
    CHECK_INT(atomic_load(&mem->calls), 2);
    CHECK(peft__arena_alloc(&a, SIZE_MAX - 8) == NULL);
    CHECK_ERROR_HAS("out of memory");
    peft__arena_free(&a);
    peft__arena_init(&a, mem); /* a large block first */
    CHECK(peft__arena_alloc(&a, 1000000) != NULL);
    CHECK(peft__arena_alloc(&a, 16) != NULL);
    peft__arena_free(&a);
}

TEST(base_arena_texts) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__arena_init(&a, mem);
    CHECK_STR(peft__arena_strdup(&a, "abcdef", 3), "abc");
    CHECK_STR(peft__arena_strdup(&a, NULL, 0), "");
    CHECK_MEM(peft__arena_strdup(&a, "a\0b", 3), "a\0b", 4);
    CHECK_STR(peft__arena_printf(&a, "layer.%d.%s", 12, "q"), "layer.12.q");
    char *wide = peft__arena_printf(&a, "%5000d", 1);
    CHECK_INT(strlen(wide), 5000);
    CHECK(peft__arena_strdup(&a, "x", SIZE_MAX) == NULL);
    peft__arena_free(&a);
}

TEST(base_arena_survives_failing_allocations) {
    peft__mem *mem = runner_mem();
    peft__arena a;
    peft__arena_init(&a, mem);
    for (size_t n = 1; n <= 3; n++) {
        peft__mem_fail_after(mem, n, true);
        size_t got = 0;
        while (peft__arena_alloc(&a, 600)) { got++; }
        CHECK(got < 100);
        CHECK(peft__arena_printf(&a, "%9000d", 3) == NULL);
        CHECK_ERROR_HAS("out of memory");
        peft__mem_fail_after(mem, 0, false);
        CHECK(peft__arena_alloc(&a, 600) != NULL);
        peft__arena_free(&a);
    }
}
