#!/usr/bin/env python3
"""Writes lib/text/unicode_tables.h: Unicode classes, lower case and (de)composition as compact arrays.

Usage: tools/gen_unicode.py > lib/text/unicode_tables.h
The data are those of Python's unicodedata; its version is written into the header. Which controls, marks and punctuation
BERT's normaliser knows, what lower case is and which compatibility characters are taken apart is asked of Hugging Face's
package tokenizers (0.22), character by character, because it goes by other versions of Unicode.
"""
import unicodedata

from tokenizers import normalizers, pre_tokenizers

LIMIT = 0x110000
PRIVATE = 0xF0000  # from here on all is private use; unicode.c knows
# The property White_Space: unicodedata has no name for it, and str.isspace() adds four controls.
SPACES = set([*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])


CLEAN = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
STRIP = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
ACCENTS = normalizers.StripAccents()
LOWER = normalizers.Lowercase()
NFKD = normalizers.NFKD()
BERT = pre_tokenizers.BertPreTokenizer()
ALPHABETIC_SYMBOLS = [*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)]


def char_kind(cp):
    """Numbered as UNI_* in unicode.c."""
    if cp in SPACES:
        return 3
    c = chr(cp)
    category = unicodedata.category(c)
    if category[0] == "L":
        return 1
    if category[0] == "N":
        return 11 if category == "No" else 2
    if category[0] == "P":
        return 4 if cp < 128 or len(BERT.pre_tokenize_str("a" + c + "b")) == 3 else 8
    if category[0] == "M" and len(BERT.pre_tokenize_str("a" + c + "b")) == 3:
        return 13
    if category[0] == "M":
        return 5 if STRIP.normalize_str("a" + c) == "a" else 6 if ACCENTS.normalize_str("a" + c) == "a" else 9
    if category in ("Cc", "Cf", "Co"):
        return 7 if CLEAN.normalize_str("a" + c + "b") == "ab" else 0
    if category[0] == "S" and cp >= 128 and len(BERT.pre_tokenize_str("a" + c + "b")) == 3:
        return 10
    return 12 if cp in ALPHABETIC_SYMBOLS else 0


def is_surrogate(cp):
    return 0xD800 <= cp <= 0xDFFF


def rows(values, fmt="%d", width=116):
    line = "   "
    for v in values:
        item = " " + fmt % v + ","
        if len(line) + len(item) > width:
            print(line)
            line = "   "
        line += item
    print(line)


def array(ctype, name, dims, values, fmt="%d"):
    print("static const %s %s%s = {" % (ctype, name, dims))
    rows(values, fmt)
    print("};\n")


def class_tables():
    """Three stages: which stretch each 512 code points are, which block each 32 of a stretch are, then 4 bits a code point. The
    tail of equal stretches is cut."""
    kinds = [0 if is_surrogate(c) else char_kind(c) for c in range(PRIVATE)]
    blocks, stretches = {}, {}
    index = [blocks.setdefault(tuple(kinds[i : i + 32]), len(blocks)) for i in range(0, PRIVATE, 32)]
    top = [stretches.setdefault(tuple(index[i : i + 16]), len(stretches)) for i in range(0, len(index), 16)]
    zero = stretches.get(tuple([blocks.get(tuple([0] * 32))] * 16))
    while top and top[-1] == zero:
        top.pop()
    print("enum { UNICODE_BLOCKS = %d, UNICODE_STRETCHES = %d, UNICODE_TOP = %d };\n" % (len(blocks), len(stretches), len(top)))
    array("uint8_t", "unicode_top", "[UNICODE_TOP]", top)
    array("uint16_t", "unicode_index", "[UNICODE_STRETCHES * 16]", [b for s in sorted(stretches, key=stretches.get) for b in s])
    flat = [b[i] | b[i + 1] << 4 for b in sorted(blocks, key=blocks.get) for i in range(0, 32, 2)]
    array("uint8_t", "unicode_block", "[UNICODE_BLOCKS * 16]", flat)


