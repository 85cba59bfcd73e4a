#!/usr/bin/env python3
"""The tool on a real task: `peft train` with LoRA on SmolLM2-135M and e2e-nlg, 40 steps of 8 rows (100 for FILE). The held-out loss
must fall by more than a third of a nat; the plan must be within 5 % of the run's peak. Also `info`, `eval`, `generate`, `merge`.

Usage: test_cli.py [--log-out FILE]     FILE: the run as Markdown (also $PEFT_LOG_OUT)
"""
import ctypes
import json
import math
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile

import peftlib
import smollm2
from checks import check, close, equal, main

TOOL = os.environ.get("PEFT", os.path.join(peftlib.ROOT, "build", "peft"))
TEMPLATES = ["--prompt-template", r"Record: {mr}\nSentence:", "--completion-template", " {refs.0}"]
SETTINGS = ["r=16", "lora_alpha=32", "target_modules=all-linear", "learning_rate=5e-4", "lr_scheduler_type=linear",
            "warmup_steps=10", "batch_size=8", "max_length=256"]
HELD_OUT = 64
LOG_KEYS = {"step", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "peak_bytes"}
log_out = sys.argv[sys.argv.index("--log-out") + 1] if "--log-out" in sys.argv else os.environ.get("PEFT_LOG_OUT", "")
STEPS = 100 if log_out else 40
SETTINGS.append("max_steps=%d" % STEPS)


