#!/bin/sh
# run.sh - runs the fuzz targets that `make fuzz` has built, one after the other:
#
#     BUILD=build tests/fuzz/run.sh TARGET...       for FUZZ_SECONDS each (10), from corpus/ and what earlier runs found
#     FUZZ_RUNS=20000 ... run.sh TARGET...          that many inputs, FUZZ_SECONDS at most, from corpus/ alone, always the same
#     FUZZ_KEEP=1 ... run.sh TARGET...              no run: puts the best of what runs found into corpus/ (keep.py)
#
# What breaks something is left in $BUILD/fuzz/artifacts. The words of a target's dictionary are those in the sources that read its
# inputs. The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
out=$BUILD/fuzz
passed=0
failed=0
mkdir -p "$out/artifacts" "$out/logs" "$out/tmp"
# The targets write small files for each input: a file system in memory, where there is one, is ten times as fast.
base=${TMPDIR:-/tmp}
[ -n "${TMPDIR:-}" ] || { [ -w /dev/shm ] && base=/dev/shm; }
TMPDIR=$(mktemp -d "$base/libpeft-fuzz-XXXXXX") || exit 1
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR
export ASAN_OPTIONS="${ASAN_OPTIONS:-allocator_may_return_null=1:detect_leaks=1}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"

sources() {
    case $1 in
    adapter) echo lib/peft/format*.c lib/peft/hub.c lib/peft/lora_hub.c lib/peft/prefix_hub.c lib/peft/lora*.c lib/peft/multitask.c lib/peft/fusion.c ;;
    checkpoint) echo lib/train/checkpoint*.c ;;
    config) echo lib/model/*.c ;;
    expression) echo lib/peft/expression.c lib/peft/combine*.c lib/peft/regex.c ;;
    gguf) echo lib/io/gguf*.c lib/model/load_gguf.c lib/model/config.c lib/text/tokenizer_gguf.c ;;
    jobs) echo examples/peft/jobs_file.c ;;
    jsonl) echo lib/train/rows*.c lib/train/dataset.c lib/train/verbalizer.c lib/train/template.c lib/text/chat.c ;;
    options) echo lib/api/schemas.c lib/train/*.c lib/peft/*.c lib/optim/*.c lib/infer/*.c ;;
    safetensors) echo lib/io/safetensors.c lib/io/tensor_bytes.c ;;
    tokenizer) echo lib/text/*.c ;;
    *) echo lib/io/json.c ;;
    esac
}

# Words as they are, and with the quotes of JSON.
dictionary() {
    grep -oh '"[A-Za-z_][A-Za-z0-9_.-]\{1,40\}"' $(sources "$1") | sort -u | sed 'p; s/"\(.*\)"/"\\"\1\\""/' >"$out/$1.dict"
    cat >>"$out/$1.dict" <<'END'
"\x0a%%\x0a"
"{"
"}"
"["
"]"
":"
","
"\\u"
"1e999"
"9223372036854775807"
END
}

# A folder of the target's own inputs, made afresh where runs must be the same each time.
fuzz_one() {
    found=$out/corpus/$1
    [ -z "${FUZZ_RUNS:-}" ] || { found=$out/tmp/$1 && rm -rf "$found"; }
    mkdir -p "$found"
    dictionary "$1"
    "$out/run/$1" -max_len=4096 -timeout=25 -rss_limit_mb=2048 -print_final_stats=1 -dict="$out/$1.dict" \
        -artifact_prefix="$out/artifacts/$1-" ${FUZZ_RUNS:+-runs=$FUZZ_RUNS -seed=1} -max_total_time="${FUZZ_SECONDS:-10}" \
        "$found" "tests/fuzz/corpus/$1" >"$out/logs/$1" 2>&1
}

for target in "$@"; do
    if [ -n "${FUZZ_KEEP:-}" ]; then
        "${PYTHON:-python3}" tests/fuzz/keep.py "$out" "$target" && passed=$((passed + 1)) || failed=$((failed + 1))
    elif fuzz_one "$target"; then
        echo "ok     $target: $(sed -n 's/.*number_of_executed_units: *//p' "$out/logs/$target") inputs, $(
            sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$out/logs/$target" | tail -n 1) edges"
        passed=$((passed + 1))
    else
        echo "FAIL   $target: $(grep -E 'fuzz: does not hold|runtime error|ERROR:|SUMMARY' "$out/logs/$target" | head -n 3 | tr '\n' ' ')"
        tail -n 40 "$out/logs/$target"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
