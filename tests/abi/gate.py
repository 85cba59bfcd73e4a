#!/usr/bin/env python3
"""The ABI gate: what was linked against a release runs with this tree's library.

    gate.py                 every check against tests/abi/0.1; ends with "N passed, N failed"
    gate.py --write         makes tests/abi/0.1 anew from this tree: only before that release, or to take in appended things

tests/abi/0.1 has the release's header, its description (api.json), its exported symbols with their versions, and libabigail's dump
of its types. docs/abi.md says what is promised. Needs gcc, binutils and Debian's abigail-tools. BUILD (default build/abi) is where
the library is built, with debug information.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "abi"
RELEASE = "0.1"
SONAME = "libpeft.so.0"  # whatever the version: docs/abi.md
SYSTEM = re.compile(r"lib(c|m)\.so\.6|ld-linux.*\.so\.\d|libpthread\.so\.0")
GROWING = {"peft_step_info"}  # structs that the library fills: they may grow at their end; all others are frozen


def output(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(map(str, command)), (done.stderr or done.stdout).strip()[-2000:]))
    return done.stdout


# ---- what a library exports and needs

def exported(library):
    """{symbol: version node} of what a shared library defines."""
    found = {}
    for line in output("readelf", "--dyn-syms", "-W", library).splitlines():
        parts = line.split()
        if len(parts) >= 8 and parts[6] not in ("UND", "ABS") and parts[4] in ("GLOBAL", "WEAK"):
            name, _, node = parts[7].partition("@@")
            found[name] = node
    return found


def dynamic(library, tag):
    return re.findall(r"\(%s\).*\[(.*?)\]" % tag, output("readelf", "-dW", library))


def check_exports(library, api):
    """Faults of exports: exactly the functions of the header, each in the node of the release that first had it."""
    wanted = {f["name"]: "LIBPEFT_" + f["since"] for f in api["functions"]}
    there = exported(library)
    faults = ["%s is exported, and the header does not declare it" % n for n in sorted(set(there) - set(wanted))]
    faults += ["%s is declared, and not exported" % n for n in sorted(set(wanted) - set(there))]
    return faults + ["%s has the version %s, expected %s" % (n, there[n] or "none", wanted[n])
                     for n in sorted(set(there) & set(wanted)) if there[n] != wanted[n]]


def check_dynamic(library):
    faults = [] if dynamic(library, "SONAME") == [SONAME] else ["soname %s, expected %s" % (dynamic(library, "SONAME"), SONAME)]
    return faults + ["the library needs %s" % n for n in dynamic(library, "NEEDED") if not SYSTEM.fullmatch(n)]


def check_archive(archive):
    """A static library shares its name space with the program: nothing but peft_ and peft__."""
    names = {line.split()[-1] for line in output("nm", "-g", "--defined-only", archive).splitlines() if len(line.split()) == 3}
    return ["the archive defines %s" % n for n in sorted(names) if not n.startswith("peft_")]


# ---- what a release had, and what there is now

def same_types(kind, old, new):
    faults = []
    if old["result"] != new["result"]:
        faults.append("%s %s returns another type" % (kind, old["name"]))
    if len(old["parameters"]) != len(new["parameters"]):
        return faults + ["%s %s takes %d parameters, and took %d" % (kind, old["name"], len(new["parameters"]), len(old["parameters"]))]
    for a, b in zip(old["parameters"], new["parameters"]):
        if a["type"] != b["type"]:
            faults.append("%s %s: parameter %s has another type" % (kind, old["name"], a["name"]))
    return faults


def same_struct(old, new):
    """Fields stay what and where they are; structs that the library fills may get more at their end."""
    name, n = old["name"], len(old["fields"])
    types = [f["type"] for f in new["fields"][:n]]
    if [f["name"] for f in old["fields"]] != [f["name"] for f in new["fields"][:n]] or types != [f["type"] for f in old["fields"]]:
        return ["struct %s: its fields are others than they were" % name]
    if len(new["fields"]) > n and name not in GROWING:
        return ["struct %s has a new field %s, and is frozen" % (name, new["fields"][n]["name"])]
    moved = [m for m in old["layout"] if new["layout"][m]["offsets"][:n] != old["layout"][m]["offsets"]]
    return ["struct %s: its fields have moved (%s)" % (name, m) for m in moved]


def compare(old, new):
    """Faults: what of the old description is gone or changed in the new one. What is new is no fault."""
    faults = []
    for kind, key in (("function", "functions"), ("callback", "callbacks")):
        now = {f["name"]: f for f in new[key]}
        for f in old[key]:
            faults += same_types(kind, f, now[f["name"]]) if f["name"] in now else ["%s %s is gone" % (kind, f["name"])]
    values = {m["name"]: m["value"] for group in new["constants"] for m in group["members"]}
    for group in old["constants"]:
        for m in group["members"]:
            if m["name"] not in values:
                faults.append("constant %s is gone" % m["name"])
            elif values[m["name"]] != m["value"]:
                faults.append("constant %s is %d, and was %d" % (m["name"], values[m["name"]], m["value"]))
    structs = {s["name"]: s for s in new["structs"]}
    for s in old["structs"]:
        faults += same_struct(s, structs[s["name"]]) if s["name"] in structs else ["struct %s is gone" % s["name"]]
    aliases = {a["name"]: a["type"] for a in new["aliases"]}
    return faults + ["type %s is another" % a["name"] for a in old["aliases"] if aliases.get(a["name"]) != a["type"]]


def check_since(old, new):
    """What a release did not have cannot claim to be of it, once it is out."""
    had = {f["name"] for f in old["functions"]}
    return ["function %s is new, and says since %s" % (f["name"], f["since"]) for f in new["functions"]
            if f["name"] not in had and f["since"] == RELEASE]


def abigail(reference, library):
    """libabigail's opinion of the same; it reads debug information."""
    done = subprocess.run(["abidiff", "--suppressions", str(HERE / "suppressions.ini"), "--no-added-syms", str(reference), str(library)],
                          capture_output=True, text=True)
    return [] if done.returncode == 0 else ["abidiff (%d): %s" % (done.returncode, (done.stdout + done.stderr).strip()[:1500])]


