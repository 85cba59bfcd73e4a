"""Inference: logits, texts in one call and piece by piece, callbacks, equality with the tool."""
import json
import os
import subprocess
import sys

import numpy
import pytest

import libpeft
from conftest import BASE, HELDOUT, PROMPT, rows, shake
from libpeft.__main__ import find_tool

TOOL = find_tool()


def test_logits_have_the_vocabulary(model, adapters):
    shake(adapters["a"])
    base, acting = libpeft.Session(model), libpeft.Session(adapters["a"])
    a = base.logits([[1, 2, 3], [4, 5]])
    assert a.shape == (5, 40) and a.tobytes() == base.logits(libpeft.Batch([[1, 2, 3], [4, 5]])).tobytes()
    assert base.logits(numpy.array([[1, 2, 3]])).tobytes() == a[:3].tobytes()
    assert acting.logits([[1, 2, 3], [4, 5]]).tobytes() != a.tobytes()
    assert libpeft.Session(adapters, "0 * a").logits([[1, 2, 3], [4, 5]]).tobytes() == a.tobytes()
    acting.set_adapters("")
    assert acting.logits([[1, 2, 3], [4, 5]]).tobytes() == a.tobytes() and acting.expression == ""
    acting.set_adapters("a:0.5")
    assert acting.logits([[1, 2, 3], [4, 5]]).tobytes() != a.tobytes()
    with pytest.raises(libpeft.NotFoundError, match="b"):
        acting.set_adapters("b")
    for bad, kind in (("1", TypeError), ([], libpeft.Error), (5, TypeError)):
        try:
            assert base.logits(bad).shape == (0, 0)
        except kind:
            pass
    assert "'a:0.5'" in repr(acting) and "llama" in repr(base)


def test_logits_of_branches(adapters):
    shake(adapters.add("b", r=2))
    shake(adapters["a"])
    both = libpeft.Session(adapters, "parallel(a, b)").logits([[1, 2, 3], [4, 5]])
    assert both.shape == (2, 5, 40)
    for i, name in enumerate("ab"):
        alone = libpeft.Session(adapters, name).logits([[1, 2, 3], [4, 5]]).numpy()
        assert abs(both[i].numpy() - alone).max() <= 1e-5 * abs(alone).max()


def test_new_tokens_widen_the_logits(model):
    adapters = model.adapters()
    adapters.add("a", "trainable_tokens", token_indices=[40, 41], num_new_tokens=2)
    assert libpeft.Session(adapters).logits([[1, 41]]).shape == (2, 42)


def test_arguments_that_cannot_be(model, adapters):
    with pytest.raises(ValueError, match="no adapters"):
        libpeft.Session(model, "a")
    with pytest.raises(TypeError):
        libpeft.Session(5)
    with pytest.raises(TypeError):
        libpeft.Session(model, tokenizer="x")
    with pytest.raises(libpeft.OptionError, match="did you mean"):
        libpeft.Session(model, max_lenght=5)
    with pytest.raises(libpeft.InvalidError):
        libpeft.Session(adapters, "a,,")
    session = model.session(max_length=8)
    with pytest.raises(libpeft.ShapeError, match="8"):
        session.logits([list(range(9))])
    for bad, kind in (([], libpeft.InvalidError), ([99], libpeft.InvalidError), (list(range(8)), libpeft.ShapeError),
                      ([1.5], TypeError), (None, TypeError), (b"x", TypeError)):
        with pytest.raises(kind):
            session.generate(bad)
        with pytest.raises(kind):
            session.tokens(bad)
    with pytest.raises(libpeft.NotFoundError, match="tokenizer"):
        session.generate("text")
    with pytest.raises(libpeft.OptionError, match="did you mean"):
        session.generate([1], max_new_token=3)


def test_generation_is_the_same_in_every_way(demo):
    session = libpeft.Session(demo)
    for options in ({"max_new_tokens": 24}, {"max_new_tokens": 24, "temperature": 0.9, "seed": 7, "top_k": 40},
                    {"max_new_tokens": 60, "stop": [" from"]}, {"max_new_tokens": 0}):
        text, seen = session.generate(PROMPT, **options), []
        assert text == session.generate(PROMPT, on_token=lambda i, piece: seen.append((i, piece)), **options)
        assert "".join(session.stream(PROMPT, **options)) == text == "".join(piece for _, piece in seen)
        assert list(session.tokens(PROMPT, **options)) == seen
        ids = demo.tokenizer.encode(PROMPT, special=True, bos_eos=True)
        ids = ids[:-1] if demo.tokenizer.eos_id is not None and ids[-1] == demo.tokenizer.eos_id else ids
        assert session.generate(ids, **options) == [i for i, _ in seen]
        assert list(session.tokens(numpy.array(ids), **options)) == seen
    assert 0 < len(text) + len(seen) or options["max_new_tokens"] == 0


