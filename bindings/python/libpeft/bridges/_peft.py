"""_peft.py - adapters into Hugging Face PEFT and out of it, through the files that both read and write.

Left out: AdapterHub's methods, which PEFT does not have; Adapters.save says so.
"""
from __future__ import annotations

import os
import tempfile
from typing import Any

from .._adapters import Adapter, Adapters
from ._need import need


def to_peft(model: Any, adapters: Adapters, name: str, *, trainable: bool = False) -> Any:
    """A PeftModel of a transformers model and an adapter of a set, under the adapter's name; into a PeftModel it is loaded
    beside those that are there, and becomes the active one. The logits are those of a libpeft session with the adapter.

    trainable: whether PEFT is to train it on.
    """
    peft = need("peft", "peft")
    with tempfile.TemporaryDirectory(prefix="libpeft-") as folder:
        adapters.save(name, folder, format="hf")
        if not isinstance(model, peft.PeftModel):
            return peft.PeftModel.from_pretrained(model, folder, adapter_name=name, is_trainable=trainable)
        model.load_adapter(folder, adapter_name=name, is_trainable=trainable)
    model.set_adapter(name)
    return model


def from_peft(model: Any, adapters: Adapters, name: str, *, adapter: str = "default", **options: Any) -> Adapter:
    """Adds the adapter of a PeftModel to a set, under a name. adapter: its name there. Options: schema "load"."""
    known = getattr(model, "peft_config", None)
    if known is None or not hasattr(model, "save_pretrained"):
        raise TypeError("expected a PeftModel, not %s" % type(model).__name__)
    if adapter not in known:
        raise KeyError("the PeftModel has no adapter %r; it has %s" % (adapter, ", ".join(map(repr, known))))
    with tempfile.TemporaryDirectory(prefix="libpeft-") as folder:
        model.save_pretrained(folder, selected_adapters=[adapter], save_embedding_layers=False)
        inner = os.path.join(folder, adapter)  # where PEFT writes all but "default"
        return adapters.load(name, inner if os.path.isdir(inner) else folder, **options)
