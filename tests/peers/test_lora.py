#!/usr/bin/env python3
"""Small random Llama, Mistral and GPT-2 models with LoRA, against HF PEFT: logits, loss, every gradient, both directions of
the adapter's files, and the merged model.

The bases come from transformers' save_pretrained, the adapters from PEFT with every trained tensor moved off its initial
value. Gradients that are zero in theory have a floor of 1e-7.
"""
import os
import tempfile

import numpy as np
import torch

import hf
import peftlib
from checks import check, close, each_close, equal, main

ALL = "all-linear"
FLOOR = 1e-7
VARIANTS = [
    ("grouped heads", hf.llama(), {}),
    ("all heads, tied", hf.llama(num_key_value_heads=8, tie_word_embeddings=True), {}),
    ("Llama 3 rope scaling", hf.llama(rope_theta=500000.0, rope_scaling=hf.LLAMA3), {}),
    ("linear rope scaling", hf.llama(rope_scaling=dict(rope_type="linear", factor=4.0)), {}),
    ("Mistral, window 16", hf.mistral(sliding_window=16), {}),
    ("biases", hf.llama(attention_bias=True, mlp_bias=True), {}),
    ("head_dim 16", hf.llama(head_dim=16), {}),
    ("bfloat16 file", hf.llama(), dict(dtype=torch.bfloat16)),
    ("float16 file", hf.llama(), dict(dtype=torch.float16)),
    ("sharded", hf.llama(tie_word_embeddings=True), dict(max_shard_size="100KB")),
    ("GPT-2", hf.gpt2(), {}),
    ("GPT-2, untied, inner 80", hf.gpt2(tie_word_embeddings=False, n_inner=80), {}),
]
OPTIONS = [
    ("default targets", hf.llama(), dict(r=8, lora_alpha=8)),
    ("alpha 32", hf.llama(), dict(r=4, lora_alpha=32, target_modules=ALL)),
    ("alpha 7.5, rank 1", hf.llama(), dict(r=1, lora_alpha=7.5, target_modules=["o_proj"])),
    ("rsLoRA", hf.llama(), dict(r=16, lora_alpha=8, use_rslora=True, target_modules=ALL)),
    ("list", hf.llama(), dict(r=4, target_modules=["k_proj", "down_proj"])),
    ("regex", hf.llama(), dict(r=4, target_modules=r".*\.layers\.[02]\..*\.(q|v|up)_proj")),
    ("exclude", hf.llama(), dict(r=4, target_modules=ALL, exclude_modules=["gate_proj", "q_proj"])),
    ("layers", hf.llama(), dict(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[0, 2])),
    ("one layer", hf.llama(), dict(r=4, target_modules=["q_proj"], layers_to_transform=1, layers_pattern="layers")),
    ("rank and alpha patterns", hf.llama(), dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={
        "q_proj": 9, r"layers\.1\.mlp\.up_proj": 2}, alpha_pattern={"down_proj": 3, "model.layers.0.self_attn.o_proj": 5})),
    ("patterns, rsLoRA", hf.llama(), dict(r=4, lora_alpha=8, use_rslora=True, target_modules=ALL,
                                          rank_pattern={"^model.layers.2": 6}, alpha_pattern={"v_proj": 2})),
    ("bias all", hf.llama(attention_bias=True, mlp_bias=True), dict(r=4, target_modules=["q_proj", "up_proj"], bias="all")),
    ("bias lora_only", hf.llama(attention_bias=True, mlp_bias=True),
     dict(r=4, target_modules=["q_proj", "up_proj"], bias="lora_only")),
    ("head saved", hf.llama(), dict(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    ("tied head saved", hf.llama(tie_word_embeddings=True),
     dict(r=4, target_modules=["v_proj"], modules_to_save=["lm_head"])),
    ("embedding and norm saved", hf.llama(), dict(r=4, target_modules=["v_proj"], modules_to_save=["embed_tokens", "model.norm"])),
    ("every norm saved", hf.llama(), dict(r=4, target_modules=["v_proj"], modules_to_save=["norm"])),
    ("head as target", hf.llama(), dict(r=4, target_modules=["lm_head", "q_proj"])),
    ("GPT-2, default targets", hf.gpt2(), dict(r=8, lora_alpha=16)),
    ("GPT-2, list", hf.gpt2(), dict(r=4, target_modules=["c_attn", "mlp.c_proj"], use_rslora=True)),
    ("GPT-2, bias all", hf.gpt2(), dict(r=4, target_modules=["c_fc"], bias="all")),
    ("GPT-2, bias lora_only", hf.gpt2(), dict(r=4, target_modules=ALL, bias="lora_only")),
    ("GPT-2, head saved", hf.gpt2(), dict(r=4, target_modules=["c_attn"], modules_to_save=["lm_head"])),
    ("GPT-2, patterns, layers", hf.gpt2(), dict(r=4, target_modules=["c_attn", "c_fc"], layers_to_transform=[0, 1],
                                               rank_pattern={"c_fc": 7}, alpha_pattern={r"h\.1\.attn\.c_attn": 11})),
]


def run_case(ctx, top, title, pair, save, config, seed):
    base, adapter, again = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    model = hf.make(pair, seed)
    model.to(save.get("dtype", torch.float32)).save_pretrained(base, **{k: v for k, v in save.items() if k != "dtype"})
    plain = hf.load(base)
    rows, labels = hf.random_rows(seed)
    ours = peftlib.Model(ctx, base)
    close(title + ": base logits", peftlib.Session(ours).logits(rows[1]), hf.logits(plain, rows[1]), 1e-5)

    theirs = hf.add_lora(plain, seed + 1, **config)
    theirs.save_pretrained(adapter)
    adapters = peftlib.Adapters(ours)
    adapters.load("a", adapter)
    expected = hf.logits(theirs, rows[1])
    close(title + ": adapter's logits", peftlib.Session(ours, adapters, "a").logits(rows[1]), expected, 1e-5)
    compare_gradients(title, adapters, "a", theirs, rows, labels)

    adapters.save("a", again)
    back = hf.load_adapter(hf.load(base), again)
    close(title + ": saved again, in PEFT", hf.logits(back, rows[1]), expected, 1e-6)
    if config.get("modules_to_save") != ["norm"]:  # in PEFT also the end of another name, in libpeft a whole one
        adapters.add("fresh", "lora", config, seed=3)
        equal(title + ": names and shapes of a fresh adapter", adapters.shapes("fresh"), hf.state_shapes(theirs))
    compare_merged(title, adapters, os.path.join(top, "%d-merged" % seed), rows[1], expected)


def compare_gradients(title, adapters, name, theirs, rows, labels, smoothing=0.0):
    trainer = peftlib.Trainer(adapters, name, batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1,
                              label_smoothing=smoothing)
    loss = trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels))
    expected, grads = hf.gradients(theirs, rows, labels, smoothing)
    close(title + ": loss", loss, expected, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, FLOOR)


