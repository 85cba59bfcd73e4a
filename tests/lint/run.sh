#!/bin/sh
# run.sh - every check of this folder; goes on after a failure and says at the end which ones failed.
# CC and BUILD as in the Makefile; run from the project's root.
CC=${CC:-cc}
BUILD=${BUILD:-build}
export CC BUILD
failed=
step() {
    name=$1
    shift
    if "$@"; then echo "lint: $name ok"; else failed="$failed $name"; echo "lint: $name FAILED"; fi
}
step layers sh tests/lint/layers.sh
step exports sh tests/lint/exports.sh
step header sh tests/lint/header.sh
step warnings make -s --no-print-directory STRICT=1 BUILD="$BUILD/lint" V=1 "$BUILD/lint/libpeft.a"
step house sh tests/lint/house.sh
step amalgamation sh tests/lint/amalgamation.sh
for extra in tests/lint/extra-*.sh; do
    [ -f "$extra" ] && step "$(basename "$extra" .sh)" sh "$extra"
done
if [ -n "$failed" ]; then
    echo "lint: failed:$failed"
    exit 1
fi
echo "lint: all ok"
