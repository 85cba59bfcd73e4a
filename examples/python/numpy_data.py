"""numpy_data.py [MODEL] - arrays of NumPy in and out: rows of ids, logits, weights of an adapter, gradients.

Arrays of int32 and float32 are read in place; what comes back is taken over by numpy.asarray without a copy.
"""
import sys
from pathlib import Path

import numpy as np

import libpeft

BASE = Path(__file__).resolve().parent.parent / "demo" / "base" / "model.gguf"


def main(base: str) -> None:
    model = libpeft.Model.open(base)
    rng = np.random.default_rng(1)

    # Rows that repeat their first half: [rows, tokens] of int32; -100 where nothing is to be learnt.
    half = rng.integers(10, 500, (64, 12), dtype=np.int32)
    ids = np.concatenate([half, half], axis=1)
    labels = ids.copy()
    labels[:, :12] = -100
    adapters = model.adapters()
    adapter = adapters.add("copy", "lora", r=8, target_modules="all-linear")
    rows = libpeft.Dataset(libpeft.Batch(ids, labels))
    with libpeft.Trainer(adapter, rows, learning_rate=5e-3, batch_size=16, max_steps=40, seed=1) as trainer:
        losses = np.array([step.loss for step in trainer])
    print("loss: %.3f at first, %.3f at last" % (losses[0], losses[-1]))

    # Logits: [tokens, vocabulary] of float32, the rows end to end.
    session = libpeft.Session(adapter)
    logits = np.asarray(session.logits(ids[:4])).reshape(4, 24, -1)
    right = logits[:, 11:-1].argmax(axis=2) == ids[:4, 12:]
    print("share of tokens that are copied: %.2f; logits %s" % (right.mean(), logits.shape))

    # Weights: read, changed and written back. Halving every up-matrix is what the factor 0.5 does.
    with libpeft.Session(adapters, "0.5 * copy") as factor:
        by_factor = np.asarray(factor.logits(ids[:4]))
    for name, values in adapter.tensors.items():
        if "lora_B" in name:
            adapter.tensors[name] = np.asarray(values) / 2
    by_weights = np.asarray(session.logits(ids[:4]))
    print("halved weights and a factor of 0.5 differ by %.1e" % abs(by_factor - by_weights).max())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(BASE))
