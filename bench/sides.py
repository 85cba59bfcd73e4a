"""sides.py - processes that take turns, so that those compared see the same machine; and which machine that is.

A side is a process of its own that waits on a pipe while the others work. The process that calls them stays small, because a
child's largest resident set begins with its parent's.
"""
import json
import os
import platform
import subprocess
import sys


class Side:
    """`script --worker JOB`: prints a line of JSON when it is ready, and one for each line of its input."""

    def __init__(self, script, job):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(script), "--worker", json.dumps(job)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.first = self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("bench: a process ended early with code %s" % self.process.wait())
        return json.loads(line)

    def turn(self, what):
        self.process.stdin.write("%s\n" % what)
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def quiet_environment():
    """Without settings of the machine that slow a peer down, or that let it look for files elsewhere."""
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            model = next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or "unknown CPU"
    return "%s, %d CPUs, %s" % (model, os.cpu_count() or 1, platform.system())


def publish(text, path):
    """Prints a page and, with a path, writes it there."""
    print(text)
    if path is not None:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
