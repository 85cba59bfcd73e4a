#!/bin/sh
# header.sh - the public header compiles alone, first and twice, in every language that may include it.
set -e
CC=${CC:-cc}
case $CC in
    *clang*) CXX=${CXX:-clang++} ;;
    *) CXX=${CXX:-c++} ;;
esac
strict="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude"
text='#include "peft.h"
#include "peft.h"
static void use(peft_context *ctx) { (void)peft_context_threads(ctx); }
void (*header_use)(peft_context *) = use;'
for std in c11 c17; do
    printf '%s\n' "$text" | $CC -std=$std -Wstrict-prototypes $strict -x c - || { echo "header: not $std"; exit 1; }
done
command -v "$CXX" > /dev/null || { echo "header: no C++ compiler, C++ not checked"; exit 0; }
for std in c++11 c++20; do
    printf '%s\n' "$text" | $CXX -std=$std $strict -x c++ - || { echo "header: not $std"; exit 1; }
done
