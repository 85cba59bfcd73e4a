"""_context.py - Context: threads, instruction set, log and memory; most programs need only the default one.

    libpeft.context().threads = 4

Messages of the library go to the logger "libpeft" of the logging module, from level WARNING on unless told otherwise.
Left out: an allocator in Python, which every allocation of the library would have to wait for.
"""
from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Optional, Set

from . import _ffi
from ._calls import Path, data, integer, make, name, path, reading
from ._handle import Handle, inner_callback
from ._lib import lib

if TYPE_CHECKING:
    from ._model import Model

_LEVELS = {"error": 1, "warning": 2, "info": 3, "debug": 4}
_LOGGING = {1: 40, 2: 30, 3: 20, 4: 10}
# body(i, worker) runs task i; the function runs it for all 0 <= i < n, from up to `workers` threads at a time
ParallelFor = Callable[[int, int, Callable[[int, int], None]], None]


class Memory(NamedTuple):
    """Bytes of a context's allocator; mapped model files are not in it."""

    now: int
    peak: int


def _log(_user: Any, level: int, text: Optional[bytes]) -> None:
    try:
        with inner_callback():
            import logging

            logging.getLogger("libpeft").log(_LOGGING.get(level, 10), "%s", (text or b"").decode("utf-8", "replace"))
    except BaseException:  # a message is not worth a crash
        pass


_pools: Dict[int, ParallelFor] = {}  # never emptied: sessions use them for as long as they live


def _parallel_for(user: int, n: int, workers: int, body: Any, argument: int) -> None:
    begun: Set[int] = set()

    def one(i: int, worker: int) -> None:
        if not (0 <= i < n and 0 <= worker < workers):
            raise ValueError("task %d of %d on worker %d of %d" % (i, n, worker, workers))
        if i in begun:
            raise ValueError("task %d a second time" % i)
        begun.add(i)
        body(argument, i, worker)

    failure: Optional[BaseException] = None
    try:
        with inner_callback():
            _pools[user](n, workers, one)
    except BaseException as error:
        failure = error
    for i in range(n):  # the library counts on all of them
        if i not in begun:
            body(argument, i, 0)
    if failure is not None:
        import sys

        sys.excepthook(type(failure), failure, failure.__traceback__)

_on_log = _ffi.peft_log_fn(_log)
_on_parallel_for = _ffi.peft_parallel_for_fn(_parallel_for)


class Context(Handle):
    """Where models, tokenizers and data sets are made.

    threads: of sessions and trainers made afterwards, 0 for one a CPU; no result depends on it.
    isa: "auto", "generic", "avx2", "avx512", "avx512bf16", "neon".
    log: "error", "warning", "info", "debug", or None for silence.
    """

    _free = "peft_context_free"

    def __init__(self, *, threads: int = 0, isa: Optional[str] = None, log: Optional[str] = "warning") -> None:
        super().__init__(make(lib.peft_context_create, None))
        if threads != 0:
            self.threads = threads
        if isa is not None:
            self.isa = isa
        self.set_log(log)

    @property
    def threads(self) -> int:
        """Threads of sessions and trainers made afterwards: 1 to 1024, 0 for one a CPU."""
        with self._use() as ctx:
            return lib.peft_context_threads(ctx)

    @threads.setter
    def threads(self, n: int) -> None:
        with self._use() as ctx:
            lib.peft_context_set_threads(ctx, integer(n, "threads", -2**31, 2**31 - 1))

    @property
    def isa(self) -> str:
        """Instruction set of sessions and trainers made afterwards."""
        with self._use() as ctx:
            return (lib.peft_context_isa(ctx) or b"").decode()

    @isa.setter
    def isa(self, wanted: str) -> None:
        with self._use() as ctx:
            lib.peft_context_set_isa(ctx, name(wanted, "isa"))

    def set_log(self, level: Optional[str]) -> None:
        """Sends messages up to a level to the logger "libpeft"; None: none."""
        if level is not None and level not in _LEVELS:
            raise ValueError("log level %r, expected one of %s or None" % (level, ", ".join(_LEVELS)))
        with self._use() as ctx:
            function = _ffi.peft_log_fn() if level is None else _on_log
            lib.peft_context_set_log(ctx, _LEVELS[level or "error"], function, None)

    def set_parallel_for(self, function: Optional[ParallelFor]) -> None:
        """Runs the loops of sessions and trainers made afterwards on the caller's threads: function(n, workers, body) calls
        body(i, worker) once for each 0 <= i < n, worker being another one for each of the threads, and returns when all
        have returned. None: on the library's own. An exception is reported by sys.excepthook, and the rest is done."""
        with self._use() as ctx:
            if function is None:
                lib.peft_context_set_parallel_for(ctx, _ffi.peft_parallel_for_fn(), None)
                return
            if not callable(function):
                raise TypeError("a parallel-for must be callable, not %s" % type(function).__name__)
            number = len(_pools) + 1
            _pools[number] = function
            lib.peft_context_set_parallel_for(ctx, _on_parallel_for, number)

    def memory(self) -> Memory:
        """Bytes that are in use now, and were at most."""
        now, peak = ctypes.c_size_t(), ctypes.c_size_t()
        with self._use() as ctx:
            lib.peft_context_memory(ctx, ctypes.byref(now), ctypes.byref(peak))
        return Memory(now.value, peak.value)

    def reset_peak(self) -> None:
        """Lets the peak of memory() begin anew at what is in use."""
        with self._use() as ctx:
            lib.peft_context_memory_reset_peak(ctx)

    def inspect(self, place: Path) -> Dict[str, Any]:
        """What a path holds: a dict with "kind": "model", "adapter", "tokenizer" or "data"."""
        raw = path(place)
        with self._use() as ctx, reading(raw):
            found: Dict[str, Any] = data(lib.peft_inspect_json, ctx, raw, room=65536)
        return found

    def check(self, place: Path, base: Optional[Model] = None, **options: Any) -> Dict[str, Any]:
        """All that is wrong with what a path holds: a dict with "ok", "errors", "warnings", "kind" and more. base: the model of
        an adapter, or that rows of data are for. Options: schema "check"."""
        from ._handle import NoUse
        from ._options import using

        raw = path(place)
        with self._use() as ctx, using(self, "check", options) as o, reading(raw), base._use() if base is not None else NoUse() as m:
            found: Dict[str, Any] = data(lib.peft_check_json, ctx, raw, m, o, room=262144)
        return found

    def _about(self) -> str:
        return " %d threads, %s" % (self.threads, self.isa)


_default: Optional[Context] = None
_default_lock = threading.Lock()


def context() -> Context:
    """The context that is used where none is given; made when it is first needed."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Context()
        return _default


def inspect(place: Path) -> Dict[str, Any]:
    """What a path holds: a dict with "kind": "model", "adapter", "tokenizer" or "data"."""
    return context().inspect(place)


def check(place: Path, base: Optional[Model] = None, **options: Any) -> Dict[str, Any]:
    """All that is wrong with what a path holds: see Context.check."""
    return (base.context if base is not None else context()).check(place, base, **options)


def memory() -> Memory:
    """Bytes that the default context has in use now, and had at most."""
    return context().memory()
