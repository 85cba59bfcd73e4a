"""_need.py - imports a library that is not there in every installation."""
from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str) -> Any:
    """A module of another package; without it an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError("this bridge needs %s (%s): pip install libpeft[%s]" % (module, error, extra)) from error
