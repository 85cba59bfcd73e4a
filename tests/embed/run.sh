#!/bin/sh
# run.sh - the library inside of other people's programs: loaded and unloaded, beside another version of itself, with a
# host's memory and threads, across a fork, in many threads, and without any.
#
#     tests/embed/run.sh        needs cc, clang (thread sanitizer) and an address sanitizer; ends with `N passed, N failed`
#
# BUILD (default build) is where the libraries are made: BUILD itself, BUILD/tsan as CI's tsan gate has it, BUILD/embed.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
mkdir -p "$BUILD/embed" && BUILD=$(cd "$BUILD" && pwd)
out=$BUILD/embed
CC=${CC:-cc}
unset MAKEFLAGS MAKELEVEL
export CC BUILD out
passed=0
failed=0

# check NAME COMMAND...: what the command prints is shown if it fails, and its last line in any case.
check() {
    name=$1
    shift
    if "$@" > "$out/$name.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name: $(tail -n 1 "$out/$name.log")"
    else
        failed=$((failed + 1))
        echo "FAIL $name:"
        tail -n 30 "$out/$name.log"
    fi
}

# compile OUT SOURCE FLAGS...: one of the programs here.
compile() {
    made=$1 source=$2
    shift 2
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes \
        -Wmissing-prototypes -Wconversion -Werror -Iinclude -o "$out/$made" "tests/embed/$source" "$@" -pthread -lm
}

version=$(awk '$2 ~ /^PEFT_VERSION_(MAJOR|MINOR|PATCH)$/ {v = v s $3; s = "."} END {print v}' include/peft.h)
library=$BUILD/libpeft.so.$version
later=0.250.7

libraries() {
    make -s BUILD="$BUILD" "$library" "$BUILD/libpeft.a" || return 1
    later_library
}

# The library of a later version: sources that name the version are compiled with a header that says so, the others are as
# they are. Once with the soname of all, once with another, once as an archive.
later_library() {
    rm -rf "$out/later" && mkdir -p "$out/later/include" && cp -r "$BUILD/obj/lib" "$out/later/obj" || return 1
    sed -E 's/(define PEFT_VERSION_MINOR).*/\1 250/; s/(define PEFT_VERSION_PATCH).*/\1 7/' include/peft.h \
        > "$out/later/include/peft.h"
    sources=$(cd lib && grep -rl PEFT_VERSION_ --include='*.c' .)
    [ -n "$sources" ] || return 1
    for source in $sources; do
        $CC -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -ffp-contract=off -fvisibility=hidden -fPIC \
            -DPEFT_BUILD -I"$out/later/include" -Ilib -c -o "$out/later/obj/${source%.c}.o" "lib/$source" || return 1
    done
    objects=$(find "$out/later/obj" -name '*.o')
    for soname in 0 9; do
        $CC -shared -Wl,-soname,libpeft.so.$soname -Wl,--version-script,lib/libpeft.map -o "$out/later/libpeft.so.$soname" \
            $objects -pthread -lm || return 1
    done
    rm -f "$out/later/libpeft.a"
    ar rcs "$out/later/libpeft.a" $objects && echo "$version and $later"
}

# Calls of public functions from inside must not go through the table where another library's function could take their
# place. None does now, which is why the library is linked without -Bsymbolic-functions.
calls_outside() {
    readelf -rW "$1" > "$out/relocations" && [ "$(grep -c JUMP_SL "$out/relocations")" -gt 20 ] || {
        echo "no relocations read from $1"
        return 2
    }
    grep -oE ' peft_[a-z_]+' "$out/relocations"
}

bound() {
    for file in "$library" "$out/later/libpeft.so.0"; do
        calls_outside "$file"
        [ $? -eq 1 ] || return 1
    done
    # A library that does so, for the check of the check.
    echo '#include "peft.h"
        const char *peft__asks(void) { return peft_version_string(); }' |
        $CC -Iinclude -fPIC -c -o "$out/asks.o" -x c - &&
        $CC -shared -Wl,--version-script,lib/libpeft.map -o "$out/asks.so" "$out/asks.o" \
            -Wl,--whole-archive "$BUILD/libpeft.a" -Wl,--no-whole-archive -pthread -lm || return 1
    [ "$(calls_outside "$out/asks.so")" = ' peft_version_string' ] &&
        echo "no call inside goes to an exported symbol by the loader"
}

