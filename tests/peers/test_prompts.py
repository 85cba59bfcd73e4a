#!/usr/bin/env python3
"""Prompt tuning, P-tuning and prefix-tuning on small random models, against HF PEFT: logits, loss, every gradient (of the
encoders too), the adapter's files in both directions, greedy generation, initial values from a text.

PEFT's files hold the virtual tokens alone; libpeft's also the network that makes them. Networks are therefore compared by
writing PEFT's tensors into a fresh adapter, tables by loading PEFT's folder.
"""
import os
import sys
import tempfile

import numpy as np
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

import hf
import peftlib
from checks import check, close, each_close, equal, main

FLOOR = 1e-7
ROWS = (37, 64, 9)
BASES = [
    ("Llama", hf.llama()),
    ("Llama, tied, all heads", hf.llama(num_key_value_heads=8, tie_word_embeddings=True)),
    ("Llama, head_dim 16", hf.llama(head_dim=16)),
    ("Mistral, window 16", hf.mistral(sliding_window=16)),
    ("GPT-2", hf.gpt2()),
]
MLP, LSTM = "MLP", "LSTM"
CASES = [
    ("prompt", "prompt", PromptTuningConfig, dict(num_virtual_tokens=7)),
    ("one virtual token", "prompt", PromptTuningConfig, dict(num_virtual_tokens=1)),
    ("P-tuning, MLP", "ptuning", PromptEncoderConfig, dict(num_virtual_tokens=6, encoder_hidden_size=24)),
    ("P-tuning, LSTM", "ptuning", PromptEncoderConfig,
     dict(num_virtual_tokens=6, encoder_hidden_size=20, encoder_reparameterization_type=LSTM)),
    ("P-tuning, LSTM of 3 layers", "ptuning", PromptEncoderConfig,
     dict(num_virtual_tokens=5, encoder_hidden_size=12, encoder_reparameterization_type=LSTM, encoder_num_layers=3)),
    ("prefix", "prefix", PrefixTuningConfig, dict(num_virtual_tokens=5)),
    ("prefix longer than rows", "prefix", PrefixTuningConfig, dict(num_virtual_tokens=70)),
    ("prefix, projection", "prefix", PrefixTuningConfig,
     dict(num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=24)),
    ("P-tuning v2", "ptuning_v2", PrefixTuningConfig, dict(num_virtual_tokens=5)),
]


def wrap(model, cls, seed, config):
    """PEFT's method over model, every trained tensor random and small enough for the model to stay well-conditioned."""
    wrapped = get_peft_model(model, cls(**{"task_type": "CAUSAL_LM", **config}))
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=gen) * 0.3)
    return wrapped.eval()


def named(wrapped, method, config):
    """{libpeft's name: PEFT's parameter} of what is trained."""
    table = method == "prompt" or (method in ("prefix", "ptuning_v2") and not config.get("prefix_projection"))
    out = {n.replace(".default.", "."): p for n, p in wrapped.named_parameters() if p.requires_grad}
    return {"prompt_embeddings": out["prompt_encoder.embedding.weight"]} if table else out


def logits(wrapped, ids, mask=None):
    """Of the caller's own tokens; PEFT gives those of virtual ones too."""
    ids = torch.as_tensor(ids)
    out = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids) if mask is None else mask, use_cache=False).logits
    return out[:, -ids.shape[1]:].float()


def one(wrapped, row):
    with torch.no_grad():
        return logits(wrapped, [row])[0].numpy()


def gradients(wrapped, parameters, rows, labels):
    wrapped.zero_grad(set_to_none=True)
    ids, mask, marks = hf.pad(rows, labels)
    out = logits(wrapped, ids, mask)
    loss = torch.nn.functional.cross_entropy(out[:, :-1].reshape(-1, out.shape[-1]), marks[:, 1:].reshape(-1),
                                             ignore_index=-100)
    loss.backward()
    grads = {n: p.grad.numpy().copy() for n, p in parameters.items()}
    wrapped.zero_grad(set_to_none=True)
    return loss.item(), grads


