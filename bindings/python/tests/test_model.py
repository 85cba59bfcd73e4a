"""Models, from files and from memory, and tokenizers."""
import gc
import json
import pathlib
import shutil

import numpy
import pytest

import libpeft
from conftest import BASE, LLAMA, PROMPT, VOCABULARY, shake
from libpeft import _callbacks


def logits(model, rows=((1, 2, 3, 4, 5),)):
    return libpeft.Session(model).logits(rows).tobytes()


def test_a_file(demo):
    assert demo.arch == "llama" and demo.config["vocab_size"] == 2048
    info = demo.info()
    assert info["kind"] == "model" and info["parameters"] == 1967808
    assert len(demo.tensors) == 38 and "model.norm.weight" in demo.tensors and "x" not in demo.tensors
    norm = demo.tensors["model.norm.weight"]
    assert norm.shape == (192,) and demo.tensors.info("model.norm.weight").dtype == "F32"
    assert demo.tensors.info("model.embed_tokens.weight") == ("model.embed_tokens.weight", "Q8_0", (2048, 192))
    with pytest.raises(libpeft.NotFoundError, match="did you mean"):
        demo.tensors["model.norm.weigth"]
    assert repr(demo) == "<libpeft.Model llama>" and "38 tensors" in repr(demo.tensors)


def test_random_models_have_their_seed():
    assert logits(libpeft.Model.random(LLAMA, 1)) == logits(libpeft.Model.random(json.dumps(LLAMA), seed=1))
    assert logits(libpeft.Model.random(LLAMA, 1)) != logits(libpeft.Model.random(LLAMA, 2))
    with pytest.raises(ValueError, match="seed"):
        libpeft.Model.random(LLAMA, -1)
    with pytest.raises(TypeError, match="config"):
        libpeft.Model.random(["llama"])
    with pytest.raises(libpeft.FormatError):
        libpeft.Model.random("{")
    with pytest.raises(libpeft.UnsupportedError, match="llama"):
        libpeft.Model.random(dict(LLAMA, model_type="llamma"))


@pytest.mark.parametrize("kind", [str, pathlib.Path, lambda p: str(p).encode()])
def test_paths_of_every_kind(tmp_path, kind):
    place = tmp_path / "a model, größer – 模型.gguf"
    shutil.copy(BASE, place)
    with libpeft.Model.open(kind(place), load="copy") as model:
        assert len(model.tokenizer) == 2048
    for bad, error in (("a\0b", ValueError), ("\ud800", UnicodeEncodeError), (b"\xff", UnicodeDecodeError), (5, TypeError),
                       (None, TypeError), (b"a\0b", ValueError)):
        with pytest.raises(error):
            libpeft.Model.open(bad)


def test_options_of_opening():
    with pytest.raises(libpeft.OptionError, match="did you mean"):
        libpeft.Model.open(BASE, laod="copy")
    with pytest.raises(libpeft.OptionError, match="mmap"):
        libpeft.Model.open(BASE, load="magic")


def test_from_tensors_equals_the_source(model):
    state = {name: model.tensors[name].numpy() for name in model.tensors}
    assert logits(libpeft.Model.from_tensors(LLAMA, state)) == logits(model)
    assert logits(libpeft.Model.from_tensors(LLAMA, dict(model.tensors))) == logits(model)
    readonly = {name: value.copy() for name, value in state.items()}
    for value in readonly.values():
        value.setflags(write=False)
    assert logits(libpeft.Model.from_tensors(LLAMA, readonly)) == logits(model)
    gaps = {name: numpy.repeat(value, 2, axis=-1)[..., ::2] for name, value in state.items()}
    assert logits(libpeft.Model.from_tensors(LLAMA, gaps)) == logits(model)


def test_from_tensors_uses_the_memory_until_it_goes(model):
    state = {name: model.tensors[name].numpy() for name in model.tensors}
    before = _callbacks.lent()
    made = libpeft.Model.from_tensors(LLAMA, state)
    assert _callbacks.lent() == before + 1
    untouched = logits(made)
    state["lm_head.weight"] *= 2  # the same memory
    assert logits(made) != untouched
    adapters = made.adapters()
    made.close()
    assert _callbacks.lent() == before + 1  # the set uses it
    adapters.close()
    gc.collect()
    assert _callbacks.lent() == before
    copied = libpeft.Model.from_tensors(LLAMA, state, load="copy")
    assert _callbacks.lent() == before
    untouched = logits(copied)
    state["lm_head.weight"] *= 2
    assert logits(copied) == untouched


def test_from_tensors_of_half_and_quantised(model):
    state = {name: model.tensors[name].numpy() for name in model.tensors}
    half = {name: value.astype(numpy.float16) for name, value in state.items()}
    rounded = {name: value.astype(numpy.float32) for name, value in half.items()}
    close = numpy.allclose(libpeft.Session(libpeft.Model.from_tensors(LLAMA, half)).logits([[1, 2, 3]]).numpy(),
                           libpeft.Session(libpeft.Model.from_tensors(LLAMA, rounded)).logits([[1, 2, 3]]).numpy(), atol=1e-5)
    assert close
    upper = {name: libpeft.Raw((value.view(numpy.uint32) >> 16).astype(numpy.uint16), "BF16", value.shape)
             for name, value in state.items()}
    made = libpeft.Model.from_tensors(LLAMA, upper)
    assert made.tensors.info("lm_head.weight").dtype == "BF16"
    expected = (state["lm_head.weight"].view(numpy.uint32) & 0xFFFF0000).view(numpy.float32)
    assert made.tensors["lm_head.weight"].tolist() == expected.tolist()


