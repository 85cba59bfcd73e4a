"""Training: steps, loops of the caller, gradients, checkpoints, progress."""
import io
import sys

import numpy
import pytest

import libpeft
from conftest import HELDOUT, LLAMA, TRAIN, VOCABULARY, rows, shake


def fresh(method="lora", **options):
    adapters = libpeft.Model.random(LLAMA, seed=3).adapters()
    if method == "lora":
        options = options or {"r": 4, "target_modules": "all-linear"}
    adapters.add("a", method, seed=2, **options)
    return adapters


def values(adapters, name="a"):
    return {tensor: array.tobytes() for tensor, array in adapters[name].tensors.items()}


def trainer_of(adapters, steps=8, **options):
    return libpeft.Trainer(adapters, libpeft.Dataset(rows()), **{**dict(max_steps=steps, learning_rate=1e-2, batch_size=4,
                                                                      warmup_steps=2), **options})


def test_losses_fall_and_steps_are_reported():
    trainer = trainer_of(fresh("full"), 40)
    steps = trainer.run()
    assert [step.step for step in steps] == list(range(1, 41)) and all(step.max_steps == 40 for step in steps)
    assert steps[-1].loss < 0.7 * steps[0].loss
    first = steps[0]
    assert first.tokens > 0 and first.job == "a" and first.eval_loss is None and first.grad_norm > 0
    assert first.tokens_per_second > 0 and first.peak_bytes > 0 and steps[1].seconds > first.seconds
    assert steps[1].learning_rate > steps[0].learning_rate and steps[-1].epoch > steps[0].epoch > 0
    assert trainer.run() == [] and trainer.step() is None and list(trainer) == []


def test_the_same_bits_however_the_steps_are_made():
    whole, iterated, mixed = fresh(), fresh(), fresh()
    expected = [(s.step, s.loss, s.grad_norm) for s in trainer_of(whole).run()]
    assert [(s.step, s.loss, s.grad_norm) for s in trainer_of(iterated)] == expected
    trainer, found = trainer_of(mixed), []
    for step in trainer:
        found.append(step)
        if step.step == 3:
            break
    found.append(trainer.step())
    found += trainer.run()
    assert [(s.step, s.loss, s.grad_norm) for s in found] == expected
    assert values(whole) == values(iterated) == values(mixed)


def test_evaluation_on_the_way():
    trainer = trainer_of(fresh(), 6, eval=[[1, 2, 3, 4], [9, 10, 11]], eval_steps=3)
    steps = list(trainer)
    assert [step.eval_loss is not None for step in steps] == [False, False, True, False, False, True]
    metrics = trainer.evaluate([[1, 2, 3, 4], [9, 10, 11]])
    assert metrics.loss == pytest.approx(steps[-1].eval_loss, rel=1e-6) and (metrics.tokens, metrics.rows) == (5, 2)
    assert metrics.perplexity == pytest.approx(numpy.exp(metrics.loss), rel=1e-5) and 0 <= metrics.accuracy <= 1
    session = libpeft.Session(trainer.adapters["a"])
    assert session.evaluate(libpeft.Dataset([[1, 2, 3, 4], [9, 10, 11]])).loss == pytest.approx(metrics.loss, rel=1e-6)


def test_a_model_and_a_file(demo):
    few = libpeft.Dataset(HELDOUT, tokenizer=demo.tokenizer, max_rows=10)
    trainer = libpeft.Trainer(demo, TRAIN, eval=few, method="lora", r=8, target_modules="all-linear", max_steps=8,
                              learning_rate=1e-2, batch_size=4)
    assert list(trainer.adapters) == ["default"] and trainer.adapters["default"].options["r"] == 8
    steps = trainer.run()
    assert steps[-1].loss < 0.75 * steps[0].loss and steps[-1].eval_loss < steps[0].loss
    with pytest.raises(libpeft.OptionError, match="did you mean \"r\""):
        libpeft.Trainer(demo, TRAIN, method="lora", rr=8)
    with pytest.raises(libpeft.UnsupportedError):
        libpeft.Trainer(libpeft.Model.random(LLAMA), [[1, 2]], method="lorra")


def test_options_of_rows_that_are_no_dataset_yet():
    long = [{"input_ids": list(range(1, 11))} for _ in range(4)]
    step = dict(max_steps=1, batch_size=1)
    assert libpeft.Trainer(fresh(), long, **step).run()[0].tokens == 10
    assert libpeft.Trainer(fresh(), long, max_length=6, **step).run()[0].tokens == 6
    trainer = libpeft.Trainer(fresh(), long, max_length=6, max_steps=1, batch_size=2)
    trainer.adapters.add("b", "lora", seed=4)
    trainer.add_job("b", long, max_length=4)
    assert [(made.job, made.tokens) for made in trainer.run()] == [("a", 6), ("b", 4)]
    with pytest.raises(libpeft.FormatError, match="10 tokens"):
        libpeft.Trainer(fresh(), long, max_length=6, truncation="error")
    with pytest.raises(libpeft.OptionError, match="truncation"):
        libpeft.Trainer(fresh(), libpeft.Dataset(long), truncation="error")


