/* tok_dump.c - a tokenizer on the command line, for comparison with other libraries.
 *
 *   tok_dump ids <tokenizer> [flags]     JSON texts on stdin, one a line; their ids as JSON lists on stdout
 *   tok_dump text <tokenizer> [flags]    JSON lists of ids on stdin; the texts on stdout
 *   tok_dump pair <tokenizer> [flags]    {"a": text or words, "b": the same or null, "max", "truncate", "stride", "window"}
 *                                        a line; [[id, type, part, word, start, end], ...] on stdout, or {"error": true}
 *   tok_dump chat <tokenizer>            {"messages": [...], "prompt": bool} a line; {"text", "spans"} on stdout
 *   tok_dump gguf|hf <tokenizer> <path>  exports it to a GGUF without tensors, or into a folder
 *   tok_dump time <tokenizer> <text file> seconds to open, and megabytes a second of encoding
 *
 * flags: PEFT_TOKENIZE_* as a number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/text.h"

static int tok_dump_fail(void) {
    fprintf(stderr, "%s\n", peft__fail_text());
    return 1;
}

static peft_status dump_ids(peft__mem *mem, const peft__tokenizer *t, const peft__json *node, int32_t flags) {
    peft__vec ids;
    peft__vec_init(&ids, mem, sizeof(int32_t));
    peft_status st = peft__tokenizer_encode(t, node->str, node->len, flags, &ids);
    putchar('[');
    for (size_t i = 0; st == PEFT_OK && i < ids.len; i++) {
        printf("%s%d", i ? "," : "", (int)PEFT__VEC_AT(&ids, int32_t, i));
    }
    puts("]");
    peft__vec_free(&ids);
    return st;
}

/* Decodes at once and one by one; both must agree. */
static peft_status dump_text(peft__mem *mem, const peft__tokenizer *t, const peft__json *node, int32_t flags) {
    peft_status st = PEFT_OK;
    peft__vec ids;
    peft__str whole, parts, line;
    peft__detok d;
    peft__json_out j;
    peft__vec_init(&ids, mem, sizeof(int32_t));
    peft__str_init(&whole, mem);
    peft__str_init(&parts, mem);
    peft__str_init(&line, mem);
    peft__detok_init(&d, t, flags);
    for (size_t i = 0; i < node->len; i++) {
        int32_t id = (int32_t)node->items[i].i;
        TRY(peft__vec_push(&ids, &id));
        TRY(peft__detok_put(&d, id, &parts));
    }
    TRY(peft__detok_end(&d, &parts));
    TRY(peft__tokenizer_decode(t, ids.data, ids.len, flags, &whole));
    if (whole.len != parts.len || (whole.len > 0 && memcmp(whole.data, parts.data, whole.len) != 0)) {
        FAIL(PEFT_E_INTERNAL, "the streamed text differs: \"%s\", not \"%s\"", peft__str_c(&parts),
             peft__str_c(&whole));
    }
    peft__json_begin(&j, &line, 0);
    peft__json_put_str(&j, peft__str_c(&whole), whole.len);
    puts(peft__str_c(&line));
out:
    peft__vec_free(&ids);
    peft__str_free(&whole);
    peft__str_free(&parts);
    peft__str_free(&line);
    return st;
}

enum { DUMP_WORDS = 512 };

typedef struct dump_words {
    const char *words[DUMP_WORDS];
    size_t lens[DUMP_WORDS];
} dump_words;

static peft__text_in dump_text_in(const peft__json *node, dump_words *room) {
    peft__text_in in = {0};
    if (node->kind == PEFT__JSON_STRING) {
        in.text = node->str;
        in.len = node->len;
        return in;
    }
    in.words = room->words;
    in.word_lens = room->lens;
    for (size_t i = 0; i < node->len && i < DUMP_WORDS; i++, in.n_words++) {
        room->words[i] = node->items[i].str;
        room->lens[i] = node->items[i].len;
    }
    return in;
}

static size_t dump_number(const peft__json *node, const char *key) {
    const peft__json *n = peft__json_find(node, key);
    return n == NULL ? 0 : (size_t)n->i;
}

static peft_status dump_pair(peft__mem *mem, const peft__tokenizer *t, const peft__json *node, int32_t flags) {
    static dump_words rooms[2];
    const peft__json *b = peft__json_find(node, "b");
    peft__text_in first = dump_text_in(peft__json_find(node, "a"), &rooms[0]), second = {0};
    if (b != NULL) { second = dump_text_in(b, &rooms[1]); }
    peft__pair_rule rule = {flags, dump_number(node, "max"), (int32_t)dump_number(node, "truncate"),
                            dump_number(node, "stride"), dump_number(node, "window")};
    peft__vec out;
    peft__vec_init(&out, mem, sizeof(peft__encoded));
    peft_status st = peft__tokenizer_encode_pair(t, &first, b == NULL ? NULL : &second, &rule, &out, NULL);
    if (st == PEFT_OK) {
        putchar('[');
        for (size_t i = 0; i < out.len; i++) {
            const peft__encoded *x = &PEFT__VEC_AT(&out, peft__encoded, i);
            printf("%s[%d,%d,%d,%d,%zu,%zu]", i ? "," : "", (int)x->id, (int)x->type, (int)x->part, (int)x->word, x->start,
                   x->end);
        }
        puts("]");
    } else {
        puts("{\"error\": true}");
    }
    peft__vec_free(&out);
    return PEFT_OK;
}

