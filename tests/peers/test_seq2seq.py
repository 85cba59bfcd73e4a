#!/usr/bin/env python3
"""Encoder-decoder models beside transformers and HF PEFT: small random T5 (1.0, 1.1, mT5) and BART models with sources and targets
of many lengths: logits, loss, training with LoRA, greedy and beam search, and folders that the library writes.

    test_seq2seq.py [name ...] (BUILD has libpeft.so)
"""
import os
import sys
import tempfile

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import (BartConfig, BartForConditionalGeneration, MT5Config, MT5ForConditionalGeneration, T5Config,
                          T5ForConditionalGeneration)

import hf
import peftlib
from checks import check, close, equal, main

VOCAB = 320
T5 = dict(vocab_size=VOCAB, d_model=64, d_kv=12, d_ff=96, num_layers=3, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0)
BART = dict(vocab_size=VOCAB, d_model=64, encoder_ffn_dim=96, decoder_ffn_dim=80, encoder_layers=3, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=128, dropout=0.0,
            decoder_start_token_id=5)
NAMES = sys.argv[1:] if __name__ == "__main__" else []


def t5(**changes):
    return T5ForConditionalGeneration, T5Config(**{**T5, **changes})


def mt5(**changes):
    return MT5ForConditionalGeneration, MT5Config(**{**T5, **changes})


def bart(**changes):
    return BartForConditionalGeneration, BartConfig(**{**BART, **changes})


MODELS = {
    "t5": t5(), "t5, fewer decoder layers, few buckets": t5(num_decoder_layers=2, relative_attention_num_buckets=8,
                                                             relative_attention_max_distance=20),
    "t5 1.1": t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "t5, gated silu, tied": t5(feed_forward_proj="gated-silu", d_kv=16),
    "mt5": mt5(), "bart": bart(), "bart, scaled": bart(scale_embedding=True, activation_function="relu", forced_bos_token_id=0),
    "bart, other heads": bart(encoder_attention_heads=2, decoder_attention_heads=8, forced_eos_token_id=None),
}


def rows(seed, lengths, low=3):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randint(low, VOCAB, (n,), generator=gen).tolist() for n in lengths]


def padded(rows, value):
    most = max(map(len, rows))
    return torch.tensor([r + [value] * (most - len(r)) for r in rows])


def masks(rows):
    return padded([[1] * len(r) for r in rows], 0)


def theirs_logits(model, sources, targets):
    with torch.no_grad():
        out = model(input_ids=padded(sources, 0), attention_mask=masks(sources), decoder_input_ids=padded(targets, 0)).logits
    return np.concatenate([out[i, :len(t)].numpy() for i, t in enumerate(targets)])


def theirs_loss(model, sources, labels):
    """Mean over the labelled tokens, with the decoder's input made of the labels."""
    return model(input_ids=padded(sources, 0), attention_mask=masks(sources), labels=padded(labels, -100)).loss


def shifted(config, labels):
    return [[config.decoder_start_token_id] + [config.pad_token_id if x < 0 else x for x in r[:-1]] for r in labels]


def make(name, top, seed=1, **changes):
    model = hf.make(MODELS[name], seed)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    for key, value in changes.items():
        setattr(model.config, key, value)
        setattr(model.generation_config, key, value)
    path = os.path.join(top, name.replace(" ", "_").replace(",", "") + str(seed))
    model.save_pretrained(path)
    return model, path


def forward(name, top):
    model, path = make(name, top)
    ctx = peftlib.Context(threads=2)
    ours = peftlib.Model(ctx, path)
    sources, labels = rows(2, (5, 17, 1, 33, 9, 70)), rows(3, (4, 1, 12, 7, 40, 3))
    targets = shifted(model.config, labels)
    expected = theirs_logits(model, sources, targets)
    session = peftlib.Session(ours)
    batch = peftlib.Batch(ctx, targets, sources=sources)
    here = session.batch_logits(batch).reshape(-1, VOCAB)
    close("%s: logits" % name, here, expected, 2e-5)
    small = peftlib.Session(ours, chunk=5)
    close("%s: logits by passes of 5 tokens" % name, small.batch_logits(batch).reshape(-1, VOCAB), here, 1e-5)
    for row in labels[2:]:
        row[1] = -100
    loss = theirs_loss(model, sources, labels).item()
    data = peftlib.Dataset(ctx, task="seq2seq_lm")
    for s, t in zip(sources, labels):
        data.add({"input_ids": s, "labels": t})
    close("%s: loss of a data set" % name, session.evaluate(data)["loss"], loss, 1e-5)


def adapter(model, seed, **config):
    wrapped = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=8, **config))
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in wrapped.named_parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=gen) * 0.05)
    return wrapped


