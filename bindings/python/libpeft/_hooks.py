"""_hooks.py - what a program adds to a trainer's steps: a loss of its own, and the sums over several processes.

The library calls them during run(), step(), accumulate() and apply(). As with progress, what they raise ends the call and is
raised by it (see _callbacks.py). Memory that they are given is the library's, and only lent for the call.
"""
from __future__ import annotations

import ctypes
import weakref
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from . import _ffi
from ._callbacks import Run, _numbers


class LossChunk(NamedTuple):
    """What a loss of one's own is given: values of some rows of a pass. The views are of the library's memory and end with the
    call; numpy.asarray and torch.frombuffer take them without a copy."""

    job: str
    """What is trained: the name or expression."""
    rows: int
    columns: int
    values: memoryview
    """[rows, columns], floats. In: logits of each token with a label; of other tasks what the head computes of each row or token.
    Out: the gradient of the loss by them."""
    batch_rows: memoryview
    """[rows]: row of the pass; of a Batch its number there."""
    data_rows: memoryview
    """[rows]: which row of the data it is, as it was loaded."""
    tokens: memoryview
    """[rows]: token of that row, virtual ones counted."""
    labels: memoryview
    """[rows]: what is right there (of a language model the next token); -100: none."""


Loss = Callable[[LossChunk], Tuple[float, float]]
AllReduce = Callable[[memoryview], Any]


class Hooks:
    """A trainer's; found by `number`, as long as the trainer lives."""

    def __init__(self) -> None:
        self.loss: Optional[Loss] = None
        self.all_reduce: Optional[AllReduce] = None
        self.run: Optional[Run] = None  # the call that is under way
        self.number = next(_numbers)
        _hooks[self.number] = self

    def __bool__(self) -> bool:
        return self.loss is not None or self.all_reduce is not None


_hooks: "weakref.WeakValueDictionary[int, Hooks]" = weakref.WeakValueDictionary()


class _Loan:
    """with _Loan() as loan: views of borrowed memory, which end with the block. BufferError where an array still has one."""

    def __init__(self) -> None:
        self._views: List[memoryview] = []
        self._lenders: List[Any] = []  # weak: alive as long as anything is a view of theirs

    def view(self, pointer: Any, code: str, *shape: int) -> memoryview:
        count = 1
        for n in shape:
            count *= n
        lender = (pointer._type_ * count).from_address(ctypes.addressof(pointer.contents))
        self._lenders.append(weakref.ref(lender))
        whole = memoryview(lender).cast("B")
        view: memoryview = whole.cast(code, shape=list(shape)) if len(shape) > 1 else whole.cast(code)  # type: ignore[call-overload]
        self._views.append(view)
        return view

    def __enter__(self) -> _Loan:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return  # its traceback may have arrays, and it says more
        for view in self._views:
            view.release()
        if any(lender() is not None for lender in self._lenders):
            raise BufferError("an array over what a callback was lent is still in use: copy what is to be kept")


_CODES = {ctypes.sizeof(ctypes.c_long): "l", ctypes.sizeof(ctypes.c_longlong): "q"}
_UNSIGNED = {ctypes.sizeof(ctypes.c_ulong): "L", ctypes.sizeof(ctypes.c_ulonglong): "Q"}


def _ask_loss(function: Loss, read: Any, loss: Any, weight: Any) -> None:
    rows, columns = int(read.rows), int(read.columns)
    with _Loan() as loan:
        found = function(LossChunk(
            (read.job or b"").decode("utf-8"), rows, columns, loan.view(read.values, "f", rows, columns),
            loan.view(read.batch_rows, _CODES[8], rows), loan.view(read.data_rows, _UNSIGNED[8], rows),
            loan.view(read.tokens, _CODES[8], rows), loan.view(read.labels, "i", rows)))
    try:
        total, divisor = found
    except TypeError:
        raise TypeError("a loss function returns (loss, weight), not %s" % type(found).__name__) from None
    loss[0], weight[0] = float(total), float(divisor)


def _loss_wanted(user: int, chunk: Any, loss: Any, weight: Any) -> int:
    hooks = _hooks.get(user)
    if hooks is None or hooks.run is None or hooks.loss is None:
        return 1
    return hooks.run.attempt(_ask_loss, hooks.loss, chunk.contents, loss, weight)


def _ask_sums(function: AllReduce, values: Any, n: int) -> None:
    with _Loan() as loan:
        function(loan.view(values, "f", n))


def _sums_wanted(user: int, values: Any, n: int) -> int:
    hooks = _hooks.get(user)
    if hooks is None or hooks.run is None or hooks.all_reduce is None:
        return 1
    return hooks.run.attempt(_ask_sums, hooks.all_reduce, values, n) if n else 0


on_loss = _ffi.peft_loss_fn(_loss_wanted)
on_all_reduce = _ffi.peft_all_reduce_fn(_sums_wanted)
