#!/bin/sh
# total.sh PROGRAM... - runs test programs that end with "N passed, N failed" and prints the sum as the last line.
# A program that ends in another way (a crash, say) counts as one failure.
passed=0
failed=0
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT
for program in "$@"; do
    case $program in
        *.sh) bash "$program" > "$log" 2>&1 ;;
        *) "$program" > "$log" 2>&1 ;;
    esac
    code=$?
    last=$(tail -n 1 "$log")
    counts=$(printf '%s\n' "$last" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p')
    if [ -n "$counts" ]; then
        sed '$d' "$log"
        echo "$program: $last"
        passed=$((passed + ${counts% *}))
        failed=$((failed + ${counts#* }))
        if [ "$code" -ne 0 ] && [ "${counts#* }" -eq 0 ]; then
            echo "$program: exit code $code"
            failed=$((failed + 1))
        fi
    else
        cat "$log"
        echo "$program: ended with code $code and without a count"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
