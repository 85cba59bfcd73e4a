#!/bin/sh
# run.sh - the minimal build: its size, the names it exports, what it lacks, the same bits as the full library from opening a model
# to generated text, and those unit tests that need nothing else (units.txt). BUILD and CC as in the Makefile; the full build is
# in BUILD. From the project's root. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
CC=${CC:-cc}
small=$BUILD/minimal
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
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}
exports() { nm -D --defined-only "$1" | awk '{print $3}' | LC_ALL=C sort; }
same_exports() {
    exports "$BUILD/libpeft.so" >"$tmp/full" && exports "$small/libpeft.so" >"$tmp/small" &&
        [ "$(grep -c '^peft_' "$tmp/full")" -ge 90 ] && diff "$tmp/full" "$tmp/small"
}
link() { # OUTPUT SOURCE ARCHIVE
    $CC -std=c11 -Wall -Wextra -Werror -Iinclude -o "$1" "$2" "$3" -lm -pthread
}
# The demo's model as a folder of Hugging Face's, which only the full library can make of it.
model() {
    "$BUILD/peft" train --model examples/demo/base/model.gguf --data examples/demo/train.jsonl --out "$tmp/one" --set max_steps=1 --quiet &&
        "$BUILD/peft" merge --model examples/demo/base/model.gguf --adapter "$tmp/one" --out "$tmp/model"
}
same_run() { # ISA
    rm -rf "$tmp/a" "$tmp/b"
    "$tmp/e2e-full" "$tmp/model" "$tmp/a" "$1" >"$tmp/a.txt" && "$tmp/e2e-small" "$tmp/model" "$tmp/b" "$1" >"$tmp/b.txt" &&
        grep -q '^step 12 loss' "$tmp/a.txt" && cmp "$tmp/a.txt" "$tmp/b.txt" &&
        cmp "$tmp/a/adapter_model.safetensors" "$tmp/b/adapter_model.safetensors" &&
        cmp "$tmp/a/adapter_config.json" "$tmp/b/adapter_config.json"
}
counted() { # PROGRAM...: adds up what it counts
    "$@" >"$tmp/counted" 2>&1
    grep -E '^(not ok|FAIL)' "$tmp/counted"
    line=$(tail -n 1 "$tmp/counted")
    case $line in
        *' passed, '*' failed') passed=$((passed + ${line%% *})) failed=$((failed + $(echo "$line" | cut -d' ' -f3))) ;;
        *) failed=$((failed + 1)) && echo "not ok $1 ended without a count" ;;
    esac
    echo "$1: $line"
}
unit() {
    mkdir -p "$small/obj/tests"
    for test in runner $(cat tests/minimal/units.txt); do
        file=tests/unit/${test}_test.c
        [ "$test" = runner ] && file=tests/runner.c
        echo "$file"
    done >"$tmp/files"
    # shellcheck disable=SC2046
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DPEFT_MINIMAL -O1 -Iinclude -Ilib -Itests -o "$small/units" \
        $(cat "$tmp/files") "$small/libpeft.a" -lm -pthread
}

check "the full build" make CC="$CC" BUILD="$BUILD" all
check "the minimal build" make CC="$CC" MINIMAL=1 STRICT=1 BUILD="$small"
counted sh tests/size.sh "$BUILD/libpeft.so" "$small/libpeft.so"
check "the same exports" same_exports
check "a model" model
check "end to end, full" link "$tmp/e2e-full" tests/minimal/end_to_end.c "$BUILD/libpeft.a"
check "end to end, minimal" link "$tmp/e2e-small" tests/minimal/end_to_end.c "$small/libpeft.a"
check "the same bits, generic" same_run generic
if grep -qw avx2 /proc/cpuinfo 2>/dev/null; then check "the same bits, avx2" same_run avx2; fi
check "lacks" link "$tmp/lacks" tests/minimal/lacks.c "$small/libpeft.a"
[ -x "$tmp/lacks" ] && counted "$tmp/lacks" "$tmp/model" examples/demo/base/model.gguf "$tmp"
check "the unit tests link" unit
[ -x "$small/units" ] && counted "$small/units"
finish
