"""_trainer.py - Trainer: trains adapters on a data set, step by step or in one call, or by a loop of the caller's.

    trainer = Trainer(adapters, "train.jsonl", adapter="fr", learning_rate=1e-3, max_steps=100)
    for step in trainer:
        print(step.step, step.loss)

Iterating and run() make the same steps, to the bit; either may be left and gone on with at any time. Ctrl-C ends a run after
the present step and leaves everything whole.
"""
from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Union

from . import _ffi
from ._adapters import Adapter, Adapters
from ._array import Array
from ._callbacks import Run, Step, interruptible, on_step
from ._calls import Path, data, make, name, path, reading
from ._dataset import Batch, Dataset, Rows, dataset_of
from ._errors import CallbackError, InvalidError
from ._handle import Handle, expect, use
from ._hooks import AllReduce, Hooks, Loss, on_all_reduce, on_loss
from ._lib import lib
from ._model import Model
from ._options import split, using
from ._progress import Meter, Progress
from ._tokenizer import Tokenizer
from ._types import Row

Source = Union[None, Dataset, Path, Iterable[Row], Batch]


class Metrics(NamedTuple):
    """What an evaluation found; loss: mean in nats over the labelled tokens, or rows."""

    loss: float
    perplexity: float
    """Of a language model, else NaN."""
    accuracy: float
    """Share of the labelled tokens or rows that the model gets right; NaN for tasks without."""
    tokens: int
    """Labelled tokens; 0 for tasks about rows."""
    rows: int
    scores: Dict[str, float]
    """All that the task is measured by, such as "accuracy", "f1_macro", "pearson", "exact_match"."""


def metrics_of(found: Dict[str, Any]) -> Metrics:
    loss, perplexity, accuracy = (float("nan" if found.get(key) is None else found[key]) for key in Metrics._fields[:3])
    counts = ("tokens", "rows")
    scores = {key: float("nan" if found[key] is None else found[key]) for key in found if key not in counts}
    return Metrics(loss, perplexity, accuracy, int(found.get("tokens", 0)), int(found["rows"]), scores)


def _makes_rows(*sources: Source) -> bool:
    return any(source is not None and not isinstance(source, Dataset) for source in sources)


