"""conftest.py - what the tests of the package share: small models, data, and a note of every function that is called.

The library is the one that LIBPEFT_LIBRARY names; see tests/python/run.sh of the project.
"""
import os
import random

import pytest

import libpeft
from libpeft._lib import lib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
DEMO = os.path.join(ROOT, "examples", "demo")
BASE = os.path.join(DEMO, "base", "model.gguf")
TRAIN = os.path.join(DEMO, "train.jsonl")
HELDOUT = os.path.join(DEMO, "heldout.jsonl")
PROMPT = "name: Calm Stove | kind: bistro | area: lighthouse | dish: plum tart\nSentence:"
VOCABULARY = 40
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "bos_token_id": None, "eos_token_id": 3, "tie_word_embeddings": False,
}
called = lib.record()  # for test_zz_coverage.py


def rows(count=12, length=10, seed=1):
    """Rows that can be learnt: each id is followed by the next one."""
    rng = random.Random(seed)
    return [[(start + i) % VOCABULARY for i in range(length - rng.randrange(3))]
            for start in (rng.randrange(VOCABULARY) for _ in range(count))]


def shake(adapter, size=0.1, seed=5):
    """Noise into every tensor, so that the adapter changes something."""
    rng = random.Random(seed)
    for name, shape in adapter.tensors.shapes().items():
        count = 1
        for n in shape:
            count *= n
        adapter.tensors[name] = [rng.uniform(-size, size) for _ in range(count)]


@pytest.fixture
def model():
    return libpeft.Model.random(LLAMA, seed=3)


@pytest.fixture(scope="session")
def demo():
    return libpeft.Model.open(BASE)


@pytest.fixture
def adapters(model):
    made = model.adapters()
    made.add("a", method="lora", r=4, target_modules="all-linear", seed=2)
    return made
