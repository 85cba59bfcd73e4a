#!/usr/bin/env python3
"""Multitask prompt tuning on small random models, against HF PEFT: logits of rows of several tasks in one batch, loss, every
gradient, five steps of AdamW, folders in both directions, greedy generation, starts from a source; and a task, or the tokens of a
P-tuning network, taken out as a plain prompt that PEFT reads.
"""
import os
import sys
import tempfile

import numpy as np
import torch
from peft import MultitaskPromptTuningConfig, PromptEncoderConfig, get_peft_model
from safetensors.torch import load_file

import hf
import peftlib
from checks import check, close, each_close, equal, main

FLOOR, STEPS, RATE = 1e-7, 5, 1e-2
ROWS, TASKS = (37, 64, 9, 20), [1, 0, 2, 1]
BASES = [("Llama", hf.llama()), ("Mistral, window 16", hf.mistral(sliding_window=16)), ("GPT-2", hf.gpt2())]
CASES = [("3 tasks, rank 1", dict(num_virtual_tokens=5, num_tasks=3)),
         ("3 tasks, rank 4", dict(num_virtual_tokens=6, num_tasks=3, num_ranks=4)),
         ("one virtual token, 7 tasks", dict(num_virtual_tokens=1, num_tasks=7, num_ranks=2))]
NAMES = {"prompt_embeddings": "embedding.weight", "prefix_task_cols": "prefix_task_cols", "prefix_task_rows": "prefix_task_rows"}


def wrap(model, seed, **config):
    """PEFT's method with every tensor random and of a size at which all of them matter."""
    wrapped = get_peft_model(model, MultitaskPromptTuningConfig(**{"task_type": "CAUSAL_LM", **config}))
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=gen) * 0.5)
    return wrapped.eval()


def named(wrapped):
    encoder = wrapped.prompt_encoder["default"]
    return {ours: encoder.get_parameter(theirs) for ours, theirs in NAMES.items()}


def logits(wrapped, ids, tasks, mask=None):
    ids = torch.as_tensor(ids)
    out = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids) if mask is None else mask,
                  task_ids=torch.tensor(tasks), use_cache=False).logits
    return out[:, -ids.shape[1]:].float()


def one(wrapped, row, task):
    with torch.no_grad():
        return logits(wrapped, [row], [task])[0].numpy()


def loss(wrapped, rows, labels, tasks):
    ids, mask, marks = hf.pad(rows, labels)
    out = logits(wrapped, ids, tasks, mask)
    return torch.nn.functional.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]), marks[:, 1:].reshape(-1), ignore_index=-100)


def greedy(wrapped, ids, task, count):
    """One token at a time over the whole row."""
    row = list(ids)
    for _ in range(count):
        row.append(int(one(wrapped, row, task)[-1].argmax()))
    return row[len(ids):]


def train(theirs, ours, ctx, seed):
    """Losses of STEPS steps of AdamW on both sides."""
    batches = [hf.random_rows(seed + i, ROWS) for i in range(STEPS)]
    parameters = named(theirs)
    optimizer, expected, mine = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.0), [], []
    for rows, labels in batches:
        value = loss(theirs, rows, labels, TASKS)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        expected.append(value.item())
    trainer = peftlib.Trainer(ours, "a", optimizer=dict(learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0),
                              batch_size=len(ROWS), max_length=max(ROWS), max_steps=STEPS)
    for rows, labels in batches:
        mine.append(trainer.accumulate(peftlib.Batch(ctx, rows, labels, TASKS)))
        trainer.apply()
    return mine, expected


