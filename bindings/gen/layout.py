"""layout.py - sizes and offsets of the public structures, and tests/abi/layout.c, whose static assertions hold the compilers
to them and to every number and signature of the interface.

Three data models differ for the types that the header uses: "lp64" (64-bit pointers, Windows included), "ilp32" (32-bit
pointers, eight-byte types aligned to eight: ARM, MIPS, RISC-V, WebAssembly, 32-bit Windows) and "i386" (the same with
eight-byte types aligned to four inside a structure: the System V convention of x86).

Left out: other models; an assertion says so where one meets them."""
import ctype

MODELS = {"lp64": {"pointer": 8, "wide": 8}, "ilp32": {"pointer": 4, "wide": 8}, "i386": {"pointer": 4, "wide": 4}}
SIZES = {"char": 1, "uint8_t": 1, "int32_t": 4, "uint32_t": 4, "float": 4, "peft_status": 4, "int64_t": 8, "uint64_t": 8,
         "double": 8}


def measure(made, model, callbacks):
    """(size, alignment) of a field."""
    if made.get("pointers") or made["base"] in ("function", "size_t") or made["base"] in callbacks:
        size = align = model["pointer"]
    else:
        size = SIZES[made["base"]]
        align = model["wide"] if size == 8 else size
    return size * made.get("array", 1), align


def layout(struct, model, callbacks):
    """Offsets, size and alignment by the rule that all these models share: each field at the next multiple of its alignment."""
    offsets, sizes, at, most = [], [], 0, 1
    for field in struct["fields"]:
        size, align = measure(field["type"], model, callbacks)
        at = (at + align - 1) // align * align
        offsets.append(at)
        sizes.append(size)
        at, most = at + size, max(most, align)
    return {"size": (at + most - 1) // most * most, "align": most, "offsets": offsets, "sizes": sizes}


def add(api):
    """Writes "layout" into the structures; a model other than lp64 only where it differs from the one before."""
    callbacks = [c["name"] for c in api["callbacks"]]
    for struct in api["structs"]:
        struct["layout"] = {}
        for name, model in MODELS.items():
            found = layout(struct, model, callbacks)
            if found not in struct["layout"].values():
                struct["layout"][name] = found


def condition(name):
    """The preprocessor's words for a model."""
    return {"lp64": "UINTPTR_MAX == UINT64_MAX", "i386": "defined(__i386__) && !defined(_WIN32)",
            "ilp32": "UINTPTR_MAX == UINT32_MAX"}[name]


def struct_asserts(struct):
    """The models from the most particular to the most general."""
    out, word = [], "#if"
    for name in ("lp64", "i386", "ilp32"):
        found = struct["layout"].get(name) or struct["layout"].get("ilp32") or struct["layout"]["lp64"]
        out.append("%s %s" % (word, condition(name)))
        out.append('_Static_assert(sizeof(%s) == %d, "size of %s");' % (struct["name"], found["size"], struct["name"]))
        for field, offset in zip(struct["fields"], found["offsets"]):
            out.append('_Static_assert(offsetof(%s, %s) == %d, "place of %s.%s");'
                       % (struct["name"], field["name"], offset, struct["name"], field["name"]))
        word = "#elif"
    return out + ["#else", '#error "no layout is known for pointers of this size"', "#endif"]


def same_type(what, expression, wanted):
    """An assertion that an expression has a type; on several lines where one would be too long."""
    begin, message = "_Static_assert(_Generic(%s," % expression, '"%s");' % what
    lines, now = [], begin
    for piece in ("%s: 1, default: 0)," % wanted).replace(", ", ",\n").split("\n"):
        if len(now) + len(piece) > 118:
            lines.append(now)
            now = " " * 23
        now += " " + piece
    if len(now) + len(message) > 118:
        lines.append(now)
        now = " " * 14
    return "\n".join(lines + [now + " " + message])


def pointer_to(function):
    """The type of a pointer to a function of the interface, without names."""
    inside = ", ".join(ctype.spell(ctype.decayed(p["type"])) for p in function["parameters"]) or "void"
    return "%s(*)(%s)" % (ctype.lead(function["result"]), inside)


def source(api, head):
    """The text of tests/abi/layout.c."""
    out = ["/* layout.c - what compiled programs rely on, as static assertions: numbers, structures, signatures of peft.h.",
           " * %s" % head,
           " *",
           " * It has no code; that it compiles is the test. Left out: the order of the functions, which does not matter. */",
           "#include <stddef.h>", "#include <stdint.h>", "", '#include "peft.h"', "",
           "/* ---- numbers ---- */", "",
           '_Static_assert(_Generic((peft_status)0, int32_t: 1, default: 0), "peft_status is int32_t");']
    for group in api["constants"]:
        for member in group["members"]:
            out.append('_Static_assert(%s == %d, "%s");' % (member["name"], member["value"], member["name"]))
    out += ["", "/* ---- structures ---- */"]
    for struct in api["structs"]:
        out += [""] + struct_asserts(struct)
        for field in struct["fields"]:
            wanted = ctype.spell(field["type"])
            if field["type"]["base"] == "function":
                wanted = pointer_to(field["type"])
            out.append(same_type("type of %s.%s" % (struct["name"], field["name"]),
                                 "((%s *)0)->%s" % (struct["name"], field["name"]), wanted))
    out += ["", "/* ---- callbacks ---- */", ""]
    for callback in api["callbacks"]:
        out.append(same_type(callback["name"], "(%s)0" % callback["name"], pointer_to(callback)))
    out += ["", "/* ---- functions ---- */", ""]
    for function in api["functions"]:
        out.append(same_type(function["name"], "&%s" % function["name"], pointer_to(function)))
    return "\n".join(out) + "\n"