def test_arguments_that_cannot_be(adapters):
    for arguments, options, kind, text in (
            ((adapters, [[1, 2]]), {"learnig_rate": 1}, libpeft.OptionError, "did you mean \"learning_rate\""),
            ((adapters, [[1, 2]]), {"max_step": 1}, libpeft.OptionError, "did you mean \"max_steps\""),
            ((adapters, [[1, 2]]), {"qwertz": 1}, libpeft.OptionError, "qwertz"),
            ((adapters, [[1, 2]]), {"method": "lora"}, TypeError, "Model"),
            ((adapters, [[1, 2]]), {"adapter": "b"}, libpeft.NotFoundError, "b"),
            ((adapters, [[1, 2]]), {"adapter": "a,"}, libpeft.Error, "."),
            ((adapters, 5), {}, TypeError, "int"), ((5, [[1, 2]]), {}, TypeError, "int"),
            ((adapters, [[1, 2]]), {"learning_rate": float("nan")}, libpeft.OptionError, "learning_rate"),
            ((adapters, [[1, 2]]), {"learning_rate": "fast"}, libpeft.OptionError, "learning_rate"),
            ((adapters, [[1, 2]]), {"max_steps": 1.5}, libpeft.OptionError, "max_steps"),
            ((adapters.model.adapters(), [[1, 2]]), {}, ValueError, "which adapter")):
        with pytest.raises(kind, match=text):
            libpeft.Trainer(*arguments, **options)
    with pytest.raises(libpeft.InvalidError, match="no training data"):
        libpeft.Trainer(adapters).run()
    with pytest.raises(TypeError, match="progress"):
        trainer_of(adapters).run(progress="yes")


def test_gradients_equal_finite_differences():
    adapters = fresh()
    shake(adapters["a"])
    batch = libpeft.Batch(rows(3), loss_weights=[[0.5 + i % 3 for i in range(len(row))] for row in rows(3)])
    trainer = libpeft.Trainer(adapters["a"], max_length=16, batch_size=4)
    loss = trainer.accumulate(batch)
    gradients = trainer.gradients()
    assert set(gradients) == set(adapters["a"].tensors) and loss > 0
    rng, checked = numpy.random.default_rng(1), 0
    for name in list(gradients)[::3]:
        before = adapters["a"].tensors[name].numpy().copy()
        direction = rng.standard_normal(before.shape).astype(numpy.float32)
        found = []
        for size in (1e-2, -1e-2):
            adapters["a"].tensors[name] = before + size * direction
            found.append(libpeft.Trainer(adapters["a"], max_length=16, batch_size=4).accumulate(batch))
        adapters["a"].tensors[name] = before
        expected = float((gradients[name].numpy() * direction).sum())
        assert (found[0] - found[1]) / 2e-2 == pytest.approx(expected, rel=2e-2, abs=2e-4)
        checked += 1
    assert checked >= 4
    with pytest.raises(libpeft.NotFoundError):
        trainer.gradient("no such tensor")
    assert trainer.gradient(name, "a").tobytes() == gradients[name].tobytes()


def test_a_loop_of_the_callers():
    adapters, losses = fresh("full"), []
    trainer = libpeft.Trainer(adapters, max_length=16, batch_size=12, max_steps=20, learning_rate=2e-2)
    with pytest.raises(libpeft.InvalidError):
        trainer.apply()
    for _ in range(20):
        losses.append(trainer.accumulate(rows()))
        trainer.apply()
    assert losses[-1] < 0.8 * losses[0]
    assert trainer.accumulate(numpy.array([[1, 2, 3]])) > 0
    with pytest.raises(libpeft.ShapeError, match="plan"):
        trainer.accumulate([list(range(17))])
    with pytest.raises(TypeError):
        trainer.accumulate(5)


def test_checkpoints_go_on_bit_for_bit(tmp_path):
    whole, first, second = fresh(), fresh(), fresh()
    expected = [s.loss for s in trainer_of(whole).run()]
    trainer, found = trainer_of(first), []
    for step in trainer:
        found.append(step.loss)
        if step.step == 5:
            trainer.save_checkpoint(tmp_path / "ein Stand")
            break
    again = trainer_of(second)
    again.load_checkpoint(tmp_path / "ein Stand")
    found += [step.loss for step in again]
    assert found == expected and values(second) == values(whole)
    with pytest.raises(FileNotFoundError):
        again.load_checkpoint(tmp_path / "absent")
    with pytest.raises(libpeft.Error):
        trainer_of(fresh("ia3", target_modules=["k_proj"], feedforward_modules=[])).load_checkpoint(tmp_path / "ein Stand")


def test_saved_adapters_are_equal(tmp_path):
    adapters = fresh()
    trainer_of(adapters).run()
    adapters["a"].save(tmp_path / "a")
    other = libpeft.Model.random(LLAMA, seed=3).adapters()
    other.load("a", tmp_path / "a")
    assert values(other) == values(adapters)
    said = [libpeft.Session(a).generate([1, 2, 3], max_new_tokens=8) for a in (adapters, other)]
    assert said[0] == said[1] and len(said[0]) > 0


