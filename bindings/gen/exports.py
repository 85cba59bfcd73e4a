"""exports.py - the lists of exported names: lib/libpeft.map for GNU and LLVM linkers (macOS's list is made from it by the
Makefile) and lib/libpeft.def for Windows.

In the map each release has a node with the functions that it added, which takes in the node before: a program that was
linked with a later library fails on an earlier one when it starts, by the name of the version, and a released node never
changes.

Left out: names that the library exports without the header saying so; there are none."""

def releases(api):
    """[(version, [names])] in the order of the versions."""
    found = {}
    for function in api["functions"]:
        found.setdefault(function.get("since", "0.1"), []).append(function["name"])
    return [(version, sorted(found[version])) for version in sorted(found, key=lambda v: [int(n) for n in v.split(".")])]


def version_script(api, first):
    out, before = ["/* libpeft.map - the names that the shared library exports, by the release that added them.",
                   " * %s */" % first], ""
    for version, names in releases(api):
        node = "LIBPEFT_%s" % version
        out += ["%s {" % node, "global:"] + ["    %s;" % name for name in names]
        if not before:
            out += ["local:", "    *;"]
        out.append("}%s;" % (" " + before if before else ""))
        before = node
    return "\n".join(out) + "\n"


def module_definition(api, first):
    out = ["; libpeft.def - the names that peft.dll exports.", "; %s" % first, "EXPORTS"]
    return "\n".join(out + ["    %s" % f["name"] for f in api["functions"]]) + "\n"
