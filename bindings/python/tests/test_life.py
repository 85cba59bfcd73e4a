"""Lives of handles: closed, collected in odd orders, used by several threads, forked, left to the end of the interpreter."""
import copy
import gc
import os
import pickle
import random
import subprocess
import sys
import threading
import time

import pytest

import libpeft
from conftest import LLAMA, PROMPT, TRAIN, rows


def everything():
    """One handle of each kind, with the context that all belong to."""
    context = libpeft.Context()
    model = libpeft.Model.random(LLAMA, context=context)
    adapters = model.adapters()
    adapters.add("a", r=2)
    data = libpeft.Dataset(rows(), context=context)
    batch = libpeft.Batch(rows(2), context=context)
    trainer = libpeft.Trainer(adapters, data, max_steps=2)
    session = libpeft.Session(adapters)
    return [context, model, adapters, data, batch, trainer, session, libpeft.Options("trainer", context=context)]


def test_closed_handles_say_so():
    for i in range(8):
        handles = everything()
        handle = handles[i]
        with handle:
            assert not handle.closed
        assert handle.closed and "(closed)" in repr(handle)
        handle.close()
        with pytest.raises(ValueError, match="closed"):
            handle.__enter__()
        with pytest.raises(ValueError, match="closed"):
            {0: lambda: handle.memory(), 1: lambda: handle.arch, 2: lambda: len(handle), 3: lambda: handle.info(),
             4: lambda: handle.clear(), 5: lambda: handle.run(), 6: lambda: handle.logits([[1]]),
             7: lambda: handle.to_dict()}[i]()


def test_any_order_of_closing_and_nothing_is_left():
    rng = random.Random(1)
    for _ in range(30):
        handles = everything()
        context = handles[0]
        rest = handles[1:]
        del handles
        rng.shuffle(rest)
        while rest:
            handle = rest.pop()
            if rng.random() < 0.5:
                handle.close()
            del handle
            if rng.random() < 0.2:
                gc.collect()
        gc.collect()
        fresh = libpeft.Context()
        assert context.memory().now == fresh.memory().now


def test_cycles_are_collected():
    context = libpeft.Context()
    empty = context.memory().now
    for _ in range(5):
        model = libpeft.Model.random(LLAMA, context=context)
        adapters = model.adapters()
        model.back = adapters
        adapters.add("a", r=2)
    del model, adapters
    gc.collect()
    assert context.memory().now == empty


def test_no_copies_of_handles():
    for handle in everything():
        for function in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="memory of this process"):
                function(handle)


def test_one_thread_at_a_time(demo):
    session = libpeft.Session(demo)
    inside, go_on, found = threading.Event(), threading.Event(), []

    def hold(token, piece):
        inside.set()
        go_on.wait(20)

    worker = threading.Thread(target=lambda: found.append(session.generate(PROMPT, max_new_tokens=2, on_token=hold)))
    worker.start()
    assert inside.wait(20)
    with pytest.raises(libpeft.BusyError, match="another thread"):
        session.logits([[1]])
    session.close()  # when the call returns
    with pytest.raises(ValueError, match="closed"):
        session.logits([[1]])
    go_on.set()
    worker.join()
    assert len(found) == 1 and found[0]


def test_cancelled_from_another_thread(demo):
    adapters = demo.adapters()
    adapters.add("a", r=2)
    trainer = libpeft.Trainer(adapters, TRAIN, max_steps=10**6, batch_size=1)
    timer = threading.Timer(0.3, trainer.cancel)
    timer.start()
    with pytest.raises(libpeft.CancelledError):
        trainer.run()
    timer.join()


