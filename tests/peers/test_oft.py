#!/usr/bin/env python3
"""OFT and BOFT over small random models, against HF PEFT: logits, loss, every gradient, both directions of the adapter's files,
the merged model, the adapter taken out of it again, and steps of constrained OFT. Over GPT-2, whose Conv1D PEFT does not know,
against the formula in NumPy, in double.

More than one butterfly factor needs a CUDA extension in PEFT, of which a few lines of torch take the place here.
"""
import os
import sys
import tempfile

import numpy as np
import torch
from peft import BOFTConfig, OFTConfig, get_peft_model
from peft.tuners.boft import layer as boft_layer

import hf
import peftlib
from checks import check, close, each_close, equal, main
from test_methods import compare, merged, shake, state

ALL = "all-linear"
BIASED = dict(attention_bias=True, mlp_bias=True)
EXACT = dict(use_cayley_neumann=False)
SOME = dict(target_modules=["q_proj", "v_proj", "down_proj"])
# title, base, method, options
CASES = [
    ("OFT", hf.llama(), "oft", {}),
    ("OFT, exact", hf.llama(**BIASED), "oft", dict(EXACT, oft_block_size=8, target_modules=ALL)),
    ("OFT, by number", hf.mistral(), "oft", dict(EXACT, r=2, oft_block_size=0, **SOME)),
    ("OFT, series of 2", hf.llama(), "oft", dict(oft_block_size=16, num_cayley_neumann_terms=2)),
    ("OFT, series of 3", hf.llama(), "oft", dict(oft_block_size=16, num_cayley_neumann_terms=3)),
    ("OFT, series of 4", hf.llama(), "oft", dict(oft_block_size=16, num_cayley_neumann_terms=4)),
    ("OFT, series of 8", hf.llama(), "oft", dict(oft_block_size=4, num_cayley_neumann_terms=8, **SOME)),
    ("OFT, shared", hf.llama(), "oft", dict(oft_block_size=8, block_share=True, **SOME)),
    ("OFT, shared, exact, constrained", hf.llama(), "oft", dict(EXACT, oft_block_size=8, block_share=True, coft=True, eps=0.3, **SOME)),
    ("OFT, constrained", hf.llama(), "oft", dict(oft_block_size=16, coft=True, eps=0.8, target_modules=ALL)),
    ("OFT, constrained to the default", hf.llama(), "oft", dict(oft_block_size=16, coft=True)),
    ("OFT, a limit that is not reached", hf.llama(), "oft", dict(oft_block_size=16, coft=True, eps=1000.0)),
    ("OFT, head saved", hf.llama(), "oft",
     dict(oft_block_size=8, modules_to_save=["lm_head"], layers_to_transform=[0, 2], exclude_modules=["v_proj"],
          init_weights=False)),
    ("BOFT", hf.llama(), "boft", {}),
    ("BOFT, biases", hf.llama(**BIASED), "boft", dict(boft_block_size=8, target_modules=ALL)),
    ("BOFT, by number", hf.mistral(), "boft", dict(boft_block_size=0, boft_block_num=2, **SOME)),
    ("BOFT, 2 factors", hf.llama(), "boft", dict(boft_n_butterfly_factor=2, **SOME)),
    ("BOFT, 4 factors", hf.llama(**BIASED), "boft", dict(boft_block_size=2, boft_n_butterfly_factor=4, target_modules=ALL)),
    ("BOFT, 5 factors, by number", hf.llama(), "boft",
     dict(boft_block_size=0, boft_block_num=16, boft_n_butterfly_factor=5, target_modules=["k_proj", "o_proj"],
          modules_to_save=["lm_head"], init_weights=False)),
]
CONFIGS = dict(oft=OFTConfig, boft=BOFTConfig)


