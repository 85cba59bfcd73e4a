#!/usr/bin/env python3
"""test_gen.py - tests of the generator: what it reads, what it refuses, what it writes, and that --check finds what is stale.

Run as a program; it ends with `N passed, N failed`. Needs clang, cc and nm, as the generator and its users do. The tool is
played by a script that prints schemas, so nothing has to be built.

Left out: whether the layers that are made work on the library; the tests of the Python package and of the crates do that."""
import ast
import contextlib
import ctypes
import importlib.util
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import ctype  # noqa: E402
import exports  # noqa: E402
import extract  # noqa: E402
import options  # noqa: E402
import rust_ffi  # noqa: E402


def load(name, path):
    """A module from a file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


gen = load("gen_main", os.path.join(HERE, "__main__.py"))

TINY = """/* tiny.h - a header with one of each. */
#include <stddef.h>
#include <stdint.h>
#define PEFT_API __attribute__((visibility("default")))
#define PEFT_VERSION_MAJOR 1
#define PEFT_VERSION_MINOR 2
#define PEFT_VERSION_PATCH 3

/* ==== Status ==== */

typedef int32_t peft_status;
enum {
    PEFT_OK = 0,
    PEFT_E_INVALID = -1 /* it cannot be */
};

/* ==== Things: of every kind ==== */

/* A thing
 * of two lines. */
typedef struct peft_thing peft_thing;

typedef struct peft_pair {
    int32_t first, second; /* both */
    void (*done)(void *user, size_t n);
    double third;
} peft_pair;

/* Told. */
typedef int32_t (*peft_told_fn)(void *user, const peft_pair *pair);

/* Reads by name:
 *   a    one
 *   b    two
 * and so on. [one
 * thread; callback-safe; since 1.2] */
PEFT_API peft_status peft_thing_read(const peft_thing *t, const char *const *names, int64_t dims[8], float *buf, size_t cap,
                                     size_t *needed);
