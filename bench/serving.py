#!/usr/bin/env python3
"""Rows that are continued together (libpeft alone: no peer has it): 8 rows with 8 different LoRAs beside 8 rows with one and 8 with none;
1,000 LoRAs over one base, and what it costs to go from one to another; a beginning that 8 rows have in common.

SmolLM2-135M, float32. Sessions take turns pass by pass, so that they see the same machine: a figure is the median of its passes, a ratio
that of neighbouring passes. The model of "allowed": a pass reads all of the base once, and each different adapter once, so that with n of
them it takes (base + n adapters) / (base + one) times the bytes.

    serving.py [--threads 1,2] [--passes 40] [--out FILE]
"""
import argparse
import gc
import os
import statistics
import sys
import time

from sides import cpu, publish, quiet_environment

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
sys.path[:0] = [os.path.join(ROOT, "tests", "peers"), os.path.join(ROOT, "bindings", "python")]
os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(BUILD, "libpeft.so"))
ROWS, THOUSAND = 8, 1000
SHAPES = {"r = 8 on q and v": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
          "r = 16 on all linear layers": {"r": 16, "target_modules": "all-linear"}}


def prompt(seed, n):
    return [5 + (i * 7919 + seed * 104729) % 30000 for i in range(n)]


def passes(libpeft, adapters, count):
    """Seconds of each pass with no adapter, one, and one for each row, in turns."""
    sessions, seconds = [], ([], [], [])
    for kind in range(3):
        session = libpeft.Session(adapters, "")
        for i in range(ROWS):
            expression = ("", "a0", "a%d" % i)[kind]
            session.add_row(prompt(i, 16), expression, max_new_tokens=count + 8, ignore_eos=True)
        sessions.append(session)
    for i in range(count + 4):
        for session, times in zip(sessions, seconds):
            begun = time.perf_counter()
            session.next_tokens()
            times.append(time.perf_counter() - begun)
    return [times[4:] for times in seconds]  # the first ones read the prompts, and memory for the first time


def ratio(a, b):
    return statistics.median(x / y for x, y in zip(a, b))


def rows_table(libpeft, folder, threads, count):
    lines = ["| adapters | threads | tokens/s with none, one, eight | eight / one (allowed by the bytes) | eight / none (allowed) |",
             "|---|---|---|---|---|"]
    for shape, options in SHAPES.items():
        for n in threads:
            model = libpeft.Model.open(folder, context=libpeft.Context(threads=n))
            adapters = model.adapters()
            for i in range(ROWS):
                adapters.add("a%d" % i, "lora", seed=i, **options)
            base = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f.endswith(".safetensors"))
            own = adapters["a0"].info()["bytes"]
            none, one, eight = passes(libpeft, adapters, count)
            allowed = (base + own) / (base + ROWS * own), base / (base + ROWS * own)
            speeds = ", ".join("%.0f" % (ROWS / statistics.median(times)) for times in (none, one, eight))
            lines.append("| %s | %d | %s | %.2f (%.2f) | %.2f (%.2f) |" % (shape, n, speeds, ratio(one, eight), allowed[0], ratio(none, eight),
                                                                         allowed[1]))
            print(lines[-1], file=sys.stderr)
            del adapters, model
            gc.collect()
    return lines


def thousand(libpeft, folder):
    context = libpeft.Context(threads=1)
    model = libpeft.Model.open(folder, context=context)
    adapters = model.adapters()
    before = context.memory().now
    for i in range(THOUSAND):
        adapters.add("a%d" % i, "lora", seed=i, **SHAPES["r = 8 on q and v"])
    each = adapters["a0"].info()["bytes"]
    taken = context.memory().now - before
    session = libpeft.Session(adapters, "a0")
    switch, join = [], []
    for i in range(50):
        begun = time.perf_counter()
        session.set_adapters("a%d" % (i * 37 % THOUSAND))
        switch.append(time.perf_counter() - begun)
    for i in range(ROWS):
        session.add_row(prompt(i, 4), "a%d" % i, max_new_tokens=1000, ignore_eos=True)
    for i in range(30):  # the ninth row is a different one each time
        begun = time.perf_counter()
        row = session.add_row(prompt(i, 4), "a%d" % (100 + i), max_new_tokens=4, ignore_eos=True)
        join.append(time.perf_counter() - begun)
        row.remove()
    return ["%d LoRAs (r = 8 on q and v, %.2f MiB each) over one base take %.3f times their bytes, %.0f MiB. From one to another: %.2f ms "
            "for a session, %.2f ms for a row that joins 8 others with other adapters." % (
                THOUSAND, each / 2**20, taken / (THOUSAND * each), taken / 2**20, 1e3 * statistics.median(switch),
                1e3 * statistics.median(join))]


def beginning(libpeft, folder):
    model = libpeft.Model.open(folder, context=libpeft.Context(threads=2))
    common, taken = prompt(0, 384), []
    for held in (False, True):
        session = libpeft.Session(model)
        begun = time.perf_counter()
        if held:
            session.add_row(common, max_new_tokens=0, hold=True)
        rows = [session.add_row(common + prompt(i, 12), max_new_tokens=1, ignore_eos=True) for i in range(ROWS)]
        while not all(row.ended for row in rows):
            session.next_tokens()
        taken.append(time.perf_counter() - begun)
    return ["%d rows that begin with the same %d tokens, to their first token, 2 threads: %.2f s when each is read, %.2f s when a held row "
            "has them (%.1f times)." % (ROWS, len(common), *taken, taken[0] / taken[1])]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--threads", default="1,2")
    p.add_argument("--passes", type=int, default=40)
    p.add_argument("--out", default=os.path.join(ROOT, "docs", "benchmarks-serving.md"))
    args = p.parse_args()
    quiet_environment()
    import libpeft
    import smollm2
    folder = smollm2.hf_folder()
    load = os.getloadavg()[0]
    table = rows_table(libpeft, folder, [int(n) for n in args.threads.split(",")], args.passes)
    text = ["# Benchmarks of rows together", "",
            "Rows that one session continues together, each with adapters of its own ([many adapters](many-adapters.md)), written by `make bench`",
            "(`bench/serving.py`). SmolLM2-135M, float32, 8 rows; what the bytes allow: a pass reads the base once and each adapter once.", "",
            "- Machine: %s; load average when it began %.1f (a quiet machine has 0)" % (cpu(), load),
            "- libpeft %s; %d passes of each, in turns; medians, and the medians of neighbouring passes' ratios" % (
                libpeft.version_string(), args.passes), ""]
    text += table + [""] + thousand(libpeft, folder) + [""] + beginning(libpeft, folder)
    publish("\n".join(text) + "\n", args.out)


if __name__ == "__main__":
    main()
