"""_callbacks.py - Python functions that the library calls: one C function of each kind for the whole process, which finds its
Python side by the number in `user`.

An exception must not leave through the library. It is kept, the callback answers "stop", and the call that the library was in
raises it when it returns. Signals are handled the same way: while a call with callbacks runs on the main thread, what a
handler raises (KeyboardInterrupt) is kept until the next callback and raised when the call has returned.
"""
from __future__ import annotations

import ctypes
import itertools
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from . import _ffi
from ._errors import CancelledError
from ._handle import inner_callback

T = TypeVar("T")


class Step(NamedTuple):
    """One step of a training run."""

    step: int
    """Optimiser steps done."""
    max_steps: int
    """Optimiser steps in all."""
    loss: float
    """Mean over the step's labelled tokens, in nats, before its update."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    tokens: int
    """Tokens of the step."""
    tokens_per_second: float
    seconds: float
    """Since the run began."""
    eta_seconds: float
    """To the run's end, as it looks."""
    peak_bytes: int
    """The resident part of the base and the peak of the rest."""
    eval_loss: Optional[float]
    """None where the step was not followed by an evaluation."""
    epoch: float
    """Passes over the data, with the present one's part."""
    job: str
    """What is trained: the name or expression."""


_FIELDS = [(name, getattr(_ffi.peft_step_info, name)) for name in Step._fields]


def _step(info: Any) -> Step:
    """A copy of what a progress callback is shown."""
    read = info.contents
    values: Dict[str, Any] = {n: getattr(read, n) if field.offset + field.size <= read.struct_size else 0 for n, field in _FIELDS}
    values["eval_loss"] = None if values["eval_loss"] != values["eval_loss"] else values["eval_loss"]
    values["job"] = (values["job"] or b"").decode("utf-8")
    return Step(**values)


class Run:
    """with Run(function) as run: the library may be given run.number as `user`. function: called with a Step, with the
    id and the text of a token, or with what a row got; what it raises, or a signal's handler does meanwhile, is raised when the block ends."""

    def __init__(self, function: Optional[Callable[..., Any]] = None) -> None:
        self._function = function
        self.number = next(_numbers)
        self.error: Optional[BaseException] = None
        self._handlers: List[Tuple[int, Any]] = []

    def __enter__(self) -> Run:
        _runs[self.number] = self
        if threading.current_thread() is threading.main_thread():
            self._hold_signals()
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        self._restore_signals()
        _runs.pop(self.number, None)
        if self.error is not None:
            kept, self.error = self.error, None
            raise kept from None

    def call(self, *arguments: Any) -> int:
        """From a callback: 0 to go on."""
        return self.attempt(self._function, *arguments) if self._function is not None else self.attempt(_nothing)

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> int:
        """The same for another function."""
        if self.error is None:
            try:
                function(*arguments)
            except BaseException as error:  # also KeyboardInterrupt and SystemExit: raised in a moment
                self.error = self.error or error
        return 0 if self.error is None else 1

    def _hold_signals(self) -> None:
        import signal

        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGALRM", signal.SIGTERM)):
            before = signal.getsignal(number)
            if callable(before) and before != self._signal:
                try:
                    signal.signal(number, self._signal)
                except ValueError:  # not the main interpreter
                    return
                self._handlers.append((number, before))

    def _signal(self, number: int, frame: Any) -> None:
        for held, before in self._handlers:
            if held == number:
                try:
                    before(number, frame)
                except BaseException as error:
                    self.error = self.error or error

    def _restore_signals(self) -> None:
        if not self._handlers:
            return
        import signal

        for number, before in reversed(self._handlers):
            if signal.getsignal(number) == self._signal:  # else a callback has set another one
                signal.signal(number, before)


def _nothing() -> None:
    pass


_numbers = itertools.count(1)
_runs: Dict[int, Run] = {}


def _call(user: int, arguments: Callable[[], Tuple[Any, ...]]) -> int:
    """The run's function, with what the callback was given; 0 to go on."""
    run = _runs.get(user)
    if run is None:
        return 1
    try:
        return run.call(*arguments())
    except BaseException as error:
        run.error = run.error or error
        return 1


def _step_made(user: int, info: Any) -> int:
    return _call(user, lambda: (_step(info),))


def _token_chosen(user: int, token: int, text: Any, size: int) -> int:
    return _call(user, lambda: (token, ctypes.string_at(text, size).decode("utf-8", "replace") if text else ""))


def _row_got(user: int, info: Any) -> int:
    return _call(user, lambda: (info,))


on_step = _ffi.peft_progress_fn(_step_made)
on_token = _ffi.peft_token_fn(_token_chosen)
on_row = _ffi.peft_row_fn(_row_got)

# ---- memory that the library borrows ------------------------------------------------------------------------------------

_borrowed: Dict[int, Any] = {}


def lend(memory: Any) -> int:
    """Keeps something until on_release is called with the number."""
    number = next(_numbers)
    _borrowed[number] = memory
    return number


def lent() -> int:
    """How many such things there are."""
    return len(_borrowed)


def _released(user: int) -> None:
    with inner_callback():
        _borrowed.pop(user, None)


on_release = _ffi.peft_release_fn(_released)


# ---- long calls without callbacks -----------------------------------------------------------------------------------------

def interruptible(call: Callable[[], T], cancel: Callable[[], None]) -> T:
    """call(), on a thread of its own if this is the main one, so that Ctrl-C can end it by cancel()."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    found: List[T] = []
    failed: List[BaseException] = []
    ended = threading.Event()

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    threading.Thread(target=work, name="libpeft", daemon=True).start()
    try:
        ended.wait()
    except BaseException:
        cancel()
        while not ended.is_set():
            try:
                ended.wait()
            except BaseException:  # it is ending already
                continue
        if not failed:  # it had ended before: the request would meet the next call
            try:
                call()
            except CancelledError:
                pass
        raise
    if failed:
        try:
            raise failed[0]
        finally:
            failed.clear()
    return found[0]
