#!/bin/sh
# reproducible.sh - the same bytes, whoever builds it where and when: libpeft.so, libpeft.a and the tool.
#
#     make check-reproducible      (MAKE, BUILD; the compiler and flags are those of the make above)
#
# $BUILD is one build. The other is made here, later, in a folder with another name and depth, from sources with other dates, in
# another order of jobs, with another time zone, language and umask. With -g, one file is compiled in both places; without the
# Makefile's REPRODUCIBLE its bytes must differ, or this test sees nothing. Ends with `N passed, N failed`.
#
# Left out: other versions of the compiler, whose code is another.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
export CCACHE_DISABLE=1 # or the second build is a copy of the first
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
other="$tmp/a second place/further/down"
pass() { passed=$((passed + 1)) && echo "ok     $1"; }
fail() { failed=$((failed + 1)) && echo "FAIL   $1"; }

copy() {
    mkdir -p "$other" && cp -r Makefile include lib examples "$other" && find "$other" -type f -exec touch -d '1999-12-31 23:59' {} +
}
# In the other place, with another environment.
elsewhere() {
    (cd "$other" && umask 077 && TZ=Pacific/Apia LC_ALL=C.UTF-8 $MAKE --no-print-directory BUILD=out "$@")
}
# same NAME FILE FILE: says for an archive or a program where they differ first
same() {
    if [ -s "$2" ] && cmp "$2" "$3" >"$tmp/log" 2>&1; then pass "$1: $(wc -c <"$2") bytes, $(cksum <"$2" | cut -d' ' -f1)"; else fail "$1: $(cat "$tmp/log")"; fi
}
silent() { # NAME FILE
    if grep -qaF -e "$PWD" -e "$tmp" "$2"; then fail "$1 says where it was built"; else pass "$1 does not say where it was built"; fi
}
debugged() { # NAME WANTED [VARIABLE=VALUE]
    name=$1 wanted=$2 object=obj/lib/base/utf8.o
    shift 2
    rm -rf "$tmp/here" "$other/out/$object"
    $MAKE --no-print-directory BUILD="$tmp/here" CFLAGS='-O1 -g' "$@" "$tmp/here/$object" >"$tmp/log" 2>&1 &&
        elsewhere CFLAGS='-O1 -g' "$@" "out/$object" >>"$tmp/log" 2>&1 || { fail "$name: $(tail -n 1 "$tmp/log")" && return; }
    if cmp -s "$tmp/here/$object" "$other/out/$object"; then got=same; else got=different; fi
    [ "$got" = "$wanted" ] && pass "$name: $got" || fail "$name: $got, expected $wanted"
}

copy || exit 1
if elsewhere out/libpeft.a out/peft "out/$(readlink "$BUILD/libpeft.so")" >"$tmp/log" 2>&1; then
    pass "a second build"
    for file in libpeft.so libpeft.a peft; do
        same "$file" "$BUILD/$file" "$other/out/$file"
        silent "$file" "$BUILD/$file"
    done
    debugged "an object with -g" same
    debugged "an object with -g that says where" different REPRODUCIBLE=
else
    fail "a second build: $(tail -n 5 "$tmp/log")"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
