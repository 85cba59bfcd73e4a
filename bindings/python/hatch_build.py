"""hatch_build.py - builds the C library and the tool into the wheel, and puts their sources into the source distribution.

In the repository the sources are two folders up, in a source distribution they are its folder source/. They are built by
their own Makefile (a C compiler and GNU make), in build/wheel beside it, so that the flags stand in one place. What the
environment may say: CC, CFLAGS and LDFLAGS as everywhere; for cross builds LIBPEFT_BUILT, a folder with the finished
library and tool, which are then not built, and LIBPEFT_PLATFORM, the wheel's platform tag.

The tag of a build on Linux is linux_<machine>: it says where it was built. `auditwheel repair` makes a manylinux wheel of it,
whose tag says where it runs. Left out: fat binaries for macOS, and MSVC."""
from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
BUILD = "build/wheel"  # relative to the sources, as make wants it: their path may have spaces
SUFFIXES = {".c", ".h", ".inc", ".map", ".def", ".txt", ".rc"}


def sources() -> Path:
    """The folder of the C library's Makefile."""
    for folder in (HERE / "source", HERE.parent.parent):
        if (folder / "include" / "peft.h").is_file() and (folder / "Makefile").is_file():
            return folder
    raise RuntimeError("the C sources are neither in %s nor in %s" % (HERE / "source", HERE.parent.parent))


def version() -> str:
    """The version that include/peft.h says."""
    text = (sources() / "include" / "peft.h").read_text(encoding="utf-8")
    return ".".join(re.findall(r"^#define PEFT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", text, re.M))


def names() -> dict[str, str]:
    """What goes into the package: its name there, and that of the Makefile's target in the build folder."""
    if sys.platform == "darwin":
        return {"libpeft.dylib": "libpeft.%s.dylib" % version(), "peft": "peft"}
    if sys.platform == "win32":
        return {"peft.dll": "peft.dll", "peft.exe": "peft.exe"}
    return {"libpeft.so": "libpeft.so.%s" % version(), "peft": "peft"}


def build() -> dict[str, Path]:
    """Builds library and tool, stripped: {name in the package: file}."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    strip = "-Wl,-x" if sys.platform == "darwin" else "-s"
    linking = (environment.get("LDFLAGS", "") + " " + strip).strip()
    targets = ["%s/%s" % (BUILD, target) for target in names().values()]
    make = environment.get("MAKE", "make")
    command = [make, "-C", str(sources()), "BUILD=" + BUILD, "LDFLAGS=" + linking, *targets]
    for key in ("CC", "CFLAGS"):
        if key in environment:
            command.insert(-len(targets), "%s=%s" % (key, environment[key]))
    if sys.platform == "darwin":
        environment.setdefault("MACOSX_DEPLOYMENT_TARGET", "11.0")
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise RuntimeError("libpeft is built by GNU make and a C compiler; there is no %s here" % make) from None
    if done.returncode != 0:
        raise RuntimeError("%s failed:\n%s" % (" ".join(command), done.stdout[-4000:]))
    return {name: sources() / BUILD / target for name, target in names().items()}


def built(folder: Path) -> dict[str, Path]:
    """The finished files of a folder, for whichever system they are."""
    found = {n: folder / n for n in ("libpeft.so", "libpeft.dylib", "peft.dll", "peft", "peft.exe") if (folder / n).is_file()}
    if len(found) != 2:
        raise RuntimeError("%s is to have the library and the tool, and has %s" % (folder, sorted(found) or "neither"))
    return {name: path.resolve() for name, path in found.items()}


def platform_tag() -> str:
    if sys.platform == "darwin":
        least = os.environ.get("MACOSX_DEPLOYMENT_TARGET", "11.0").split(".")
        return "macosx_%s_%s_%s" % (least[0], (least + ["0"])[1], platform.machine())
    return re.sub(r"[^0-9A-Za-z]", "_", sysconfig.get_platform())


class CustomBuildHook(BuildHookInterface[Any]):
    """What hatchling calls before it packs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "sdist":
            build_data["force_include"].update(self.source_files())
            return
        folder = os.environ.get("LIBPEFT_BUILT")
        files = built(Path(folder)) if folder else build()
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + (os.environ.get("LIBPEFT_PLATFORM") or platform_tag())
        for name, path in files.items():
            if version == "editable":
                shutil.copy2(path, HERE / "libpeft" / name)
            else:
                build_data["force_include"][str(path)] = "libpeft/" + name

    @staticmethod
    def source_files() -> dict[str, str]:
        """Every file that the build needs: {path: path in the source distribution}."""
        root = sources()
        files = [root / "Makefile", root / "include" / "peft.h"]
        for folder in (root / "lib", root / "examples" / "peft"):
            files += sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
        return {str(p): "source/" + p.relative_to(root).as_posix() for p in files}
