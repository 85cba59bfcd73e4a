#!/bin/sh
# exports.sh - the names in include/peft.h, bindings/api.json, lib/libpeft.map and lib/libpeft.def are the same. `make bindings`
# writes the last three; this check reads the four texts without clang and Python. That all else agrees: `make check-bindings`.
header=include/peft.h
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
grep -v '^ *#' $header | tr '\n' ' ' | grep -o 'PEFT_API[^;]*' | sed 's/^[^(]*[ *]\([A-Za-z0-9_]*\)(.*/\1/' | LC_ALL=C sort >"$tmp/header"
sed -n '/^ "functions": \[/,/^ \]/s/^  *{*"name": "\(peft_[a-z0-9_]*\)", *"group".*/\1/p
    /^ "functions": \[/,/^ \]/s/^   "name": "\([A-Za-z0-9_]*\)",$/\1/p' bindings/api.json | LC_ALL=C sort >"$tmp/api"
sed -n '/^global:/,/^}/s/^ *\([A-Za-z0-9_]*\);$/\1/p' lib/libpeft.map | LC_ALL=C sort >"$tmp/map"
sed -n '/^EXPORTS/,$s/^  *\([A-Za-z0-9_]*\)$/\1/p' lib/libpeft.def | LC_ALL=C sort >"$tmp/def"
bad=0
# A declaration that the pattern missed shows here: its line is not one name.
grep -vx 'peft_[a-z0-9_]*' "$tmp/header" && { echo "exports: cannot read that in $header"; bad=1; }
[ "$(wc -l <"$tmp/header")" -ge 50 ] || { echo "exports: found only $(wc -l <"$tmp/header") functions in $header"; bad=1; }
for list in api:bindings/api.json map:lib/libpeft.map def:lib/libpeft.def; do
    diff "$tmp/header" "$tmp/${list%%:*}" >"$tmp/diff" && continue
    echo "exports: ${list#*:} does not have the functions of $header; run: make bindings"
    sed -n 's/^</  missing:/p; s/^>/  too many:/p' "$tmp/diff" | head -n 12
    bad=1
done
exit $bad
