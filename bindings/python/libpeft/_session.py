"""_session.py - Session: what a model with adapters says: logits, texts, losses.

    session = Session(adapters["fr"])
    for piece in session.stream("Once upon a time", max_new_tokens=100):
        print(piece, end="", flush=True)
"""
from __future__ import annotations

import ctypes
import math
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union, overload

from . import _ffi
from ._adapters import Adapter, Adapters
from ._array import Array
from ._buffers import ints
from ._callbacks import Run, interruptible, on_token
from ._calls import data, make, name, utf8
from ._dataset import Batch, Dataset, Rows, dataset_of
from ._errors import BusyError, CallbackError, Error, InvalidError
from ._handle import Handle, expect, use
from ._lib import lib
from ._model import Model
from ._options import using
from ._rows import Row, RowToken, next_tokens
from ._tokenizer import Messages, Tokenizer
from ._trainer import Metrics, Source, metrics_of
from ._types import Ints

OnToken = Optional[Callable[[int, str], object]]
_ROOM = 256  # bytes that the text of a token fits in as a rule


class Token(NamedTuple):
    """A token as it is chosen, and the text that it completes: whole characters, perhaps none."""

    id: int
    text: str


class Tokens(Iterator[Token]):
    """The tokens of a generation, each made when it is asked for. Another use of the session ends it with InvalidError."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ended = False
        session._current = self

    def __iter__(self) -> Tokens:
        return self

    def __next__(self) -> Token:
        if self._ended:
            raise StopIteration
        found = self._session._next(self)
        if found is None:
            self._ended = True
            raise StopIteration
        return found


class Pieces(Iterator[str]):
    """The text of a generation, piece by piece as it comes."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> str:
        for token in self._tokens:
            if token.text:
                return token.text
        raise StopIteration


