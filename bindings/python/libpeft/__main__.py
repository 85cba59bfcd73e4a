"""`python -m libpeft` and the command `libpeft`: the tool of the library, which lies beside this module, with all arguments.

LIBPEFT_TOOL names another file; where neither is, it is the first `peft` of PATH.
"""
from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def find_tool() -> str:
    """The path of the tool."""
    name = "peft.exe" if sys.platform == "win32" else "peft"
    named = os.environ.get("LIBPEFT_TOOL")
    if named:
        return named
    for place in (os.path.join(_HERE, name), os.path.join(_HERE, "bin", name)):
        if os.path.isfile(place):
            return place
    import shutil

    found = shutil.which(name)
    if found is None:
        raise SystemExit("libpeft: the tool %s is neither in %s nor in PATH (LIBPEFT_TOOL may name it)" % (name, _HERE))
    return found


def main() -> int:
    """Becomes the tool where the system can, else waits for it."""
    command = [find_tool(), *sys.argv[1:]]
    try:
        if sys.platform != "win32":
            os.execv(command[0], command)
        import subprocess

        return subprocess.call(command)
    except OSError as error:
        raise SystemExit("libpeft: %s cannot be run: %s" % (command[0], error.strerror)) from None


if __name__ == "__main__":
    raise SystemExit(main())
