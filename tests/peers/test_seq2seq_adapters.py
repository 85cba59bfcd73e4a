#!/usr/bin/env python3
"""Adapters of encoder-decoder models beside HF PEFT and AdapterHub's library, on small random T5 and BART models: folders of the peer
are read, logits compared (in one pass, and by passes of 3 tokens with a cache), the files that are written read by the peer, and, of
kinds that the conformance matrix has not, the losses of three steps of training. Every trained tensor is off its initial value.

    test_seq2seq_adapters.py [word of titles ...] (BUILD has libpeft.so)
"""
import copy
import json
import logging
import os
import sys
import tempfile

import adapters as hub
import numpy as np
import safetensors.torch
import torch
from peft import (AdaLoraConfig, BOFTConfig, IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, MultitaskPromptTuningConfig,
                  OFTConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, TrainableTokensConfig, VeraConfig,
                  get_peft_model)

import peftlib
import test_seq2seq as pairs
import test_unions
from checks import check, close, main

logging.disable(logging.WARNING)  # the peers' about adapters that are not active yet

WORDS = sys.argv[1:]
TASK = dict(task_type="SEQ_2_SEQ_LM")
TASKS = [2, 0, 1, 2]
LAYERS = ["q", "v", "q_proj", "v_proj"]
TOKENS = pairs.rows(33, (6,))[0][:2] + pairs.rows(34, (5,))[0][:2]  # of the first source and the first target
BASES = {"t5": "t5, gated silu, tied", "bart": "bart"}
PEFT = [
    ("lora", LoraConfig(r=4, **TASK)), ("lora, bias all", LoraConfig(r=4, bias="all", **TASK)),
    ("lora, head saved", LoraConfig(r=4, modules_to_save=["lm_head"], **TASK)),
    ("lora, a layer", LoraConfig(r=4, layers_to_transform=[1], target_modules=LAYERS, **TASK)),
    ("dora", LoraConfig(r=4, use_dora=True, target_modules="all-linear", **TASK)), ("ia3", IA3Config(**TASK)),
    ("adalora", AdaLoraConfig(init_r=4, target_r=2, total_step=10, **TASK)), ("ln_tuning", LNTuningConfig(**TASK)),
    ("vera", VeraConfig(r=4, **TASK)), ("oft", OFTConfig(oft_block_size=4, target_modules=LAYERS, **TASK)),
    ("boft", BOFTConfig(boft_block_size=4, target_modules=LAYERS, **TASK)),
    ("loha", LoHaConfig(r=4, target_modules=LAYERS, **TASK)), ("lokr", LoKrConfig(r=4, target_modules=LAYERS, **TASK)),
    ("prompt", PromptTuningConfig(num_virtual_tokens=5, **TASK)),
    ("ptuning", PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=24, **TASK)),
    ("ptuning, lstm", PromptEncoderConfig(num_virtual_tokens=4, encoder_hidden_size=24, encoder_reparameterization_type="LSTM", **TASK)),
    ("prefix", PrefixTuningConfig(num_virtual_tokens=4, **TASK)),
    ("prefix, projection", PrefixTuningConfig(num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=20, **TASK)),
    ("multitask_prompt", MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3, num_ranks=2, **TASK)),
    ("trainable_tokens", TrainableTokensConfig(token_indices=TOKENS, **TASK)),
    ("lora, trained tokens", LoraConfig(r=4, trainable_token_indices=TOKENS, **TASK)),
]
FLEXIBLE = {"t5": "T5AdapterModel", "bart": "BartAdapterModel"}  # whose heads undo the encoder's bijection
STARTS_ANEW = ("ptuning", "prefix, projection", "adalora")  # their files have less than what is trained, or steps more than the loss
UNEVEN = ((6, 11, 3, 20), (5, 2, 9, 14))
EVEN = ((8, 8, 8, 8), (5, 5, 5, 5))
HUB = [
    ("houlsby", hub.DoubleSeqBnConfig(), UNEVEN), ("pfeiffer", hub.SeqBnConfig(), UNEVEN), ("parallel", hub.ParBnConfig(), UNEVEN),
    ("houlsby, cross", hub.DoubleSeqBnConfig(cross_adapter=True), UNEVEN),
    ("pfeiffer, cross, left out", hub.SeqBnConfig(cross_adapter=True, leave_out=[1, 3]), UNEVEN),
    ("houlsby, gate", hub.DoubleSeqBnConfig(use_gating=True, cross_adapter=True), EVEN),
    ("compacter", hub.CompacterConfig(reduction_factor=8, cross_adapter=True), UNEVEN),
    ("prefix_tuning", hub.PrefixTuningConfig(prefix_length=5, bottleneck_size=24), UNEVEN),
    ("prefix_tuning, flat", hub.PrefixTuningConfig(prefix_length=5, flat=True), UNEVEN),
    ("prefix_tuning, decoder", hub.PrefixTuningConfig(prefix_length=5, flat=True, encoder_prefix=False, cross_prefix=False), UNEVEN),
    ("prefix_tuning, cross, gate", hub.PrefixTuningConfig(prefix_length=5, flat=True, encoder_prefix=False, use_gating=True), EVEN),
    ("lora_hub", hub.LoRAConfig(r=4, alpha=8, intermediate_lora=True, output_lora=True), UNEVEN),
    ("lora_hub, gate", hub.LoRAConfig(r=4, alpha=8, use_gating=True), EVEN),
    ("unipelt", hub.UniPELTConfig(), EVEN),
    ("houlsby_inv", hub.DoubleSeqBnInvConfig(), UNEVEN), ("pfeiffer_inv", hub.SeqBnInvConfig(), UNEVEN),
    ("mam", hub.MAMConfig(hub.PrefixTuningConfig(prefix_length=4, bottleneck_size=24), hub.ParBnConfig()), UNEVEN),
]


