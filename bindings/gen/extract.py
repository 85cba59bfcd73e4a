"""extract.py - reads the public header through clang's syntax tree and makes the description that api.json holds.

clang says what is declared and of which type; names of a callback's parameters, lengths of arrays and comments, which its
tree does not have or gives differently from version to version, are read from the text at the places that it names, and the
types of both readings must agree. Macros are not in the tree: the version and function-like macros are read from the text.

Left out: rules on what the header may contain (rules.py), sizes and offsets (layout.py)."""
import json
import os
import re
import subprocess

import ctype

MARKS = re.compile(r"\s*\[([^\[\]]*\bsince [0-9]+\.[0-9]+)\]\s*$")
SECTION = re.compile(r"/\* ==== (.*?) =+ \*/")
VERSION = re.compile(r"^#define PEFT_VERSION_(MAJOR|MINOR|PATCH) ([0-9]+)$", re.M)
THREADS = {"any thread": "any", "one thread": "one", "locks": "locks"}


class Failed(Exception):
    """The header or clang is not as expected; the text says what to do."""


def tree(path, clang="clang"):
    """clang's syntax tree of the header, each top-level node with the file that it is in as "in"."""
    command = [clang, "-std=c11", "-Xclang", "-ast-dump=json", "-fsyntax-only", "-Wno-everything", "-x", "c", path]
    environment = dict(os.environ, CCACHE_DISABLE="1")  # it would give the tree of a header that differs in comments only
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    except OSError as e:
        raise Failed("cannot run %s: %s (Debian: apt-get install clang)" % (clang, e.strerror))
    if done.returncode:
        raise Failed("clang cannot read %s: %s" % (path, done.stderr.decode("utf-8", "replace").strip().split("\n")[0]))
    nodes = json.loads(done.stdout.decode("utf-8"))["inner"]
    where = [None]
    for node in nodes:
        follow(node.get("loc", {}), where)
        node["in"] = where[0]
        for key, value in node.items():
            if key not in ("loc", "in"):
                follow(value, where)
    return nodes


def follow(value, where):
    """A location has its file only where that changes, in the order of the tree: where[0] is always the present one."""
    if isinstance(value, dict):
        if "file" in value and "offset" in value:
            where[0] = value["file"]
        for key, inside in value.items():
            if key != "includedFrom":
                follow(inside, where)
    elif isinstance(value, list):
        for inside in value:
            follow(inside, where)


def place(location):
    """Offset in the header's bytes; of a macro, where it is used."""
    return location.get("expansionLoc", location)["offset"]


class Header:
    """The text of the header, its comments and its sections by offset."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.text = f.read().decode("latin-1")  # one character a byte, as clang counts
        self.path = path
        self.comments = [(m.start(), m.end()) for m in re.finditer(r"/\*.*?\*/", self.text, re.S)]
        self.sections = [(m.start(), m.group(1).strip()) for m in SECTION.finditer(self.text)]
        found = dict(VERSION.findall(self.text))
        if sorted(found) != ["MAJOR", "MINOR", "PATCH"]:
            raise Failed("%s does not define PEFT_VERSION_MAJOR, _MINOR and _PATCH as numbers" % path)
        self.version = "%s.%s.%s" % (found["MAJOR"], found["MINOR"], found["PATCH"])

    def slice(self, node):
        """The node's text without comments and line ends."""
        begin, last = place(node["range"]["begin"]), node["range"]["end"]
        last = last.get("expansionLoc", last)
        text = re.sub(r"/\*.*?\*/", " ", self.text[begin:last["offset"] + last["tokLen"]], flags=re.S)
        return " ".join(re.sub(r"\bPEFT_API\b", " ", text).split())

    def section(self, offset):
        name = ""
        for start, title in self.sections:
            if start < offset:
                name = title
        return name

    def before(self, offset):
        """The comment that ends right before a declaration, headings excepted."""
        for start, end in self.comments:
            if end <= offset and not self.text[end:offset].strip():
                return "" if SECTION.match(self.text[start:end]) else tidy(self.text[start:end])
        return ""

    def behind(self, offset):
        """The comment on the same line behind a member; several members of a line share it."""
        line_end = self.text.find("\n", offset)
        for start, end in self.comments:
            if offset < start < line_end and not re.search(r"[{}]", self.text[offset:start]):
                return tidy(self.text[start:end])
        return ""


