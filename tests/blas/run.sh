#!/bin/sh
# run.sh - the kernels "blas" over OpenBLAS: kernel tests beside all other tables, training with them on 1, 2 and 4 threads beside the
# CPU's own, and that nobody has them who did not ask. From the project's root; BUILD is the default build, whose tool is compared
# with, and BUILD/blas the other. Installs libopenblas-dev where it can and must. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
CC=${CC:-cc}
with=$BUILD/blas
base=examples/demo/base/model.gguf
unset PEFT_THREADS PEFT_ISA
unset OPENBLAS_NUM_THREADS OPENBLAS_CORETYPE
passed=0
failed=0
tmp=$(mktemp -d "${TMPDIR:-/tmp}/peft-blas.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$tmp/log" 2>&1; then
        passed=$((passed + 1)) && echo "ok $name"
    else
        failed=$((failed + 1)) && echo "not ok $name" && tail -n 20 "$tmp/log" | sed 's/^/    /'
    fi
}
links() { echo 'void cblas_sgemm(void); int main(void) { cblas_sgemm(); }' >"$tmp/a.c" && $CC "$tmp/a.c" -lopenblas -o "$tmp/a"; }
openblas() {
    links 2>/dev/null && return 0
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libopenblas-dev && links
}
counted() { # PROGRAM...: adds up what it counts
    "$@" >"$tmp/counted" 2>&1
    grep -E -A 4 '^(not ok|FAIL)' "$tmp/counted"
    line=$(tail -n 1 "$tmp/counted")
    case $line in
        '0 passed, '*) failed=$((failed + 1)) && echo "not ok: no test of $*" ;;
        *' passed, '*' failed') passed=$((passed + ${line%% *})) failed=$((failed + $(echo "$line" | cut -d' ' -f3))) ;;
        *) failed=$((failed + 1)) && echo "not ok $1 ended without a count" ;;
    esac
    echo "$*: $line"
}
# train OUT ISA THREADS: on a model of floats, in rows long enough for products that are a BLAS's
train() {
    PEFT_ISA=$2 "$with/peft" train --model "$tmp/model.gguf" --data "$tmp/train.jsonl" --out "$tmp/$1" --threads "$3" --quiet \
        --json-log "$tmp/$1.log" --set max_steps=5 --set batch_size=2 --set target_modules=all-linear --set r=40
}
same() { cmp "$tmp/$1/adapter_model.safetensors" "$tmp/$2/adapter_model.safetensors"; }
losses() { sed -n 's/.*"loss": *\([-+0-9.eE]*\).*/\1/p' "$tmp/$1.log"; }
near_losses() {
    losses "$1" >"$tmp/one"
    losses "$2" >"$tmp/two"
    paste "$tmp/one" "$tmp/two" | awk '{ d = $1 - $2; d = d < 0 ? -d : d; if ($1 == "" || d > 1e-4 * $1) bad = 1; n++ }
        END { exit bad || n != 5 }' || { paste "$tmp/one" "$tmp/two"; return 1; }
}
differ() { ! same "$1" "$2" >/dev/null; }
needs() { nm -D --undefined-only "$1/libpeft.so" | grep -q 'cblas_sgemm$'; }
lacks() { nm -D --undefined-only "$1/libpeft.so" >"$tmp/names" && ! grep -qi blas "$tmp/names"; }
refused() {
    PEFT_ISA=blas "$BUILD/peft" eval --model "$base" --data "$tmp/train.jsonl" 2>"$tmp/err"
    [ $? -eq 2 ] && grep -q 'unknown kernels "blas"' "$tmp/err"
}
not_chosen() { "$with/peft" bench --model "$base" --seq 16 --seconds 1 --threads 1 --json | grep -qE '"kernels": "(generic|avx[0-9a-z]*|neon)"'; }

awk 'BEGIN {
    for (row = 0; row < 10; row++) {
        line = "{\"input_ids\": ["
        for (i = 0; i < 200; i++) line = line (i ? ", " : "") (3 + (row * 7 + i * (1 + row % 3)) % 997)
        print line "]}"
    }
}' >"$tmp/train.jsonl"
check "OpenBLAS" openblas
check "the default build" make CC="$CC" BUILD="$BUILD" all
check "a build with BLAS=openblas" make CC="$CC" STRICT=1 BLAS=openblas BUILD="$with" all "$with/tests/unit"
check "the library calls it" needs "$with"
check "the default library does not" lacks "$BUILD"
check "which refuses the name" refused
check "nor is it chosen where it is built" not_chosen
[ -x "$with/tests/unit" ] && counted "$with/tests/unit" --filter kernels_
check "a model of floats" "$with/peft" merge --model "$base" --out "$tmp/model.gguf" --set dtype=float32
check "training with the CPU's own" train own auto 2
for n in 1 2 4; do check "training with a BLAS, $n threads" train "blas$n" blas "$n"; done
check "the same bits on 1 and 2 threads" same blas1 blas2
check "and on 4" same blas1 blas4
check "the same losses as the CPU's own" near_losses own blas1
check "by other sums" differ own blas1
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
