#!/bin/sh
# extra-bindings.sh - what bindings/gen makes of bindings/api.json and of `peft options` is up to date: declarations for Python
# and Rust, export lists, docs/api.md, docs/options.md. Whether api.json is that of the header needs clang: `make check-bindings`.
BUILD=${BUILD:-build}
if [ ! -x "$BUILD/peft" ]; then
    echo "bindings: not checked, $BUILD/peft is not built"
    exit 0
fi
command -v "${PYTHON:-python3}" >/dev/null || { echo "bindings: not checked, there is no Python"; exit 0; }
"${PYTHON:-python3}" bindings/gen --check --no-clang --peft "$BUILD/peft"