def tidy(comment):
    """A comment's text: lines of a paragraph joined; tables, which are indented further, kept line by line."""
    lines = [re.sub(r"^ ?\*( |$)", "", line.strip("\t ")) for line in comment[2:-2].split("\n")]
    out = []
    for i, line in enumerate(lines):
        raw = line.rstrip()
        flat = raw.strip()
        if i and raw.startswith("  "):
            out.append("    " + raw[2:])
        elif not flat:
            out.append("")
        elif out and out[-1] and not out[-1].startswith("    "):
            out[-1] += " " + flat
        else:
            out.append(flat)
    return "\n".join(out).strip()


def marks(doc):
    """(doc without its marks, {"threads", "callback_safe", "since"} or None); raises for marks that cannot be read."""
    found = MARKS.search(doc)
    if not found:
        return doc, None
    words = [" ".join(w.split()) for w in found.group(1).split(";")]
    threads = [THREADS[w] for w in words if w in THREADS]
    unknown = [w for w in words[:-1] if w not in THREADS and w != "callback-safe"]
    if len(threads) != 1 or unknown or not words[-1].startswith("since "):
        raise Failed('cannot read the marks [%s]: expected one of "any thread", "one thread", "locks", then perhaps '
                     '"callback-safe", then "since X.Y"' % found.group(1))
    return doc[:found.start()].rstrip(), {"threads": threads[0], "callback_safe": "callback-safe" in words,
                                          "since": words[-1].split()[1]}


def agree(what, text, clang):
    """The type read from the header's text, which must be the one that clang names."""
    name, made = ctype.read(text)
    _, other = ctype.read(clang)
    if ctype.bare(made) != ctype.bare(other):
        raise Failed('%s: the text says "%s", clang says "%s"' % (what, text, clang))
    return name, made


def buffer_roles(parameters):
    """Marks outputs of variable size: (data..., cap, *needed) are "data", "cap" and "needed"; the data are all of one type."""
    if [p["name"] for p in parameters[-2:]] != ["cap", "needed"]:
        return
    parameters[-2]["buffer"], parameters[-1]["buffer"] = "cap", "needed"
    for parameter in parameters[-3::-1]:
        if parameter["type"] != parameters[-3]["type"] or parameter["type"].get("pointers") != ["mut"]:
            break
        parameter["buffer"] = "data"


def function(node, header, problems):
    name = node["name"]
    doc, mark = header.before(place(node["range"]["begin"])), None
    try:
        doc, mark = marks(doc)
    except Failed as e:
        problems.append("%s: %s" % (name, e))
    parameters = []
    for parameter in [n for n in node.get("inner", []) if n["kind"] == "ParmVarDecl"]:
        what = "%s: parameter %s" % (name, parameter.get("name", "%d" % (len(parameters) + 1)))
        _, made = agree(what, header.slice(parameter), parameter["type"]["qualType"])
        parameters.append({"name": parameter.get("name"), "type": made})
    buffer_roles(parameters)
    _, result = ctype.read(node["type"]["qualType"].split("(")[0])
    kinds = [n["kind"] for n in node.get("inner", [])]
    entry = {"name": name, "group": header.section(place(node["loc"])), "result": result, "parameters": parameters, "doc": doc}
    entry.update(mark or {})
    facts = {"exported": "VisibilityAttr" in kinds, "body": "CompoundStmt" in kinds, "variadic": bool(node.get("variadic")),
             "prototype": not node["type"]["qualType"].endswith("()")}
    return entry, facts


def constant(node):
    """The value of a constant expression somewhere below a node; None without one."""
    if node["kind"] == "ConstantExpr":
        return int(node["value"])
    found = [constant(inside) for inside in node.get("inner", []) if "kind" in inside]
    return found[0] if found else None


def constants(node, header):
    """One enum: its comment, and each constant with its value (None where it is not written out) and comment."""
    out = []
    for member in [n for n in node.get("inner", []) if n["kind"] == "EnumConstantDecl"]:
        out.append({"name": member["name"], "value": constant(member), "doc": header.behind(place(member["range"]["begin"]))})
    return {"group": header.section(place(node["loc"])), "doc": header.before(place(node["loc"])), "members": out,
            "prefix": common_prefix([m["name"] for m in out])}


