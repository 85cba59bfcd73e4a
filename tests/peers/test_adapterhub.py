#!/usr/bin/env python3
"""Bottleneck adapters over small random Llama, Mistral and GPT-2 models, against AdapterHub's library: logits, loss, every
gradient, and both directions of the files. Every trained tensor is moved off its initial value.
"""
import os
import sys
import tempfile

import adapters as hub
import torch

import hf
import peftlib
from checks import check, close, each_close, main

BASES = [("Llama", hf.llama()), ("Mistral, window 16", hf.mistral(sliding_window=16)), ("GPT-2", hf.gpt2())]
# title, method here, options here, config there
CASES = [
    ("houlsby", "houlsby", {}, hub.DoubleSeqBnConfig()),
    ("pfeiffer", "pfeiffer", {}, hub.SeqBnConfig()),
    ("parallel", "parallel", {}, hub.ParBnConfig()),
    ("scaled parallel", "parallel", dict(scaling="learned"), hub.ParBnConfig(scaling="learned")),
    ("gelu, factor 4", "pfeiffer", dict(non_linearity="gelu", reduction_factor=4),
     hub.SeqBnConfig(non_linearity="gelu", reduction_factor=4)),
    ("factors by layer", "houlsby", dict(reduction_factors={"1": 2, "default": 8}),
     hub.DoubleSeqBnConfig(reduction_factor={"1": 2, "default": 8})),
    ("norm before", "houlsby", dict(ln_before=True), hub.DoubleSeqBnConfig(ln_before=True)),
    ("norm after", "pfeiffer", dict(ln_after=True), hub.SeqBnConfig(ln_after=True)),
    ("norm after the residual", "pfeiffer", dict(ln_after=True, adapter_residual_before_ln=True),
     hub.SeqBnConfig(ln_after=True, adapter_residual_before_ln=True)),
    ("residual after the sum", "pfeiffer", dict(residual_before_ln=False), hub.SeqBnConfig(residual_before_ln=False)),
    ("leave out", "houlsby", dict(leave_out=[1]), hub.DoubleSeqBnConfig(leave_out=[1])),
    ("scaling 0.5, tanh", "pfeiffer", dict(scaling="0.5", non_linearity="tanh"),
     hub.SeqBnConfig(scaling=0.5, non_linearity="tanh")),
]


def add_theirs(model, config, seed):
    hub.init(model)
    model.add_adapter("a", config=config)
    model.train_adapter("a")
    model.set_active_adapters("a")
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".adapters.a." in name:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    return model.eval()


def file_name(parameter):
    """A parameter's name here: without the adapter's; the norm before the adapter is one module under two names there."""
    return parameter.replace(".adapters.a.", ".").replace("adapter_down.0.", "adapter_norm_before.")


def gradients(model, rows, labels, norm_before):
    model.zero_grad(set_to_none=True)
    value = hf.loss(model, rows, labels)
    value.backward()
    out = {}
    for name, p in model.named_parameters():
        if ".adapters.a." in name and p.grad is not None:
            key = file_name(name) if norm_before else name.replace(".adapters.a.", ".")
            out[key] = p.grad.numpy().copy()
    return value.item(), out


def run_case(ctx, top, title, pair, case, seed):
    _, method, options, config = case
    base, theirs_dir, ours_dir = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "hub", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    theirs = add_theirs(hf.load(base), config, seed + 1)
    norm_before = options.get("ln_before", False)
    if not norm_before:  # their safetensors saving fails on the norm, which has two names
        theirs.save_adapter(theirs_dir, "a", with_head=False, use_safetensors=True)
    rows, labels = hf.random_rows(seed)
    expected = hf.logits(theirs, rows[1])

    ours = peftlib.Model(ctx, base)
    mine = peftlib.Adapters(ours)
    if norm_before:
        mine.add("b", method, options)
        for name, p in theirs.named_parameters():
            if file_name(name) in mine.shapes("b"):
                mine.write("b", file_name(name), p.detach().numpy())
    else:
        mine.load("b", theirs_dir)
    close(title + ": logits of their folder", peftlib.Session(ours, mine, "b").logits(rows[1]), expected, 1e-5)
    trainer = peftlib.Trainer(mine, "b", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(ctx, rows, labels))
    value, grads = gradients(theirs, rows, labels, norm_before)
    close(title + ": loss", loss, value, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, 1e-7)

    mine.add("fresh", method, options, seed=3)
    check(title + ": shapes of a fresh adapter", mine.shapes("fresh") == mine.shapes("b"))
    mine.save("b", ours_dir)
    again = hf.load(base)
    hub.init(again)
    name = again.load_adapter(ours_dir, use_safetensors=True)
    again.set_active_adapters(name)
    close(title + ": our folder there", hf.logits(again.eval(), rows[1]), expected, 1e-6)
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


def pickles_are_refused():
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 4).save_pretrained(top + "/base")
        theirs = add_theirs(hf.load(top + "/base"), hub.SeqBnConfig(), 5)
        theirs.save_adapter(top + "/hub", "a", with_head=False, use_safetensors=False)
        mine = peftlib.Adapters(peftlib.Model(peftlib.Context(), top + "/base"))
        try:
            mine.load("a", top + "/hub")
            check("a pickle is refused", False)
        except peftlib.Error as error:
            check("a pickle is refused, with how to convert it", "use_safetensors=True" in str(error), str(error)[:120])


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(matrix, pickles_are_refused)
