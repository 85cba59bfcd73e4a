"""_tokenizer.py - Tokenizer: text to ids and back, and a model's chat format."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import ctypes

from . import _ffi
from ._array import Array
from ._buffers import ints
from ._calls import Path, content, data, make, name, path, reading, text, utf8
from ._context import Context, context as default_context
from ._handle import Handle
from ._lib import lib
from ._options import to_json
from ._types import Ints

Messages = Union[str, Sequence[Mapping[str, Any]]]


class Tokenizer(Handle):
    """The tokenizer of a folder, a GGUF file, a tokenizer.json, ...; used from any number of threads."""

    _free = "peft_tokenizer_free"

    @classmethod
    def open(cls, place: Path, *, context: Optional[Context] = None) -> Tokenizer:
        """Opens the tokenizer of a folder (tokenizer.json, vocab.json and merges.txt, or tokenizer.model), one of these
        files, or a GGUF file."""
        raw = path(place)
        with (context or default_context())._use() as ctx, reading(raw):
            return cls(make(lib.peft_tokenizer_open, ctx, raw))

    def encode(self, content: Union[str, bytes], *, special: bool = False, bos_eos: bool = False) -> List[int]:
        """The ids of a text. special: recognise special tokens in it; bos_eos: add what the tokenizer's file says to add.
        Bytes may be of any kind."""
        return self.encode_array(content, special=special, bos_eos=bos_eos).tolist()

    def encode_array(self, content: Union[str, bytes], *, special: bool = False, bos_eos: bool = False) -> Array:
        """The same as an Array of int32, [ids]."""
        raw = bytes(content) if isinstance(content, (bytes, bytearray)) else utf8(content, "content")
        flags = special * _ffi.PEFT_TOKENIZE_SPECIAL | bos_eos * _ffi.PEFT_TOKENIZE_BOS_EOS
        needed, room = ctypes.c_size_t(), len(raw) + 8
        while True:
            out = Array((room,), "int32")
            with self._use() as t:
                status = lib.peft_tokenizer_encode(t, raw, len(raw), flags, out.pointer(), room, ctypes.byref(needed))
            if status == _ffi.PEFT_OK:
                return out[:needed.value]  # type: ignore[no-any-return]
            room = needed.value

    def decode(self, ids: Ints, *, special: bool = False) -> str:
        """The text of ids; bytes of half a character become U+FFFD. special: write special tokens too."""
        return self.decode_bytes(ids, special=special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Ints, *, special: bool = False) -> bytes:
        """The same as bytes."""
        given = ints(ids, "ids")
        with self._use() as t:
            return content(lib.peft_tokenizer_decode, t, given.pointer, given.n, special * _ffi.PEFT_TOKENIZE_SPECIAL)

    def chat(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """Messages as the model's chat format writes them: a list of {"role", "content"}, or what the user says.
        add_generation_prompt: with what opens the assistant's turn."""
        listed = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        raw = to_json(listed)
        with self._use() as t:
            return text(lib.peft_tokenizer_chat, t, raw, len(raw), int(bool(add_generation_prompt)))

    def token_id(self, token: str) -> Optional[int]:
        """Id of a token as the vocabulary spells it; None where it is absent."""
        with self._use() as t:
            return _id(lib.peft_tokenizer_token_id(t, name(token, "token")))

    @property
    def bos_id(self) -> Optional[int]:
        """Id of the token that begins a text; None where there is none."""
        with self._use() as t:
            return _id(lib.peft_tokenizer_bos_id(t))

    @property
    def eos_id(self) -> Optional[int]:
        """Id of the token that ends a text; None where there is none."""
        with self._use() as t:
            return _id(lib.peft_tokenizer_eos_id(t))

    def info(self) -> Dict[str, Any]:
        """{"kind", "size", "bos_id", "eos_id", "pad_id", "pre_tokenizer", "chat_template", ...}"""
        with self._use() as t:
            found: Dict[str, Any] = data(lib.peft_tokenizer_info_json, t)
        return found

    def __len__(self) -> int:
        """Size of the vocabulary: ids are below it."""
        with self._use() as t:
            return lib.peft_tokenizer_size(t)

    def __bool__(self) -> bool:
        return True

    def _about(self) -> str:
        return " %d tokens" % len(self)


def _id(found: int) -> Optional[int]:
    return None if found < 0 else found
