#!/bin/sh
# extra-options.sh - docs/options.md is what tools/gen_options.py makes of `peft options`.
BUILD=${BUILD:-build}
if [ ! -x "$BUILD/peft" ]; then
    echo "options: not checked, $BUILD/peft is not built"
    exit 0
fi
command -v "${PYTHON:-python3}" >/dev/null || { echo "options: not checked, there is no Python"; exit 0; }
"${PYTHON:-python3}" tools/gen_options.py --check "$BUILD/peft"
