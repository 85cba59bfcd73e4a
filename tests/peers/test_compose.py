#!/usr/bin/env python3
"""Blocks of adapters and AdapterFusion, against AdapterHub's library: logits of every block, the fusion's gradients with its
regularisation, five optimiser steps, and both directions of a fusion's files. Unions of methods: each part's folder in the
library that it belongs to.
"""
import os
import tempfile

import adapters as hub
import adapters.composition as ac
import numpy as np
import torch
from peft import PeftModel

import hf
import peftlib
from checks import check, close, each_close, main

BASES = [("Llama", hf.llama()), ("GPT-2", hf.gpt2())]
ROW = 12


def set_up(ctx, top, pair, seed, configs):
    """A base on disk, the peer with adapters of the configs, and the same here, read from the peer's folders."""
    base = os.path.join(top, "base")
    hf.make(pair, seed).save_pretrained(base)
    theirs = hf.load(base)
    hub.init(theirs)
    gen = torch.Generator().manual_seed(seed)
    for name, config in configs.items():
        theirs.add_adapter(name, config=config)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if ".adapters." in name or ".loras." in name:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    ours = peftlib.Model(ctx, base)
    mine = peftlib.Adapters(ours)
    for name in configs:
        theirs.save_adapter(os.path.join(top, name), name, with_head=False, use_safetensors=True)
        mine.load(name, os.path.join(top, name))
    return theirs.eval(), ours, mine, base


def batch(seed, rows, tokens=ROW):
    return np.random.RandomState(seed).randint(0, hf.VOCAB, (rows, tokens)).tolist()


def their_logits(model, rows):
    with torch.no_grad():
        return model(input_ids=torch.tensor(rows), use_cache=False).logits.float().numpy()


def our_logits(ctx, ours, mine, expression, rows, branches=1):
    session = peftlib.Session(ours, mine, expression)
    out = session.batch_logits(peftlib.Batch(ctx, rows))
    return out.reshape(branches * len(rows), len(rows[0]), -1)


def blocks():
    ctx = peftlib.Context(threads=2)
    configs = dict(a=hub.SeqBnConfig(reduction_factor=4), b=hub.SeqBnConfig(reduction_factor=8, non_linearity="gelu"),
                   c=hub.DoubleSeqBnConfig(reduction_factor=8), d=hub.ParBnConfig(reduction_factor=8),
                   e=hub.SeqBnConfig(reduction_factor=16))
    rows = batch(3, 3)  # the peer's blocks that divide need adapters of one placement
    # title, expression, the peer's block, branches
    cases = [
        ("stack", "stack(a, c)", lambda: ac.Stack("a", "c"), 1),
        ("stack of three", "a, b, e", lambda: ac.Stack("a", "b", "e"), 1),
        ("parallel", "parallel(a, b)", lambda: ac.Parallel("a", "b"), 2),
        ("split", "split(a:5, b:7)", lambda: ac.Split("a", "b", splits=[5, 7]), 1),
        ("batch split", "batch_split(a:1, b:2)", lambda: ac.BatchSplit("a", "b", batch_sizes=[1, 2]), 1),
        ("stack over a batch split", "stack(e, batch_split(a:2, b:1))",
         lambda: ac.Stack("e", ac.BatchSplit("a", "b", batch_sizes=[2, 1])), 1),
    ]
    for base, pair in BASES:
        with tempfile.TemporaryDirectory() as top:
            theirs, ours, mine, _ = set_up(ctx, top, pair, 11, configs)
            for title, expression, block, branches in cases:
                theirs.set_active_adapters(block())
                expected = their_logits(theirs, rows)
                close("%s, %s: logits" % (base, title), our_logits(ctx, ours, mine, expression, rows, branches), expected, 1e-5)


def nested():
    """The peer adds the residual once more for each block that a sequential adapter stands in below another block, and a parallel
    adapter in its stacks forgets what came before. Here a branch is what it is alone: runs of the peer's single setups."""
    ctx = peftlib.Context(threads=2)
    configs = dict(a=hub.SeqBnConfig(reduction_factor=4), e=hub.SeqBnConfig(reduction_factor=16), d=hub.ParBnConfig(reduction_factor=8))
    rows = batch(7, 2)
    for base, pair in BASES:
        with tempfile.TemporaryDirectory() as top:
            theirs, ours, mine, _ = set_up(ctx, top, pair, 51, configs)
            single = []
            for setup in (ac.Stack("a", "e"), "d"):
                theirs.set_active_adapters(setup)
                single.append(their_logits(theirs, rows))
            close("%s, parallel of a stack: logits" % base, our_logits(ctx, ours, mine, "parallel(stack(a, e), d)", rows, 2),
                  np.concatenate(single), 1e-5)
            close("%s, batch split of a stack: logits" % base, our_logits(ctx, ours, mine, "batch_split(stack(a, e):1, d:1)", rows),
                  np.concatenate([single[0][:1], single[1][1:]]), 1e-5)


