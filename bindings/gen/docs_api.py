"""docs_api.py - writes docs/api.md: every function by section with its signature, comment, threads and version, and the
table of symbols by version.

The header is the manual; this page is the same text with links, for reading beside it. Left out: anything that is not in the
header."""
import re
import textwrap

import ctype
import exports

WORD = re.compile(r"\b([A-Za-z0-9]+(?:_[A-Za-z0-9*]*)+\??)")
THREADS = {"any": "any thread", "one": "one thread at a time for each handle",
           "locks": "any thread; the handle orders its changes"}
ABOUT = """# C interface

<!-- %s -->

Version %s: %d functions, %d handles. The text is that of [include/peft.h](../include/peft.h), whose first comment has the
conventions: status codes, buffers, ownership, callbacks, threads. What options there are is in [options](options.md).

*Threads* says how a function may be called: by any number of threads at once; by one thread at a time for each handle; or by
any thread, the handle ordering what changes it. *In callbacks* says whether every callback may call it; the others may be
called by progress and token functions on other handles than the running one, never by log, allocator, release or parallel-for
functions.
"""


def anchor(title):
    return re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")


def plain(text, names, here=None, width=0):
    """A comment as Markdown: tables as code, names of functions as links, markup characters as they are."""
    out, table = [], False
    for line in text.split("\n"):
        if line.startswith("    ") != table:
            out += ["```", ""] if table else ["", "```text"]
            table = not table
        if table:
            out.append(line[4:])
            continue
        pieces = re.split(r"(`[^`]*`)", line)
        line = "".join(piece if i % 2 else marked(piece, names, here) for i, piece in enumerate(pieces))
        out.append(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if width else line)
    return "\n".join(out + (["```"] if table else []))


def marked(text, names, here):
    """Words with an underscore, PEFT_LOG_* among them, are code; everything else is text."""
    out = []
    for i, piece in enumerate(WORD.split(text)):
        out.append(link(piece, names, here) if i % 2 else re.sub(r"([\\<>*\[\]|])", r"\\\1", piece))
    return "".join(out)


def link(name, names, here):
    if name not in names or name == here:
        return "`%s`" % name
    return "[`%s`](#%s)" % (name, name)


def table_of_constants(group, names):
    out = ["", group["doc"] or "", ""] if group["doc"] else [""]
    described = any(m["doc"] for m in group["members"])
    out += ["| Name | Value | |", "|---|---|---|"] if described else ["| Name | Value |", "|---|---|"]
    for member in group["members"]:
        row = "| `%s` | %d |" % (member["name"], member["value"])
        out.append(row + (" %s |" % plain(member["doc"], names) if described else ""))
    return out


def table_of_fields(struct, names):
    out = ["", "### %s" % struct["name"], "", plain(struct["doc"], names, None, 120), ""]
    out += ["| Field | Type | Offset | |", "|---|---|---|---|"]
    for field, offset in zip(struct["fields"], struct["layout"]["lp64"]["offsets"]):
        out.append("| `%s` | `%s` | %d | %s |" % (field["name"], ctype.spell(field["type"]).replace("|", "\\|"), offset,
                                                 plain(field["doc"], names)))
    return out + ["", "Offsets are those of 64-bit systems."]


def function(entry, names):
    facts = ["*Threads:* %s" % THREADS[entry["threads"]] if "threads" in entry else "",
             "*In callbacks:* %s" % ("yes" if entry.get("callback_safe") else "no"),
             "*Since:* %s" % entry["since"] if "since" in entry else ""]
    return ["", "### %s" % entry["name"], "", "```c", ctype.wrapped(entry) + ";", "```", "",
            plain(entry["doc"], names, entry["name"], 120), "", " · ".join(f for f in facts if f)]


def section(title, api, order, names):
    out = ["", "## %s" % title]
    for handle in [h for h in api["handles"] if h["group"] == title]:
        text = plain(handle["doc"], names, None, 120) if handle["doc"] else "An opaque handle."
        out += ["", "### %s" % handle["name"], "", text]
    for group in [g for g in api["constants"] if g["group"] == title]:
        out += table_of_constants(group, names)
    for struct in [s for s in api["structs"] if s["group"] == title]:
        out += table_of_fields(struct, names)
    for callback in [c for c in api["callbacks"] if c["group"] == title]:
        line = "typedef " + ctype.spell({"base": "function", "result": callback["result"],
                                         "parameters": callback["parameters"]}, callback["name"]) + ";"
        out += ["", "### %s" % callback["name"], "", "```c", line, "```"]
        out += ["", plain(callback["doc"], names, None, 120)] if callback["doc"] else []
    for entry in sorted([f for f in api["functions"] if f["group"] == title], key=lambda f: order[f["name"]]):
        out += function(entry, names)
    return out


def page(api, first):
    """The text of docs/api.md; functions in the header's order."""
    names = {e["name"] for kind in ("functions", "handles", "structs", "callbacks") for e in api[kind]}
    order = {name: i for i, name in enumerate(api["order"])}
    out = [(ABOUT % (first, api["version"], len(api["functions"]), len(api["handles"]))).rstrip("\n"), ""]
    for title in api["groups"]:
        out.append("- [%s](#%s)" % (title, anchor(title)))
    out.append("- [Symbols by version](#symbols-by-version)")
    for title in api["groups"]:
        out += section(title, api, order, names)
    out += ["", "## Symbols by version", "", "| Function | Since | Node of the shared library |", "|---|---|---|"]
    for version, found in exports.releases(api):
        out += ["| [`%s`](#%s) | %s | `LIBPEFT_%s` |" % (name, name, version, version) for name in found]
    return "\n".join(out) + "\n"
