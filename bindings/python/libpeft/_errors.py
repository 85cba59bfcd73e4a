"""_errors.py - the exceptions: one for each status of the library, with the library's own sentence as text.

Each one is also the built-in exception that Python has for the case, so that `except MemoryError` and `except KeyError` see
what they should.
"""
from __future__ import annotations

from typing import Dict, Optional, Type

from . import _ffi


class Error(Exception):
    """What the library refused or could not do. `str(error)` is one sentence that names the file, tensor, key or value.

    status: the number, such as -8; name: the same as text, such as "PEFT_E_KEY".
    """

    status: int = 0

    @property
    def name(self) -> str:
        return _ffi.STATUS_NAMES.get(self.status, "PEFT_E_?")

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.name


class InvalidError(Error, ValueError):
    """An argument that cannot be."""

    status = _ffi.PEFT_E_INVALID


class OutOfMemoryError(Error, MemoryError):
    """The memory, or the limit that was set on it, does not suffice."""

    status = _ffi.PEFT_E_NOMEM


class FileError(Error, OSError):
    """The operating system said no; the text has its reason."""

    status = _ffi.PEFT_E_IO


class FormatError(Error, ValueError):
    """A file or text is damaged, or not what it claims to be."""

    status = _ffi.PEFT_E_FORMAT


class UnsupportedError(Error, NotImplementedError):
    """A sound request or file that this version cannot serve; the text lists what it can."""

    status = _ffi.PEFT_E_UNSUPPORTED


class NotFoundError(Error, KeyError):
    """No such file, tensor, adapter, token or row."""

    status = _ffi.PEFT_E_NOT_FOUND


class MissingFileError(NotFoundError, FileNotFoundError):
    """NotFoundError of a path that does not exist."""


class ExistsError(Error, ValueError):
    """The name is taken."""

    status = _ffi.PEFT_E_EXISTS


class OptionError(Error, TypeError, ValueError):
    """An unknown option (the text has the nearest one), one of the wrong type, or a value out of its range."""

    status = _ffi.PEFT_E_KEY


class ShapeError(Error, ValueError):
    """Sizes that do not fit together, or a batch that is larger than what was planned for."""

    status = _ffi.PEFT_E_SHAPE


class TooSmallError(Error, BufferError):
    """A buffer was too small. The package sizes them, so this is not to be seen."""

    status = _ffi.PEFT_E_BUFFER


class BusyError(Error, RuntimeError):
    """In use: by a session or trainer, by another thread, or by the call whose callback this is."""

    status = _ffi.PEFT_E_BUSY


class CancelledError(Error, RuntimeError):
    """cancel() was called; everything is whole and can go on."""

    status = _ffi.PEFT_E_CANCELLED


class CallbackError(Error, RuntimeError):
    """A callback ended the call. An exception that it raised is raised instead of this."""

    status = _ffi.PEFT_E_CALLBACK


class NumericError(Error, ArithmeticError):
    """A NaN or an infinity; the text says where it was first seen."""

    status = _ffi.PEFT_E_NUMERIC


class VersionError(Error, RuntimeError):
    """A file of a newer version than this library reads."""

    status = _ffi.PEFT_E_VERSION


class InternalError(Error, RuntimeError):
    """A bug in libpeft: please report it."""

    status = _ffi.PEFT_E_INTERNAL


_CLASSES: Dict[int, Type[Error]] = {
    c.status: c
    for c in (InvalidError, OutOfMemoryError, FileError, FormatError, UnsupportedError, NotFoundError, ExistsError,
              OptionError, ShapeError, TooSmallError, BusyError, CancelledError, CallbackError, NumericError, VersionError,
              InternalError)
}


def error_of(status: int, text: str) -> Error:
    """The exception of a status."""
    found: Optional[Type[Error]] = _CLASSES.get(status)
    if found is not None:
        return found(text or found.__doc__)
    error = Error(text or "status %d" % status)  # of a later release
    error.status = status
    return error