def average():
    """The peer takes the mean over adapters of weight times output, with weights of sum 1 that is 1/n of the weighted mean (an
    oversight of it): the weights given here undo it."""
    ctx = peftlib.Context(threads=2)
    configs = dict(a=hub.SeqBnConfig(reduction_factor=4), b=hub.SeqBnConfig(reduction_factor=8))
    rows = batch(4, 2)
    for base, pair in BASES:
        with tempfile.TemporaryDirectory() as top:
            theirs, ours, mine, _ = set_up(ctx, top, pair, 21, configs)
            theirs.set_active_adapters(ac.Average("a", "b", weights=[0.6, 1.4], normalize_weights=False))
            close("%s, average: logits" % base, our_logits(ctx, ours, mine, "average(a:0.3, b:0.7)", rows),
                  their_logits(theirs, rows), 1e-5)


FUSIONS = [("dynamic", {}, "dynamic"),
           ("static", dict(value=False, regularization=False, value_initialized=False), "static"),
           ("residual before", dict(residual_before=True),
            hub.DynamicAdapterFusionConfig(residual_before=True) if hasattr(hub, "DynamicAdapterFusionConfig") else None),
           ("values after", dict(value_before_softmax=False), None), ("query before", dict(query_before_ln=True), None)]


def their_fusion(config, options):
    from adapters.configuration import AdapterFusionConfig
    out = AdapterFusionConfig.load(config or "dynamic").to_dict()
    out.update({k: v for k, v in options.items()})
    return AdapterFusionConfig.load(out)


def fusion_gradients(model, rows):
    model.zero_grad(set_to_none=True)
    ids = torch.tensor(rows)
    value = model(input_ids=ids, labels=ids, use_cache=False).loss
    value.backward()
    return value.item(), {n.replace(".a,b.", "."): p.grad.numpy().copy() for n, p in model.named_parameters()
                          if "adapter_fusion_layer" in n and p.grad is not None}


def fusion():
    ctx = peftlib.Context(threads=2)
    configs = dict(a=hub.SeqBnConfig(reduction_factor=4), b=hub.SeqBnConfig(reduction_factor=8))
    rows = batch(5, 3)
    for base, pair in BASES:
        for i, (title, options, preset) in enumerate(FUSIONS):
            title = "%s, fusion %s" % (base, title)
            with tempfile.TemporaryDirectory() as top:
                theirs, ours, mine, folder = set_up(ctx, top, pair, 31 + i, configs)
                config = their_fusion(preset if isinstance(preset, str) else None, options)
                theirs.add_adapter_fusion(["a", "b"], config)
                theirs.train_adapter_fusion(ac.Fuse("a", "b"))
                gen = torch.Generator().manual_seed(i)
                with torch.no_grad():
                    for name, p in theirs.named_parameters():
                        if "adapter_fusion_layer" in name:
                            p.add_(torch.randn(p.shape, generator=gen) * 0.1)
                theirs.eval()
                theirs.save_adapter_fusion(top + "/fused", "a,b", use_safetensors=True)
                mine.load("f", top + "/fused")
                expected = their_logits(theirs, rows)
                close(title + ": logits of their folder", our_logits(ctx, ours, mine, "f", rows), expected, 1e-5)
                close(title + ": the same by its adapters", our_logits(ctx, ours, mine, "fuse(a, b)", rows), expected, 1e-5)

                value, grads = fusion_gradients(theirs, rows)
                trainer = peftlib.Trainer(mine, "fuse(a, b)", batch_size=3, max_length=ROW, max_steps=9,
                                          optimizer=dict(learning_rate=1e-3, weight_decay=0.0, max_grad_norm=0.0,
                                                         lr_scheduler_type="constant"))
                loss = trainer.accumulate(peftlib.Batch(ctx, rows, rows))
                close(title + ": loss", loss, value, 1e-5)
                each_close(title + ": gradients", {n: trainer.gradient_of("f", n) for n in grads}, grads, 1e-4, 2e-7)
                five_steps(ctx, title, theirs, trainer, rows, loss)

                mine.save("f", top + "/ours")
                again = hf.load(folder)
                hub.init(again)
                for name in configs:
                    again.load_adapter(top + "/" + name, use_safetensors=True)
                again.load_adapter_fusion(top + "/ours", use_safetensors=True)
                again.set_active_adapters(ac.Fuse("a", "b"))
                close(title + ": our folder there", their_logits(again.eval(), rows),
                      our_logits(ctx, ours, mine, "f", rows), 1e-5)


