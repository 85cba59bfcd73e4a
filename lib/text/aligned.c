/* aligned.c - a text of which every byte knows its place: the bytes of the text as given that it was made from.
 *
 * Normalising and putting spaces in front go through it, so that a token's place in the caller's text comes out at the end.
 * Places cost eight bytes a byte and are kept only where somebody asks for them. */
#include "text/parts.h"

void peft__aligned_init(peft__aligned *a, peft__mem *mem, bool placed) {
    peft__str_init(&a->text, mem);
    peft__vec_init(&a->places, mem, sizeof(peft__place));
    a->placed = placed;
}

void peft__aligned_free(peft__aligned *a) {
    peft__str_free(&a->text);
    peft__vec_free(&a->places);
}

void peft__aligned_clear(peft__aligned *a) {
    peft__str_clear(&a->text);
    a->places.len = 0;
}

peft_status peft__aligned_put(peft__aligned *a, const char *s, size_t len, peft__place place) {
    peft__str_put(&a->text, s, len);
    if (!a->placed) { return a->text.failed ? peft__str_status(&a->text) : PEFT_OK; }
    for (size_t i = 0; i < len; i++) {
        peft_status st = peft__vec_push(&a->places, &place);
        if (st != PEFT_OK) { return st; }
    }
    return peft__str_status(&a->text);
}

peft_status peft__aligned_copy(peft__aligned *a, const char *s, size_t len, size_t from) {
    peft__place none = {0, 0};
    if (!a->placed) { return peft__aligned_put(a, s, len, none); }
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t n = peft__utf8_read(s + i, len - i, &cp);
        n = n == 0 ? 1 : n;
        peft_status st = peft__aligned_put(a, s + i, n, (peft__place){(uint32_t)(from + i), (uint32_t)(from + i + n)});
        if (st != PEFT_OK) { return st; }
        i += n;
    }
    return PEFT_OK;
}

peft__place peft__aligned_at(const peft__aligned *a, size_t i) {
    peft__place none = {0, 0};
    return a->placed ? PEFT__VEC_AT(&a->places, peft__place, i) : none;
}