def compare_merged(title, adapters, path, ids, expected):
    adapters.merge("a", path, dtype="float32")
    close(title + ": merged, in transformers", hf.logits(hf.load(path), ids), expected, 2e-5)
    merged = peftlib.Model(adapters.ctx, path)
    close(title + ": merged, in libpeft", peftlib.Session(merged).logits(ids), expected, 2e-5)
    adapters.merge("a", path + ".gguf", dtype="float32")
    merged = peftlib.Model(adapters.ctx, path + ".gguf")
    close(title + ": merged GGUF, in libpeft", peftlib.Session(merged).logits(ids), expected, 2e-5)


def each(cases, first):
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, (title, pair, save, config) in enumerate(cases):
            try:
                run_case(ctx, top, title, pair, save, config, first + 10 * i)
            except Exception as error:
                check(title + ": ended early", False, str(error)[:300])


def variants():
    each([(t, pair, save, dict(r=4, lora_alpha=8, target_modules=ALL)) for t, pair, save in VARIANTS], 1000)


def options():
    each([(t, pair, {}, config) for t, pair, config in OPTIONS], 2000)


def instruction_sets():
    """Every kernel table that this CPU has, on one case."""
    rows, labels = hf.random_rows(5)
    with tempfile.TemporaryDirectory() as top:
        plain = hf.make(hf.llama(), 5)
        plain.save_pretrained(top + "/base")
        theirs = hf.add_lora(plain, 6, r=4, target_modules=ALL)
        theirs.save_pretrained(top + "/peft")
        for isa in ("generic", "neon", "avx2", "avx512"):
            try:
                ctx = peftlib.Context(threads=1, isa=isa)
            except peftlib.Error as error:
                print("       %s: not on this machine (%s)" % (isa, error))
                continue
            adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
            adapters.load("a", top + "/peft")
            compare_gradients(isa, adapters, "a", theirs, rows, labels)


def fresh_adapter_in_peft():
    """An adapter that libpeft made, with each init, opened by PEFT; B is zero except with init false."""
    rows, _ = hf.random_rows(8)
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 8).save_pretrained(top + "/base")
        model = peftlib.Model(peftlib.Context(), top + "/base")
        plain = hf.logits(hf.load(top + "/base"), rows[1])
        for init in ("true", "gaussian", "false"):
            adapters = peftlib.Adapters(model)
            adapters.add("a", "lora", dict(r=8, lora_alpha=16, target_modules=ALL, init_lora_weights=init), seed=9)
            adapters.save("a", top + "/" + init)
            theirs = hf.load_adapter(hf.load(top + "/base"), top + "/" + init)
            mine = peftlib.Session(model, adapters, "a").logits(rows[1])
            close("init %s: logits in PEFT" % init, mine, hf.logits(theirs, rows[1]), 1e-5)
            changed = float(np.abs(mine - plain).max())
            check("init %s: %s the model" % (init, "changes" if init == "false" else "leaves"),
                  (changed > 1e-2) == (init == "false"), "%.1e" % changed)


if __name__ == "__main__":
    main(variants, options, instruction_sets, fresh_adapter_in_peft)
