#!/bin/sh
# run.sh - are the library and the tool built as the Makefile's HARDEN says?
#
#     BUILD=build CC=cc sh tests/hardening/run.sh [FILE...]      by default $BUILD/libpeft.so and $BUILD/peft
#
# Reads the files with readelf. Then the checks themselves: of a small library and a small program that have everything, and of
# those which lack one thing each, every check must find what is missing and nothing else. Ends with `N passed, N failed`.
# CANARIES=no: a build without the compiler's part (make MINIMAL=1) is held to the linker's alone.
#
# Left out: how many functions have canaries; what the loader makes of all this.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
CC=${CC:-cc}
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
pass() { passed=$((passed + 1)) && echo "ok     $1"; }
fail() { failed=$((failed + 1)) && echo "FAIL   $1"; }

# ---- checks: each is a question about the file whose texts `look` has read ------------------------------------------

look() { # FILE
    readelf -hW "$1" >"$tmp/header" && readelf -lW "$1" >"$tmp/segments" && readelf -dW "$1" >"$tmp/dynamic" &&
        readelf -nW "$1" >"$tmp/notes" && readelf --dyn-syms -W "$1" >"$tmp/symbols"
}
imports() { grep -qE " UND ($1)(@|\$)" "$tmp/symbols"; }
relro() { grep -q ' GNU_RELRO ' "$tmp/segments"; }
bind_now() { grep -qE '\((FLAGS|FLAGS_1)\).*(BIND_NOW|NOW)|\(BIND_NOW\)' "$tmp/dynamic"; }
stack() { grep -qE ' GNU_STACK .* RW +0x' "$tmp/segments"; }
segments() { grep -q ' LOAD ' "$tmp/segments" && ! grep -qE ' LOAD .* RWE ' "$tmp/segments"; }
text() { [ -s "$tmp/dynamic" ] && ! grep -q 'TEXTREL' "$tmp/dynamic"; }
canaries() { imports '__stack_chk_fail'; }
fortified() { imports '__[a-z]+_chk'; }
moves() { grep -q 'Type: *DYN' "$tmp/header"; }
shadow() { grep -q 'x86 feature:.*SHSTK' "$tmp/notes"; }

# The checks that apply to the compiler and its processor.
checks='relro bind_now stack segments text moves'
machine=$($CC -dumpmachine)
knows() { $CC -Werror "$1" -fsyntax-only -x c /dev/null 2>/dev/null; }
if [ "${CANARIES:-}" != no ]; then
    knows -fstack-protector && checks="$checks canaries"
    case $machine in *musl*) ;; *) checks="$checks fortified" ;; esac
    case $machine in x86_64*) knows -fcf-protection=return && checks="$checks shadow" ;; esac
fi

# missing FILE: the checks that fail, in one line
missing() {
    look "$1" 2>"$tmp/log" || { echo "unreadable: $(head -n 1 "$tmp/log")" && return; }
    for check in $checks; do "$check" || printf '%s ' "$check"; done
}

# ---- the build ---------------------------------------------------------------------------------------------------

case $machine in
    *linux*) ;;
    *) echo "only for Linux: $machine" && echo "0 passed, 0 failed" && exit 0 ;;
esac
[ $# -gt 0 ] || set -- "$BUILD/libpeft.so" "$BUILD/peft"
for file in "$@"; do
    lacks=$(missing "$file")
    for check in $checks; do
        case " $lacks" in
            *' unreadable'* | *" $check "*) fail "$file: $check: ${lacks}" ;;
            *) pass "$file: $check" ;;
        esac
    done
done

# ---- the checks themselves ---------------------------------------------------------------------------------------

cat >"$tmp/a.c" <<'END'
#include <string.h>
#include <stdio.h>
int f(const char *s, size_t n);
int f(const char *s, size_t n) {
    char text[64];
    memcpy(text, s, n);
    return puts(text);
}
int main(int argc, char **argv) { return f(argv[0], (size_t)argc); }
END
# An address in the middle of code, which the loader must write there, and code among data.
printf '__asm__(".text\\n.dc.a f\\n");\n' | cat "$tmp/a.c" - >"$tmp/written.c"
printf '__asm__(".section .both,\\"awx\\"\\n.dc.a 0\\n");\n' | cat "$tmp/a.c" - >"$tmp/both.c"
hardened='-O2 -fPIC -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3'
linked=-Wl,-z,relro,-z,now,-z,noexecstack
case $checks in *shadow*) hardened="$hardened -fcf-protection=return" linked=$linked,-z,shstk ;; esac

# specimen EXPECTED NAME SOURCE FLAGS...: the checks that a file made so must fail, in the order of $checks
specimen() {
    expected=$1 name=$2 source=$3
    shift 3
    # shellcheck disable=SC2086
    if ! $CC $hardened $linked "$@" -o "$tmp/specimen" "$tmp/$source" 2>"$tmp/log"; then
        fail "$name: does not compile: $(head -n 1 "$tmp/log")"
        return
    fi
    got=$(missing "$tmp/specimen")
    [ "$got" = "$expected${expected:+ }" ] && pass "$name: ${expected:-nothing} missing" || fail "$name: missing ${got:-nothing}, expected ${expected:-nothing}"
}
applies() { case " $checks " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
each() { # KIND FLAG
    specimen '' "a hardened $1" a.c "$2"
    specimen relro "a $1 without relro" a.c "$2" -Wl,-z,norelro
    specimen bind_now "a lazy $1" a.c "$2" -Wl,-z,lazy
    specimen stack "a $1 with code on the stack" a.c "$2" -Wl,-z,execstack
    specimen segments "a $1 that may write its code" both.c "$2"
    specimen text "a $1 whose code is written by the loader" written.c "$2" -Wl,-z,notext
    ! applies canaries || specimen canaries "a $1 without canaries" a.c "$2" -fno-stack-protector
    ! applies fortified || specimen fortified "a $1 that is not fortified" a.c "$2" -U_FORTIFY_SOURCE
    whole=$linked linked=${linked%,-z,shstk}
    ! applies shadow || specimen shadow "a $1 without a shadow stack" a.c "$2" -fcf-protection=none
    linked=$whole
}
each library -shared
each program -pie
specimen moves "a program at a fixed place" a.c -no-pie
: >"$tmp/nothing"
[ "$(missing "$tmp/nothing" | cut -d: -f1)" = unreadable ] && pass "an empty file is refused" || fail "an empty file is refused"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
