"""rules.py - what the public header must keep so that every language can call it: each breach is a text that names it.

The rules are those of the project's interface: fixed-width types, opaque handles, no structures by value, no variables, no
variable arguments, callbacks with `user` first, every number of an enum written out, every function with a comment whose
marks say from where it may be called and since when it is there.

Left out: what the compilers check themselves, and whether a comment is true."""
import ctype


def known(api):
    names = set(ctype.SCALARS)
    for kind in ("handles", "structs", "callbacks", "aliases"):
        names.update(entry["name"] for entry in api[kind])
    return names


def check_type(what, made, api, out, where="parameter"):
    """One type: known, and passed as C passes it everywhere."""
    if made["base"] == "function":
        check_type(what + ", result", made["result"], api, out, "result")
        for parameter in made["parameters"]:
            check_type("%s, parameter %s" % (what, parameter["name"]), parameter["type"], api, out)
        return
    base, depth = made["base"], ctype.depth(made)
    if base not in known(api):
        out.append('%s: the type "%s" is none that bindings know; use one of %s, a handle or a callback'
                   % (what, ctype.spell(made), ", ".join(s for s in ctype.SCALARS if s != "void")))
    elif depth == 0 and base in [s["name"] for s in api["structs"] + api["handles"]]:
        out.append('%s: the structure "%s" by value; pass a pointer' % (what, base))
    elif depth == 0 and base == "void" and where != "result":
        out.append('%s: "void" is no type of a value' % what)
    elif depth and base in [c["name"] for c in api["callbacks"]]:
        out.append('%s: a pointer to the callback "%s"; pass the callback itself' % (what, base))


def check_function(function, fact, api, out):
    name = function["name"]
    if not name.startswith("peft_"):
        out.append('%s: the name does not begin with "peft_"' % name)
    if fact.get("variadic"):
        out.append("%s: variable arguments; other languages cannot call it safely" % name)
    if not fact.get("prototype", True):
        out.append("%s: no prototype; write (void)" % name)
    if fact.get("body"):
        out.append("%s: a function with a body in the header; the library does not export it" % name)
    elif not fact.get("exported", True):
        out.append("%s: declared without PEFT_API" % name)
    if not function["doc"]:
        out.append("%s: no comment right before it" % name)
    check_type("%s: result" % name, function["result"], api, out, "result")
    for i, parameter in enumerate(function["parameters"]):
        if not parameter["name"]:
            out.append("%s: parameter %d has no name" % (name, i + 1))
        check_type("%s: parameter %s" % (name, parameter["name"]), parameter["type"], api, out)
    check_callbacks(function, api, out)


def check_callbacks(function, api, out):
    """A callback has a type of its own and is followed by what it gets as `user`."""
    callbacks = [c["name"] for c in api["callbacks"]]
    parameters = function["parameters"]
    for parameter, after in zip(parameters, parameters[1:] + [None]):
        what = "%s: parameter %s" % (function["name"], parameter["name"])
        if parameter["type"]["base"] == "function":
            out.append("%s: a function pointer spelled in place; give it a typedef" % what)
        elif parameter["type"]["base"] in callbacks and (after is None or after["name"] != "user"):
            out.append('%s: a callback must be followed by "void *user"' % what)


def check_marks(function, version, out):
    """The marks come last in the comment; `since` is a release that there is."""
    name = function["name"]
    if not function["doc"]:
        return
    if "since" not in function:
        out.append('%s: the comment does not end with its marks, such as "[any thread; since %s]"' % (name, version))
        return
    if numbers(function["since"]) > numbers(version):
        out.append("%s: since %s, but the header is of version %s" % (name, function["since"], version))


def numbers(version):
    return [int(n) for n in version.split(".")[:2]]


def check(api, facts):
    """(breaches, breaches of marks): lists of texts, empty where the header is as it should be."""
    out, marks = [], []
    version = ".".join(api["version"].split(".")[:2])
    for alias in api["aliases"]:
        if alias["name"] == "peft_status" and alias["type"] != {"base": "int32_t"}:
            out.append('peft_status: it is "%s", expected int32_t (the width of an enum is the compiler\'s)'
                       % ctype.spell(alias["type"]))
        elif alias["name"] != "peft_status":
            out.append("%s: another name for a type; only peft_status is one" % alias["name"])
    if "peft_status" not in [a["name"] for a in api["aliases"]]:
        out.append("peft_status: no such typedef")
    seen = {}
    for group in api["constants"]:
        for member in group["members"]:
            if member["value"] is None:
                out.append("%s: its value is not written out" % member["name"])
            elif not -2**31 <= member["value"] < 2**31:
                out.append("%s: %d does not fit into int32_t" % (member["name"], member["value"]))
            if not member["name"].startswith("PEFT_"):
                out.append('%s: the name does not begin with "PEFT_"' % member["name"])
            if member["value"] is not None and (group["prefix"], member["value"]) in seen:
                out.append("%s: the same number as %s" % (member["name"], seen[group["prefix"], member["value"]]))
            seen.setdefault((group["prefix"], member["value"]), member["name"])
    for callback in api["callbacks"]:
        first = (callback["parameters"] or [{"name": None, "type": {}}])[0]
        if first["name"] != "user" or first["type"] != ctype.make("void", ["mut"]):
            out.append('%s: the first parameter of a callback must be "void *user"' % callback["name"])
        check_type("%s: the callback" % callback["name"], dict(callback, base="function"), api, out)
    for struct in api["structs"]:
        for field in struct["fields"]:
            check_type("%s.%s" % (struct["name"], field["name"]), field["type"], api, out)
    names = [f["name"] for f in api["functions"]]
    out += ["%s: declared more than once" % name for name in sorted(set(names)) if names.count(name) > 1]
    for function in api["functions"]:
        check_function(function, facts.get(function["name"], {}), api, out)
        check_marks(function, version, marks)
    return out, marks
