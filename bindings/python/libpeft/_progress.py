"""_progress.py - a bar while a run goes on: tqdm's where it is installed, else a line on stderr now and then."""
from __future__ import annotations

import sys
import time
from typing import Any, Callable, Optional, Union

from ._callbacks import Step

Progress = Union[None, bool, Callable[[Step], object]]


class _Bar:
    """tqdm's bar, moved by steps."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def __call__(self, step: Step) -> None:
        if self._bar is None:
            self._bar = self._tqdm(total=step.max_steps, initial=step.step - 1, unit="step")
        self._bar.set_postfix_str("loss %.4f%s" % (
            step.loss, "" if step.eval_loss is None else ", eval %.4f" % step.eval_loss), refresh=False)
        self._bar.update(step.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """A line every few seconds, and for the last step."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if now < self._next and step.step < step.max_steps and step.eval_loss is None:
            return
        self._next = now + 5
        after = "" if step.eval_loss is None else ", eval %.4f" % step.eval_loss
        sys.stderr.write("step %d of %d: loss %.4f%s, %.0f tokens/s, %.0f s to go\n" % (
            step.step, step.max_steps, step.loss, after, step.tokens_per_second, step.eta_seconds))

    def close(self) -> None:
        return None


class Meter:
    """with Meter(progress) as function: what is called after each step; progress: True for a bar, or a function."""

    def __init__(self, progress: Progress) -> None:
        if progress is not None and not isinstance(progress, bool) and not callable(progress):
            raise TypeError("progress must be True or a function of a Step, not %s" % type(progress).__name__)
        self._progress = progress
        self._own: Any = None

    def __enter__(self) -> Optional[Callable[[Step], object]]:
        if self._progress is True:
            try:
                from tqdm.auto import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]
            except ImportError:
                self._own = _Lines()
            else:
                self._own = _Bar(tqdm)
            own: Callable[[Step], object] = self._own
            return own
        return self._progress if callable(self._progress) else None

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()
