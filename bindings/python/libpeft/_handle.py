"""_handle.py - what all handles have in common: a life that ends once, and calls that do not meet.

A handle is freed by close(), at the end of its `with`, or with its last reference; never twice, and not while a call uses it
(then when that call returns). What the interpreter still has when it ends is left to the operating system: threads may be in
the middle of it. After a fork, handles with threads of their own are of the parent only.
"""
from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Callable, ClassVar, List, Optional, Tuple, Type, TypeVar

from ._errors import BusyError
from ._lib import lib

H = TypeVar("H", bound="Handle")
Free = Callable[[int], None]

_lock = threading.RLock()  # of all counts; held for a few instructions
_life = 0                  # counts forks
_late: List[Tuple[Free, int]] = []  # what cannot be freed where its last reference went
_inside = threading.local()


def _after_fork() -> None:
    global _lock, _life
    _lock = threading.RLock()
    _life += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class inner_callback:
    """with inner_callback(): inside a callback that may not free handles, as garbage collection would."""

    def __enter__(self) -> None:
        _inside.depth = getattr(_inside, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        _inside.depth -= 1


def _free_late() -> None:
    while _late and not getattr(_inside, "depth", 0):
        try:
            free, address = _late.pop()
        except IndexError:
            return
        free(address)


def _release(free: Free, address: int, life: Optional[int]) -> None:
    if life is not None and life != _life:
        return  # its threads are in the parent
    if getattr(_inside, "depth", 0):
        _late.append((free, address))
    else:
        free(address)


class Use:
    """with handle._use() as address: the handle is open, and stays so, for this call."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> int:
        return self._handle._begin()

    def __exit__(self, *_: object) -> None:
        self._handle._end()


class UseWithOthers(Use):
    """The same for the calls that another thread may make too."""

    __slots__ = ()

    def __enter__(self) -> int:
        return self._handle._begin(others=True)

    def __exit__(self, *_: object) -> None:
        self._handle._end(others=True)


class NoUse:
    """The same for a handle that may be absent, and is."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class Handle:
    """An object of the library. `with` frees it at its end; so does close(), which may be called twice."""

    _free: ClassVar[str]
    _one_thread: ClassVar[bool] = False  # for one thread at a time
    _has_threads: ClassVar[bool] = False

    def __init__(self, address: int) -> None:
        free = getattr(lib, self._free)
        self._life = _life
        self._address: Optional[int] = address
        self._users = 0                   # calls that use it, not those of UseWithOthers
        self._others = 0
        self._user: Optional[int] = None  # the thread, where it is for one
        self._finalizer = weakref.finalize(self, _release, free, address, _life if self._has_threads else None)
        setattr(self._finalizer, "atexit", False)  # a property, which type checkers do not know

    def _begin(self, others: bool = False) -> int:
        with _lock:
            if self._address is None:
                raise ValueError("this %s is closed" % type(self).__name__)
            if self._has_threads and self._life != _life:
                raise RuntimeError("this %s was made before the fork and belongs to the parent" % type(self).__name__)
            if others:
                self._others += 1
                return self._address
            if self._one_thread:
                me = threading.get_ident()
                if self._users and self._user != me:
                    raise BusyError("this %s is in use by another thread" % type(self).__name__)
                self._user = me
            self._users += 1
            return self._address

    def _end(self, others: bool = False) -> None:
        with _lock:
            if others:
                self._others -= 1
            else:
                self._users -= 1
            last = self._users == 0 and self._others == 0 and self._address is None
        if last:
            self._finalizer()
        if _late:
            _free_late()

    def _use(self) -> Use:
        return Use(self)

    def _use_with_others(self) -> Use:
        return UseWithOthers(self)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._address is None

    def close(self) -> None:
        """Frees it. What still uses it goes on; where a call does, it is freed when that returns."""
        with _lock:
            if self._address is None:
                return
            self._address = None
            busy = self._users > 0 or self._others > 0
        if not busy:
            self._finalizer()

    def __enter__(self: H) -> H:
        if self._address is None:
            raise ValueError("this %s is closed" % type(self).__name__)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a %s cannot be pickled or copied: it is memory of this process" % type(self).__name__)

    def __repr__(self) -> str:
        state = " (closed)" if getattr(self, "_address", None) is None else ""
        return "<libpeft.%s%s%s>" % (type(self).__name__, self._about() if not state else "", state)

    def _about(self) -> str:
        """What follows the type's name in the handle's repr."""
        return ""


def expect(value: Any, kind: Type[H], what: str) -> H:
    """The value, if it is of that kind of handle."""
    if not isinstance(value, kind):
        raise TypeError("%s must be a libpeft.%s, not %s" % (what, kind.__name__, type(value).__name__))
    return value


def use(value: Optional[Handle], kind: Type[Handle], what: str) -> Any:
    """with use(handle_or_None, Kind, "name") as address: ..."""
    return NoUse() if value is None else expect(value, kind, what)._use()