def test_from_tensors_refuses_with_names(model):
    state = dict(model.tensors)
    before = _callbacks.lent()
    for change, kind, text in (
            ({"lm_head.weight": numpy.zeros((2, 2), numpy.float32)}, libpeft.ShapeError, "lm_head.weight"),
            ({"lm_head.weight": numpy.zeros((VOCABULARY, 16))}, TypeError, "float64"),
            ({"lm_head.weight": [[0.0]]}, TypeError, "lm_head.weight"),
            ({"lm_head.weight": libpeft.Raw(b"123", "F32", (1,))}, ValueError, "3 bytes, expected 4"),
            ({"lm_head.weight": libpeft.Raw(b"123", "Q4_0", (5,))}, ValueError, "whole blocks"),
            ({"lm_head.weight": libpeft.Raw(b"123", "F31", (1,))}, TypeError, "F31"),
            ({"a\0b": numpy.zeros(1, numpy.float32)}, ValueError, "NUL"),
            ({"extra": numpy.zeros((1,) * 9, numpy.float32)}, ValueError, "9 dimensions")):
        with pytest.raises(kind, match=text):
            libpeft.Model.from_tensors(LLAMA, {**state, **change})
    del state["lm_head.weight"]
    with pytest.raises(libpeft.NotFoundError, match="lm_head.weight"):
        libpeft.Model.from_tensors(LLAMA, state)
    with pytest.raises(libpeft.NotFoundError):
        libpeft.Model.from_tensors(LLAMA, {})
    assert _callbacks.lent() == before


def test_a_model_from_memory_has_no_tokenizer(model, demo):
    with pytest.raises(libpeft.NotFoundError, match="tokenizer"):
        model.tokenizer
    with pytest.raises(TypeError):
        model.tokenizer = 3
    model.tokenizer = demo.tokenizer
    assert model.tokenizer is demo.tokenizer


def test_tokenizer(demo):
    t = libpeft.Tokenizer.open(BASE)
    ids = t.encode("Calm Stove, größer 模型")
    assert t.decode(ids) == "Calm Stove, größer 模型" and all(0 <= i < len(t) for i in ids)
    assert t.encode_array(PROMPT).dtype == "int32" and t.encode_array(PROMPT).tolist() == t.encode(PROMPT)
    assert t.decode(numpy.array(t.encode(PROMPT))) == PROMPT
    assert t.encode("a\0b") and t.decode(t.encode("a\0b")) == "a\0b"
    assert t.encode(b"\xff") and t.encode("") == [] and t.decode([]) == "" and t.decode_bytes([]) == b""
    info = t.info()
    assert info["size"] == len(t) == 2048 and bool(t)
    assert t.eos_id is None or t.decode([t.eos_id]) == ""
    assert t.bos_id is None or 0 <= t.bos_id < len(t)
    assert t.token_id("no such token") is None
    with pytest.raises(UnicodeEncodeError):
        t.encode("\ud800")
    with pytest.raises(libpeft.InvalidError, match="2048"):
        t.decode([2048])
    with pytest.raises(TypeError):
        t.encode(5)
    assert "2048" in repr(t)
    with pytest.raises(FileNotFoundError):
        libpeft.Tokenizer.open("no/such")


def test_chat_formats(tmp_path):
    """A tokenizer whose template is known: ChatML."""
    vocabulary = {chr(c): i for i, c in enumerate(range(33, 127))}
    for extra in ("<|im_start|>", "<|im_end|>"):
        vocabulary[extra] = len(vocabulary)
    template = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
                "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    added = [{"id": vocabulary[t], "content": t, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False} for t in ("<|im_start|>", "<|im_end|>")]
    (tmp_path / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<|im_end|>"}))
    t = libpeft.Tokenizer.open(tmp_path)
    text = t.chat("Hi!")
    assert text == "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    assert t.chat([{"role": "user", "content": "Hi!"}], add_generation_prompt=False) == "<|im_start|>user\nHi!<|im_end|>\n"
    with pytest.raises(libpeft.FormatError):
        t.chat([{"role": "user"}])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ anything }}"}))
    with pytest.raises(libpeft.UnsupportedError):
        libpeft.Tokenizer.open(tmp_path).chat("Hi!")


def test_a_model_that_was_merged_opens(adapters, tmp_path, model):
    shake(adapters["a"])
    adapters.merge(tmp_path / "merged")
    merged = libpeft.Session(libpeft.Model.open(tmp_path / "merged")).logits([[1, 2, 3]]).numpy()
    acting = libpeft.Session(adapters["a"]).logits([[1, 2, 3]]).numpy()
    alone = libpeft.Session(model).logits([[1, 2, 3]]).numpy()
    assert abs(merged - acting).max() < 1e-5 * abs(acting).max() < abs(acting - alone).max()
