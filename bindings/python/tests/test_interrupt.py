"""Ctrl-C: a run, an iteration, a generation and an evaluation end soon, cleanly, with KeyboardInterrupt."""
import signal
import threading
import time

import pytest

import libpeft
from conftest import PROMPT, TRAIN, HELDOUT

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX signals")


@pytest.fixture(params=["thread", "timer"])
def interrupt(request):
    """Sends SIGINT after some seconds: by another thread, or by SIGALRM whose handler raises."""
    timers = []

    def after(seconds):
        if request.param == "thread":
            timers.append(threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)))
            timers[-1].start()
        else:
            def handler(number, frame):
                raise KeyboardInterrupt

            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, seconds)

    # Python's own handler: what a shell runs in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for timer in timers:
        timer.join()
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def endless(demo, **options):
    adapters = demo.adapters()
    adapters.add("a", r=4)
    return libpeft.Trainer(adapters, TRAIN, max_steps=100000, batch_size=2, **options)


def test_a_run(demo, interrupt):
    trainer, steps = endless(demo), []
    begun = time.monotonic()
    interrupt(0.5)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda step: steps.append(step.step))
    assert time.monotonic() - begun < 20 and steps == list(range(1, len(steps) + 1))
    assert trainer.step().step in (len(steps) + 1, len(steps) + 2)


def test_many_runs_lose_none(demo, interrupt):
    """Whatever instruction it arrives at."""
    trainer = endless(demo)
    for i in range(12):
        interrupt(0.02 + 0.003 * i)
        with pytest.raises(KeyboardInterrupt):
            while True:
                trainer.run()


def test_an_iteration(demo, interrupt):
    trainer, last = endless(demo), 0
    interrupt(0.5)
    with pytest.raises(KeyboardInterrupt):
        for step in trainer:
            last = step.step
    assert trainer.step().step in (last + 1, last + 2)


def test_a_generation(demo, interrupt):
    session = libpeft.Session(demo)
    interrupt(0.2)
    with pytest.raises(KeyboardInterrupt):
        while True:
            session.generate(PROMPT, max_new_tokens=400, ignore_eos=True)
    interrupt(0.2)
    with pytest.raises(KeyboardInterrupt):
        while True:
            for _ in session.stream(PROMPT, max_new_tokens=400, ignore_eos=True):
                pass
    assert session.generate(PROMPT, max_new_tokens=2)


def test_an_evaluation(demo, interrupt):
    session, trainer = libpeft.Session(demo), endless(demo)
    data = libpeft.Dataset(TRAIN, tokenizer=demo.tokenizer)
    few = libpeft.Dataset(HELDOUT, tokenizer=demo.tokenizer, max_rows=5)
    for evaluate in (session.evaluate, trainer.evaluate):
        begun = time.monotonic()
        interrupt(0.1)
        with pytest.raises(KeyboardInterrupt):
            while True:
                evaluate(data)
        assert time.monotonic() - begun < 20
        assert evaluate(few).rows == 5  # nothing of the request is left


def test_a_handler_that_returns_changes_nothing(demo):
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        trainer = endless(demo)
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        with pytest.raises(StopAsyncIteration):
            trainer.run(lambda step: stop_when(len(seen) == 1))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def stop_when(true):
    if true:
        raise StopAsyncIteration