/* Tells. [locks; since 0.9] */
PEFT_API void peft_thing_tell(peft_thing *t, peft_told_fn fn, void *user);
"""

LAYOUT_PAIR = {"lp64": {"size": 24, "align": 8, "offsets": [0, 4, 8, 16], "sizes": [4, 4, 8, 8]},
               "ilp32": {"size": 24, "align": 8, "offsets": [0, 4, 8, 16], "sizes": [4, 4, 4, 8]},
               "i386": {"size": 20, "align": 4, "offsets": [0, 4, 8, 12], "sizes": [4, 4, 4, 8]}}
USER = {"name": "user", "type": {"base": "void", "pointers": ["mut"]}}
TINY_API = {
    "version": "1.2.3",
    "groups": ["Status", "Things: of every kind"],
    "handles": [{"name": "peft_thing", "group": "Things: of every kind", "doc": "A thing of two lines."}],
    "constants": [{"group": "Status", "doc": "", "members": [{"name": "PEFT_OK", "value": 0, "doc": ""},
                                                             {"name": "PEFT_E_INVALID", "value": -1, "doc": "it cannot be"}],
                   "prefix": "PEFT"}],
    "structs": [{"name": "peft_pair", "group": "Things: of every kind", "doc": "", "fields": [
        {"name": "first", "type": {"base": "int32_t"}, "doc": "both"},
        {"name": "second", "type": {"base": "int32_t"}, "doc": "both"},
        {"name": "done", "type": {"base": "function", "result": {"base": "void"}, "parameters": [
            USER, {"name": "n", "type": {"base": "size_t"}}]}, "doc": ""},
        {"name": "third", "type": {"base": "double"}, "doc": ""}], "layout": LAYOUT_PAIR}],
    "callbacks": [{"name": "peft_told_fn", "group": "Things: of every kind", "doc": "Told.", "result": {"base": "int32_t"},
                   "parameters": [USER, {"name": "pair", "type": {"base": "peft_pair", "pointers": ["const"]}}]}],
    "aliases": [{"name": "peft_status", "group": "Status", "doc": "", "type": {"base": "int32_t"}}],
    "functions": [
        {"name": "peft_thing_read", "group": "Things: of every kind", "result": {"base": "peft_status"}, "parameters": [
            {"name": "t", "type": {"base": "peft_thing", "pointers": ["const"]}},
            {"name": "names", "type": {"base": "char", "pointers": ["const", "const"]}},
            {"name": "dims", "type": {"base": "int64_t", "array": 8}},
            {"name": "buf", "type": {"base": "float", "pointers": ["mut"]}, "buffer": "data"},
            {"name": "cap", "type": {"base": "size_t"}, "buffer": "cap"},
            {"name": "needed", "type": {"base": "size_t", "pointers": ["mut"]}, "buffer": "needed"}],
         "doc": "Reads by name:\n    a    one\n    b    two\nand so on.", "threads": "one", "callback_safe": True,
         "since": "1.2"},
        {"name": "peft_thing_tell", "group": "Things: of every kind", "result": {"base": "void"}, "parameters": [
            {"name": "t", "type": {"base": "peft_thing", "pointers": ["mut"]}},
            {"name": "fn", "type": {"base": "peft_told_fn"}}, USER],
         "doc": "Tells.", "threads": "locks", "callback_safe": False, "since": "0.9"}],
    "order": ["peft_thing_read", "peft_thing_tell"],
}
SCHEMAS = {
    "trainer": [{"key": "steps", "type": "int", "default": 10, "min": 1, "max": 1e9, "choices": None, "help": "how | many"},
                {"key": "mode", "type": "str", "default": "", "min": None, "max": None, "choices": ["a", "b"], "help": "which"}],
    "method:lora": []}

TELL = "PEFT_API void peft_thing_tell(peft_thing *t, peft_told_fn fn, void *user);"
TELLS = "/* Tells. [locks; since 0.9] */"
# What is done to the header, and a piece of the message that must come.
BREACHES = [
    (TELLS, "", "peft_thing_tell: no comment right before it"),
    (TELLS, "/* Tells. */", "peft_thing_tell: the comment does not end with its marks, such as \"[any thread; since 1.2]\""),
    (TELLS, "/* [locks; since 0.9] Tells. */", "peft_thing_tell: the comment does not end with its marks"),
    (TELLS, "/* Tells. [lock; since 0.9] */", "peft_thing_tell: cannot read the marks [lock; since 0.9]"),
    (TELLS, "/* Tells. [since 0.9] */", "peft_thing_tell: cannot read the marks [since 0.9]"),
    (TELLS, "/* Tells. [locks; since 1.3] */", "peft_thing_tell: since 1.3, but the header is of version 1.2"),
    (TELL, "void peft_thing_tell(peft_thing *t);", "peft_thing_tell: declared without PEFT_API"),
    (TELL, "PEFT_API void peft_thing_tell(peft_pair p);", 'parameter p: the structure "peft_pair" by value'),
    (TELL, "PEFT_API peft_pair peft_thing_tell(peft_thing *t);", 'result: the structure "peft_pair" by value'),
    (TELL, "PEFT_API void peft_thing_tell(const char *format, ...);", "peft_thing_tell: variable arguments"),
    (TELL, "PEFT_API void peft_thing_tell(long n);", 'peft_thing_tell: parameter n: the type "long" is none that'),
    (TELL, "PEFT_API int peft_thing_tell(void);", 'peft_thing_tell: result: the type "int" is none that bindings know'),
    (TELL, "PEFT_API void peft_thing_tell(peft_thing *);", "peft_thing_tell: parameter 1 has no name"),
    (TELL, "PEFT_API void peft_thing_tell();", "peft_thing_tell: no prototype; write (void)"),
    (TELL, TELL + "\n" + TELLS + "\n" + TELL, "peft_thing_tell: declared more than once"),
    (TELL, "static void peft_thing_tell(void) {}", "peft_thing_tell: a function with a body in the header"),
    (TELL, "PEFT_API void thing_tell(void);", 'thing_tell: the name does not begin with "peft_"'),
    (TELL, "PEFT_API void peft_thing_tell(peft_told_fn fn, void *arg);", 'fn: a callback must be followed by "void *user"'),
    (TELL, "PEFT_API void peft_thing_tell(peft_told_fn *fn, void *user);", 'a pointer to the callback "peft_told_fn"'),
    (TELL, "PEFT_API void peft_thing_tell(void (*fn)(void *user));", "parameter fn: a function pointer spelled in place"),
    (TELL, "PEFT_API void peft_thing_tell(volatile int32_t *n);", 'cannot read the declaration "volatile int32_t *n"'),
    (TELL, TELL + "\nextern int32_t peft_count;", "peft_count: an exported variable"),
    (TELL, TELL + "\n#define PEFT_MAX(a, b) ((a) > (b) ? (a) : (b))", "PEFT_MAX: a function-like macro"),
    (TELL, TELL + "\nunion peft_any { int32_t i; };", "union peft_any: bindings know only structures that have a name"),
    (TELL, TELL + "\nstruct peft_loose { int32_t i; };", "struct peft_loose: no typedef of this name"),
    (TELL, TELL + "\ntypedef int32_t peft_bool;", "peft_bool: another name for a type"),
    ("PEFT_E_INVALID = -1", "PEFT_E_INVALID", "PEFT_E_INVALID: its value is not written out"),
    ("PEFT_E_INVALID = -1", "PEFT_E_INVALID = 0", "PEFT_E_INVALID: the same number as PEFT_OK"),
    ("PEFT_E_INVALID = -1", "PEFT_E_INVALID = 4294967296", "PEFT_E_INVALID: 4294967296 does not fit into int32_t"),
    ("PEFT_E_INVALID = -1", "E_INVALID = -1", 'E_INVALID: the name does not begin with "PEFT_"'),
    ("enum {", "enum peft_code {", "enum peft_code: a type of its own"),
    ("typedef int32_t peft_status", "typedef int peft_status", 'peft_status: it is "int", expected int32_t'),
    ("typedef int32_t peft_status", "typedef int64_t peft_status", 'peft_status: it is "int64_t", expected int32_t'),
    ("(void *user, const peft_pair *pair)", "(const peft_pair *pair, void *user)", 'peft_told_fn: the first parameter'),
    ("(void *user, const peft_pair *pair)", "(void)", 'peft_told_fn: the first parameter of a callback must be "void *user"'),
    ("double third;", "double third; int32_t flag : 1;", "peft_pair: field flag is a bit field"),
    ("double third;", "long double third;", 'peft_pair.third: the type "long double" is none that bindings know'),
    ("two lines", "two l\u00efnes", "the header has a character that is not ASCII"),
    ("PEFT_VERSION_MINOR 2", "PEFT_VERSION_MINOR (2)", "does not define PEFT_VERSION_MAJOR, _MINOR and _PATCH as numbers"),
    ("int32_t first,", "int32_t first", "clang cannot read"),
]


class Folder(unittest.TestCase):
    """A folder of its own for each test, and the generator on it."""

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="peft-gen-")
        self.addCleanup(shutil.rmtree, self.root)

    def path(self, name):
        return os.path.join(self.root, name)

    def put(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def get(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def tool(self, schemas):
        """A program that answers as `peft options --json` does."""
        self.put("schemas.json", json.dumps(schemas))
        path = self.put("tool", "#!/bin/sh\n[ \"$*\" = 'options --json' ] && cat '%s'\n" % self.path("schemas.json"))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return path

    def project(self, header=TINY):
        self.put("include/peft.h", header)
        self.put("docs/methods/README.md", "| `lora` | [page](lora.md) |\n")
        self.tool(SCHEMAS)

    def run_gen(self, *arguments):
        """(exit code, what it printed)."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = gen.main(["--root", self.root, "--peft", self.path("tool")] + list(arguments))
        return code, out.getvalue()


