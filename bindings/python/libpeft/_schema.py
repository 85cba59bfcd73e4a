"""_schema.py - the tables of options as data, and what is built into the library."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ._calls import data, integer, name, names
from ._lib import lib


class Option(NamedTuple):
    """One key of a schema."""

    key: str
    type: str
    """"int", "float", "bool", "str", "size" (bytes: an int, or a text such as "1GiB"), "list", "map", "list or map"."""
    default: Any
    min: Optional[float]
    max: Optional[float]
    choices: Optional[Tuple[str, ...]]
    help: str


_known: Dict[str, Dict[str, Option]] = {}


def table(schema: str) -> Dict[str, Option]:
    """The options of a schema by key."""
    if schema not in _known:
        rows = data(lib.peft_schema_json, name(schema, "schema"), room=32768)
        _known[schema] = {
            row["key"]: Option(**{**{f: row.get(f) for f in Option._fields},
                                  "choices": tuple(row["choices"]) if row.get("choices") else None})
            for row in rows
        }
    return _known[schema]


def options(schema: str) -> Tuple[Option, ...]:
    """The options of a schema, such as "trainer", "optimizer", "dataset", "generate" or "method:lora": see schemas()."""
    return tuple(table(schema).values())


def schemas() -> List[str]:
    """Names of all schemas."""
    return names(lib.peft_schema_name)


def methods() -> List[str]:
    """Names of the methods: "lora", "full", ..."""
    return names(lib.peft_method_name)


def architectures() -> List[str]:
    """Names of the architectures of models: "llama", "gpt2", ..."""
    return names(lib.peft_arch_name)


def optimizers() -> List[str]:
    """Names of the optimisers: "adamw", "sgd", ..."""
    return names(lib.peft_optimizer_name)


def version() -> Tuple[int, int, int]:
    """Version of the library that runs."""
    number = lib.peft_version()
    return number >> 16, number >> 8 & 255, number & 255


def version_string() -> str:
    """The same as text."""
    return (lib.peft_version_string() or b"").decode()


def status_name(status: int) -> str:
    """Name of a status such as "PEFT_E_NOMEM"."""
    return (lib.peft_status_name(integer(status, "status", -2**31, 2**31 - 1)) or b"").decode()


def build_info() -> Dict[str, str]:
    """How the library was built: {"version", "isa", "threads", "minimal", ...}."""
    return dict(pair.split("=", 1) for pair in (lib.peft_build_info() or b"").decode().split())
