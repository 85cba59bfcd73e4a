#!/usr/bin/env python3
"""Training beside HF PEFT on torch: tokens a second and peak memory, as ratios inside one run.

SmolLM2-135M, LoRA r = 16 on all linear layers, AdamW, fp32. Two batches: one row of 512 tokens, and 8 rows of e2e-nlg (about
60 tokens each; torch pads them, only real tokens count for both). Each side is a process of its own that waits on a pipe while
the other works, and their turns alternate (A B A B), so that both see the same machine; a figure is the median of the turns, a
ratio the median of the ratios of neighbouring turns. Peak memory is the process's largest resident set, ru_maxrss, of a fresh
process that trains and nothing else: the interpreter and, for torch, its libraries are in it, as in an application.

    bench.py [--turns 5] [--steps 2] [--threads 1,2] [--cpu-time] [--out FILE] [--quick]
"""
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

from sides import Side, cpu, publish, quiet_environment

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))
RANK, ALPHA, RATE = 16, 32, 1e-4
BATCHES = {"1 x 512": "one row of 512 tokens", "8 x 60": "8 rows of e2e-nlg"}
SIDES = {"libpeft": "libpeft", "peft": "HF PEFT", "libpeft-q4": "libpeft over the Q4_1 file"}


# ---- what a process of one side does: sets up, then a turn for each line on its input ------------------------------------

