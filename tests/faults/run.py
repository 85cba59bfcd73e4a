"""run.py - every call of the system that the tool makes for its files fails once: see run.sh.

    run.py PEFT INJECT.so WORK

For each command and each of its calls below the folder that it reads or writes, and for each way to fail: the command either succeeds
(EINTR, a short read or write) with the very files of an undisturbed run, or ends with code 1 and a message that names the file; the
files are then the old ones or the new ones, each whole, no temporary file is left, and the same command then succeeds.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys

PEFT, INJECT, WORK = sys.argv[1:4]
WAYS = {"open": ("EIO",), "close": ("EIO", "EINTR"), "read": ("EIO", "EINTR", "short"), "write": ("EIO", "ENOSPC", "EINTR", "short"),
        "fsync": ("EIO", "EINTR"), "rename": ("EIO", "ENOSPC"), "mkdir": ("EIO", "ENOSPC"), "mmap": ("EIO",), "fstat": ("EIO",),
        "ftruncate": ("EIO",)}
PASSING = {"EINTR", "short"}  # what no caller should notice
passed = failed = 0


def check(good, what):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok", what, flush=True)


def run(command, under=None, at=0, how="EIO", log=None):
    env = dict(os.environ, PEFT_THREADS="1")
    if under:
        env.update(LD_PRELOAD=INJECT, FAULT_UNDER=under, FAULT_AT=str(at), FAULT_HOW=how)
    if log:
        env["FAULT_LOG"] = log
    return subprocess.run([PEFT] + command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)


def files(folder):
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, folder)] = hashlib.sha256(f.read()).hexdigest()
    return found


def same(found, wanted, loose):
    """Equal but for files with times in them."""
    keep = lambda d: {k: v for k, v in d.items() if k not in loose}
    return keep(found) == keep(wanted)


class Case:
    """A command that reads or writes below `folder`; `old`: what it replaces (a command too), or None."""

    def __init__(self, name, command, folder, old=None, loose=()):
        self.name, self.command, self.folder, self.old, self.loose = name, command, folder, old, set(loose)

    def prepare(self):
        if not self.name.startswith("write"):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.endswith("gguf"):  # merge makes no folder for a file
            os.makedirs(self.folder)
        if self.old:
            check(run(self.old).returncode == 0, "%s: what is replaced is made" % self.name)

    def calls(self):
        log = os.path.join(WORK, "calls")
        if os.path.exists(log):
            os.remove(log)
        done = run(self.command, self.folder, log=log)
        check(done.returncode == 0, "%s runs: %s" % (self.name, done.stderr.decode()))
        with open(log, encoding="utf-8") as f:
            return [line.split(" ", 2)[1:] for line in f.read().splitlines()]


def attempt(case, number, call, path, how, old, new):
    what = "%s: call %d, %s %s, %s" % (case.name, number, call, os.path.basename(path), how)
    done = run(case.command, case.folder, number, how)
    text = done.stderr.decode("utf-8", "replace")
    found = files(case.folder)
    left = [name for name in found if ".tmp-" in name]
    check(done.returncode in (0, 1), "%s: code %d: %s" % (what, done.returncode, text))
    check(not left, "%s leaves %s" % (what, left))
    if how in PASSING:
        check(done.returncode == 0 and same(found, new, case.loose), "%s is noticed: %s" % (what, text))
    elif done.returncode == 1:
        check(os.path.basename(path).split(".tmp-")[0] in text or case.folder in text, "%s does not name the file: %s" % (what, text))
    for name, value in found.items():
        check(name in case.loose or value in (old.get(name), new.get(name)), "%s: %s is neither old nor new" % (what, name))
    if case.old and done.returncode == 1:
        check(set(old) <= set(found), "%s: %s is gone" % (what, set(old) - set(found)))
    again = run(case.command)
    check(again.returncode == 0 and same(files(case.folder), new, case.loose), "%s: a retry: %s" % (what, again.stderr.decode()))


def try_all(case):
    case.prepare()
    old = files(case.folder)
    calls = case.calls()
    new = files(case.folder)
    check(len(calls) > 1, "%s makes only %d calls" % (case.name, len(calls)))
    for number, (call, path) in enumerate(calls, 1):
        for how in WAYS[call]:
            case.prepare()
            attempt(case, number, call, path, how, old, new)
    print("%s: %d calls" % (case.name, len(calls)), flush=True)


def main():
    model, rows, out = (os.path.join(WORK, name) for name in ("model", "rows.jsonl", "out"))
    train = lambda seed: ["train", "--model", model, "--data", rows, "--out", out, "--quiet", "--set", "max_steps=2", "--set", "batch_size=2",
                          "--set", "r=2", "--set", "seed=%d" % seed]
    adapter = os.path.join(WORK, "adapter")
    check(run([w if w != out else adapter for w in train(1)]).returncode == 0, "an adapter to read")
    merged, gguf, data, both = (os.path.join(WORK, name) for name in ("merged", "gguf", "data", "both"))
    for folder in (gguf, data):
        os.makedirs(folder)
    shutil.copy(rows, data)
    jobs = os.path.join(WORK, "jobs.json")
    with open(jobs, "w", encoding="utf-8") as f:
        json.dump({"jobs": [{"name": n, "data": rows, "options": {"r": 2}} for n in "ab"], "options": {"batch_size": 2, "max_steps": 2}}, f)
    to_gguf = ["merge", "--model", model, "--adapter", adapter, "--out", os.path.join(gguf, "model.gguf")]
    for case in (
            Case("write an adapter", train(1), out, loose=("trainer/state.safetensors",)),
            Case("write over an adapter", train(1), out, old=train(2), loose=("trainer/state.safetensors",)),
            Case("write a merged model", ["merge", "--model", model, "--adapter", adapter, "--out", merged], merged),
            Case("write a GGUF file", to_gguf, gguf),
            Case("write two adapters", ["train", "--model", model, "--jobs", jobs, "--out", both, "--quiet"], both,
                 loose=("trainer/state.safetensors",)),
            Case("read a GGUF file", ["eval", "--model", os.path.join(gguf, "model.gguf"), "--data", rows], gguf),
            Case("read rows", ["eval", "--model", model, "--data", os.path.join(data, "rows.jsonl")], data),
            Case("read a model", ["eval", "--model", model, "--data", rows], model),
            Case("read an adapter", ["eval", "--model", model, "--adapter", adapter, "--data", rows], adapter)):
        try_all(case)
    print("%d passed, %d failed" % (passed, failed))
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
