"""_adapters.py - Adapters: a set of named adapters over one model, and Adapter: one of them.

    adapters = model.adapters()
    adapters.add("fr", method="lora", r=16, target_modules="all-linear")
    adapters["fr"].tensors["model.layers.0.self_attn.q_proj.lora_A.weight"]

Which of them act is said by the session or the trainer, by an expression over their names: "fr", "0.5 * fr", "fr, de",
"average(fr:3, de:1)", ...
"""
from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, MutableMapping, Optional, Tuple, Union

from ._array import Array, count
from ._buffers import floats, ints
from ._calls import Path, data, integer, make, name, path, reading, tensor_info
from ._errors import NotFoundError, ShapeError, UnsupportedError
from ._handle import Handle, expect
from ._lib import lib
from ._model import Model
from ._options import using
from ._types import Floats, Ints


class AdapterTensors(MutableMapping[str, Any]):
    """An adapter's trainable tensors by name: reading one gives a copy as an Array (float32), assigning writes it.

    Names are as in the Hugging Face file without "base_model.model.".
    """

    def __init__(self, adapters: Adapters, adapter: bytes) -> None:
        self._adapters = adapters
        self._adapter = adapter

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """The shape of each tensor; nothing is read."""
        with self._adapters._use() as a:
            rows = [tensor_info(lib.peft_adapters_tensor_info, a, self._adapter, i)
                    for i in range(lib.peft_adapters_tensor_count(a, self._adapter))]
        return {label: shape for label, _, shape in rows}

    def __getitem__(self, tensor: str) -> Array:
        raw = name(tensor, "tensor")
        out = Array(self.shapes().get(tensor, (0,)))
        with self._adapters._use() as a:
            lib.peft_adapters_tensor_read(a, self._adapter, raw, out.pointer(), out.size, None)
        return out

    def __setitem__(self, tensor: str, values: Floats) -> None:
        raw, given, shape = name(tensor, "tensor"), floats(values, "values"), self.shapes().get(tensor)
        if shape is not None and given.shape is not None and given.shape != shape and given.shape != (count(shape),):
            raise ShapeError('tensor "%s" has the shape %s, the values have %s' % (tensor, shape, given.shape))
        with self._adapters._use() as a:
            lib.peft_adapters_tensor_write(a, self._adapter, raw, given.pointer, given.n)

    def __delitem__(self, tensor: str) -> None:
        raise TypeError("an adapter's tensors cannot be deleted")

    def __contains__(self, tensor: object) -> bool:
        return tensor in self.shapes()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes())

    def __len__(self) -> int:
        with self._adapters._use() as a:
            return lib.peft_adapters_tensor_count(a, self._adapter)


