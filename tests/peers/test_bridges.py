#!/usr/bin/env python3
"""The Python package's bridges (bindings/python/libpeft/bridges) beside live transformers and HF PEFT: models and tokenizers in
memory, adapters from one library to the other and back, rows of dicts. Logits agree to 1e-5 of the largest.
"""
import gc
import json
import os
import re
import subprocess
import sys
import warnings
import weakref

import numpy as np
import torch
from peft import (IA3Config, LNTuningConfig, LoraConfig, PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig,
                  TrainableTokensConfig, VeraConfig, get_peft_model)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import hf
from checks import check, close, equal, main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))
os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "libpeft.so"))
import libpeft  # noqa: E402
from libpeft import bridges  # noqa: E402

IDS = hf.random_rows(77)[0][1]
BASES = [("llama", hf.llama()), ("llama, tied", hf.llama(tie_word_embeddings=True)),
         ("llama with biases and RoPE of Llama 3", hf.llama(attention_bias=True, rope_scaling=hf.LLAMA3)),
         ("mistral", hf.mistral()), ("gpt2", hf.gpt2())]
WORDS = "the bell of the old town rings at nine and the baker opens her door and says good day 2024 été 日本語 🙂".split()
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]


def raises(name, kinds, words, function):
    try:
        function()
    except kinds as error:
        return check(name, all(w in str(error) for w in words), "%s: %.100s" % (type(error).__name__, error))
    except Exception as error:
        return check(name, False, "%s: %.100s, expected %s" % (type(error).__name__, error, kinds))
    return check(name, False, "no error")


def logits(what, *rest, ids=IDS):
    with libpeft.Session(what, *rest) as session:
        return np.asarray(session.logits([ids]))


# ---- models

def bases():
    for title, pair in BASES:
        theirs = hf.make(pair, 3)
        close(title + ": logits", logits(bridges.from_transformers(theirs)), hf.logits(theirs, IDS), 1e-5)
    for dtype in (torch.bfloat16, torch.float16):
        theirs = hf.make(hf.llama(), 4)
        narrow = {name: t.to(dtype) for name, t in theirs.state_dict().items()}
        theirs.load_state_dict({name: t.float() for name, t in narrow.items()})
        close("%s: logits" % dtype, logits(bridges.from_transformers(hf.make(hf.llama(), 4).to(dtype))), hf.logits(theirs, IDS), 1e-5)


def with_array(seed, count):
    """A model one of whose weights is an array of NumPy, of `count` rows, and that array."""
    theirs = hf.make(hf.llama(vocab_size=count), seed)
    weight = np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)
    theirs.model.embed_tokens.weight = torch.nn.Parameter(torch.from_numpy(weight))
    return theirs, weight


def memory():
    theirs, weight = with_array(5, 40000)
    before = libpeft.memory().now
    model = bridges.from_transformers(theirs)
    grown, size = libpeft.memory().now - before, sum(t.numel() * 4 for t in theirs.state_dict().values())
    check("no copy: memory of the library", grown < size / 50, "%d bytes for a model of %d" % (grown, size))
    first = logits(model)
    with torch.no_grad():
        theirs.model.embed_tokens.weight.mul_(1.5)
    check("no copy: a change in torch shows", not np.allclose(logits(model), first))
    close("no copy: as in torch", logits(model), hf.logits(theirs, IDS), 1e-5)
    copied, second = bridges.from_transformers(theirs, copy=True), logits(model)
    with torch.no_grad():
        theirs.model.embed_tokens.weight.mul_(0.5)
    close("copy=True: a change in torch does not show", logits(copied), second, 0)
    last, alive = logits(model), weakref.ref(weight)
    adapters = model.adapters()
    adapters.add("a", r=2)
    del theirs, weight
    gc.collect()
    close("the weights outlive the torch model", logits(adapters, ""), last, 0)
    model.close()
    gc.collect()
    check("and live as long as a set uses them", alive() is not None)
    adapters.close()
    gc.collect()
    check("then they go", alive() is None)


def refused():
    raises("a model without weights is refused", ValueError, ["meta", "CPU"],
           lambda: bridges.from_transformers(hf.make(hf.llama(), 1).to("meta")))
    raises("float64 is refused", TypeError, ["float64", "float32"], lambda: bridges.from_transformers(hf.make(hf.llama(), 1).double()))
    raises("something else is refused", TypeError, ["int"], lambda: bridges.from_transformers(3))
    small = hf.make(hf.llama(), 1)
    small.model.norm.weight = torch.nn.Parameter(torch.ones(3))
    raises("a wrong shape is named", libpeft.ShapeError, ["model.norm.weight"], lambda: bridges.from_transformers(small))
    wrapped = get_peft_model(hf.make(hf.llama(), 1), LoraConfig(r=2, init_lora_weights=False))
    wrapped.merge_adapter()
    raises("a merged adapter is refused", ValueError, ["merged"], lambda: bridges.from_transformers(wrapped))
    raises("no PeftModel: from_peft", TypeError, ["PeftModel"],
           lambda: bridges.from_peft(small, libpeft.Model.random(hf.make(hf.llama(), 1).config.to_dict()).adapters(), "a"))


