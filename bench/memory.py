#!/usr/bin/env python3
"""Memory, and what it costs in speed: peaks of training with and without limits and with saved activations in bfloat16, quantised bases
and two threads beside float32 and one, long rows, and the time from a process's start to its first forward pass.

SmolLM2-135M, LoRA r = 16 on all linear layers, one row. A peak is the largest resident set of a fresh process of the tool (`peft train`,
one step): libpeft, the tokenizer and the mapped base as far as it is resident, no interpreter. Speeds are of processes that take turns
(sides.py), each figure the median of the turns, each ratio the median of the ratios of neighbouring turns.

    memory.py [--turns 3] [--threads 2] [--out FILE] [--quick]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from sides import Side, cpu, publish, quiet_environment

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
TOOL = os.environ.get("PEFT", os.path.join(BUILD, "peft"))
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))
ADAPTER = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
HALF = {"activation_dtype": "bfloat16"}
MIB = 2**20
# name: (base, tokens, options, MiB that the peak may have)
PEAKS = {
    "F32": ("F32", 512, {}, 1000),
    "F32, memory_limit": ("F32", 512, {"memory_limit": 690 * MIB}, 700),
    "Q4_1": ("Q4_1", 512, {}, 580),
    "Q4_1, memory_limit": ("Q4_1", 512, {"memory_limit": 283 * MIB}, 290),
    "Q4_1, bfloat16 activations": ("Q4_1", 512, HALF, 420),
    "F32, 2,048 tokens": ("F32", 2048, {}, 2048),
    "F32, 2,048 tokens, memory_limit": ("F32", 2048, {"memory_limit": 1014 * MIB}, 1024),
}
# name: (base, options, threads of the first, of the second; None: --threads; asked of the ratio first / second)
RATIOS = {
    "F32 with memory_limit / F32": (("F32", {"memory_limit": 690 * MIB}, None), ("F32", {}, None), 0.75),
    "Q8_0 / F32": (("Q8_0", {}, None), ("F32", {}, None), 0.9),
    "Q4_1 / F32": (("Q4_1", {}, None), ("F32", {}, None), 0.9),
    "Q4_1, bfloat16 activations / Q4_1": (("Q4_1", HALF, None), ("Q4_1", {}, None), None),
    "F32, 2 threads / 1": (("F32", {}, 2), ("F32", {}, 1), 1.85),
    "matrix product (numpy), 2 threads / 1": (("product", {}, 2), ("product", {}, 1), None),
}
LENGTHS = (512, 1024, 2048, 4096)
THEIRS = """
import torch, transformers, peft, sys
torch.set_num_threads(int(sys.argv[2]))
m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
m = peft.get_peft_model(m, peft.LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
m(input_ids=torch.tensor([[5, 6, 7]]))
"""


def row(count):
    return [5 + (i * 7919) % 40000 for i in range(count)]


def product():
    import numpy
    a = numpy.ones((1024, 1024), numpy.float32)
    return lambda: [a @ a for _ in range(20)]


def training(job):
    sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))
    os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(BUILD, "libpeft.so"))
    import libpeft
    adapters = libpeft.Model.open(job["path"], context=libpeft.Context(threads=job["threads"])).adapters()
    adapters.add("a", "lora", **ADAPTER)
    rows = libpeft.Dataset([{"input_ids": row(job["tokens"])}], max_length=job["tokens"])
    trainer = libpeft.Trainer(adapters, rows, adapter="a", batch_size=1, max_steps=10**6, learning_rate=1e-4,
                              lr_scheduler_type="constant", **job["options"])
    steps = iter(trainer)
    return lambda: next(steps), trainer.plan()


def worker(job):
    work, plan = (product(), {}) if job["path"] == "product" else training(job)
    work()  # the first allocates
    print(json.dumps({"plan": plan}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        work()
        print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)


def side(files, base, options, threads, tokens=512):
    os.environ.update(OPENBLAS_NUM_THREADS=str(threads))
    return Side(__file__, {"path": files.get(base, base), "options": options, "threads": threads, "tokens": tokens})


# ---- what is measured ------------------------------------------------------------------------------------------------------------------

def make_files(top):
    """Paths of the bases, by a process of its own, which may load the peers."""
    done = subprocess.run([sys.executable, "-c", "import json, sys; sys.path.insert(0, %r); import smollm2\n"
                           "print(json.dumps({'F32': smollm2.hf_folder(), 'Q4_1': smollm2.gguf_path()}))" %
                           os.path.join(ROOT, "tests", "peers")], stdout=subprocess.PIPE, check=True)
    files = json.loads(done.stdout.decode().splitlines()[-1])
    files["Q8_0"] = os.path.join(top, "Q8_0.gguf")
    subprocess.run([TOOL, "merge", "--model", files["Q4_1"], "--out", files["Q8_0"], "--set", "dtype=q8_0", "--quiet"], check=True)
    return files


def peak(top, path, tokens, options, threads):
    """Bytes of a fresh `peft train`."""
    data = os.path.join(top, "rows-%d.jsonl" % tokens)
    with open(data, "w", encoding="utf-8") as f:
        f.write(json.dumps({"input_ids": row(tokens)}) + "\n")
    sets = dict(ADAPTER, batch_size=1, max_steps=1, max_length=tokens, **options)
    process = subprocess.Popen([TOOL, "train", "--model", path, "--data", data, "--out", os.path.join(top, "adapter"), "--threads",
                                str(threads), "--quiet"] + [a for k, v in sets.items() for a in ("--set", "%s=%s" % (k, v))])
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit("bench: peft train ended with status %d" % status)
    return used.ru_maxrss * 1024


def ratio(files, pair, args):
    a, b = (side(files, base, options, threads or args.threads) for base, options, threads in pair)
    seconds = []
    for _ in range(args.turns):
        seconds.append([])
        for s in (a, b):
            time.sleep(0.2)  # the other's threads have gone to sleep
            seconds[-1].append(s.turn("go")["seconds"])
    for s in (a, b):
        s.close()
    ratios = [y / x for x, y in seconds]
    return [statistics.median(512 / t[i] for t in seconds) for i in (0, 1)] + [statistics.median(ratios), min(ratios), max(ratios)]


def lengths(top, files, args):
    """By length: peak, tokens a second, and what they would be were every FLOP as fast as those of 512 tokens."""
    out, sides = [], {n: side(files, "F32", {}, args.threads, n) for n in LENGTHS}
    speeds = {n: [] for n in LENGTHS}
    for _ in range(1 if args.quick else args.turns):
        for n, s in sides.items():
            speeds[n].append(n / s.turn("go")["seconds"])
    flops = {n: s.first["plan"]["flops_per_step"] / n for n, s in sides.items()}
    kept = {n: s.first["plan"]["activation_bytes"] for n, s in sides.items()}
    for s in sides.values():
        s.close()
    for n in LENGTHS:
        out.append((n, peak(top, files["F32"], n, {}, args.threads), kept[n], statistics.median(speeds[n]),
                    statistics.median(a * flops[512] / flops[n] for a in speeds[512])))
    return out


def starts(top, files, args):
    """Seconds from a process's start to its end after one forward pass: ours, and theirs; and of an import."""
    ours = lambda base: [TOOL, "generate", "--model", files[base], "--prompt", "Hello", "--max-new", "1"]
    out = {}
    theirs = [sys.executable, "-c", THEIRS, files["F32"], str(args.threads)]
    for name, command in (("libpeft, Q4_1 file", ours("Q4_1")), ("HF PEFT, F32 folder", theirs)):
        times = []
        for _ in range(1 + args.turns):
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
        out[name] = statistics.median(times[1:])  # the first brings the files into the page cache
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env.update(PYTHONPATH=os.path.join(ROOT, "bindings", "python"), PYTHONPYCACHEPREFIX=top)  # compiled, as an installed package is
    program = "import time; begun = time.perf_counter(); import libpeft; print(time.perf_counter() - begun)"
    seconds = [float(subprocess.run([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, check=True).stdout)
               for _ in range(11)][1:]
    out["`import libpeft` in a Python that runs"] = statistics.median(seconds)
    return out


# ---- the page --------------------------------------------------------------------------------------------------------------------------

def verdict(met, asked):
    return "-" if asked is None else "met" if met else "**missed**"


def report(found, args, load):
    out = ["# Benchmarks of memory", "",
           "What training takes and what less of it costs, written by `make bench` (`bench/memory.py`). SmolLM2-135M, LoRA r = 16 on all",
           "linear layers, AdamW, one row, %d threads where nothing else is said." % args.threads, "",
           "- Machine: %s; load average when it began %.1f (a quiet machine has 0)" % (cpu(), load),
           "- Turns: %d for each side, alternating; medians, and the ratios' range" % args.turns, "", "## Peaks", "",
           "The largest resident set of a fresh `peft train`; a Python process has its interpreter on top.", "",
           "| base and options | peak MiB | at most | |", "|---|---|---|---|"]
    for name, n in found["peaks"].items():
        out.append("| %s | %.0f | %d | %s |" % (name, n / MIB, PEAKS[name][3], verdict(n <= PEAKS[name][3] * MIB, True)))
    out += ["", "## Speeds", "", "| what | tokens/s of both | ratio (range) | at least | |", "|---|---|---|---|---|"]
    for name, (a, b, r, low, high) in found["ratios"].items():
        asked = RATIOS[name][2]
        speeds = "-" if name.startswith("matrix") else "%.0f, %.0f" % (a, b)
        met = verdict(asked is None or r >= asked, asked)
        out.append("| %s | %s | %.2f (%.2f-%.2f) | %s | %s |" % (name, speeds, r, low, high, asked or "-", met))
    out += ["", "## Long rows", "", "One row of T tokens on F32. By arithmetic: were every FLOP as fast as at T = 512.", "",
            "| T | peak MiB | activations MiB | KiB a token | tokens/s | by arithmetic |", "|---|---|---|---|---|---|"]
    for n, top, kept, speed, wanted in found["lengths"]:
        out.append("| %d | %.0f | %.0f | %.0f | %.0f | %.0f |" % (n, top / MIB, kept / MIB, kept / n / 1024, speed, wanted))
    out += ["", "## Start", "", "From a process's start to its end after one forward pass, files in the page cache.", "",
            "| process | seconds |", "|---|---|"] + ["| %s | %.3f |" % item for item in found["starts"].items()]
    return "\n".join(out) + "\n"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", default=os.path.join(ROOT, "docs", "benchmarks-memory.md"))
    p.add_argument("--quick", action="store_true", help="one turn, nothing written")
    p.add_argument("--worker")
    return p.parse_args()


def main():
    args = arguments()
    if args.worker:
        return worker(json.loads(args.worker))
    quiet_environment()
    os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(BUILD, "libpeft.so"))
    args.turns = 1 if args.quick else args.turns
    load, found = os.getloadavg()[0], {"peaks": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as top:
        files = make_files(top)
        found["starts"] = starts(top, files, args)
        print(found["starts"], file=sys.stderr)
        for name, (base, tokens, options, _) in PEAKS.items():
            found["peaks"][name] = peak(top, files[base], tokens, options, args.threads)
            print(name, "%.1f MiB" % (found["peaks"][name] / MIB), file=sys.stderr)
        for name, (a, b, _) in RATIOS.items():
            found["ratios"][name] = ratio(files, (a, b), args)
            print(name, found["ratios"][name], file=sys.stderr)
        found["lengths"] = lengths(top, files, args)
    text = report(found, args, load)
    publish(text, None if args.quick else args.out)


if __name__ == "__main__":
    main()
