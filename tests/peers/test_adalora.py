#!/usr/bin/env python3
"""AdaLoRA over small random models against HF PEFT: logits, gradients, the orthonormal term, merged models, whole runs in which
triplets go (losses, parameters, which ones are left after every step), and both directions of the files before and after.
"""
import json
import os
import sys
import tempfile

import numpy as np
import torch
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import load_file

import hf
import peftlib
from checks import check, close, each_close, equal, main
from test_methods import compare, file_name, merged, state

ALL = "all-linear"
STEPS = 24
CASES = [
    ("defaults", hf.llama(), {}),
    ("all targets", hf.llama(attention_bias=True), dict(init_r=5, target_r=2, lora_alpha=3, target_modules=ALL)),
    ("one layer, head saved", hf.llama(), dict(init_r=4, target_r=2, layers_to_transform=[1], modules_to_save=["lm_head"],
                                               target_modules=["q_proj", "down_proj"])),
    ("alpha 0", hf.mistral(), dict(init_r=6, target_r=6, lora_alpha=0, target_modules=["k_proj", "up_proj"])),
    ("GPT-2", hf.gpt2(), dict(init_r=4, target_r=1, target_modules=["c_attn", "mlp.c_proj"])),
]


def shake(model, seed):
    """Off the initial values; E more than A and B, so that the change is not lost in the rounding."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * (0.8 if "lora_E" in n else 0.1))


def made(top, title, pair, seed, **options):
    """A base, PEFT's adapter over it, and the same read here."""
    base, saved = "%s/%s-base" % (top, title), "%s/%s-peft" % (top, title)
    hf.make(pair, seed).save_pretrained(base)
    theirs = get_peft_model(hf.load(base), AdaLoraConfig(task_type="CAUSAL_LM", **{"total_step": 100, **options}))
    shake(theirs, seed + 1)
    theirs.eval().save_pretrained(saved)
    adapters = peftlib.Adapters(peftlib.Model(peftlib.Context(threads=2), base))
    adapters.load("a", saved)
    return base, theirs, adapters


def cases():
    with tempfile.TemporaryDirectory() as top:
        for i, (title, pair, options) in enumerate(CASES):
            seed = 5000 + 10 * i
            base, theirs, adapters = made(top, str(seed), pair, seed, **options)
            rows, labels = hf.random_rows(seed)
            expected = compare(title, adapters, "a", theirs, rows, labels)
            merged(title, adapters, "%s/%d-merged" % (top, seed), rows[1], expected)
            again = "%s/%d-ours" % (top, seed)
            adapters.save("a", again)
            back = hf.load_adapter(hf.load(base), again)
            close(title + ": saved again, in PEFT", hf.logits(back, rows[1]), expected, 1e-6)
            adapters.add("fresh", "adalora", options, seed=3)
            equal(title + ": names and shapes of a fresh adapter", adapters.shapes("fresh"),
                  {n: tuple(t.shape) for n, t in state(theirs).items()})


def whole_loss(theirs, rows, labels):
    """PEFT's loss: the model's own and the orthonormal term."""
    ids, mask, marks = hf.pad(rows, labels)
    return theirs(input_ids=ids, attention_mask=mask, labels=marks, use_cache=False).loss


def term():
    """One step of SGD: what it moves is the gradient of both terms, over two batches of one step too."""
    with tempfile.TemporaryDirectory() as top:
        for i, weight in enumerate((0.5, 2.0, 0.0)):
            _, theirs, adapters = made(top, "term%d" % i, hf.llama(), 5200 + i, init_r=5, target_r=2, tinit=50,
                                       orth_reg_weight=weight, target_modules=["q_proj", "up_proj"])
            rows, labels = hf.random_rows(5210 + i, lengths=(20, 31, 17, 26))
            before = {file_name(n): p.detach().numpy().copy() for n, p in theirs.named_parameters() if p.requires_grad}
            value = whole_loss(theirs, rows, labels)
            value.backward()
            moved = {file_name(n): -p.grad.numpy() for n, p in theirs.named_parameters() if p.requires_grad}
            data = peftlib.Dataset(adapters.ctx).add_rows(rows, labels)
            trainer = peftlib.Trainer(adapters, "a", data, batch_size=2, gradient_accumulation_steps=2, max_steps=1, shuffle=False,
                                      optimizer=dict(optimizer="sgd", learning_rate=1.0, max_grad_norm=0,
                                                     lr_scheduler_type="constant"))
            log = trainer.run()
            close("term of weight %g: loss" % weight, log[0]["loss"], value.item(), 1e-5)
            each_close("term of weight %g: gradients" % weight, {n: adapters.read("a", n) - v.reshape(-1) for n, v in before.items()},
                       moved, 1e-4, 1e-6)


RUNS = [
    # choices after steps (from 0) 2, 4, ...; the last one, for good, after step 19
    ("AdamW", dict(tinit=1, tfinal=5, deltaT=2, total_step=STEPS), dict(optimizer="adamw", learning_rate=5e-3),
     lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.0)),
    ("AdamW, clipped", dict(tinit=1, tfinal=5, deltaT=2, total_step=STEPS),
     dict(optimizer="adamw", learning_rate=5e-3, max_grad_norm=0.5), lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.0)),
    ("SGD", dict(tinit=3, tfinal=4, deltaT=3, total_step=STEPS, beta1=0.6, beta2=0.7),
     dict(optimizer="sgd", learning_rate=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
    ("AdamW, no end phase", dict(deltaT=5, total_step=STEPS, orth_reg_weight=0.1), dict(optimizer="adamw", learning_rate=2e-3),
     lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.0)),
    ("AdamW, over before the run is", dict(tinit=2, tfinal=3, total_step=14), dict(optimizer="adamw", learning_rate=5e-3),
     lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.0)),
]


