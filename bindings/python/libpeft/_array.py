"""_array.py - what functions return where other libraries return arrays: numbers in one block of memory, with a shape.

NumPy takes it over without a copy (`numpy.asarray(a)`), so does everything that knows DLPack (`torch.from_dlpack(a)`), and
`a.view` is a memoryview. Without them it is a sequence: a[0], a[1, 2], a.tolist().
"""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple, Union

if TYPE_CHECKING:
    import numpy

# dtype: (memoryview's format, NumPy's name, DLPack's code)
_KINDS = {"float32": ("f", "<f4", 2), "int32": ("i", "<i4", 0)}


def count(shape: Tuple[int, ...]) -> int:
    """Number of elements."""
    n = 1
    for size in shape:
        n *= size
    return n


class Array:
    """Numbers of one type, row-major. shape: sizes, slowest first; dtype: "float32" or "int32".

    Indexing by an int or a slice of the first axis gives an Array over the same memory, or a number at the last axis.
    """

    __slots__ = ("shape", "dtype", "_memory", "_offset", "_first", "__weakref__")

    def __init__(self, shape: Tuple[int, ...], dtype: str = "float32", *, _memory: Optional[bytearray] = None,
                 _offset: int = 0) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._memory = bytearray(4 * max(count(self.shape), 1)) if _memory is None else _memory
        self._offset = _offset  # in bytes
        # the memory cannot move while this is there
        self._first = ctypes.c_char.from_buffer(self._memory, min(_offset, len(self._memory) - 1))

    @property
    def size(self) -> int:
        """Number of elements."""
        return count(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return 4 * self.size

    @property
    def address(self) -> int:
        """Of the first element; valid as long as the array is."""
        return ctypes.addressof(self._first)

    def pointer(self) -> Any:
        """For a call of the library."""
        return ctypes.byref((ctypes.c_float if self.dtype == "float32" else ctypes.c_int32).from_address(self.address))

    @property
    def view(self) -> memoryview:
        """A writable memoryview of the array's shape, over the same memory."""
        form: Any = _KINDS[self.dtype][0]
        made: memoryview = self._bytes().cast(form) if self.ndim == 1 or not self.size else self._bytes().cast(form, self.shape)
        return made

    def __buffer__(self, _flags: int) -> memoryview:  # from Python 3.12 on
        if self.size == 0 and self.ndim != 1:
            raise BufferError("a memoryview has no shape with a size of 0")  # NumPy then asks __array_interface__
        return self.view

    @property
    def __array_interface__(self) -> Dict[str, Any]:
        return {"shape": self.shape, "typestr": _KINDS[self.dtype][1], "data": (self.address, False), "version": 3}

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        source = Array(self.shape, self.dtype, _memory=bytearray(self._bytes())) if copy else self
        from . import _dlpack  # when it is needed: its C functions take as long to make as all else

        return _dlpack.give(source, source.address, source.shape, _KINDS[self.dtype][2], 32)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)  # the CPU

    def _bytes(self) -> memoryview:
        return memoryview(self._memory)[self._offset:self._offset + self.nbytes]

    def numpy(self) -> "numpy.ndarray[Any, Any]":
        """The same memory as a NumPy array. Needs NumPy."""
        import numpy

        made: "numpy.ndarray[Any, Any]" = numpy.asarray(self)
        return made

    def tobytes(self) -> bytes:
        """A copy of the memory."""
        return bytes(self._bytes())

    def tolist(self) -> List[Any]:
        """Python numbers, in nested lists of the array's shape."""
        if self.ndim == 0:
            raise TypeError("an array without dimensions has no list; use a[()]")
        if self.size == 0:
            return [] if self.ndim == 1 else [self._part(i).tolist() for i in range(self.shape[0])]
        found: List[Any] = self.view.tolist()
        return found

    def reshape(self, *shape: Any) -> Array:
        """The same memory in another shape of as many elements; one size may be -1."""
        wanted = [int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)]
        if wanted.count(-1) == 1:
            known = count(tuple(n for n in wanted if n != -1))
            wanted[wanted.index(-1)] = self.size // known if known else 0
        if any(n < 0 for n in wanted) or count(tuple(wanted)) != self.size:
            raise ValueError("%d elements cannot have the shape %s" % (self.size, tuple(shape)))
        return Array(tuple(wanted), self.dtype, _memory=self._memory, _offset=self._offset)

    def _part(self, index: int) -> Array:
        inner = self.shape[1:]
        return Array(inner, self.dtype, _memory=self._memory, _offset=self._offset + 4 * index * count(inner))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __getitem__(self, key: Union[int, slice, Tuple[int, ...]]) -> Any:
        if isinstance(key, tuple):
            found: Any = self
            for one in key:
                found = found[one]
            return found if key or self.shape else self.reshape(1)[0]
        if not self.shape:
            raise IndexError("an array without dimensions has no index %r" % (key,))
        if isinstance(key, slice):
            start, stop, step = key.indices(self.shape[0])
            if step != 1:
                raise ValueError("a slice of an array has no step; take numpy.asarray(a)[...]")
            inner = self.shape[1:]
            return Array((max(stop - start, 0), *inner), self.dtype, _memory=self._memory,
                         _offset=self._offset + 4 * start * count(inner))
        if not hasattr(key, "__index__"):
            raise TypeError("an array's index is an int, a slice or a tuple of them, not %s" % type(key).__name__)
        at = key.__index__()
        if not -self.shape[0] <= at < self.shape[0]:
            raise IndexError("index %d of an axis of %d" % (at, self.shape[0]))
        at %= self.shape[0]
        return self.view[at] if self.ndim == 1 else self._part(at)

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 1:
            return iter(self.view)
        return (self._part(i) for i in range(len(self)))

    def __repr__(self) -> str:
        inside = str(self.tolist()) if self.ndim and self.size <= 8 else "..."
        return "<libpeft.Array %s %s %s>" % (self.dtype, self.shape, inside)
