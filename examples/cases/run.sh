#!/usr/bin/env bash
# run.sh [CASE...] [OPTION...] - the case studies of docs/cases, one after the other: `make cases`, `make case-medical`. Writes their
# tables into docs/cases/CASE.md and all numbers to $BUILD/cases/CASE.json. Options are those of kit.py, such as --quick.
# Needs the virtual environment of `make check-peers`, which has the models in it, and the data (PEFT_TESTDATA, docs/cases/README.md).
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=${XDG_CACHE_HOME:-${HOME:?}/.cache}/libpeft/venv
export BUILD=${BUILD:-$root/build} PEFT_TESTDATA=${PEFT_TESTDATA:-$root/../shared}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1
export LIBPEFT_LIBRARY=${LIBPEFT_LIBRARY:-$BUILD/libpeft.so} PYTHONPATH=$root/bindings/python${PYTHONPATH:+:$PYTHONPATH}
cases=()
while [ "$#" -gt 0 ] && [ "${1#-}" = "$1" ]; do cases+=("$1") && shift; done
[ "${#cases[@]}" -gt 0 ] || cases=(medical markets news conversation)
if [ ! -x "$venv/bin/python" ]; then
    echo "cases: there is no $venv; \`make check-peers\`, or \`bash tests/peers/run.sh --set-up\`, makes it" >&2
    exit 1
fi
mkdir -p "$BUILD/cases"
for case in "${cases[@]}"; do
    begun=$SECONDS
    "$venv/bin/python" "$root/examples/cases/$case/run.py" --out "$BUILD/cases/$case.json" --page "$root/docs/cases/$case.md" "$@" || exit 1
    echo "$case: $((SECONDS - begun)) s"
done