def shake(model, seed=3):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)
    return model.eval()


class Case:
    """One peer with its adapter in `folder`, and what libpeft makes of it."""

    def __init__(self, title, name, path, theirs, folder, lengths, drop=0, tasks=None):
        self.title, self.theirs, self.drop = title, theirs, drop
        self.sources, self.labels = pairs.rows(33, lengths[0]), pairs.rows(34, lengths[1])
        self.labels[2][3] = -100
        self.inputs = pairs.shifted(theirs.config, self.labels)
        self.more = {} if tasks is None else dict(task_ids=torch.tensor(tasks))
        self.tasks = tasks
        self.ctx = peftlib.Context(threads=2)
        self.ours = peftlib.Model(self.ctx, path)
        self.adapters = peftlib.Adapters(self.ours)
        self.adapters.load("a", folder)

    def batch(self, labels=None):
        return peftlib.Batch(self.ctx, self.inputs, labels, sources=self.sources, tasks=self.tasks)

    def call(self):
        return self.theirs(input_ids=pairs.padded(self.sources, 0), attention_mask=pairs.masks(self.sources),
                           labels=pairs.padded(self.labels, -100), **self.more)

    def logits(self):
        with torch.no_grad():
            out = self.call().logits
        expected = np.concatenate([out[i, self.drop:self.drop + len(t)].numpy() for i, t in enumerate(self.inputs)])
        here = peftlib.Session(self.ours, self.adapters, "a").batch_logits(self.batch())
        close(self.title + ": logits", here, expected, 3e-5)
        return here

    def passes(self, here):
        close(self.title + ": the same by passes", peftlib.Session(self.ours, self.adapters, "a", chunk=3).batch_logits(self.batch()),
              here, 1e-5)

    def training(self):
        trainer = peftlib.Trainer(self.adapters, "a", batch_size=4, max_length=40, max_steps=3, optimizer=dict(
            learning_rate=5e-3, weight_decay=0.0, lr_scheduler_type="constant", max_grad_norm=0))
        optimizer = torch.optim.AdamW([p for p in self.theirs.parameters() if p.requires_grad], lr=5e-3, weight_decay=0.0)
        here, there = [], []
        for _ in range(3):
            here.append(trainer.accumulate(self.batch(self.labels)))
            trainer.apply()
            optimizer.zero_grad()
            loss = self.call().loss
            loss.backward()
            optimizer.step()
            there.append(loss.item())
        close(self.title + ": losses", here, there, 1e-4)
        check(self.title + ": training changes it", abs(there[2] - there[0]) > 1e-4 * there[0])