static peft_status dump_chat(peft__mem *mem, const peft__tokenizer *t, const peft__json *node) {
    peft_status st = PEFT_OK;
    peft__chat_message m[64];
    peft__str text, line;
    peft__vec spans;
    peft__json_out j;
    const peft__json *list = peft__json_find(node, "messages"), *prompt = peft__json_find(node, "prompt");
    size_t n = list->len < 64 ? list->len : 64;
    peft__str_init(&text, mem);
    peft__str_init(&line, mem);
    peft__vec_init(&spans, mem, sizeof(size_t));
    for (size_t i = 0; i < n; i++) {
        const peft__json *role = peft__json_find(&list->items[i], "role"),
                         *content = peft__json_find(&list->items[i], "content");
        m[i] = (peft__chat_message){role->str, content->str, role->len, content->len};
    }
    TRY(peft__chat_render(t, m, n, prompt->truth, &text, &spans));
    peft__json_begin(&j, &line, 0);
    peft__json_object(&j);
    peft__json_key(&j, "text");
    peft__json_put_str(&j, peft__str_c(&text), text.len);
    peft__json_key(&j, "spans");
    peft__json_array(&j);
    for (size_t i = 0; i < spans.len; i++) { peft__json_put_int(&j, (int64_t)PEFT__VEC_AT(&spans, size_t, i)); }
    peft__json_array_end(&j);
    peft__json_object_end(&j);
    puts(peft__str_c(&line));
out:
    peft__str_free(&text);
    peft__str_free(&line);
    peft__vec_free(&spans);
    return st;
}

static peft_status dump_lines(peft__mem *mem, const peft__tokenizer *t, const char *mode, int32_t flags) {
    peft_status st = PEFT_OK;
    size_t cap = 0;
    char *line = NULL;
    peft__arena a;
    for (ssize_t n; st == PEFT_OK && (n = getline(&line, &cap, stdin)) > 0;) {
        const peft__json *node = NULL;
        peft__arena_init(&a, mem);
        st = peft__json_parse(&a, line, (size_t)n, "stdin", &node);
        if (st == PEFT_OK) {
            st = strcmp(mode, "ids") == 0    ? dump_ids(mem, t, node, flags)
                 : strcmp(mode, "pair") == 0 ? dump_pair(mem, t, node, flags)
                 : strcmp(mode, "chat") == 0 ? dump_chat(mem, t, node)
                                             : dump_text(mem, t, node, flags);
        }
        peft__arena_free(&a);
    }
    free(line);
    return st;
}

static peft_status dump_time(peft__mem *mem, const peft__tokenizer *t, double opened, const char *path) {
    peft_status st = PEFT_OK;
    peft__file file = {0};
    peft__vec ids;
    peft__vec_init(&ids, mem, sizeof(int32_t));
    TRY(peft__file_open(mem, path, true, &file));
    double start = peft__clock();
    TRY(peft__tokenizer_encode(t, (const char *)file.data, file.size, 0, &ids));
    double seconds = peft__clock() - start;
    printf("open %.4f s, encode %.2f MB/s, %zu bytes, %zu ids\n", opened, (double)file.size / 1e6 / seconds, file.size,
           ids.len);
out:
    peft__vec_free(&ids);
    peft__file_close(&file);
    return st;
}

static peft_status dump_gguf(peft__mem *mem, const peft__tokenizer *t, const char *path) {
    peft__gguf_out w;
    peft__gguf_out_init(&w, mem);
    peft__gguf_put_text(&w, "general.architecture", "llama", 5);
    peft_status st = peft__tokenizer_to_gguf(t, 0, &w);
    if (st == PEFT_OK) { st = peft__gguf_write(&w, mem, path, NULL, 0); }
    peft__gguf_out_free(&w);
    return st;
}

int main(int argc, char **argv) {
    peft__mem mem;
    peft__tokenizer *t = NULL;
    peft__str info;
    if (argc < 3) { return 2; }
    peft__mem_init(&mem, NULL);
    double start = peft__clock();
    peft_status st = peft__tokenizer_open(&mem, argv[2], &t);
    double opened = peft__clock() - start;
    if (st != PEFT_OK) { return tok_dump_fail(); }
    if (strcmp(argv[1], "info") == 0) {
        peft__str_init(&info, &mem);
        st = peft__tokenizer_info(t, &info);
        puts(peft__str_c(&info));
        peft__str_free(&info);
    } else if (strcmp(argv[1], "time") == 0 && argc > 3) {
        st = dump_time(&mem, t, opened, argv[3]);
    } else if (strcmp(argv[1], "gguf") == 0 && argc > 3) {
        st = dump_gguf(&mem, t, argv[3]);
    } else if (strcmp(argv[1], "hf") == 0 && argc > 3) {
        st = peft__tokenizer_to_hf(t, argv[3]);
    } else {
        st = dump_lines(&mem, t, argv[1], argc > 3 ? atoi(argv[3]) : 0);
    }
    peft__tokenizer_free(t);
    return st == PEFT_OK ? 0 : tok_dump_fail();
}
