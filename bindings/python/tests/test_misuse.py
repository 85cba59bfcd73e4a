"""Misuse of every kind: exceptions, never a crash."""
import ctypes
import os
import re
import subprocess
import sys

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import libpeft
from conftest import LLAMA
from libpeft import _buffers

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.mark.parametrize("seed", range(4))
def test_random_calls(seed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "ignore", os.path.join(HERE, "fuzz.py"), str(seed), "1500"],
                          cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    fine = re.match(r"(\d+) of (\d+) calls were fine (.*)", done.stdout.decode())
    assert int(fine.group(1)) > 350
    for name in ("TypeError", "ValueError", "OptionError", "NotFoundError", "InvalidError", "UnicodeEncodeError"):
        assert name in fine.group(3)


@settings(max_examples=80, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_rows_of_anything(row):
    with libpeft.Dataset() as data:
        try:
            data.add(row)
        except (TypeError, ValueError, libpeft.Error, OverflowError):
            assert len(data) == 0
        else:
            assert len(data) == 1 and len(data[0].ids) >= 1


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([o.key for o in libpeft.options("generate")]),
                       st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())))
def test_options_of_anything(values):
    """What is accepted is what is read back."""
    with libpeft.Options("generate") as options:
        for key, value in values.items():
            try:
                options[key] = value
            except (TypeError, ValueError, libpeft.Error):
                continue
            read = options[key]
            if isinstance(value, float) and value != int(value):
                assert read == pytest.approx(value, rel=1e-6)
            elif isinstance(read, str) and not isinstance(value, str):  # such as early_stopping=False
                assert read == str(value).lower() or value is None
            elif value is not None and key != "stop":
                assert read == value


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=9), min_size=1, max_size=5), st.booleans())
def test_batches_come_back(rows, as_arrays):
    data = libpeft.Dataset(libpeft.Batch([numpy.array(row) for row in rows] if as_arrays else rows))
    assert [row.ids.tolist() for row in data] == rows


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_texts_come_back(demo_tokenizer, text):
    assert demo_tokenizer.decode(demo_tokenizer.encode(text)) == text


@pytest.fixture(scope="module")
def demo_tokenizer(demo):
    return demo.tokenizer


def test_a_library_that_is_none(tmp_path):
    """Named wrongly, no library, another library, another version."""
    def load(place):
        done = subprocess.run([sys.executable, "-c", "import libpeft"], env={**os.environ, "LIBPEFT_LIBRARY": str(place)},
                              stderr=subprocess.PIPE, check=False)
        assert done.returncode == 1
        return done.stderr.decode().splitlines()[-1]

    assert "ImportError" in load(tmp_path / "absent") and "absent" in load(tmp_path / "absent")
    (tmp_path / "text").write_text("x" * 100)
    assert "text" in load(tmp_path / "text")
    source = tmp_path / "old.c"
    for text, expected in (("int nothing;", "no libpeft"), ("unsigned peft_version(void) { return 99u << 16; }", "99.0.0")):
        source.write_text(text)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / "old.so"), str(source)], check=True)
        assert expected in load(tmp_path / "old.so")


def test_a_function_that_an_older_library_lacks():
    from libpeft import _ffi

    older = _ffi.Library(ctypes.CDLL(None))  # the process, which has none of them
    with pytest.raises(AttributeError, match="version 0.1"):
        older.peft_session_next
    with pytest.raises(AttributeError, match="no function peft_session_last"):
        older.peft_session_last


def test_buffers_that_lie():
    class Lies:
        __array_interface__ = {"shape": (5,), "typestr": "<i4", "data": (1, False), "version": 3}

        def __dlpack__(self):
            return 5

        def __dlpack_device__(self):
            return (1, 0)

    for function in (_buffers.ints, _buffers.floats):
        with pytest.raises((TypeError, ValueError)):
            function(Lies(), "x")
    assert LLAMA


def test_a_model_is_not_made_of_a_path():
    for arguments in (("model",), ("model", libpeft.Context()), (1,)):
        with pytest.raises(TypeError, match=r"Model\.open\(path\)"):
            libpeft.Model(*arguments)
