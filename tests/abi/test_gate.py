#!/usr/bin/env python3
"""The gate itself: each kind of break is caught, by name, and what is allowed passes.

Libraries of headers that are not this tree's are made of stubs: the header's functions with empty bodies, its types in their debug
information. One break at a time against the dump of the unbroken one. Ends with "N passed, N failed".
"""
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gate

sys.path.insert(0, str(gate.ROOT / "bindings" / "gen"))
import extract
import layout

HEADER = (gate.ROOT / "include" / "peft.h").read_text()
DECLARATION = re.compile(r"^PEFT_API ([^;]*);", re.M)


def describe(folder, text):
    path = folder / "peft.h"
    path.write_text(text)
    api, _, problems = extract.api(path)
    if problems:
        raise ValueError(problems)
    layout.add(api)
    return api


class Made:
    """A header, its description and a library of stubs."""

    def __init__(self, top, text, soname="libpeft.so.0", more="", node=None, link=(), skip=()):
        self.folder = Path(tempfile.mkdtemp(dir=top))
        self.api = describe(self.folder, text)
        bodies = [d + (" {}" if d.startswith("void ") else " { return 0; }") for d in DECLARATION.findall(text)]
        source = '#include "peft.h"\n%s\n%s\n' % ("\n".join(b for b in bodies if not any(s + "(" in b for s in skip)), more)
        (self.folder / "stub.c").write_text(source)
        names = sorted(f["name"] for f in self.api["functions"])
        names += re.findall(r"\b(peft_\w+)\(", more)
        nodes = {}
        for n in names:
            since = [f["since"] for f in self.api["functions"] if f["name"] == n]
            nodes.setdefault(node or "LIBPEFT_" + (since[0] if since else "0.1"), []).append(n)
        self.script = self.folder / "map"
        self.script.write_text("".join("%s { global: %s; %s};\n" % (k, "; ".join(v), "local: *; " if k.endswith("0.1") else "")
                                       for k, v in sorted(nodes.items())))
        self.library = self.folder / "libpeft.so"
        gate.output("gcc", "-std=c11", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-DPEFT_BUILD", "-I" + str(self.folder),
                    "-Wl,-soname," + soname, "-Wl,--version-script," + str(self.script), "-o", self.library, self.folder / "stub.c", *link)


def changed(old, new, text=HEADER, count=1):
    if text.count(old) < 1:
        raise ValueError("the header has no %r: the test is out of date" % old)
    return text.replace(old, new, count)


class GateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.keep = tempfile.TemporaryDirectory()
        cls.top = cls.keep.name
        cls.old = Made(cls.top, HEADER)
        cls.dump = Path(cls.top) / "old.abi"
        gate.dump(cls.old.library, cls.dump)

    @classmethod
    def tearDownClass(cls):
        cls.keep.cleanup()

    def faults(self, text, **how):
        """Of the description, and of libabigail."""
        made = Made(self.top, text, **how)
        return gate.compare(self.old.api, made.api), gate.abigail(self.dump, made.library)

    def caught(self, text, says, by_abidiff=True):
        described, seen = self.faults(text)
        self.assertIn(says, described)
        self.assertEqual(bool(seen), by_abidiff, seen)

    def test_nothing_changed(self):
        self.assertEqual(self.faults(HEADER), ([], []))
        self.assertEqual(gate.check_exports(self.old.library, self.old.api), [])
        self.assertEqual(gate.check_dynamic(self.old.library), [])

    def test_function_removed(self):
        gone = re.search(r"^PEFT_API size_t peft_batch_rows\([^;]*;\n", HEADER, re.M).group(0)
        self.caught(changed(gone, ""), "function peft_batch_rows is gone")

    def test_parameter_type(self):
        text = changed("const int32_t *ids, size_t n, int32_t flags,", "const int32_t *ids, uint32_t n, int32_t flags,")
        self.caught(text, "function peft_tokenizer_decode: parameter n has another type")

    def test_parameter_added(self):
        text = changed("peft_trainer_apply(peft_trainer *t)", "peft_trainer_apply(peft_trainer *t, int32_t twice)")
        self.caught(text, "function peft_trainer_apply takes 2 parameters, and took 1")

    def test_result_type(self):
        text = changed("PEFT_API int32_t peft_context_threads", "PEFT_API int64_t peft_context_threads")
        self.caught(text, "function peft_context_threads returns another type")

    def test_enumerator_renumbered(self):
        text = changed("PEFT_E_EXISTS = -7,", "PEFT_E_EXISTS = -27,")
        self.caught(text, "constant PEFT_E_EXISTS is -27, and was -7", by_abidiff=False)  # no function has the type

    def test_enumerator_removed(self):
        text = re.sub(r"    PEFT_E_NUMERIC = -14,[^\n]*\n", "", HEADER)
        self.caught(text, "constant PEFT_E_NUMERIC is gone", by_abidiff=False)

    def test_field_inserted(self):
        text = changed("    double learning_rate;\n", "    double momentum;\n    double learning_rate;\n")
        self.caught(text, "struct peft_step_info: its fields are others than they were")

    def test_field_of_another_type(self):
        text = changed("    double learning_rate;\n", "    float learning_rate;\n")
        # abidiff takes a field that shrinks for one of what it was told to let pass in this struct
        self.caught(text, "struct peft_step_info: its fields are others than they were", by_abidiff=False)

    def test_frozen_struct_grows(self):
        text = changed("    void *user;\n} peft_allocator;", "    void *user;\n    size_t limit;\n} peft_allocator;")
        self.caught(text, "struct peft_allocator has a new field limit, and is frozen")

    def test_frozen_struct_reordered(self):
        text = changed("    void *user;\n} peft_allocator;", "} peft_allocator;")
        text = changed("typedef struct peft_allocator {\n", "typedef struct peft_allocator {\n    void *user;\n", text)
        self.caught(text, "struct peft_allocator: its fields are others than they were")

    def test_callback(self):
        text = changed("const char *text, size_t len);\n/* Continues", "const char *text, int32_t len);\n/* Continues")
        self.caught(text, "callback peft_token_fn: parameter len has another type")

    def test_alias(self):
        self.caught(changed("typedef int32_t peft_status;", "typedef int64_t peft_status;"), "type peft_status is another")

    def test_export_that_is_not_declared(self):
        made = Made(self.top, HEADER, more="PEFT_API int peft_secret(void); int peft_secret(void) { return 1; }")
        self.assertEqual(gate.check_exports(made.library, made.api), ["peft_secret is exported, and the header does not declare it"])

    def test_declared_and_not_exported(self):
        made = Made(self.top, HEADER, skip=["peft_batch_rows"])
        self.assertEqual(gate.check_exports(made.library, made.api), ["peft_batch_rows is declared, and not exported"])

    def test_version_node(self):
        made = Made(self.top, HEADER, node="LIBPEFT_9.9")
        faults = gate.check_exports(made.library, made.api)
        self.assertEqual(len(faults), len(made.api["functions"]))
        self.assertIn("peft_batch_rows has the version LIBPEFT_9.9, expected LIBPEFT_0.1", faults)

    def test_soname(self):
        made = Made(self.top, HEADER, soname="libpeft.so.3")
        self.assertEqual(gate.check_dynamic(made.library), ["soname ['libpeft.so.3'], expected libpeft.so.0"])

    def test_new_dependency(self):
        other = Path(self.top) / "libother.so"
        (Path(self.top) / "other.c").write_text("int other(void) { return 1; }\n")
        gate.output("gcc", "-shared", "-fPIC", "-Wl,-soname,libother.so.1", "-o", other, Path(self.top) / "other.c")
        made = Made(self.top, HEADER, link=["-Wl,--no-as-needed", other])
        self.assertIn("the library needs libother.so.1", gate.check_dynamic(made.library))

    def test_archive(self):
        (Path(self.top) / "a.c").write_text("int peft__fine(void) { return 1; }\nint json_parse(void) { return 2; }\n")
        gate.output("gcc", "-c", "-o", Path(self.top) / "a.o", Path(self.top) / "a.c")
        gate.output("ar", "rcs", Path(self.top) / "a.a", Path(self.top) / "a.o")
        self.assertEqual(gate.check_archive(Path(self.top) / "a.a"), ["the archive defines json_parse"])

    def test_new_function_of_an_old_release(self):
        new = "/* Says hello. [any thread; since 0.1] */\nPEFT_API int32_t peft_hello(void);\n"
        made = Made(self.top, changed("/* Name of a status", new + "/* Name of a status"))
        self.assertEqual(gate.check_since(self.old.api, made.api), ["function peft_hello is new, and says since 0.1"])

    # ---- what is allowed

    def test_function_added(self):
        new = "/* Says hello. [any thread; since 0.2] */\nPEFT_API int32_t peft_hello(void);\n"
        text = changed("/* Name of a status", new + "/* Name of a status")
        self.assertEqual(self.faults(text), ([], []))
        made = Made(self.top, text)
        self.assertEqual(gate.check_exports(made.library, made.api) + gate.check_since(self.old.api, made.api), [])

    def test_enumerator_added(self):
        text = changed("    PEFT_E_INTERNAL = -16 ", "    PEFT_E_LATER = -17,\n    PEFT_E_INTERNAL = -16 ")
        self.assertEqual(self.faults(text), ([], []))

    def test_field_appended(self):
        text = changed("} peft_step_info;", "    double momentum;\n} peft_step_info;")
        self.assertEqual(self.faults(text), ([], []))

    def test_opaque_struct(self):
        before = Made(self.top, HEADER, more="struct peft_batch { int a; };")
        dump = Path(self.top) / "opaque.abi"
        gate.dump(before.library, dump)
        after = Made(self.top, HEADER, more="struct peft_batch { long a, b; char c[7]; };")
        self.assertEqual(gate.abigail(dump, after.library), [])


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(GateTest))
    bad = len(result.failures) + len(result.errors)
    print("%d passed, %d failed" % (result.testsRun - bad, bad), flush=True)
    sys.exit(bad != 0)