class Reading(Folder):
    def describe(self, text):
        return gen.describe(self.put("tiny.h", text))

    def test_tiny_header_gives_the_whole_description(self):
        api, breaches, marks = self.describe(TINY)
        self.assertEqual((breaches, marks), ([], []))
        self.maxDiff = None
        self.assertEqual(api, TINY_API)

    def test_text_is_the_same_again_and_from_another_folder(self):
        first = gen.dump(self.describe(TINY)[0])
        self.put("other/tiny.h", TINY)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.path("other"))
        self.assertEqual(gen.dump(gen.describe("tiny.h")[0]), first)
        self.assertEqual(json.loads(first)["functions"], TINY_API["functions"])

    def test_a_changed_comment_is_seen(self):
        """A compiler cache would answer with the tree of before: the code is the same."""
        self.describe(TINY)
        api, _, _ = self.describe(TINY.replace("Tells.", "Tells nobody."))
        self.assertEqual(api["functions"][1]["doc"], "Tells nobody.")

    def test_each_breach_is_told(self):
        for old, new, message in BREACHES:
            with self.subTest(message=message):
                self.assertEqual(TINY.count(old), 1, "the test's own text: %s" % old)
                try:
                    _, breaches, marks = self.describe(TINY.replace(old, new))
                except extract.Failed as e:
                    breaches, marks = [str(e)], []
                self.assertTrue(any(message in text for text in breaches + marks), breaches + marks)

    def test_no_clang(self):
        with self.assertRaisesRegex(extract.Failed, "cannot run no-such-clang: .*apt-get install clang"):
            extract.tree(self.put("tiny.h", TINY), "no-such-clang")