def five_steps(ctx, title, theirs, trainer, rows, first):
    """AdamW on the loss and the regularisation; the losses of the labels along the way."""
    ids = torch.tensor(rows)
    params = [p for n, p in theirs.named_parameters() if "adapter_fusion_layer" in n]
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.0)
    regular = [p for n, p in theirs.named_parameters() if "adapter_fusion_layer" in n and n.endswith("value.weight")]
    uses = bool(regular) and theirs.adapters_config.get_fusion("a,b")[0]["regularization"]
    expected, ours = [], [first]
    for _ in range(5):
        optimizer.zero_grad()
        value = theirs(input_ids=ids, labels=ids, use_cache=False).loss
        expected.append(value.item())
        (value + theirs.get_fusion_regularization_loss() if uses else value).backward()
        optimizer.step()
    for _ in range(4):
        trainer.apply()
        ours.append(trainer.accumulate(peftlib.Batch(ctx, rows, rows)))
    close(title + ": losses of five steps", ours, expected, 1e-4)


def unions():
    """Three methods trained as one; each part's folder is the peer's."""
    ctx = peftlib.Context(threads=2)
    rows = batch(6, 2)
    for base, pair in BASES:
        with tempfile.TemporaryDirectory() as top:
            hf.make(pair, 41).save_pretrained(top + "/base")
            ours = peftlib.Model(ctx, top + "/base")
            mine = peftlib.Adapters(ours)
            mine.add("l", "lora", dict(r=4))
            mine.add("b", "pfeiffer", dict(reduction_factor=8))
            mine.add("p", "prompt", dict(num_virtual_tokens=4))
            mine.add("u", "union", dict(parts=["l", "b", "p"]))
            trainer = peftlib.Trainer(mine, "u", batch_size=2, max_length=ROW, max_steps=5, optimizer=dict(learning_rate=1e-2))
            losses = []
            for _ in range(5):
                losses.append(trainer.accumulate(peftlib.Batch(ctx, rows, rows)))
                trainer.apply()
            check("%s, union: it learns" % base, losses[-1] < losses[0] - 0.1, "%.3f to %.3f" % (losses[0], losses[-1]))
            del trainer
            mine.save("u", top + "/u")
            lora = PeftModel.from_pretrained(hf.load(top + "/base"), top + "/u/lora").eval()
            close("%s, union: its LoRA in PEFT" % base, their_logits(lora, rows), our_logits(ctx, ours, mine, "l", rows), 1e-5)
            prompt = PeftModel.from_pretrained(hf.load(top + "/base"), top + "/u/prompt").eval()
            close("%s, union: its prompt in PEFT" % base, their_logits(prompt, rows)[:, 4:], our_logits(ctx, ours, mine, "p", rows), 1e-5)
            bottleneck = hf.load(top + "/base")
            hub.init(bottleneck)
            bottleneck.set_active_adapters(bottleneck.load_adapter(top + "/u/pfeiffer", use_safetensors=True))
            close("%s, union: its bottleneck in AdapterHub" % base, their_logits(bottleneck.eval(), rows),
                  our_logits(ctx, ours, mine, "b", rows), 1e-5)
            mine.load("again", top + "/u")
            close("%s, union: read back" % base, our_logits(ctx, ours, mine, "again", rows), our_logits(ctx, ours, mine, "u", rows), 1e-7)


def heads():
    """The peer saves the model's head along with an adapter: one that was trained acts, the base's own is no news."""
    ctx = peftlib.Context(threads=2)
    rows = batch(8, 2)
    for base, pair in [("Llama", hf.llama()), ("Llama, tied", hf.llama(tie_word_embeddings=True)), ("GPT-2", hf.gpt2())]:
        for trained in (False, True):
            with tempfile.TemporaryDirectory() as top:
                theirs, ours, mine, _ = set_up(ctx, top, pair, 61, dict(a=hub.SeqBnConfig(reduction_factor=8)))
                tied = theirs.config.tie_word_embeddings
                if trained and tied:
                    continue  # there a trained head is a trained embedding
                if trained:
                    with torch.no_grad():
                        theirs.lm_head.weight.mul_(1.1)
                theirs.save_adapter(top + "/with", "a", use_safetensors=True)
                theirs.set_active_adapters("a")
                mine.load("w", top + "/with")
                close("%s, %s head: logits" % (base, "trained" if trained else "the base's"), our_logits(ctx, ours, mine, "w", rows),
                      their_logits(theirs, rows), 1e-5)
                check("%s, %s head: method" % (base, "trained" if trained else "the base's"),
                      mine.info("w")["method"] == ("union" if trained else "pfeiffer"), mine.info("w")["method"])


if __name__ == "__main__":
    main(blocks, nested, average, fusion, heads, unions)
