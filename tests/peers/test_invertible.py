#!/usr/bin/env python3
"""Invertible adapters over small random Llama, Mistral and GPT-2 models, against AdapterHub's library: logits, loss, every
gradient, and both directions of the files; in its classes with a fixed head, which do not undo the bijection before the head,
and in those with flexible heads, which do. Its glow cannot run as it is: here it runs with the cuts along the columns, and with
its forward pass as what its inverse undoes.
"""
import json
import os
import sys
import tempfile

import adapters as hub
import torch
from adapters.methods.modeling import GLOWCouplingBlock

import hf
import peftlib
from checks import check, close, each_close, equal, main

BASES = [("Llama", hf.llama(), hub.LlamaAdapterModel), ("Mistral, window 16", hf.mistral(sliding_window=16), hub.MistralAdapterModel),
         ("GPT-2", hf.gpt2(), hub.GPT2AdapterModel), ("Llama of odd width", hf.llama(hidden_size=63, head_dim=8), hub.LlamaAdapterModel)]
# title, method here, options here, config there
CASES = [
    ("pfeiffer_inv", "pfeiffer_inv", {}, hub.SeqBnInvConfig()),
    ("houlsby_inv", "houlsby_inv", {}, hub.DoubleSeqBnInvConfig()),
    ("parallel, nice, factor 3.5, gelu", "parallel", dict(inv_adapter="nice", inv_adapter_reduction_factor=3.5, non_linearity="gelu"),
     hub.ParBnConfig(inv_adapter="nice", inv_adapter_reduction_factor=3.5, non_linearity="gelu")),
    ("no other part", "pfeiffer_inv", dict(leave_out=[0, 1, 2], non_linearity="tanh"),
     hub.SeqBnInvConfig(leave_out=[0, 1, 2], non_linearity="tanh")),
    ("glow", "pfeiffer", dict(inv_adapter="glow", inv_adapter_reduction_factor=2),
     hub.SeqBnConfig(inv_adapter="glow", inv_adapter_reduction_factor=2)),
    ("glow, factor 1, swish", "houlsby", dict(inv_adapter="glow", inv_adapter_reduction_factor=1),
     hub.DoubleSeqBnConfig(inv_adapter="glow", inv_adapter_reduction_factor=1)),
]


def glow(block, x, rev=False):
    """The library's block with its own networks and e()."""
    n1, n2 = block.split_len1, block.split_len2
    x1, x2 = x[..., :n1], x[..., n1:]
    if rev:
        r1 = block.s1(x1)
        y2 = (x2 - r1[..., n2:]) / block.e(r1[..., :n2])
        r2 = block.s2(y2)
        y1 = (x1 - r2[..., n1:]) / block.e(r2[..., :n1])
    else:
        r2 = block.s2(x2)
        y1 = block.e(r2[..., :n1]) * x1 + r2[..., n1:]
        r1 = block.s1(y1)
        y2 = block.e(r1[..., :n2]) * x2 + r1[..., n2:]
    return torch.cat((y1, y2), -1)


GLOW = GLOWCouplingBlock.forward


def is_adapters(name):
    return ".adapters.a." in name or ".invertible_adapters.a." in name


def file_name(parameter):
    return parameter.replace(".adapters.a.", ".").replace(".invertible_adapters.a.", ".invertible_adapters.")


def open_base(path, flexible):
    if flexible is None:
        model = hf.load(path)
        hub.init(model)
        return model
    return flexible.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval() # its head "default" is the file's


def add_theirs(model, config, seed):
    model.add_adapter("a", config=config)
    model.train_adapter("a")
    model.set_active_adapters("a")
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if is_adapters(name):
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    return model.eval()


def gradients(model, rows, labels):
    model.zero_grad(set_to_none=True)
    value = hf.loss(model, rows, labels)
    value.backward()
    return value.item(), {file_name(n): p.grad.numpy().copy() for n, p in model.named_parameters()
                          if is_adapters(n) and p.grad is not None}


def run_case(ctx, top, title, pair, flexible, case, seed):
    _, method, options, config = case
    base, theirs_dir, ours_dir = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "hub", "ours"))
    if not os.path.exists(base):
        hf.make(pair, seed).save_pretrained(base)
    theirs = add_theirs(open_base(base, flexible), config, seed + 1)
    theirs.save_adapter(theirs_dir, "a", with_head=False, use_safetensors=True)
    rows, labels = hf.random_rows(seed)
    expected = hf.logits(theirs, rows[1])

    ours = peftlib.Model(ctx, base)
    mine = peftlib.Adapters(ours)
    mine.load("b", theirs_dir)
    equal(title + ": inv_head", mine.info("b")["options"]["inv_head"], flexible is not None)
    close(title + ": logits of their folder", peftlib.Session(ours, mine, "b").logits(rows[1]), expected, 1e-5)
    trainer = peftlib.Trainer(mine, "b", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(ctx, rows, labels))
    value, grads = gradients(theirs, rows, labels)
    close(title + ": loss", loss, value, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in mine.shapes("b")}, grads, 1e-4, 1e-7)

    mine.add("fresh", method, dict(options, inv_head=flexible is not None), seed=3)
    check(title + ": shapes of a fresh adapter", mine.shapes("fresh") == mine.shapes("b"))
    mine.save("b", ours_dir)
    for key in ("model_class", "config"):
        equal(title + ": %s as theirs" % key, *(json.load(open(d + "/adapter_config.json"))[key] for d in (ours_dir, theirs_dir)))
    again = open_base(base, flexible)
    name = again.load_adapter(ours_dir, use_safetensors=True)
    again.set_active_adapters(name)
    close(title + ": our folder there", hf.logits(again.eval(), rows[1]), expected, 1e-6)


def matrix():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for b, (base, pair, flexible) in enumerate(BASES):
            for i, case in enumerate(CASES):
                GLOWCouplingBlock.forward = glow if "glow" in case[0] else GLOW
                for k, cls in enumerate((None, flexible)):
                    title = "%s, %s, %s" % (base, case[0], "flexible head" if k else "fixed head")
                    try:
                        run_case(ctx, top, title, pair, cls, case, 1000 * b + 10 * i + 5 * k + 1)
                    except Exception as error:
                        check(title + ": ended early", False, str(error)[:300])
        GLOWCouplingBlock.forward = GLOW


def what_the_peer_does():
    """If one of these fails, the peer has changed, and docs/methods/invertible.md with it."""
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 4).save_pretrained(top + "/base")
        theirs = add_theirs(open_base(top + "/base", None), hub.SeqBnConfig(inv_adapter="glow", inv_adapter_reduction_factor=2), 5)
        try:
            hf.logits(theirs, [1, 2, 3])
            check("their glow does not run", False)
        except (RuntimeError, AttributeError, TypeError) as error:
            check("their glow does not run", True, str(error)[:80])


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(matrix, what_the_peer_does)
