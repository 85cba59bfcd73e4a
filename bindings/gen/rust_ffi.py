"""rust_ffi.py - writes the declarations of the Rust crate libpeft-sys, bindings/rust/libpeft-sys/src/ffi.rs: types,
constants and functions of the C interface, with the header's comments.

The text needs Rust 1.82 (`unsafe extern`), no crate and no standard library; it is the same in the editions 2021 and 2024.

Left out: how the library is found and linked (the crate's build script), everything safe (the crate libpeft)."""
import re
import textwrap

import ctype

SIMPLE = {"void": "c_void", "char": "c_char", "int32_t": "i32", "uint32_t": "u32", "int64_t": "i64", "uint64_t": "u64",
          "size_t": "usize", "float": "f32", "double": "f64", "uint8_t": "u8"}
WIDTH = 110  # as bindings/rust/rustfmt.toml has it: rustfmt changes nothing in the text
WORDS = ("as", "in", "fn", "ref", "type", "use", "mod", "match", "move", "loop", "self", "where", "box", "final", "override")
OPAQUE = '''#[repr(C)]
pub struct {name} {{
    _data: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}}'''


def word(name):
    return "r#" + name if name in WORDS else name


def rust(made):
    """A type of the interface in Rust."""
    if made["base"] == "function":
        return "Option<%s>" % function_type(made)
    text = SIMPLE.get(made["base"], made["base"])
    for kind in ctype.decayed(made).get("pointers", []):
        text = "*%s %s" % (kind, text)
    return text


def function_type(made):
    inside = ", ".join("%s: %s" % (word(p["name"]), rust(p["type"])) for p in made["parameters"])
    return 'unsafe extern "C" fn(%s)%s' % (inside, result(made["result"]))


def result(made):
    return "" if made == {"base": "void"} else " -> " + rust(made)


def doc(text, indent=""):
    """A comment as rustdoc takes it: brackets are no links, tables are code."""
    out, table = [], False
    for line in text.split("\n") if text else []:
        if line.startswith("    ") != table:
            out.append("```" if table else "```text")
            table = not table
        if table:
            out.append(line[4:])
        else:
            line = re.sub(r"([\[\]<>*])", r"\\\1", line)
            out += textwrap.wrap(line, 116 - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
    if table:
        out.append("```")
    return [(indent + "/// " + line).rstrip() for line in out]


def marks(function):
    """How a function may be called, in words."""
    threads = {"any": "any thread", "one": "one thread at a time for each handle",
               "locks": "any thread; the handle orders changes"}
    words = [threads[function["threads"]]] if "threads" in function else []
    if function.get("callback_safe"):
        words.append("callback-safe")
    if "since" in function:
        words.append("since %s" % function["since"])
    return "Call from: %s." % "; ".join(words) if words else ""


def head(first, api):
    numbers = api["version"].split(".")
    out = ["// ffi.rs - %s" % first, "//",
           "// The C interface as declarations; the comments are the header's. Left out: everything safe.", "",
           "#![allow(non_camel_case_types)]", "",
           "use core::ffi::{c_char, c_void};", "use core::marker::{PhantomData, PhantomPinned};", ""]
    for name, number in zip(("MAJOR", "MINOR", "PATCH"), numbers):
        out.append("pub const PEFT_VERSION_%s: u32 = %s;" % (name, number))
    return out


def types(api):
    out = []
    for alias in api["aliases"]:
        out += [""] + doc(alias["doc"]) + ["pub type %s = %s;" % (alias["name"], rust(alias["type"]))]
    for handle in api["handles"]:
        out += [""] + (doc(handle["doc"]) or ["/// An opaque handle."]) + [OPAQUE.format(name=handle["name"])]
    for struct in api["structs"]:
        out += [""] + doc(struct["doc"]) + ["#[repr(C)]", "#[derive(Clone, Copy)]", "pub struct %s {" % struct["name"]]
        for field in struct["fields"]:
            out += doc(field["doc"], "    ") + ["    pub %s: %s," % (word(field["name"]), rust(field["type"]))]
        out.append("}")
    for callback in api["callbacks"]:
        out += [""] + doc(callback["doc"]) + callback_lines(callback)
    return out


def callback_lines(callback):
    """The type of a callback, broken as rustfmt does it."""
    begin = "pub type %s =" % callback["name"]
    made = rust({"base": "function", "result": callback["result"], "parameters": callback["parameters"]})
    if len(begin) + len(made) + 2 <= WIDTH:
        return ["%s %s;" % (begin, made)]
    if len(made) + 5 <= WIDTH:
        return [begin, "    %s;" % made]
    inside = ["        %s: %s," % (word(p["name"]), rust(p["type"])) for p in callback["parameters"]]
    return [begin + " Option<", '    unsafe extern "C" fn('] + inside + ["    )%s," % result(callback["result"]), ">;"]


def constants(api):
    out = []
    for group in api["constants"]:
        out.append("")
        kind = "peft_status" if group["group"] == "Status" else "i32"
        for member in group["members"]:
            out += doc(member["doc"]) + ["pub const %s: %s = %d;" % (member["name"], kind, member["value"])]
    return out


def functions(api):
    out = ["", 'unsafe extern "C" {']
    for function in api["functions"]:
        if len(out) > 2:
            out.append("")
        out += doc(function["doc"], "    ")
        mark = marks(function)
        if mark:
            out += ["    ///", "    /// " + mark]
        pieces = ["%s: %s" % (word(p["name"]), rust(p["type"])) for p in function["parameters"]]
        line = "    pub fn %s(%s)%s;" % (function["name"], ", ".join(pieces), result(function["result"]))
        if len(line) > WIDTH:
            line = "    pub fn %s(\n%s    )%s;" % (function["name"], "".join("        %s,\n" % p for p in pieces),
                                                  result(function["result"]))
        out.append(line)
    out += ["}", "", "/// Names of all functions, sorted.", "pub const FUNCTIONS: [&str; %d] = [" % len(api["functions"])]
    return out + ['    "%s",' % f["name"] for f in api["functions"]] + ["];"]


def asserts(api):
    """Sizes and offsets as the C compilers see them, checked when the crate is compiled."""
    out = []
    for model, where in (("lp64", 'target_pointer_width = "64"'),
                         ("ilp32", 'all(target_pointer_width = "32", not(target_arch = "x86"))')):
        out += ["", "#[cfg(%s)]" % where, "const _: () = {"]
        for struct in api["structs"]:
            found = struct["layout"].get(model) or struct["layout"]["lp64"]
            name = struct["name"]
            out.append("    assert!(core::mem::size_of::<%s>() == %d);" % (name, found["size"]))
            for field, offset in zip(struct["fields"], found["offsets"]):
                out.append("    assert!(core::mem::offset_of!(%s, %s) == %d);" % (name, word(field["name"]), offset))
        out.append("};")
    return out


def source(api, first):
    """The text of ffi.rs."""
    return "\n".join(head(first, api) + types(api) + constants(api) + functions(api) + asserts(api)) + "\n"
