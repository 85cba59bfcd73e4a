#!/bin/sh
# run.sh - scenario.txt by C, Python, Rust and the command line: adapter, losses and text must be the same bytes from all four.
# BUILD (default build) has libpeft.so, libpeft.a and peft. Ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build} CC=${CC:-cc} PYTHON=${PYTHON:-python3} CARGO=${CARGO:-cargo}
here=tests/scenario work=$BUILD/scenario passed=0 failed=0
rm -rf "$work" && mkdir -p "$work/c" "$work/tool" "$work/python" "$work/rust" || exit 1
case $BUILD in /*) lib=$BUILD ;; *) lib=$PWD/$BUILD ;; esac

say() { # say STATUS NAME
    if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAIL $2"; fi
}
value() { sed -n "s/^$1 //p" $here/scenario.txt; }
sets() { for word in $(value "$1"); do printf ' --set %s' "$word"; done; }

by_c() {
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -O1 -Wall -Wextra -Iinclude $here/scenario.c "$BUILD/libpeft.a" -lm -pthread \
        -o "$work/scenario" && "$work/scenario" $here/scenario.txt "$work/c"
}
by_tool() {
    # shellcheck disable=SC2046 # words are what is wanted
    "$BUILD/peft" train --quiet --model "$(value model)" --data "$(value data)" --method "$(value method)" --seed "$(value seed)" \
        $(sets adapter.options) $(sets dataset.options) $(sets trainer.options) $(sets optimizer.options) \
        --json-log "$work/tool/log.jsonl" --out "$work/tool" &&
        "$BUILD/peft" generate --model "$(value model)" --adapter "$work/tool" --prompt "$(value prompt)" \
            $(sets generate.options) > "$work/tool/shown.txt"
}
by_python() { PYTHONPATH=bindings/python LIBPEFT_LIBRARY="$lib/libpeft.so" "$PYTHON" $here/scenario.py $here/scenario.txt "$work/python"; }
by_rust() {
    LIBPEFT_DIR="$lib" LD_LIBRARY_PATH="$lib" CARGO_TARGET_DIR="$work/target" "$CARGO" run --quiet --offline \
        --manifest-path bindings/rust/Cargo.toml -p libpeft --example scenario -- $here/scenario.txt "$work/rust"
}

for who in c tool python rust; do
    by_$who
    say $? "$who: the job"
done
[ -s "$work/c/text.txt" ] && [ "$(wc -l < "$work/c/losses.txt")" -eq 10 ]
say $? "c: ten losses and a text"
for who in tool python rust; do
    for file in adapter_model.safetensors adapter_config.json; do
        cmp "$work/c/$file" "$work/$who/$file"
        say $? "$who: $file"
    done
done
for who in python rust; do
    for file in losses.txt text.txt; do
        cmp "$work/c/$file" "$work/$who/$file"
        say $? "$who: $file"
    done
done
# The command line prints a line end behind the text.
{ cat "$work/c/text.txt" && echo; } | cmp - "$work/tool/shown.txt"
say $? "tool: text"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