def common_prefix(names):
    """What all names of an enum begin with, to the last underscore: "PEFT_DTYPE"; "PEFT" where they share no more."""
    parts = [n.split("_") for n in names]
    shared = []
    for words in zip(*parts):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return "_".join(shared if shared != parts[0] else shared[:-1])


def record(node, header, alias):
    fields = []
    for field in [n for n in node.get("inner", []) if n["kind"] == "FieldDecl"]:
        if field.get("isBitfield"):
            raise Failed("field %s is a bit field, whose place is the compiler's" % field["name"])
        _, made = ctype.read(field["type"]["qualType"])
        if made["base"] == "function":  # names of its parameters are in the text only
            _, made = agree("%s.%s" % (node["name"], field["name"]), header.slice(field), field["type"]["qualType"])
        fields.append({"name": field["name"], "type": made, "doc": header.behind(place(field["range"]["end"]))})
    return {"name": alias["name"], "group": header.section(place(node["loc"])),
            "doc": header.before(place(alias["range"]["begin"])), "fields": fields}


def api(path, clang="clang"):
    """(description, facts by function, problems): problems are texts on what could not be read."""
    header, problems = Header(path), []
    out = {"version": header.version, "groups": [t for _, t in header.sections], "handles": [], "constants": [], "structs": [],
           "callbacks": [], "aliases": [], "functions": []}
    facts, records = {}, {}
    for node in tree(path, clang):
        if not node["in"] or os.path.realpath(node["in"]) != os.path.realpath(path) or node.get("isImplicit"):
            continue
        try:
            declaration(node, header, out, facts, records, problems)
        except (ctype.Unreadable, Failed) as e:
            problems.append("%s: %s" % (node.get("name", node["kind"]), e))
    typed = [entry["name"] for entry in out["handles"] + out["structs"]]
    problems += ["struct %s: no typedef of this name" % name for name in records if name and name not in typed]
    if not header.text.isascii():
        problems.append("the header has a character that is not ASCII; some compilers refuse it")
    for name in re.findall(r"^[ \t]*#[ \t]*define[ \t]+([A-Za-z_0-9]+)\(", header.text, re.M):
        problems.append("%s: a function-like macro; bindings cannot call it, make it a function" % name)
    return out, facts, problems


def declaration(node, header, out, facts, records, problems):
    """Puts one top-level node where it belongs."""
    kind = node["kind"]
    if kind == "FunctionDecl":
        entry, fact = function(node, header, problems)
        out["functions"].append(entry)
        facts[entry["name"]] = fact
    elif kind == "EnumDecl":
        if node.get("name"):
            problems.append("enum %s: a type of its own, whose width is the compiler's; write an unnamed enum" % node["name"])
        out["constants"].append(constants(node, header))
    elif kind == "RecordDecl":
        if node["tagUsed"] != "struct" or "name" not in node:
            problems.append("%s %s: bindings know only structures that have a name"
                            % (node["tagUsed"], node.get("name", "without name")))
        records[node.get("name")] = node
    elif kind == "VarDecl":
        problems.append("%s: an exported variable; make it a function" % node["name"])
    elif kind == "TypedefDecl":
        typedef(node, header, out, records)
    else:
        problems.append("%s: a %s, which bindings cannot have" % (node.get("name", "?"), kind))


def typedef(node, header, out, records):
    name, spelled = node["name"], node["type"]["qualType"]
    begin = place(node["range"]["begin"])
    common = {"name": name, "group": header.section(begin), "doc": header.before(begin)}
    if spelled.startswith("struct ") and "*" not in spelled:
        target = records.get(spelled.split()[1])
        if target is None or not target.get("completeDefinition"):
            out["handles"].append(common)
        else:
            out["structs"].append(record(target, header, node))
    elif "(*)" in spelled:
        _, made = agree(name, re.sub(r"^typedef\b", "", header.slice(node)), spelled)
        out["callbacks"].append(dict(common, result=made["result"], parameters=made["parameters"]))
    else:
        out["aliases"].append(dict(common, type=ctype.read(spelled)[1]))
