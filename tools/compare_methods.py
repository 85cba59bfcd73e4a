#!/usr/bin/env python3
"""Trains every method alike on the demo's data and writes the comparison into docs/methods/README.md.

Each method has its default options (MORE says where not), its own default learning rate, and the same steps, rows and seed. The
figures: trainable parameters and peak memory as `peft train` reports them, time of a step relative to LoRA's in the same run,
loss on held-out rows before and after. Standard library only.

    compare_methods.py [--peft TOOL] [--steps N] [--write] [METHOD...]
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEMO = os.path.join(ROOT, "examples", "demo")
PAGE = os.path.join(ROOT, "docs", "methods", "README.md")
BEGIN, END = "<!-- comparison: tools/compare_methods.py --write -->", "<!-- end of comparison -->"
METHODS = ["lora", "dora", "lora_fa", "adalora", "vera", "loha", "lokr", "oft", "boft", "ia3", "ln_tuning", "trainable_tokens",
           "houlsby", "pfeiffer", "parallel", "compacter", "compacter++", "pfeiffer_inv", "prompt", "multitask_prompt", "ptuning",
           "prefix", "ptuning_v2", "prefix_tuning", "mam", "unipelt", "lora,pfeiffer,prompt", "fusion", "head", "full"]
# Options that a method cannot do without here.
MORE = {"trainable_tokens": ["token_indices=[10,11,12,13,14,15,16,17,18,19]"], "compacter": ["reduction_factor=24"],
        "compacter++": ["reduction_factor=24"]}
MERGES = {"lora", "dora", "lora_fa", "adalora", "vera", "loha", "lokr", "oft", "boft", "ia3", "ln_tuning", "trainable_tokens", "head",
          "full"}


def run(args):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    return done.stdout


def evaluate(peft, *more):
    return json.loads(run([peft, "eval", "--model", DEMO + "/base/model.gguf", "--data", DEMO + "/heldout.jsonl", "--json", *more]))["loss"]


def train(peft, method, steps, out, *more):
    log = out + ".log"
    args = [peft, "train", "--model", DEMO + "/base/model.gguf", "--data", DEMO + "/train.jsonl", "--method", method, "--out", out,
            "--set", "max_steps=%d" % steps, "--set", "batch_size=8", "--json-log", log, "--quiet", *more]
    for item in MORE.get(method, []):
        args += ["--set", item]
    plan = json.loads(run([args[0], "plan"] + [a for a in args[2:]] + ["--json"]))
    run(args)
    rows = [json.loads(line) for line in open(log)]
    seconds = statistics.median([r["tokens"] / r["tokens_per_second"] for r in rows[len(rows) // 3:]])
    return plan["trainable_parameters"], seconds, max(r["peak_bytes"] for r in rows)


def measure(peft, method, steps, top):
    out = os.path.join(top, method.replace(",", "-").replace("+", "p"))
    adapters = []
    if method == "fusion":
        for name, seed in (("a", 1), ("b", 2)):
            train(peft, "pfeiffer", steps // 2, out + name, "--set", "seed=%d" % seed)
            adapters += ["--adapter", "%s=%s" % (name, out + name)]
        more = adapters + ["--set", "adapters=a,b"]
    else:
        more = []
    values = train(peft, method, steps, out, *more)
    if method == "full":
        loss = json.loads(run([peft, "eval", "--model", out, "--data", DEMO + "/heldout.jsonl", "--json"]))["loss"]
    else:
        loss = evaluate(peft, *adapters, "--adapter", "default=" + out, "--compose", "default")
    return values + (loss,)


def table(rows, before, lora_seconds, steps):
    lines = ["| Method | Trained | Peak memory | Time of a step | Held-out loss | Merges |", "|---|---|---|---|---|---|"]
    for method, (count, seconds, peak, loss) in rows:
        lines.append("| `%s` | %s | %.0f MiB | %.2f | %.3f | %s |" % (method, format(count, ","), peak / 2 ** 20, seconds / lora_seconds,
                                                                    loss, "yes" if method in MERGES else "no"))
    lines.append("")
    lines.append("The demo's base and rows, %d steps of 8 rows, default options and learning rates; the base alone has a held-out loss of "
                 "%.3f. Time is relative to `lora` in the same run. A few steps favour methods with many parameters or a good start; "
                 "they do not rank methods on other data." % (steps, before))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peft", default=os.path.join(ROOT, "build", "peft"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("methods", nargs="*")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as top:
        before = evaluate(args.peft)
        for method in args.methods or METHODS:
            rows.append((method, measure(args.peft, method, args.steps, top)))
            print("%-22s %9d parameters, %.0f ms, loss %.3f" % (method, rows[-1][1][0], 1e3 * rows[-1][1][1], rows[-1][1][3]), flush=True)
    text = table(rows, before, dict(rows)["lora"][1] if "lora" in dict(rows) else rows[0][1][1], args.steps)
    if not args.write:
        print(text)
        return
    page = open(PAGE).read()
    head, rest = page.split(BEGIN)
    open(PAGE, "w").write(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
