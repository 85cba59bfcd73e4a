#!/usr/bin/env python3
"""stories260K in its five GGUF types against reference.jsonl, which llama2.c's own float32 forward pass wrote, through the
public functions; with the LoRA of its lora-r4-test.gguf; and against transformers where the file is written as a folder.
"""
import json
import os
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

import hf
import peftlib
from checks import DATA, check, close, equal, main
from smollm2 import unpermute

FOLDER = os.path.join(DATA, "models", "stories260k")
TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_1")
NLL = 2e-5  # nats, for figures with 6 digits


def reference():
    with open(os.path.join(FOLDER, "reference.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def opened(kind):
    return peftlib.Model(peftlib.Context(threads=2), os.path.join(FOLDER, "stories260k-%s.gguf" % kind))


def nll(logits, ids):
    x = logits.astype(np.float64)
    top = x.max(-1, keepdims=True)
    all_ = np.log(np.exp(x - top).sum(-1)) + top[:, 0]
    return (all_[:-1] - x[np.arange(len(ids) - 1), ids[1:]])


def types():
    for kind in TYPES:
        model = opened(kind)
        for case in reference():
            name, ids = "%s, text %d" % (kind, case["id"]), case["ids"]
            logits = peftlib.Session(model).logits(ids)
            if kind == "f32":
                close(name + ": last logits", logits[-1], case["last_logits"], 1e-5)
                if len(ids) > 1:
                    close(name + ": nll of every token", nll(logits, ids), case["nll"], 0, 1e-4)
                equal(name + ": greedy ids", greedy(model, ids, len(case["greedy"])), case["greedy"])
            if len(ids) > 1:
                close(name + ": mean nll", nll(logits, ids).mean(), case["mean_nll"][kind], 0, NLL)
                data = peftlib.Dataset(model.ctx).add_rows([ids])
                result = peftlib.Session(model).evaluate(data)
                close(name + ": the evaluation's loss", result["loss"], case["mean_nll"][kind], 0, NLL)


def greedy(model, ids, count):
    return peftlib.Session(model).generate(ids, count, ignore_eos=True)


def adapter():
    """The GGUF adapter as a PEFT folder: q's rows return to the order of halves, as everywhere in Hugging Face's names."""
    reader = gguf.GGUFReader(os.path.join(FOLDER, "lora-r4-test.gguf"))
    tensors, names = {}, {"attn_q": "q_proj", "attn_v": "v_proj"}
    for t in reader.tensors:
        _, layer, what, _, part = t.name.split(".")
        w = np.array(t.data, np.float32)
        if what == "attn_q" and part == "lora_b":
            w = unpermute(w, 8)
        key = "base_model.model.model.layers.%s.self_attn.%s.lora_%s.weight" % (layer, names[what], part[-1].upper())
        tensors[key] = torch.from_numpy(np.ascontiguousarray(w))
    with tempfile.TemporaryDirectory() as top:
        save_file(tensors, top + "/adapter_model.safetensors", {"format": "pt"})
        with open(top + "/adapter_config.json", "w") as f:
            json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none",
                       "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "stories260k"}, f)
        adapters = peftlib.Adapters(opened("f32"))
        adapters.load("a", top)
        for case in reference():
            logits = peftlib.Session(adapters.model, adapters, "a").logits(case["ids"])
            close("LoRA, text %d: last logits" % case["id"], logits[-1], case["lora_last_logits"], 1e-5)


def in_transformers():
    """Each type, written as a float32 folder by libpeft: transformers computes the same."""
    ids = reference()[-1]["ids"]
    with tempfile.TemporaryDirectory() as top:
        for kind in TYPES:
            model = opened(kind)
            adapters = peftlib.Adapters(model)
            adapters.add("a", "lora", dict(r=2, target_modules="all-linear"))  # B is zero: nothing changes
            adapters.merge("a", top + "/" + kind, dtype="float32")
            close(kind + ": written as a folder, in transformers", hf.logits(hf.load(top + "/" + kind), ids),
                  peftlib.Session(model).logits(ids), 1e-5)
    check("reference.jsonl has five texts", len(reference()) == 5)


if __name__ == "__main__":
    main(types, adapter, in_transformers)
