#!/usr/bin/env bash
# Load test of examples/serve.c, built with the address and undefined-behaviour sanitizers: many clients, many adapters, bad requests
# and a stop in the middle of it, on the demo's base. Needs clang, a C compiler, make and Python's standard library. About a minute.
# Ends with `N passed, N failed`. BUILD is the build folder as in the Makefile; what `make asan` built in it is used.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
work=$BUILD/serve-test
base=$root/examples/demo/base/model.gguf data=$root/examples/demo/train.jsonl

give_up() {
    echo "FAIL   $1"
    echo "0 passed, 1 failed"
    exit 1
}

# adapter NAME METHOD KEY=VALUE...: trained for some steps, so that it says something of its own.
adapter() {
    local name=$1 method=$2 settings=() pair
    shift 2
    for pair in max_steps=10 batch_size=4 "$@"; do settings+=(--set "$pair"); done
    "$BUILD/peft" train --model "$base" --data "$data" --method "$method" --out "$work/$name" --quiet "${settings[@]}" ||
        give_up "the adapter $name cannot be trained"
}

rm -rf "$work" && mkdir -p "$work" || exit 1
make -C "$root" BUILD="$BUILD" >&2 || give_up "the library does not build"
make -C "$root" BUILD="$BUILD/asan" CC=clang CFLAGS="-O1 -g" "$BUILD/asan/serve" \
    EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer" >&2 || give_up "the server does not build"
adapter lora lora r=8 learning_rate=5e-3
adapter prefix prefix num_virtual_tokens=6 learning_rate=5e-2
adapter bottleneck pfeiffer reduction_factor=8 learning_rate=5e-3
adapter ia3 ia3 learning_rate=5e-2
adapter other lora r=4 target_modules=all-linear learning_rate=5e-3 seed=7
export LIBPEFT_LIBRARY=$BUILD/libpeft.so PYTHONPATH=$root/bindings/python PYTHONDONTWRITEBYTECODE=1
[ -f "$LIBPEFT_LIBRARY" ] || LIBPEFT_LIBRARY=$BUILD/libpeft.dylib
exec python3 "$root/tests/serve/load.py" "$BUILD/asan/serve" "$base" "$work"
