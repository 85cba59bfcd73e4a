"""test_bridges.py - of the bridges what needs no other library: rows of dicts, and what they say where a library is missing.
Beside live transformers and PEFT: tests/peers/test_bridges.py of the project.
"""
import itertools
import shutil
import sys

import pytest

import libpeft
from libpeft import bridges

from conftest import BASE, LLAMA

PAIRS = [{"question": "Q%d" % i, "answer": " A%d" % i, "note": object()} for i in range(5)]


def all_rows(data):
    return [(row.ids.tolist(), row.labels.tolist()) for row in data]


def test_columns(demo):
    plain = [{"prompt": r["question"], "completion": r["answer"]} for r in PAIRS]
    expected = all_rows(libpeft.Dataset(plain, tokenizer=demo.tokenizer))
    columns = {"question": "prompt", "answer": "completion"}
    assert all_rows(bridges.from_datasets(PAIRS, demo.tokenizer, columns=columns)) == expected
    assert all_rows(bridges.from_datasets([{**p, "score": object()} for p in plain], demo.tokenizer)) == expected
    named = [{k: r[k] for k in ("question", "answer")} for r in PAIRS]
    assert all_rows(bridges.from_datasets(named, demo.tokenizer, prompt_template="{question}",
                                          completion_template="{answer}")) == expected


def test_stream():
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield {"input_ids": [1 + i % 30, 2, 3]}

    assert len(bridges.from_datasets(endless(), limit=9)) == 9
    assert taken == list(range(9))
    assert len(bridges.from_datasets(endless(), limit=0)) == 0


@pytest.mark.parametrize("rows, columns, kind, words", [
    ({"train": [], "test": []}, None, TypeError, ["train", "test"]),
    (PAIRS, {"quest": "prompt"}, KeyError, ["row 0", "quest", "question"]),
    (PAIRS, None, KeyError, ["row 0", "columns"]),
    ([{"text": "a"}, "b"], None, TypeError, ["row 1", "str"]),
    (PAIRS, {"note": "text"}, TypeError, ["object"]),
])
def test_rows_refused(demo, rows, columns, kind, words):
    with pytest.raises(kind) as caught:
        bridges.from_datasets(rows, demo.tokenizer, columns=columns)
    assert all(word in str(caught.value) for word in words)


def test_options_are_checked(demo):
    with pytest.raises(libpeft.OptionError, match="max_length"):
        bridges.from_datasets([], demo.tokenizer, max_lenght=5)


def test_tokenizer(demo, tmp_path):
    class Saver:
        def save_pretrained(self, folder):
            shutil.copy(BASE, folder + "/tokenizer.gguf")

    with pytest.raises(libpeft.Error):  # a folder without files of a tokenizer
        bridges.from_tokenizer(Saver())
    with pytest.raises(TypeError, match="save_pretrained"):
        bridges.from_tokenizer("gpt2")


def test_needed_libraries(model, adapters, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # an import of it fails
    with pytest.raises(ImportError, match=r"pip install libpeft\[peft\]"):
        bridges.to_peft(object(), adapters, "a")
    with pytest.raises(TypeError, match="PeftModel"):
        bridges.from_peft(object(), adapters, "b")
    with pytest.raises(TypeError, match="state_dict"):
        bridges.from_transformers(LLAMA)


def test_nothing_is_imported():
    assert not {"torch", "transformers", "peft", "datasets"} & set(sys.modules)
