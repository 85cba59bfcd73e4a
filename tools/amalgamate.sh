#!/bin/sh
# amalgamate.sh FOLDER [minimal] - writes the library as two files, FOLDER/peft.c and FOLDER/peft.h: `cc -O2 -c peft.c`.
#
# The internal headers come first, each once and before those that use it, then the sources in the order of lib/sources.txt;
# templates (*.inc) and headers without an include guard stay where they are included. What the Makefile says by flags stands
# at the top: feature macros, no fused products, hidden names. PEFT_MINIMAL leaves out what lib/minimal.txt does not list;
# with `minimal` that is not written at all. Run from the project's root.
# Left out: #line (a debugger shows peft.c), renaming, removal of comments. Needs sh and awk only.
set -eu
out=${1:?usage: amalgamate.sh FOLDER [minimal]}
mode=${2:-full}
mkdir -p "$out"
awk -v mode="$mode" '
function fail(text) { print "amalgamate: " text | "cat >&2"; failed = 1; exit 1 }
function exists(path,    line, there) {
    if (path in known) return known[path]
    there = (getline line < path) >= 0
    if (there) close(path)
    return known[path] = there
}
# The include guard that a file opens with; "": it is to stand wherever it is included.
function guard_of(path,    line) {
    if (path in guards) return guards[path]
    while ((getline line < path) > 0 && line !~ /^#/) continue
    close(path)
    return guards[path] = line ~ /^#ifndef [A-Z0-9_]+_H$/ ? substr(line, 9) : ""
}
# Does the line belong to the include guard? Counts the conditionals around the place meanwhile; level[path]: those of the file.
function conditional(path, line) {
    if (line ~ /^# *if/) {
        if (level[path]++ == 0 && guard_of(path) != "") return 1
        depth++
    } else if (line ~ /^# *endif/) {
        if (--level[path] == 0 && guard_of(path) != "") return 1
        depth--
    }
    return guard_of(path) != "" && line == "#define " guard_of(path)
}
# What a line includes: "<x>" of the system, a path of ours, "" nothing.
function included(line,    name) {
    if (line !~ /^# *include /) return ""
    name = line
    sub(/^# *include */, "", name)
    if (name ~ /^</) { sub(/>.*/, ">", name); return name }
    sub(/^"/, "", name)
    sub(/".*/, "", name)
    return name == "peft.h" || exists("lib/" name) ? name : ""
}
# First pass: system headers that stand under no condition, and guarded headers, those below before those above.
function gather(path,    line, name) {
    level[path] = 0
    while ((getline line < path) > 0) {
        if (conditional(path, line)) continue
        name = included(line)
        if (name ~ /^</) {
            if (depth == 0 && !(name in system_at)) { system_at[name] = ++systems; system_name[systems] = name }
        } else if (name != "" && name != "peft.h" && !(name in taken)) {
            if (guard_of("lib/" name) != "") {
                if (depth != 0) fail(path " is the first to include " name ", and under a condition")
                taken[name] = 1
            }
            gather("lib/" name)
            if (name in taken) header[++headers] = name
        }
    }
    close(path)
}
# Second pass: a file as it is, but for its guard and its includes.
function emit(path,    line, name) {
    level[path] = 0
    while ((getline line < path) > 0) {
        if (conditional(path, line)) continue
        name = included(line)
        if (name == "") print line
        else if (name ~ /^</) {
            if (!(name in system_at)) print "PEFT__SYSTEM_OPEN\n" line "\nPEFT__SYSTEM_CLOSE"
        } else if (name != "peft.h" && !(name in taken)) emit("lib/" name)
    }
    close(path)
}
function banner(name,    line) {
    line = "/* ==== " name " "
    while (length(line) < 117) line = line "="
    print "\n" line " */\n"
}
function read_list(path, list,    line, n) {
    while ((getline line < path) > 0) if (line != "") { list[++n] = line; list[line] = n }
    close(path)
    if (!n) fail(path " is empty or missing")
    return n
}
function head() {
    print "/* peft.c - libpeft as one file; peft.h, the manual, belongs beside it. cc -O2 -c peft.c"
    print " *"
    print " * Written by tools/amalgamate.sh from the files under lib/; change those. No flags are needed. Worth knowing:"
    print " *   -pthread -lm        at linking"
    print " *   -DPEFT_BUILD        the functions of peft.h leave a shared library; without it nothing does, so that any number of"
    print " *                       plug-ins may carry a copy of their own"
    print " *   -DPEFT_MINIMAL      LoRA on Llama models only, about a third of the size"
    print " *   -DPEFT_NO_THREADS   all work on the calling thread */"
    if (mode == "minimal") print "#ifndef PEFT_MINIMAL\n#define PEFT_MINIMAL\n#endif"
    print "#ifndef _POSIX_C_SOURCE\n#define _POSIX_C_SOURCE 200809L\n#endif"
    print "#ifndef _DEFAULT_SOURCE\n#define _DEFAULT_SOURCE 1\n#endif"
    print "\n/* The same bits from every compiler: nothing is fused but what the source says. GCC has no pragma of the standard. */"
    print "#if defined(__clang__) || !defined(__GNUC__)\n#pragma STDC FP_CONTRACT OFF\n#else"
    print "#pragma GCC optimize(\"fp-contract=off\")\n#endif\n"
    for (i = 1; i <= systems; i++) print "#include " system_name[i]
    print "\n/* Names stay inside the program or shared library that this is linked into; those of the system are elsewhere. */"
    print "#if defined(__ELF__) || defined(__APPLE__)"
    print "#define PEFT__SYSTEM_OPEN  _Pragma(\"GCC visibility push(default)\")"
    print "#define PEFT__SYSTEM_CLOSE _Pragma(\"GCC visibility pop\")"
    print "#pragma GCC visibility push(hidden)\n#else"
    print "#define PEFT__SYSTEM_OPEN\n#define PEFT__SYSTEM_CLOSE\n#endif\n\n#include \"peft.h\""
}
BEGIN {
    sources = read_list("lib/sources.txt", source)
    read_list("lib/minimal.txt", small)
    for (i = 1; i <= sources; i++) if (mode == "full" || source[i] in small) gather("lib/" source[i])
    head()
    for (i = 1; i <= headers; i++) { banner(header[i]); emit("lib/" header[i]) }
    for (i = 1; i <= sources; i++) {
        if (mode != "full" && !(source[i] in small)) continue
        banner(source[i])
        if (!(source[i] in small)) print "#ifndef PEFT_MINIMAL"
        emit("lib/" source[i])
        if (!(source[i] in small)) print "#endif /* PEFT_MINIMAL */"
    }
    print "\n#if defined(__ELF__) || defined(__APPLE__)\n#pragma GCC visibility pop\n#endif"
}
END { if (failed) exit 1 }
' </dev/null >"$out/peft.c.new"
# The header as it is, but for its marks: it declares functions of the program itself, not of a shared library.
awk '
{ print }
/^#define PEFT_H$/ {
    print "\n/* This copy belongs to peft.c: no marks for shared libraries, unless it is to become one. */"
    print "#if !defined(PEFT_BUILD) && !defined(PEFT_SHARED) && !defined(PEFT_STATIC)\n#define PEFT_STATIC\n#endif"
}' include/peft.h >"$out/peft.h.new"
for file in peft.c peft.h; do
    cmp -s "$out/$file.new" "$out/$file" 2>/dev/null && rm "$out/$file.new" || mv "$out/$file.new" "$out/$file"
done
