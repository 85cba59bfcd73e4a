#!/usr/bin/env python3
"""Trained rows of tokens over small random Llama and GPT-2 models, against HF PEFT (TRAINABLE_TOKENS, LoRA's trainable_token_indices):
logits, loss, every gradient, five steps, both directions of the adapter's files, the merged model; and new tokens, against models with
a resized vocabulary.
"""
import json
import os
import sys
import tempfile
import warnings

import numpy as np
import torch
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model, get_peft_model_state_dict
from safetensors.numpy import load_file

import hf
import peftlib
from checks import check, close, each_close, equal, main

IDS = [7, 3, 299]
NEW = 3
V = hf.VOCAB
TIED, UNTIED = hf.llama(tie_word_embeddings=True), hf.llama()
BOTH = ["embed_tokens", "lm_head"]
# title, base, method of libpeft, config class of PEFT, options
CASES = [
    ("tied", TIED, "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS)),
    ("untied", UNTIED, "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS)),
    ("GPT-2", hf.gpt2(), "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS)),
    ("untied, both targets", UNTIED, "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS, target_modules=BOTH)),
    ("tied, both targets", TIED, "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS, target_modules=BOTH)),
    ("tied, the head alone", TIED, "trainable_tokens", TrainableTokensConfig, dict(token_indices=IDS, target_modules=["lm_head"])),
    ("LoRA, tied", TIED, "lora", LoraConfig, dict(r=4, lora_alpha=6, trainable_token_indices=IDS)),
    ("LoRA, untied", UNTIED, "lora", LoraConfig, dict(r=4, trainable_token_indices={"embed_tokens": IDS})),
    ("LoRA, GPT-2", hf.gpt2(), "lora", LoraConfig, dict(r=4, trainable_token_indices={"wte": IDS})),
    ("LoRA, untied, both", UNTIED, "lora", LoraConfig,
     dict(r=4, target_modules="all-linear", trainable_token_indices={"embed_tokens": IDS, "lm_head": [5, 3]})),
    ("DoRA, tied", TIED, "dora", LoraConfig, dict(r=4, use_dora=True, trainable_token_indices=IDS)),
]


def rows_with(seed, ids, vocab):
    """Rows in which the trained tokens occur, as inputs and as labels."""
    rows, labels = hf.random_rows(seed, vocab=vocab)
    for r, l in zip(rows, labels):
        for i, x in enumerate(ids):
            for at in (len(r) // 3 + i, len(r) - 1 - 2 * i):
                r[at] = x
                l[at] = x
    return rows, labels


def name_in_file(parameter):
    return parameter.removeprefix("base_model.model.").replace(".default.", ".").removesuffix(".default").replace(
        "lora_magnitude_vector.weight", "lora_magnitude_vector")


def shake(model, seed, amount=0.1):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * amount)


def trained(model):
    return {name_in_file(n): p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model, rows, labels):
    model.zero_grad(set_to_none=True)
    value = hf.loss(model, rows, labels)
    value.backward()
    out = {n: p.grad.numpy().copy() for n, p in trained(model).items()}
    model.zero_grad(set_to_none=True)
    return value.item(), out


def load_quietly(model, path):
    """In PEFT, where a warning of missing or surplus keys is a failure."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        wrapped = PeftModel.from_pretrained(model, path, is_trainable=True).eval()
    return wrapped, [str(w.message)[:80] for w in seen if "keys" in str(w.message)]


def compare(title, adapters, name, theirs, rows, labels):
    expected = hf.logits(theirs, rows[1])
    session = peftlib.Session(adapters.model, adapters, name)
    close(title + ": logits", session.logits(rows[1]), expected, 1e-5)
    trainer = peftlib.Trainer(adapters, name, batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels))
    wanted, grads = gradients(theirs, rows, labels)
    close(title + ": loss", loss, wanted, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, 1e-7)
    held = peftlib.Dataset(adapters.ctx).add_rows(rows, labels)
    close(title + ": evaluation", session.evaluate(held)["loss"], wanted, 1e-5)
    return expected


def five_steps(title, adapters, name, theirs, rows, labels):
    optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    trainer = peftlib.Trainer(adapters, name, batch_size=len(rows), max_length=max(map(len, rows)), max_steps=5, optimizer=dict(
        learning_rate=1e-2, lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0))
    ours, wanted = [], []
    for _ in range(5):
        ours.append(trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels)))
        trainer.apply()
        optimizer.zero_grad()
        loss = hf.loss(theirs, rows, labels)
        loss.backward()
        optimizer.step()
        wanted.append(loss.item())
    close(title + ": five losses", ours, wanted, 1e-4)
    each_close(title + ": parameters after them", {n: adapters.read(name, n) for n in trained(theirs)},
               {n: p.detach().numpy() for n, p in trained(theirs).items()}, 1e-3, 1e-6)


def run_case(ctx, top, title, pair, method, cls, options, seed):
    base, saved, again = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    rows, labels = rows_with(seed, IDS, V)
    theirs = get_peft_model(hf.load(base), cls(task_type="CAUSAL_LM", **options)).eval()
    start = {name_in_file(n): t.numpy().copy() for n, t in get_peft_model_state_dict(theirs).items()}
    shake(theirs, seed + 1)
    theirs.save_pretrained(saved)
    adapters = peftlib.Adapters(peftlib.Model(ctx, base))
    adapters.load("a", saved)
    expected = compare(title, adapters, "a", theirs, rows, labels)
    adapters.save("a", again)
    back, complaints = load_quietly(hf.load(base), again)
    equal(title + ": saved again, nothing missing in PEFT", complaints, [])
    close(title + ": saved again, in PEFT", hf.logits(back, rows[1]), expected, 1e-6)
    equal(title + ": names and shapes of the file", {n: t.shape for n, t in load_file(again + "/adapter_model.safetensors").items()},
          {n: t.shape for n, t in load_file(saved + "/adapter_model.safetensors").items()})
    adapters.add("fresh", method, options, seed=3)
    equal(title + ": names and shapes of a fresh adapter", adapters.shapes("fresh"), {n: tuple(p.shape) for n, p in trained(theirs).items()})
    for n in adapters.shapes("fresh"):
        if "trainable_tokens" in n:
            close(title + ": a fresh adapter's rows are the base's", adapters.read("fresh", n), start[n], 1e-7)
    merged = os.path.join(top, "%d-merged" % seed)
    if title == "tied, the head alone":
        adapters.merge("a", merged, dtype="float32")
        tied = json.load(open(merged + "/config.json"))["tie_word_embeddings"]
        equal(title + ": merging unties", tied, False)
    else:
        adapters.merge("a", merged, dtype="float32")
        equal(title + ": merging leaves tied what is tied", "lm_head.weight" in load_file(merged + "/model.safetensors"), pair == UNTIED)
    close(title + ": merged, in transformers", hf.logits(hf.load(merged), rows[1]), expected, 2e-5)
    five_steps(title, adapters, "a", theirs, rows, labels)


def cases():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, case in enumerate(CASES):
            try:
                run_case(ctx, top, *case, 5000 + 10 * i)
            except Exception as error:
                check(case[0] + ": ended early", False, "%s %s" % (type(error).__name__, str(error)[:300]))


# ---- new tokens: the base's vocabulary and NEW more

FRESH = list(range(V, V + NEW))
# title, base, method, options, config of PEFT over the resized model
RESIZED = [
    ("tied", TIED, "trainable_tokens", dict(token_indices=IDS, num_new_tokens=NEW), TrainableTokensConfig,
     dict(token_indices=IDS + FRESH)),
    ("GPT-2", hf.gpt2(), "trainable_tokens", dict(num_new_tokens=NEW), TrainableTokensConfig, dict(token_indices=FRESH)),
    ("untied", UNTIED, "trainable_tokens", dict(token_indices=IDS, num_new_tokens=NEW), TrainableTokensConfig,
     dict(token_indices=IDS + FRESH, target_modules=BOTH)),
    ("LoRA, tied", TIED, "lora", dict(r=4, trainable_token_indices=IDS, num_new_tokens=NEW), LoraConfig,
     dict(r=4, trainable_token_indices=IDS + FRESH)),
    ("LoRA, untied", UNTIED, "lora", dict(r=4, trainable_token_indices={"embed_tokens": IDS}, num_new_tokens=NEW), LoraConfig,
     dict(r=4, trainable_token_indices={"embed_tokens": IDS + FRESH, "lm_head": FRESH})),
    ("LoRA, untied, a list", UNTIED, "lora", dict(r=4, num_new_tokens=NEW), LoraConfig, dict(r=4, trainable_token_indices=FRESH)),
]


def resized(base):
    model = hf.load(base)
    model.resize_token_embeddings(V + NEW)
    return model.eval()


def run_resized(ctx, top, title, pair, method, options, cls, config, seed):
    title = "new tokens, " + title
    base, saved, ours = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    rows, labels = rows_with(seed, [V, 7, V + NEW - 1], V + NEW)
    adapters = peftlib.Adapters(peftlib.Model(ctx, base))

    # ours, fresh: what it starts from
    adapters.add("a", method, options, seed=3)
    weights = hf.load(base).state_dict()
    for n, shape in adapters.shapes("a").items():
        if "trainable_tokens" in n:
            matrix = weights[n.split(".trainable")[0].replace(".token_adapter", "") + ".weight"].double().numpy()
            values = adapters.read("a", n).reshape(shape)
            close(title + ": " + n.split(".")[-2] + " starts as the mean", values[-NEW:], np.tile(matrix.mean(0), (NEW, 1)), 1e-6)
            gen = np.random.default_rng(seed)
            adapters.write("a", n, values + 0.1 * gen.standard_normal(shape))
        elif "lora_B" in n:
            adapters.write("a", n, 0.1 * np.random.default_rng(seed + 1).standard_normal(shape))
    logits = peftlib.Session(adapters.model, adapters, "a").logits(rows[1])
    equal(title + ": columns of logits", logits.shape[1], V + NEW)

    # ours, in PEFT
    adapters.save("a", ours)
    back, complaints = load_quietly(resized(base), ours)
    equal(title + ": nothing missing in PEFT", complaints, [])
    close(title + ": in PEFT over the resized model", hf.logits(back, rows[1]), logits, 1e-5)
    back.config.eos_token_id = adapters.model.info().get("eos_id", None)
    compare(title, adapters, "a", back, rows, labels)
    equal(title + ": greedy tokens", peftlib.Session(adapters.model, adapters, "a").generate(rows[2], 24, ignore_eos=True),
          hf.greedy(back, rows[2], 24))

    # PEFT's, here: it saves whole resized embeddings along
    theirs = get_peft_model(resized(base), cls(task_type="CAUSAL_LM", **config)).eval()
    shake(theirs, seed + 1)
    theirs.save_pretrained(saved)
    adapters.load("b", saved)
    close(title + ": PEFT's folder, here", peftlib.Session(adapters.model, adapters, "b").logits(rows[1]), hf.logits(theirs, rows[1]), 1e-5)
    adapters.save("b", ours + "-b")
    again, complaints = load_quietly(resized(base), ours + "-b")
    equal(title + ": PEFT's folder, saved again, nothing missing in PEFT", complaints, [])
    close(title + ": PEFT's folder, saved again, in PEFT", hf.logits(again, rows[1]), hf.logits(theirs, rows[1]), 1e-5)

    # merged: a model with a larger vocabulary
    adapters.merge("a", ours + "-merged", dtype="float32")
    merged = hf.load(ours + "-merged")
    equal(title + ": merged, vocabulary", merged.config.vocab_size, V + NEW)
    equal(title + ": merged, tied as before", merged.config.tie_word_embeddings, pair != UNTIED)
    close(title + ": merged, in transformers", hf.logits(merged, rows[1]), logits, 1e-5)
    five_steps(title, adapters, "a", back, rows, labels)


def new_tokens():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, case in enumerate(RESIZED):
            try:
                run_resized(ctx, top, *case, 5500 + 10 * i)
            except Exception as error:
                check(case[0] + ": ended early", False, "%s %s" % (type(error).__name__, str(error)[:300]))


def lost_rows():
    """PEFT does not save an untied head's new rows where the embedding alone is a target: no guess, an error that says so."""
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        hf.make(UNTIED, 5900).save_pretrained(top + "/base")
        theirs = get_peft_model(resized(top + "/base"), TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=FRESH))
        theirs.save_pretrained(top + "/peft")
        adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
        try:
            adapters.load("a", top + "/peft")
            check("an untied head's lost rows: refused", False)
        except Exception as error:
            check("an untied head's lost rows: refused", "untied head" in str(error), str(error)[:120])


if __name__ == "__main__":
    main(cases, new_tokens, lost_rows)
