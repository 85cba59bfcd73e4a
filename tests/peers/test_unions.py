#!/usr/bin/env python3
"""AdapterHub's prefix-tuning, LoRA and unions (mam, unipelt) over small random Llama, Mistral and GPT-2 models, against its
library with eager attention: logits, loss, every gradient, generation through its cache, and both directions of the files.
Every trained tensor is moved off its initial value.
"""
import os
import sys
import tempfile

import adapters as hub
import safetensors.torch
import torch

import hf
import peftlib
from checks import check, close, each_close, main

BASES = [("Llama", hf.llama()), ("Mistral, window 6", hf.mistral(sliding_window=6)), ("GPT-2", hf.gpt2())]
PREFIX = dict(prefix_length=7, bottleneck_size=12)
# title, method here, options here, config there
CASES = [
    ("mam", "mam", {}, hub.MAMConfig()),
    ("mam with other sizes", "mam", dict(prefix_length=5, bottleneck_size=24, reduction_factor=8, scaling="0.5", non_linearity="gelu"),
     hub.MAMConfig(hub.PrefixTuningConfig(prefix_length=5, bottleneck_size=24),
                   hub.ParBnConfig(reduction_factor=8, scaling=0.5, non_linearity="gelu"))),
    ("mam, flat, leave out", "mam", dict(flat=True, leave_out=[1]),
     hub.MAMConfig(hub.PrefixTuningConfig(bottleneck_size=800, flat=True, leave_out=[1]), hub.ParBnConfig(leave_out=[1]))),
    ("unipelt", "unipelt", {}, hub.UniPELTConfig()),
    ("unipelt with other sizes", "unipelt",
     dict(prefix_length=4, bottleneck_size=16, shared_gating=False, reduction_factor=4, r=3, alpha=6, attn_matrices=["q", "k"]),
     hub.UniPELTConfig(hub.PrefixTuningConfig(prefix_length=4, bottleneck_size=16, shared_gating=False),
                       hub.SeqBnConfig(reduction_factor=4), hub.LoRAConfig(r=3, alpha=6, attn_matrices=["q", "k"]))),
    ("prefix_tuning", "prefix_tuning", PREFIX, hub.PrefixTuningConfig(**PREFIX)),
    ("prefix_tuning, relu", "prefix_tuning", dict(PREFIX, non_linearity="relu"), hub.PrefixTuningConfig(non_linearity="relu", **PREFIX)),
    ("prefix_tuning_flat", "prefix_tuning", dict(prefix_length=6, flat=True), hub.PrefixTuningConfig(flat=True, prefix_length=6)),
    ("prefix without a layer", "prefix_tuning", dict(PREFIX, leave_out=[0]), hub.PrefixTuningConfig(leave_out=[0], **PREFIX)),
    ("prefix with a gate", "prefix_tuning", dict(PREFIX, use_gating=True), hub.PrefixTuningConfig(use_gating=True, **PREFIX)),
    ("prefix with two gates", "prefix_tuning", dict(PREFIX, use_gating=True, shared_gating=False, leave_out=[2]),
     hub.PrefixTuningConfig(use_gating=True, shared_gating=False, leave_out=[2], **PREFIX)),
    ("lora", "lora_hub", {}, hub.LoRAConfig()),
    ("lora of k and v, alpha 4", "lora_hub", dict(r=3, alpha=4, attn_matrices=["k", "v"], leave_out=[1]),
     hub.LoRAConfig(r=3, alpha=4, attn_matrices=["k", "v"], leave_out=[1])),
    ("lora of the FFN", "lora_hub", dict(r=2, selfattn_lora=False, intermediate_lora=True),
     hub.LoRAConfig(r=2, selfattn_lora=False, intermediate_lora=True)),
    ("lora everywhere", "lora_hub", dict(r=2, alpha=3, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True),
     hub.LoRAConfig(r=2, alpha=3, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True)),
    ("lora with a gate", "lora_hub", dict(r=4, alpha=9, use_gating=True, output_lora=True),
     hub.LoRAConfig(r=4, alpha=9, use_gating=True, output_lora=True)),
]
HOLDERS = (".adapters.a.", ".loras.a.", ".prefix_gates.a.", ".prefix_tunings.a.")


def own(parameter):
    return any(h in parameter for h in HOLDERS) and ".prefix_tuning.pool." not in parameter


def trained(model):
    """{name: parameter}; the prefix's own, which stand under every layer, by their first name."""
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if own(name)}


def add_theirs(model, config, seed):
    hub.init(model)
    model.add_adapter("a", config=config)
    model.train_adapter("a")
    model.set_active_adapters("a")
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in trained(model).items():
            p.add_(torch.randn(p.shape, generator=gen) * (0.5 if "gate" in name else 0.1))
    return model.eval()


