"""_transformers.py - a model and a tokenizer of transformers, as they are in memory.

The weights of the model are read where torch has them; torch keeps them until libpeft needs them no more. Left out: weights on
another device than the CPU, and the quantised formats of other libraries, whose names are in the error.
"""
from __future__ import annotations

import json
import tempfile
from typing import Any, Dict, Optional

from .._context import Context
from .._model import Model
from .._tokenizer import Tokenizer

# Parts of names that HF PEFT puts between a module and the weights of its base.
_WRAPPERS = (".token_adapter.base_layer.", ".base_layer.", ".original_module.")


def from_transformers(model: Any, tokenizer: Any = None, *, context: Optional[Context] = None, copy: bool = False,
                      **options: Any) -> Model:
    """A libpeft.Model of a transformers model (torch, on the CPU, in float32, bfloat16 or float16), without a copy of the
    weights: they must not change while it is in use, unless copy is true. Of a PeftModel it is the base without the adapters.

    tokenizer: that of transformers, which becomes the model's. Options: schema "model".
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if not hasattr(model, "state_dict") or not hasattr(model, "config"):
        raise TypeError("expected a model of transformers, with state_dict() and config, not %s" % type(model).__name__)
    merged = [name for name, part in model.named_modules() if getattr(part, "merged", False) is True]
    if merged:
        raise ValueError("an adapter is merged into %s: call unmerge_adapter() first" % merged[0])
    config = json.loads(model.config.to_json_string(use_diff=False))
    made = Model.from_tensors(config, _tensors(model), context=context, load="copy" if copy else None, **options)
    if tokenizer is not None:
        made.tokenizer = from_tokenizer(tokenizer, context=context)
    return made


def _tensors(model: Any) -> Dict[str, Any]:
    """The base's weights by the names that they have in its files."""
    found: Dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        if tensor.device.type != "cpu":
            raise ValueError("%s is on the device %s, expected the CPU: model.to(\"cpu\")" % (name, tensor.device))
        for part in _WRAPPERS:
            name = name.replace(part, ".")
        if tensor.is_floating_point() and name not in found:
            found[name] = tensor.detach().contiguous()
    return found


def from_tokenizer(tokenizer: Any, *, context: Optional[Context] = None) -> Tokenizer:
    """A libpeft.Tokenizer of one of transformers, through the files that it saves into a temporary folder."""
    if not hasattr(tokenizer, "save_pretrained"):
        raise TypeError("expected a tokenizer of transformers, with save_pretrained(), not %s" % type(tokenizer).__name__)
    with tempfile.TemporaryDirectory(prefix="libpeft-") as folder:
        tokenizer.save_pretrained(folder)
        return Tokenizer.open(folder, context=context)
