#!/usr/bin/env python3
"""What bfloat16 products, activations kept in bfloat16 and quantised bases cost in accuracy, on SmolLM2-135M-Instruct: logits,
gradients and the held-out loss of a LoRA run on E2E NLG, each against float32 over the float32 base. Quantised bases are that base
in another type, by libpeft.

The run has 40 steps of one row, for both bfloat16 and Q8_0, to end in a few minutes. ACCURACY_STEPS=100 trains over all bases, with
twice as many rows held out: that is the table of docs/compute.md, in the same bounds.
"""
import os
import tempfile

import numpy as np

import peftlib
import smollm2
from checks import check, main

PROMPT, COMPLETION = "Record: {mr}\nSentence:", " {refs.0}"
LORA = dict(r=16, lora_alpha=32, target_modules="all-linear")
STEPS, ROWS = int(os.environ.get("ACCURACY_STEPS", 40)), 1
WHOLE = STEPS >= 100
HELD_OUT = 24 if WHOLE else 12
HALF, KEPT = dict(compute_dtype="bfloat16"), dict(activation_dtype="bfloat16")
# Of each way: base, options and bounds: 1 - cosine of the logits, the worst of them by the largest, the share of equal first
# choices; 1 - cosine and length of the gradient; the held-out loss. About twice what was measured, but for the loss of bf16.
WAYS = {"bf16": ("f32", HALF, 1e-4, 0.04, 0.97, 1e-3, 0.01, 0.01),
        "kept in bf16": ("f32", KEPT, None, None, None, 1e-3, 0.01, 0.01),  # no logit has waited for a backward pass
        "q8_0": ("q8_0", {}, 6e-4, 0.12, 0.9, 5e-3, 0.02, 0.01),
        "q8_0, bf16": ("q8_0", HALF, 7e-4, 0.13, 0.88, 6e-3, 0.02, 0.01),
        "q4_1": ("q4_1", {}, 8e-3, 0.4, 0.6, 0.1, 0.3, 0.05),
        "q4_0": ("q4_0", {}, 0.11, 1.5, 0.4, 0.7, 0.6, 0.05)}
TRAINED = tuple(WAYS) if WHOLE else ("bf16", "kept in bf16", "q8_0")
shared = {}


def cosine(a, b):
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def begin():
    shared["ctx"] = ctx = peftlib.Context(threads=2)
    shared["tokenizer"] = t = peftlib.Tokenizer(ctx, smollm2.gguf_path())
    shared["top"] = tempfile.TemporaryDirectory()
    shared["models"] = models = {"f32": peftlib.Model(ctx, smollm2.hf_folder())}
    plain = peftlib.Adapters(peftlib.Model(ctx, smollm2.gguf_path()))
    plain.add("none", "lora", dict(r=1))
    for kind in ("q8_0", "q4_1", "q4_0"):
        path = os.path.join(shared["top"].name, kind + ".gguf")
        plain.merge("none", path, dtype=kind)  # a new LoRA adds nothing: the base in another type
        models[kind] = peftlib.Model(ctx, path)
    for name, first, rows in (("train", 0, STEPS * ROWS), ("dev", 0, HELD_OUT)):
        path = os.path.join(shared["top"].name, name + ".jsonl")
        smollm2.write_jsonl(path, smollm2.e2e(name, rows, first))
        shared[name] = peftlib.Dataset(ctx, t, prompt_template=PROMPT, completion_template=COMPLETION).load(path)
    texts = [" ".join(smollm2.e2e_texts(r)) for r in smollm2.e2e("dev", 8)]
    shared["ids"] = [t.encode(x, 1) for x in texts + smollm2.TEXTS]
    print("       kernels: %s, %d steps of %d rows, %d rows held out" % (ctx.isa(), STEPS, ROWS, HELD_OUT))


def logits():
    full = peftlib.Session(shared["models"]["f32"]).logits(*shared["ids"])
    for name, (kind, options, far, worst, least, _, _, _) in WAYS.items():
        if far is None:
            continue
        ours = peftlib.Session(shared["models"][kind], **options).logits(*shared["ids"])
        off = float(np.abs(ours - full).max() / np.abs(full).max())
        same = float((ours.argmax(1) == full.argmax(1)).mean())
        c = 1 - cosine(ours, full)
        check("%s: logits" % name, 0 < c <= far and off <= worst and same >= least,
              "1 - cosine %.1e, worst %.4f of the largest, %.1f %% same first choice" % (c, off, 100 * same))


def gradients():
    rows = [ids[:60] for ids in shared["ids"][:4]]

    def of(kind, options):
        adapters = peftlib.Adapters(shared["models"][kind])
        adapters.add("a", "lora", LORA, seed=11)
        rng = np.random.default_rng(5)
        for tensor, shape in sorted(adapters.shapes("a").items()):  # B is zero in a new LoRA, and then A has no gradient
            if "lora_B" in tensor:
                adapters.write("a", tensor, rng.standard_normal(shape) * 0.01)
        trainer = peftlib.Trainer(adapters, "a", batch_size=len(rows), max_length=60, max_steps=1, **options)
        trainer.accumulate(peftlib.Batch(shared["ctx"], rows))
        return {n: trainer.gradient(n) for n in adapters.shapes("a")}

    full = of("f32", {})
    for name, (kind, options, _, _, _, far, long, _) in WAYS.items():
        ours = of(kind, options)
        each = {n: 1 - cosine(ours[n], full[n]) for n in full}
        c = 1 - cosine(np.concatenate([ours[n].ravel() for n in full]), np.concatenate([full[n].ravel() for n in full]))
        worst = max(each, key=each.get)
        size = np.sqrt(sum(float((ours[n].astype(np.float64) ** 2).sum()) for n in full) /
                       sum(float((full[n].astype(np.float64) ** 2).sum()) for n in full))
        check("%s: gradient of %d tensors" % (name, len(full)), 0 < c <= far and abs(size - 1) <= long,
              "1 - cosine %.1e, worst %.1e in %s, length %.4f" % (c, each[worst], worst.replace("base_model.model.", ""), size))


def train(kind, options):
    adapters = peftlib.Adapters(shared["models"][kind])
    adapters.add("a", "lora", LORA, seed=11)
    optimizer = dict(learning_rate=5e-4, lr_scheduler_type="linear", warmup_steps=5)
    trainer = peftlib.Trainer(adapters, "a", shared["train"], batch_size=ROWS, max_steps=STEPS, shuffle=False, optimizer=optimizer,
                              **options)
    trainer.run()
    return trainer.evaluate(shared["dev"])["loss"]


def held_out():
    before, full = peftlib.Session(shared["models"]["f32"]).evaluate(shared["dev"])["loss"], train("f32", {})
    check("float32: held-out loss falls", full < 0.8 * before, "%.4f to %.4f" % (before, full))
    for name in TRAINED:
        kind, options, bound = WAYS[name][0], WAYS[name][1], WAYS[name][-1]
        loss = train(kind, options)
        check("%s: held-out loss after %d steps" % (name, STEPS), abs(loss / full - 1) <= bound and loss != full,
              "%.4f, %+.3f %%" % (loss, 100 * (loss / full - 1)))


if __name__ == "__main__":
    main(begin, logits, gradients, held_out)
