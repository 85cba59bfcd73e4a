#!/bin/sh
# exports.sh - lib/libpeft.map exports exactly what include/peft.h declares with PEFT_API; --write makes it so.
set -e
header=include/peft.h
map=lib/libpeft.map
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
version=$(awk '$2 ~ /^PEFT_VERSION_(MAJOR|MINOR)$/ {v = v s $3; s = "."} END {print v}' $header)
{
    echo "LIBPEFT_$version {"
    echo "global:"
    grep -v '^ *#' $header | tr '\n' ' ' | grep -o 'PEFT_API[^;]*' | sed 's/^[^(]*[ *]\(peft_[a-z0-9_]*\)(.*/    \1;/' | sort
    echo "local:"
    echo "    *;"
    echo "};"
} > "$tmp"
if [ "$1" = --write ]; then
    cp "$tmp" $map
elif ! diff -u $map "$tmp"; then
    echo "exports: $map is not what $header declares; run: sh tests/lint/exports.sh --write"
    exit 1
fi
# Every line between global and local is one name: a declaration that the pattern missed would show here.
bad=$(sed -n '/^global/,/^local/p' "$tmp" | grep -v '^ *peft_[a-z0-9_]*;$' | grep -v '^global:$\|^local:$' || true)
[ -z "$bad" ] || { echo "exports: cannot read: $bad"; exit 1; }
