#!/bin/sh
# extra-docs.sh [--write] [PAGE...] - the pages keep their word. In README.md, CONTRIBUTING.md, CHANGELOG.md and docs/:
#
#   links                 a relative link leads to a file, its #anchor to a heading
#   ```c runnable         compiles without a warning; a first line "/* name.c - ..." leaves it as name.c for later blocks
#   ```sh, first line     is executed with `set -eu`, in the page's order; its paths are those of the project's root
#     `# runs`
#   ```python, the same   is executed by $PEFT_DOCS_PYTHON (transformers, peft, llama-cpp-python); not run, and said, without
#   docs/peft.1           is what tools/man.sh makes of the tool's help
#   ```text help COMMAND  is what `peft COMMAND --help` prints; COMMAND is `peft` for the tool's own help
#
# With --write the help blocks and the manual page are filled in instead, and nothing is checked.
# Blocks run in a copy of the project's root whose build/ is the page's own, so that nothing here is written to.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
CC=${CC:-cc}
BUILD=${BUILD:-build}
make -s --no-print-directory BUILD="$BUILD" all >/dev/null || { echo "docs: $BUILD does not build"; exit 1; }
build=$(cd "$BUILD" && pwd)
write=
[ "${1:-}" = --write ] && { write=yes; shift; }
base=examples/demo/base/model.gguf
[ -n "$write" ] || [ -f "$base" ] || { echo "docs: $base does not exist: the examples of the pages cannot run (make base)"; exit 1; }
tmp=$(mktemp -d "${TMPDIR:-/tmp}/peft-docs.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
bad=0 ran=0 unrun=0
complain() {
    echo "docs: $1"
    bad=1
}

# ---- links -----------------------------------------------------------------------------------------------------------
# Lines of a page outside of code blocks.
prose() { awk '/^ *```/ {code = !code; next} !code' "$1"; }
# The anchors that GitHub gives to a page's headings.
anchors() {
    prose "$1" | sed -n 's/^##* //p' | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}
check_links() {
    page=$1
    prose "$page" | sed 's/`[^`]*`//g' | grep -o ']([^)]*)' | sed 's/^](//; s/)$//; s/ .*//' >"$tmp/links"
    while read -r link; do
        case $link in
            *://* | mailto:*) continue ;;
        esac
        path=${link%%#*}
        target=$page
        [ -z "$path" ] || target=$(dirname "$page")/$path
        if [ ! -e "$target" ]; then
            complain "$page: the link $link leads nowhere"
        elif [ "$link" != "$path" ] && ! anchors "$target" | grep -qx -e "${link#*#}"; then
            complain "$page: the link $link leads to no heading of $target"
        fi
    done <"$tmp/links"
}

# ---- blocks ----------------------------------------------------------------------------------------------------------
# Writes each block that is checked to $tmp/blocks/LINE, its kind (and command) to $tmp/blocks/LINE.kind; LINE is 00042.
cut_blocks() {
    rm -rf "$tmp/blocks"
    mkdir "$tmp/blocks"
    awk -v dir="$tmp/blocks" '
        function close_block() {
            if (kind == "c runnable" || kind ~ /^text help [a-z]+$/ || ((kind == "sh" || kind == "python") && first == "# runs")) {
                file = sprintf("%s/%05d", dir, start)
                printf "%s", text > file
                print kind > (file ".kind")
                close(file)
                close(file ".kind")
            }
        }
        /^ *```/ {
            if (inside) { close_block(); inside = 0; next }
            inside = 1; start = NR; text = ""; first = ""
            match($0, /^ */); indent = RLENGTH
            kind = substr($0, indent + 4)
            next
        }
        inside {
            line = substr($0, indent + 1)
            if (text == "") { first = line }
            text = text line "\n"
        }
        END { if (inside) { printf "docs: %s:%d: the code block has no end\n", FILENAME, start; exit 1 } }
    ' "$1" || bad=1
}
# A root for the blocks of one page.
make_tree() {
    rm -rf "$tmp/tree"
    mkdir -p "$tmp/tree/build"
    for entry in "$root"/*; do
        [ "$(basename "$entry")" = build ] || ln -s "$entry" "$tmp/tree/"
    done
    for entry in "$build"/peft "$build"/quickstart "$build"/dpo "$build"/serve "$build"/on_device "$build"/libpeft*; do
        [ -e "$entry" ] && ln -s "$entry" "$tmp/tree/build/"
    done
}
# run_block WHAT COMMAND...: in the tree; the end of its output where it fails
run_block() {
    what=$1
    shift
    ran=$((ran + 1))
    (cd "$tmp/tree" && "$@") >"$tmp/log" 2>&1 </dev/null || {
        complain "$what failed:"
        tail -n 12 "$tmp/log" | sed 's/^/    /'
    }
}
check_block() {
    page=$1 block=$2 place=$1:$(basename "$2" | sed 's/^0*//')
    kind=$(cat "$block.kind")
    case $kind in
        'c runnable')
            name=$(sed -n '1s|^/\* *\([a-z0-9_]*\.c\) .*|\1|p' "$block")
            name=${name:-block.c}
            cp "$block" "$tmp/tree/$name"
            run_block "$place (C)" "$CC" -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude -fsyntax-only "$name"
            ;;
        sh) run_block "$place (sh)" env -u PEFT_THREADS -u PEFT_ISA sh -eu "$block" ;;
        python)
            if [ -n "${PEFT_DOCS_PYTHON:-}" ]; then
                run_block "$place (python)" env PYTHONPATH=bindings/python LIBPEFT_LIBRARY=build/libpeft.so "$PEFT_DOCS_PYTHON" "$block"
            else
                unrun=$((unrun + 1))
            fi
            ;;
        'text help '*)
            command=${kind#text help }
            [ "$command" = peft ] && command=
            "$build/peft" $command --help >"$tmp/help"
            ran=$((ran + 1))
            diff -u "$block" "$tmp/help" >"$tmp/log" || {
                complain "$place is not what peft $command --help prints:"
                sed -n '3,20s/^/    /p' "$tmp/log"
            }
            ;;
    esac
}

# What the tool prints between the fences of the help blocks.
write_help() {
    awk -v tool="$build/peft" '
        inside && /^```/ { inside = 0 }
        !inside { print }
        /^```text help [a-z]+$/ {
            inside = 1
            command = tool " " ($3 == "peft" ? "" : $3) " --help"
            while ((command | getline line) > 0) { print line }
            close(command)
        }
    ' "$1" >"$tmp/page" && { cmp -s "$tmp/page" "$1" || cat "$tmp/page" >"$1"; }
}

[ $# -gt 0 ] || set -- README.md CONTRIBUTING.md CHANGELOG.md $(find docs/ -name '*.md' | sort)
for page in "$@"; do
    [ -f "$page" ] || { complain "$page does not exist"; continue; }
    if [ -n "$write" ]; then
        write_help "$page"
        continue
    fi
    check_links "$page"
    cut_blocks "$page"
    make_tree
    for block in "$tmp"/blocks/*.kind; do
        [ -f "$block" ] && check_block "$page" "${block%.kind}"
    done
done
sh tools/man.sh "$build/peft" >"$tmp/peft.1" || complain "tools/man.sh failed"
if [ -n "$write" ]; then
    cmp -s "$tmp/peft.1" docs/peft.1 || cat "$tmp/peft.1" >docs/peft.1
    exit $bad
fi
cmp -s "$tmp/peft.1" docs/peft.1 || complain "docs/peft.1 is not what the tool's help says: tests/lint/extra-docs.sh --write"
echo "docs: $ran blocks ran"
[ "$unrun" -eq 0 ] || echo "docs: $unrun Python blocks were not run: set PEFT_DOCS_PYTHON to a Python with transformers and peft"
exit $bad