def test_the_plan_and_its_limit():
    trainer = trainer_of(fresh())
    plan = trainer.plan()
    assert plan["peak_bytes"] > plan["activation_bytes"] > 0
    assert plan["trainable_parameters"] == trainer.adapters["a"].parameters
    assert trainer.run()[-1].peak_bytes <= 1.05 * plan["peak_bytes"] + 2**20
    with pytest.raises(MemoryError):
        trainer_of(fresh(), memory_limit=1000).plan()


def test_progress_and_what_it_raises():
    seen, trainer = [], trainer_of(fresh())

    def stop(step):
        seen.append(step.step)
        if step.step == 3:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        trainer.run(stop)
    assert seen == [1, 2, 3]
    assert [step.step for step in trainer.run()] == [4, 5, 6, 7, 8]
    with pytest.raises(SystemExit):
        trainer_of(fresh()).run(lambda step: sys.exit(3))


def test_jobs_learn_as_they_would_alone():
    def two():
        made = fresh()
        made.add("b", method="pfeiffer", reduction_factor=4, seed=4)
        return made

    alone, together = two(), two()
    for adapter, seed, steps in (("a", 1, 4), ("b", 9, 3)):
        libpeft.Trainer(alone, rows(seed=seed), adapter=adapter, batch_size=2, max_steps=steps, learning_rate=1e-2).run()
    with libpeft.Trainer(together, rows(seed=1), adapter="a", batch_size=4, max_steps=4, learning_rate=1e-2) as trainer:
        trainer.add_job("b", rows(seed=9), max_steps=3, learning_rate=1e-2)
        with pytest.raises(libpeft.ExistsError, match='a job "b" already'):
            trainer.add_job("b", rows())
        assert [step.job for _, step in zip("12", trainer)] == ["a", "b"]
        assert [step.job for step in trainer.run()] == ["a", "b"] * 2 + ["a"]
        jobs = trainer.plan()["jobs"]
        assert [(job["adapter"], job["rows"], job["state"]) for job in jobs] == [("a", 2, "done"), ("b", 2, "done")]
    assert all(values(alone, adapter) == values(together, adapter) for adapter in "ab")


def test_a_callback_uses_other_handles_and_not_its_own():
    trainer, other, found = trainer_of(fresh(), 3), fresh(), []

    def each(step):
        with pytest.raises(libpeft.BusyError):
            trainer.plan()
        with pytest.raises(libpeft.BusyError):
            trainer.evaluate([[1, 2, 3]])
        if step.step == 3:
            trainer.close()  # takes effect after the run
        found.append(len(libpeft.Session(other).generate([1, 2], max_new_tokens=2)))
        found.extend(step.step for step in trainer_of(other, 1))

    assert len(trainer.run(each)) == 3 and len(found) == 6
    with pytest.raises(ValueError, match="closed"):
        trainer.run()


def test_cancelled_and_gone_on():
    trainer = trainer_of(fresh())
    with pytest.raises(libpeft.CancelledError):
        trainer.run(lambda step: trainer.cancel() if step.step == 2 else None)
    assert [step.step for step in trainer] == [3, 4, 5, 6, 7, 8]


def test_a_bar(monkeypatch):
    import tqdm.auto

    class Bar(tqdm.auto.tqdm):
        made = []

        def __init__(self, *args, **kwargs):
            super().__init__(*args, file=io.StringIO(), **kwargs)
            self.made.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    trainer_of(fresh()).run(progress=True)
    assert Bar.made[0].n == Bar.made[0].total == 8 and Bar.made[0].disable in (False, True)


def test_lines_without_tqdm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    trainer_of(fresh(), eval=[[1, 2, 3]]).run(progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1 of 8: loss ") and lines[-1].startswith("step 8 of 8") and "eval" in lines[-1]
    trainer_of(fresh()).run(progress=False)
    assert capsys.readouterr().err == ""


def test_a_loss_that_is_no_number():
    adapters = fresh()
    name = next(iter(adapters["a"].tensors))
    adapters["a"].tensors[name] = numpy.full(adapters["a"].tensors[name].shape, numpy.nan)
    with pytest.raises(libpeft.NumericError, match="step 1"):
        shaken = adapters["a"].tensors
        for tensor in shaken:
            if "lora_B" in tensor:
                shaken[tensor] = numpy.ones(shaken[tensor].shape)
        trainer_of(adapters).run()


def test_threads_do_not_change_the_bits():
    found = []
    for threads in (1, 2, 5):
        context = libpeft.Context(threads=threads)
        adapters = libpeft.Model.random(LLAMA, seed=3, context=context).adapters()
        adapters.add("a", r=4, seed=2)
        trainer = libpeft.Trainer(adapters, libpeft.Dataset(rows(), context=context), max_steps=4)
        found.append(([s.loss for s in trainer], values(adapters)))
    assert found[0] == found[1] == found[2] and VOCABULARY
