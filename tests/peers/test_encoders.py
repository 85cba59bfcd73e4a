#!/usr/bin/env python3
"""Encoders with every head that they can have next to transformers, and LoRA with a trained head next to HF PEFT.

Rows of different lengths are padded and masked for the peer and packed here. Each case: the head's outputs; the loss and the
gradient of every trained tensor; the losses of five steps of AdamW; and a folder that libpeft wrote of the model, opened by both.

    test_encoders.py [part of a case's name]
"""
import os
import sys
import tempfile

import numpy as np
import peft
import torch
import transformers
from torch.nn import functional

import hf
import peftlib
from checks import check, close, each_close, equal, main

ONLY = sys.argv[1] if len(sys.argv) > 1 else ""
RATE, STEPS, VOCAB = 5e-3, 5, 120
LENGTHS = (11, 20, 14, 5)
SIZES = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
             max_position_embeddings=64)
DISTIL = dict(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)
MODERN = dict(SIZES, num_hidden_layers=3, global_attn_every_n_layers=2, local_attention=8, reference_compile=False, pad_token_id=0,
              bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
ENDS = dict(masked_lm="ForMaskedLM", sequence_classification="ForSequenceClassification", token_classification="ForTokenClassification",
            question_answering="ForQuestionAnswering", embedding="Model")
TYPES = dict(sequence_classification="SEQ_CLS", token_classification="TOKEN_CLS", question_answering="QUESTION_ANS",
             embedding="FEATURE_EXTRACTION")


class Case:
    """One model with one head. sizes: the config's keys; types: how many token types rows have; more: of the head."""

    def __init__(self, title, prefix, sizes, task, targets, types=1, pool="mean", lengths=LENGTHS, **more):
        self.lengths = lengths
        self.title, self.task, self.targets, self.types, self.pool = title, task, targets, types, pool
        self.cls = getattr(transformers, prefix + ENDS[task])
        config = getattr(transformers, prefix + "Config")
        self.labels = more.get("num_labels", 3 if task in ("sequence_classification", "token_classification") else 2)
        self.config = config(**dict(sizes, **dict(dict(num_labels=self.labels), **more)))
        self.problem = more.get("problem_type")
        for key in vars(self.config):
            if "dropout" in key and isinstance(getattr(self.config, key), float):
                setattr(self.config, key, 0.0)

    def options(self):
        """How libpeft is told what the folder does not say."""
        return dict(task="embedding", pooling=self.pool) if self.task == "embedding" else {}


def all_cases():
    bert, distil, modern = ("Bert", SIZES, dict(types=2)), ("DistilBert", DISTIL, {}), ("ModernBert", MODERN, {})
    roberta = ("Roberta", dict(SIZES, max_position_embeddings=66, type_vocab_size=1), {})
    targets = dict(Bert=["query", "value"], Roberta=["query", "value"], DistilBert=["q_lin", "v_lin"], ModernBert=["Wqkv", "Wo"])
    for prefix, sizes, more in (bert, roberta, distil, modern):
        for task in ENDS:
            yield Case("%s, %s" % (prefix, task), prefix, sizes, task, targets[prefix], **more)
        for problem, labels in (("multi_label_classification", 4), ("regression", 1), ("regression", 2)):
            yield Case("%s, %s of %d" % (prefix, problem, labels), prefix, sizes, "sequence_classification", targets[prefix],
                       problem_type=problem, num_labels=labels, **more)
    yield Case("Bert, embedding by cls", "Bert", SIZES, "embedding", targets["Bert"], types=2, pool="cls")
    yield Case("Bert, 3 types, relu", "Bert", dict(SIZES, type_vocab_size=3, hidden_act="relu"), "masked_lm", targets["Bert"], types=3)
    yield Case("Bert, 1 type, gelu_new", "Bert", dict(SIZES, type_vocab_size=1, hidden_act="gelu_new"), "sequence_classification",
               targets["Bert"])
    yield Case("XLM-Roberta", "XLMRoberta", roberta[1], "sequence_classification", targets["Roberta"])
    yield Case("XLM-Roberta, masked_lm", "XLMRoberta", dict(roberta[1], pad_token_id=3), "masked_lm", targets["Roberta"])
    yield Case("DistilBert, sinusoids, relu", "DistilBert", dict(DISTIL, sinusoidal_pos_embds=True, activation="relu"), "masked_lm",
               targets["DistilBert"])
    biased = dict(MODERN, norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, decoder_bias=False,
                  classifier_pooling="mean", classifier_activation="relu", hidden_activation="silu", local_rope_theta=500.0)
    for task in ("masked_lm", "sequence_classification"):
        yield Case("ModernBert, biases, %s" % task, "ModernBert", biased, task, targets["ModernBert"])
    yield Case("ModernBert, long rows", "ModernBert", dict(MODERN, local_attention=34, max_position_embeddings=512), "token_classification",
               targets["ModernBert"], lengths=(300, 131, 7))
    yield Case("ModernBert, all layers global", "ModernBert", dict(MODERN, global_attn_every_n_layers=1), "token_classification",
               targets["ModernBert"])


def make_rows(case, seed):
    """Ids, token types, and what the batch of libpeft has besides."""
    gen = torch.Generator().manual_seed(seed)
    rows = [torch.randint(4, VOCAB, (n,), generator=gen).tolist() for n in case.lengths]
    types = [[min(i * case.types // len(r), case.types - 1) for i in range(len(r))] for r in rows]
    more = {}
    if case.task == "masked_lm":
        more["labels"] = [[x if i % 3 == 1 else -100 for i, x in enumerate(r)] for r in rows]
    elif case.task == "token_classification":
        more["labels"] = [[x % case.labels if i % 4 else -100 for i, x in enumerate(r)] for r in rows]
    elif case.task == "question_answering":
        more["spans"] = [[1 + i, len(r) - 1] for i, r in enumerate(rows)]
    elif case.task == "embedding":
        more["row_labels"] = [0, 1, 0, 1]
    elif case.problem is None:
        more["row_labels"] = [i % case.labels for i in range(len(rows))]
    else:
        numbers = torch.randn(len(rows), case.labels, generator=gen)
        more["targets"] = ((numbers > 0).float() if "multi" in case.problem else numbers).tolist()
    return rows, types, more


def run(case, model, rows, types):
    """What the head gives, of real tokens or of rows, as libpeft gives it."""
    ids, mask, _ = hf.pad(rows, rows)
    kind = hf.pad(rows, types)[2].clamp(min=0)
    extra = dict(token_type_ids=kind) if case.types > 1 else {}
    if isinstance(model, peft.PeftModelForQuestionAnswering):
        model = model.base_model  # the wrapper does not hand token types on
    out = model(input_ids=ids, attention_mask=mask, **extra)
    if case.task == "sequence_classification":
        return out.logits
    if case.task == "question_answering":
        out = torch.stack([out.start_logits, out.end_logits], -1)
    elif case.task == "embedding":
        out = out.last_hidden_state
        out = out[:, 0] if case.pool == "cls" else (out * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(out, dim=1)
    else:
        out = out.logits
    return torch.cat([o[:len(r)] for o, r in zip(out, rows)])


def loss_of(case, out, rows, more):
    """Mean over what is labelled."""
    if "labels" in more:
        return functional.cross_entropy(out, torch.tensor(sum(more["labels"], [])), ignore_index=-100)
    if "spans" in more:
        at, total = 0, 0
        for row, span in zip(rows, more["spans"]):
            part = out[at:at + len(row)]
            total += sum(functional.cross_entropy(part[None, :, j], torch.tensor([span[j]])) for j in range(2)) / 2
            at += len(row)
        return total / len(rows)
    if case.task == "embedding":
        scores = 20 * out[0::2] @ out[1::2].T
        return functional.cross_entropy(scores, torch.arange(len(scores)))
    if "row_labels" in more:
        return functional.cross_entropy(out, torch.tensor(more["row_labels"]))
    wanted = torch.tensor(more["targets"])
    return functional.binary_cross_entropy_with_logits(out, wanted) if "multi" in case.problem else functional.mse_loss(out, wanted)


def file_name(name):
    return hf.file_name(name).replace(".modules_to_save.default", "")


def add_lora(case, model, seed):
    config = peft.LoraConfig(task_type=TYPES.get(case.task), r=4, lora_alpha=8, target_modules=case.targets)
    wrapped = peft.get_peft_model(model, config)
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in wrapped.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    return wrapped.eval()


def train(case, model, wrapped, adapters, rows, types, more):
    """The loss and all gradients of a step, then the losses of some steps."""
    ctx, names = adapters.ctx, {file_name(n): p for n, p in wrapped.named_parameters() if p.requires_grad}
    batch = peftlib.Batch(ctx, rows, types=types, **more)
    trainer = peftlib.Trainer(adapters, "a", batch_size=len(rows), max_length=max(map(len, rows)), max_steps=STEPS,
                              optimizer=dict(learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0))
    optimizer = torch.optim.AdamW(names.values(), lr=RATE, weight_decay=0.0)
    mine, wanted = [], []
    for step in range(STEPS):
        value = loss_of(case, run(case, wrapped, rows, types), rows, more)
        optimizer.zero_grad()
        value.backward()
        wanted.append(value.item())
        mine.append(trainer.accumulate(batch))
        if step == 0:
            ours = {n: trainer.gradient(n) for n in adapters.shapes("a")}
            each_close(case.title + ": gradients", ours, {n: p.grad.numpy() for n, p in names.items()}, 1e-4, 1e-7)
        optimizer.step()
        trainer.apply()
    close(case.title + ": losses of %d steps" % STEPS, mine, wanted, 1e-5)
    check(case.title + ": the steps change something", abs(wanted[0] - wanted[-1]) > 1e-3 * wanted[0],
          "%.4f to %.4f" % (wanted[0], wanted[-1]))


def written_again(case, ours, theirs, rows, types, top):
    """The model as libpeft writes it, in both."""
    folder = os.path.join(top, "again")
    peftlib.Adapters(ours).merge("", folder)
    with torch.no_grad():
        close(case.title + ": a written folder in transformers", run(case, case.cls.from_pretrained(folder).eval(), rows, types).numpy(),
              theirs, 1e-6)
    again = peftlib.Model(ours.ctx, folder, **case.options())
    equal(case.title + ": the folder says the task", (again.info()["task"], again.info().get("id2label")), (ours.info()["task"],
                                                                                                         ours.info().get("id2label")))
    out = peftlib.Session(again).batch_logits(peftlib.Batch(ours.ctx, rows, types=types))
    close(case.title + ": a written folder here", out, theirs, 1e-5)


def one(ctx, case, seed):
    rows, types, more = make_rows(case, seed)
    with tempfile.TemporaryDirectory() as top:
        model = hf.make((case.cls, case.config), seed)
        model.save_pretrained(os.path.join(top, "base"))
        ours = peftlib.Model(ctx, os.path.join(top, "base"), **case.options())
        batch = peftlib.Batch(ctx, rows, types=types)
        with torch.no_grad():
            theirs = run(case, model, rows, types).numpy()
        close(case.title + ": outputs", peftlib.Session(ours).batch_logits(batch), theirs, 1e-5)
        written_again(case, ours, theirs, rows, types, top)
        wrapped = add_lora(case, model, seed + 1)
        wrapped.save_pretrained(os.path.join(top, "adapter"))
        adapters = peftlib.Adapters(ours)
        adapters.load("a", os.path.join(top, "adapter"))
        with torch.no_grad():
            adapted = run(case, wrapped, rows, types).numpy()
        close(case.title + ": outputs with LoRA and head", peftlib.Session(ours, adapters, "a").batch_logits(batch), adapted, 1e-5)
        check(case.title + ": the adapter acts", np.abs(adapted - theirs).max() > 1e-3)
        train(case, model, wrapped, adapters, rows, types, more)


def cases():
    ctx = peftlib.Context(threads=1)
    torch.set_num_threads(1)
    for i, case in enumerate(c for c in all_cases() if ONLY in c.title):
        try:
            one(ctx, case, 500 + 10 * i)
        except (peftlib.Error, RuntimeError, ValueError, AttributeError) as error:
            check(case.title, False, "%s: %s" % (type(error).__name__, str(error)[:300]))


if __name__ == "__main__":
    main(cases)
