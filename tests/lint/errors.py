"""errors.py - docs/errors.md quotes what is printed: each message of its tables is a text of the sources, and its table of statuses
is that of include/peft.h and of the exceptions of Python.

A table whose first column is "Message" has messages in the code spans of that column, `...` standing for what is filled in. Each is
compared with every string of lib/, include/, examples/ and bindings/ (adjacent literals joined; %-directives, braces of Rust and
macros between literals are holes): its literal text must be there in order with nothing left out but at its holes. So

    `...` in the middle     is one hole or several, with dots between: a version is one `...`
    `...` at the end        is the rest of the string, whatever it is
    a word in a hole        is what that hole is filled with: `--method ...: no such method` is "%s %s: no such method"
    `...: ` at the front    may be what a caller put before the text

At least half of the letters must be literal text of that string, and MIN_LETTERS of them: "%s: %s" prints anything.

Usage: errors.py [ROOT]. Exit code 1 where something is not as it is printed.
"""
import ast
import difflib
import os
import re
import sys

PAGE = "docs/errors.md"
PLACES = ("lib", "include", "examples", "bindings/python/libpeft", "bindings/rust/libpeft/src", "bindings/rust/libpeft-sys/build.rs")
HOLE = "\0"
WORD = r"[\w+/-]+"
MIN_LETTERS = 8
C_TOKEN = re.compile(r"""(?P<comment>/\*.*?\*/|//[^\n]*)|(?P<char>'(?:\\.|[^'\\\n])')|(?P<text>"(?:[^"\\]|\\.)*")"""
                     r"""|(?P<macro>\b[A-Z][A-Za-z0-9_]*\b)|(?P<space>\s+)|(?P<other>.)""", re.S)
DIRECTIVE = re.compile(r"%[-+ #0]*(?:\*|\d+)?(?:\.(?:\*|\d+))?(?:hh|h|ll|l|z|j|t)?[a-zA-Z]")
ESCAPES = {"n": "\n", "t": "\t", "\n": ""}


def unescape(literal):
    return re.sub(r"\\(.)", lambda m: ESCAPES.get(m.group(1), m.group(1)), literal[1:-1], flags=re.S)


def holes(text, braces):
    """The text with a HOLE for each thing that is filled in."""
    text = DIRECTIVE.sub(HOLE, text).replace("%%", "%")
    return re.sub(r"\{[a-z_0-9:?.]*\}", HOLE, text) if braces else text


def c_strings(source, braces):
    """Strings of C or Rust; those that only spaces, comments and macros are between are one."""
    joined, between = "", ""  # between: holes of macros since the last literal
    for token in C_TOKEN.finditer(source + ";"):
        kind = token.lastgroup
        if kind == "text":
            joined += between * bool(joined) + holes(unescape(token.group()), braces)
            between = ""
        elif kind == "macro":
            between += HOLE
        elif kind in ("other", "char"):
            if joined:
                yield joined
            joined, between = "", ""


def python_strings(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield holes(node.value, False)


def all_strings(root):
    found = set()
    for place in PLACES:
        top = os.path.join(root, place)
        paths = [top] if os.path.isfile(top) else [os.path.join(at, name) for at, _, names in os.walk(top) for name in names]
        for path in sorted(paths):
            if not path.endswith((".c", ".h", ".rs", ".py")):
                continue
            with open(path, encoding="utf-8") as file:
                source = file.read()
            found.update(python_strings(source) if path.endswith(".py") else c_strings(source, path.endswith(".rs")))
    return {text: set(re.findall(WORD, text)) for text in sorted(found) if " " in text}


def rows(page):
    """Each row of the page's tables as (line number, cells); the row of names comes with the line number 0."""
    before = False
    for number, line in enumerate(page.splitlines(), 1):
        table = line.startswith("|")
        if table and not re.fullmatch(r"[|\- :]+", line):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            yield number if before else 0, cells
        before = table


def messages(page):
    first = ""
    for number, cells in rows(page):
        if number == 0:
            first = cells[0]
        elif first == "Message":
            yield from ((number, text) for text in re.findall(r"`([^`]+)`", cells[0]) or [""])


def pattern(message):
    """What a string of the sources must be, its holes being HOLE, for the message to be printed by it; a group for each word."""
    parts = re.findall(r"\.\.\.|" + WORD + "|.", message, flags=re.S)
    out = ""
    for i, part in enumerate(parts):
        if part == "...":
            out += ".*" if i == len(parts) - 1 and i > 0 else r"[\0.]+"
        elif re.match(WORD, part):
            out += r"(%s|\0)\0*" % re.escape(part)
        else:
            out += re.escape(part) + r"\0*"
    return re.compile(r"\0*" + out, re.S)


def is_printed(message, strings):
    """Whether one of the strings, a dict of text and its words, prints it: with at least half of the message's letters."""
    rest = message
    while True:
        words = re.findall(WORD, rest)
        enough, wanted = max(MIN_LETTERS, sum(map(len, words)) / 2), pattern(rest)
        for text, there in strings.items():
            if sum(len(word) for word in words if word in there) < enough:
                continue
            match = wanted.fullmatch(text)
            if match and sum(len(word) for word in match.groups() if word != HOLE) >= enough:
                return True
        if not rest.startswith("...: "):
            return False
        rest = rest[len("...: "):]


def check_messages(page, strings):
    count, complaints = 0, []
    for number, message in messages(page):
        count += 1
        if not is_printed(message, strings):
            near = difflib.get_close_matches(message, [s.replace(HOLE, "...") for s in strings], 1, 0.5)
            complaints.append("%s:%d: no source prints `%s`%s" % (PAGE, number, message, "; nearest: `%s`" % near[0] if near else ""))
    if count < 50:
        complaints.append("%s: only %d messages were found in it" % (PAGE, count))
    return count, complaints


def check_statuses(page, header, exceptions):
    """Rows | `PEFT_E_X` | -1 | `XError` | ... against the enum of the header and the classes of Python."""
    wanted = dict(re.findall(r"\b(PEFT_E_\w+) = (-\d+)", header))
    pairs = re.findall(r"^class (\w+)\((?:(?!^class ).)*?^    status = _ffi\.(PEFT_E_\w+)", exceptions, re.S | re.M)
    classes = {name: kind for kind, name in pairs}
    found = {cells[0].strip("`"): (cells[1], cells[2].strip("`")) for _, cells in rows(page) if cells[0].startswith("`PEFT_E_")}
    return ["%s: the row of %s has %s, expected %s" % (PAGE, name, found.get(name), (wanted.get(name), classes.get(name)))
            for name in sorted(set(wanted) | set(found)) if found.get(name) != (wanted.get(name), classes.get(name))]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."

    def read(path):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            return file.read()

    page, strings = read(PAGE), all_strings(root)
    count, complaints = check_messages(page, strings)
    complaints += check_statuses(page, read("include/peft.h"), read("bindings/python/libpeft/_errors.py"))
    for complaint in complaints:
        print("errors: " + complaint.replace("\n", "\\n"))
    print("errors: %d messages of %s looked for among %d strings" % (count, PAGE, len(strings)))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
