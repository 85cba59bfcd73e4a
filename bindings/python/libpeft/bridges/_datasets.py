"""_datasets.py - rows of `datasets`, or any iterable of dicts, as a libpeft.Dataset.

Rows come one by one, so a stream never lies in memory as a whole; what is kept is its tokens.
"""
from __future__ import annotations

from itertools import islice
from typing import Any, Dict, Iterable, Mapping, Optional

from .._context import Context
from .._dataset import Dataset
from .._tokenizer import Tokenizer

# What a row may have without a template.
_FIELDS = ("text", "prompt", "completion", "messages", "input_ids", "labels", "task_id")


def from_datasets(rows: Iterable[Mapping[str, Any]], tokenizer: Optional[Tokenizer] = None, *,
                  columns: Optional[Mapping[str, str]] = None, limit: Optional[int] = None,
                  context: Optional[Context] = None, **options: Any) -> Dataset:
    """A libpeft.Dataset of a datasets.Dataset, an IterableDataset (streamed), or any iterable of dicts.

    columns: {theirs: ours}, such as {"question": "prompt", "answer": "completion"}; other columns are dropped. Without it,
        rows keep text, prompt, completion, messages, input_ids, labels and task_id; all of their columns where a template is
        given (prompt_template="Q: {question}", completion_template=" {answer}").
    limit: no more rows than this, for streams without an end. Options: schema "dataset", such as max_length.
    """
    if isinstance(rows, Mapping):
        raise TypeError("these are several data sets: choose one of %s" % ", ".join(map(str, rows)))
    templates = [key for key in ("prompt_template", "completion_template") if options.get(key) is not None]
    made = Dataset(tokenizer=tokenizer, context=context, **options)
    try:
        for index, row in enumerate(islice(iter(rows), limit)):
            if not isinstance(row, Mapping):
                raise TypeError("row %d is %s, expected a dict" % (index, type(row).__name__))
            made.add(row if templates and columns is None else _row(index, row, columns))
    except BaseException:
        made.close()
        raise
    return made


def _row(index: int, row: Mapping[str, Any], columns: Optional[Mapping[str, str]]) -> Dict[str, Any]:
    if columns is not None:
        missing = [key for key in columns if key not in row]
        if missing:
            raise KeyError("row %d has no column %r; it has %s" % (index, missing[0], ", ".join(map(repr, row))))
        return {ours: row[theirs] for theirs, ours in columns.items()}
    found = {key: row[key] for key in _FIELDS if row.get(key) is not None}
    if not found:
        raise KeyError("row %d has none of %s, but %s: say columns={theirs: ours}" % (
            index, ", ".join(_FIELDS), ", ".join(map(repr, row))))
    return found
