"""Batches and data sets."""
import json

import numpy
import pytest

import libpeft
from conftest import HELDOUT, TRAIN, VOCABULARY


def test_rows_of_every_kind(demo):
    tokenizer = demo.tokenizer
    data = libpeft.Dataset(["a text", {"text": "a text"}, {"prompt": "a", "completion": " text"},
                            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
                            tokenizer.encode("a text"), numpy.array(tokenizer.encode("a text")),
                            {"input_ids": numpy.array([1, 2, 3]), "labels": [-100, 2, 3]}], tokenizer=tokenizer)
    assert len(data) == 7 and bool(data) and "7 rows" in repr(data)
    assert data[0].ids.tolist() == data[1].ids.tolist() and data[4].ids.tolist() == data[5].ids.tolist()
    assert data[-1].ids.tolist() == [1, 2, 3] and data[-1].labels.tolist() == [-100, 2, 3]
    assert [row.ids.tolist() for row in data[4:6]] == [row.ids.tolist() for row in list(data)[4:6]]
    assert data[2].labels[0] == -100 and data[2].labels.tolist()[-1] == data[2].ids.tolist()[-1]
    for bad in (7, -8, 2**70):
        with pytest.raises((IndexError, ValueError)):
            data[bad]
    with pytest.raises(TypeError):
        data["0"]


def test_files(demo, tmp_path):
    data = libpeft.Dataset(HELDOUT, tokenizer=demo.tokenizer, max_length=64)
    assert len(data) == 100 and data.info()["rows"] == 100 and data.info()["max_length"] == 64
    place = tmp_path / "eine Größe.jsonl"
    place.write_text(json.dumps({"text": "größer"}) + "\n", encoding="utf-8")
    data.load(place)
    data.extend(str(place).encode())
    assert len(data) == 102
    place.write_text('{"text": "x"}\n{"text": 5}\n', encoding="utf-8")
    with pytest.raises(libpeft.FormatError, match="line 2"):
        data.load(place)
    assert len(data) == 102
    with pytest.raises(FileNotFoundError):
        data.load(tmp_path / "absent")
    packed = libpeft.Dataset(TRAIN, tokenizer=demo.tokenizer, packing=True, max_length=256, max_rows=50)
    assert len(packed) < 50 and max(len(row.ids) for row in packed) <= 256


def test_rows_that_cannot_be():
    data = libpeft.Dataset()
    for bad, kind in (({"text": "no tokenizer"}, libpeft.Error), ({"text": "\ud800"}, UnicodeEncodeError),
                      ({"input_ids": [float("nan")]}, ValueError), ({"input_ids": [1.5]}, libpeft.FormatError),
                      ({"input_ids": [-5]}, libpeft.Error), ([-5], libpeft.Error), ({}, libpeft.FormatError),
                      ({"input_ids": [2**40]}, libpeft.Error), ([2**40], ValueError), ([[1]], TypeError),
                      ({"input_ids": object()}, TypeError), (5, TypeError), (None, TypeError)):
        with pytest.raises(kind):
            data.add(bad)
    with pytest.raises(TypeError):
        libpeft.Dataset(5)
    with pytest.raises(TypeError):
        libpeft.Dataset(tokenizer="x")
    with pytest.raises(libpeft.OptionError, match="did you mean \"max_length\""):
        libpeft.Dataset(max_lenght=5)
    assert len(data) == 0


def test_batches():
    batch = libpeft.Batch([[1, 2, 3], (4, 5)], labels=[[-100, 2, 3], [4, 5]], loss_weights=[[1, 2, 3], [1.0, 0.5]],
                          task_ids=[0, 1])
    assert len(batch) == 2 and batch.tokens == 5 and "2 rows" in repr(batch)
    batch.set(numpy.arange(6).reshape(2, 3))
    assert len(batch) == 2 and batch.tokens == 6
    batch.set(numpy.arange(12, dtype=numpy.int32).reshape(2, 6)[:, ::2])
    data = libpeft.Dataset(batch)
    assert [row.ids.tolist() for row in data] == [[0, 2, 4], [6, 8, 10]]
    batch.clear()
    assert len(batch) == 0 and batch.tokens == 0 and bool(batch)
    data.add_batch(libpeft.Batch([range(3)]))
    data.extend(libpeft.Batch([numpy.arange(3)], labels=[[-100, -100, 2]]))
    assert data[2].ids.tolist() == [0, 1, 2] and data[3].labels.tolist() == [-100, -100, 2]
    assert len(libpeft.Batch()) == 0


@pytest.mark.parametrize("arguments,kind,text", [
    (([1, 2],), TypeError, "row 0 of input_ids is int"), (("ab",), TypeError, "str"), ((5,), TypeError, "int"),
    (([["x"]],), TypeError, "value 0 of row 0"), (([[1], []],), libpeft.InvalidError, "row 1"),
    (([[-1]],), libpeft.InvalidError, "-1"), (([[1, 2]], [[1]]), libpeft.ShapeError, "row 0"),
    (([[1, 2]], [[1, 2], [3]]), libpeft.ShapeError, "2 rows"), (([[1, 2]], [[1, -5]]), libpeft.InvalidError, "-5"),
    (([[1, 2]], None, [[1]]), libpeft.ShapeError, "row 0"), (([[1, 2]], None, [["x", 1]]), TypeError, "value 0"),
    (([[1]], None, None, [1, 2]), libpeft.ShapeError, "2 values"), (([[1]], []), libpeft.ShapeError, "no values"),
    ((numpy.ones((2, 2)),), TypeError, "float64"), ((numpy.ones(3, int),), TypeError, "row 0"),
    ((numpy.ones((2, 2, 2), int),), (TypeError, ValueError), ""), (([[2**31]],), ValueError, "2147483648"),
])
def test_batches_that_cannot_be(arguments, kind, text):
    with pytest.raises(kind, match=text or "."):
        libpeft.Batch(*arguments)


def test_a_set_in_use_does_not_change(adapters):
    data = libpeft.Dataset([[1, 2, 3]])
    trainer = libpeft.Trainer(adapters, data, max_steps=1)
    with pytest.raises(libpeft.BusyError):
        data.add([1, 2, 3])
    data.close()  # the trainer keeps it
    assert trainer.run()[0].tokens == 3
    with pytest.raises(ValueError, match="closed"):
        len(data)


def test_ids_beyond_the_vocabulary(adapters):
    with pytest.raises(libpeft.ShapeError, match="vocabulary"):
        libpeft.Trainer(adapters, [[VOCABULARY]], max_steps=1).run()
    with pytest.raises(libpeft.InvalidError, match="39"):
        libpeft.Session(adapters).logits([[VOCABULARY]])
