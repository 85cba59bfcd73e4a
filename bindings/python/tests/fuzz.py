"""fuzz.py SEED CALLS - calls everything that is public with whatever there is. Run by test_misuse.py in a process of its own,
in an empty folder: it must end by itself, and nothing but exceptions may come of it. Prints what came."""
import collections
import faulthandler
import gc
import inspect
import os
import pathlib
import random
import sys
import threading

import numpy

import libpeft
from conftest import LLAMA, rows

faulthandler.enable()
FOR_EVER = {"run", "__iter__"}  # their trainers have few steps
KEYS = sorted({o.key for name in libpeft.schemas() for o in libpeft.options(name)}
              - {"max_steps", "num_train_epochs", "gradient_accumulation_steps", "seed", "load", "checkpoint_dir"})
CONSTRUCTORS = [libpeft.Model.random, libpeft.Model.open, libpeft.Model.from_tensors, libpeft.Tokenizer.open, libpeft.Adapters,
                libpeft.Batch, libpeft.Dataset, libpeft.Session, libpeft.Options, libpeft.inspect, libpeft.options,
                libpeft.Array, libpeft.status_name, libpeft.Context, libpeft.context, libpeft.memory, libpeft.Raw]
NUMBERS = [-1, 0, 1, 2, 7, 40, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -10**30, 1.5, float("nan"), float("inf"), True]


def junk(rng, handles):
    nested = []
    nested.append(nested)
    return rng.choice([
        None, rng.choice(NUMBERS), rng.choice(NUMBERS), rng.choice(handles), rng.choice(handles), "", "a", "b", "a\0b", "\ud800",
        "größer", "x" * 5000, b"\xff", b"", b"a", [], [[]], [1, 2], [[1, 2], [3]], [[1, 2], "x"], {}, {"a": 1}, {"input_ids": [1, 2]},
        {"text": "x"}, object(), len, lambda *a: None, lambda *a: 1 / 0, nested, (1, 2), range(3), iter([1, 2]), 1j, ...,
        numpy.arange(6).reshape(2, 3), numpy.arange(3, dtype=numpy.int32)[::-1], numpy.zeros((0, 3), numpy.float32),
        numpy.zeros(3, object), numpy.array("x"), numpy.float64("nan"), memoryview(b"abc"), libpeft.Array((2, 3)),
        pathlib.Path("place"), os, slice(None), LLAMA, "lora", "prompt", "all-linear", set(), "trainer", "method:lora",
        {"a": 0.5, "b": float("nan")}, "a:0.5, b", "stack(a, b)", "parallel(a, b)", libpeft.Raw(b"1234", "F32", (1,)),
    ])


LIKELY = {  # what a parameter of the name may well be
    "adapter": ["a", "b", "c", "größer"], "method": libpeft.methods(), "expression": ["a", "b", "a, b", "0.5 * a", "", "parallel(a, b)"],
    "sources": [{"a": 0.5}, "a:2, b", {"a": 1, "a2": -1}], "place": ["place", pathlib.Path("place"), b"file.gguf", "rows.jsonl"],
    "tensor": ["model.norm.weight", "model.layers.0.self_attn.q_proj.lora_A.weight"], "ids": [[1, 2, 3], range(5), [39]],
    "rows": [[[1, 2], [3]], numpy.arange(6).reshape(2, 3)], "row": [[1, 2], {"input_ids": [4]}],
    "prompt": [[1, 2, 3], [3], range(60), range(64)],
    "data": [[[1, 2, 3]], None], "input_ids": [[[1, 2], [3]], numpy.ones((2, 2), int)], "labels": [[[1, 2], [-100]]],
    "values": [[0.0] * 32, numpy.zeros((2, 16), numpy.float32)], "schema": libpeft.schemas(), "config": [LLAMA], "key": KEYS,
    "seed": [0, 1, 2**64 - 1], "json_text": ['{"r": 3}', "{"], "text": ["3", "true"], "on_token": [lambda *a: None, lambda *a: 1 / 0],
    "progress": [lambda step: None, lambda step: 1 / 0, False], "index": [0, -1, 3], "what": [None], "batch": [[[1, 2], [3]]],
}


