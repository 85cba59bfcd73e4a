/* options.c - fuzzes options by their text: a schema's number or name, then lines "key=text", or JSON objects.
 *
 * The first byte is the schema's number from 'A'. What a set says of itself, another one takes and says again. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { OPTIONS_ROOM = 1 << 16 };

static void options_line(peft_options *o, char *line) {
    char *value = strchr(line, '=');
    if (line[0] == '{') {
        (void)fuzz_status(peft_options_set_json(o, line, strlen(line)));
    } else if (value != NULL) {
        *value++ = '\0';
        (void)fuzz_status(peft_options_set_text(o, line, value));
        if (value[0] == 's') { (void)fuzz_status(peft_options_set_str(o, line, value + 1)); }
        if (value[0] == 'i') { (void)fuzz_status(peft_options_set_int(o, line, atoll(value + 1))); }
        if (value[0] == 'f') { (void)fuzz_status(peft_options_set_float(o, line, strtod(value + 1, NULL))); }
        if (value[0] == 'b') { (void)fuzz_status(peft_options_set_bool(o, line, value[1])); }
    }
}

/* The text of a set into another one, and what that says. */
static void options_copy(peft_context *ctx, const char *schema, const char *from, char to[OPTIONS_ROOM]) {
    peft_options *other = NULL;
    fuzz_good(peft_options_create(ctx, schema, &other));
    fuzz_good(peft_options_set_json(other, from, strlen(from)));
    fuzz_good(peft_options_get_json(other, to, OPTIONS_ROOM, NULL));
    peft_options_free(other);
}

/* Escapes in lists given as texts are brought to one form by the first copy. */
static void options_again(peft_context *ctx, const char *schema, const peft_options *o) {
    static char first[OPTIONS_ROOM], second[OPTIONS_ROOM];
    if (fuzz_status(peft_options_get_json(o, first, sizeof first, NULL)) != PEFT_OK) { return; }
    options_copy(ctx, schema, first, second);
    options_copy(ctx, schema, second, first);
    fuzz_check(strcmp(first, second) == 0, "a set takes what it says, and says it again");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes in = {data, size};
    uint8_t number = fuzz_byte(&in);
    peft_context *ctx = fuzz_context(16 << 20);
    peft_options *o = NULL;
    char *text = fuzz_text(in);
    const char *schema = peft_schema_name(number >= 'A' ? (size_t)(number - 'A') : 0);
    if (fuzz_status(peft_options_create(ctx, schema != NULL ? schema : text, &o)) == PEFT_OK) {
        for (char *line = text, *next; line != NULL; line = next) {
            next = strchr(line, '\n');
            if (next != NULL) { *next++ = '\0'; }
            options_line(o, line);
        }
        if (schema != NULL) { options_again(ctx, schema, o); }
    }
    peft_options_free(o);
    fuzz_context_end(ctx);
    free(text);
    return 0;
}
