"""The job of scenario.txt by the Python package: scenario.py SCENARIO OUT, as scenario.c does it."""
import json
import struct
import sys
from pathlib import Path
from typing import Any, Dict

import libpeft


def read(path: Path) -> Dict[str, str]:
    lines = (line.split(" ", 1) for line in path.read_text().splitlines() if not line.startswith("#"))
    return {key: value for key, value in lines}


def options(words: str) -> Dict[str, Any]:
    """KEY=VALUE words as a Python program would give them: numbers and truths as such, "a,b" as a list."""
    def value(text: str) -> Any:
        if "," in text:
            return text.split(",")
        try:
            return json.loads(text)
        except ValueError:
            return text
    return {key: value(text) for key, text in (word.split("=", 1) for word in words.split())}


def main() -> None:
    scenario, out = read(Path(sys.argv[1])), Path(sys.argv[2])
    model = libpeft.Model.open(scenario["model"])
    adapters = model.adapters()
    adapters.add("default", scenario["method"], seed=int(scenario["seed"]), **options(scenario["adapter.options"]))
    data = libpeft.Dataset(scenario["data"], tokenizer=model.tokenizer, **options(scenario["dataset.options"]))
    trainer = libpeft.Trainer(adapters["default"], data, **options(scenario["trainer.options"]),
                              **options(scenario["optimizer.options"]))
    with open(out / "losses.txt", "w") as losses:
        for step in trainer:
            losses.write(struct.pack(">d", step.loss).hex() + "\n")
    adapters["default"].save(out)
    again = model.adapters()
    session = libpeft.Session(again.load("again", out))
    (out / "text.txt").write_text("".join(session.stream(scenario["prompt"], **options(scenario["generate.options"]))))


main()