class Types(unittest.TestCase):
    def test_spelling_is_the_inverse_of_reading(self):
        for text in ("const char *const *names", "int64_t dims[8]", "void *(*alloc)(void *user, size_t size)", "size_t n",
                     "peft_model **out", "void (*f)(void *a, void (*g)(int32_t b))", "const void *const *data"):
            name, made = ctype.read(text)
            self.assertEqual(ctype.spell(made, name), text)

    def test_what_cannot_be_read(self):
        for text, why in (("int32_t x:3", "a character"), ("void f(int32_t x)", "too much"), ("int32_t *x y", '"y" is too much'),
                          ("void (*f)(void *user, ...)", "variable arguments"), ("*x", "a type expected"),
                          ("int32_t a[3", '"]"')):
            with self.assertRaisesRegex(ctype.Unreadable, why):
                ctype.read(text)

    def test_an_array_and_a_pointer_are_the_same_to_c(self):
        self.assertEqual(ctype.bare(ctype.read("int64_t dims[8]")[1]), ctype.bare(ctype.read("int64_t *dims")[1]))
        self.assertNotEqual(ctype.bare(ctype.read("const char *x")[1]), ctype.bare(ctype.read("char *x")[1]))
        self.assertNotEqual(ctype.bare(ctype.read("char *const *x")[1]), ctype.bare(ctype.read("const char **x")[1]))

    def test_two_readings_must_agree(self):
        with self.assertRaisesRegex(extract.Failed, 'f: the text says "char \\*x", clang says "const char \\*"'):
            extract.agree("f", "char *x", "const char *")