class Blocks:
    """What PEFT's extension computes: blocks [N, D, H, H] along the diagonals of [N, D H, D H], and back."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*b) for b in blocks])]

    @staticmethod
    def backward(grad, blocks):
        n, d, h, _ = blocks.shape
        cells = grad.reshape(n, d, h, d, h)
        return [torch.stack([cells[:, i, :, i, :] for i in range(d)], 1)]


def wrap(base, method, options):
    boft_layer.get_fbd_cuda = lambda: Blocks if options.get("boft_n_butterfly_factor", 1) > 1 else None
    return get_peft_model(hf.load(base), CONFIGS[method](task_type="CAUSAL_LM", **options))


def run_case(ctx, top, title, pair, method, options, seed):
    base, saved, again, one = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours", "merged"))
    hf.make(pair, seed).save_pretrained(base)
    rows, labels = hf.random_rows(seed)
    theirs = wrap(base, method, options)
    shake(theirs, seed + 1, 0.05)
    theirs.eval().save_pretrained(saved)
    adapters = peftlib.Adapters(peftlib.Model(ctx, base))
    adapters.load("a", saved)
    expected = compare(title, adapters, "a", theirs, rows, labels)
    check(title + ": the adapter acts", np.abs(expected - hf.logits(hf.load(base), rows[1])).max() > 1e-6)
    adapters.save("a", again)
    close(title + ": saved again, in PEFT", hf.logits(hf.load_adapter(hf.load(base), again), rows[1]), expected, 1e-6)
    adapters.add("fresh", method, options, seed=3)
    equal(title + ": names and shapes of a fresh adapter", adapters.shapes("fresh"),
          {n: tuple(t.shape) for n, t in state(theirs).items()})
    merged(title, adapters, one, rows[1], expected)
    if options.get("modules_to_save") is None:
        theirs.merge_adapter()
        close(title + ": merged, in PEFT", hf.logits(theirs, rows[1]), expected, 1e-5)


def methods():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, case in enumerate(CASES):
            try:
                run_case(ctx, top, *case, 5000 + 10 * i)
            except Exception as error:
                check(case[0] + ": ended early", False, "%s %s" % (type(error).__name__, str(error)[:300]))


def adjusted():
    """Sizes that do not divide: PEFT goes to a divisor nearby, and writes what was asked for."""
    ctx = peftlib.Context(threads=2)
    rows, _ = hf.random_rows(5300)
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 5300).save_pretrained(top + "/base")
        adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
        for i, options in enumerate((dict(oft_block_size=20), dict(oft_block_size=50), dict(oft_block_size=77),
                                     dict(r=5, oft_block_size=0), dict(r=7, oft_block_size=0))):
            theirs = wrap(top + "/base", "oft", dict(options, target_modules=["q_proj", "down_proj"]))
            shake(theirs, 5301 + i, 0.05)
            path = top + "/%d" % i
            theirs.eval().save_pretrained(path)
            adapters.load("a%d" % i, path)
            close("OFT, %s: logits" % options, peftlib.Session(adapters.model, adapters, "a%d" % i).logits(rows[1]),
                  hf.logits(theirs, rows[1]), 1e-5)


def skew(a):
    return (a - np.swapaxes(a, -1, -2)) / 2


def cayley(q):
    i = np.eye(q.shape[-1])
    return (i - q) @ np.linalg.inv(i + q)


def series(q, terms):
    """As PEFT counts terms: the last power once, the others but the first twice; 4 terms are 3."""
    m = 1 if terms == 2 else 3 if terms < 5 else terms - 1
    r = np.eye(q.shape[-1]) + 2 * sum(np.linalg.matrix_power(q, k) for k in range(1, m + 1))
    return r if m == 1 else r - np.linalg.matrix_power(q, m)


def oft_matrix(t, options, width):
    v = t["oft_R.weight"]
    b = int(round((1 + (1 + 8 * v.shape[1]) ** 0.5) / 2))
    q = np.zeros((len(v), b, b))
    q[:, *np.triu_indices(b, 1)] = v
    q -= np.swapaxes(q, -1, -2).copy()
    if options.get("coft"):
        size = np.linalg.norm(q, axis=(1, 2), keepdims=True)
        q *= np.minimum(1, options["eps"] / len(v) ** 0.5 / size)
    r = cayley(q) if options.get("use_cayley_neumann") is False else series(q, options.get("num_cayley_neumann_terms", 5))
    out = np.zeros((width, width))
    for i in range(width // b):
        out[i * b:(i + 1) * b, i * b:(i + 1) * b] = r[i % len(r)]
    return out


def boft_matrix(t, width):
    r, out = cayley(skew(t["boft_R"])), np.eye(width)
    m, n, b, _ = r.shape
    for level in range(m):
        group, half = b << level, b // 2 if m > 1 else b
        chunks = group // half
        order = np.concatenate([np.arange(0, chunks, 2), np.arange(1, chunks, 2)])
        perm = np.concatenate([g + np.concatenate([half * c + np.arange(half) for c in order]) for g in range(0, width, group)])
        p = np.eye(width)[perm]
        diagonal = np.zeros((width, width))
        for i in range(n):
            diagonal[i * b:(i + 1) * b, i * b:(i + 1) * b] = r[level, i]
        out = p @ diagonal @ p.T @ out
    return out


def conv1d():
    """GPT-2: a Conv1D's weight [in, out] becomes R W, or B W s."""
    ctx = peftlib.Context(threads=2)
    rows, _ = hf.random_rows(5400)
    cases = [("oft", dict(oft_block_size=8, init_weights=False)), ("oft", dict(EXACT, oft_block_size=16, init_weights=False)),
             ("oft", dict(r=4, block_share=True, num_cayley_neumann_terms=7, init_weights=False)),
             ("oft", dict(EXACT, oft_block_size=16, coft=True, eps=0.4, init_weights=False)),
             ("boft", dict(init_weights=False)),
             ("boft", dict(boft_block_size=2, boft_n_butterfly_factor=4, init_weights=False))]
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.gpt2(), 5400).save_pretrained(top + "/base")
        for i, (method, options) in enumerate(cases):
            adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
            adapters.add("a", method, dict(options, target_modules=["c_attn", "mlp.c_proj"]), seed=7)
            shapes, theirs = adapters.shapes("a"), hf.load(top + "/base")
            for layer in range(3):
                for module in ("attn.c_attn", "mlp.c_proj"):
                    at = "transformer.h.%d.%s." % (layer, module)
                    t = {n.removeprefix(at): adapters.read("a", n).reshape(s).astype(np.float64)
                         for n, s in shapes.items() if n.startswith(at)}
                    weight = theirs.get_submodule(at[:-1]).weight.data
                    w = weight.numpy().astype(np.float64)
                    if method == "oft":
                        w = oft_matrix(t, options, len(w)) @ w
                    else:
                        w = boft_matrix(t, len(w)) @ w * t["boft_s"].T
                    weight.copy_(torch.tensor(w, dtype=torch.float32))
            wanted, title = hf.logits(theirs, rows[1]), "%s %s, GPT-2, by the formula" % (method, options)
            close(title + ": logits", peftlib.Session(adapters.model, adapters, "a").logits(rows[1]), wanted, 1e-5)
            merged(title, adapters, "%s/%d" % (top, i), rows[1], wanted)