def nfc_tables():
    combining, decomp, comp = [], [], []
    run = None
    for cp in range(LIMIT):
        if is_surrogate(cp):
            continue
        ccc = unicodedata.combining(chr(cp))
        if run and run[1] == cp - 1 and run[2] == ccc:
            run[1] = cp
        else:
            if run and run[2]:
                combining.append(tuple(run))
            run = [cp, cp, ccc]
        text = unicodedata.decomposition(chr(cp))
        if text and not text.startswith("<"):
            parts = [int(x, 16) for x in text.split()]
            decomp.append((cp, parts[0], parts[1] if len(parts) > 1 else 0))
            if len(parts) == 2 and unicodedata.normalize("NFC", chr(parts[0]) + chr(parts[1])) == chr(cp):
                comp.append((parts[0], parts[1], cp))
    comp.sort()
    print("/* first, last, combining class (not 0) */")
    print("enum { UNICODE_CCC = %d, UNICODE_DECOMP = %d, UNICODE_COMP = %d };\n" % (len(combining), len(decomp), len(comp)))
    array("uint32_t", "unicode_ccc", "[UNICODE_CCC * 3]", [v for row in combining for v in row], "0x%X")
    print("/* character, first and second part (0: none) of its canonical decomposition, one step; without Hangul */")
    array("uint32_t", "unicode_decomp", "[UNICODE_DECOMP * 3]", [v for row in decomp for v in row], "0x%X")
    print("/* first part, second part, primary composite */")
    array("uint32_t", "unicode_comp", "[UNICODE_COMP * 3]", [v for row in comp for v in row], "0x%X")


def lower_table():
    """Runs of capitals: first, last, step, distance to the small letter (as a signed number)."""
    runs = []
    for cp in range(LIMIT):
        small = None if is_surrogate(cp) else LOWER.normalize_str(chr(cp))
        if small is None or len(small) != 1 or ord(small) == cp:
            continue
        delta = ord(small) - cp
        last = runs[-1] if runs else None
        if last and last[3] == delta and (cp - last[1] == last[2] or (last[0] == last[1] and cp - last[1] <= 2)):
            last[2] = cp - last[1]
            last[1] = cp
        else:
            runs.append([cp, cp, 1, delta])
    print("/* first, last, step, distance of the small letters; without U+0130, which becomes two characters */")
    print("enum { UNICODE_LOWER = %d };\n" % len(runs))
    array("int32_t", "unicode_lower", "[UNICODE_LOWER * 4]", [v for row in runs for v in row])


def compat_tables():
    rows_, pool = [], []
    for cp in range(LIMIT):
        if is_surrogate(cp):
            continue
        full = NFKD.normalize_str(chr(cp))
        canonical = unicodedata.normalize("NFD", chr(cp))
        if full == canonical or unicodedata.normalize("NFKD", chr(cp)) == canonical:
            continue
        codes = [ord(c) for c in full]
        assert len(codes) < 32 and max(codes) < 0x10000
        at = next((i for i in range(len(pool) - len(codes) + 1) if pool[i:i + len(codes)] == codes), len(pool))
        if at == len(pool):
            pool += codes
        rows_ += [cp, at << 5 | len(codes)]
    print("/* character; place << 5 | length of its whole compatibility decomposition in the pool */")
    print("enum { UNICODE_COMPAT = %d, UNICODE_POOL = %d };\n" % (len(rows_) // 2, len(pool)))
    array("uint32_t", "unicode_compat", "[UNICODE_COMPAT * 2]", rows_, "0x%X")
    array("uint16_t", "unicode_pool", "[UNICODE_POOL]", pool, "0x%X")


print("/* unicode_tables.h - generated by tools/gen_unicode.py from Unicode %s: do not edit.\n *" % unicodedata.unidata_version)
print(" * Kinds: stretch of each 512 code points, block of each 32 of it, then 4 bits a code point (low half first), numbered as UNI_* in")
print(" * unicode.c. Left out: every other property. */")
print("#ifndef PEFT_TEXT_UNICODE_TABLES_H\n#define PEFT_TEXT_UNICODE_TABLES_H\n\n#include <stdint.h>\n\n/* clang-format off */")
class_tables()
nfc_tables()
lower_table()
compat_tables()
print("/* clang-format on */\n\n#endif")