def name_here(parameter, lora):
    """A parameter's name in this library."""
    for h in HOLDERS:
        parameter = parameter.replace(h, "." if h == ".adapters.a." else h[:-2])
    if lora:
        parameter = parameter.replace(".loras.lora_A", ".lora_A.weight").replace(".loras.lora_B", ".lora_B.weight")
    return parameter


def gradients(model, rows, labels, lora):
    """Of one row after the other, unpadded: gates there are means over padding too."""
    model.zero_grad(set_to_none=True)
    count = sum(x != -100 for l in labels for x in l[1:])
    value = 0.0
    for row, label in zip(rows, labels):
        n = sum(x != -100 for x in label[1:])
        if n == 0:
            continue
        loss = hf.loss(model, [row], [label]) * n / count
        loss.backward()
        value += loss.item()
    return value, {name_here(n, lora): p.grad.numpy().copy() for n, p in trained(model).items() if p.grad is not None}


def save_theirs(model, folder):
    """Their safetensors saving fails on a prefix, whose tensors stand under every layer."""
    model.save_adapter(folder, "a", with_head=False, use_safetensors=False)
    state = torch.load(folder + "/pytorch_adapter.bin")
    safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, folder + "/adapter.safetensors")
    os.remove(folder + "/pytorch_adapter.bin")


def mend_cache(model):
    """Their layers of Llama and Mistral name the cache as transformers before 4.56 did, and would go on without it."""
    for layer in getattr(model.model if hasattr(model, "model") else None, "layers", []):
        forward = layer.forward
        layer.forward = lambda *a, past_key_values=None, forward=forward, **k: forward(*a, past_key_value=past_key_values, **k)


def greedy(model, ids, count):
    """With their cache: gates are means over what one pass has."""
    mend_cache(model)
    ids, past, out = torch.tensor([ids]), None, []
    with torch.no_grad():
        for _ in range(count):
            got = model(input_ids=ids, past_key_values=past, use_cache=True)
            past = got.past_key_values
            ids = got.logits[:, -1:].argmax(-1)
            out.append(ids.item())
    return out


def run_case(ctx, top, title, pair, case, seed):
    _, method, options, config = case
    base, theirs_dir, ours_dir = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "hub", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    theirs = add_theirs(hf.load(base), config, seed + 1)
    save_theirs(theirs, theirs_dir)
    rows, labels = hf.random_rows(seed)
    expected = [hf.logits(theirs, r) for r in rows]

    ours = peftlib.Model(ctx, base)
    mine = peftlib.Adapters(ours)
    mine.load("b", theirs_dir)
    kind = mine.info("b")["method"]
    lora = kind == "lora"
    fused = "GPT-2" in title and options.get("selfattn_lora", True)
    check(title + ": method", kind == ("lora" if method == "lora_hub" and not options.get("use_gating") and not fused else method), kind)
    session = peftlib.Session(ours, mine, "b")
    close(title + ": logits of their folder", session.logits(rows[1]), expected[1], 1e-5)
    if not lora:
        close(title + ": logits of several rows", session.logits(*rows), torch.cat([torch.tensor(e) for e in expected]).numpy(), 1e-5)
    trainer = peftlib.Trainer(mine, "b", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(ctx, rows, labels))
    value, grads = gradients(theirs, rows, labels, lora)
    close(title + ": loss", loss, value, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, 1e-7)
    check(title + ": names", set(mine.shapes("b")) == set(grads), str(set(mine.shapes("b")) ^ set(grads))[:200])
    there = greedy(theirs, rows[0], 12)
    check(title + ": generated", session.generate(rows[0], 12, ignore_eos=True) == there, str(there))

    mine.add("fresh", kind if lora else method, {"target_modules": "all-linear"} if lora else options, seed=3)
    if not lora:
        check(title + ": shapes of a fresh adapter", mine.shapes("fresh") == mine.shapes("b"))
    mine.save("b", ours_dir, format="adapterhub")
    again = hf.load(base)
    hub.init(again)
    name = again.load_adapter(ours_dir, use_safetensors=True)
    again.set_active_adapters(name)
    close(title + ": our folder there", hf.logits(again.eval(), rows[1]), expected[1], 1e-6)
    check(title + ": its name there", name == "b", name)


def matrix():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for b, (base, pair) in enumerate(BASES):
            for i, case in enumerate(CASES):
                title = "%s, %s" % (base, case[0])
                try:
                    run_case(ctx, top, title, pair, case, 1000 * b + 10 * i + 1)
                except Exception as error:
                    check(title + ": ended early", False, str(error)[:300])


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(matrix)
