"""_types.py - what arguments may be, for type checkers."""
from __future__ import annotations

import array
from typing import Any, Dict, Iterable, Mapping, Protocol, Sequence, Tuple, Union


class HasDLPack(Protocol):
    """A tensor of another library: torch, JAX, NumPy, ..."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> Tuple[Any, Any]: ...


class HasArrayInterface(Protocol):
    """An array of NumPy, and what looks like one."""

    @property
    def __array_interface__(self) -> Dict[str, Any]: ...


# Memory that others own: read in place where its elements have the right type and follow each other.
Memory = Union[memoryview, bytes, bytearray, "array.array[Any]", HasDLPack, HasArrayInterface]
Ints = Union[Sequence[int], Iterable[int], "array.array[int]", memoryview, HasDLPack, HasArrayInterface]
Floats = Union[Sequence[Any], "array.array[float]", memoryview, HasDLPack, HasArrayInterface]
# A row of a data set: a text, the ids of its tokens, or the object that a line of JSON would hold.
Row = Union[str, Mapping[str, Any], Sequence[int], HasArrayInterface]
