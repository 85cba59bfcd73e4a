#!/usr/bin/env bash
# The case studies of examples/cases with --quick: each ends well and has all of its rows, with finite numbers; what is missing is
# said in a sentence; tables reach their page. Needs the virtual environment of tests/peers/run.sh and PEFT_TESTDATA; 2 minutes.
# Ends with `N passed, N failed`.
#
#   run.sh [CASE...]     default: all four
#
# BUILD is the build folder as in the Makefile.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
export BUILD PEFT_TESTDATA=${PEFT_TESTDATA:-$root/../shared} PYTHONDONTWRITEBYTECODE=1
python=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft/venv/bin/python
export LIBPEFT_LIBRARY=${LIBPEFT_LIBRARY:-$BUILD/libpeft.so} PYTHONPATH=$root/bindings/python
passed=0
failed=0
ok() { echo "ok     $1" && passed=$((passed + 1)); }
fail() { echo "FAIL   $1: $2" && failed=$((failed + 1)); }
finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

[ -x "$python" ] || { fail "the virtual environment" "there is no $python; tests/peers/run.sh --set-up makes it" && finish; }
[ -e "$LIBPEFT_LIBRARY" ] || make -C "$root" BUILD="$BUILD" >&2 || { fail "the library" "it does not build" && finish; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
[ "$#" -gt 0 ] || set -- medical markets news conversation

# refused NAME SENTENCE COMMAND...: it exits with 1 and says one line that has the sentence.
refused() {
    local name=$1 sentence=$2 code
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    if [ "$code" -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -e "$sentence" "$work/err"; then
        ok "$name"
    else
        fail "$name" "exit code $code, says: $(head -c 300 "$work/err" | tr '\n' ' ')"
    fi
}

for case in "$@"; do
    run=$root/examples/cases/$case/run.py
    cp "$root/docs/cases/$case.md" "$work/page.md"
    begun=$SECONDS
    if "$python" "$run" --quick --out "$work/$case.json" --page "$work/page.md" >"$work/$case.log" 2>&1 </dev/null; then
        ok "$case --quick ($((SECONDS - begun)) s)"
    else
        fail "$case --quick" "$(tail -n 3 "$work/$case.log" | tr '\n' ' ')"
    fi
    if why=$("$python" "$root/tests/cases/check.py" rows "$case" "$work/$case.json" "$root/docs/cases/$case.md" 2>&1); then
        ok "$case: all rows, finite"
    else
        fail "$case: all rows, finite" "$(echo "$why" | tail -n 1)"
    fi
    if cmp -s "$root/docs/cases/$case.md" "$work/page.md"; then
        ok "$case: --quick leaves the page"
    else
        fail "$case: --quick leaves the page" "it was changed"
    fi
    refused "$case: no data" "--data DIR names the folder of the data sets" \
        "$python" "$run" --quick --data "$work/nowhere"
done
refused "no model" "which has the model all-MiniLM-L6-v2 inside, is not installed" \
    "$python" -S "$root/examples/cases/medical/run.py" --quick
refused "no library" "the Python package libpeft cannot be imported" \
    env PYTHONPATH= "$python" "$root/examples/cases/medical/run.py" --quick
if why=$("$python" "$root/tests/cases/check.py" kit 2>&1); then ok "tables"; else fail "tables" "$(echo "$why" | tail -n 1)"; fi
finish
