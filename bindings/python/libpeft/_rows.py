"""_rows.py - rows that a session continues together, each with adapters, options and a text of its own.

    fr = session.add_row("Il était une fois", "fr", max_new_tokens=40)
    de = session.add_row("Es war einmal", "de", temperature=0.8)
    for token in session.rows():
        print(token.row.number, token.text)
"""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from . import _ffi
from ._callbacks import Run, on_row
from ._errors import NotFoundError
from ._lib import lib

if TYPE_CHECKING:
    from ._session import Session


class Row:
    """One of the rows of a session. It has ended when `ended` is True; what it got is in `ids` and `text`."""

    def __init__(self, session: Session, expression: Optional[str]) -> None:
        self._session = session
        self.number = 0
        """The session's number for it."""
        self.expression = expression
        """Its adapters; None: those of the session when it was added."""
        self.ids: List[int] = []
        self.text = ""
        self.ended = False
        self.error: Optional[str] = None
        """Why it ended without a last token: its logits had a NaN or an infinity."""

    def remove(self) -> None:
        """Ends the row, held or not; nothing happens where it has ended."""
        self.ended = True
        self._session._rows.pop(self.number, None)
        with self._session._use() as s:
            try:
                lib.peft_session_row_remove(s, self.number)
            except NotFoundError:
                pass

    def __repr__(self) -> str:
        return "<libpeft.Row %d of %r%s: %r>" % (self.number, self.expression, ", ended" if self.ended else "", self.text[-40:])


class RowToken(NamedTuple):
    """What a row got in a pass."""

    row: Row
    id: Optional[int]
    """None where there was none: the row ended."""
    text: str
    """Whole characters, perhaps none."""
    ended: bool
    """Nothing comes after it."""


def _take(info: Any, rows: Dict[int, Row], found: List[RowToken]) -> None:
    """Notes what one row got."""
    read = info.contents
    row = rows.get(read.row)
    if row is None:
        return
    text = ctypes.string_at(read.text, read.text_len).decode("utf-8", "replace") if read.text else ""
    if read.id >= 0:
        row.ids.append(read.id)
    row.text += text
    row.ended = bool(read.ended)
    if read.status != _ffi.PEFT_OK:
        row.error = "the row's logits had a NaN or an infinity"
    found.append(RowToken(row, read.id if read.id >= 0 else None, text, row.ended))


def next_tokens(session: Session, s: int) -> List[RowToken]:
    """A pass for all rows."""
    found: List[RowToken] = []
    try:
        with Run(lambda info: _take(info, session._rows, found)) as run:
            lib.peft_session_rows_next(s, on_row, run.number, None)
    finally:
        for token in found:
            if token.ended:
                session._rows.pop(token.row.number, None)
    return found
