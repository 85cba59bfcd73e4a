"""_dataset.py - Batch: rows for one pass, and Dataset: rows to train or evaluate on."""
from __future__ import annotations

import array
import ctypes
import os
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from . import _ffi
from ._array import Array
from ._buffers import Numbers, floats, ints, view
from ._calls import Path, data, integer, make, path, reading
from ._context import Context, context as default_context
from ._errors import Error, ShapeError
from ._handle import Handle, expect, use
from ._lib import lib
from ._options import to_json, using
from ._tokenizer import Tokenizer
from ._types import Floats, Ints, Row

Rows = Union[Sequence[Ints], Any]


def _offsets(lengths: Iterable[int]) -> "array.array[int]":
    found = array.array("q", [0])
    for n in lengths:
        found.append(found[-1] + n)
    return found


def _grid(rows: Any) -> Optional[Tuple[int, int]]:
    """The shape of a two-dimensional array; None for anything else."""
    if isinstance(rows, (list, tuple)):
        return None
    found = view(rows, "rows")
    return (found.shape[0], found.shape[1]) if found is not None and len(found.shape) == 2 else None


def _join(rows: Any, what: str, code: str) -> Tuple[Numbers, "array.array[int]", int]:
    """Rows end to end. Of an array of two dimensions every row has all its columns."""
    read = ints if code == "i" else floats
    grid = _grid(rows)
    if grid is not None:
        flat = view(rows, what)
        assert flat is not None
        whole = Array((grid[0] * grid[1],)) if flat.data.nbytes == 0 else _reflat(flat)
        return read(whole, what), _offsets([grid[1]] * grid[0]), grid[0]
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__"):
        raise TypeError("%s must be a list of rows or an array of two dimensions, not %s" % (what, type(rows).__name__))
    parts, lengths = array.array(code), []
    for i, row in enumerate(rows):
        if not hasattr(row, "__iter__"):
            raise TypeError("row %d of %s is %s: expected a list of rows" % (i, what, type(row).__name__))
        one = read(row, "row %d of %s" % (i, what))
        lengths.append(one.n)
        if one.n:
            parts.frombytes(ctypes.string_at(ctypes.addressof(one.pointer._obj), 4 * one.n))
    return read(parts, what), _offsets(lengths), len(lengths)


def _reflat(found: Any) -> Any:
    codes = {"int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
             "uint64": "Q", "float32": "f", "float64": "d"}
    if found.dtype not in codes:
        raise TypeError("rows have elements of %s, expected integers" % found.dtype)
    return found.data.cast(codes[found.dtype])


class Batch(Handle):
    """Rows of tokens, packed: for Session.logits, Trainer.accumulate, or a Dataset.

    input_ids: a list of rows of ids, of any lengths, or an integer array [rows, tokens].
    labels: the same shape; -100 for tokens without a loss; without labels each token but a row's first is one. label i is
        what the model must say at i, before the shift, as in Hugging Face.
    loss_weights: the same shape; factors of each token's loss.
    task_ids: one a row, for the method "multitask_prompt".
    """

    tokens: int
    """Tokens of all rows."""

    _free = "peft_batch_free"
    _one_thread = True

    def __init__(self, input_ids: Rows = (), labels: Optional[Rows] = None, loss_weights: Optional[Rows] = None,
                 task_ids: Optional[Ints] = None, *, context: Optional[Context] = None) -> None:
        with (context or default_context())._use() as ctx:
            super().__init__(make(lib.peft_batch_create, ctx))
        try:
            self.set(input_ids, labels, loss_weights, task_ids)
        except BaseException:
            self.close()
            raise

    def set(self, input_ids: Rows, labels: Optional[Rows] = None, loss_weights: Optional[Rows] = None,
            task_ids: Optional[Ints] = None) -> None:
        """Replaces all rows."""
        self.clear()
        values, offsets, n = _join(input_ids, "input_ids", "i")
        if n == 0:
            return
        self.tokens = offsets[-1]
        self._set("input_ids", values, offsets, n)
        if labels is not None:
            self._set("labels", *_join(labels, "labels", "i"))
        if loss_weights is not None:
            self._set("loss_weights", *_join(loss_weights, "loss_weights", "f"))
        if task_ids is not None:
            tasks = ints(task_ids, "task_ids")
            with self._use() as b:
                lib.peft_batch_set_i32(b, b"task_id", tasks.pointer, None, tasks.n)

    def _set(self, key: str, values: Numbers, offsets: "array.array[int]", n: int) -> None:
        function = lib.peft_batch_set_f32 if key == "loss_weights" else lib.peft_batch_set_i32
        if values.pointer is None:
            raise ShapeError('"%s" have no values' % key)
        place = ctypes.c_int64.from_buffer(offsets)
        with self._use() as b:
            function(b, key.encode(), values.pointer, ctypes.byref(place), n)

    def clear(self) -> None:
        """Takes all rows out."""
        with self._use() as b:
            lib.peft_batch_clear(b)
        self.tokens = 0

    def __len__(self) -> int:
        with self._use() as b:
            return lib.peft_batch_rows(b)

    def __bool__(self) -> bool:
        return True

    def _about(self) -> str:
        return " %d rows" % len(self)


