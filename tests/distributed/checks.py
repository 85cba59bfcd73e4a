"""checks.py ROOT mpi|gloo... - what training by several processes promises; run.sh has made ./mpi_train and the environment.

Of each transport: 2 and 4 processes learn what one does with the same batch, to 1e-5; the adapters of all processes have the same
bytes; a process that is killed in the middle of a step ends the others; another number of processes goes on from the checkpoint,
and ends where the undisturbed run does. Ends with `N passed, N failed`.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy
from safetensors import safe_open
from safetensors.numpy import load_file

ROOT = sys.argv[1]
BASE = os.path.join(ROOT, "examples", "demo", "base", "model.gguf")
STEPS, BATCH, ROWS, SAVED = 18, 6, 32, 10  # the sixth batch of an epoch has 2 rows: two of 4 processes have none then
CLOSE = 1e-5
counts, begun = [0, 0], time.monotonic()


def check(good, text):
    counts[0 if good else 1] += 1
    print("%-6s %s  (%.0f s)" % ("ok" if good else "FAIL", text, time.monotonic() - begun), flush=True)
    return good


def distance(one, other):
    a, b = (load_file(os.path.join(folder, "adapter_model.safetensors")) for folder in (one, other))
    if a.keys() != b.keys() or not a:
        return float("inf")
    return max(float(numpy.abs(a[name] - b[name]).max()) for name in a)


def contents(folder):
    with open(os.path.join(folder, "adapter_model.safetensors"), "rb") as file:
        return file.read()


def same_as_one(name, size, one):
    """The adapters NAME-0, NAME-1, ...: the same bytes, and close to what one process made."""
    found = {contents("%s-%d" % (name, rank)) for rank in range(size)}
    check(len(found) == 1, "%s: %d processes end with the same bytes" % (name, size))
    far = distance("%s-0" % name, one)
    check(far < CLOSE, "%s: %d processes are %.1e from one with the same batch (< %.0e)" % (name, size, far, CLOSE))


def saved_step(folder):
    """Step of a checkpoint; -1: there is none."""
    try:
        with safe_open(os.path.join(folder, "state.safetensors"), "numpy") as file:
            return json.loads(file.metadata()["state"])["step"]
    except (FileNotFoundError, NotADirectoryError):  # the folder is replaced at once, but looked at in two goes
        return -1


def wait_for(what, seconds):
    """Seconds until what() holds, or None."""
    first = time.monotonic()
    while time.monotonic() - first < seconds:
        if what():
            return time.monotonic() - first
        time.sleep(0.02)
    return None


# ---- Open MPI ---------------------------------------------------------------------------------------------------------------


def mpi_command(size, out, checkpoint="", resume=None):
    command = ["mpirun", "--oversubscribe", "--mca", "btl_vader_single_copy_mechanism", "none", "-n", str(size), "./mpi_train",
               BASE, "rows.jsonl", out, str(STEPS), str(BATCH), checkpoint]
    return command + ([resume] if resume else [])


def mpi_run(*arguments, **more):
    done = subprocess.run(mpi_command(*arguments, **more), env=dict(os.environ, EVERY_RANK="1"), capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout[-2000:] + done.stderr[-2000:])
    return done


def shown(seconds):
    return "no" if seconds is None else "%.1f" % seconds


def alive(pid):
    """A process that has ended may stay for the one that it was given to."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def mpi_killed():
    """One process stops, so that the others wait for it in the middle of a step, and is then killed."""
    job = subprocess.Popen(mpi_command(3, "mpi-killed", "mpi-state"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                           text=True)
    wait_for(lambda: saved_step("mpi-state") >= SAVED or job.poll() is not None, 60)
    ranks = children(job.pid) if job.poll() is None else []
    if not check(len(ranks) == 3, "mpi: three processes are at work after step %d" % SAVED):
        job.kill()
        return
    os.kill(ranks[1], signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(ranks[1], signal.SIGKILL)
    took = wait_for(lambda: job.poll() is not None, 30)
    if took is None:
        job.kill()
    said = job.communicate()[1]
    check(took is not None and job.returncode != 0, "mpi: the job ends when a process is killed (%s s)" % shown(took))
    check("exited on signal 9" in said, "mpi: mpirun says which process was killed")
    check(wait_for(lambda: not any(alive(pid) for pid in ranks), 10) is not None, "mpi: no process is left")
    check(not os.path.exists("mpi-killed"), "mpi: the run that was killed saved no adapter")


def mpi():
    for size in (1, 2, 4):
        if not check(mpi_run(size, "mpi%d" % size).returncode == 0, "mpi: %d processes train" % size):
            return
    for size in (2, 4):
        same_as_one("mpi%d" % size, size, "mpi1-0")
    mpi_killed()
    if check(mpi_run(2, "mpi-resumed", resume="mpi-state").returncode == 0, "mpi: 2 processes go on from step %d" % saved_step("mpi-state")):
        same_as_one("mpi-resumed", 2, "mpi1-0")


# ---- Gloo -------------------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Gloo:
    """Processes of gloo_train, as forks of this one, which has imported torch. fate: what process 1 does to itself between the
    two sums of step `at`."""

    def __init__(self, size, out, *words, fate=None, at=0):
        port = free_port()
        self.logs = ["%s-%d.log" % (out, rank) for rank in range(size)]
        self.codes = {}
        self.pids = []
        sys.stdout.flush()
        for rank in range(size):
            pid = os.fork()
            if pid == 0:
                self._child(rank, size, port, [BASE, "rows.jsonl", out, "--steps", str(STEPS), "--batch", str(BATCH), "--every-rank",
                                               *words], fate if rank == 1 else None, at)
            self.pids.append(pid)

    def _child(self, rank, size, port, words, fate, at):
        import gloo_train

        log = os.open(self.logs[rank], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        sums = []

        def add_up(values):
            sums.append(len(values))
            if fate is not None and len(sums) == 2 * at:  # the step's gradients; its counts were the sum before
                os.kill(os.getpid(), fate)
            gloo_train.sum_over_all(values)

        code = 3
        try:
            code = gloo_train.main(gloo_train.arguments(words), add_up)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self, *ranks):
        for rank, pid in enumerate(self.pids):
            if rank not in self.codes:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        return all(rank in self.codes for rank in (ranks or range(len(self.pids))))

    def stopped(self, rank):
        with open("/proc/%d/stat" % self.pids[rank], encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "T"

    def wait(self, seconds=90):
        wait_for(self.ended, seconds)
        self.end()
        return [self.codes[rank] for rank in range(len(self.pids))]

    def end(self):
        for rank, pid in enumerate(self.pids):
            if not self.ended(rank):
                os.kill(pid, signal.SIGKILL)
                self.codes[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def log(self, rank):
        with open(self.logs[rank], encoding="utf-8") as file:
            return file.read()


def gloo_train_by(size, name, *words):
    job = Gloo(size, name, *words)
    codes = job.wait()
    if not check(codes == [0] * size, "%s: %d processes train" % (name, size)):
        print("".join(job.log(rank)[-1000:] for rank in range(size)))
        return False
    return True


def gloo_lost(name, fate, timeout, words):
    """Process 1 of 3 dies or hangs in step 14."""
    job = Gloo(3, name, "--checkpoint", name + "-state", "--save-steps", str(SAVED), "--timeout", str(timeout), fate=fate, at=14)
    gone = (lambda: job.ended(1)) if fate == signal.SIGKILL else (lambda: job.stopped(1))
    check(wait_for(gone, 90) is not None, "%s: process 1 is lost in step 14" % name)
    took = wait_for(lambda: job.ended(0, 2), timeout + 30)
    job.end()
    check(took is not None and took < timeout + 5, "%s: the others end within the time-out of %d s (%s s)" % (name, timeout, shown(took)))
    for rank in (0, 2):
        said = job.log(rank)
        good = job.codes[rank] == 1 and "gloo_train: process %d of 3 lost the others: " % rank in said and words(said)
        good = good and "--resume %s-state" % name in said and "Traceback" not in said
        if not check(good, "%s: process %d says what happened" % (name, rank)):
            print(job.codes[rank], said[-1500:])
    check(saved_step(name + "-state") == SAVED, "%s: the checkpoint is that of step %d" % (name, SAVED))


def torchrun(size, name):
    """As the example's head says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port", str(free_port()),
               os.path.join(ROOT, "examples", "gloo_train.py"), BASE, "rows.jsonl", name, "--steps", str(STEPS), "--batch", str(BATCH)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not check(done.returncode == 0 and "step %d of %d: loss" % (STEPS, STEPS) in done.stdout, "%s: torchrun trains" % name):
        print(done.stdout[-1000:] + done.stderr[-2000:])
    return done.returncode == 0


def gloo():
    import gloo_train  # here, and not by each of the forks  # noqa: F401
    if not all(gloo_train_by(size, "gloo%d" % size) for size in (1, 2, 4)):
        return
    for size in (2, 4):
        same_as_one("gloo%d" % size, size, "gloo1-0")
    if os.path.exists("mpi1-0"):
        check(contents("mpi1-0") == contents("gloo1-0"), "gloo: one process makes the same bytes as that of MPI's example")
    if torchrun(2, "gloo-torchrun"):
        check(contents("gloo-torchrun") == contents("gloo2-0"), "gloo: torchrun's adapter has the same bytes")
    gloo_lost("gloo-killed", signal.SIGKILL, 20, lambda said: "closed" in said.lower() or "reset" in said.lower())
    gloo_lost("gloo-hung", signal.SIGSTOP, 4, lambda said: "time" in said.lower())
    for size in (4, 1):
        name = "gloo-resumed%d" % size
        if gloo_train_by(size, name, "--resume", "gloo-killed-state"):
            same_as_one(name, size, "gloo1-0")


def main():
    with open(os.path.join(ROOT, "examples", "demo", "train.jsonl"), encoding="utf-8") as source, \
            open("rows.jsonl", "w", encoding="utf-8") as rows:
        rows.writelines(line for _, line in zip(range(ROWS), source))
    for name in sys.argv[2:]:
        {"mpi": mpi, "gloo": gloo}[name]()
    print("%d passed, %d failed" % tuple(counts))
    return counts[1] != 0


if __name__ == "__main__":
    sys.exit(main())
