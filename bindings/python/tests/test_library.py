"""Versions, schemas, errors, the context."""
import logging
import pickle
import sys
import threading

import pytest

import libpeft
from conftest import BASE, LLAMA, TRAIN, rows
from libpeft import _ffi


def test_versions_agree():
    assert libpeft.__version__ == libpeft.version_string() == "%d.%d.%d" % libpeft.version()
    info = libpeft.build_info()
    assert info["version"] == libpeft.__version__ and "generic" in info["isa"].split(",")


def test_what_is_built_in():
    assert {"lora", "full", "ia3", "prompt", "prefix"} <= set(libpeft.methods())
    assert {"llama", "gpt2"} <= set(libpeft.architectures())
    assert {"adamw", "sgd", "lion"} <= set(libpeft.optimizers())
    names = libpeft.schemas()
    assert len(names) == len(set(names)) and {"trainer", "generate", "method:lora"} <= set(names)
    for name in names:
        keys = [option.key for option in libpeft.options(name)]
        assert len(keys) == len(set(keys))


def test_a_schema_as_data():
    table = {option.key: option for option in libpeft.options("optimizer")}
    assert table["learning_rate"].type == "float" and table["learning_rate"].min == 0
    assert "adamw" in table["optimizer"].choices and table["optimizer"].default == "adamw" and table["optimizer"].help
    with pytest.raises(libpeft.OptionError, match="did you mean"):
        libpeft.options("trainr")


def test_every_status_has_an_exception():
    classes = [c for c in vars(libpeft).values() if isinstance(c, type) and issubclass(c, libpeft.Error)]
    own = {c.status: c for c in classes if c.__mro__[1] is libpeft.Error}
    assert set(own) == set(_ffi.STATUS_NAMES) - {0}
    for status, kind in own.items():
        error = kind("text")
        assert error.name == libpeft.status_name(status) == _ffi.STATUS_NAMES[status]
        assert str(error) == "text" and str(pickle.loads(pickle.dumps(error))) == "text"
    assert libpeft.status_name(-999) == "PEFT_E_?"
    assert libpeft.Error().name == "PEFT_OK"


def test_exceptions_are_also_pythons():
    with pytest.raises(FileNotFoundError) as caught:
        libpeft.Model.open("no/such/model")
    assert isinstance(caught.value, libpeft.NotFoundError) and "no/such/model" in str(caught.value)
    with pytest.raises(KeyError):
        libpeft.Model.random(LLAMA).adapters()["x"]
    with pytest.raises(TypeError):
        libpeft.Options("trainer", no_such=1)
    with pytest.raises(ValueError):
        libpeft.Options("trainer", batch_size=0)


def test_inspect_says_what_it_is(tmp_path):
    assert libpeft.inspect(BASE)["kind"] == "model"
    assert libpeft.inspect(TRAIN)["kind"] == "data"
    with pytest.raises(FileNotFoundError):
        libpeft.inspect(tmp_path / "absent")


def test_check_says_what_is_wrong(tmp_path):
    good = libpeft.check(BASE)
    assert good["ok"] and good["kind"] == "model" and good["checked"]["forward"] and good["errors"] == []
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"input_ids":[1,2]}\n{"input_ids":[1,-2]}\n{"input_ids":[1000000]}\n')
    found = libpeft.check(rows)
    assert [e["where"] for e in found["errors"]] == ["line 2"] and found["errors"][0]["code"] == "PEFT_E_FORMAT"
    found = libpeft.check(rows, libpeft.Model.open(BASE), max_errors=1)
    assert not found["ok"] and found["error_count"] == 2 and len(found["errors"]) == 1
    with pytest.raises(FileNotFoundError):
        libpeft.check(tmp_path / "absent")


def test_context_settings():
    with libpeft.Context(threads=3, isa="generic") as ctx:
        assert ctx.threads == 3 and ctx.isa == "generic"
        ctx.threads = 1
        assert ctx.threads == 1
        with pytest.raises(libpeft.InvalidError):
            ctx.threads = 5000
        with pytest.raises(ValueError):
            ctx.threads = 2**40
        with pytest.raises(libpeft.UnsupportedError, match="generic"):
            ctx.isa = "mmx"
        ctx.isa = "auto"
        assert ctx.isa in libpeft.build_info()["isa"].split(",")
        with pytest.raises(ValueError, match="loud"):
            ctx.set_log("loud")
        ctx.set_log(None)
        assert "auto" not in repr(ctx) and "1 threads" in repr(ctx)
    with pytest.raises(ValueError, match="closed"):
        ctx.threads


def test_memory_is_counted():
    ctx = libpeft.Context()
    before = ctx.memory()
    model = libpeft.Model.random(LLAMA, context=ctx)
    during = ctx.memory()
    assert during.now > before.now and during.peak >= during.now
    model.close()
    assert ctx.memory().now == before.now
    ctx.reset_peak()
    assert ctx.memory().peak == before.now
    assert libpeft.memory().peak >= libpeft.memory().now


def test_messages_go_to_logging(caplog, tmp_path):
    ctx = libpeft.Context(log="debug")
    model = libpeft.Model.random(LLAMA, context=ctx)
    adapters = model.adapters()
    adapters.add("a", r=2)
    data = libpeft.Dataset(rows(), context=ctx)
    with caplog.at_level(logging.DEBUG, "libpeft"):
        trainer = libpeft.Trainer(adapters, data, max_steps=1)
        with pytest.raises(libpeft.BusyError):
            trainer.run(lambda step: trainer.plan())
        ctx.set_log("debug")
        from libpeft._context import _log
        _log(None, 2, "wohin\n".encode())
        _log(None, 99, None)
    assert any(record.levelno == logging.WARNING and "wohin" in record.getMessage() for record in caplog.records)


def test_a_pool_of_the_host():
    """Two threads of ours; the same numbers as with the library's own."""
    used = set()

    def pool(n, workers, body):
        def work(worker):
            used.add(threading.get_ident())
            for i in range(worker, n, workers):
                body(i, worker)

        threads = [threading.Thread(target=work, args=(w,)) for w in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = []
    for function in (None, pool):
        ctx = libpeft.Context(threads=2)
        ctx.set_parallel_for(function)
        model = libpeft.Model.random(LLAMA, seed=1, context=ctx)
        found.append(libpeft.Session(model).logits([[5] * 32] * 4).tobytes())
    assert found[0] == found[1] and len(used) >= 2


def test_a_pool_that_fails_is_reported_and_helped(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))

    def pool(n, workers, body):
        body(0, 0)
        with pytest.raises(ValueError):
            body(0, 0)
        with pytest.raises(ValueError):
            body(n, 0)
        raise RuntimeError("no more threads")

    logits = []
    for function in (None, pool):
        ctx = libpeft.Context(threads=2)
        ctx.set_parallel_for(function)
        model = libpeft.Model.random(LLAMA, seed=1, context=ctx)
        logits.append(libpeft.Session(model).logits([[5] * 32] * 4).tobytes())
    assert logits[0] == logits[1] and seen and str(seen[0]) == "no more threads"
    with pytest.raises(TypeError):
        ctx.set_parallel_for(3)
