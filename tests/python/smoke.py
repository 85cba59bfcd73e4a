#!/usr/bin/env python3
"""smoke.py ROOT FOLDER - what an installation must be able to do, on the demo's base: open, train, save, load, generate.

Needs the package and nothing else. The checks are assertions; the last line begins with "smoke: ".
"""
import os
import sys

import libpeft

root, folder = sys.argv[1:3]
demo = os.path.join(root, "examples", "demo")
prompt = "name: Noble Heron | kind: bakery | area: church | dish: rice stew\nSentence:"

model = libpeft.Model.open(os.path.join(demo, "base", "model.gguf"))
assert model.arch == "llama" and model.info()["parameters"] == 1967808, model.info()
adapter = model.adapters().add("a", "lora", r=8, lora_alpha=16, target_modules="all-linear", seed=1)
rows = libpeft.Dataset(os.path.join(demo, "train.jsonl"), tokenizer=model.tokenizer)
assert len(rows) == 480, len(rows)
with libpeft.Trainer(adapter, rows, learning_rate=1e-2, batch_size=4, max_steps=12, seed=1) as trainer:
    losses = [step.loss for step in trainer]
assert len(losses) == 12 and losses[-1] < 0.6 * losses[0], losses

adapter.save(folder)
assert sorted(os.listdir(folder)) == ["adapter_config.json", "adapter_model.safetensors"], os.listdir(folder)
again = model.adapters().load("b", folder)
assert {n: t.tobytes() for n, t in again.tensors.items()} == {n: t.tobytes() for n, t in adapter.tensors.items()}
text = libpeft.Session(again).generate(prompt, max_new_tokens=20, temperature=0)
assert text == "".join(libpeft.Session(adapter).stream(prompt, max_new_tokens=20, temperature=0)), text
assert text != model.session().generate(prompt, max_new_tokens=20, temperature=0), text

try:
    libpeft.Trainer(adapter, rows, learning_rat=1e-3)
    raise AssertionError("a misspelt option went through")
except libpeft.OptionError as error:
    assert "learning_rate" in str(error), error
loaded = [name for name in ("numpy", "torch", "transformers", "peft", "datasets", "tqdm") if name in sys.modules]
assert not loaded, loaded
print("smoke: losses %.2f to %.2f, %r" % (losses[0], losses[-1], text))
