#!/bin/bash
# run.sh - kills, starves and corrupts training runs for as long as `make check` may not. The last line is "N passed, N failed".
#
#   TORTURE_KILLS=200   kills of `peft train` at random instants, each resumed; ends must be equal byte for byte
#   TORTURE_SEED=1      of the instants and the damage
#   TORTURE_SHARD=1     a sample for CI: 10 kills, every 29th allocation, a tenth of the damage
#
# PEFT, BUILD and CC come from the Makefile.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build} PEFT=${PEFT:-build/peft} CC=${CC:-cc} SEED=${TORTURE_SEED:-1}
KILLS=${TORTURE_KILLS:-200} STRIDE=1 DAMAGE=1200
if [ "${TORTURE_SHARD:-0}" != 0 ]; then KILLS=10 STRIDE=29 DAMAGE=120; fi
passed=0 failed=0
work=$(mktemp -d "${TMPDIR:-/tmp}/libpeft-torture-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

mkdir -p "$BUILD/tests"
torture=$BUILD/tests/torture
"$CC" -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -Wall -Wextra ${EXTRA:-} -Iinclude -Ilib -o "$torture" \
    tests/torture/torture.c "$BUILD/libpeft.a" -pthread -lm || exit 1

# Adds the counts of a program's last line; a program that says none has failed.
count() {
    local last
    last=$(printf '%s\n' "$1" | tail -n 1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
}

# Gradients of all parameters of every method, of which `make check` looks at some.
if [ "${TORTURE_SHARD:-0}" = 0 ]; then
    make -s BUILD="$BUILD" "$BUILD/tests/double" && out=$(PEFT_TEST_ALL=1 "$BUILD/tests/double" --filter methods 2>&1)
    printf '%s\n' "$out"
    count "$out"
fi

for arch in llama gpt2; do
    mkdir -p "$work/$arch"
    "$torture" model "$work/$arch/model" $arch 3 && "$torture" rows "$work/$arch/rows.jsonl" 24 5 || failed=$((failed + 1))
    for method in $("$torture" methods); do
        stride=$((STRIDE * 7)) damage=$((DAMAGE / 8)) # the parts that all share are lora's and full's business
        case $method in lora | full) stride=$STRIDE damage=$DAMAGE ;; esac
        echo "starve $arch $method"
        out=$("$torture" starve "$work/$arch" "$method" $stride 2>&1)
        printf '%s\n' "$out"
        count "$out"
        case $out in *'nothing to train'*) continue ;; esac
        echo "corrupt $arch $method"
        out=$("$torture" corrupt "$work/$arch" "$method" $damage "$SEED" 2>&1)
        printf '%s\n' "$out"
        count "$out"
        rm -rf "$work/$arch/adapter" "$work/$arch/state" "$work/$arch/bad"
    done
done

# ---- kill -9 ----

RANDOM=$SEED
train() { # DIR METHOD OUT [options]
    local dir=$1 method=$2 out=$3
    shift 3
    exec "$PEFT" train --model "$dir/model" --data "$dir/rows.jsonl" --method "$method" --out "$out" --quiet --threads 2 \
        --set max_steps=60 --set batch_size=4 --set save_steps=1 --set learning_rate=1e-3 "$@"
}

# All of the result but the state, by content.
digest() {
    (cd "$1" && find . -type f ! -path './trainer/*' ! -name '*.tmp-*' | LC_ALL=C sort | while read -r f; do cksum "$f"; done)
}

kill_round() { # DIR METHOD: one run, killed again and again until it comes to its end
    local dir=$1 method=$2 out=$work/killed whole=$work/whole-$3-$2 more=() pid rc
    if [ ! -d "$whole" ]; then
        local start=$EPOCHREALTIME
        (train "$dir" "$method" "$whole") || { echo "FAIL the undisturbed run of $3 $method"; failed=$((failed + 1)); return 1; }
        span=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
    fi
    rm -rf "$out"
    while :; do
        more=()
        [ -f "$out/trainer/state.safetensors" ] && more=(--resume)
        (train "$dir" "$method" "$out" "${more[@]}") 2> "$work/stderr" &
        pid=$!
        if [ $kills -lt "$KILLS" ]; then
            local ms=$(((RANDOM * 32768 + RANDOM) % (span * 2 / 3 + 20)))
            sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
            kill -9 $pid 2> /dev/null && kills=$((kills + 1))
        fi
        wait $pid 2> /dev/null
        rc=$?
        [ $rc = 137 ] && continue
        if [ $rc = 0 ] && [ "$(digest "$out")" = "$(digest "$whole")" ]; then
            passed=$((passed + 1))
        else
            echo "FAIL kill $3 $method, after $kills kills: exit $rc, $(head -c 300 "$work/stderr")"
            failed=$((failed + 1))
            return 1
        fi
        return 0
    done
}

kills=0 span=1000
while [ $kills -lt "$KILLS" ]; do
    for arch in llama gpt2; do
        for method in lora full; do
            [ $kills -lt "$KILLS" ] && { kill_round "$work/$arch" $method $arch || break 3; }
        done
    done
done
echo "$kills kills"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
