#!/usr/bin/env bash
# bench/run.sh - `make bench`: training beside HF PEFT (docs/benchmarks.md), generation beside llama.cpp
# (docs/benchmarks-generation.md), other methods beside their libraries (docs/benchmarks-methods.md), memory and its price
# (docs/benchmarks-memory.md), rows together (docs/benchmarks-serving.md), then the matrix products as a share of the FMA peak. Needs
# the virtual environment of `make check-peers`. Arguments go to bench.py.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft/venv
export BUILD=${BUILD:-$root/build} PEFT_TESTDATA=${PEFT_TESTDATA:-$root/../shared} HF_HUB_OFFLINE=1
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OMP_NUM_THREADS MKL_NUM_THREADS
if [ ! -x "$venv/bin/python" ]; then
    echo "bench: there is no $venv; make check-peers makes it" >&2
    exit 1
fi
[ -e "$BUILD/libpeft.so" ] || make -C "$root" BUILD="$BUILD" >&2 || exit 1
"$venv/bin/python" "$root/bench/bench.py" "$@" || exit 1
"$venv/bin/python" "$root/bench/inference.py" || exit 1
"$venv/bin/python" "$root/bench/methods.py" || exit 1
"$venv/bin/python" "$root/bench/memory.py" || exit 1
"$venv/bin/python" "$root/bench/serving.py" || exit 1
mkdir -p "$BUILD/bench"
${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -ffp-contract=off -I"$root/include" -I"$root/lib" \
    "$root/bench/gemm_bench.c" "$BUILD/libpeft.a" -pthread -lm -o "$BUILD/bench/gemm" && "$BUILD/bench/gemm"
