#!/bin/bash
# run.sh [TARGET...] - builds libpeft for other processors, systems and C libraries, and runs it there: all of the table
# below, or the named ones. The last line is "N passed, N failed".
#
#   CROSS_ALL=1      every unit test, those in double as well (default: without the few that qemu makes slow)
#   CROSS_BUILD=dir  where everything is built, a folder for each target (build/cross)
#   PEFT=file        the tool of this machine (build/peft)
#
# For each target: static and shared library, tool and tests with warnings as errors; which libraries the results need; the
# unit tests, on Windows the tool's as well, and a program that uses the DLL; and a short training run with the generic
# kernels, whose adapter must have the same bytes as one trained on this machine. Needs the Debian packages that
# `run.sh --packages` prints. A missing compiler or emulator is a failure.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${CROSS_BUILD:-build/cross}
mkdir -p "$BUILD" && BUILD=$(cd "$BUILD" && pwd) || exit 1
passed=0 failed=0
jobs=-j$(nproc) # of this script's own makes; under another make they share its jobs
[ -z "${MAKEFLAGS:-}" ] || jobs=
version=$(awk '$2 ~ /^PEFT_VERSION_(MAJOR|MINOR|PATCH)$/ { v = v s $3; s = "." } END { print v }' include/peft.h)

packages='gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross gcc-i686-linux-gnu
libc6-dev-i386-cross qemu-user gcc-mingw-w64-x86-64 wine64 musl-tools'

# target | compiler | how its programs run | flags of compiler and linker | flags of the tests' and tool's link | libraries that
# the shared one may need. The longest come first. Programs are static, so that none needs a loader of its target here.
table='
riscv64 | riscv64-linux-gnu-gcc | qemu-riscv64   |                     | -static | libc.so.6 libm.so.6 ld-linux-riscv64-lp64d.so.1
windows | x86_64-w64-mingw32-gcc | cross_wine    |                     |         | KERNEL32.dll msvcrt.dll
aarch64 | aarch64-linux-gnu-gcc | qemu-aarch64   |                     | -static | libc.so.6 libm.so.6 ld-linux-aarch64.so.1
i686    | i686-linux-gnu-gcc    |                | -msse2 -mfpmath=sse | -static | libc.so.6 libm.so.6 ld-linux.so.2
musl    | musl-gcc              |                |                     | -static | libc.so
'

# Slow under qemu, and about what is the same everywhere; the targets that need no emulator run them. What says something about a
# processor stays: the kernels' other tests, threads, reading and writing, byte order, texts, a training run of each kind.
#   training until it learns, many methods or rows:  api_methods_* api_variants_counts families_* infer_rows_* options_* train_jobs_*
#   near what another way of computing gives:        train_bf16_losses_are_near train_pack_losses_are_near
#   bits with any number of threads, of a whole run: optim_threads_make train_bf16_same_bits_* train_pack_same_bits_*
#   every failing allocation, limits of memory:      api_nomem_whole_way train_memory_* train_pack_limit train_starve
#   whole ranges of numbers and of sizes:            base_format_f64_shortest, the kernels named here
slow='api_methods_learn api_methods_in_sessions api_nomem_whole_way api_variants_counts base_format_f64_shortest
families_take_every_method infer_rows_many_adapters kernels_attention_window kernels_attention_same_bits kernels_gemm_many_blocks
optim_threads_make options_effect_of_every train_bf16_losses_are_near train_bf16_same_bits_on_all_threads train_jobs_of_all_pairs
train_memory_limit train_memory_plan train_pack_limit train_pack_losses_are_near train_pack_same_bits_on_all_threads train_starve'

say() { printf '%-8s %s\n' "$target" "$*"; }
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    say "FAILED: $*"
}

# Wine's 64-bit loader, in a prefix of its own, without a screen.
cross_wine() {
    WINEPREFIX=$BUILD/wine WINEDEBUG=-all DISPLAY='' "$wine" "$@"
}
find_wine() {
    wine=$(command -v wine64 || command -v /usr/lib/wine/wine64 || command -v wine)
}

# Rows of token ids for the demo's model: no tokenizer, no file from elsewhere.
write_rows() {
    awk 'BEGIN { for (i = 0; i < 8; i++) { s = ""; for (j = 0; j < 12; j++) { s = s (j ? "," : "") (i * 7 + j * j) % 40 }
        print "{\"input_ids\":[" s "]}" } }' >"$1"
}

# adapter OUT TOOL...: trains with the generic kernels; prints the checksum of the adapter's tensors
adapter() {
    local out=$1
    shift
    rm -rf "$out"
    PEFT_ISA=generic "$@" train --model examples/demo/base/model.gguf --data "$BUILD/rows.jsonl" --out "$out" --method lora \
        --seed 7 --threads 2 --quiet --set max_steps=6 --set batch_size=4 >"$out.log" 2>&1 || { tail -n 5 "$out.log" >&2; return 1; }
    sha256sum <"$out/adapter_model.safetensors"
}

# The adapter of this machine, which the others must equal.
native() {
    target=native
    write_rows "$BUILD/rows.jsonl"
    wanted=$(adapter "$BUILD/adapter" "${PEFT:-build/peft}")
}

