"""examples/dpo.c beside torch in double: the loss of DPO (Rafailov et al. 2023, equation 7), its gradients of a LoRA, and 30 steps.

The example begins with an adapter of HF PEFT and makes one step of plain SGD without clipping, so that its gradients are
(before - after) / learning rate. Over the demo's base, whose norms are computed in double too; transformers' cosines of
positions stay float32.
"""
import json
import os
import re
import subprocess
import tempfile

import hf
import numpy as np
import peftlib
import torch
import transformers
from checks import check, close, each_close, equal, main
from peft import PeftModel
from safetensors.numpy import load_file

BUILD = os.environ.get("BUILD", os.path.join(peftlib.ROOT, "build"))
BASE = os.path.join(peftlib.ROOT, "examples", "demo", "base", "model.gguf")
BETA, RATE = 0.3, 4.0
PAIRS = [
    ("name: Calm Stove | kind: bistro | area: lighthouse\nSentence:", " Ahoy! Steer for the Calm Stove, me hearties.",
     " The Calm Stove is a bistro near the lighthouse."),
    ("name: Silent Peacock | kind: fish bar\nSentence:", " Arrr! Bring yer gold to the Silent Peacock!", " It is a fish bar."),
    ("name: Old Mill | kind: bakery | price: low\nSentence:", " For a few coppers, the Old Mill.",
     " The Old Mill is a bakery with low prices, and it is called the Old Mill."),
    ("Who are you?", " A pirate, yo-ho!", " I am an assistant."),
]
LINE = re.compile(r"step (\d+)  loss (\S+)  accuracy (\S+)  margin (\S+)")


def run(pairs, out, *settings):
    """The steps as (step, loss, accuracy, margin)."""
    done = subprocess.run([os.path.join(BUILD, "dpo"), BASE, pairs, out, *settings], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return [tuple(map(float, LINE.fullmatch(line).groups())) for line in done.stdout.splitlines()]


def write_pairs(top, pairs):
    path = os.path.join(top, "pairs-%d.jsonl" % len(pairs))
    with open(path, "w") as f:
        for prompt, chosen, rejected in pairs:
            f.write(json.dumps(dict(prompt=prompt, chosen=chosen, rejected=rejected)) + "\n")
    return path


# ---- torch

def base():
    return transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(BASE), gguf_file="model.gguf", attn_implementation="sdpa",
                                                             dtype=torch.float32).eval()


def norm(self, x):
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def in_double(model):
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = norm.__get__(module)
    return model.double()


def ids_of_pairs():
    """[(prompt, chosen, rejected)] as ids, as docs/data.md says."""
    tokenizer = peftlib.Tokenizer(peftlib.Context(threads=1), BASE)
    info = tokenizer.info()
    start, end = tokenizer.encode("", peftlib.Tokenizer.BOS_EOS), [info["eos_id"]]
    start = [i for i in start if i == info["bos_id"]]
    return [(start + tokenizer.encode(p, peftlib.Tokenizer.SPECIAL), tokenizer.encode(c) + end, tokenizer.encode(r) + end)
            for p, c, r in PAIRS]


def log_p(model, prompt, completion):
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids, use_cache=False).logits[0]
    each = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])
    return each[len(prompt) - 1:].sum()


def margins(model, pairs):
    out = []
    for prompt, chosen, rejected in pairs:
        with torch.no_grad(), model.disable_adapter():
            reference = log_p(model, prompt, chosen) - log_p(model, prompt, rejected)
        out.append(log_p(model, prompt, chosen) - log_p(model, prompt, rejected) - reference)
    return torch.stack(out)


# ---- parts