def tool(*args):
    """Standard output of the tool; a failure raises with its error text."""
    done = subprocess.run([TOOL, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError("peft %s: code %d: %s" % (args[0], done.returncode, done.stderr.strip()[-500:]))
    return done.stdout


def train(top, model, *more):
    """Runs the training in a process of its own; its peak resident memory in bytes, or an error."""
    sets = [x for s in SETTINGS for x in ("--set", s)]
    args = [TOOL, "train", "--model", model, "--data", top + "/train.jsonl", "--eval", top + "/held-out.jsonl", *TEMPLATES,
            "--method", "lora", *sets, "--seed", "1", "--out", top + "/adapter", "--json-log", top + "/log.jsonl", "--quiet",
            *more]
    with open(top + "/stderr", "w") as err:
        pid = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=err).pid
    _, status, usage = os.wait4(pid, 0)
    with open(top + "/stderr") as err:
        check("train ends with 0", status == 0, err.read().strip()[-300:])
    return usage.ru_maxrss * 1024, args


def shown(args, top, model):
    """The command as a reader would type it."""
    return " ".join(shlex.quote(a.replace(TOOL, "peft").replace(top + "/", "").replace(model, os.path.basename(model)))
                    for a in args)


def write_log(args, top, model, steps, before, after, peak):
    lines = ["# LoRA on SmolLM2-135M and e2e-nlg", "",
             "The run of `make check-peers`, longer: 100 steps of 8 rows, fp32 arithmetic over the Q4_1 file, %d threads, kernels %s." %
             (os.cpu_count() or 1, peftlib.Context().isa()), "",
             "    " + shown(args, top, model), "",
             "`train.jsonl` is the train set of e2e-nlg, `held-out.jsonl` the first %d rows of its dev set." % HELD_OUT, "",
             "| | untuned | after 100 steps |", "|---|---|---|",
             "| held-out loss, nats a token | %.4f | %.4f |" % (before["loss"], after["loss"]),
             "| held-out perplexity | %.3f | %.3f |" % (before["perplexity"], after["perplexity"]),
             "| held-out token accuracy | %.3f | %.3f |" % (before["accuracy"], after["accuracy"]), "",
             "Peak memory of the process: %.0f MiB. The log (`--json-log`), every fifth step:" % (peak / 2**20), "",
             "| step | loss | learning rate | gradient norm | tokens | tokens/s |", "|---|---|---|---|---|---|"]
    lines += ["| %d | %.4f | %.3g | %.3f | %d | %.0f |" % (s["step"], s["loss"], s["learning_rate"], s["grad_norm"],
                                                            s["tokens"], s["tokens_per_second"])
              for s in steps if s["step"] == 1 or s["step"] % 5 == 0]
    with open(log_out, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def e2e_run():
    model = smollm2.gguf_path()
    with tempfile.TemporaryDirectory() as top:
        smollm2.write_jsonl(top + "/train.jsonl", smollm2.e2e("train", 5000))
        smollm2.write_jsonl(top + "/held-out.jsonl", smollm2.e2e("dev", HELD_OUT))
        evaluate = ["eval", "--model", model, "--data", top + "/held-out.jsonl", *TEMPLATES, "--json"]
        before = json.loads(tool(*evaluate))
        equal("eval --json: keys", set(before), {"loss", "perplexity", "accuracy", "tokens", "rows"})
        equal("eval: rows", before["rows"], HELD_OUT)
        plan = json.loads(tool("plan", "--model", model, "--data", top + "/train.jsonl", "--eval", top + "/held-out.jsonl",
                               *TEMPLATES, "--method", "lora", *[x for s in SETTINGS for x in ("--set", s)], "--out",
                               top + "/none", "--json"))
        check("plan writes nothing", not os.path.exists(top + "/none"))
        peak, args = train(top, model)
        with open(top + "/log.jsonl") as f:
            steps = [json.loads(line) for line in f]
        equal("log: steps", [s["step"] for s in steps], list(range(1, STEPS + 1)))
        check("log: keys", all(LOG_KEYS <= set(s) for s in steps))
        check("log: finite", all(math.isfinite(s["loss"]) for s in steps))
        after = json.loads(tool(*evaluate, "--adapter", top + "/adapter"))
        fall = before["loss"] - after["loss"]
        check("the held-out loss falls by more than a third of a nat", fall > 1 / 3,
              "%.4f to %.4f, by %.3f" % (before["loss"], after["loss"], fall))
        close("the last evaluation in the log is eval's", steps[-1].get("eval_loss") or 0, after["loss"], 1e-5)
        ratio = plan["peak_bytes"] / max(s["peak_bytes"] for s in steps)
        check("the plan's peak is within 5 % of the run's", abs(ratio - 1) <= 0.05,
              "planned %.1f MiB, %.3f of it" % (plan["peak_bytes"] / 2**20, ratio))
        check("the process stays within 1.1 times the plan", peak <= 1.1 * plan["peak_bytes"],
              "%.1f MiB resident" % (peak / 2**20))
        equal("the plan's trainable parameters", plan["trainable_parameters"], 4884480)
        other_commands(top, model)
        if log_out:
            write_log(args, top, model, steps, before, after, peak)


def other_commands(top, model):
    info = json.loads(tool("info", model, "--json"))
    equal("info: architecture and parameters", (info["architecture"], info["parameters"]), ("llama", 134515008))
    info = json.loads(tool("info", top + "/adapter", "--json"))
    equal("info of the adapter: method", info["method"], "lora")
    prompt = smollm2.e2e_texts(smollm2.e2e("dev", 1)[0])[0]
    answer = tool("generate", "--model", model, "--adapter", top + "/adapter", "--prompt", prompt, "--max-new", "32")
    check("generate answers", len(answer.strip()) > 10, repr(answer.strip()[-60:]))
    tool("merge", "--model", model, "--adapter", top + "/adapter", "--out", top + "/merged.gguf")
    merged = tool("generate", "--model", top + "/merged.gguf", "--prompt", prompt, "--max-new", "32")
    check("the merged GGUF, in the base's types, answers", len(merged.strip()) > 10, repr(merged.strip()[-60:]))


# What a method cannot do without on this model.
WANTED = {"compacter": ["reduction_factor=16"], "compacter++": ["reduction_factor=16"], "trainable_tokens": ["token_indices=[1,2,5,9]"],
          "fusion": ["adapters=a,b"], "multitask_prompt": ["num_tasks=2"]}


def every_method():
    """Three steps of each method on the real task, from the command line: it ends, nothing diverges, and what was saved acts."""
    model = smollm2.gguf_path()
    names = []
    while peftlib.lib.peft_method_name(ctypes.c_size_t(len(names))) is not None:
        names.append(peftlib.lib.peft_method_name(ctypes.c_size_t(len(names))).decode())
    with tempfile.TemporaryDirectory() as top:
        smollm2.write_jsonl(top + "/train.jsonl", smollm2.e2e("train", 16))
        smollm2.write_jsonl(top + "/held-out.jsonl", smollm2.e2e("dev", 2))
        before = evaluated(top, model)
        for name in names + ["lora,pfeiffer,prompt"]:
            try:
                one_method(top, model, name, before)
            except RuntimeError as error:
                known = name == "bitfit" and "there is no bias to train" in str(error)
                check("train --method %s" % name, known, str(error)[-200:])


def evaluated(top, model, *more):
    return json.loads(tool("eval", "--model", model, "--data", top + "/held-out.jsonl", *TEMPLATES, "--json", *more))["loss"]


def one_method(top, model, name, before):
    if name == "union":  # what several methods at once make
        return
    out, adapters = "%s/%s" % (top, name.replace(",", "-")), []
    for part in ("a", "b") if name == "fusion" else ():
        tool("train", "--model", model, "--data", top + "/train.jsonl", *TEMPLATES, "--method", "pfeiffer", "--out", top + "/" + part,
             "--set", "max_steps=2", "--set", "batch_size=4", "--quiet")
        adapters += ["--adapter", part + "=" + top + "/" + part]
    sets = [x for s in WANTED.get(name, []) + ["max_steps=3", "batch_size=2", "max_length=256"] for x in ("--set", s)]
    tool("train", "--model", model, "--data", top + "/train.jsonl", *TEMPLATES, "--method", name, "--out", out, "--json-log",
         out + ".log", "--quiet", *adapters, *sets)
    with open(out + ".log") as log:
        losses = [json.loads(line)["loss"] for line in log]
    base, more = (out, []) if name == "full" else (model, adapters + ["--adapter", "new=" + out, "--compose", "new"])
    after = evaluated(top, base, *more)
    good = len(losses) == 3 and all(map(math.isfinite, losses)) and after != before and after < before + 0.7
    check("train --method %s" % name, good, "steps %s, held-out %.3f, alone %.3f" % (["%.2f" % x for x in losses], after, before))
    shutil.rmtree(out)


if __name__ == "__main__":
    main(e2e_run, every_method)
