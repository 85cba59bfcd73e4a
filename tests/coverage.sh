#!/bin/sh
# coverage.sh - lines and branches that the tests ran, from the counts that gcc left in $BUILD: of lib/ and of the tool, of their builds
# in float and in double together, file by file; then of what reads files and texts of others, and of the library.
set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
find "$BUILD/obj/lib" "$BUILD/obj/double" "$BUILD/obj/examples" "$BUILD/obj/replay" -name '*.gcda' > "$work/list" 2> /dev/null || true
xargs gcov -b -c -t -r -s "$(pwd)" < "$work/list" > "$work/out" 2> /dev/null
# A line, or a branch of it, was run if any object with it says so.
awk '
    /^ *-: *0:Source:/ { file = $0; sub(/.*:Source:/, "", file); next }
    file !~ /^(lib|examples\/peft)\// { next }
    /^ *([0-9]+\*?|#####|=====): *[0-9]+:/ {
        split($0, part, ":"); line = file ":" part[2] + 0; branch = 0
        if (!(line in seen)) { seen[line] = 1; lines[file]++ }
        if (part[1] ~ /[0-9]/ && !(line in ran)) { ran[line] = 1; hit[file]++ }
        next
    }
    /^branch/ {
        arm = line ":" branch++
        if (!(arm in seen)) { seen[arm] = 1; arms[file]++ }
        if ($0 ~ /taken [1-9]/ && !(arm in ran)) { ran[arm] = 1; taken[file]++ }
    }
    function show(what, h, n, t, m) {
        return sprintf("%6.1f %% of %5d lines  %6.1f %% of %5d branches  %s", n ? 100 * h / n : 100, n, m ? 100 * t / m : 100, m, what)
    }
    function sum(what, pattern,    f, h, n, t, m) {
        for (f in lines) if (f ~ pattern) { h += hit[f]; n += lines[f]; t += taken[f]; m += arms[f] }
        print show(what, h, n, t, m)
    }
    END {
        for (file in lines) print show(file, hit[file], lines[file], taken[file], arms[file]) | "sort -k10"
        close("sort -k10")
        sum("lib/io", "^lib/io/"); sum("lib/text", "^lib/text/")
        sum("readers of adapters", "^lib/peft/(format_|hub|reader|check_files)"); sum("readers of models", "^lib/model/(config|load|rope_config)")
        sum("rows of data and checkpoints", "^lib/train/(rows|dataset|template|verbalizer|checkpoint)")
        sum("jobs_file.c and minijson.c", "^examples/peft/(jobs_file|minijson)"); sum("the tool", "^examples/peft/"); sum("all of lib", "^lib/")
    }' "$work/out"
