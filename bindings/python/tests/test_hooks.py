"""A loss of the program's own, and training by several processes, which are threads here."""
import gc
import math
import threading

import pytest

import libpeft
from conftest import LLAMA, rows

OPTIONS = dict(learning_rate=1e-2, max_steps=6, batch_size=4, lr_scheduler_type="constant", seed=1)


def trainer_of(data=None, **options):
    model = libpeft.Model.random(LLAMA, seed=3, context=libpeft.Context(threads=1))
    adapter = model.adapters().add("a", "lora", r=4, target_modules="all-linear", seed=2)
    return libpeft.Trainer(adapter, rows() if data is None else data, **dict(OPTIONS, **options))


def values_of(trainer):
    tensors = trainer.adapters["a"].tensors
    return {name: list(tensors[name].reshape(-1).tolist()) for name in tensors}


def distance(one, other):
    return max(abs(a - b) for name in one for a, b in zip(one[name], other[name]))


def cross_entropy(chunk):
    """What the library computes itself."""
    loss = 0.0
    for i in range(chunk.rows):
        logits = [chunk.values[i, j] for j in range(chunk.columns)]
        most = max(logits)
        total = sum(math.exp(x - most) for x in logits)
        loss += most + math.log(total) - logits[chunk.labels[i]]
        for j, x in enumerate(logits):
            chunk.values[i, j] = math.exp(x - most) / total - (j == chunk.labels[i])
    return loss, chunk.rows


def test_a_loss_of_ones_own_is_the_tasks():
    plain, own = trainer_of(), trainer_of()
    own.set_loss(cross_entropy)
    a, b = plain.run(), own.run()
    assert [s.loss for s in b] == pytest.approx([s.loss for s in a], rel=1e-5)
    assert distance(values_of(plain), values_of(own)) < 1e-5


def test_what_a_chunk_holds():
    seen = []

    def look(chunk):
        seen.append((chunk.job, chunk.rows, chunk.columns, chunk.values.shape, chunk.values.format, list(chunk.batch_rows),
                     list(chunk.data_rows), list(chunk.tokens), list(chunk.labels)))
        return cross_entropy(chunk)

    trainer = trainer_of(data=[[1, 2, 3], [4, 5]], batch_size=2, max_steps=1)
    trainer.set_loss(look)
    trainer.accumulate([[7, 8, 9], [4, 5]])
    assert seen == [("a", 3, 40, (3, 40), "f", [0, 0, 1], [0, 0, 1], [0, 1, 0], [8, 9, 5])]
    seen.clear()
    trainer.run()
    assert [sorted(zip(data, tokens, labels)) for *_, data, tokens, labels in seen] == [[(0, 0, 2), (0, 1, 3), (1, 0, 5)]]


def test_what_a_loss_raises_ends_the_step_as_if_it_had_not_begun():
    trainer, calls = trainer_of(), []

    def fails(chunk):
        calls.append(chunk)
        if len(calls) == 3:
            raise LookupError("the third")
        return cross_entropy(chunk)

    trainer.set_loss(fails)
    with pytest.raises(LookupError, match="the third"):
        trainer.run()
    with pytest.raises(ValueError):  # a view of a call that has ended
        calls[0].values[0, 0]
    trainer.run()
    whole = trainer_of()
    whole.run()
    assert distance(values_of(whole), values_of(trainer)) < 1e-5
    trainer.set_loss(lambda chunk: 1.0)
    with pytest.raises(TypeError, match=r"\(loss, weight\), not float"):
        trainer.accumulate([[1, 2, 3]])
    with pytest.raises(TypeError, match="callable or None"):
        trainer.set_loss("mse")
    trainer.set_loss(None)
    assert trainer.accumulate([[1, 2, 3]]) > 0


def test_an_array_that_outlives_its_loan_is_an_error():
    numpy = pytest.importorskip("numpy")
    trainer, kept = trainer_of(), []

    def keeps(chunk):
        kept.append(numpy.asarray(chunk.values))
        return cross_entropy(chunk)

    trainer.set_loss(keeps)
    with pytest.raises(BufferError, match="copy what is to be kept"):
        trainer.run()


class World:
    """Threads that add up floats in the order of their ranks."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=60)
        self.parts = [None] * size

    def add(self, rank, values):
        self.parts[rank] = list(values)
        self.barrier.wait()
        sums = [sum(column) for column in zip(*self.parts)]
        for i, total in enumerate(sums):
            values[i] = total
        self.barrier.wait()


def together(size, work):
    """work(rank, trainer) on a thread for each rank; the trainers."""
    world, trainers, errors = World(size), [trainer_of() for _ in range(size)], []

    def run(rank):
        try:
            trainers[rank].set_all_reduce(rank, size, lambda values: world.add(rank, values))
            work(rank, trainers[rank])
        except BaseException as error:
            world.barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return trainers, errors


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_processes_are_one(size):
    alone = trainer_of()
    losses = [step.loss for step in alone.run()]
    found = {}
    trainers, errors = together(size, lambda rank, trainer: found.update({rank: [s.loss for s in trainer.run()]}))
    assert errors == []
    assert all(values_of(t) == values_of(trainers[0]) for t in trainers)
    assert distance(values_of(alone), values_of(trainers[0])) < 1e-5
    assert found[size - 1] == found[0] == pytest.approx(losses, rel=1e-5)


def test_loops_of_ones_own_are_added_up_by_apply():
    data = rows()
    alone = trainer_of()
    alone.accumulate(data[:4])
    alone.apply()

    def work(rank, trainer):
        trainer.accumulate(data[rank:4:2])
        trainer.apply()

    trainers, errors = together(2, work)
    assert errors == [] and distance(values_of(alone), values_of(trainers[1])) < 1e-5


def test_what_an_all_reduce_raises():
    before = values_of(trainer_of())
    trainer = trainer_of()

    def fails(values):
        raise ConnectionError("the other one is gone")

    trainer.set_all_reduce(0, 2, fails)
    with pytest.raises(ConnectionError, match="the other one is gone"):
        trainer.run()
    assert values_of(trainer) == before
    with pytest.raises(libpeft.InvalidError, match="process 2 of 2"):
        trainer.set_all_reduce(2, 2, fails)
    with pytest.raises(libpeft.InvalidError, match="fn is NULL"):
        trainer.set_all_reduce(0, 2, None)
    with pytest.raises(TypeError, match="callable or None"):
        trainer.set_all_reduce(0, 2, 3)
    trainer.set_all_reduce(0, 1, None)
    assert len(trainer.run()) == 6
    with pytest.raises(libpeft.BusyError, match="before the first"):
        trainer.set_all_reduce(0, 2, fails)


def test_hooks_end_with_their_trainer():
    from libpeft._hooks import _hooks

    gc.collect()
    before = len(_hooks)
    trainer = trainer_of()
    trainer.set_loss(cross_entropy)
    assert len(_hooks) == before + 1
    del trainer
    gc.collect()
    assert len(_hooks) == before
