"""_dlpack.py - DLPack without a compiler: reads the tensors of other libraries in place, and hands out arrays as theirs.

The structures are those of dlpack.h, version 0.x ("dltensor" capsules), which every library understands:
https://dmlc.github.io/dlpack. Left out: devices other than the CPU, and the versioned capsules of DLPack 1.
"""
from __future__ import annotations

import ctypes
from typing import Any, Dict, NamedTuple, Tuple

_NAME = b"dltensor"
CPU = 1
_CPU_PINNED = 3
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_deleter_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# Functions of our own: the attributes of ctypes.pythonapi are shared with all that use them.
_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_get_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_keep_for_ever = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", _api))


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _deleter_type)]


class Foreign(NamedTuple):
    """A tensor of another library: valid as long as `keep` is."""

    address: int
    shape: Tuple[int, ...]
    dtype: str  # "float32", "int64", "bfloat16", ...
    keep: Any


def _contiguous(tensor: _Tensor) -> bool:
    if not tensor.strides:
        return True
    step = 1
    for axis in reversed(range(tensor.ndim)):
        if tensor.shape[axis] > 1 and tensor.strides[axis] != step:
            return False
        step *= tensor.shape[axis]
    return True


def read(source: Any, what: str) -> Foreign:
    """The tensor behind source.__dlpack__(). The capsule is not consumed: it frees the tensor when it goes itself."""
    device = source.__dlpack_device__()[0]
    if device not in (CPU, _CPU_PINNED):
        raise ValueError("%s is not in the CPU's memory: move it there first, as .cpu() does" % what)
    capsule = source.__dlpack__()
    tensor = ctypes.cast(_get(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(tensor.shape[:tensor.ndim]) if tensor.ndim else ()
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise TypeError("%s has elements of DLPack type %d, which is not known" % (what, tensor.code))
    if not _contiguous(tensor):
        raise ValueError("%s is not contiguous: copy it first, as .contiguous() does" % what)
    dtype = "bool" if tensor.code == 6 else "%s%d" % (_KINDS[tensor.code], tensor.bits)
    return Foreign((tensor.data or 0) + tensor.byte_offset, shape, dtype, (capsule, source))


# ---- the other direction -------------------------------------------------------------------------------------------------

_given: Dict[int, Tuple[Any, ...]] = {}  # by address of the structure: what keeps it and its memory


def _forget(managed: int) -> None:
    _given.pop(managed, None)


def _forget_capsule(capsule: int) -> None:
    """A capsule that nobody consumed."""
    if _is_valid(capsule, _NAME):
        _given.pop(_get_dying(capsule, _NAME), None)


_delete = _deleter_type(_forget)
_drop = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_forget_capsule)
# Consumers may call them for as long as there is an interpreter.
for _function in (_delete, _drop):
    _keep_for_ever(_function)


def give(owner: Any, address: int, shape: Tuple[int, ...], code: int, bits: int) -> Any:
    """A capsule for memory that `owner` keeps; code: 0 for integers, 2 for floats."""
    managed = _Managed()
    dims = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.ndim = address, CPU, len(shape)
    tensor.code, tensor.bits, tensor.lanes = code, bits, 1
    tensor.shape = ctypes.cast(dims, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _delete
    place = ctypes.addressof(managed)
    _given[place] = (managed, dims, owner)
    return _new(place, _NAME, ctypes.cast(_drop, ctypes.c_void_p))
