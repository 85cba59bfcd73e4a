#!/bin/bash
# run_tests.sh [BUILD] - all that is checked of the Rust crates; BUILD is the Makefile's folder (build), ours is BUILD/rust.
# Needs cargo with clippy and rustfmt, a nightly toolchain (for the address sanitizer), gcc, clang, gcov and pkg-config;
# what is missing is a failure. Never asks a registry. Ends with `N passed, N failed`.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root" || exit 1
mkdir -p "${1:-build}"
build=$(cd "${1:-build}" && pwd)
out=$build/rust
log=$out/log
mkdir -p "$log"
command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
export CARGO_TARGET_DIR=$out/target CARGO_NET_OFFLINE=true CARGO_TERM_COLOR=never RUST_BACKTRACE=0
unset LIBPEFT_DIR LIBPEFT_STATIC RUSTFLAGS RUSTDOCFLAGS PKG_CONFIG_PATH
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/libpeft/Cargo.toml")
passed=0 failed=0

# step NAME COMMAND...: one check; tests of cargo among its output count one by one.
step() {
    local name=$1 begun=$SECONDS n
    shift
    if "$@" >"$log/$name" 2>&1; then
        n=$(grep -cE '^test .* \.\.\. ok$' "$log/$name")
        [ "$n" -gt 0 ] || n=1
        passed=$((passed + n))
        echo "rust: $name ok, $n ($((SECONDS - begun)) s)"
    else
        passed=$((passed + $(grep -cE '^test .* \.\.\. ok$' "$log/$name")))
        n=$(grep -cE '^test .* \.\.\. FAILED$' "$log/$name")
        [ "$n" -gt 0 ] || n=1
        failed=$((failed + n))
        echo "FAIL rust: $name ($((SECONDS - begun)) s)"
        tail -n 40 "$log/$name"
    fi
}

in_crates() { (cd "$here" && "$@"); }

