#!/usr/bin/env python3
"""LoRA files of llama.cpp: ours in llama.cpp against HF PEFT with the same adapter, and files made with the gguf package read by
libpeft against llama.cpp reading them. Small random Llama and GPT-2 models, then SmolLM2.
"""
import os
import tempfile

import gguf
import llama_cpp
import numpy as np

import hf
import peftlib
import smollm2
from checks import check, close, equal, main

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    ("Llama, all and the head", hf.llama(), dict(r=4, lora_alpha=12, target_modules=ALL + ["lm_head"])),
    ("Llama, patterns", hf.llama(), dict(r=4, target_modules=["q_proj", "k_proj", "up_proj"], rank_pattern={"k_proj": 6},
                                         alpha_pattern={"up_proj": 3, "q_proj": 16})),
    ("Llama, rsLoRA", hf.llama(), dict(r=4, use_rslora=True, target_modules=ALL)),
    ("Llama, rsLoRA of two ranks", hf.llama(), dict(r=4, use_rslora=True, target_modules=ALL, rank_pattern={"q_proj": 9})),
    ("Llama, one layer", hf.llama(), dict(r=2, target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
    ("GPT-2", hf.gpt2(), dict(r=4, lora_alpha=12, target_modules=["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"])),
]
Q = gguf.GGMLQuantizationType


def llama(path, lora, **options):
    return llama_cpp.Llama(path, n_ctx=256, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, seed=1,
                           lora_path=lora, **options)


def llama_logits(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[:len(ids)])


def llama_greedy(model, ids, count):
    row, out = llama_logits(model, ids)[-1], []
    while len(out) < count:
        out.append(int(row.argmax()))
        model.eval([out[-1]])
        row = np.array(model.scores[model.n_tokens - 1])
    return out


def written():
    """An adapter of HF PEFT, through libpeft, in llama.cpp."""
    ctx = peftlib.Context(threads=2)
    for seed, (title, pair, config) in enumerate(CASES):
        with tempfile.TemporaryDirectory() as top:
            base = hf.make(pair, seed)
            base.save_pretrained(top + "/base")
            rows, _ = hf.random_rows(seed)
            model = peftlib.Model(ctx, top + "/base")
            adapters = peftlib.Adapters(model)
            adapters.merge("", top + "/base.gguf", dtype="float32")
            theirs = hf.add_lora(base, seed, **config)
            theirs.save_pretrained(top + "/peft")
            adapters.load("a", top + "/peft")
            adapters.save("a", top + "/a.gguf")
            other = peftlib.Adapters(peftlib.Model(ctx, top + "/base.gguf"))  # from a GGUF base the same file
            other.load("a", top + "/peft")
            other.save("a", top + "/b.gguf")
            adapters.load("b", top + "/b.gguf")
            cpp = llama(top + "/base.gguf", top + "/a.gguf")
            plain = llama(top + "/base.gguf", None)
            for row in rows:
                expected = hf.logits(theirs, row)
                close("%s: %d tokens in llama.cpp" % (title, len(row)), llama_logits(cpp, row), expected,
                      2e-3 if title == "GPT-2" else 1e-5)  # whose GELU is a table of half-precision numbers
                close("%s: %d tokens back" % (title, len(row)), peftlib.Session(model, adapters, "b").logits(row), expected, 2e-5)
                change = float(np.abs(llama_logits(plain, row) - expected).max())
                check("%s: it changes the model" % title, change > 0.05, "%.2g" % change)
            info = ctx.inspect(top + "/a.gguf")
            equal(title + ": what inspect says", (info["kind"], info["method"], info["config"]["general.type"]),
                  ("adapter", "lora", "adapter"))


def permute(w, heads):
    """Rows from halves to adjacent pairs, as convert_hf_to_gguf.py has them."""
    return w.reshape(heads, 2, -1, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def hand_made(path, kind, alpha, rng, sizes):
    w = gguf.GGUFWriter(path, "llama")
    w.add_type(gguf.GGUFType.ADAPTER)
    w.add_string(gguf.Keys.Adapter.TYPE, "lora")
    if alpha is not None:
        w.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, out, inner, rank in sizes:
        for part, shape in (("lora_a", (rank, inner)), ("lora_b", (out, rank))):
            values = (rng.standard_normal(shape) * 0.1).astype(np.float32)
            stored = kind if kind != Q.Q8_0 or shape[1] % 32 == 0 else Q.F16
            data = values if stored == Q.F32 else gguf.quantize(values, stored)
            w.add_tensor("%s.weight.%s" % (name, part), data, raw_dtype=None if stored in (Q.F32, Q.F16) else stored)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read():
    """Files of the gguf package in both: each type that the converter of llama.cpp writes, and no alpha."""
    rng, ctx = np.random.default_rng(5), peftlib.Context(threads=2)
    base = hf.make(hf.llama(), 3)
    hidden, inner, kv = base.config.hidden_size, base.config.intermediate_size, base.model.layers[0].self_attn.k_proj.out_features
    sizes = [("blk.0.attn_q", hidden, hidden, 4), ("blk.1.attn_k", kv, hidden, 3), ("blk.0.ffn_down", hidden, inner, 4),
             ("blk.2.attn_output", hidden, hidden, 8), ("output", base.config.vocab_size, hidden, 4)]
    with tempfile.TemporaryDirectory() as top:
        base.save_pretrained(top + "/base")
        model = peftlib.Model(ctx, top + "/base")
        adapters = peftlib.Adapters(model)
        adapters.merge("", top + "/base.gguf", dtype="float32")
        rows, _ = hf.random_rows(5)
        for kind, alpha in ((Q.F32, 8.0), (Q.F16, 8.0), (Q.BF16, 5.0), (Q.Q8_0, 8.0), (Q.F32, None), (Q.F32, 0.0)):
            title = "%s with alpha %s" % (kind.name, alpha)
            path = "%s/%s-%s.gguf" % (top, kind.name, alpha)
            hand_made(path, kind, alpha, rng, sizes)
            adapters.load(title, path)
            cpp = llama(top + "/base.gguf", path)
            # llama.cpp multiplies F16, BF16 and Q8_0 by activations that it has rounded to the like
            allowed = {Q.F32: 1e-5, Q.F16: 2e-3, Q.BF16: 1e-2, Q.Q8_0: 2e-2}[kind]
            for row in rows:
                close("%s: %d tokens" % (title, len(row)), peftlib.Session(model, adapters, title).logits(row),
                      llama_logits(cpp, row), allowed)


def smollm():
    """The real model: an adapter over the dequantised folder, in llama.cpp, transformers and libpeft."""
    ctx = peftlib.Context(threads=2)
    tokenizer = peftlib.Tokenizer(ctx, smollm2.gguf_path())
    model = peftlib.Model(ctx, smollm2.hf_folder())
    adapters = peftlib.Adapters(model)
    with tempfile.TemporaryDirectory() as top:
        theirs = hf.add_lora(hf.load(smollm2.hf_folder()), 9, r=8, lora_alpha=16, target_modules=ALL)
        for p in theirs.parameters():  # small enough that it still speaks
            if p.requires_grad:
                p.data.mul_(0.35)
        theirs.save_pretrained(top + "/peft")
        adapters.merge("", top + "/base.gguf", dtype="float32")
        adapters.load("a", top + "/peft")
        adapters.save("a", top + "/a.gguf")
        check("size of the file", os.path.getsize(top + "/a.gguf") < 1.05 * os.path.getsize(top + "/peft/adapter_model.safetensors"))
        adapters.load("b", top + "/a.gguf")
        cpp = llama(top + "/base.gguf", top + "/a.gguf")
        for i, text in enumerate(smollm2.TEXTS[:3]):
            ids = tokenizer.encode(text, 1)
            expected, ours = hf.logits(theirs, ids), peftlib.Session(model, adapters, "b")
            close("prompt %d: our file in llama.cpp" % i, llama_logits(cpp, ids), expected, 1e-4)
            close("prompt %d: our file in libpeft" % i, ours.logits(ids), expected, 1e-5)
            answer = ours.generate(ids, 16, ignore_eos=True)
            equal("prompt %d: 16 greedy tokens in llama.cpp" % i, llama_greedy(cpp, ids, 16), answer)
            equal("prompt %d: 16 greedy tokens in transformers" % i, hf.greedy(theirs, ids, 16), answer)
        # the quantised base as it is, for which llama.cpp rounds activations
        small = peftlib.Model(ctx, smollm2.gguf_path())
        own = peftlib.Adapters(small)
        own.load("a", top + "/a.gguf")
        cpp = llama(smollm2.gguf_path(), top + "/a.gguf")
        ids = tokenizer.encode(smollm2.TEXTS[0], 1)
        close("Q4_1 base: logits", llama_logits(cpp, ids), peftlib.Session(small, own, "a").logits(ids), 0.1)


if __name__ == "__main__":
    main(written, read, smollm)
