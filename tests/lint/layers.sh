#!/bin/sh
# layers.sh - who may include whom in lib/: each folder sees the layers below it, and model and peft never each other.
bad=0
allowed() {
    case $1 in
        base) echo "base" ;;
        kernels) echo "base kernels" ;;
        io) echo "base io" ;;
        text) echo "base io text" ;;
        tensor) echo "base kernels tensor" ;;
        autograd) echo "base kernels tensor autograd" ;;
        optim) echo "base kernels tensor optim" ;;
        model) echo "base kernels io tensor autograd optim model" ;;
        peft) echo "base kernels io tensor autograd optim peft" ;;
        train) echo "base kernels io text tensor autograd optim model peft train" ;;
        infer) echo "base kernels io text tensor autograd optim model peft infer" ;;
        api) echo "base kernels io text tensor autograd optim model peft train infer api" ;;
    esac
}
for folder in lib/*/; do
    name=$(basename "$folder")
    may=$(allowed "$name")
    if [ -z "$may" ]; then
        echo "layers: lib/$name is no layer"
        bad=1
        continue
    fi
    found=$(find "$folder" -name '*.[ch]' -exec grep -Hn '^ *# *include *"' {} + | sed 's/^\([^:]*:[0-9]*\):[^"]*"\([^"]*\)".*/\1 \2/')
    while read -r place header; do
        [ -z "$place" ] && continue
        case $header in
            peft.h | simde_*.h) continue ;; # the latter: instruction sets in C, for tests/simde
            */*) ;;
            *)
                echo "layers: $place includes \"$header\", expected \"<folder>/$header\""
                bad=1
                continue
                ;;
        esac
        case " $may " in
            *" ${header%%/*} "*) ;;
            *)
                echo "layers: $place includes \"$header\"; $name may include: $may"
                bad=1
                ;;
        esac
        if [ ! -f "lib/$header" ]; then
            echo "layers: $place includes \"$header\", which does not exist"
            bad=1
        fi
    done <<LIST
$found
LIST
done
# The list of sources names every file once, and only files that exist.
listed=$(sort lib/sources.txt)
there=$(cd lib && find . -name '*.c' | sed 's|^\./||' | sort)
if [ "$listed" != "$there" ]; then
    echo "layers: lib/sources.txt (<) is not what lib/ holds (>):"
    printf '%s\n' "$listed" > "${TMPDIR:-/tmp}/layers.$$"
    printf '%s\n' "$there" | diff "${TMPDIR:-/tmp}/layers.$$" -
    rm -f "${TMPDIR:-/tmp}/layers.$$"
    bad=1
fi
exit $bad