class Adapter:
    """One adapter of a set, by its name."""

    def __init__(self, adapters: Adapters, label: str) -> None:
        self.adapters = adapters
        self.name = label
        self._raw = name(label, "name")

    def info(self) -> Dict[str, Any]:
        """{"name", "method", "parameters", "bytes", "sites": [...], "options": {...}}"""
        with self.adapters._use() as a:
            found: Dict[str, Any] = data(lib.peft_adapters_info_json, a, self._raw, room=32768)
        return found

    @property
    def method(self) -> str:
        """Name of the method, such as "lora"."""
        return str(self.info()["method"])

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return int(self.info()["parameters"])

    @property
    def options(self) -> Dict[str, Any]:
        """The options that it was made with, defaults included."""
        return dict(self.info()["options"])

    @property
    def tensors(self) -> AdapterTensors:
        """The trainable tensors as a mapping from name to Array; assigning writes them."""
        return AdapterTensors(self.adapters, self._raw)

    def save(self, place: Path, **options: Any) -> None:
        """See Adapters.save."""
        self.adapters.save(self.name, place, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and other.adapters is self.adapters and other.name == self.name

    def __hash__(self) -> int:
        return hash((id(self.adapters), self.name))

    def __repr__(self) -> str:
        return "<libpeft.Adapter %r>" % self.name


class Adapters(Handle, Mapping[str, Adapter]):
    """A set of adapters: a mapping from name to Adapter, in the order of addition. `del adapters["fr"]` removes one."""

    _free = "peft_adapters_free"

    def __init__(self, model: Model) -> None:
        with expect(model, Model, "model")._use() as m:
            super().__init__(make(lib.peft_adapters_create, m))
        self.model = model
        self.context = model.context

    def add(self, adapter: str, method: str = "lora", *, seed: int = 0, **options: Any) -> Adapter:
        """Adds a fresh adapter. method: one of methods(); options: schema "method:<method>", such as r=16; seed: of its
        initial values. A method that starts from a text gets its ids from the model's tokenizer, where there is one."""
        label, kind = name(adapter, "name"), name(method, "method")
        number = integer(seed, "seed", 0, 2**64 - 1)
        with self._use() as a:
            if kind not in _methods():  # the library has the nearest
                lib.peft_adapters_add(a, label, kind, None, number)
            with using(self.context, "method:" + method, options) as o:
                lib.peft_adapters_add(a, label, kind, o, number)
        added = Adapter(self, adapter)
        try:
            self._start(added)
        except BaseException:
            self.remove(adapter)
            raise
        return added

    def _start(self, added: Adapter) -> None:
        """Initial values from the text that the method wants."""
        wanted = added.info().get("init_text")
        if wanted is None:
            return
        try:
            tokenizer = self.model.tokenizer
        except (NotFoundError, UnsupportedError):
            return  # it keeps the start that the library has given it; see init()
        self.init(added.name, tokenizer.encode(wanted, bos_eos=True))

    def init(self, adapter: str, ids: Ints) -> None:
        """Gives an adapter that starts from a text its initial values from the text's ids; before training only."""
        given = ints(ids, "ids")
        with self._use() as a:
            lib.peft_adapters_init(a, name(adapter, "name"), given.pointer, given.n)

    def load(self, adapter: str, place: Path, **options: Any) -> Adapter:
        """Adds an adapter from a folder of Hugging Face PEFT or AdapterHub, or a LoRA file of llama.cpp (GGUF). Options:
        schema "load"."""
        label, raw = name(adapter, "name"), path(place)
        with self._use() as a, using(self.context, "load", options) as o, reading(raw):
            lib.peft_adapters_load(a, label, raw, o)
        return Adapter(self, adapter)

    def save(self, adapter: str, place: Path, **options: Any) -> None:
        """Writes an adapter as the library reads it that has its method; to a LoRA file of llama.cpp where the path ends in
        ".gguf". Options: schema "save"."""
        label, raw = name(adapter, "name"), path(place)
        with self._use() as a, using(self.context, "save", options) as o:
            lib.peft_adapters_save(a, label, raw, o)

    def combine(self, adapter: str, sources: Union[str, Mapping[str, float]], **options: Any) -> Adapter:
        """Adds the weighted combination of others: {"a": 0.6, "b": -0.4}, or an expression. Options: schema "combine"."""
        if isinstance(sources, Mapping):
            sources = ", ".join("%s:%r" % (label, float(weight)) for label, weight in sources.items())
        label, raw = name(adapter, "name"), name(sources, "sources")
        with self._use() as a, using(self.context, "combine", options) as o:
            lib.peft_adapters_combine(a, label, raw, o)
        return Adapter(self, adapter)

    def merge(self, place: Path, expression: Optional[str] = None, **options: Any) -> None:
        """Writes base and adapters as one model: a Hugging Face folder, or a GGUF file where the path ends in ".gguf".
        expression: which adapters; None: the only one. Options: schema "merge"."""
        raw, which = path(place), name(self.only() if expression is None else expression, "expression")
        with self._use() as a, using(self.context, "merge", options) as o:
            lib.peft_adapters_merge(a, which, raw, o)

    def remove(self, adapter: str) -> None:
        """Takes an adapter out; BusyError while a session, a trainer or another adapter uses it."""
        with self._use() as a:
            lib.peft_adapters_remove(a, name(adapter, "name"))

    def only(self) -> str:
        """The name of the set's one adapter; ValueError where there are several, or none."""
        names = self._names()
        if len(names) != 1:
            raise ValueError("say which adapter: the set has %s" % (", ".join(map(repr, names)) or "none"))
        return names[0]

    def _names(self) -> List[str]:
        with self._use() as a:
            found = [lib.peft_adapters_name(a, i) for i in range(lib.peft_adapters_count(a))]
        return [label.decode() for label in found if label is not None]

    def __getitem__(self, adapter: str) -> Adapter:
        if adapter not in self._names():
            raise NotFoundError("there is no adapter %r; the set has %s" % (
                adapter, ", ".join(map(repr, self._names())) or "none"))
        return Adapter(self, adapter)

    def __delitem__(self, adapter: str) -> None:
        self.remove(adapter)

    def __contains__(self, adapter: object) -> bool:
        return adapter in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        with self._use() as a:
            return lib.peft_adapters_count(a)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def _about(self) -> str:
        return " %s" % self._names()


def _methods() -> List[bytes]:
    from ._schema import methods

    return [m.encode() for m in methods()]
