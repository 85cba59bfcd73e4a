#!/bin/sh
# man.sh PEFT - the manual page peft(1), made of what `PEFT --help` and `PEFT COMMAND --help` print. To stdout: docs/peft.1 is its output,
# written by tests/lint/extra-docs.sh --write and compared by `make lint`.
set -eu
peft=$1
help=$("$peft" --help)
version=$("$peft" --version | awk '{print $NF}')
commands=$(printf '%s\n' "$help" | awk '/^  [a-z]/ {print $1}')

# Lines of a help text as roff: options and commands become tagged paragraphs, a line that starts deeper goes on with the one above.
roff() {
    awk '
        function quoted(s) { gsub(/\\/, "\\e", s); gsub(/-/, "\\-", s); sub(/^[.\x27]/, "\\\\\\&&", s); return s }
        /^Usage: / { next }
        /^$/ { gap = 1; next }
        /^  [^ ]/ {
            line = substr($0, 3); at = match(line, /  +/)
            if (at == 0) { tag = line; text = "" } else { tag = substr(line, 1, at - 1); text = substr(line, at + RLENGTH) }
            printf ".TP\n.B %s\n%s\n", quoted(tag), quoted(text); gap = 0; next
        }
        /^ / { sub(/^ +/, ""); print quoted($0); next }
        { if (gap || NR == 1) { print ".PP" } print quoted($0); gap = 0 }'
}

printf '.TH PEFT 1 "" "libpeft %s" "User Commands"\n.SH NAME\npeft \\- %s\n' "$version" "$(printf '%s\n' "$help" | sed -n '1s/^[^-]*- //p')"
printf '.SH SYNOPSIS\n.B peft\n.I COMMAND\n[options]\n.SH COMMANDS\n'
printf '%s\n' "$help" | awk '/^  [a-z]/' | roff
for command in $commands; do
    text=$("$peft" "$command" --help)
    printf '.SH PEFT %s\n.PP\n%s\n' "$(echo "$command" | tr '[:lower:]' '[:upper:]')" \
        "$(printf '%s\n' "$text" | awk '/^Usage: /, /^$/' | sed 's/^Usage: //; s/^ *//; s/-/\\-/g; s/^\(.\)/.br\n\1/' | sed '/^$/d')"
    printf '%s\n' "$text" | sed 1d | awk '/^Usage: /, /^$/ {next} 1' | roff
done
printf '.SH ENVIRONMENT\n'
printf '%s\n' "$help" | sed -n '/^Environment: /,$p' | sed 's/^Environment: //' | roff
printf '.SH EXIT STATUS\n0 when all went well, 1 when the command failed, 2 when it was wrong, 130 after Ctrl\\-C.\n'
printf '.SH SEE ALSO\nThe pages in docs/ of the sources; the header peft.h, which is the manual of the C interface.\n'