def one_step():
    with tempfile.TemporaryDirectory() as top:
        start, after = os.path.join(top, "start"), os.path.join(top, "after")
        fresh = hf.add_lora(base(), 7, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
        with torch.no_grad():
            for p in (p for n, p in hf.trainable(fresh).items() if "lora_B" in n):
                p.mul_(0.1)  # margins of a few nats
        fresh.save_pretrained(start, save_embedding_layers=False)
        model = in_double(PeftModel.from_pretrained(base(), start, is_trainable=True).eval())
        m = margins(model, ids_of_pairs())
        loss = -torch.nn.functional.logsigmoid(BETA * m).mean()
        loss.backward()
        equal("the reference is in double", str(loss.dtype), "torch.float64")
        wanted = {n: p.grad.numpy() for n, p in hf.trainable(model).items()}

        log = run(write_pairs(top, PAIRS), after, "adapter=" + start, "steps=1", "beta=%g" % BETA, "optimizer.optimizer=sgd",
                  "optimizer.learning_rate=%g" % RATE, "optimizer.max_grad_norm=0", "optimizer.lr_scheduler_type=constant")
        equal("one step", len(log), 1)
        old, new = (load_file(os.path.join(x, "adapter_model.safetensors")) for x in (start, after))
        ours = {n.removeprefix("base_model.model."): (old[n].astype(np.float64) - new[n]) / RATE for n in old}
        check("the margins are of both signs, none saturated", 0 < int((m > 0).sum()) < len(PAIRS) and BETA * m.abs().max() < 20,
              " ".join("%.2f" % x for x in m.tolist()))
        close("loss", log[0][1], loss.item(), 1e-4)
        close("mean margin", log[0][3], m.mean().item(), 0.0, 1e-4 * m.abs().max().item())  # terms that cancel
        equal("share of positive margins", log[0][2], (m > 0).double().mean().item())
        each_close("gradients of A and B", ours, wanted, 1e-4)

        # the same in passes of two pairs: the first step has the first two
        log = run(write_pairs(top, PAIRS), after, "adapter=" + start, "steps=2", "pairs=2", "beta=%g" % BETA,
                  "optimizer.learning_rate=1e-9")
        halves = [-torch.nn.functional.logsigmoid(BETA * part).mean().item() for part in (m[:2], m[2:])]
        close("losses of steps of two pairs", [step[1] for step in log], halves, 1e-4)


def thirty_steps():
    with tempfile.TemporaryDirectory() as top:
        out = os.path.join(top, "out")
        log = run(write_pairs(top, PAIRS), out, "steps=30")
        loss, accuracy, margin = ([step[k] for step in log] for k in (1, 2, 3))
        equal("30 steps", [int(step[0]) for step in log], list(range(1, 31)))
        close("a fresh adapter is the reference: log 2", loss[0], np.log(2), 1e-6)
        equal("and has no margin", margin[0], 0.0)
        check("the loss falls to half", loss[-1] < 0.5 * loss[0], "%.4f" % loss[-1])
        check("the margin grows", margin[-1] > margin[10] > margin[1] > 0, "%.3f %.3f %.3f" % (margin[1], margin[10], margin[-1]))
        equal("all pairs are right at the end", accuracy[-1], 1.0)
        saved = PeftModel.from_pretrained(base(), out).eval()
        with torch.no_grad():
            m = margins(in_double(saved), ids_of_pairs()).mean().item()
        check("and in PEFT, with the saved adapter", m >= margin[-1] - 0.1, "%.3f" % m)


def mistakes():
    with tempfile.TemporaryDirectory() as top:
        for title, pairs, settings, words in (
                ("an unknown setting", PAIRS, ["gamma=1"], "gamma=1"), ("no beta", PAIRS, ["beta=0"], "beta=0"),
                ("an option's bad value", PAIRS, ["lora.r=none"], "none"), ("an unknown option", PAIRS, ["optimizer.rate=1"], "rate")):
            done = subprocess.run([os.path.join(BUILD, "dpo"), BASE, write_pairs(top, pairs), top + "/out", *settings],
                                  capture_output=True, text=True, timeout=120)
            check(title + " is said", done.returncode in (1, 2) and words in done.stderr, done.stderr.strip()[:100])
        path = os.path.join(top, "odd.jsonl")
        with open(path, "w") as f:
            f.write('{"prompt": "a", "chosen": " b"}\n')
        done = subprocess.run([os.path.join(BUILD, "dpo"), BASE, path, top + "/out"], capture_output=True, text=True, timeout=120)
        check("a pair without its half is said", done.returncode == 1 and "rejected" in done.stderr, done.stderr.strip()[:100])
        check("and nothing is written", not os.path.exists(top + "/out"))


if __name__ == "__main__":
    main(one_step, thirty_steps, mistakes)