# What a shared library or program asks the loader for.
needs() {
    case $1 in
        *.dll | *.exe) x86_64-w64-mingw32-objdump -p "$1" | sed -n 's/^.*DLL Name: //p' ;;
        *) readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' ;;
    esac
}
check_needs() {
    local file=$1 library other=
    shift
    for library in $(needs "$file"); do
        case " $* " in *" $library "*) ;; *) other="$other $library" ;; esac
    done
    if [ -f "$file" ] && [ -z "$other" ]; then pass; else fail "$(basename "$file") needs$other, allowed: $*"; fi
}

# count NAME COMMAND...: runs a program that ends with "N passed, N failed" and adds its count
count() {
    local name=$1 log=$BUILD/$target/$1.log line status
    shift
    "$@" >"$log" 2>&1 </dev/null
    status=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    if [ -z "$line" ]; then
        tail -n 5 "$log"
        fail "$name ended without a count"
        return
    fi
    grep -E -A 3 '^(FAIL|not ok)' "$log"
    say "$name: $line"
    passed=$((passed + ${line%% *}))
    line=${line#*, }
    failed=$((failed + ${line%% *}))
    if [ "$status" -ne 0 ] && [ "${line%% *}" -eq 0 ]; then fail "$name: exit code $status"; fi
}

# build ARGUMENT...: make with what $target's row says
build() {
    make $jobs STRICT=1 BUILD="$dir" CC="$cc" AR="$(command -v "${cc%gcc}ar" || echo ar)" EXTRA="$flags" "$@"
}

# Builds and tests $target by its row of the table.
one() {
    local cc=$1 flags=$3 link=$4 allowed=$5 exe= dir=$BUILD/$target shared begun=$SECONDS programs=unit name skip=()
    run=$2
    case $target in windows) exe=.exe shared=libpeft-0.dll && find_wine ;; *) shared=libpeft.so.$version ;; esac
    for name in "$cc" ${run/cross_wine/${wine:-wine64}}; do
        command -v "$name" >/dev/null || { fail "there is no $name (see run.sh --packages)"; return; }
    done
    if [ -n "${CROSS_ALL:-}" ]; then programs='unit double'; fi
    # shellcheck disable=SC2086
    if ! build "$dir/libpeft.a" "$dir/$shared" >"$dir.log" 2>&1 ||
        ! build LDFLAGS="$link" "$dir/peft$exe" "$dir/quickstart$exe" $(printf "$dir/tests/%s$exe " $programs) >>"$dir.log" 2>&1; then
        grep -E -A 4 'error|Error|undefined' "$dir.log" | head -n 20
        fail "does not build: $dir.log"
        return
    fi
    pass
    # shellcheck disable=SC2086
    check_needs "$dir/$shared" $allowed
    if [ "$target" = windows ]; then check_needs "$dir/peft.exe" $allowed; fi
    local built=$((SECONDS - begun)) got
    if [ -z "${CROSS_ALL:-}" ] && [[ $run == qemu* ]]; then
        for name in $slow; do skip+=(--skip "$name"); done
    fi
    for name in $programs; do count "$name" $run "$dir/tests/$name$exe" "${skip[@]}"; done
    if [ "$target" = windows ]; then
        if "$cc" -std=c11 -Iinclude examples/quickstart.c -o "$dir/user.exe" "$dir/libpeft.dll.a" &&
            cross_wine "$dir/user.exe" examples/demo/base/model.gguf "$dir/keeper" >"$dir/user.log" 2>&1; then
            pass
        else
            fail "a program that uses the DLL: $(tail -n 1 "$dir/user.log")"
        fi
        printf '#!/bin/sh\nWINEPREFIX="%s" WINEDEBUG=-all DISPLAY= exec "%s" "%s" "$@"\n' \
            "$BUILD/wine" "$wine" "$dir/peft.exe" >"$dir/peft"
        chmod +x "$dir/peft" && count tool sh tests/cli/run.sh "$dir/peft" && count report sh tests/cli/report.sh "$dir/peft"
    fi
    got=$(adapter "$dir/adapter" $run "$dir/peft$exe") || fail "the tool cannot train"
    if [ "$got" = "$wanted" ]; then pass; else fail "the adapter has other bytes than the one trained here"; fi
    say "built in $built s, tested in $((SECONDS - begun - built)) s"
}

if [ "${1:-}" = --packages ]; then
    echo $packages
    exit 0
fi
if ! native; then
    echo "0 passed, 1 failed"
    exit 1
fi
trim() { echo "$1" | sed 's/^ *//; s/ *$//'; }

# One target in a process of its own: what it has to say and its count go to $BUILD/<target>.out.
alone() {
    local row cc run flags link allowed
    target=$1
    row=$(echo "$table" | awk -F ' *[|] *' -v t="$target" '$1 == t')
    if [ -z "$row" ]; then
        fail "no such target, expected one of: $known"
    else
        IFS='|' read -r _ cc run flags link allowed <<<"$row"
        one "$(trim "$cc")" "$(trim "$run")" "$(trim "$flags")" "$(trim "$link")" "$(trim "$allowed")"
    fi
    echo "$passed $failed"
}

known=$(echo $(echo "$table" | awk -F '|' 'NF > 1 { gsub(/ /, "", $1); print $1 }'))
for target in ${*:-$known}; do
    alone "$target" >"$BUILD/$target.out" 2>&1 &
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done # tests of one, while the next is built
done
wait
for target in ${*:-$known}; do
    sed '$d' "$BUILD/$target.out"
    read -r p f <<<"$(tail -n 1 "$BUILD/$target.out")"
    passed=$((passed + p)) failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