def steps():
    """Five updates at the limit: what a step leaves is shortened, and the next one starts from there."""
    ctx = peftlib.Context(threads=2)
    rows, labels = hf.random_rows(5500)
    for title, options in (("constrained OFT", dict(oft_block_size=16, coft=True, eps=0.1)),
                           ("constrained OFT, shared", dict(EXACT, oft_block_size=8, coft=True, eps=0.03, block_share=True)),
                           ("OFT", dict(oft_block_size=16))):
        with tempfile.TemporaryDirectory() as top:
            hf.make(hf.llama(), 5500).save_pretrained(top)
            theirs = wrap(top, "oft", options)
            shake(theirs, 5501, 0.003)
            adapters = peftlib.Adapters(peftlib.Model(ctx, top))
            adapters.add("a", "oft", options)
            for n, t in state(theirs).items():
                adapters.write("a", n, t.numpy())
            optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
            trainer = peftlib.Trainer(adapters, "a", batch_size=3, max_length=64, max_steps=5, optimizer=dict(
                learning_rate=1e-2, lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0))
            ours, wanted = [], []
            for _ in range(5):
                ours.append(trainer.accumulate(peftlib.Batch(ctx, rows, labels)))
                trainer.apply()
                optimizer.zero_grad()
                loss = hf.loss(theirs, rows, labels)
                loss.backward()
                optimizer.step()
                wanted.append(loss.item())
            hf.logits(theirs, rows[1])  # shortens them
            close(title + ": five losses", ours, wanted, 1e-5)
            each_close(title + ": parameters after five steps", {n: adapters.read("a", n) for n in state(theirs)},
                       {n: t.numpy() for n, t in state(theirs).items()}, 2e-3, 1e-6)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main(methods, adjusted, conv1d, steps)