reload() {
    compile reload reload.c && "$out/reload" "$library" 100
}

# The leak sanitizer watches allocations of libraries that it was not built into as well.
reload_leaks() {
    compile reload-lsan reload.c -fsanitize=leak && "$out/reload-lsan" "$library" 10
}

reload_finds() {
    compile leak leak.c -fsanitize=leak || return 1
    if "$out/leak" "$library" > "$out/leak.log" 2>&1; then
        echo "a context that is not freed was not found"
        return 1
    fi
    grep 'SUMMARY: LeakSanitizer' "$out/leak.log"
}

# Two files by path, of one soname: what plug-ins do that bring their own copy.
two_files() {
    compile versions versions.c && "$out/versions" "$1" "$library" "$version" "$out/later/libpeft.so.0" "$later"
}

# Plug-ins that were linked: against this library and one of another soname, or one with the archive inside.
two_plugins() {
    compile plugin-now.so plugin.c -fPIC -shared -fvisibility=hidden "$library" -Wl,-rpath,"$BUILD" &&
        compile plugin-later.so plugin.c -fPIC -shared -fvisibility=hidden "$out/later/libpeft.so.9" \
            -Wl,-rpath,"$out/later" &&
        "$out/versions" local "$out/plugin-now.so" "$version" "$out/plugin-later.so" "$later"
}

two_static() {
    compile plugin-static.so plugin.c -fPIC -shared -fvisibility=hidden "$out/later/libpeft.a" -Wl,--exclude-libs,ALL ||
        return 1
    if nm -D --defined-only "$out/plugin-static.so" | grep ' peft_'; then return 1; fi
    for flags in local global; do
        "$out/versions" $flags "$out/plugin-now.so" "$version" "$out/plugin-static.so" "$later" &&
            "$out/versions" $flags "$out/plugin-static.so" "$later" "$out/plugin-now.so" "$version" || return 1
    done
}

linked() {
    compile "$1" "$1.c" "$BUILD/libpeft.a" && "$out/$1"
}

under_tsan() {
    make -s BUILD="$BUILD/tsan" CC=clang CFLAGS="-O1 -g" EXTRA="-fsanitize=thread" "$BUILD/tsan/libpeft.a" || return 1
    for program in many host; do
        CC=clang compile $program-tsan $program.c -fsanitize=thread "$BUILD/tsan/libpeft.a" &&
            "$out/$program-tsan" || return 1
    done
}

# Without threads: no warning, no thread function asked for, the same bits, and a host's pool still works.
without_threads() {
    make -s STRICT=1 BUILD="$out/serial" EXTRA=-DPEFT_NO_THREADS "$out/serial/libpeft.a" "$out/serial/peft" || return 1
    if nm -u "$out/serial/libpeft.a" | grep -E 'pthread_|thrd_|mtx_|cnd_'; then return 1; fi
    compile bits bits.c "$BUILD/libpeft.a" && compile bits-serial bits.c "$out/serial/libpeft.a" || return 1
    normal=$("$out/bits" 3) && serial=$("$out/bits-serial" 3) || return 1
    [ "${normal#* }" = 3 ] && [ "${serial#* }" = 1 ] && [ "${normal% *}" = "${serial% *}" ] || {
        echo "with threads $normal, without $serial"
        return 1
    }
    compile host-serial host.c -DHOST_NO_THREADS "$out/serial/libpeft.a" && "$out/host-serial"
}

# The unit tests, but those that make threads themselves.
without_threads_unit() {
    sources=$(ls tests/unit/*_test.c | grep -vE '/(base_threads.*|base_status|train_stop)_test.c')
    objects=$(echo tests/runner.c $sources | sed "s| |\n|g" | sed "s|^|$out/serial/obj/|; s|c$|o|" | tr '\n' ' ')
    make -s STRICT=1 BUILD="$out/serial" EXTRA=-DPEFT_NO_THREADS TEST_OBJECTS="$objects" "$out/serial/tests/unit" &&
        "$out/serial/tests/unit"
}

check libraries libraries
check bound bound
check reload reload
check reload-leaks reload_leaks
check reload-finds reload_finds
check two-files-local two_files local
check two-files-global two_files global
check two-plugins two_plugins
check two-static two_static
check host linked host
check fork linked fork
check many linked many
check tsan under_tsan
check no-threads without_threads
check no-threads-unit without_threads_unit
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