def kept(values):
    return {n: [bool(x) for x in np.asarray(v).reshape(-1) != 0] for n, v in values.items() if n.endswith("lora_E")}


def their_run(theirs, make, batches, clip):
    parameters = [p for p in theirs.parameters() if p.requires_grad]
    optimizer, losses, left = make(parameters), [], []
    for i, (rows, labels) in enumerate(batches):
        value = whole_loss(theirs, rows, labels)
        value.backward()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        theirs.base_model.update_and_allocate(i)
        optimizer.zero_grad()
        losses.append(value.item())
        left.append(kept({file_name(n): p.detach().numpy() for n, p in theirs.named_parameters() if p.requires_grad}))
    return losses, left


def our_run(adapters, optimizer, batches):
    """The trainer's loop, one batch a step in the order of the data; a callback looks at E."""
    data, left = peftlib.Dataset(adapters.ctx), []
    for rows, labels in batches:
        data.add_rows(rows, labels)
    trainer = peftlib.Trainer(adapters, "a", data, batch_size=len(batches[0][0]), max_steps=len(batches), shuffle=False,
                              optimizer=dict(dict(max_grad_norm=0, lr_scheduler_type="constant"), **optimizer))
    names = [n for n in adapters.shapes("a") if n.endswith("lora_E")]
    log = trainer.run(lambda _: left.append(kept({n: adapters.read("a", n) for n in names})))
    return [s["loss"] for s in log], left


def trimmed(title, top, base, theirs, adapters, rows):
    """Both directions of a folder after pruning."""
    saved, again = top + "/" + title + "-theirs", top + "/" + title + "-ours"
    theirs.eval().save_pretrained(saved)
    adapters.save("a", again)
    configs = [json.load(open(x + "/adapter_config.json")) for x in (again, saved)]
    equal(title + ": the same pattern in both configs", configs[0]["rank_pattern"], configs[1]["rank_pattern"])
    tensors = [load_file(x + "/adapter_model.safetensors") for x in (again, saved)]
    equal(title + ": names and shapes in both files", *({n: tuple(t.shape) for n, t in x.items()} for x in tensors))
    expected = hf.logits(hf.load_adapter(hf.load(base), saved), rows)
    adapters.load("theirs", saved)
    close(title + ": PEFT's folder here", peftlib.Session(adapters.model, adapters, "theirs").logits(rows), expected, 1e-5)
    mine = peftlib.Session(adapters.model, adapters, "a").logits(rows)
    close(title + ": this folder in PEFT", hf.logits(hf.load_adapter(hf.load(base), again), rows), mine, 1e-5)
    adapters.load("ours", again)
    close(title + ": this folder here", peftlib.Session(adapters.model, adapters, "ours").logits(rows), mine, 1e-6)
    ranks = [sum(v) for v in configs[1]["rank_pattern"].values()]
    return min(ranks), max(ranks), sum(ranks)


def runs():
    batches = [hf.random_rows(5300 + i, lengths=(30, 41, 23)) for i in range(STEPS)]
    with tempfile.TemporaryDirectory() as top:
        for i, (title, options, ours, make) in enumerate(RUNS):
            for name, pair, targets in (("Llama", hf.llama(), ["q_proj", "v_proj", "down_proj"]), ("GPT-2", hf.gpt2(), ["c_attn"])):
                base, theirs, adapters = made(top, "%d%s" % (i, name), pair, 5400 + i, init_r=6, target_r=2, target_modules=targets,
                                              **options)
                theirs.train()
                losses, left = their_run(theirs, make, batches, ours.get("max_grad_norm", 0))
                mine, ours_left = our_run(adapters, ours, batches)
                full = "%s, %s" % (name, title)
                close(full + ": %d losses" % STEPS, mine, losses, 1e-4)
                # between a choice and the end PEFT trims only the file
                equal(full + ": what is left after each step but the last", ours_left[:-1], left[:-1])
                least, most, total = trimmed("%d%s" % (i, name), top, base, theirs, adapters, batches[0][0][1])
                # of three modules each may well keep the same number, of nine hardly
                check(full + ": ranks differ, and sum up", (least < most or name == "GPT-2") and total == 2 * len(left[0]),
                      "%d to %d, %d in all" % (least, most, total))


def none_left():
    """A module of which nothing is left: tensors without elements, in both directions."""
    with tempfile.TemporaryDirectory() as top:
        base, theirs, adapters = made(top, "none", hf.llama(), 5600, init_r=3, target_r=1, target_modules=["q_proj", "v_proj"])
        pattern = {}
        with torch.no_grad():
            for k, (n, p) in enumerate(x for x in theirs.base_model.model.named_parameters() if "lora_E" in x[0]):
                keep = [False] * 3 if k < 2 else [k % 2 == 0, True, False]
                p[[not x for x in keep]] = 0
                pattern[n] = keep
        for n in adapters.shapes("a"):
            if n.endswith("lora_E"):
                adapters.write("a", n, theirs.base_model.model.state_dict()[n + ".default"].numpy())
        theirs.peft_config["default"].rank_pattern = pattern
        equal("none left: ranks", trimmed("none", top, base, theirs, adapters, hf.random_rows(5601)[0][0]), (0, 2, 6))


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(cases, term, runs, none_left)