class Trainer(Handle):
    """Trains adapters of a set.

    what: an Adapters, an Adapter, or a Model, which gets a new set with one adapter "default" of `method`.
    data: a Dataset, a path of JSON Lines, or rows (see Dataset); None for a caller who owns the loop.
    eval: the same, to evaluate on (options eval_steps, load_best_model_at_end).
    adapter: which, by name or expression; None: the set's only one.
    tokenizer: for data that is no Dataset; None: the model's.
    Options: schemas "trainer" and "optimizer", such as max_steps=100, learning_rate=1e-3; over a Model those of the method too;
    where data or eval is no Dataset those of "dataset", such as max_length=256, which is the rows' and the steps'.
    """

    _free = "peft_trainer_free"
    _one_thread = True
    _has_threads = True

    def __init__(self, what: Union[Adapters, Adapter, Model], data: Source = None, *, eval: Source = None,
                 adapter: Optional[str] = None, method: Optional[str] = None, tokenizer: Optional[Tokenizer] = None,
                 **options: Any) -> None:
        schemas = ["trainer", "optimizer", "dataset"] if _makes_rows(data, eval) else ["trainer", "optimizer"]
        if isinstance(what, Model):
            schemas.append("method:" + (method or "lora"))
        elif method is not None:
            raise TypeError("a method is given with a Model only: the adapters of a set have theirs")
        parts = split(options, *schemas)
        self.adapters, self.adapter = _target(what, adapter, method or "lora", parts[-1])
        self.context = self.adapters.context

        self._tokenizer = tokenizer if tokenizer is None else expect(tokenizer, Tokenizer, "tokenizer")
        self._length = {key: value for key, value in parts[0].items() if key == "max_length"}
        rows = parts[2] if "dataset" in schemas else {}
        train, held_out = self._rows_of(data, "data", rows), self._rows_of(eval, "eval", rows)
        with self.adapters._use() as a, using(self.context, "trainer", parts[0]) as o:
            super().__init__(make(lib.peft_trainer_create, a, o))
        self._hooks = Hooks()
        try:
            self._add_job(self.adapter, train, held_out, parts[1])
        except BaseException:
            self.close()
            raise

    def _rows_of(self, source: Source, what: str, options: Dict[str, Any]) -> Optional[Dataset]:
        return dataset_of(source, self._find_tokenizer, self.context, what, self.adapters.model.task, {**self._length, **options})

    def _find_tokenizer(self) -> Tokenizer:
        return self._tokenizer or self.adapters.model.tokenizer

    def add_job(self, adapter: str, data: Source = None, *, eval: Source = None, **options: Any) -> None:
        """Another adapter of the set, by name or expression, that is trained along on data of its own: a pass is one batch of
        rows of all jobs, and each learns as it would alone. Steps say whose they are in `job`, plan()["jobs"] how each stands.

        Before the first step. Options: schema "optimizer", such as learning_rate=1e-3, share=2.0, max_steps=100; those of "dataset"
        where data or eval is no Dataset."""
        optimizer, *rows = split(options, *(["optimizer", "dataset"] if _makes_rows(data, eval) else ["optimizer"]))
        train, held_out = (self._rows_of(source, what, rows[0] if rows else {}) for source, what in ((data, "data"), (eval, "eval")))
        self._add_job(adapter, train, held_out, optimizer)

    def _add_job(self, adapter: str, train: Optional[Dataset], held_out: Optional[Dataset], optimizer: Dict[str, Any]) -> None:
        with self._use() as t, use(train, Dataset, "data") as d, use(held_out, Dataset, "eval") as e:
            with using(self.context, "optimizer", optimizer) as o:
                lib.peft_trainer_add_job(t, name(adapter, "adapter"), d, e, o)

    def run(self, progress: Progress = None) -> List[Step]:
        """Trains to the end and returns the steps that it made, evaluating and saving as the options say.

        progress: called with each Step; True: a bar. What it raises ends the run after that step and is raised here.
        CancelledError after cancel(); NumericError at a loss that is no number. In all cases another call goes on.
        """
        steps: List[Step] = []

        def each(step: Step) -> None:
            steps.append(step)
            if show is not None:
                show(step)

        with Meter(progress) as show, self._use() as t:
            self._run(t, each, lambda: lib.peft_trainer_run(t))
        return steps

    def step(self) -> Optional[Step]:
        """Makes one step of the run; None when it is at its end. Of several jobs it is the last one's: iterating gives all."""
        made = self._step()[0]
        return made[-1] if made else None

    def _step(self) -> "tuple[List[Step], bool]":
        more = ctypes.c_int32()
        made: List[Step] = []
        with self._use() as t:
            self._run(t, made.append, lambda: lib.peft_trainer_step(t, ctypes.byref(more)))
        return made, more.value != 0

    def __iter__(self) -> Iterator[Step]:
        """The steps that are left, each made when it is asked for; of several jobs one Step for each."""
        more = True
        while more:
            made, more = self._step()
            yield from made

    def _run(self, t: int, each: Optional[Callable[[Step], None]], call: Callable[[], int]) -> None:
        run = Run(each)
        lib.peft_trainer_set_progress(t, on_step, run.number)
        try:
            self._hooked(call, run)
        finally:
            lib.peft_trainer_set_progress(t, _ffi.peft_progress_fn(), None)

    def _hooked(self, call: Callable[[], object], run: Run) -> None:
        """A call in which callbacks may be called: what they raise is raised by it."""
        before, self._hooks.run = self._hooks.run, run
        try:
            with run:
                try:
                    call()
                except CallbackError:
                    if run.error is None:
                        raise
        finally:
            self._hooks.run = before

    def set_loss(self, function: Optional[Loss]) -> None:
        """Another loss than the task's in training: function is called with a LossChunk, whose `values` it replaces by the
        gradient of the loss by them, and returns (loss, weight): a sum over the chunk, and what the step's sum of losses is to be
        divided by for it, as a rule chunk.rows. Evaluation keeps the task's own. None: the task's again.

        What it raises ends the step as if it had not begun and is raised by run(), step() or accumulate()."""
        if function is not None and not callable(function):
            raise TypeError("function must be callable or None, not %s" % type(function).__name__)
        with self._use() as t:
            lib.peft_trainer_set_loss(t, _ffi.peft_loss_fn() if function is None else on_loss, self._hooks.number)
        self._hooks.loss = function

    def set_all_reduce(self, rank: int, size: int, function: Optional[AllReduce]) -> None:
        """Makes the trainer one of `size` processes that train together, number `rank` from 0: each takes its part of every batch
        of batch_size rows. function(values) is given a writable view of floats and adds them up over all processes, in place, the
        same bits in each. All have the same model, data, options and seed, and end with the same adapters; process 0 alone writes
        checkpoints. Before the first step, and before load_checkpoint(). size 1 and None: alone.

        What it raises ends the step as if it had not begun and is raised by run(), step() or apply()."""
        if function is not None and not callable(function):
            raise TypeError("function must be callable or None, not %s" % type(function).__name__)
        with self._use() as t:
            hook = _ffi.peft_all_reduce_fn() if function is None else on_all_reduce
            lib.peft_trainer_set_all_reduce(t, rank, size, hook, self._hooks.number)
        self._hooks.all_reduce = function

    def accumulate(self, batch: Union[Batch, Rows]) -> float:
        """For callers who own the loop: adds the gradients of a batch, or of rows of ids. Returns the mean loss over its
        labelled tokens, in nats."""
        loss = ctypes.c_double()
        own = None if isinstance(batch, Batch) else Batch(batch, context=self.context)
        with self._use() as t, expect(own or batch, Batch, "batch")._use() as b:
            if self._hooks:
                self._hooked(lambda: lib.peft_trainer_accumulate(t, b, ctypes.byref(loss)), Run())
            else:
                lib.peft_trainer_accumulate(t, b, ctypes.byref(loss))
        if own is not None:
            own.close()
        return loss.value

    def apply(self) -> None:
        """Clips and updates by the gradients accumulated so far, which are the mean over their labelled tokens."""
        with self._use() as t:
            if self._hooks:
                self._hooked(lambda: lib.peft_trainer_apply(t), Run())
            else:
                lib.peft_trainer_apply(t)

    def gradient(self, tensor: str, adapter: Optional[str] = None) -> Array:
        """The gradient accumulated so far of a trainable tensor, in its shape. adapter: None for the trainer's own."""
        owner, raw = name(adapter or self.adapter, "adapter"), name(tensor, "tensor")
        needed, out = ctypes.c_size_t(), Array((0,))
        known = self.adapters[owner.decode()].tensors.shapes() if owner.decode() in self.adapters else {}
        while True:
            with self._use() as t:
                status = lib.peft_trainer_gradient_read(t, owner, raw, out.pointer(), out.size, ctypes.byref(needed))
            if status == _ffi.PEFT_OK:
                return out
            shape = known.get(tensor, (needed.value,))
            out = Array(shape)

    def gradients(self, adapter: Optional[str] = None) -> Dict[str, Array]:
        """The gradients of all tensors that are trained, by name."""
        found = {}
        for tensor in self.adapters[adapter or self.adapter].tensors:
            try:
                found[tensor] = self.gradient(tensor, adapter)
            except InvalidError:  # not trained
                continue
        return found

    def evaluate(self, data: Source) -> Metrics:
        """Loss and accuracy of rows under the trainer's adapters."""
        rows = self._rows_of(data, "data", {})
        with self._use() as t, expect(rows, Dataset, "data")._use() as d:
            found = interruptible(lambda: _evaluate(t, d), lambda: lib.peft_trainer_cancel(t))
        return metrics_of(found)

    def plan(self) -> Dict[str, Any]:
        """What the run will need: {"peak_bytes", "activation_bytes", "trainable_parameters", "flops_per_step", ...}.
        OutOfMemoryError if the option memory_limit cannot be kept."""
        with self._use() as t:
            found: Dict[str, Any] = data(lib.peft_trainer_plan_json, t, room=16384)
        return found

    def cancel(self) -> None:
        """From any thread: ends a run after the present step with CancelledError."""
        with self._use_with_others() as t:
            lib.peft_trainer_cancel(t)

    def save_checkpoint(self, place: Path) -> None:
        """Writes all that a run needs to go on bit for bit into a folder, which is replaced at once."""
        with self._use() as t:
            lib.peft_trainer_checkpoint_save(t, path(place))

    def load_checkpoint(self, place: Path) -> None:
        """Goes on from what save_checkpoint, or the option checkpoint_dir, wrote."""
        raw = path(place)
        with self._use() as t, reading(raw):
            lib.peft_trainer_checkpoint_load(t, raw)

    def _about(self) -> str:
        return " of %r" % self.adapter


def _evaluate(t: int, d: int) -> Dict[str, Any]:
    found: Dict[str, Any] = data(lib.peft_trainer_evaluate, t, d)
    return found


def _target(what: Any, adapter: Optional[str], method: str, options: Dict[str, Any]) -> "tuple[Adapters, str]":
    """The set, and the name or expression."""
    if isinstance(what, Model):
        adapters = what.adapters()
        adapters.add(adapter or "default", method, **options)
        return adapters, adapter or "default"
    if isinstance(what, Adapter):
        return what.adapters, adapter or what.name
    return expect(what, Adapters, "what"), adapter or what.only()