class Example(NamedTuple):
    """A row as it is trained."""

    ids: Array
    """int32 [tokens]"""
    labels: Array
    """int32 [tokens], before the shift; -100 for none."""


class Dataset(Handle, Sequence[Example]):
    """Rows to train or to evaluate on.

    source: a path of JSON Lines, or rows: {"text"}, {"prompt", "completion"}, {"messages"}, {"input_ids"[, "labels"]}, or any
        fields through the templates of the options; a str is a {"text"}, a list or array of ints an {"input_ids"}. With
        task="sequence_classification" and its like the rows of that task, such as {"text", "label"}.
    tokenizer: not needed for rows of ids.
    Options: schema "dataset", such as max_length=512, packing=True.
    """

    _free = "peft_dataset_free"
    _one_thread = True

    def __init__(self, source: Union[None, Path, Iterable[Row], Batch] = None, *, tokenizer: Optional[Tokenizer] = None,
                 context: Optional[Context] = None, **options: Any) -> None:
        context = context or default_context()
        with context._use() as ctx, use(tokenizer, Tokenizer, "tokenizer") as t, using(context, "dataset", options) as o:
            super().__init__(make(lib.peft_dataset_create, ctx, t, o))
        self.context = context
        try:
            self.extend(source)
        except BaseException:
            self.close()
            raise

    def extend(self, source: Union[None, Path, Iterable[Row], Batch]) -> None:
        """Adds rows: see the class."""
        if source is None:
            return
        if isinstance(source, Batch):
            self.add_batch(source)
        elif isinstance(source, (str, bytes, os.PathLike)):
            self.load(source)
        else:
            for row in source:
                self.add(row)

    def load(self, place: Path) -> None:
        """Adds the rows of a file of JSON Lines, all or none."""
        raw = path(place)
        with self._use() as d, reading(raw):
            lib.peft_dataset_load_jsonl(d, raw)

    def add(self, row: Row) -> None:
        """Adds one row: see the class."""
        if isinstance(row, str):
            row = {"text": row}
        elif not isinstance(row, Mapping):
            row = {"input_ids": _ids(row)}
        raw = to_json(dict(row))
        with self._use() as d:
            lib.peft_dataset_add_json(d, raw, len(raw))

    def add_batch(self, batch: Batch) -> None:
        """Adds the rows of a batch."""
        with self._use() as d, expect(batch, Batch, "batch")._use() as b:
            lib.peft_dataset_add(d, b)

    def info(self) -> Dict[str, Any]:
        """{"rows", "tokens", "labelled_tokens", "max_length", "truncated"}"""
        with self._use() as d:
            found: Dict[str, Any] = data(lib.peft_dataset_info_json, d)
        return found

    def __len__(self) -> int:
        """Number of rows, after packing."""
        with self._use() as d:
            return lib.peft_dataset_size(d)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at, n = integer(index, "index", -2**63), len(self)
        if not -n <= at < n:
            raise IndexError("row %d of %d" % (at, n))
        at, needed = at % n, ctypes.c_size_t()
        with self._use() as d:
            if lib.peft_dataset_row(d, at, None, None, 0, ctypes.byref(needed)) == _ffi.PEFT_OK:
                return Example(Array((0,), "int32"), Array((0,), "int32"))
            row = Example(Array((needed.value,), "int32"), Array((needed.value,), "int32"))
            lib.peft_dataset_row(d, at, row.ids.pointer(), row.labels.pointer(), needed.value, ctypes.byref(needed))
        return row

    def __iter__(self) -> Iterator[Example]:
        for i in range(len(self)):
            yield self[i]

    def _about(self) -> str:
        return " %d rows" % len(self)


def _ids(row: Any) -> List[int]:
    given = ints(row, "row")
    return list((ctypes.c_int32 * given.n).from_address(ctypes.addressof(given.pointer._obj))) if given.n else []


def dataset_of(source: Any, tokenizer: Any, context: Context, what: str, task: str = "causal_lm",
               options: Optional[Dict[str, Any]] = None) -> Optional[Dataset]:
    """A Dataset as it is, or one of a path or rows, with options, of the model's task. tokenizer: called for where one may be needed."""
    if source is None or isinstance(source, Dataset):
        return source
    options = {**({} if task == "causal_lm" else {"task": task}), **(options or {})}
    if isinstance(source, Batch):
        return Dataset(source, context=context, **options)
    if isinstance(source, (str, bytes, os.PathLike)) or hasattr(source, "__iter__"):
        try:
            found = tokenizer()
        except Error:  # rows of ids need none; others say so
            found = None
        return Dataset(source, tokenizer=found, context=context, **options)
    raise TypeError("%s must be a Dataset, a path or rows, not %s" % (what, type(source).__name__))