def training(name, top):
    model, path = make(name, top, 5)
    ctx = peftlib.Context(threads=2)
    ours = peftlib.Model(ctx, path)
    wrapped = adapter(model, 6, target_modules="all-linear")
    where = os.path.join(path, "lora")
    wrapped.save_pretrained(where)
    set_ = peftlib.Adapters(ours)
    set_.load("a", where)
    sources, labels = rows(7, (6, 11, 3, 20)), rows(8, (5, 2, 9, 14))
    labels[3][4] = -100
    close("%s: logits with LoRA" % name,
          peftlib.Session(ours, set_, "a").batch_logits(peftlib.Batch(ctx, shifted(model.config, labels), sources=sources)),
          theirs_logits(wrapped, sources, shifted(model.config, labels)), 2e-5)
    trainer = peftlib.Trainer(set_, "a", batch_size=4, max_length=64, max_steps=5,
                              optimizer=dict(learning_rate=1e-2, weight_decay=0.0, lr_scheduler_type="constant", max_grad_norm=0))
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    here, there = [], []
    for _ in range(5):
        here.append(trainer.accumulate(peftlib.Batch(ctx, shifted(model.config, labels), labels, sources=sources)))
        trainer.apply()
        optimizer.zero_grad()
        loss = theirs_loss(wrapped, sources, labels)
        loss.backward()
        optimizer.step()
        there.append(loss.item())
    check("%s: the loss falls" % name, there[-1] < there[0])
    close("%s: five losses of training" % name, here, there, 1e-4)


def cut(ids, ends):
    return ids[:ids.index(ends) + 1] if ends in ids else ids


def text_score(model, source, start, text, kind):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start] + text[:-1]])).logits[0].float()
    logs = torch.log_softmax(logits, -1)
    return sum(logs[i, t].item() for i, t in enumerate(text)) / len(text) ** kind.get("length_penalty", 1.0)


def generation(name, top):
    if name not in ("t5", "t5 1.1", "mt5", "bart", "bart, scaled"):
        return
    kinds = [dict(num_beams=1), dict(num_beams=4), dict(num_beams=1, repetition_penalty=1.4), dict(num_beams=4, length_penalty=2.0,
                                                                                                     early_stopping=True)]
    sources = rows(11, [3 + 3 * i % 23 for i in range(20)])
    for seed, reachable in ((12, False), (12, True)):
        model, path = make(name, top, seed + reachable)
        ends = model.config.eos_token_id
        if reachable:  # a later token that most texts have
            made = [model.generate(torch.tensor([s]), max_new_tokens=8, do_sample=False, repetition_penalty=1.4)[0].tolist()
                    for s in sources]
            later = [x for m in made for x in m[3:-1] if x not in m[:3]] or [9]
            ends = max(set(later), key=later.count)
            model, path = make(name, top, seed + reachable, eos_token_id=ends)
        ours = peftlib.Model(peftlib.Context(threads=2), path)
        session = peftlib.Session(ours)
        good = as_good = ended = 0
        wrong = ""
        for i, source in enumerate(sources):
            kind = kinds[i % len(kinds)]
            ids = torch.tensor([source])
            there = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, **kind)
            there = cut(there[0][1:].tolist(), ends)
            early = {True: "true", False: "false"}[kind.get("early_stopping", False)]
            here = session.generate(source, 16, **{**kind, "early_stopping": early})
            ended += ends in here
            good += here == there
            if here != there:
                start = model.config.decoder_start_token_id
                a, b = text_score(model, source, start, here, kind), text_score(model, source, start, there, kind)
                near = kind["num_beams"] > 1 and abs(a - b) < 1e-4
                as_good += near
                wrong = wrong or ("" if near else "%s: %s, expected %s" % (kind, here, there))
        check("%s: 20 texts, end %s" % (name, "reachable" if reachable else "not chosen"), good + as_good == len(sources),
              "%d the same, %d as good, %d ended. %s" % (good, as_good, ended, wrong))
        if reachable:
            check("%s: some texts end" % name, 0 < ended)


def folders(name, top):
    model, path = make(name, top, 20)
    ctx = peftlib.Context(threads=2)
    ours = peftlib.Model(ctx, path)
    wrapped = adapter(model, 21, target_modules=".*(q|v|q_proj|v_proj)")
    where = os.path.join(path, "lora")
    wrapped.save_pretrained(where)
    set_ = peftlib.Adapters(ours)
    set_.load("a", where)
    merged = os.path.join(path, "merged")
    set_.merge("a", merged)
    sources, targets = rows(22, (8, 21)), rows(23, (6, 3))
    expected = theirs_logits(wrapped, sources, targets)
    again = peftlib.Model(ctx, merged)
    batch = peftlib.Batch(ctx, targets, sources=sources)
    close("%s: merged folder, in the library" % name, peftlib.Session(again).batch_logits(batch), expected, 3e-5)
    close("%s: merged folder, in transformers" % name, theirs_logits(type(model).from_pretrained(merged).eval(), sources, targets),
          expected, 3e-5)


def every(part):
    def run():
        with tempfile.TemporaryDirectory() as top:
            for name in MODELS:
                if NAMES and not any(name.startswith(n) for n in NAMES):
                    continue
                try:
                    part(name, top)
                except Exception as error:
                    check("%s: %s ended early" % (name, part.__name__), False, str(error)[:400])
                    if os.environ.get("TRACE"):
                        raise
    run.__name__ = part.__name__
    return run


if __name__ == "__main__":
    main(*[every(p) for p in (forward, training, generation, folders)])