def test_without_a_tokenizer(model):
    session = libpeft.Session(model)
    ids = session.generate([1, 2, 3], max_new_tokens=6, ignore_eos=True)
    assert len(ids) == 6 and [t.id for t in session.tokens([1, 2, 3], max_new_tokens=6, ignore_eos=True)] == ids
    assert all(t.text == "" for t in session.tokens([1, 2, 3], max_new_tokens=6))


def test_a_stream_ends_with_another_use(demo):
    session = libpeft.Session(demo)
    for other in (lambda: session.generate(PROMPT, max_new_tokens=1), lambda: session.logits([[1]]),
                  lambda: session.evaluate([[1, 2]]), lambda: session.stream(PROMPT), lambda: session.set_adapters("")):
        pieces = session.tokens(PROMPT, max_new_tokens=5)
        next(pieces)
        other()
        with pytest.raises(libpeft.InvalidError, match="another use"):
            next(pieces)
    pieces = session.stream(PROMPT, max_new_tokens=2)
    assert len(list(pieces)) <= 2 and list(pieces) == []
    with session:
        pieces = session.stream(PROMPT, max_new_tokens=5)
    with pytest.raises(ValueError, match="closed"):
        next(pieces)


def test_callbacks_that_raise(demo):
    session, seen = libpeft.Session(demo), []

    def stop(token, piece):
        seen.append(token)
        if len(seen) == 3:
            raise LookupError("enough")

    for prompt in (PROMPT, demo.tokenizer.encode(PROMPT)):
        seen.clear()
        with pytest.raises(LookupError, match="enough"):
            session.generate(prompt, on_token=stop)
        assert len(seen) == 3
    with pytest.raises(libpeft.BusyError):
        session.generate(PROMPT, on_token=lambda i, t: session.logits([[1]]))
    assert session.generate(PROMPT, max_new_tokens=2)
    with pytest.raises(libpeft.CancelledError):
        session.generate(PROMPT, on_token=lambda i, t: session.cancel())
    session.cancel()
    with pytest.raises(libpeft.CancelledError):
        session.generate(PROMPT)
    assert session.generate(PROMPT, max_new_tokens=2)


def test_chat(demo):
    session = libpeft.Session(demo)
    answer = session.chat("Hi!", max_new_tokens=8)
    assert answer == session.generate(demo.tokenizer.chat("Hi!"), max_new_tokens=8)
    assert "".join(session.chat_stream([{"role": "user", "content": "Hi!"}], max_new_tokens=8)) == answer


def run_tool(*arguments):
    done = subprocess.run([TOOL, *arguments], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def test_equal_to_the_tool(demo, tmp_path):
    """The same training, the same adapter to the byte, the same text, the same loss."""
    place = tmp_path / "adapter"
    run_tool("train", "--model", BASE, "--data", HELDOUT, "--out", str(place), "--seed", "1", "--set", "r=4", "--set",
             "max_steps=4", "--set", "batch_size=4", "--set", "learning_rate=5e-3")
    adapters = demo.adapters()
    adapters.add("a", "lora", r=4, seed=1)
    libpeft.Trainer(adapters, HELDOUT, max_steps=4, batch_size=4, learning_rate=5e-3, seed=1).run()
    adapters["a"].save(tmp_path / "ours")
    files = [(folder / "adapter_model.safetensors").read_bytes() for folder in (place, tmp_path / "ours")]
    assert files[0] == files[1]
    said = json.loads(run_tool("generate", "--model", BASE, "--adapter", str(place), "--prompt", PROMPT, "--max-new", "12",
                               "--temperature", "0", "--json").splitlines()[0])
    assert libpeft.Session(adapters).generate(PROMPT, max_new_tokens=12) == said["text"]
    few = tmp_path / "few.jsonl"
    with open(HELDOUT, encoding="utf-8") as source:
        few.write_text("".join(source.readlines()[:8]), encoding="utf-8")
    evaluated = json.loads(run_tool("eval", "--model", BASE, "--adapter", str(place), "--data", str(few), "--json"))
    assert libpeft.Session(adapters).evaluate(few).loss == evaluated["loss"]


def test_the_command(tmp_path):
    environment = {**os.environ, "LIBPEFT_TOOL": TOOL}
    done = subprocess.run([sys.executable, "-m", "libpeft", "--version"], stdout=subprocess.PIPE, env=environment, check=True)
    assert libpeft.__version__ in done.stdout.decode()
    done = subprocess.run([sys.executable, "-m", "libpeft", "info", str(tmp_path / "absent")], stderr=subprocess.PIPE,
                          env=environment, check=False)
    assert done.returncode not in (0, -6, -11) and b"absent" in done.stderr
    environment["LIBPEFT_TOOL"] = str(tmp_path / "absent")
    done = subprocess.run([sys.executable, "-m", "libpeft"], stderr=subprocess.PIPE, env=environment, check=False)
    assert done.returncode == 1 and b"cannot be run" in done.stderr
    assert rows()
