#!/bin/bash
# run.sh - kills, starves and corrupts training runs for as long as `make check` may not. The last line is "N passed, N failed".
#
#   TORTURE_KILLS=200   kills of `peft train` at random instants, each resumed; ends must be equal byte for byte
#   TORTURE_SEED=1      of the instants and the damage
#   TORTURE_SHARD=1     a sample for CI: 40 kills, every 29th allocation, a tenth of the damage, 4,000 steps instead of 20,000
#
# PEFT, BUILD and CC come from the Makefile.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build} PEFT=${PEFT:-build/peft} CC=${CC:-cc} SEED=${TORTURE_SEED:-1}
KILLS=${TORTURE_KILLS:-200} STRIDE=1 DAMAGE=1200 STEPS=20000
if [ "${TORTURE_SHARD:-0}" != 0 ]; then KILLS=40 STRIDE=29 DAMAGE=120 STEPS=4000; fi
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

# ---- long runs: losses as in double, and what a run holds at its end as after its first tenth ----

long_runs() { # DIR
    local kind program
    make BUILD="$BUILD" "$BUILD/double/libpeft.a" >/dev/null || return 1
    for kind in float double; do
        program=$BUILD/tests/long-$kind
        "$CC" -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -Wall -Wextra ${EXTRA:-} -Iinclude -o "$program" tests/torture/long.c \
            "$BUILD/${kind#float}/libpeft.a" -pthread -lm && "$program" "$1" $STEPS >"$work/long-$kind.txt" || return 1
    done
    paste -d' ' "$work/long-float.txt" "$work/long-double.txt"
    paste -d' ' "$work/long-float.txt" "$work/long-double.txt" | awk -v growth=512 '
        $1 == "end" { ended = $2 + $4 == 0; next }
        { d = $2 / $7 - 1; worst = d < -worst ? -d : d > worst ? d : worst }
        NR == 1 { bytes = $3; files = $4; kib = $5; wide = $8 }
        { flat = (NR == 1 || flat) && $3 == bytes && $4 == files && $5 <= kib + growth && $8 == wide }
        END { print (ended && NR == 11 ? "ok" : "FAIL"), "everything was given back"
              print (flat ? "ok" : "FAIL"), "bytes and files stay as they are, the process by less than", growth, "KiB"
              print (worst < 2e-6 ? "ok" : "FAIL"), "losses are those in double precision within 2e-6:", worst }'
}
echo "long runs of $STEPS steps"
out=$(long_runs "$work/llama" 2>&1)
printf '%s\n' "$out"
ok=$(grep -c '^ok' <<<"$out")
passed=$((passed + ok)) failed=$((failed + 3 - ok))

# ---- kill -9: every method, and several adapters at once ----

RANDOM=$SEED
train() { # DIR METHOD OUT [options]
    local dir=$1 method=$2 out=$3 work=(--data "$1/rows.jsonl" --method "$2" --set max_steps=60 --set learning_rate=1e-3)
    shift 3
    case $method in
        jobs) work=(--jobs "$dir/jobs.json") ;;
        compacter*) work+=(--set reduction_factor=4) ;; # their default suits wider models
        trainable_tokens) work+=(--set token_indices=1,3,5) ;;
        union) work+=(--adapter b="$dir/b" --adapter c="$dir/c" --set parts=b,c) ;;
        fusion) work+=(--adapter b="$dir/b" --adapter c="$dir/c" --set adapters=b,c) ;;
    esac
    exec "$PEFT" train --model "$dir/model" --out "$out" --quiet --threads 2 --json-log "$out.log" \
        --set batch_size=4 --set save_steps=1 "${work[@]}" "$@"
}

# Two adapters of other methods, with their own rates and numbers of steps; two bottlenecks that a union or a fusion is made of.
more_of() { # DIR
    local dir=$1 name
    for name in b c; do (train "$dir" pfeiffer "$dir/$name" --set max_steps=2 --set seed=${#name}) || return; done
    cat >"$dir/jobs.json" <<JOBS
{"jobs": [{"name": "a", "method": "lora", "data": "$dir/rows.jsonl", "options": {"max_steps": 40, "learning_rate": 1e-3}},
          {"name": "b", "method": "pfeiffer", "data": "$dir/rows.jsonl", "share": 2, "options": {"max_steps": 60, "learning_rate": 2e-3}}]}
JOBS
}

# All of the result but the state, by content; and the log but for times, memory and what it says of the processes.
digest() {
    (cd "$1" && find . -type f ! -path '*trainer/*' ! -name '*.tmp-*' | LC_ALL=C sort | while read -r f; do cksum "$f"; done)
    sed -E 's/, "run": \{.*\}, "loss"/, "loss"/; s/"[a-z_]*(second|time|memory|bytes)[a-z_]*": ?[0-9.e+-]+,? ?//g' "$1.log"
}

kill_round() { # DIR METHOD ARCH MOST: one run, killed up to MOST times, until it comes to its end
    local dir=$1 method=$2 out=$work/killed whole=$work/whole-$3-$2 most=$((kills + $4)) more=() pid rc
    local start=$EPOCHREALTIME
    (train "$dir" "$method" "$whole") || { echo "FAIL the undisturbed run of $3 $method"; failed=$((failed + 1)); return 1; }
    local span=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
    rm -rf "$out" "$out.log"
    while :; do
        more=()
        [ -f "$out/trainer/state.safetensors" ] && more=(--resume)
        (train "$dir" "$method" "$out" "${more[@]}") 2> "$work/stderr" &
        pid=$!
        if [ $kills -lt "$KILLS" ] && [ $kills -lt $most ]; then
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
            diff <(digest "$whole") <(digest "$out") | head -n 5
        fi
        rm -rf "$whole" "$whole.log"
        return 0
    done
}

# Methods by turns from one that the seed chooses, after those that most runs are of; some have nothing to train on some models.
kills=0
mapfile -t methods < <("$torture" methods)
for arch in llama gpt2; do more_of "$work/$arch" || failed=$((failed + 1)); done
for ((i = 0; kills < KILLS; i++)); do
    case $((i % ${#methods[@]})) in
        0) method=lora ;;
        1) method=full ;;
        2) method=jobs ;;
        *) method=${methods[(i + SEED * 7) % ${#methods[@]}]} ;;
    esac
    arch=$([ $(((i % ${#methods[@]} + i / ${#methods[@]}) % 2)) = 0 ] && echo llama || echo gpt2)
    [ "$arch $method" = "llama bitfit" ] && continue
    kill_round "$work/$arch" "$method" "$arch" 2
done
echo "$kills kills"

echo "$passed passed, $failed failed"
[ $failed = 0 ]
