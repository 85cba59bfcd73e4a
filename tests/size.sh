#!/bin/sh
# size.sh [FULL MINIMAL] - sizes of the two shared libraries, stripped, against their limits, and what they need of the system.
# By default build/libpeft.so and build/minimal/libpeft.so (make; make MINIMAL=1 BUILD=build/minimal).
full=${1:-build/libpeft.so}
minimal=${2:-build/minimal/libpeft.so}
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
count() { # CODE TEXT
    if [ "$1" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)) && printf 'not '; fi
    echo "ok $2"
}
try() { # FILE LIMIT
    strip -o "$tmp/lib" "$1" || : >"$tmp/lib"
    size=$(wc -c <"$tmp/lib")
    [ "$size" -gt 0 ] && [ "$size" -le "$2" ]
    count $? "$1: $size bytes stripped, at most $2"
    needs=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libpthread|ld-linux[-a-z0-9_]*)\.so' | tr '\n' ' ')
    [ -s "$tmp/lib" ] && [ -z "$needs" ]
    count $? "$1 needs libc and libm only${needs:+, not $needs}"
}
try "$full" 1500000
try "$minimal" 409600
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
