"""_options.py - keyword options: checked by the library against its table, so that a misspelt one is an error that names the
nearest.

    Options("method:lora", r=16, target_modules="all-linear").to_dict()

None stands for "not given" everywhere. Values are what Python has for the type: int, float, bool, str, a path, a list, a dict.
"""
from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ._calls import data, make, name, utf8
from ._context import Context, context
from ._errors import OptionError
from ._handle import Handle, NoUse
from ._lib import lib
from ._schema import table


def _plain(value: Any) -> Any:
    """Scalars of NumPy as Python's."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _jsonable(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError("%s is no value of JSON" % type(value).__name__)


def to_json(value: Any) -> bytes:
    """JSON text, in which arrays are lists. A NaN is a ValueError, a lone surrogate a UnicodeEncodeError."""
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_jsonable).encode("utf-8")


class Options(Handle):
    """A set of options of one schema; options["key"] = value. Other keywords of this class are options."""

    _free = "peft_options_free"
    _one_thread = True

    def __init__(self, schema: str, values: Optional[Mapping[str, Any]] = None, *, context: Optional[Context] = None,
                 **options: Any) -> None:
        with (context or _default())._use() as ctx:
            super().__init__(make(lib.peft_options_create, ctx, name(schema, "schema")))
        self.schema = schema
        try:
            for key, value in {**(values or {}), **options}.items():
                self[key] = value
        except BaseException:
            self.close()
            raise

    def __setitem__(self, key: str, value: Any) -> None:
        raw, value = name(key, "an option's key"), _plain(value)
        known = table(self.schema).get(key)
        with self._use() as o:
            if value is None:
                lib.peft_options_set_json(o, *_sized(to_json({key: None})))
            elif isinstance(value, bool):
                lib.peft_options_set_bool(o, raw, value)
            elif isinstance(value, int):
                if not -2**63 <= value < 2**63:
                    raise OptionError('the value of option "%s" does not fit into 64 bits' % key)
                lib.peft_options_set_int(o, raw, value)
            elif isinstance(value, float):
                lib.peft_options_set_float(o, raw, value)
            elif isinstance(value, str) and known is not None and known.type == "size":
                lib.peft_options_set_text(o, raw, name(value, key))
            elif isinstance(value, str) and known is not None and known.type == "str":
                lib.peft_options_set_str(o, raw, name(value, key))
            elif isinstance(value, (bytes, bytearray)):
                raise OptionError('the value of option "%s" is %s, expected text' % (key, type(value).__name__))
            else:
                lib.peft_options_set_json(o, *_sized(self._json(key, value)))

    def _json(self, key: str, value: Any) -> bytes:
        try:
            return to_json({key: value})
        except TypeError as error:
            raise OptionError('the value of option "%s": %s' % (key, error)) from None
        except RecursionError:
            raise OptionError('the value of option "%s" contains itself' % key) from None

    def set_text(self, key: str, text: str) -> None:
        """Sets from a text as the command line does: "16", "true", "q_proj,v_proj", "1GiB"."""
        with self._use() as o:
            lib.peft_options_set_text(o, name(key, "an option's key"), name(text, key))

    def update(self, json_text: str) -> None:
        """Sets every key of a JSON object, or none."""
        with self._use() as o:
            lib.peft_options_set_json(o, *_sized(utf8(json_text, "json_text")))

    def to_dict(self) -> Dict[str, Any]:
        """All options with their values, defaults included."""
        with self._use() as o:
            found: Dict[str, Any] = data(lib.peft_options_get_json, o)
        return found

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def _about(self) -> str:
        return " %s" % self.schema


def _sized(raw: bytes) -> Tuple[bytes, int]:
    return raw, len(raw)


def _default() -> Context:
    return context()


class _Given:
    """with _Given(options) as address: for the one call that they are made for."""

    __slots__ = ("_options",)

    def __init__(self, options: Options) -> None:
        self._options = options

    def __enter__(self) -> int:
        return self._options._begin()

    def __exit__(self, *_: object) -> None:
        self._options._end()
        self._options.close()


def using(ctx: Context, schema: str, values: Mapping[str, Any]) -> Any:
    """with using(ctx, schema, keywords) as address: the options of a call; the address is None where none are given."""
    values = {key: value for key, value in values.items() if value is not None}
    return _Given(Options(schema, values, context=ctx)) if values else NoUse()


def split(values: Mapping[str, Any], *schemas: str) -> List[Dict[str, Any]]:
    """Keywords that belong to one schema or another, the first that has the key; what none has is an error that names the
    nearest key of any."""
    parts: List[Dict[str, Any]] = [{} for _ in schemas]
    for key, value in values.items():
        home = [i for i, schema in enumerate(schemas) if key in table(schema)]
        if home:
            parts[home[0]][key] = value
        else:
            raise _unknown(key, schemas)
    return parts


def _unknown(key: str, schemas: Tuple[str, ...]) -> OptionError:
    errors = []
    for schema in schemas:
        with Options(schema) as o:
            try:
                o.set_text(key, "0")
            except OptionError as error:
                errors.append(error)
    near = [error for error in errors if "did you mean" in str(error)]
    return (near or errors)[0]
