#!/bin/sh
# run.sh - each system call for a file fails once, in each way that it can (run.py, inject.c). Linux and glibc; needs python3.
# The last line is "N passed, N failed". BUILD, PEFT and CC as in the Makefile.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build} PEFT=${PEFT:-$BUILD/peft} CC=${CC:-cc}
work=$(mktemp -d "${TMPDIR:-/tmp}/libpeft-faults-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
[ -x "$PEFT" ] || make -s BUILD="$BUILD" || exit 1
"$CC" -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O1 -Iinclude -Ilib -o "$work/torture" tests/torture/torture.c \
    "$BUILD/libpeft.a" -pthread -lm && "$CC" -std=c11 -O1 -Wall -Wextra -fPIC -shared -o "$work/inject.so" tests/faults/inject.c -ldl &&
    "$work/torture" model "$work/model" llama 3 && "$work/torture" rows "$work/rows.jsonl" 6 5 || {
    echo "0 passed, 1 failed"
    exit 1
}
exec_path=$(cd "$(dirname "$PEFT")" && pwd)/$(basename "$PEFT")
python3 tests/faults/run.py "$exec_path" "$work/inject.so" "$work"