def arguments_of(rng, handles, function):
    """As many arguments as it takes, rarely another number; each likely, a handle of the right kind by chance, or anything."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in plain if p.default is p.empty or rng.random() < 0.4]
    wanted = 0.75 if rng.random() < 0.7 else 0.0

    def one(name):
        return rng.choice(LIKELY[name]) if name in LIKELY and rng.random() < wanted else junk(rng, handles)

    arguments = [one(p.name) for p in needed]
    if rng.random() < 0.1 or not parameters:
        arguments = [junk(rng, handles) for _ in range(rng.choice([0, 1, 2, 3]))]
    options = {p.name: one(p.name) for p in parameters if p.kind is p.KEYWORD_ONLY and rng.random() < 0.15}
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and rng.random() < 0.4:
        options[rng.choice(KEYS)] = junk(rng, handles) if rng.random() < 0.5 else rng.choice([0, 1, 2, 0.5, True, "lora", [1]])
    return arguments, options


def new_handles(rng):
    context = libpeft.Context(threads=rng.choice([1, 2]), log=rng.choice([None, "debug"]))
    model = libpeft.Model.random(LLAMA, rng.randrange(3), context=context)
    adapters = model.adapters()
    adapters.add("a", r=2)
    adapters.add("b", rng.choice(["ia3", "prompt", "pfeiffer", "lora"]))
    data = libpeft.Dataset(rows(4), context=context)
    trainer = libpeft.Trainer(adapters["a"], data, max_steps=3, batch_size=2)
    session = libpeft.Session(adapters, rng.choice(["a", "b", "a, b", ""]))
    return [context, model, adapters, adapters["a"], adapters["b"].tensors, model.tensors, data, trainer, session, iter(trainer),
            session.tokens([1, 2], max_new_tokens=4), libpeft.Batch(rows(2), context=context), libpeft.Options("generate")]


def target(rng, handles):
    """Something to call, and its name."""
    if rng.random() < 0.2:
        function = rng.choice(CONSTRUCTORS)
        return function, function.__name__
    thing = rng.choice(handles)
    special = [n for n in ("__len__", "__getitem__", "__iter__", "__next__", "__setitem__", "__delitem__", "__contains__", "__repr__",
                           "__enter__", "__eq__") if hasattr(type(thing), n)]
    name = rng.choice([n for n in dir(type(thing)) if not n.startswith("_")] + special)
    if name == "close" and rng.random() < 0.8:
        return repr, "repr"
    static = inspect.getattr_static(type(thing), name)
    if isinstance(static, property) and rng.random() < 0.2:
        return lambda value=None: setattr(thing, name, value), "set " + name
    found = getattr(thing, name)
    return (found if callable(found) else lambda *a: found), "%s.%s" % (type(thing).__name__, name)


def main(seed, calls):
    rng, counts, done = random.Random(seed), collections.Counter(), 0
    sys.unraisablehook = lambda u: sys.exit("unraisable: %r %r" % (u.exc_value, u.object))
    sys.excepthook, threading.excepthook = (lambda *a: None), (lambda *a: None)
    handles = new_handles(rng)
    for i in range(calls):
        if i % 60 == 0:
            rng.shuffle(handles)
            handles = handles[:6] + new_handles(rng)
        if i % 37 == 0:
            gc.collect()
        arguments, options, name = [], {}, ""
        try:
            function, name = target(rng, handles)
            arguments, options = arguments_of(rng, handles, function)
            result = function(*arguments, **options)
            done += 1
            if isinstance(result, libpeft.Trainer):
                result.close()  # it might have many steps
            elif isinstance(result, (libpeft.Model, libpeft.Session, libpeft.Batch)) or hasattr(result, "__next__"):
                handles.append(result)
        except Exception as error:
            counts[type(error).__name__] += 1
            if isinstance(error, (AssertionError, libpeft.InternalError)):
                raise SystemExit("%s(%r, %r): %r" % (name, arguments, options, error)) from error
    print("%d of %d calls were fine" % (done, calls), dict(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
