"""_lib.py - finds and loads the shared library, and checks that it is the one that this package was written for.

In this order: the file that the environment variable LIBPEFT_LIBRARY names, the file beside this module (as in a wheel), the
system's (as the dynamic loader finds libpeft.so.0). A failing call raises the exception of its status.
"""
from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, List, Tuple

from . import _errors, _ffi

_HERE = os.path.dirname(os.path.abspath(__file__))
_FILE, _SYSTEM = {
    "win32": ("peft.dll", "peft.dll"),
    "darwin": ("libpeft.dylib", "libpeft.0.dylib"),
}.get(sys.platform, ("libpeft.so", "libpeft.so.0"))


def _candidates() -> List[str]:
    named = os.environ.get("LIBPEFT_LIBRARY")
    if named:
        return [named]
    beside = os.path.join(_HERE, _FILE)
    return [beside, _SYSTEM] if os.path.exists(beside) else [_SYSTEM]


def _load() -> Tuple[ctypes.CDLL, str]:
    reasons = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path), path
        except OSError as error:
            reasons.append(str(error))
    raise ImportError("libpeft cannot load its library: %s (LIBPEFT_LIBRARY may name the file)" % "; ".join(reasons))


def _check_version(library: ctypes.CDLL, path: str) -> None:
    """Before 1.0 the first two numbers must be the same, then the first; an older library lacks only what came later."""
    try:
        number = ctypes.CFUNCTYPE(ctypes.c_uint32)(("peft_version", library))()
    except AttributeError:
        raise ImportError("%s is no libpeft: it has no peft_version" % path) from None
    found = (number >> 16, number >> 8 & 255, number & 255)
    same = 1 if _ffi.VERSION[0] else 2
    if found[:same] != _ffi.VERSION[:same]:
        raise ImportError("%s is libpeft %d.%d.%d, which this package, %s, cannot use" % (path, *found, _ffi.VERSION_STRING))


def _check(status: int, _function: Any, _arguments: Tuple[Any, ...]) -> int:
    """PEFT_E_BUFFER is the callers' to handle: see _calls.py."""
    if status in (_ffi.PEFT_OK, _ffi.PEFT_E_BUFFER):
        return status
    raise _errors.error_of(status, (lib.peft_last_error() or b"").decode("utf-8", "replace"))


_library, path = _load()
_check_version(_library, path)
lib = _ffi.Library(_library, _check)
