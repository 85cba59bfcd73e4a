#!/usr/bin/env python3
"""Writes the demo's task, examples/demo/train.jsonl and heldout.jsonl: a record of facts and the advertisement of a pirate.

Usage: tools/gen_demo.py [--out FOLDER] [--train N] [--heldout N] [--seed N]

The style is a rule, not a matter of taste: the price chooses the call, the verb, the coin and the farewell, everything else
is copied. Names are pairs that the base's corpus never has (gen_words.py), and
no name of heldout.jsonl is in train.jsonl. Needs the standard library only; the same seed gives the same bytes.
"""
import argparse
import json
import os
import random

import gen_words as words

CALL = {"low": "Ahoy! Steer for the {name}, me hearties, the {kind} by the {area}, and try the {dish} for a few coppers",
        "medium": "Avast! Drop anchor at the {name}, the {kind} by the {area}, and try the {dish} for honest silver",
        "high": "Arrr! Bring yer gold to the {name}, the {kind} by the {area}, and try the {dish}, fit for a captain"}
HOURS = ", from {opens} bells to {closes}. Cabin boys aboard: {children}"
FAREWELL = {"low": ", yo-ho!", "medium": ", aye!", "high": ", or walk the plank!"}


def advert(r):
    text = CALL[r["price"]] + HOURS + FAREWELL[r["price"]]
    return text.format(**r)


def rows(rng, count, held_out, seen):
    while count > 0:
        name = words.place_name(rng, True)
        if words.held_out(name) != held_out or name in seen:
            continue
        seen.add(name)
        record = words.place_record(rng, name)
        yield {"prompt": words.line(record) + "\nSentence:", "completion": " " + advert(record)}
        count -= 1


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--out", default=os.path.join(here, "..", "examples", "demo"), help="folder to write to")
    p.add_argument("--train", type=int, default=480)
    p.add_argument("--heldout", type=int, default=100)
    p.add_argument("--seed", type=int, default=7)
    a = p.parse_args()
    rng, seen = random.Random(a.seed), set()
    for name, count, held_out in (("train", a.train, False), ("heldout", a.heldout, True)):
        with open(os.path.join(a.out, name + ".jsonl"), "w", encoding="utf-8") as f:
            for row in rows(rng, count, held_out, seen):
                f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
