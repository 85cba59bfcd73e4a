#!/bin/sh
# amalgamation.sh - all sources compile as one file: names of static functions, types and macros are unique in lib/.
sed 's|.*|#include "&"|' lib/sources.txt |
    ${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O0 -ffp-contract=off -Iinclude -Ilib -Wall -Wextra \
        -Werror -fsyntax-only -x c -