def run_case(ctx, top, title, pair, config, seed):
    base, theirs_dir, ours_dir = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    theirs = wrap(hf.load(base), seed + 1, **config)
    theirs.save_pretrained(theirs_dir)
    rows, labels = hf.random_rows(seed, ROWS)
    model = peftlib.Model(ctx, base)
    ours = peftlib.Adapters(model)

    ours.load("a", theirs_dir)
    equal(title + ": names and shapes", ours.shapes("a"), {n: tuple(p.shape) for n, p in named(theirs).items()})
    several = np.concatenate([one(theirs, r, t) for r, t in zip(rows, TASKS)])
    close(title + ": PEFT's folder, logits of a batch", peftlib.Session(model, ours, "a").logits(*rows, tasks=TASKS), several, 1e-5)
    close(title + ": the session's task", peftlib.Session(model, ours, "a", task_id=2, chunk=10).logits(rows[0]),
          one(theirs, rows[0], 2), 1e-5)
    equal(title + ": greedy", peftlib.Session(model, ours, "a", task_id=1, chunk=10).generate(rows[2], 8, temperature=0.0),
          greedy(theirs, rows[2], 1, 8))

    trainer = peftlib.Trainer(ours, "a", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    mine = trainer.accumulate(peftlib.Batch(ctx, rows, labels, TASKS))
    theirs.zero_grad(set_to_none=True)
    value = loss(theirs, rows, labels, TASKS)
    value.backward()
    grads = {n: p.grad.numpy().copy() for n, p in named(theirs).items()}
    theirs.zero_grad(set_to_none=True)
    close(title + ": loss", mine, value.item(), 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, FLOOR)

    ours.save("a", ours_dir)
    back = hf.PeftModel.from_pretrained(hf.load(base), ours_dir).eval()
    close(title + ": saved, in PEFT", np.concatenate([one(back, r, t) for r, t in zip(rows, TASKS)]), several, 1e-5)
    check(title + ": saved, bits", all(np.array_equal(load_file(ours_dir + "/adapter_model.safetensors")[n].numpy(),
                                                      p.detach().numpy()) for n, p in named(theirs).items()))
    trainer.close()
    mine, expected = train(theirs, ours, ctx, seed + 50)
    close(title + ": %d losses" % STEPS, mine, expected, 1e-4)
    each_close(title + ": parameters after them", {n: ours.read("a", n) for n in NAMES},
               {n: p.detach().numpy() for n, p in named(theirs).items()}, 1e-3)


def methods():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, (base, pair) in enumerate(BASES):
            for k, (title, config) in enumerate(CASES if i != 1 else CASES[1:2]):
                run_case(ctx, top, base + ", " + title, pair, config, 7000 + 300 * i + 100 * k)


def starts_from_a_source():
    """What PEFT makes of a source and what libpeft does, from the same file; PEFT's has one task then."""
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        base, source = top + "/base", top + "/source"
        hf.make(hf.llama(), 91).save_pretrained(base)
        wrap(hf.load(base), 92, num_virtual_tokens=4, num_tasks=3, num_ranks=2).save_pretrained(source)
        file = source + "/adapter_model.safetensors"
        model = peftlib.Model(ctx, base)
        ours = peftlib.Adapters(model)
        rows, _ = hf.random_rows(93)
        for how, more in (("AVERAGE_SOURCE_TASKS", {}), ("EXACT_SOURCE_TASK", dict(prompt_tuning_init_task=2)),
                          ("ONLY_SOURCE_SHARED", {})):
            config = dict(num_virtual_tokens=4, num_ranks=2, num_tasks=1, prompt_tuning_init=how,
                          prompt_tuning_init_state_dict_path=file, **more)
            theirs = get_peft_model(hf.load(base), MultitaskPromptTuningConfig(task_type="CAUSAL_LM", **config)).eval()
            ours.add(how, "multitask_prompt", config)
            if how == "ONLY_SOURCE_SHARED":  # the rest is random on either side
                close(how + ": shared table", ours.read(how, "prompt_embeddings"), named(theirs)["prompt_embeddings"].detach().numpy(), 0)
                continue
            each_close(how + ": tensors", {n: ours.read(how, n) for n in NAMES},
                       {n: p.detach().numpy() for n, p in named(theirs).items()}, 1e-6)
            close(how + ": logits", peftlib.Session(model, ours, how).logits(rows[0]), one(theirs, rows[0], 0), 1e-5)


def taken_out_as_a_prompt():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        base, source, network, plain = (top + "/" + n for n in ("base", "source", "network", "plain"))
        hf.make(hf.llama(), 95).save_pretrained(base)
        theirs = wrap(hf.load(base), 96, num_virtual_tokens=4, num_tasks=3, num_ranks=2)
        theirs.save_pretrained(source)
        encoder = get_peft_model(hf.load(base), PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
        encoder.save_pretrained(network)
        model = peftlib.Model(ctx, base)
        ours = peftlib.Adapters(model)
        rows, _ = hf.random_rows(97)
        ours.add("t", "prompt", dict(num_virtual_tokens=4, init_from=source, prompt_tuning_init_task=2))
        ours.add("n", "prompt", dict(num_virtual_tokens=4, init_from=network))
        with torch.no_grad():
            ids = torch.tensor([rows[0]])
            of_network = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, 4:].numpy()
            for name, expected in (("t", one(theirs, rows[0], 2)), ("n", of_network)):
                close(name + ": logits", peftlib.Session(model, ours, name).logits(rows[0]), expected, 1e-5)
                ours.save(name, plain + name)
                back = hf.PeftModel.from_pretrained(hf.load(base), plain + name).eval()
                out = back(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, 4:].numpy()
                close(name + ": saved as a prompt, in PEFT", out, expected, 1e-5)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(methods, starts_from_a_source, taken_out_as_a_prompt)
