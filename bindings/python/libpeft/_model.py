"""_model.py - Model: a frozen base, which any number of adapters, trainers and sessions use at once."""
from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from . import _callbacks, _ffi
from ._array import Array, count
from ._buffers import address, view
from ._calls import Path, data, integer, make, name, path, reading, tensor_info, utf8
from ._context import Context, context as default_context
from ._errors import NotFoundError
from ._handle import Handle
from ._lib import lib
from ._options import to_json, using
from ._tokenizer import Tokenizer
from ._types import Memory

if TYPE_CHECKING:
    from ._adapters import Adapters
    from ._session import Session

_DTYPES = {"float32": _ffi.PEFT_DTYPE_F32, "float16": _ffi.PEFT_DTYPE_F16, "bfloat16": _ffi.PEFT_DTYPE_BF16}
_NAMES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
          "BF16": 30}
Config = Union[str, Mapping[str, Any]]


class TensorInfo(NamedTuple):
    """A tensor of a model: dtype as in the file, such as "F32" or "Q8_0"; shape: sizes, slowest first."""

    name: str
    dtype: str
    shape: Tuple[int, ...]


class Raw(NamedTuple):
    """A tensor whose memory does not say what it is: bfloat16 from NumPy, or quantised blocks as in a GGUF file."""

    data: Memory
    dtype: str
    shape: Tuple[int, ...]