def dump(library, to):
    output("abidw", "--suppressions", HERE / "suppressions.ini", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs",
           "--exported-interfaces-only", "--no-parameter-names", "--out-file", to, library)


# ---- a program of the release

def stub(release, folder):
    """A library with the release's symbols and no code: what its programs were linked against."""
    names = re.findall(r"^ +(peft_\w+);", (release / "libpeft.map").read_text(), re.M)
    (folder / "stub.c").write_text("".join("void %s(void);\nvoid %s(void) {}\n" % (n, n) for n in names))
    output("gcc", "-shared", "-fPIC", "-Wl,-soname," + SONAME, "-Wl,--version-script," + str(release / "libpeft.map"), "-o",
           folder / "libpeft.so", folder / "stub.c")


def old_client(release, build, library):
    """Builds the release's program against the release's header and symbols, and runs it with the library of today."""
    folder = build / "client"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stub(release, folder)
    flags = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-I" + str(release), HERE / "client.c"]
    output("gcc", *flags, "-o", folder / "client", "-L" + str(folder), "-lpeft", "-lm")
    output("gcc", *flags, "-o", folder / "client-static", build / "libpeft.a", "-lm", "-pthread")
    (folder / "now").mkdir()
    shutil.copy(library, folder / "now" / SONAME)
    faults = []
    for program in ("client", "client-static"):
        done = subprocess.run([str(folder / program), str(folder / (program + "-files"))], capture_output=True, text=True,
                              env=dict(os.environ, LD_LIBRARY_PATH=str(folder / "now")))
        if done.returncode != 0:
            faults.append("%s: exit %d: %s" % (program, done.returncode, (done.stdout + done.stderr).strip()))
    return faults


# ---- all of it

def library_of(build):
    version = json.loads((ROOT / "bindings" / "api.json").read_text())["version"]
    library = build / ("libpeft.so.%s" % version)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "BUILD")}
    output("make", "-s", "BUILD=%s" % build, "CC=gcc", "CFLAGS=-O1 -g", library, build / "libpeft.a", cwd=ROOT, env=env)
    return library


def write(library, release):
    release.mkdir(exist_ok=True)
    shutil.copy(ROOT / "include" / "peft.h", release / "peft.h")
    shutil.copy(ROOT / "lib" / "libpeft.map", release / "libpeft.map")
    api = json.loads((ROOT / "bindings" / "api.json").read_text())
    kept = {key: api[key] for key in ("version", "constants", "structs", "callbacks", "aliases", "functions")}
    for entry in [m for g in kept["constants"] for m in [g] + g["members"]] + kept["structs"] + kept["callbacks"] + kept["functions"] \
            + kept["aliases"] + [f for s in kept["structs"] for f in s["fields"]]:
        entry.pop("doc", None)
    (release / "api.json").write_text("{\n" + ",\n".join('"%s": %s' % (k, json.dumps(v, sort_keys=True)) for k, v in kept.items()) + "\n}\n")
    dump(library, release / "libpeft.abi")


def main():
    build = Path(os.environ.get("BUILD") or ROOT / "build").resolve() / "abi"
    release, library = HERE / RELEASE, library_of(build)
    if sys.argv[1:] == ["--write"]:
        write(library, release)
        return 0
    api, old = (json.loads(p.read_text()) for p in (ROOT / "bindings" / "api.json", release / "api.json"))
    checks = [("exports", lambda: check_exports(library, api)), ("soname and needs", lambda: check_dynamic(library)),
              ("archive", lambda: check_archive(build / "libpeft.a")), ("description", lambda: compare(old, api)),
              ("since", lambda: check_since(old, api)), ("abidiff", lambda: abigail(release / "libpeft.abi", library)),
              ("layout", lambda: output("gcc", "-std=c11", "-Werror", "-fsyntax-only", "-I" + str(ROOT / "include"), HERE / "layout.c") and []),
              ("old client", lambda: old_client(release, build, library))]
    passed = failed = 0
    for name, check in checks:
        try:
            faults = check() or []
        except (RuntimeError, OSError) as error:
            faults = [str(error)]
        passed, failed = passed + (not faults), failed + bool(faults)
        print("%-6s %s" % ("FAIL" if faults else "ok", name))
        for fault in faults:
            print("       " + fault)
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
