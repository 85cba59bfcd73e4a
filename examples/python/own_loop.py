"""own_loop.py [MODEL [DATA]] - a training loop of one's own: batches by length, gradients looked at, steps that are left out.

accumulate() adds the gradients of a batch, apply() makes a step of them: what lies between is the program's.
"""
import math
import random
import sys
from pathlib import Path
from typing import Iterator, List

import libpeft

DEMO = Path(__file__).resolve().parent.parent / "demo"
Rows = List[libpeft.Example]


def by_length(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    """Batches of rows of like length, in random order."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    batches = [ordered[i:i + size] for i in range(0, len(ordered), size)]
    random.Random(seed).shuffle(batches)
    return iter(batches)


def norm(values: libpeft.Array) -> float:
    return math.sqrt(sum(x * x for x in values.reshape(-1).tolist()))


def main(base: str, data: str) -> None:
    model = libpeft.Model.open(base)
    adapter = model.adapters().add("mine", "lora", r=4, target_modules=["q_proj", "v_proj"])
    rows = list(libpeft.Dataset(data, tokenizer=model.tokenizer, max_length=128))
    longest = max(len(row.ids) for row in rows)
    trainer = libpeft.Trainer(adapter, learning_rate=1e-2, lr_scheduler_type="constant", max_steps=40, batch_size=8,
                              max_length=longest, max_grad_norm=1.0)
    watched = sorted(adapter.tensors)[0]
    for number, rows_of_step in enumerate(by_length(rows[:320], 16, seed=1), 1):
        losses = []
        for part in (rows_of_step[:8], rows_of_step[8:]):  # two batches make one step
            losses.append(trainer.accumulate(libpeft.Batch([r.ids for r in part], [r.labels for r in part])))
        size = norm(trainer.gradient(watched))
        trainer.apply()
        if number % 5 == 0:
            print("step %d: losses %.3f %.3f, |gradient of %s| %.2g" % (number, losses[0], losses[1], watched, size))
    print("loss on the first 50 rows: %.3f" % trainer.evaluate(libpeft.Batch([r.ids for r in rows[:50]],
                                                                              [r.labels for r in rows[:50]])).loss)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(given + [str(DEMO / "base" / "model.gguf"), str(DEMO / "train.jsonl")][len(given):]))
