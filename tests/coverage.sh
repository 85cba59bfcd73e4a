#!/bin/sh
# coverage.sh - lines of lib/ that the unit tests ran, from the counts that gcc left in $BUILD; the last line is the sum.
set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$(pwd)
find "$BUILD/obj/lib" -name '*.gcda' | sed "s|^|$root/|" > "$work/list"
(cd "$work" && xargs gcov -r -s "$root" < list > out 2>/dev/null)
# One file reached from several objects (a header) counts once, with its best run.
awk '
    /^File / { split($0, part, "\047"); file = part[2] }
    /^Lines executed:/ && file ~ /^lib\// {
        split($0, part, /[:% ]/); percent = part[3]; n = part[length(part)] + 0
        if (!(file in best) || percent > best[file]) { best[file] = percent; lines[file] = n }
        file = ""
    }
    END {
        for (file in best) {
            printf "%6.1f %% of %5d  %s\n", best[file], lines[file], file | "sort -k4"
            hit += best[file] * lines[file] / 100; all += lines[file]
        }
        close("sort -k4")
        if (all) printf "%6.1f %% of %5d  all\n", 100 * hit / all, all
    }' "$work/out"
