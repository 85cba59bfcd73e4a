#!/usr/bin/env python3
"""Generation beside llama.cpp: tokens a second of a prompt of 512 (prefill) and of one token after the other (decode), in one
interleaved run, for a file of each type.

SmolLM2-135M. The files are written by `peft merge` from the Q4_1 file; each side opens the same one. Sides are processes that take
turns (sides.py); a figure is the median of the turns, a ratio the median of the ratios of neighbouring turns. Both sides' greedy
tokens are compared: llama.cpp rounds activations to 8 bits for quantised types, so that its texts differ there sooner or later.

    inference.py [--turns 5] [--threads 1,2] [--types F32,BF16,Q8_0,Q4_1] [--out FILE] [--quick]
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
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))
PROMPT, BEFORE, TOKENS = 512, 16, 48
TYPES = {"F32": "float32", "BF16": "bfloat16", "Q8_0": "q8_0", "Q4_1": "q4_1"}


def prompt(count):
    return [5 + (i * 7919) % 40000 for i in range(count)]


def our_work(path, threads):
    sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))
    os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "libpeft.so"))
    import libpeft
    session = libpeft.Session(libpeft.Model.open(path, context=libpeft.Context(threads=threads)))
    return lambda ids, count: session.generate(ids, max_new_tokens=count, temperature=0.0, ignore_eos=True)


def their_work(path, threads):
    import llama_cpp
    model = llama_cpp.Llama(path, n_ctx=1024, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=threads, n_threads_batch=threads, verbose=False)

    def work(ids, count):
        model.reset()
        model.eval(ids)
        out = [int(model.sample(temp=0.0))]
        while len(out) < count:
            model.eval(out[-1:])
            out.append(int(model.sample(temp=0.0)))
        return out
    return work


def worker(job):
    work = (our_work if job["side"] == "libpeft" else their_work)(job["path"], job["threads"])
    work(prompt(BEFORE), 4)  # the first allocates
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        times = []
        for ids, count in ((prompt(PROMPT), 1), (prompt(BEFORE), 1), (prompt(BEFORE), 1 + TOKENS)):
            begun = time.perf_counter()
            tokens = work(ids, count)
            times.append(time.perf_counter() - begun)
        print(json.dumps({"prefill": PROMPT / times[0], "decode": TOKENS / (times[2] - times[1]), "tokens": tokens}), flush=True)


def files(top, types):
    """A GGUF file of each type."""
    import smollm2
    for t in types:
        path = os.path.join(top, t + ".gguf")
        if t == "Q4_1":
            os.symlink(smollm2.gguf_path(), path)
        else:
            subprocess.run([os.environ.get("PEFT", os.path.join(ROOT, "build", "peft")), "merge", "--model", smollm2.gguf_path(),
                            "--out", path, "--set", "dtype=" + TYPES[t], "--quiet"], check=True)


def same(a, b):
    """How many tokens are equal from the first on."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def compare(path, threads, turns):
    sides = {s: Side(__file__, {"side": s, "threads": threads, "path": path}) for s in ("libpeft", "llama.cpp")}
    found = {s: [] for s in sides}
    for _ in range(turns):
        for s, side in sides.items():
            time.sleep(0.2)  # the other's threads have gone to sleep
            found[s].append(side.turn("go"))
    for side in sides.values():
        side.close()
    row = {"same": same(found["libpeft"][0]["tokens"], found["llama.cpp"][0]["tokens"])}
    for what in ("prefill", "decode"):
        ours, theirs = ([turn[what] for turn in found[s]] for s in sides)
        ratios = [a / b for a, b in zip(ours, theirs)]
        row[what] = (statistics.median(ours), statistics.median(theirs), statistics.median(ratios), min(ratios), max(ratios))
    return row


def report(rows, args, load):
    import importlib.metadata
    out = ["# Benchmarks of generation", "",
           "Generation beside llama.cpp in one interleaved run, written by `make bench` (`bench/inference.py`). SmolLM2-135M, greedy; a prompt",
           "of %d tokens, and %d tokens after one of %d." % (PROMPT, TOKENS, BEFORE), "",
           "- Machine: %s; load average when it began %.1f (a quiet machine has 0)" % (cpu(), load),
           "- Versions: llama-cpp-python %s" % importlib.metadata.version("llama-cpp-python"),
           "- Turns: %d for each side, alternating; medians, and the ratios' range" % args.turns, "",
           "| type | threads | prefill tokens/s: libpeft, llama.cpp | ratio (range) | decode tokens/s: libpeft, llama.cpp | ratio (range) | "
           "equal tokens of %d |" % (TOKENS + 1), "|---|---|---|---|---|---|---|"]
    for (t, threads), r in rows.items():
        cells = ["%.0f, %.0f | %.2f (%.2f-%.2f)" % r[what] for what in ("prefill", "decode")]
        out.append("| %s | %d | %s | %s | %d |" % (t, threads, cells[0], cells[1], r["same"]))
    return "\n".join(out) + "\n"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=5)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--types", default=",".join(TYPES))
    p.add_argument("--out", default=os.path.join(ROOT, "docs", "benchmarks-generation.md"))
    p.add_argument("--quick", action="store_true", help="one turn, nothing written")
    p.add_argument("--worker")
    return p.parse_args()


def main():
    args = arguments()
    if args.worker:
        return worker(json.loads(args.worker))
    quiet_environment()
    args.turns = 1 if args.quick else args.turns
    load, types, rows = os.getloadavg()[0], args.types.split(","), {}
    with tempfile.TemporaryDirectory() as top:
        files(top, types)
        for t in types:
            for threads in map(int, args.threads.split(",")):
                rows[t, threads] = compare(os.path.join(top, t + ".gguf"), threads, args.turns)
                print(t, threads, rows[t, threads], file=sys.stderr)
    text = report(rows, args, load)
    publish(text, None if args.quick else args.out)


if __name__ == "__main__":
    main()