def our_step(model, rows, labels, threads):
    import peftlib
    ctx = peftlib.Context(threads=threads)
    adapters = peftlib.Adapters(peftlib.Model(ctx, model))
    adapters.add("a", "lora", dict(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
    data = peftlib.Dataset(ctx).add_rows(rows, labels)
    trainer = peftlib.Trainer(adapters, "a", data, batch_size=len(rows), max_steps=10**6,
                              optimizer=dict(learning_rate=RATE, lr_scheduler_type="constant"))
    batch = peftlib.Batch(ctx, rows, labels)

    def step():
        loss = trainer.accumulate(batch)
        trainer.apply()
        return loss
    return step


def peer_step(model, rows, labels, threads):
    import torch
    torch.set_num_threads(threads)
    import transformers
    from peft import LoraConfig, get_peft_model
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    lora = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"))
    lora.train()
    parameters = [p for p in lora.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    marks = torch.tensor([l + [-100] * (longest - len(l)) for l in labels])
    mask = None if all(len(r) == longest for r in rows) else mask

    def step():
        loss = lora(input_ids=ids, attention_mask=mask, labels=marks, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()
    return step


def worker(job):
    with open(job["batch"], encoding="utf-8") as f:
        rows, labels = json.load(f)
    step = (peer_step if job["side"] == "peft" else our_step)(job["model"], rows, labels, job["threads"])
    loss = step()  # the first allocates and packs
    print(json.dumps({"loss": loss}), flush=True)
    for line in sys.stdin:
        begun, used = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            loss = step()
        print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - used, "loss": loss,
                          "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


# ---- the process that calls them in turn -----------------------------------------------------------------------------------

def prepare():
    """Models and batches, made by a process that may load the peers; their paths."""
    done = subprocess.run([sys.executable, os.path.abspath(__file__), "--prepare"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.decode().splitlines()[-1])


def prepare_files():
    import gguf
    import llama_cpp  # its reading of the tokens is independent of both sides
    import peft
    import torch
    import transformers
    import checks
    import peftlib
    import smollm2
    vocab = llama_cpp.Llama(smollm2.gguf_path(), vocab_only=True, verbose=False)
    pairs = []
    for row in smollm2.e2e("train", 8):
        prompt, completion = (vocab.tokenize(t.encode(), add_bos=False) for t in smollm2.e2e_texts(row))
        pairs.append((prompt + completion + [2], [-100] * len(prompt) + completion + [2]))
    text = " ".join(r["refs"][0] for r in smollm2.e2e("train", 60))
    long = vocab.tokenize(text.encode(), add_bos=False)[:512]
    assert len(long) == 512
    batches = {"1 x 512": ([long], [long]), "8 x 60": ([a for a, _ in pairs], [b for _, b in pairs])}
    out = {"folder": smollm2.hf_folder(), "gguf": smollm2.gguf_path(), "batches": {}, "tokens": {}}
    for name, batch in batches.items():
        path = os.path.join(checks.CACHE, "bench-%s.json" % name.replace(" ", ""))
        with open(path, "w", encoding="utf-8") as f:
            json.dump(batch, f)
        out["batches"][name], out["tokens"][name] = path, sum(map(len, batch[0]))
    out["versions"] = "libpeft %s (kernels %s), torch %s, transformers %s, peft %s, Python %s" % (
        peftlib.lib.peft_version_string().decode(), peftlib.Context().isa(), torch.__version__, transformers.__version__,
        peft.__version__, platform.python_version())
    print(json.dumps(out))


def compare(files, batch, threads, args):
    """Turns of both sides on one batch; a row of the table."""
    jobs = {s: {"side": s, "threads": threads, "batch": files["batches"][batch],
                "model": files["gguf" if s == "libpeft-q4" else "folder"]} for s in SIDES}
    sides = {s: Side(__file__, jobs[s]) for s in ("libpeft", "peft")}
    clock, speeds, ratios = "cpu" if args.cpu_time else "seconds", {"libpeft": [], "peft": []}, []
    for turn in range(args.turns):
        for s, side in sides.items():
            time.sleep(0.3)  # the other's threads have gone to sleep
            speeds[s].append(args.steps * files["tokens"][batch] / side.turn(args.steps)[clock])
        ratios.append(speeds["libpeft"][-1] / speeds["peft"][-1])
        print("%s, %d thread(s), turn %d: %.0f and %.0f tokens/s, ratio %.2f" %
              (batch, threads, turn + 1, speeds["libpeft"][-1], speeds["peft"][-1], ratios[-1]), file=sys.stderr)
    first = {s: side.first["loss"] for s, side in sides.items()}
    for side in sides.values():
        side.close()
    peaks = {s: peak(jobs[s]) for s in SIDES}
    return {"batch": batch, "threads": threads, "speed": {s: statistics.median(v) for s, v in speeds.items()},
            "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "peaks": peaks, "loss": first}


def peak(job):
    side = Side(__file__, job)
    out = side.turn(3)["peak"]
    side.close()
    return out


def report(files, rows, args, load):
    mib = lambda n: "%.0f" % (n / 2**20)
    out = ["# Benchmarks", "",
           "Training beside HF PEFT on torch in one interleaved run, written by `make bench` (`bench/bench.py`). SmolLM2-135M, "
           "LoRA r = 16 on all linear layers, AdamW, fp32; both sides open the same float32 safetensors folder.", "",
           "- Machine: %s; load average when it began %.1f (a quiet machine has 0)" % (cpu(), load),
           "- Versions: %s" % files["versions"],
           "- Turns: %d of %d steps for each side, alternating; medians, and the ratios' range%s" %
           (args.turns, args.steps, "; CPU time, not wall time" if args.cpu_time else ""), "",
           "| batch | threads | libpeft tokens/s | HF PEFT tokens/s | ratio (range) | libpeft peak MiB | HF PEFT peak MiB | "
           "share of the memory | peak over the Q4_1 file MiB |", "|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        out.append("| %s (%d tokens) | %d | %.0f | %.0f | %.2f (%.2f-%.2f) | %s | %s | %.2f | %s |" % (
            BATCHES[r["batch"]], files["tokens"][r["batch"]], r["threads"], r["speed"]["libpeft"], r["speed"]["peft"],
            r["ratio"], r["low"], r["high"], mib(r["peaks"]["libpeft"]), mib(r["peaks"]["peft"]),
            r["peaks"]["libpeft"] / r["peaks"]["peft"], mib(r["peaks"]["libpeft-q4"])))
    out += ["", "Peak memory is the largest resident set of a fresh process that trains three steps, with its interpreter and "
            "libraries; for libpeft the mapped base counts as far as it is resident. First losses of both sides (equal "
            "initial models, B = 0): " + ", ".join(sorted({"%.5f and %.5f (%s)" % (
                r["loss"]["libpeft"], r["loss"]["peft"], r["batch"]) for r in rows})) + "."]
    return "\n".join(out) + "\n"


def roofline(files, threads):
    """One `peft bench` as lines of a table: each op's time beside what the machine could do."""
    tool = os.environ.get("PEFT", os.path.join(BUILD, "peft"))
    done = subprocess.run([tool, "bench", "--model", files["folder"], "--threads", str(threads), "--set", "r=%d" % RANK, "--set",
                           "target_modules=all-linear", "--json"], stdout=subprocess.PIPE, check=True)
    b = json.loads(done.stdout)
    out = ["", "%d thread%s: peak %.0f GFLOP/s, bandwidth %.1f GB/s; training %.0f tokens/s, prefill %.0f, decode %.1f (%.0f %% of the "
           "bandwidth)." % (threads, "" if threads == 1 else "s", b["limits"]["flops_per_second"] / 1e9,
                            b["limits"]["bytes_per_second"] / 1e9, b["training"]["tokens_per_second"],
                            b["prefill"]["tokens_per_second"], b["decode"]["tokens_per_second"],
                            100 * b["decode"]["share_of_limit"]), "",
           "| op | calls | ms | share | GFLOP/s | GB/s | of limit |", "|---|---|---|---|---|---|---|"]
    for op in b["ops"]:
        rate = lambda n: "%.1f" % (n / op["seconds"] / 1e9) if n > 0 and op["seconds"] > 0 else "-"
        limit = "%.0f %%%s" % (100 * min(op["share_of_limit"], 1), " +" if op["share_of_limit"] > 1 else "")
        out.append("| %s | %.0f | %.2f | %.1f %% | %s | %s | %s |" % (
            op["op"], op["calls"], 1e3 * op["seconds"], 100 * op["share"], rate(op["flops"]), rate(op["bytes"]),
            limit if op["share_of_limit"] > 0 else "-"))
    return out


def rooflines(files, args):
    out = ["", "## Roofline", "", "One step on 1 x 512 tokens by operation (`peft bench`); [where the time goes](profile.md) says how "
           "to read it."]
    for n in args.threads.split(","):
        out += roofline(files, int(n))
    return "\n".join(out) + "\n"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=5)
    p.add_argument("--steps", type=int, default=2)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--out", default=os.path.join(ROOT, "docs", "benchmarks.md"))
    p.add_argument("--cpu-time", action="store_true", help="each process's own CPU time, where others use the machine too")
    p.add_argument("--quick", action="store_true", help="one turn of one step, nothing written")
    p.add_argument("--worker")
    p.add_argument("--prepare", action="store_true")
    return p.parse_args()


def main():
    args = arguments()
    if args.worker:
        return worker(json.loads(args.worker))
    if args.prepare:
        return prepare_files()
    quiet_environment()
    if args.quick:
        args.turns = args.steps = 1
    load = os.getloadavg()[0]
    files = prepare()
    rows = [compare(files, batch, int(n), args) for batch in BATCHES for n in args.threads.split(",")]
    text = report(files, rows, args, load) + rooflines(files, args)
    publish(text, None if args.quick else args.out)


if __name__ == "__main__":
    main()