def each(cases, run):
    with tempfile.TemporaryDirectory() as top:
        for base, name in BASES.items():
            for title, *case in cases:
                title = "%s, %s" % (base, title)
                if WORDS and not all(w in title for w in WORDS):
                    continue
                try:
                    run(title, name, os.path.join(top, title.replace(" ", "_").replace(",", "")), *case)
                except Exception as error:
                    check(title + ": ended early", False, "%s: %s" % (type(error).__name__, str(error)[:300]))
                    if os.environ.get("TRACE"):
                        raise


def other_rows_are_refused(title, case, folder):
    """PEFT has the rows under the names of both stacks' tables too."""
    path = os.path.join(folder, "adapter_model.safetensors")
    tensors = safetensors.torch.load_file(path)
    twins = [n for n in tensors if n.endswith("coder.embed_tokens.trainable_tokens_delta")]
    check(title + ": rows of both stacks", len(twins) == 2, str(sorted(tensors)))
    tensors[twins[0]][1, 2] += 1
    safetensors.torch.save_file(tensors, path)
    try:
        case.adapters.load("b", folder)
        check(title + ": other rows of a stack, refused", False)
    except peftlib.Error as error:
        check(title + ": other rows of a stack, refused", error.status == "PEFT_E_UNSUPPORTED" and twins[0] in str(error)
              and "another row 1 " in str(error), str(error)[-60:])


def in_peft(title, name, top, config):
    method = title.split(", ", 1)[1]
    os.makedirs(top)
    model, path = pairs.make(name, top, 31)
    theirs = shake(get_peft_model(model, copy.deepcopy(config)))
    folder = os.path.join(top, "theirs")
    theirs.save_pretrained(folder)
    multitask = method == "multitask_prompt"
    case = Case(title, name, path, theirs, folder, UNEVEN, 4 if multitask else 0, TASKS if multitask else None)
    here = case.logits()
    case.passes(here)
    case.adapters.save("a", os.path.join(top, "ours"))
    if method != "adalora":  # whose loss PEFT cannot compute then
        back = PeftModel.from_pretrained(pairs.make(name, top, 31)[0], os.path.join(top, "ours")).eval()
        case.theirs, kept = back, case.theirs
        close(title + ": saved again, in PEFT", case.logits(), here, 1e-6)
        case.theirs = kept
    if method == "trainable_tokens":
        other_rows_are_refused(title, case, folder)
    if ", " in method and not method.startswith(STARTS_ANEW):
        case.training()


def config_of(folder):
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as f:
        return json.load(f)


def flexible_is_refused(title, case, folder):
    """The same tensors mean something else there."""
    config = dict(config_of(folder), model_class=FLEXIBLE[title.split(",")[0]])
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    try:
        case.adapters.load("b", folder)
        check(title + ": of a flexible head, refused", False)
    except peftlib.Error as error:
        check(title + ": of a flexible head, refused", error.status == "PEFT_E_UNSUPPORTED" and config["model_class"] in str(error),
              str(error)[-60:])


def in_hub(title, name, top, config, lengths):
    os.makedirs(top)
    model, path = pairs.make(name, top, 41)
    hub.init(model)
    if "compacter" in title and name.startswith("t5"):  # whose shared parameters that library does not save
        config = config.replace(shared_phm_rule=False)
    model.add_adapter("a", config=config)
    model.train_adapter("a")
    model.set_active_adapters("a")
    folder = os.path.join(top, "theirs")
    shake(model)
    test_unions.save_theirs(model, folder)
    case = Case(title, name, path, model, folder, lengths)
    here = case.logits()
    if "gate" not in title and "unipelt" not in title:
        case.passes(here)
    if "mam" not in title and "unipelt" not in title and case.adapters.info("a")["method"] != "lora":  # as which it is read where it is one
        case.adapters.save("a", os.path.join(top, "ours"))
        theirs, ours = config_of(folder), config_of(os.path.join(top, "ours"))
        odd = {k for k in theirs["config"] if theirs["config"][k] != ours["config"].get(k)} - {"init_weights_seed"}
        check(title + ": the config that is written", not odd, str(odd))
    if "_inv" in title:
        flexible_is_refused(title, case, folder)
    if title.count(", ") > 1:  # a variant
        case.training()


def hf_peft():
    each(PEFT, in_peft)


def adapterhub():
    each(HUB, in_hub)


if __name__ == "__main__":
    main(hf_peft, adapterhub)