# ---- adapters

def shake(model, seed):
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * 0.1)


ADAPTERS = [
    ("LoRA", hf.llama(), LoraConfig, dict(r=4, lora_alpha=6, target_modules="all-linear")),
    ("LoRA, GPT-2", hf.gpt2(), LoraConfig, dict(r=4)),
    ("LoRA and a trained head", hf.llama(), LoraConfig, dict(r=4, modules_to_save=["lm_head"])),
    ("LoRA and trained tokens", hf.llama(), LoraConfig, dict(r=4, trainable_token_indices=[3, 9])),
    ("DoRA", hf.llama(), LoraConfig, dict(r=4, use_dora=True)),
    ("VeRA", hf.llama(), VeraConfig, dict(r=8, target_modules=["q_proj", "o_proj"])),
    ("IA3", hf.llama(), IA3Config, dict()),
    ("LN-tuning", hf.llama(), LNTuningConfig, dict()),
    ("trained tokens", hf.llama(tie_word_embeddings=True), TrainableTokensConfig, dict(token_indices=[3, 9])),
    ("prompt", hf.llama(), PromptTuningConfig, dict(num_virtual_tokens=5)),
    ("P-tuning", hf.llama(), PromptEncoderConfig, dict(num_virtual_tokens=5, encoder_hidden_size=16)),
    ("prefix", hf.llama(), PrefixTuningConfig, dict(num_virtual_tokens=5)),
]


