#!/usr/bin/env bash
# Training by several processes: examples/mpi_train.c under Open MPI and examples/gloo_train.py under torch.distributed, on the
# demo's base. Installs Open MPI's packages and the peers' virtual environment where they are missing. Ends with `N passed, N
# failed`; what cannot be installed is a failure. About a minute.
#
#   run.sh [mpi|gloo]     one of the two; default both
#
# BUILD is the build folder as in the Makefile.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft
python=$cache/venv/bin/python
work=$BUILD/distributed
what=${1:-"mpi gloo"}

give_up() {
    echo "FAIL   $1"
    echo "0 passed, 1 failed"
    exit 1
}

packages() {
    local missing="" p
    for p in openmpi-bin libopenmpi-dev; do
        dpkg -s "$p" >/dev/null 2>&1 || missing="$missing $p"
    done
    [ -z "$missing" ] && return 0
    # shellcheck disable=SC2086
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

rm -rf "$work" && mkdir -p "$work" || exit 1
make -C "$root" BUILD="$BUILD" >&2 || give_up "the library does not build"
"$python" -c 'import torch, safetensors' 2>/dev/null || bash "$root/tests/peers/run.sh" --set-up >&2 ||
    give_up "the virtual environment cannot be made"
case $what in
    *mpi*)
        packages >"$work/packages.log" 2>&1 || give_up "Open MPI cannot be installed: $work/packages.log"
        mpicc -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror -I"$root/include" "$root/examples/mpi_train.c" "$BUILD/libpeft.a" \
            -pthread -lm -o "$work/mpi_train" || give_up "examples/mpi_train.c does not compile"
        ;;
esac

# A container's user may be root, and there may be fewer cores than processes.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export LIBPEFT_LIBRARY=$BUILD/libpeft.so PYTHONPATH=$root/bindings/python:$root/examples PYTHONDONTWRITEBYTECODE=1
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=lo
[ -f "$LIBPEFT_LIBRARY" ] || LIBPEFT_LIBRARY=$BUILD/libpeft.dylib
# shellcheck disable=SC2086
cd "$work" && exec "$python" "$root/tests/distributed/checks.py" "$root" $what