class Checking(Folder):
    def setUp(self):
        super().setUp()
        self.project()
        code, out = self.run_gen()
        self.assertEqual(code, 0, out)
        self.made = [gen.API, "docs/options.md"] + list(gen.FILES)

    def test_fresh_files_are_up_to_date(self):
        self.assertEqual(self.run_gen("--check"), (0, ""))
        self.assertEqual(self.run_gen("--check", "--no-clang"), (0, ""))
        self.assertEqual(self.run_gen(), (0, ""))  # nothing is written twice

    def test_every_file_says_how_it_was_made(self):
        for name in self.made:
            self.assertIn("; do not edit, run: make bindings", "".join(self.get(name).split("\n")[:4]), name)

    def test_a_changed_signature_makes_files_stale(self):
        self.put("include/peft.h", TINY.replace("peft_told_fn fn, void *user)", "int32_t n)"))
        code, out = self.run_gen("--check")
        self.assertEqual(code, 1)
        for name in [n for n in self.made if n not in ("docs/options.md", "lib/libpeft.map", "lib/libpeft.def")]:
            self.assertIn("bindings: %s is out of date; run: make bindings" % self.path(name), out)
        self.assertNotIn("libpeft.map", out)
        self.assertEqual(self.run_gen("--check", "--no-clang")[0], 0)  # that does not look at the header

    def test_a_new_function_makes_the_exports_stale(self):
        self.put("include/peft.h", TINY + "/* New. [any thread; since 1.2] */\nPEFT_API void peft_new(void);\n")
        code, out = self.run_gen("--check")
        self.assertEqual(code, 1)
        for name in ("lib/libpeft.map", "lib/libpeft.def"):
            self.assertIn("%s is out of date" % self.path(name), out)
        self.assertIn("+    peft_new;", out)

    def test_a_file_that_was_edited_or_lost_is_named(self):
        for name in self.made:
            for lost in (False, True):
                with self.subTest(name=name, lost=lost):
                    text = self.get(name)
                    os.remove(self.path(name)) if lost else self.put(name, text + "x\n")
                    self.assertEqual(self.run_gen("--check")[0], 1)
                    self.assertIn("%s is out of date" % self.path(name), self.run_gen("--check")[1])
                    self.put(name, text)

    def test_a_changed_option_is_seen_without_clang(self):
        self.tool(dict(SCHEMAS, trainer=SCHEMAS["trainer"][:1]))
        code, out = self.run_gen("--check", "--no-clang")
        self.assertEqual(code, 1)
        self.assertIn("docs/options.md is out of date", out)
        self.assertIn("bindings/api.json is out of date", out)

    def test_missing_marks_are_a_warning_to_write_and_an_error_to_check(self):
        self.put("include/peft.h", TINY.replace(" [locks; since 0.9]", ""))
        code, out = self.run_gen()
        self.assertEqual((code, out.count("does not end with its marks")), (0, 1))
        self.assertEqual(self.run_gen("--check")[0], 1)

    def test_a_breach_writes_nothing(self):
        before = self.get(gen.API)
        self.put("include/peft.h", TINY.replace(TELL, "PEFT_API void peft_thing_tell(long n);"))
        self.assertEqual(self.run_gen()[0], 1)
        self.assertEqual(self.get(gen.API), before)

    def test_a_method_without_page_and_a_missing_tool(self):
        self.put("docs/methods/README.md", "nothing\n")
        code, out = self.run_gen("--check")
        self.assertEqual(code, 1)
        self.assertIn("docs/methods/README.md has no row with a link for `lora`", out)
        os.remove(self.path("tool"))
        code, out = self.run_gen("--check")
        self.assertEqual(code, 1)
        self.assertIn("cannot run %s" % self.path("tool"), out)
        self.assertIn("build it: make", out)


