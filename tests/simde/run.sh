#!/bin/sh
# run.sh - the kernel tests with the AVX-512 table on a CPU that has AVX2 only.
#
#     tests/simde/run.sh [build folder]        needs the headers of SIMDe (Debian: libsimde-dev) and an AVX2 machine
#
# -DPEFT_SIMDE makes simd_avx512.h take its intrinsics from simde_avx512.h here, and the table ask for AVX2. Speed means
# nothing in this build. The same unit tests run as natively: equality with the generic table and with sums in double.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/simde}
mkdir -p "$out"
${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -ffp-contract=off -DPEFT_SIMDE -mavx2 -mfma -mf16c \
    -Wno-psabi -I"$root/include" -I"$root/lib" -I"$root/tests" -I"$root/tests/simde" -o "$out/kernels" \
    "$root"/tests/runner.c "$root"/tests/unit/kernels_*_test.c "$root"/lib/base/*.c "$root"/lib/kernels/*.c \
    "$root"/lib/kernels/generic/*.c "$root"/lib/kernels/x86/*.c ${EXTRA:-} -lpthread -lm
exec "$out/kernels"
