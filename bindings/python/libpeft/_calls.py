"""_calls.py - what goes in and out of the library's functions: texts, paths, and results by the buffer rule."""
from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, List, Tuple, Union, cast

from . import _ffi
from ._errors import MissingFileError, NotFoundError, TooSmallError

Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
_TEXT = 4096  # bytes that most results fit in: those that cost a computation are made once


def utf8(text: str, what: str) -> bytes:
    """Content, which may hold NULs."""
    if not isinstance(text, str):
        raise TypeError("%s must be a str, not %s" % (what, type(text).__name__))
    return text.encode("utf-8")  # a lone surrogate is a UnicodeEncodeError


def name(text: str, what: str) -> bytes:
    """A name, which ends at a NUL for the library and so may hold none."""
    raw = utf8(text, what)
    if b"\0" in raw:
        raise ValueError("%s has a NUL character: %r" % (what, text))
    return raw


def path(place: Path, what: str = "path") -> bytes:
    """A path as the library takes it, UTF-8."""
    plain = os.fspath(place)
    if isinstance(plain, str):
        return name(plain, what)
    if b"\0" in plain:
        raise ValueError("%s has a NUL character: %r" % (what, plain))
    plain.decode("utf-8")  # other bytes are a UnicodeDecodeError
    return plain


class reading:
    """with reading(p): a NotFoundError about a path that does not exist is a FileNotFoundError too."""

    __slots__ = ("_path",)

    def __init__(self, place: bytes) -> None:
        self._path = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, NotFoundError) and not os.path.exists(self._path):
            raise MissingFileError(str(error)) from None


def integer(value: int, what: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """An int that the C type holds; ctypes would cut it off."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError("%s must be an int, not %s" % (what, type(value).__name__))
    number = value.__index__()
    if not low <= number <= high:
        raise ValueError("%s is %d, expected %d to %d" % (what, number, low, high))
    return number


def make(function: Callable[..., int], *arguments: Any) -> int:
    """The address of the handle that a function makes."""
    out = ctypes.c_void_p()
    function(*arguments, ctypes.byref(out))
    return cast(int, out.value)


def text(function: Callable[..., int], *arguments: Any, room: int = _TEXT) -> str:
    """A text by the buffer rule, without its NUL."""
    return _bytes(function, arguments, room)[:-1].decode("utf-8", "replace")


def content(function: Callable[..., int], *arguments: Any, room: int = _TEXT) -> bytes:
    """Bytes by the buffer rule, of functions that write no NUL."""
    return _bytes(function, arguments, room)


def _bytes(function: Callable[..., int], arguments: Tuple[Any, ...], room: int) -> bytes:
    needed = ctypes.c_size_t()
    for _ in range(8):  # what it is about may grow from call to call
        buffer = bytearray(room)
        first = ctypes.c_char.from_buffer(buffer)
        status = function(*arguments, ctypes.byref(first), room, ctypes.byref(needed))
        if status != _ffi.PEFT_E_BUFFER:
            return bytes(buffer[:needed.value])
        room = needed.value
    raise TooSmallError("the result grew while it was read")


def data(function: Callable[..., int], *arguments: Any, room: int = _TEXT) -> Any:
    """JSON by the buffer rule."""
    import json  # here and elsewhere where it is needed: importing the package is to be quick

    return json.loads(text(function, *arguments, room=room))


def names(function: Callable[[int], Any]) -> List[str]:
    """All names that a function has by index."""
    found: List[str] = []
    while True:
        one = function(len(found))
        if one is None:
            return found
        found.append(one.decode())


def tensor_info(function: Callable[..., int], *arguments: Any, dtype: bool = False) -> Tuple[str, int, Tuple[int, ...]]:
    """Name, element type and shape of a tensor."""
    label, kind, ndim = ctypes.c_char_p(), ctypes.c_int32(), ctypes.c_int32()
    dims = (ctypes.c_int64 * 8)()
    types = (ctypes.byref(kind),) if dtype else ()
    function(*arguments, ctypes.byref(label), *types, ctypes.byref(ndim), dims)
    return (label.value or b"").decode(), kind.value, tuple(dims[:ndim.value])
