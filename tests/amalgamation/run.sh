#!/bin/sh
# run.sh - the library as two files (make amalgamation): one compiler call without flags, no warnings from two compilers, names
# that stay inside, the unit tests, the tool's contract, and the same bits as the normal build. BUILD and CC as in the Makefile; the
# normal build is in BUILD. From the project's root. Ends with `N passed, N failed`.
#
# The unit tests use internal names, which is why these keep external linkage (hidden from other libraries) instead of `static`.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
CC=${CC:-cc}
export PEFT_TEST_FEW=1 # the normal build has looked at all
out=$BUILD/amalgamation
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$tmp/log" 2>&1; then
        passed=$((passed + 1)) && echo "ok $name"
    else
        failed=$((failed + 1)) && echo "not ok $name" && sed 's/^/    /' "$tmp/log" | tail -n 20
    fi
}
counted() { # PROGRAM...: adds up what it counts
    "$@" >"$tmp/counted" 2>&1
    grep -E '^(not ok|FAIL)' "$tmp/counted"
    line=$(tail -n 1 "$tmp/counted")
    case $line in
        *' passed, '*' failed') passed=$((passed + ${line%% *})) failed=$((failed + $(echo "$line" | cut -d' ' -f3))) ;;
        *) failed=$((failed + 1)) && echo "not ok $1 ended without a count" ;;
    esac
    echo "$1 $2: $line"
}
# Two writings are equal, nothing of ours is left to include but peft.h, and no line numbers of others.
written() {
    make CC="$CC" BUILD="$BUILD" amalgamation && sh tools/amalgamate.sh "$tmp/again" && cmp "$out/peft.c" "$tmp/again/peft.c" &&
        [ "$(grep '^# *include *"' "$out/peft.c" | grep -cv '"simde_')" -eq 1 ] && grep -q '^#include "peft.h"$' "$out/peft.c" &&
        ! grep '^# *line' "$out/peft.c" && make -s MINIMAL=1 BUILD="$tmp/small" amalgamation
}
clean() { # COMPILER FLAG FILE: what the compiler says without optimising is all that clang says
    "$1" -Wall -Wextra -Werror $2 -fsyntax-only "$3"
}
# One call, from another folder, no flags but warnings as errors.
one_call() { (cd "$out" && "$CC" -O2 -Wall -Wextra -Werror -c peft.c); }
one_call_small() {
    "$CC" -O1 -I"$tmp/small/amalgamation" -o "$tmp/small/e2e" tests/minimal/end_to_end.c "$tmp/small/amalgamation/peft.c" -lm -pthread
}
defined() { readelf -sW "$1" | awk '$5 == "GLOBAL" && $6 == "DEFAULT" && $7 != "UND" {print $8}' | LC_ALL=C sort; }
# Nothing of it is visible outside, unless it is to be a shared library: then what libpeft.map lists.
nothing_leaves() { [ "$(readelf -sW "$out/peft.o" | grep -c ' HIDDEN .*peft_')" -ge 500 ] && [ -z "$(defined "$out/peft.o")" ]; }
exports() {
    "$CC" -O0 -fPIC -DPEFT_BUILD -c -o "$tmp/shared.o" "$out/peft.c" && "$CC" -shared -o "$tmp/libpeft.so" "$tmp/shared.o" -lm -pthread &&
        nm -D --defined-only "$tmp/libpeft.so" | awk '{print $3}' | LC_ALL=C sort >"$tmp/names" &&
        sed -n '/^global:/,/^local:/s/^ *\(peft_[a-z0-9_]*\);$/\1/p' lib/libpeft.map | LC_ALL=C sort | diff - "$tmp/names"
}
tool() {
    "$CC" -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O1 -I"$out" -o "$out/peft" examples/peft/*.c "$out/peft.o" \
        -lm -pthread
}
quickstart() { "$CC" -O1 -I"$out" -o "$out/quickstart" examples/quickstart.c "$out/peft.o" -lm -pthread; }
train() { # TOOL FOLDER
    "$1" train --model examples/demo/base/model.gguf --data examples/demo/train.jsonl --out "$2" --set max_steps=6 --set r=8 \
        --set target_modules=all-linear --set use_dora=true --quiet
}
same_training() {
    train "$BUILD/peft" "$tmp/a" && train "$out/peft" "$tmp/b" &&
        cmp "$tmp/a/adapter_model.safetensors" "$tmp/b/adapter_model.safetensors" &&
        cmp "$tmp/a/adapter_config.json" "$tmp/b/adapter_config.json"
}
same_quickstart() {
    "$BUILD/quickstart" examples/demo/base/model.gguf "$tmp/qa" >"$tmp/a.txt" &&
        "$out/quickstart" examples/demo/base/model.gguf "$tmp/qb" >"$tmp/b.txt" &&
        [ -s "$tmp/a.txt" ] && cmp "$tmp/a.txt" "$tmp/b.txt" && cmp "$tmp/qa/adapter_model.safetensors" "$tmp/qb/adapter_model.safetensors"
}
same_small() {
    "$BUILD/peft" merge --model examples/demo/base/model.gguf --adapter "$tmp/a" --out "$tmp/model" &&
        "$CC" -Iinclude -o "$tmp/full" tests/minimal/end_to_end.c "$BUILD/libpeft.a" -lm -pthread &&
        "$tmp/full" "$tmp/model" "$tmp/ea" generic >"$tmp/a.txt" && "$tmp/small/e2e" "$tmp/model" "$tmp/eb" generic >"$tmp/b.txt" &&
        cmp "$tmp/a.txt" "$tmp/b.txt" && cmp "$tmp/ea/adapter_model.safetensors" "$tmp/eb/adapter_model.safetensors"
}
unit() { "$CC" -o "$out/unit" "$BUILD"/obj/tests/unit/*.o "$BUILD/obj/tests/runner.o" "$out/peft.o" -lm -pthread; }
double_unit() {
    "$CC" -O1 -DPEFT_DOUBLE -c -o "$tmp/double.o" "$out/peft.c" &&
        "$CC" -o "$out/double" "$BUILD"/obj/tests-double/double/*.o "$BUILD/obj/tests-double/runner.o" "$tmp/double.o" -lm -pthread
}

check "the normal build" make CC="$CC" BUILD="$BUILD" all "$BUILD/tests/unit" "$BUILD/tests/double"
check "peft.c and peft.h" written
(one_call >"$tmp/one_call" 2>&1 && : >"$tmp/one_call.ok") & # the longest, beside all that follows
for compiler in gcc clang; do
    check "$compiler has no warning" clean $compiler "" "$out/peft.c"
    check "$compiler has no warning, double" clean $compiler -DPEFT_DOUBLE "$out/peft.c"
    check "$compiler has no warning, PEFT_MINIMAL" clean $compiler -DPEFT_MINIMAL "$out/peft.c"
    check "$compiler has no warning, minimal" clean $compiler -std=c11 "$tmp/small/amalgamation/peft.c"
done
check "a library's exports" exports
check "the double tests link" double_unit
check "the minimal one, with a program in one call" one_call_small
wait
check "one call, no warning" test -e "$tmp/one_call.ok"
[ -e "$tmp/one_call.ok" ] || cat "$tmp/one_call"
check "nothing leaves" nothing_leaves
check "the tool" tool
check "the quickstart" quickstart
check "the same bits, training" same_training
check "the same bits, quickstart" same_quickstart
check "the same bits, minimal" same_small
check "the unit tests link" unit
[ -x "$out/unit" ] && counted "$out/unit" ""
[ -x "$out/double" ] && counted "$out/double" ""
# The tool itself is the same as ever: its own tests over the single file are for long runs.
[ -n "${AMALGAMATION_ALL:-}" ] && [ -x "$out/peft" ] && counted bash tests/cli/run.sh "$out/peft"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