class Tensors(Mapping[str, Array]):
    """A model's tensors by name, each read as float32 when it is asked for; in Hugging Face's names and shapes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._infos: Optional[Dict[str, TensorInfo]] = None

    def _all(self) -> Dict[str, TensorInfo]:
        if self._infos is None:
            with self._model._use() as m:
                rows = [tensor_info(lib.peft_model_tensor_info, m, i, dtype=True)
                        for i in range(lib.peft_model_tensor_count(m))]
            self._infos = {n: TensorInfo(n, (lib.peft_dtype_name(d) or b"?").decode(), shape) for n, d, shape in rows}
        return self._infos

    def info(self, tensor: str) -> TensorInfo:
        """Type and shape of a tensor; nothing is read."""
        return self._all()[tensor]

    def __getitem__(self, tensor: str) -> Array:
        raw = name(tensor, "tensor")
        known = self._all().get(tensor)
        out = Array(known.shape if known else (0,))
        with self._model._use() as m:  # which has the nearest name for an unknown one
            lib.peft_model_tensor_read(m, raw, out.pointer(), out.size, None)
        return out

    def __contains__(self, tensor: object) -> bool:
        return tensor in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return "<%d tensors of %r>" % (len(self), self._model)


class Model(Handle):
    """A base model: Model.open(path), Model.random(config) or Model.from_tensors(config, tensors)."""

    _free = "peft_model_free"

    def __init__(self, address: int, context: Optional[Context] = None, place: Optional[bytes] = None) -> None:
        if not isinstance(address, int) or context is None:
            raise TypeError("a Model is made by Model.open(path), Model.random(config) or Model.from_tensors(config, tensors)")
        super().__init__(address)
        self.context = context
        self._path = place
        self._tokenizer: Optional[Tokenizer] = None

    @classmethod
    def open(cls, place: Path, *, context: Optional[Context] = None, **options: Any) -> Model:
        """Opens a Hugging Face folder or a GGUF file; its weights are mapped and read on use. Options: schema "model", such
        as load="copy" for storage that may change."""
        raw, context = path(place), context or default_context()
        with context._use() as ctx, using(context, "model", options) as o, reading(raw):
            return cls(make(lib.peft_model_open, ctx, raw, o), context, raw)

    @classmethod
    def random(cls, config: Config, seed: int = 0, *, context: Optional[Context] = None) -> Model:
        """A model with random weights. config: as in a config.json, a dict or its text."""
        context, raw = context or default_context(), _config(config)
        with context._use() as ctx:
            number = integer(seed, "seed", 0, 2**64 - 1)
            return cls(make(lib.peft_model_create_random, ctx, raw, len(raw), number), context)

    @classmethod
    def from_tensors(cls, config: Config, tensors: Mapping[str, Any], *, context: Optional[Context] = None,
                     **options: Any) -> Model:
        """A model of tensors in memory, such as a state dict. config: as in a config.json; tensors: arrays of NumPy, torch,
        ... by Hugging Face's names, of float32, float16 or bfloat16, or Raw. Their memory is used in place, unchanged, as
        long as the model is in use; what is not contiguous is copied. Options: schema "model"; load="copy" copies all."""
        context, raw = context or default_context(), _config(config)
        parts = [_tensor(key, value) for key, value in tensors.items()]
        n = len(parts)
        dims = (ctypes.c_int64 * max(8 * n, 1))()
        for i, part in enumerate(parts):
            dims[8 * i:8 * i + len(part.shape)] = list(part.shape)
        places = (ctypes.c_void_p * max(n, 1))(*(part.address for part in parts))
        labels = (ctypes.c_char_p * max(n, 1))(*(part.name for part in parts))
        types = (ctypes.c_int32 * max(n, 1))(*(part.dtype for part in parts))
        ndims = (ctypes.c_int32 * max(n, 1))(*(len(part.shape) for part in parts))
        with context._use() as ctx, using(context, "model", options) as o:
            number = _callbacks.lend([part.keep for part in parts])
            return cls(make(lib.peft_model_create_from_tensors, ctx, raw, len(raw), labels, types, ndims, dims, places, n, o,
                            _callbacks.on_release, number), context)

    @property
    def arch(self) -> str:
        """Name of the architecture, such as "llama"."""
        with self._use() as m:
            return (lib.peft_model_arch(m) or b"").decode()

    @property
    def config(self) -> Dict[str, Any]:
        """The config in Hugging Face's keys."""
        with self._use() as m:
            found: Dict[str, Any] = data(lib.peft_model_config_json, m)
        return found

    def info(self) -> Dict[str, Any]:
        """{"architecture", "parameters", "bytes", "resident_bytes", "sites": [{"path", "kind", "in", "out", "dtype"}], ...}"""
        with self._use() as m:
            found: Dict[str, Any] = data(lib.peft_model_info_json, m, room=65536)
        return found

    @property
    def task(self) -> str:
        """What it is asked for: "causal_lm", "sequence_classification", "embedding", ..."""
        return str(self.info()["task"])

    @property
    def labels(self) -> List[str]:
        """Names of its labels in their order; empty for tasks without."""
        named: Dict[str, str] = self.info().get("id2label", {})
        return [named[str(i)] for i in range(len(named))]

    @property
    def tensors(self) -> Tensors:
        """The weights as a mapping from name to Array (float32, in the tensor's shape)."""
        return Tensors(self)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder or file, opened once. Another one may be assigned."""
        if self._tokenizer is None:
            if self._path is None:
                raise NotFoundError("this model comes from memory and has no tokenizer: assign model.tokenizer")
            self._tokenizer = Tokenizer.open(self._path, context=self.context)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError("a model's tokenizer must be a libpeft.Tokenizer, not %s" % type(tokenizer).__name__)
        self._tokenizer = tokenizer

    def adapters(self) -> Adapters:
        """A new, empty set of adapters over this model."""
        from ._adapters import Adapters

        return Adapters(self)

    def session(self, **options: Any) -> Session:
        """A session of the base alone: see Session."""
        from ._session import Session

        return Session(self, **options)

    def _about(self) -> str:
        return " %s" % self.arch


class _Part(NamedTuple):
    name: bytes
    dtype: int
    shape: Tuple[int, ...]
    address: Optional[int]
    keep: Any


def _tensor(key: str, value: Any) -> _Part:
    label, what = name(key, "a tensor's name"), "tensor %r" % (key,)
    raw = value if isinstance(value, Raw) else None
    found = view(raw.data if raw else value, what)
    if found is None:
        raise TypeError("%s must be an array, not %s" % (what, type(value).__name__))
    dtype = _NAMES.get(raw.dtype) if raw else _DTYPES.get(found.dtype)
    if dtype is None:
        raise TypeError("%s has elements of %s, expected one of %s" % (
            what, raw.dtype if raw else found.dtype, ", ".join(_NAMES if raw else _DTYPES)))
    shape = tuple(integer(n, "a size of " + what) for n in (raw.shape if raw else found.shape))
    if len(shape) > 8:
        raise ValueError("%s has %d dimensions, expected at most 8" % (what, len(shape)))
    if raw and found.data.nbytes != _bytes(raw.dtype, shape, what):
        raise ValueError("%s has %d bytes, expected %d for %s %s" % (
            what, found.data.nbytes, _bytes(raw.dtype, shape, what), raw.dtype, shape))
    return _Part(label, dtype, shape, address(found.data) if found.data.nbytes else None, found)


# bytes of a block, and its elements
_BLOCKS = {"F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "Q4_0": (18, 32), "Q4_1": (20, 32), "Q5_0": (22, 32),
           "Q5_1": (24, 32), "Q8_0": (34, 32), "Q4_K": (144, 256), "Q5_K": (176, 256), "Q6_K": (210, 256)}


def _bytes(dtype: str, shape: Tuple[int, ...], what: str) -> int:
    size, elements = _BLOCKS[dtype]
    if shape and shape[-1] % elements != 0:
        raise ValueError("%s has rows of %d elements, which are no whole blocks of %s" % (what, shape[-1], dtype))
    return count(shape) // elements * size


def _config(config: Config) -> bytes:
    if isinstance(config, str):
        return utf8(config, "config")
    if not isinstance(config, Mapping):
        raise TypeError("config must be a dict or the text of a config.json, not %s" % type(config).__name__)
    if not all(isinstance(v, (str, int, float, list, dict, type(None))) for v in config.values()):
        return to_json(dict(config))
    import json

    return json.dumps(dict(config), ensure_ascii=False).encode("utf-8")  # with NaN and Infinity, as Hugging Face's files
