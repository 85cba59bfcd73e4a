"""many_adapters.py [MODEL [DATA]] - several adapters over one base: trained at the same time on two threads, switched, weighted,
averaged, combined into one.

The base is in memory once. Which adapters act is said by an expression: see docs/compose.md.
"""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List

import libpeft

DEMO = Path(__file__).resolve().parent.parent / "demo"
PROMPT = "name: Noble Heron | kind: bakery | area: church | dish: rice stew | price: low | opens: 9 | closes: 15 | children: yes" \
         "\nSentence:"


def pirates(data: str) -> List[Dict[str, str]]:
    with open(data, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def clerks(rows: List[Dict[str, str]]) -> List[Dict[str, str]]:
    """The same records, told by a clerk."""
    told = []
    for row in rows:
        fields = dict(field.split(": ", 1) for field in row["prompt"].split("\n")[0].split(" | "))
        told.append({"prompt": row["prompt"], "completion": " Registered: %s, %s." % (fields["name"], fields["kind"])})
    return told


def main(base: str, data: str) -> None:
    model = libpeft.Model.open(base)
    rows = {"pirate": pirates(data), "clerk": clerks(pirates(data))}
    sets = {name: model.adapters() for name in rows}  # each trainer changes a set of its own
    for name, adapters in sets.items():
        adapters.add(name, "lora", r=8, lora_alpha=16, target_modules="all-linear")

    def train(name: str) -> float:
        with libpeft.Trainer(sets[name], rows[name], learning_rate=1e-2, batch_size=8, max_steps=60, seed=1) as trainer:
            return trainer.run()[-1].loss

    with ThreadPoolExecutor() as pool:
        for name, loss in zip(rows, pool.map(train, rows)):
            print("%s: trained to a loss of %.3f" % (name, loss))

    both = sets["pirate"]
    both.add("clerk", "lora", r=8, lora_alpha=16, target_modules="all-linear")
    for tensor, values in sets["clerk"]["clerk"].tensors.items():
        both["clerk"].tensors[tensor] = values
    both.combine("mostly", {"pirate": 0.9, "clerk": 0.1})

    with libpeft.Session(both, "") as session:
        for expression in ("", "pirate", "clerk", "0.3 * pirate", "average(pirate:3, clerk:1)", "mostly"):
            session.set_adapters(expression)
            print("%-28s%s" % (expression or "(the base)", session.generate(PROMPT, max_new_tokens=80, temperature=0)))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(*(given + [str(DEMO / "base" / "model.gguf"), str(DEMO / "train.jsonl")][len(given):]))