# ---- the C library: plain, with call counts, with the sanitizer --------------------------------------------------------
# The public functions are in lib/api/: these files again, with counters.
counted_library() {
    make -s --no-print-directory BUILD="$build" "$build/libpeft.a" || return 1
    rm -rf "$out/counted" && mkdir -p "$out/counted" || return 1
    local objects=() source object
    while read -r source; do
        object=$build/obj/lib/${source%.c}.o
        case $source in
            api/*)
                object=$out/counted/$(basename "${source%.c}").o
                gcc -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O1 -ffp-contract=off -fPIC -pthread -DPEFT_BUILD \
                    -Iinclude -Ilib --coverage -fprofile-update=atomic -c -o "$object" "lib/$source" || return 1
                ;;
        esac
        objects+=("$object")
    done <lib/sources.txt
    # What is counted must come from outside: no file of the library uses a public function of another.
    nm -u "${objects[@]}" | grep -E ' peft_[a-z]' && return 1
    ar qcs "$out/counted/libpeft.a" "${objects[@]}"
}

# The flags of `make asan`, whose objects are taken where it has been run.
sanitized_library() {
    make -s --no-print-directory BUILD="$build/asan" CC=clang CFLAGS="-O1 -g" "$build/asan/libpeft.a" \
        EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
}

# ---- tests ---------------------------------------------------------------------------------------------------------------
tests() {
    find "$out/counted" -name '*.gcda' -delete
    in_crates env LIBPEFT_DIR="$out/counted" LIBPEFT_STATIC=1 RUSTFLAGS="-C link-arg=--coverage" cargo test --tests
}

# On the nightly compiler, as only that one looks at the error codes of what must not compile.
doc_tests() {
    in_crates env LIBPEFT_DIR="$build" LIBPEFT_STATIC=1 cargo +nightly test --doc --target-dir "$out/target-nightly"
}

# Every function of the header, called by a test of the crates: executed, not mentioned.
calls() {
    (cd "$out/counted" && gcov --json-format --stdout ./*.gcda) >"$out/calls.json" || return 1
    python3 "$here/count_calls.py" "$out/calls.json" bindings/api.json
}

# Pages as tests: each Rust block of a page is compiled and run.
pages() {
    local flags=(--edition 2021 -L "dependency=$CARGO_TARGET_DIR/debug/deps" -L "native=$out/counted" -C link-arg=--coverage)
    flags+=(--extern "libpeft=$CARGO_TARGET_DIR/debug/liblibpeft.rlib")
    in_crates env LIBPEFT_DIR="$out/counted" LIBPEFT_STATIC=1 RUSTFLAGS="-C link-arg=--coverage" cargo build || return 1
    rustdoc --test docs/rust.md "${flags[@]}" && rustdoc --test "$here/README.md" "${flags[@]}"
}

sanitizer() {
    in_crates env LIBPEFT_DIR="$build/asan" LIBPEFT_STATIC=1 LIBPEFT_TEST_FEWER=1 RUSTFLAGS="-Zsanitizer=address" \
        ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 \
        cargo +nightly test --tests --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir "$out/target-asan"
}

# ---- examples: the same words as the C program, and what each one promises ----------------------------------------------
example() { (cd "$here" && LIBPEFT_DIR="$build" LIBPEFT_STATIC=1 cargo run -q --release --example "$@"); }

same_as_c() {
    make -s --no-print-directory BUILD="$build" "$build/quickstart" || return 1
    rm -rf "$out/from-c" "$out/from-rust"
    local base=$root/examples/demo/base/model.gguf
    "$build/quickstart" "$base" "$out/from-c" >"$out/from-c.txt" || return 1
    example quickstart -- "$base" "$out/from-rust" >"$out/from-rust.txt" || return 1
    [ -s "$out/from-c.txt" ] && cmp "$out/from-c.txt" "$out/from-rust.txt" || return 1
    diff -r "$out/from-c" "$out/from-rust" || return 1
    # What fails says the same, and ends in the same way.
    ! "$build/quickstart" "$out/nothing" 2>"$out/from-c.txt" && ! example quickstart -- "$out/nothing" 2>"$out/from-rust.txt" &&
        cmp "$out/from-c.txt" "$out/from-rust.txt"
}

others() {
    local base=$root/examples/demo/base/model.gguf got
    got=$(example own_loop) || return 1
    echo "$got"
    echo "$got" | grep -q '^3 4 5 6 -> \[7, 8, 9, 10\]$' || return 1
    # The prompts are answered as the tool answers them, up to the first line end.
    printf 'name: %s |\n' 'Calm Stove' 'Old Mill' 'Sleepy Wagon' >"$out/prompts.txt"
    example stream -- "$base" "$out/from-rust" <"$out/prompts.txt" >"$out/streamed.txt" || return 1
    make -s --no-print-directory BUILD="$build" "$build/peft" || return 1
    while read -r prompt; do
        printf '%s' "$prompt"
        "$build/peft" generate --model "$base" --adapter "$out/from-rust" --prompt "$prompt" --max-new 64 --temperature 0 |
            head -n 1
    done <"$out/prompts.txt" | sed 's/[[:space:]]*$//' >"$out/generated.txt"
    diff "$out/generated.txt" "$out/streamed.txt"
}

# ---- as others get it ----------------------------------------------------------------------------------------------------
# The packed crates, in an empty folder, with the C sources that they bring along: built, linked, run.
packed() {
    rm -rf "$out/packed" && mkdir -p "$out/packed/app/src" || return 1
    in_crates cargo package --workspace --allow-dirty --no-verify || return 1
    (
        cd "$out/packed" && tar xzf "$CARGO_TARGET_DIR/package/libpeft-$version.crate" &&
            tar xzf "$CARGO_TARGET_DIR/package/libpeft-sys-$version.crate" &&
            cp "libpeft-$version/examples/own_loop.rs" app/src/main.rs &&
            printf '%s\n' '[package]' 'name = "app"' 'version = "0.0.0"' 'edition = "2021"' '[dependencies]' \
                "libpeft = { path = \"../libpeft-$version\", features = [\"bundled\"] }" '[patch.crates-io]' \
                "libpeft-sys = { path = \"../libpeft-sys-$version\" }" >app/Cargo.toml &&
            cd app && CARGO_TARGET_DIR=$out/packed/target cargo run -q >run.txt && cat run.txt &&
            grep -q '^3 4 5 6 -> \[7, 8, 9, 10\]$' run.txt
    )
}

# The README's commands, in an empty folder, with the library that pkg-config finds.
readme() {
    rm -rf "$out/prefix" "$out/readme" && mkdir -p "$out/readme" || return 1
    make -s --no-print-directory BUILD="$build" PREFIX="$out/prefix" install >/dev/null || return 1
    awk '/^```sh$/ {block = 1; next} /^```$/ {block = 0} block' "$here/README.md" >"$out/readme/commands.sh"
    [ "$(grep -c . "$out/readme/commands.sh")" -eq 4 ] || return 1 # "# runs" and three commands
    (
        cd "$out/readme" && export LIBPEFT=$root PKG_CONFIG_PATH=$out/prefix/lib/pkgconfig LD_LIBRARY_PATH=$out/prefix/lib &&
            CARGO_TARGET_DIR=$out/readme/target sh -eu commands.sh &&
            ldd target/release/house | grep "$out/prefix/lib/libpeft.so"
    ) && "$build/peft" info "$out/readme/house/house/adapter" && [ -f "$out/readme/house/house/checkpoint/state.safetensors" ]
}

documented() { in_crates env RUSTDOCFLAGS="-D warnings" LIBPEFT_DIR="$build" cargo doc --no-deps; }

step format in_crates cargo fmt --check
step library counted_library
step tests tests
step doc-tests doc_tests
step calls calls
step pages pages
step clippy in_crates env LIBPEFT_DIR="$build" cargo clippy --all-targets -- -D warnings
step documented documented
step same-as-c same_as_c
step others others
step packed packed
step readme readme
step sanitized-library sanitized_library
step sanitizer sanitizer

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
