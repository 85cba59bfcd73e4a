#!/usr/bin/env python3
"""Weighted combinations against HF PEFT's add_weighted_adapter: every type that draws nothing, on LoRA and IA3; the combined
adapter's file in PEFT; averages against AdapterHub's average_adapter.
"""
import os
import tempfile

import numpy as np
import peft
import torch
from peft import IA3Config, LoraConfig, get_peft_model

import hf
import peftlib
from checks import check, close, each_close, equal, main

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# title, LoRA configs of the sources, weights
SOURCES = [
    ("two", [dict(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"]),
             dict(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"])], [0.6, -0.4]),
    ("other modules", [dict(r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"]),
                       dict(r=4, lora_alpha=16, target_modules=["v_proj", "up_proj"])], [0.7, 0.5]),
    ("three", [dict(r=2, lora_alpha=2, target_modules=ALL), dict(r=2, lora_alpha=4, target_modules=ALL),
               dict(r=2, lora_alpha=8, target_modules=ALL)], [0.5, -0.25, 0.8]),
]
RANKS = ("other ranks", [dict(r=4, lora_alpha=6, target_modules=ALL), dict(r=6, lora_alpha=6, target_modules=ALL)], [0.6, -0.4])
SAME_RANK = ["linear", "ties", "magnitude_prune"]
ANY_RANK = ["cat", "svd", "ties_svd", "magnitude_prune_svd"]


def shake(model, seed):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name or "ia3_" in name:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)


def delta(tensors, path, scale=1.0):
    a, b = (np.asarray(tensors["%s.lora_%s.weight" % (path, x)], np.float64) for x in "AB")
    return scale * b @ a


def their_deltas(model, name):
    out = {}
    for path, module in model.base_model.model.named_modules():
        if name in getattr(module, "lora_A", {}):
            out[path] = module.get_delta_weight(name).detach().double().numpy()
    return out


def our_deltas(adapters, name):
    shapes = adapters.shapes(name)
    tensors = {t: adapters.read(name, t).reshape(shapes[t]) for t in shapes}
    scales = {s["path"]: s["scale"] for s in adapters.info(name)["sites"]}
    return {p: delta(tensors, p, scales[p]) for p in scales}


def lora_types():
    ctx, seed = peftlib.Context(threads=2), 0
    for title, configs, weights in SOURCES + [RANKS]:
        with tempfile.TemporaryDirectory() as top:
            base = hf.make(hf.llama(), 1)
            base.save_pretrained(top + "/base")
            names = ["abc"[i] for i in range(len(configs))]
            theirs = get_peft_model(base, LoraConfig(**configs[0]), adapter_name="a")
            for name, config in list(zip(names, configs))[1:]:
                theirs.add_adapter(name, LoraConfig(**config))
            shake(theirs, 3)
            theirs.save_pretrained(top)
            model = peftlib.Model(ctx, top + "/base")
            adapters = peftlib.Adapters(model)
            for name in names:
                adapters.load(name, os.path.join(top, name))
            expression = ", ".join("%s:%r" % pair for pair in zip(names, weights))
            for kind in ANY_RANK + (SAME_RANK if title != RANKS[0] else []):
                settings = [dict(density=0.4), dict(density=0.7, majority_sign_method="frequency")] if "ties" in kind else [
                    dict(density=0.4)] if "prune" in kind else [dict()]
                settings += [dict(s, svd_rank=5) for s in settings] if "svd" in kind else []
                for s in settings:
                    seed += 1
                    mine, label = "m%d" % seed, "%s, %s %s" % (title, kind, s or "")
                    theirs.add_weighted_adapter(names, weights, mine, combination_type=kind, **s)
                    adapters.combine(mine, expression, type=kind, **s)
                    # Where the rank is cut, PEFT's single precision turns the last kept direction by its rounding over the gap to
                    # the first that is dropped: more on one CPU than on another.
                    allowed = 2e-4 if "svd_rank" in s else 2e-5
                    each_close(label, our_deltas(adapters, mine), their_deltas(theirs, mine), allowed)
                    if "svd_rank" in s or kind == "cat":  # ranks that differ from the sources'
                        in_peft(label, theirs, adapters, mine, top)
                    theirs.delete_adapter(mine)
            fails_on_ranks(title, adapters, expression)


def in_peft(label, theirs, adapters, name, top):
    """The file of our combination in PEFT is what we say."""
    path = os.path.join(top, "ours-" + name)
    adapters.save(name, path)
    theirs.load_adapter(path, "file-" + name)
    each_close(label + ": the file in PEFT", our_deltas(adapters, name), their_deltas(theirs, "file-" + name), 1e-5)
    theirs.delete_adapter("file-" + name)


def fails_on_ranks(title, adapters, expression):
    if title != RANKS[0]:
        return
    for kind in SAME_RANK:
        try:
            adapters.combine("none", expression, type=kind)
            check("%s, %s is refused" % (title, kind), False)
        except peftlib.Error as error:
            equal("%s, %s is refused" % (title, kind), error.status, "PEFT_E_SHAPE")


def logits():
    """The network with a combination is PEFT's: cat, of three adapters."""
    title, configs, weights = SOURCES[2]
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        base = hf.make(hf.llama(), 1)
        base.save_pretrained(top + "/base")
        theirs = get_peft_model(base, LoraConfig(**configs[0]), adapter_name="a")
        for name, config in zip("bc", configs[1:]):
            theirs.add_adapter(name, LoraConfig(**config))
        shake(theirs, 4)
        theirs.save_pretrained(top)
        adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
        for name in "abc":
            adapters.load(name, os.path.join(top, name))
        theirs.add_weighted_adapter(list("abc"), weights, "m", combination_type="cat")
        adapters.combine("m", ",".join("%s:%r" % pair for pair in zip("abc", weights)))
        theirs.set_adapter("m")
        theirs.eval()
        rows, _ = hf.random_rows(1)
        for row in rows:
            close("cat: logits of %d tokens" % len(row), peftlib.Session(adapters.model, adapters, "m").logits(row),
                  hf.logits(theirs, row), 1e-5)


def ia3():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        base = hf.make(hf.llama(), 1)
        base.save_pretrained(top + "/base")
        config = dict(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
        theirs = get_peft_model(base, IA3Config(**config), adapter_name="a")
        theirs.add_adapter("b", IA3Config(**config))
        shake(theirs, 5)
        theirs.save_pretrained(top)
        adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
        adapters.load("a", top + "/a")
        adapters.load("b", top + "/b")
        theirs.add_weighted_adapter(["a", "b"], [0.8, 0.4], "m")
        adapters.combine("m", "a:0.8,b:0.4")
        vectors = {n.removeprefix("base_model.model.").removesuffix(".m"): p.detach().numpy()
                   for n, p in theirs.named_parameters() if n.endswith(".ia3_l.m")}
        each_close("IA3", {n: adapters.read("m", n) for n in adapters.shapes("m")}, vectors, 1e-6)
        theirs.set_adapter("m")
        rows, _ = hf.random_rows(1)
        close("IA3: logits", peftlib.Session(adapters.model, adapters, "m").logits(rows[0]), hf.logits(theirs.eval(), rows[0]), 1e-5)


def average():
    """Bottleneck adapters, as AdapterHub averages them."""
    import adapters as hub
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        model = hf.make(hf.llama(), 1)
        model.save_pretrained(top + "/base")
        hub.init(model)
        for name in "ab":
            model.add_adapter(name, config="seq_bn")
        gen = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "_adapters." in name or ".adapters." in name:
                    p.add_(torch.randn(p.shape, generator=gen) * 0.1)
        for name in "ab":
            model.save_adapter(os.path.join(top, name), name, use_safetensors=True)
        model.average_adapter("m", ["a", "b"], weights=[1.0, 3.0])
        model.save_adapter(top + "/m", "m", use_safetensors=True)
        ours = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
        for name in "abm":
            ours.load(name, os.path.join(top, name))
        ours.combine("n", "a:1,b:3", type="average")
        names = ours.shapes("m")
        each_close("average of bottleneck adapters", {n: ours.read("n", n) for n in names}, {n: ours.read("m", n) for n in names}, 1e-6)


if __name__ == "__main__":
    main(lora_types, logits, ia3, average)