def run_case(ctx, top, title, pair, method, cls, config, seed):
    base, theirs_dir, ours_dir = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    theirs = wrap(hf.load(base), cls, seed + 1, config)
    theirs.save_pretrained(theirs_dir)
    rows, labels = hf.random_rows(seed, ROWS)
    expected = one(theirs, rows[1])
    model = peftlib.Model(ctx, base)
    ours = peftlib.Adapters(model)

    ours.load("table", theirs_dir)
    close(title + ": PEFT's folder, logits", peftlib.Session(model, ours, "table").logits(rows[1]), expected, 1e-5)
    ours.add("a", method, config, seed=3)
    parameters = named(theirs, method, config)
    equal(title + ": names and shapes", {n: int(np.prod(s)) for n, s in ours.shapes("a").items()},
          {n: p.numel() for n, p in parameters.items()})
    for name, p in parameters.items():
        ours.write("a", name, p.detach().numpy())
    several = peftlib.Session(model, ours, "a").logits(*rows)
    close(title + ": logits of a batch", several, np.concatenate([one(theirs, r) for r in rows]), 1e-5)

    trainer = peftlib.Trainer(ours, "a", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(ctx, rows, labels))
    wanted, grads = gradients(theirs, parameters, rows, labels)
    close(title + ": loss", loss, wanted, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, FLOOR)

    ours.save("a", ours_dir)
    back = hf.load(base)
    back = hf.PeftModel.from_pretrained(back, ours_dir).eval()
    close(title + ": saved, in PEFT", one(back, rows[1]), expected, 1e-5)
    ours.load("again", ours_dir)
    equal(title + ": saved, in libpeft, names", ours.shapes("again"), ours.shapes("a"))
    check(title + ": saved, in libpeft, bits", all(np.array_equal(ours.read("again", n), ours.read("a", n))
                                                  for n in ours.shapes("a")))
    session = peftlib.Session(model, ours, "a", chunk=10)
    equal(title + ": greedy", session.generate(rows[0], 12, temperature=0.0), hf.greedy(theirs, rows[0], 12))


def each(cases, first):
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, (title, pair, method, cls, config) in enumerate(cases):
            try:
                run_case(ctx, top, title, pair, method, cls, config, first + 10 * i)
            except Exception as error:
                check(title + ": ended early", False, str(error)[:300])


def methods():
    each([(base + ", " + title, pair, method, cls, config) for base, pair in (BASES[0], BASES[-1])
          for title, method, cls, config in CASES], 5000)


def bases():
    picked = [c for c in CASES if c[0] in ("prompt", "prefix", "P-tuning, MLP")]
    each([(base + ", " + title, pair, method, cls, config) for base, pair in BASES[1:-1]
          for title, method, cls, config in picked], 6000)


def start_from_text():
    """A prefix that starts from a text is the text's own cache; a prompt is the text: the rows after it go on as after it."""
    ctx = peftlib.Context(threads=2)
    text = [5, 17, 250, 31, 8, 99]
    for name, pair in (BASES[0], BASES[-1]):
        with tempfile.TemporaryDirectory() as top:
            hf.make(pair, 77).save_pretrained(top)
            rows, _ = hf.random_rows(78)
            plain = hf.logits(hf.load(top), text + rows[0])[len(text):]
            model = peftlib.Model(ctx, top)
            ours = peftlib.Adapters(model)
            for title, method, options, tolerance in (
                    ("prompt", "prompt", dict(prompt_tuning_init="TEXT"), 1e-5),
                    ("P-tuning", "ptuning", dict(init="text"), 1e-3),
                    ("P-tuning, LSTM", "ptuning", dict(init="text", encoder_reparameterization_type=LSTM), 1e-3),
                    ("prefix", "prefix", dict(init="text"), 1e-5),
                    ("prefix, projection", "prefix", dict(init="text", prefix_projection=True), 1e-3)):
                key = title.replace(",", "")
                ours.add(key, method, dict(options, num_virtual_tokens=len(text)), seed=4)
                ours.init(key, text)
                mine = peftlib.Session(model, ours, key).logits(rows[0])
                close("%s, %s: starts as its text" % (name, title), mine, plain, tolerance)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(methods, bases, start_from_text)
