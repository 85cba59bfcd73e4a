#!/bin/sh
# extra-errors.sh - what docs/errors.md quotes is what the sources print: see errors.py.
command -v "${PYTHON:-python3}" >/dev/null || { echo "errors: not checked, there is no Python"; exit 0; }
"${PYTHON:-python3}" tests/lint/errors.py