def peft_logits(model):
    """Those of the row's own tokens."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS]), attention_mask=torch.ones(1, len(IDS), dtype=torch.long)).logits[0, -len(IDS):].numpy()


def there_and_back():
    for i, (title, pair, cls, options) in enumerate(ADAPTERS):
        try:
            plain = hf.make(pair, 20 + i)
            wrapped = get_peft_model(hf.make(pair, 20 + i), cls(task_type="CAUSAL_LM", **options)).eval()
            shake(wrapped, i)
            expected = peft_logits(wrapped)
            model = bridges.from_transformers(wrapped)
            close(title + ": the base of a PeftModel", logits(model), hf.logits(plain, IDS), 1e-5)
            adapters = model.adapters()
            bridges.from_peft(wrapped, adapters, "fr")
            close(title + ": from PEFT", logits(adapters, "fr"), expected, 1e-5)
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                back = bridges.to_peft(plain, adapters, "fr").eval()
            equal(title + ": no missing or surplus keys", [str(w.message)[:80] for w in seen if "keys" in str(w.message)], [])
            equal(title + ": its name in PEFT", list(back.peft_config), ["fr"])
            close(title + ": to PEFT", peft_logits(back), expected, 1e-5)
            if not cls.__name__.startswith("Pr"):  # PEFT freezes no prompt
                check(title + ": frozen in PEFT", not any(p.requires_grad for p in back.parameters()))
        except Exception as error:
            check(title + ": ended early", False, "%s %s" % (type(error).__name__, str(error)[:300]))


def several():
    plain = hf.make(hf.llama(), 40)
    model = bridges.from_transformers(plain, copy=True)
    adapters = model.adapters()
    rows = libpeft.Dataset(hf.random_rows(41)[0])
    for seed, name in ((1, "fr"), (2, "de")):
        adapter = adapters.add(name, "lora", r=4, seed=seed, target_modules="all-linear")
        with libpeft.Trainer(adapter, rows, learning_rate=1e-2, max_steps=5, batch_size=3) as trainer:
            trainer.run()
    wrapped = bridges.to_peft(plain, adapters, "fr").eval()
    close("trained here, in PEFT", peft_logits(wrapped), logits(adapters, "fr"), 1e-5)
    equal("a second one: into the same PeftModel", bridges.to_peft(wrapped, adapters, "de", trainable=True) is wrapped, True)
    equal("both are there", sorted(wrapped.peft_config), ["de", "fr"])
    close("the second one acts", peft_logits(wrapped.eval()), logits(adapters, "de"), 1e-5)
    check("and may be trained", any(p.requires_grad and ".de." in n for n, p in wrapped.named_parameters()))
    wrapped.set_adapter("fr")
    close("the first one acts again", peft_logits(wrapped), logits(adapters, "fr"), 1e-5)
    other = model.adapters()
    for name in ("fr", "de"):
        bridges.from_peft(wrapped, other, name, adapter=name)
        equal("back by name: %s, the same bits" % name, {n: t.tobytes() for n, t in other[name].tensors.items()},
              {n: t.tobytes() for n, t in adapters[name].tensors.items()})
    raises("an unknown adapter is named", KeyError, ["nl", "fr"], lambda: bridges.from_peft(wrapped, other, "x", adapter="nl"))
    adapters.add("hub", "pfeiffer")
    raises("a method that PEFT has not", libpeft.UnsupportedError, ["pfeiffer"], lambda: bridges.to_peft(plain, adapters, "hub"))


# ---- tokenizers and rows

def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=hf.VOCAB, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")


def tokenizers():
    theirs = tokenizer()
    ours = bridges.from_tokenizer(theirs)
    wrong = [t for t in TEXTS if ours.encode(t) != theirs(t).input_ids or ours.decode(ours.encode(t)) != t]
    equal("tokenizer: %d texts" % len(TEXTS), wrong, [])
    equal("tokenizer: the end of a text", ours.eos_id, theirs.eos_token_id)
    pair = hf.make(hf.llama(eos_token_id=0, bos_token_id=None), 50)
    model = bridges.from_transformers(pair, theirs)
    equal("tokenizer: becomes the model's", model.tokenizer.encode(TEXTS[0]), theirs(TEXTS[0]).input_ids)
    text = model.session().generate(TEXTS[0], max_new_tokens=12, temperature=0)
    expected = hf.greedy(pair, theirs(TEXTS[0]).input_ids, 12)
    expected = expected[:expected.index(0)] if 0 in expected else expected
    equal("tokenizer: the same text is generated", text, ours.decode(expected))


def all_rows(data):
    return [(row.ids.tolist(), row.labels.tolist()) for row in data]


def rows():
    ours = bridges.from_tokenizer(tokenizer())
    listed = [dict(question="Q%d %s" % (i, t), answer=" A%d" % i, score=np.float32(i), tag=None) for i, t in enumerate(TEXTS)]
    pairs = [dict(prompt=r["question"], completion=r["answer"]) for r in listed]
    expected = all_rows(libpeft.Dataset(pairs, tokenizer=ours))
    columns = {"question": "prompt", "answer": "completion"}
    equal("rows: columns by name", all_rows(bridges.from_datasets(listed, ours, columns=columns)), expected)
    equal("rows: surplus columns are left out", all_rows(bridges.from_datasets([{**p, "x": object()} for p in pairs], ours)), expected)
    equal("rows: through templates", all_rows(bridges.from_datasets(
        [dict(r, score=int(r["score"])) for r in listed], ours, prompt_template="{question}", completion_template="{answer}")), expected)
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield dict(text="row %d" % len(taken))

    equal("rows: a stream without an end", (len(bridges.from_datasets(endless(), ours, limit=7)), len(taken)), (7, 7))
    ids = [dict(input_ids=torch.tensor([5, 6, 7]), labels=np.array([-100, 6, 7])), dict(input_ids=[1, 2], labels=[1, 2])]
    equal("rows: tensors and arrays of ids", all_rows(bridges.from_datasets(ids)), [([5, 6, 7], [-100, 6, 7]), ([1, 2], [-100, 2])])
    raises("rows: a dict of splits", TypeError, ["train", "test"], lambda: bridges.from_datasets({"train": pairs, "test": pairs}, ours))
    raises("rows: a missing column", KeyError, ["row 0", "quest", "question"],
           lambda: bridges.from_datasets(listed, ours, columns={"quest": "prompt"}))
    raises("rows: nothing to read", KeyError, ["row 0", "columns"], lambda: bridges.from_datasets(listed, ours))
    raises("rows: no dict", TypeError, ["row 1"], lambda: bridges.from_datasets([pairs[0], 3], ours))


def core_is_free():
    """The package itself imports none of these libraries."""
    program = "import sys, json, libpeft.bridges; print(json.dumps(sorted({'torch', 'numpy', 'transformers', 'peft'} & set(sys.modules))))"
    env = dict(os.environ, PYTHONPATH=os.path.join(ROOT, "bindings", "python"))
    found = subprocess.run([sys.executable, "-c", program], env=env, cwd=os.path.join(ROOT, "docs"), capture_output=True, text=True)
    equal("imported without them", json.loads(found.stdout or "null"), [])


def page():
    """The programs of docs/python.md."""
    text = open(os.path.join(ROOT, "docs", "python.md"), encoding="utf-8").read()
    blocks = re.findall(r"^```python\n# runs\n(.*?)^```", text, re.M | re.S)
    equal("docs/python.md: programs", len(blocks), 2)
    env = dict(os.environ, PYTHONPATH=os.path.join(ROOT, "bindings", "python"))
    for i, block in enumerate(blocks):
        done = subprocess.run([sys.executable, "-c", block], env=env, cwd=ROOT, capture_output=True, text=True)
        check("docs/python.md: program %d" % (i + 1), done.returncode == 0, done.stderr[-300:] or done.stdout.strip()[:60])


main(bases, memory, refused, there_and_back, several, tokenizers, rows, core_is_free, page)