def test_shared_handles_in_many_threads(demo):
    """A model, a tokenizer and a set of adapters are used by all; results are those of one thread."""
    adapters = demo.adapters()
    adapters.add("a", r=2)
    expected = (libpeft.Session(adapters, "a").logits([[1, 2, 3]]).tobytes(), demo.tokenizer.encode(PROMPT))
    failures = []

    def work(i):
        try:
            for k in range(5):
                assert libpeft.Session(adapters, "a").logits([[1, 2, 3]]).tobytes() == expected[0]
                assert demo.tokenizer.encode(PROMPT) == expected[1]
                adapters.add("t%d-%d" % (i, k), r=1)
                del adapters["t%d-%d" % (i, k)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and list(adapters) == ["a"]


def test_the_interpreter_runs_while_the_library_works(demo):
    """The lock of the interpreter is free during a call: another thread counts on."""
    session, counted, stop = libpeft.Session(demo), [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.001)

    worker = threading.Thread(target=count)
    worker.start()
    before = counted[0]
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        session.logits([list(range(400))])
    during = counted[0] - before
    stop.set()
    worker.join()
    assert during > 20


def test_two_trainers_in_two_threads(demo):
    """Each makes what it makes alone."""
    def train(name, found):
        adapters = libpeft.Model.open(demo._path.decode(), context=one).adapters()
        adapters.add(name, r=2, seed=1)
        found.append([s.loss for s in libpeft.Trainer(adapters, TRAIN, max_steps=4, batch_size=2)])

    one = libpeft.Context(threads=1)
    alone, together = [], []
    train("a", alone)
    threads = [threading.Thread(target=train, args=("a", together)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [alone[0], alone[0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_a_fork_has_no_threads_of_the_parent():
    program = """
import libpeft, os, gc, sys
sys.path.insert(0, %r)
from conftest import LLAMA, rows
context = libpeft.Context(threads=2)
model = libpeft.Model.random(LLAMA, context=context)
adapters = model.adapters(); adapters.add("a", r=2)
trainer = libpeft.Trainer(adapters, rows(), max_steps=9, max_length=64)
trainer.step(); session = libpeft.Session(adapters); session.logits([[5] * 60])
child = os.fork()
if child == 0:
    for call in (trainer.step, lambda: session.logits([[1]])):
        try:
            call()
            os._exit(1)
        except RuntimeError as error:
            if "fork" not in str(error): os._exit(2)
    trainer.close(); del session; gc.collect()
    libpeft.Session(model).logits([[5] * 60]); libpeft.Trainer(adapters, rows(), max_steps=1).run()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
trainer.run()
""" % os.path.dirname(os.path.abspath(__file__))
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


AT_EXIT = """
import libpeft, sys, threading, atexit
sys.path.insert(0, %r)
from conftest import LLAMA, TRAIN, BASE, rows
context = libpeft.Context(log="debug")
model = libpeft.Model.random(LLAMA, context=context)
adapters = model.adapters(); adapters.add("a", r=2)
session = libpeft.Session(adapters); trainer = libpeft.Trainer(adapters, rows(), max_steps=1000000)
import numpy
state = {n: numpy.array(model.tensors[n]) for n in model.tensors}
borrowed = libpeft.Model.from_tensors(LLAMA, state)
array = numpy.from_dlpack(session.logits([[1, 2]]))
capsule = session.logits([[1, 2]]).__dlpack__()
iterator = iter(trainer); next(iterator)
tokens = session.tokens([1, 2]); next(tokens)
%s
"""
ENDS = {
    "plain": "",
    "an exception": "raise SystemExit(0)",
    "handles in modules and at exit": "sys.keep = [session, trainer]; atexit.register(lambda: session.logits([[1]]))",
    "a daemon at work": """
threading.Thread(target=lambda: trainer.run(lambda step: None), daemon=True).start()
while not trainer._users: pass
""",
    "cycles": "model.x = borrowed.x = trainer.x = [model, borrowed, trainer, session, adapters, sys.modules]",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_with_live_handles(end):
    program = AT_EXIT % (os.path.dirname(os.path.abspath(__file__)), ENDS[end])
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()
