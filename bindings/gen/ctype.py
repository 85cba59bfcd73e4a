"""ctype.py - the C types that the public header may use, as plain data, and a reader of C declarations.

A type is a dictionary:

    {"base": NAME, "pointers": ["mut" or "const", ...], "array": N}

"pointers" has one entry for each `*`, innermost first, which says whether what that pointer points to is const; "array" is
the length of an array (of a parameter: a promise to the reader, C passes a pointer). Both are left out when empty. A pointer
to a function that is spelled in place is {"base": "function", "result": TYPE, "parameters": [{"name", "type"}, ...]}.

Left out: everything that the header must not use anyway (qualifiers other than const, bit fields, unions, K&R declarations)."""
import re

# Types with the same width everywhere, and those whose width is a pointer's; `char` is a byte of text.
SCALARS = ("void", "char", "int32_t", "uint32_t", "int64_t", "uint64_t", "size_t", "float", "double", "uint8_t")
TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|\.\.\.|[*()\[\],;]")


class Unreadable(Exception):
    """A declaration outside of this small language; the text says which and why."""


class Reader:
    """Reads one declaration such as `const int64_t *row_offsets` or `void (*alloc)(void *user, size_t size)`."""

    def __init__(self, text):
        self.text = " ".join(text.split())
        self.tokens = TOKEN.findall(self.text)
        if "".join(self.tokens) != self.text.replace(" ", ""):
            self.fail("it has a character that a declaration cannot have")
        self.at = 0

    def fail(self, why):
        raise Unreadable('cannot read the declaration "%s": %s' % (self.text, why))

    def peek(self, ahead=0):
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ""

    def next(self):
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token):
        if self.next() != token:
            self.fail('"%s" expected' % token)

    def specifiers(self):
        """The words before the first `*`, name or parenthesis; returns (base, const)."""
        const, words = False, []
        while re.match(r"[A-Za-z_]", self.peek()):
            word = self.peek()
            if word == "const":
                const = True
            elif word in ("struct", "enum", "union") and not words:
                pass
            elif words and word not in ("int", "long", "short", "char", "unsigned", "signed", "double"):
                break
            else:
                words.append(word)
            self.at += 1
        if not words:
            self.fail("a type expected")
        return " ".join(words), const

    def declaration(self):
        """Returns (name or None, type)."""
        base, const = self.specifiers()
        pointers = []
        while self.peek() == "*":
            self.next()
            pointers.append("const" if const else "mut")
            const = self.peek() == "const"
            if const:
                self.next()
        made = make(base, pointers)
        if self.peek() == "(" and self.peek(1) == "*":
            return self.function(made)
        name = self.next() if re.match(r"[A-Za-z_]", self.peek()) else None
        if self.peek() == "[":
            self.next()
            made["array"] = int(self.next() or 0)
            self.expect("]")
        return name, made

    def function(self, result):
        self.expect("(")
        self.expect("*")
        name = self.next() if self.peek() != ")" else None
        self.expect(")")
        return name, {"base": "function", "result": result, "parameters": self.parameters()}

    def parameters(self):
        self.expect("(")
        if self.peek() == "void" and self.peek(1) == ")":
            self.at += 2
            return []
        found = []
        while True:
            if self.peek() == "...":
                self.fail("variable arguments are not allowed")
            name, made = self.declaration()
            found.append({"name": name, "type": made})
            token = self.next()
            if token == ")":
                return found
            if token != ",":
                self.fail('"," or ")" expected')


def make(base, pointers=(), array=0):
    made = {"base": base}
    if pointers:
        made["pointers"] = list(pointers)
    if array:
        made["array"] = array
    return made


def read(text):
    """(name or None, type) of one declaration, to its end."""
    reader = Reader(text)
    name, made = reader.declaration()
    if reader.at < len(reader.tokens):
        reader.fail('"%s" is too much' % reader.peek())
    return name, made


def bare(made):
    """The type without names of parameters, and with arrays as the pointers that C passes: to compare two readings."""
    if made["base"] == "function":
        parameters = [bare(p["type"]) for p in made["parameters"]]
        return {"base": "function", "result": bare(made["result"]), "parameters": parameters}
    return decayed(made)


def decayed(made):
    """The type as C passes it: an array is a pointer."""
    if not made.get("array"):
        return made
    return make(made["base"], made.get("pointers", []) + ["mut"])


def depth(made):
    return len(decayed(made).get("pointers", []))


def spell(made, name=""):
    """The declaration in C, as the header writes it."""
    if made["base"] == "function":
        inside = ", ".join(spell(p["type"], p["name"] or "") for p in made["parameters"]) or "void"
        return "%s(*%s)(%s)" % (lead(made["result"]), name, inside)
    text = lead(made) + name
    if made.get("array"):
        text += "[%d]" % made["array"]
    return text.rstrip()


def lead(made):
    """What stands before the name: "const char *const *", or "size_t " with its space."""
    pointers = made.get("pointers", [])
    text = ("const " if pointers and pointers[0] == "const" else "") + made["base"] + " "
    for level in range(len(pointers)):
        text += "*"
        if level + 1 < len(pointers) and pointers[level + 1] == "const":
            text += "const "
    return text


def signature(function):
    """A function or callback of the interface as one line of C, without the semicolon."""
    inside = ", ".join(spell(p["type"], p["name"] or "") for p in function["parameters"]) or "void"
    return "%s%s(%s)" % (lead(function["result"]), function["name"], inside)


def wrapped(function, width=100):
    """The same on several lines where one would be too long."""
    line = signature(function)
    if len(line) <= width:
        return line
    start = line.index("(") + 1
    lines, now = [], line[:start]
    for i, parameter in enumerate(function["parameters"]):
        piece = spell(parameter["type"], parameter["name"]) + ("," if i + 1 < len(function["parameters"]) else ")")
        if len(now) + len(piece) + 1 > width and now.strip() and not now.endswith("("):
            lines.append(now)
            now = " " * min(start, 8) + piece
        else:
            now += piece if now.endswith("(") else " " + piece
    return "\n".join(lines + [now])