class Writing(Folder):
    """What the files say, on the tiny header; and on the project's own where that says more."""

    def setUp(self):
        super().setUp()
        self.project()
        self.run_gen()

    def compile_layout(self, text, *flags):
        self.put("tests/abi/layout.c", text)
        command = ["clang", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffreestanding", "-fsyntax-only",
                   "-I", self.path("include"), self.path("tests/abi/layout.c")]
        done = subprocess.run(command + list(flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=dict(os.environ, CCACHE_DISABLE="1"))
        return done.returncode, done.stderr.decode()

    def test_layouts_are_those_of_the_compilers(self):
        text = self.get("tests/abi/layout.c")
        own = os.path.join(ROOT, "tests/abi/layout.c")
        for target in ("x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-w64-windows-gnu", "x86_64-apple-darwin",
                       "i386-linux-gnu", "armv7-linux-gnueabihf", "i686-w64-windows-gnu", "wasm32-unknown-unknown",
                       "riscv32-unknown-elf"):
            with self.subTest(target=target):
                self.put("include/peft.h", TINY)
                self.assertEqual(self.compile_layout(text, "-target", target), (0, ""))
                shutil.copy(os.path.join(ROOT, "include/peft.h"), self.path("include/peft.h"))
                with open(own, encoding="utf-8") as f:
                    self.assertEqual(self.compile_layout(f.read(), "-target", target), (0, ""))

    def test_layout_c_finds_what_moved(self):
        text = self.get("tests/abi/layout.c")
        for old, new, message in (("int32_t first, second;", "int32_t second, first;", "place of peft_pair.first"),
                                  ("double third;", "double third; int32_t more;", "size of peft_pair"),
                                  ("double third;", "float third;", "type of peft_pair.third"),
                                  ("PEFT_E_INVALID = -1", "PEFT_E_INVALID = -2", "PEFT_E_INVALID"),
                                  ("const peft_pair *pair)", "peft_pair *pair)", "peft_told_fn"),
                                  ("typedef int32_t peft_status", "typedef uint32_t peft_status", "peft_status is int32_t"),
                                  ("float *buf", "double *buf", "peft_thing_read")):
            with self.subTest(message=message):
                self.put("include/peft.h", TINY.replace(old, new))
                code, errors = self.compile_layout(text)
                self.assertNotEqual(code, 0)
                self.assertIn(message, errors)

    def test_python_declarations(self):
        text = self.get("bindings/python/libpeft/_ffi.py")
        ast.parse(text, feature_version=(3, 8))
        ffi = load("tiny_ffi", self.path("bindings/python/libpeft/_ffi.py"))
        self.assertEqual(ffi.VERSION, (1, 2, 3))
        self.assertEqual((ffi.PEFT_E_INVALID, ffi.STATUS_NAMES[-1]), (-1, "PEFT_E_INVALID"))
        self.assertEqual(ctypes.sizeof(ffi.peft_pair), 24)
        self.assertEqual([getattr(ffi.peft_pair, n).offset for n in ("first", "second", "done", "third")], [0, 4, 8, 16])
        read = ffi.PROTOTYPES["peft_thing_read"]
        pointer = ctypes.POINTER
        self.assertEqual(read, (ctypes.c_int32, (ctypes.c_void_p, pointer(ctypes.c_char_p), pointer(ctypes.c_int64),
                                                pointer(ctypes.c_float), ctypes.c_size_t, pointer(ctypes.c_size_t)), "1.2"))
        self.assertEqual(ffi.PROTOTYPES["peft_thing_tell"].arguments[1], ffi.peft_told_fn)
        self.assertEqual(ffi.STATUS_FUNCTIONS, {"peft_thing_read"})

    def test_python_binds_late_checks_and_records(self):
        ffi = load("tiny_ffi", self.path("bindings/python/libpeft/_ffi.py"))
        source = self.put("thing.c", "#include <stddef.h>\nint peft_thing_read(void *t, void *n, void *d, float *b, size_t c, "
                                     "size_t *m) { (void)t; (void)n; (void)d; (void)b; *m = c + 1; return -1; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.path("thing.so"), source], check=True)
        library = ffi.Library(ctypes.CDLL(self.path("thing.so")), lambda status, function, arguments: ("checked", status))
        needed = ctypes.c_size_t(0)
        arguments = (None, None, None, None, 41, ctypes.byref(needed))
        self.assertEqual(library.peft_thing_read(*arguments), ("checked", -1))
        self.assertEqual(needed.value, 42)
        calls = library.record()
        self.assertEqual(calls, set())
        self.assertEqual(library.peft_thing_read(*arguments), ("checked", -1))
        self.assertEqual(calls, {"peft_thing_read"})
        with self.assertRaisesRegex(AttributeError, "has no function peft_thing_tell, which came with version 0.9"):
            library.peft_thing_tell(None)
        with self.assertRaisesRegex(AttributeError, "libpeft 1.2.3 has no function peft_other"):
            library.peft_other()
        self.assertEqual(ffi.Library(ctypes.CDLL(self.path("thing.so"))).peft_thing_read(*arguments), -1)

    def test_rust_declarations(self):
        text = " ".join(self.get("bindings/rust/libpeft-sys/src/ffi.rs").split())
        for piece in ("pub const PEFT_E_INVALID: peft_status = -1;", "pub type peft_status = i32;",
                      "pub done: Option<unsafe extern \"C\" fn(user: *mut c_void, n: usize)>,", "pub third: f64,",
                      "pub type peft_told_fn = Option<unsafe extern \"C\" fn(user: *mut c_void, "
                      "pair: *const peft_pair) -> i32>;",
                      "pub fn peft_thing_read( t: *const peft_thing, names: *const *const c_char, dims: *mut i64, "
                      "buf: *mut f32, cap: usize, needed: *mut usize, ) -> peft_status;",
                      "pub fn peft_thing_tell(t: *mut peft_thing, r#fn: peft_told_fn, user: *mut c_void);",
                      "/// Call from: one thread at a time for each handle; callback-safe; since 1.2.",
                      "assert!(core::mem::offset_of!(peft_pair, third) == 16);",
                      'pub const FUNCTIONS: [&str; 2] = [ "peft_thing_read", "peft_thing_tell", ];'):
            self.assertIn(piece, text)
        self.assertEqual(rust_ffi.doc("a [b] <c>\n    d [e]\nf"),
                         ["/// a \\[b\\] \\<c\\>", "/// ```text", "/// d [e]", "/// ```", "/// f"])

    def test_export_nodes_by_release(self):
        self.assertEqual(self.get("lib/libpeft.map").split("*/\n")[1],
                         "LIBPEFT_0.9 {\nglobal:\n    peft_thing_tell;\nlocal:\n    *;\n};\n"
                         "LIBPEFT_1.2 {\nglobal:\n    peft_thing_read;\n} LIBPEFT_0.9;\n")
        self.assertEqual(self.get("lib/libpeft.def").split("EXPORTS\n")[1], "    peft_thing_read\n    peft_thing_tell\n")
        functions = [{"name": name, "since": since} for name, since in (("c", "0.10"), ("b", "0.9"), ("a", "0.10"))]
        self.assertEqual(exports.releases({"functions": functions}), [("0.9", ["b"]), ("0.10", ["a", "c"])])

    def test_the_linker_takes_the_nodes(self):
        source = self.put("thing.c", "int peft_thing_read(void) { return 0; }\nint peft_thing_tell(void) { return 0; }\n"
                                     "int peft_hidden(void) { return 0; }\n")
        library = self.path("thing.so")
        script = "-Wl,--version-script," + self.path("lib/libpeft.map")
        subprocess.run(["cc", "-shared", "-fPIC", script, "-o", library, source], check=True)
        names = subprocess.run(["nm", "-D", "--defined-only", "--with-symbol-versions", library], check=True,
                               stdout=subprocess.PIPE).stdout.decode().split()
        self.assertEqual([n for n in names if n.startswith("peft_")],
                         ["peft_thing_read@@LIBPEFT_1.2", "peft_thing_tell@@LIBPEFT_0.9"])

    def test_reference_page(self):
        page = self.get("docs/api.md")
        for piece in ("- [Things: of every kind](#things-of-every-kind)", "| `PEFT_E_INVALID` | -1 | it cannot be |",
                      "| `second` | `int32_t` | 4 | both |", "typedef int32_t (*peft_told_fn)(void *user, const peft_pair *pair);",
                      "Reads by name:\n\n```text\na    one\nb    two\n```\n\nand so on.",
                      "*Threads:* one thread at a time for each handle \u00b7 *In callbacks:* yes \u00b7 *Since:* 1.2",
                      "| [`peft_thing_tell`](#peft_thing_tell) | 0.9 | `LIBPEFT_0.9` |"):
            self.assertIn(piece, page)

    def test_page_of_options(self):
        page = self.get("docs/options.md")
        for piece in ("| `steps` | int | `10` | 1 or more | how \\| many |", "| `mode` | str | unset | `a`, `b` | which |",
                      "## method:lora\n\n`peft_adapters_add` with method \"lora\"; `peft train --method lora`. See "
                      "[lora](methods/lora.md).\n\nNo options."):
            self.assertIn(piece, page)
        self.assertEqual([options.default({"default": d}) for d in (True, 2e-4, 3.0, [], "x", {"a": 1}, None)],
                         ["`true`", "`0.0002`", "`3`", "unset", "`x`", '`{"a": 1}`', "unset"])
        self.assertEqual([options.limits({"choices": None, "min": low, "max": high}) for low, high in
                          ((None, None), (0, 1), (1, None), (None, 5))], ["", "0 to 1", "1 or more", "at most 5"])


def main():
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__]))
    failed = len({test.id().split(" ")[0] for test, _ in result.failures + result.errors})
    sys.stderr.flush()
    print("%d passed, %d failed" % (result.testsRun - failed, failed), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