class Session(Handle):
    """A model with the adapters that an expression names.

    what: a Model (the base alone), an Adapter, or an Adapters.
    expression: which adapters of a set act, and how together: "fr", "0.5 * fr", "fr, de", "average(fr:3, de:1)",
        "split(fr:5, de)", ...; "" for the base alone; None: the set's only one.
    tokenizer: None for the model's own.
    Options: schema "session", such as max_length=2048.
    """

    _free = "peft_session_free"
    _one_thread = True
    _has_threads = True

    def __init__(self, what: Union[Model, Adapters, Adapter], expression: Optional[str] = None, *,
                 tokenizer: Optional[Tokenizer] = None, **options: Any) -> None:
        model, adapters, wanted = _parts(what, expression)
        raw = name(wanted, "expression") if wanted else None
        with model._use() as m, use(adapters, Adapters, "what") as a, using(model.context, "session", options) as o:
            super().__init__(make(lib.peft_session_create, m, a, raw, o))
        self.model = model
        self.context = model.context
        self.expression = wanted
        self._tokenizer = tokenizer if tokenizer is None else expect(tokenizer, Tokenizer, "tokenizer")
        self._current: Optional[Tokens] = None
        self._vocabulary = 0  # of the model, when it is needed
        self._rows: Dict[int, Row] = {}  # that have not ended

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of texts."""
        return self._tokenizer or self.model.tokenizer

    def set_adapters(self, expression: str) -> None:
        """Other adapters from now on, or the same with other factors; "" for the base alone."""
        raw = name(expression, "expression")
        with self._use() as s:
            lib.peft_session_set_adapters(s, raw)
        self._current, self.expression = None, expression

    def logits(self, rows: Union[Batch, Rows]) -> Array:
        """Logits of every token of rows (a Batch, lists of ids, or an array [rows, tokens]), end to end: float32 [tokens,
        vocabulary]; with parallel(...) in the expression [branches, tokens, vocabulary]. Of models with another task what their
        head gives: [rows, labels] or [tokens, labels], one branch after the other."""
        own = None if isinstance(rows, Batch) else Batch(rows, context=self.context)
        needed = ctypes.c_size_t()
        self._current = None
        batch = expect(own or rows, Batch, "rows")
        with self._use() as s, batch._use() as b:
            lib.peft_session_logits(s, b, None, 0, ctypes.byref(needed))
            out = Array((needed.value,))
            lib.peft_session_logits(s, b, out.pointer(), out.size, ctypes.byref(needed))
            tokens = batch.tokens
        if own is not None:
            own.close()
        if not self.model.task.endswith("_lm"):
            return self._of_task(out)
        branches = self._branches(out.size // max(tokens, 1))
        vocabulary = out.size // max(tokens * branches, 1)
        return out.reshape(tokens, vocabulary) if branches == 1 else out.reshape(branches, tokens, vocabulary)

    def _branches(self, floats: int) -> int:
        """How many branches a token's logits are of; the vocabulary may be larger than the model's by new tokens."""
        if "parallel" not in (self.expression or ""):
            return 1
        if self._vocabulary == 0:
            self._vocabulary = int(self.model.config["vocab_size"])
        return max(floats // self._vocabulary, 1)

    def evaluate(self, data: Source) -> Metrics:
        """Loss and accuracy of a Dataset, a path of JSON Lines, or rows."""
        rows = dataset_of(data, lambda: self.tokenizer, self.context, "data", self.model.task)
        self._current = None
        with self._use() as s, expect(rows, Dataset, "data")._use() as d:
            found = interruptible(lambda: _evaluate(s, d), lambda: lib.peft_session_cancel(s))
        return metrics_of(found)

    def outputs(self, data: Source) -> Array:
        """What the head of a model with a task computes for each row of a Dataset, a path or rows, labelled or not: float32
        [rows, labels], of embeddings [texts, hidden size], of tasks about tokens [tokens, labels]."""
        rows = dataset_of(data, lambda: self.tokenizer, self.context, "data", self.model.task)
        needed = ctypes.c_size_t()
        self._current = None
        with self._use() as s, expect(rows, Dataset, "data")._use() as d:
            lib.peft_session_outputs(s, d, None, 0, ctypes.byref(needed))
            out = Array((needed.value,))
            interruptible(lambda: lib.peft_session_outputs(s, d, out.pointer(), out.size, ctypes.byref(needed)),
                          lambda: lib.peft_session_cancel(s))
        return self._of_task(out)

    def _of_task(self, out: Array) -> Array:
        """What a head of labels or of vectors gives, a row or token after the other."""
        info = self.model.info()
        columns = int(info["hidden_size"] if info["task"] == "embedding" else info.get("num_labels", 2))
        return out.reshape(out.size // max(columns, 1), columns)

    def embed(self, texts: Iterable[str]) -> Array:
        """Vectors of texts, float32 [texts, hidden size]: the model's task is "embedding"."""
        return self.outputs([{"text": text} for text in texts])

    def classify(self, texts: Iterable[Union[str, Tuple[str, str]]]) -> List[Dict[str, float]]:
        """Probabilities of the labels of each text, or pair of texts, by their names: the model's task is
        "sequence_classification". The likeliest: max(found, key=found.get)."""
        info, names = self.model.info(), self.model.labels
        if info["task"] != "sequence_classification" or info.get("problem_type") == "regression":
            raise InvalidError("the model gives no labels of rows: its task is %s" % info["task"])
        rows = [{"text": t, "label": None} if isinstance(t, str) else {"text": t[0], "text_pair": t[1], "label": None}
                for t in texts]
        several = info.get("problem_type") == "multi_label_classification"
        return [dict(zip(names, _probabilities(list(row), several))) for row in self.outputs(rows).tolist()] if rows else []

    @overload
    def generate(self, prompt: str, *, on_token: OnToken = None, **options: Any) -> str: ...

    @overload
    def generate(self, prompt: Ints, *, on_token: OnToken = None, **options: Any) -> List[int]: ...

    def generate(self, prompt: Union[str, Ints], *, on_token: OnToken = None, **options: Any) -> Union[str, List[int]]:
        """Continues a text by text, or ids by ids, up to an end of sequence, a stop string, max_new_tokens or max_length.

        on_token: called with the id and the text of each token; what it raises ends the call and is raised here.
        Options: schema "generate", such as max_new_tokens=64, temperature=0.8, stop=["\\n"].
        """
        self._current = None
        if isinstance(prompt, str):
            return self._generate_text(utf8(prompt, "prompt"), on_token, options)
        return self._generate_ids(prompt, on_token, options)

    def _generate_text(self, raw: bytes, on_each: OnToken, options: Any) -> str:
        pieces: List[str] = []

        def each(token: int, piece: str) -> None:
            pieces.append(piece)
            if on_each is not None:
                on_each(token, piece)

        needed = ctypes.c_size_t()
        with self._use() as s, self.tokenizer._use() as t, using(self.context, "generate", options) as o:
            self._generate(each, lambda user: lib.peft_session_generate_text(
                s, t, raw, len(raw), o, on_token, user, None, 0, ctypes.byref(needed)))
        return "".join(pieces)

    def _generate_ids(self, ids: Any, on_each: OnToken, options: Any) -> List[int]:
        chosen: List[int] = []

        def each(token: int, piece: str) -> None:
            chosen.append(token)
            if on_each is not None:
                on_each(token, piece)

        given, needed = ints(ids, "prompt"), ctypes.c_size_t()
        with self._use() as s, self._text_of_ids() as t, using(self.context, "generate", options) as o:
            self._generate(each, lambda user: lib.peft_session_generate(
                s, t, given.pointer, given.n, o, on_token, user, None, 0, ctypes.byref(needed)))
        return chosen

    def _generate(self, each: Callable[[int, str], None], call: Callable[[int], int]) -> None:
        """One generation, whose result is what its callback has seen: there is no buffer that might be too small."""
        with Run(each) as run:
            try:
                call(run.number)
            except CallbackError:
                if run.error is None:
                    raise

    def _text_of_ids(self) -> Any:
        """The tokenizer, where there is one: for the text of each token, stop strings and ends of sequence."""
        try:
            return self.tokenizer._use()
        except Error:
            return use(None, Tokenizer, "tokenizer")

    def stream(self, prompt: str, **options: Any) -> Pieces:
        """The text of generate(prompt), piece by piece: `for piece in session.stream("..."):`"""
        return Pieces(self.tokens(utf8(prompt, "prompt").decode(), **options))

    def tokens(self, prompt: Union[str, Ints], **options: Any) -> Tokens:
        """The tokens of generate(prompt), one by one. The prompt is read at once."""
        self._current = None
        with self._use() as s, using(self.context, "generate", options) as o:
            if isinstance(prompt, str):
                raw = utf8(prompt, "prompt")
                with self.tokenizer._use() as t:
                    lib.peft_session_start_text(s, t, raw, len(raw), o)
            else:
                given = ints(prompt, "prompt")
                with self._text_of_ids() as t:
                    lib.peft_session_start(s, t, given.pointer, given.n, o)
        return Tokens(self)

    def _next(self, tokens: Tokens) -> Optional[Token]:
        chosen, needed, room = ctypes.c_int32(), ctypes.c_size_t(), _ROOM
        while True:
            buffer = bytearray(room)
            first = ctypes.c_char.from_buffer(buffer)
            with self._use() as s:
                if self._current is not tokens:
                    raise InvalidError("this generation was ended by another use of its session")
                status = lib.peft_session_next(s, ctypes.byref(chosen), ctypes.byref(first), room, ctypes.byref(needed))
            if status == _ffi.PEFT_OK:
                break
            room = needed.value
        if chosen.value < 0:
            self._current = None
            return None
        return Token(chosen.value, buffer[:needed.value - 1].decode("utf-8", "replace"))

    def chat(self, messages: Messages, **options: Any) -> str:
        """The assistant's answer to messages: what the user says, or a list of {"role", "content"}. Options as generate."""
        return self.generate(self.tokenizer.chat(messages), **options)

    def chat_stream(self, messages: Messages, **options: Any) -> Pieces:
        """The same, piece by piece as it comes."""
        return self.stream(self.tokenizer.chat(messages), **options)

    def add_row(self, prompt: Union[str, Ints], expression: Union[str, Adapter, None] = None, **options: Any) -> Row:
        """A row to be continued together with others: one pass of the base for all, in which each has adapters of its own (None:
        the session's; "": none) and gets what it would get alone. rows() and next_tokens() go on with them.

        Options: schema "generate", without beams; hold=True keeps it for rows that begin with the same tokens, until remove().
        """
        wanted = expression.name if isinstance(expression, Adapter) else expression
        raw, number = None if wanted is None else name(wanted, "expression"), ctypes.c_int64()
        row = Row(self, wanted)
        with self._use() as s, using(self.context, "generate", options) as o:
            if isinstance(prompt, str):
                text = utf8(prompt, "prompt")
                with self.tokenizer._use() as t:
                    lib.peft_session_row_add_text(s, raw, t, text, len(text), o, ctypes.byref(number))
            else:
                given = ints(prompt, "prompt")
                with self._text_of_ids() as t:
                    lib.peft_session_row_add(s, raw, t, given.pointer, given.n, o, ctypes.byref(number))
        row.number = number.value
        self._rows[row.number] = row
        return row

    def next_tokens(self) -> List[RowToken]:
        """At most a token more for each row; rows that have ended are gone. Empty: there are no rows, or all of them are being read."""
        with self._use() as s:
            return interruptible(lambda: next_tokens(self, s), lambda: lib.peft_session_cancel(s))

    def rows(self) -> Iterator[RowToken]:
        """What the rows get, until all have ended; others may be added meanwhile."""
        while self._rows:
            yield from self.next_tokens()

    def generate_together(self, prompts: Iterable[Union[str, Tuple[str, Union[str, Adapter, None]]]], **options: Any) -> List[str]:
        """generate() for many prompts, or pairs of a prompt and its expression, in one batch; their texts in order. More than a session
        can have at a time wait for others to end."""
        waiting = [(p, None) if isinstance(p, str) else p for p in prompts]
        added: List[Row] = []
        while len(added) < len(waiting) or any(not row.ended for row in added):
            try:
                while len(added) < len(waiting):
                    added.append(self.add_row(*waiting[len(added)], **options))
            except BusyError:
                if not self._rows:
                    raise
            self.next_tokens()
        return [row.text for row in added]

    def cancel(self) -> None:
        """From any thread: ends the call that is under way, or else the next one, with CancelledError."""
        with self._use_with_others() as s:
            lib.peft_session_cancel(s)

    def _about(self) -> str:
        return " of %r" % (self.expression or self.model.arch)


def _parts(what: Any, expression: Optional[str]) -> "tuple[Model, Optional[Adapters], str]":
    """Model, set and expression."""
    if isinstance(what, Model):
        if expression:
            raise ValueError("a model alone has no adapters for the expression %r" % (expression,))
        return what, None, ""
    if isinstance(what, Adapter):
        return what.adapters.model, what.adapters, what.name if expression is None else expression
    adapters = expect(what, Adapters, "what")
    return adapters.model, adapters, adapters.only() if expression is None else expression


def _probabilities(logits: List[float], several: bool) -> List[float]:
    """Of one label among all, or of each by itself."""
    if several:
        return [1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in logits]
    shares = [math.exp(x - max(logits)) for x in logits]
    return [x / sum(shares) for x in shares]


def _evaluate(s: int, d: int) -> Dict[str, Any]:
    found: Dict[str, Any] = data(lib.peft_session_evaluate, s, d)
    return found
