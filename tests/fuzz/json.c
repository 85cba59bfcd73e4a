/* json.c - fuzzes the reader of JSON: what it takes is written and read once more, and says the same. */
#include <stdlib.h>

#include "fuzz.h"
#include "io/io.h"

static peft_status json_again(peft__mem *mem, const peft__json *node, int32_t indent, peft__str *out, peft__arena *a,
                              const peft__json **again) {
    peft__json_out j;
    peft__str_init(out, mem);
    peft__json_begin(&j, out, indent);
    peft__json_put_node(&j, node);
    fuzz_good(peft__str_status(out));
    return peft__json_parse(a, out->data, out->len, "again", again);
}

/* Typed reads of every member of the root: any status, but no other end. */
static void json_reads(const peft__json *root) {
    for (size_t i = 0; root->kind == PEFT__JSON_OBJECT && i < root->len; i++) {
        const char *key = root->keys[i].str, *text = NULL;
        int64_t whole = 0;
        double real = 0;
        bool truth = false;
        (void)fuzz_status(peft__json_int(root, "fuzz", key, 0, -5, 1 << 20, &whole));
        (void)fuzz_status(peft__json_float(root, "fuzz", key, 0, &real));
        (void)fuzz_status(peft__json_bool(root, "fuzz", key, false, &truth));
        (void)fuzz_status(peft__json_str(root, "fuzz", key, "", &text));
        fuzz_check(whole >= -5 && whole <= 1 << 20, "range of peft__json_int");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peft__mem mem;
    peft__arena a;
    peft__str first, second, pretty;
    const peft__json *root = NULL, *again = NULL;
    char *text = malloc(size + (size == 0)); /* nothing behind its end, where a sanitizer looks */
    fuzz_check(text != NULL, "no memory");
    if (size > 0) { memcpy(text, data, size); }
    peft__mem_init(&mem, NULL);
    peft__arena_init(&a, &mem);
    if (fuzz_status(peft__json_parse(&a, text, size, "fuzz", &root)) == PEFT_OK) {
        json_reads(root);
        fuzz_good(json_again(&mem, root, 0, &first, &a, &again));
        fuzz_good(json_again(&mem, again, 0, &second, &a, &root));
        fuzz_good(json_again(&mem, again, 2, &pretty, &a, &root));
        fuzz_check(first.len == second.len && memcmp(first.data, second.data, first.len) == 0, "the same when written again");
        peft__str_free(&first);
        peft__str_free(&second);
        peft__str_free(&pretty);
    }
    peft__arena_free(&a);
    free(text);
    fuzz_check(atomic_load(&mem.now) == 0, "memory was not freed");
    return 0;
}
