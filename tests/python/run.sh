#!/bin/sh
# run.sh - the Python package's own tests over the library of this tree: types by mypy --strict, and pytest,
# which also counts that every public function is called. Needs a C compiler, make, Python and PyPI; 2 minutes.
#
#   run.sh [PYTEST ARGUMENT...]     such as -k interrupt, or a file of bindings/python/tests
#
# BUILD is the build folder as in the Makefile, PYTHON the interpreter (3.9 or later). Ends with `N passed, N failed`.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
python=${PYTHON:-python3}
package=$root/bindings/python
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit 1
venv=$BUILD/venv-python-$version
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
# check NAME COMMAND...: counts the command as one.
check() {
    name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else echo "FAIL   $name" && failed=$((failed + 1)); fi
}

make -C "$root" BUILD="$BUILD" >&2 || give_up "the library does not build"
tools="pytest numpy tqdm hypothesis mypy==1.18.2"
if [ "$(cat "$venv/tools.txt" 2>/dev/null)" != "$tools" ]; then
    rm -rf "$venv"
    # shellcheck disable=SC2086
    "$python" -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $tools ||
        give_up "the tools ($tools) cannot be installed into $venv"
    echo "$tools" >"$venv/tools.txt"
fi
python=$venv/bin/python
LIBPEFT_LIBRARY=$(find "$BUILD" -maxdepth 1 -name 'libpeft.so' -o -maxdepth 1 -name 'libpeft.dylib' | head -n 1)
LIBPEFT_TOOL=$BUILD/peft
PYTHONPATH=$package
export LIBPEFT_LIBRARY LIBPEFT_TOOL PYTHONPATH PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY="$BUILD/hypothesis"

# As Python 3.9 sees it, unless NumPy's own types need a later one.
types() {
    case $version in 3.9 | 3.10 | 3.11) seen=3.9 ;; *) seen=$version ;; esac
    for what in "$package/libpeft" "$root/examples/python"; do
        MYPYPATH=$package "$python" -m mypy --strict --python-version "$seen" --cache-dir "$BUILD/mypy-$version" "$what" || return 1
    done
}

check "mypy --strict" types
log=$BUILD/pytest.log
cd "$package" || give_up "$package is missing"
"$python" -m pytest -p no:cacheprovider -q --color=no --durations=5 -W error::pytest.PytestUnraisableExceptionWarning \
    -W error::pytest.PytestUnhandledThreadExceptionWarning "${@:-tests}" >"$log" 2>&1
status=$?
cat "$log"
# number WORD: of the summary's "3 failed, 100 passed, 1 error in 9.5s"
number() {
    grep -E '^([0-9]+ [a-z]+(, )?)+ in ' "$log" | tail -n 1 | sed -n "s/.*\b\([0-9][0-9]*\) $1.*/\1/p"
}
p=$(number passed) f=$(number failed) e=$(number error) s=$(number skipped)
passed=$((passed + ${p:-0}))
failed=$((failed + ${f:-0} + ${e:-0}))
if [ "$#" -eq 0 ] && [ -n "$s" ]; then # a test that cannot be made here is one that fails
    echo "FAIL   $s tests were skipped" && failed=$((failed + s))
fi
if [ "$status" -ne 0 ] && [ "${f:-0}${e:-0}" = 00 ]; then echo "FAIL   pytest ended with $status" && failed=$((failed + 1)); fi
finish
