"""_buffers.py - arguments that are numbers: lists, arrays, NumPy, torch; read in place where that can be, else copied.

In place: memory with the buffer protocol or DLPack whose elements have the type that the library reads and follow each other.
Copied: lists, other types that lose nothing (int64 ids, float16 or float64 values), and memory with gaps.
"""
from __future__ import annotations

import array
import ctypes
import struct
import sys
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ._array import count
from ._types import Floats, Ints

_SIGNED, _UNSIGNED, _FLOAT = "bhilqn", "BHILQN", "efd"


class View(NamedTuple):
    """Memory of somebody else: contiguous, valid as long as `keep` is."""

    data: memoryview  # of bytes
    shape: Tuple[int, ...]
    dtype: str
    keep: Any


class Numbers(NamedTuple):
    """An argument of a call: pointer is None where there is nothing."""

    pointer: Any
    n: int
    shape: Optional[Tuple[int, ...]]  # where it had one
    keep: Any


class _PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's stable interface."""

    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi))
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_PyBuffer))(("PyBuffer_Release", ctypes.pythonapi))


def address(data: memoryview) -> int:
    """Where memory begins, which may be read-only; it must not be empty."""
    if not data.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(data))
    buffer = _PyBuffer()
    _get_buffer(data, ctypes.byref(buffer), 0)
    found = buffer.buf or 0
    _release_buffer(ctypes.byref(buffer))  # `data` holds it
    return int(found)


def _dtype(view: memoryview, what: str) -> str:
    form = view.format
    if form[:1] in "@=" or form[:1] == ("<" if sys.byteorder == "little" else ">"):
        form = form[1:]
    if len(form) == 1 and form in _SIGNED:
        return "int%d" % (8 * view.itemsize)
    if len(form) == 1 and form in _UNSIGNED:
        return "uint%d" % (8 * view.itemsize)
    if len(form) == 1 and form in _FLOAT:
        return "float%d" % (8 * view.itemsize)
    if form == "?":
        return "bool"
    raise TypeError("%s has elements of format %r, expected numbers of this machine's byte order" % (what, view.format))


def _of_buffer(source: memoryview, what: str) -> View:
    dtype, shape = _dtype(source, what), tuple(source.shape or ())
    if source.nbytes == 0:
        return View(memoryview(b""), shape, dtype, None)
    try:
        data = source.cast("B") if source.c_contiguous else memoryview(source.tobytes())
    except (TypeError, ValueError):  # a format such as "<f", of ctypes' arrays
        data = memoryview(source.tobytes())
    return View(data, shape, dtype, data)


def view(source: Any, what: str) -> Optional[View]:
    """The memory of an argument; None where it is none, as a list is."""
    if isinstance(source, (list, tuple, range, str)):
        return None
    if hasattr(source, "view") and hasattr(source, "__dlpack__") and isinstance(source.view, memoryview):
        return _of_buffer(source.view, what)  # an Array
    try:
        plain = memoryview(source)
    except (TypeError, ValueError, BufferError):
        plain = None
    if plain is not None:
        return _of_buffer(plain, what)
    if not hasattr(source, "__dlpack__"):
        return None
    from . import _dlpack

    found = _dlpack.read(source, what)
    bits = 8 if found.dtype == "bool" else int("".join(c for c in found.dtype if c.isdigit()))
    nbytes = count(found.shape) * bits // 8
    if nbytes == 0:
        return View(memoryview(b""), found.shape, found.dtype, None)
    block = (ctypes.c_char * nbytes).from_address(found.address)
    return View(memoryview(block).cast("B"), found.shape, found.dtype, (found.keep, block))


def _unpack(found: View) -> Any:
    """The numbers one by one."""
    if not found.data.nbytes:
        return []
    if found.dtype == "float16":
        return struct.unpack("=%de" % (found.data.nbytes // 2), found.data)
    if found.dtype == "bfloat16":  # the upper half of a float32
        halves = found.data.cast("H").tolist()
        return struct.unpack("=%df" % len(halves), struct.pack("=%dI" % len(halves), *(h << 16 for h in halves)))
    codes: Dict[str, Any] = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
             "uint64": "Q", "float32": "f", "float64": "d", "bool": "?"}
    return found.data.cast(codes[found.dtype]).tolist()


def _pack(code: str, values: Iterable[Any], what: str) -> "array.array[Any]":
    listed = values if isinstance(values, (list, tuple, range)) else list(values)
    try:
        return array.array(code, listed)
    except (TypeError, OverflowError) as error:
        pack = array.array(code)
        for i, value in enumerate(listed):
            try:
                pack.append(value)
            except (TypeError, OverflowError):
                kind = TypeError if isinstance(error, TypeError) else ValueError
                wanted = "an int of 32 bits" if code == "i" else "a number"
                raise kind("value %d of %s is %.60r, expected %s" % (i, what, value, wanted)) from None
        raise


def _of_array(made: "array.array[Any]", kind: Any, shape: Optional[Tuple[int, ...]]) -> Numbers:
    n = len(made)
    return Numbers(ctypes.byref(kind.from_buffer(made)) if n else None, n, shape, made)


def ints(values: Ints, what: str) -> Numbers:
    """int32 for a call: ids, labels."""
    text = isinstance(values, (str, bytes, bytearray))
    found = None if text else view(values, what)
    if found is None:
        if text or not hasattr(values, "__iter__"):
            raise TypeError("%s must be integers in a list or an array, not %s" % (what, type(values).__name__))
        return _of_array(_pack("i", values, what), ctypes.c_int32, None)  # type: ignore[arg-type]
    if len(found.shape) != 1:
        raise ValueError("%s has the shape %s, expected one dimension" % (what, found.shape))
    if not found.dtype.startswith(("int", "uint")):
        raise TypeError("%s has elements of %s, expected integers" % (what, found.dtype))
    if found.dtype == "int32" and found.data.nbytes:
        place = ctypes.c_int32.from_address(address(found.data))
        return Numbers(ctypes.byref(place), found.shape[0], found.shape, (found, place))
    return _of_array(_pack("i", _unpack(found), what), ctypes.c_int32, found.shape)


def _flat(values: Any, out: List[Any]) -> List[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            _flat(value, out)
        else:
            out.append(value)
    return out


def floats(values: Floats, what: str) -> Numbers:
    """float32 for a call: values of a tensor, weights. Nested lists are read row by row."""
    text = isinstance(values, (str, bytes, bytearray))
    found = None if text else view(values, what)
    if found is None:
        if text or not hasattr(values, "__iter__"):
            raise TypeError("%s must be numbers in a list or an array, not %s" % (what, type(values).__name__))
        return _of_array(_pack("f", _flat(values, []), what), ctypes.c_float, None)
    if found.dtype == "float32" and found.data.nbytes:
        place = ctypes.c_float.from_address(address(found.data))
        return Numbers(ctypes.byref(place), count(found.shape), found.shape, (found, place))
    return _of_array(_pack("f", _unpack(found), what), ctypes.c_float, found.shape)
