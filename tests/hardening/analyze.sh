#!/bin/sh
# analyze.sh [FILE...] - gcc's analyser (-fanalyzer) over the layers that read what others wrote: base, io, text, peft, api; or over
# these files. CC is gcc 12, other versions have other opinions. What it finds must be what analyze-known.txt explains, no more and no
# less. Then over a file with a leak and one with a second free, which it must find. Ends with `N passed, N failed`, a file each.
#
# Left out: the other layers; -O0, with which it believes that a status that was just set may be none.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-gcc}
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
[ $# -gt 0 ] || set -- lib/base/*.c lib/io/*.c lib/text/*.c lib/peft/*.c lib/api/*.c

# analyze FILE: its findings in $tmp/found, a line each: file|warning|expression. Fails where it does not compile.
analyze() {
    $CC -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -fvisibility=hidden -fPIC -Iinclude -Ilib -DPEFT_BUILD -O1 -fanalyzer \
        -c -o "$tmp/object.o" "$1" >"$tmp/log" 2>&1 || return 1
    sed -n "s/^\([^:]*\):[0-9]*:[0-9]*: warning: .*'\([^']*\)'.*\[-W\([a-z-]*\)\]$/\1|\3|\2/p" "$tmp/log" >"$tmp/all"
    sort -u "$tmp/all" >"$tmp/found"
    [ "$(grep -c ': warning:' "$tmp/log")" -eq "$(wc -l <"$tmp/all")" ]
}
grep -v '^#' tests/hardening/analyze-known.txt | cut -d'|' -f1-3 | sort >"$tmp/known"
for file in "$@"; do
    if ! analyze "$file"; then
        failed=$((failed + 1)) && echo "FAIL   $file: not analysed" && tail -n 5 "$tmp/log"
        continue
    fi
    grep "^$file|" "$tmp/known" >"$tmp/expected"
    if cmp -s "$tmp/found" "$tmp/expected"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1)) && echo "FAIL   $file: found (<) and known (>) differ"
        diff "$tmp/found" "$tmp/expected"
        cat "$tmp/log"
    fi
done

# finds NAME WARNING CODE
finds() {
    printf '#include <stdlib.h>\nint f(int n);\nint f(int n) {\n    char *p = malloc(8);\n    if (!p) { return 0; }\n%s\n}\n' "$3" >"$tmp/$1.c"
    if analyze "$tmp/$1.c" && grep -q "|$2|p\$" "$tmp/found"; then
        passed=$((passed + 1)) && echo "ok     $1 is found"
    else
        failed=$((failed + 1)) && echo "FAIL   $1 is not found: $(cat "$tmp/log")"
    fi
}
finds leak 'analyzer-malloc-leak' '    if (n > 3) { return 1; }
    free(p);
    return 2;'
finds second-free 'analyzer-double-free' '    if (n > 3) { free(p); }
    free(p);
    return 2;'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
