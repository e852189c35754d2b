"""Runs of a pipeline side by side, whose calls of the network are joined.

    with JoinedRuns(pipe, "unet", rows=16) as runs:
        while cells or runs.open:
            while cells and runs.has_room:
                runs.begin(cell := cells.pop(), keywords(cell))
            for run in runs.advance():
                run.cell, run.outcome

Each run is a call of a shallow copy of the pipeline, in a greenlet of its own. In place of the network the copy has
what waits: the run is left where it calls, and goes on there with its part of the answer. All is in one thread.
torch is imported in the functions that need it.
"""

import contextlib
import contextvars
import copy
from typing import Any, cast

from greenlet import getcurrent, greenlet

from k_diffusing.render.calls import Call, Once, answers
from k_diffusing.render.meter import Meter


class JoinedRuns:
    """Runs that are open, from begin() to the advance() that tells of their end.

    Attributes:
        open: Those that are not over, or not told of.
        rows: Of a call of the network at most. One of a single run may have more.
    """

    def __init__(self, pipe, network: str, rows: int, decode_last: bool = False):
        """Runs of a pipeline.

        Args:
            pipe: The pipeline, which is left as it is.
            network: The name of its part whose calls are joined.
            rows: See the attributes.
            decode_last: Whether pictures are decoded only when no run waits for the network: where one of the
                pipeline's parts at a time is on the device.
        """
        self.pipe, self.network, self.rows, self.decode_last = pipe, network, rows, decode_last
        self.meter, self.once = Meter(pipe._execution_device), Once()
        self.open: list[Run] = []

    def __enter__(self) -> "JoinedRuns":
        return self

    def __exit__(self, *_) -> None:
        import torch

        with torch.no_grad():  # which each run has found, and puts back
            for run in self.open:
                with contextlib.suppress(Exception):  # what it raises as it unwinds, nobody waits for
                    run.end()

    @property
    def has_room(self) -> bool:
        """Whether the runs that are open leave rows of a call empty; not where pictures wait to be decoded first."""
        if self.decode_last and any(run.call.decodes for run in self.open if not run.over):
            return False
        return sum(run.rows for run in self.open if not run.over) < self.rows

    def begin(self, cell: Any, keywords: dict[str, Any]) -> None:
        """Begin a run, up to its first call of the network.

        Args:
            cell: What it is.
            keywords: Of the pipeline's call, for one image.
        """
        import torch

        run = Run(cell, self.pipe, self.network, keywords, self.once)
        self.open.append(run)
        start = self.meter.mark()
        with torch.no_grad():
            run.go_on(None)
        run.spans.append((1.0, start, start, self.meter.mark()))
        run.peak = self.meter.peak()

    def advance(self) -> list["Run"]:
        """Answer the calls that can be one, and return the runs that are over now."""
        batch = self._next_batch()
        if batch:
            self._answer(batch)
        self.open = [run for run in self.open if run not in batch] + batch  # those that waited longest come first
        ended = [run for run in self.open if run.over]
        self.open = [run for run in self.open if not run.over]
        return ended

    def _next_batch(self) -> list["Run"]:
        """The runs whose calls are answered next: of one kind, at most so many rows."""
        waiting = [run for run in self.open if not run.over]
        waiting.sort(key=lambda run: run.call.decodes == self.decode_last)
        batch, rows = [], 0
        for run in waiting:
            if not batch or (rows + run.call.rows <= self.rows and run.call.joins(batch[0].call)):
                batch.append(run)
                rows += run.call.rows
        return batch

    def _answer(self, batch: list["Run"]) -> None:
        """Answer the calls of runs, and go on with each to its next call."""
        import torch

        shares, decodes = [run.call.rows for run in batch], batch[0].call.decodes
        start = self.meter.mark()
        with torch.no_grad():
            found = self._answers([run.call for run in batch])
            answered = self.meter.mark()
            for run, answer in zip(batch, found, strict=True):
                run.go_on(answer)
        end, peak = self.meter.mark(), self.meter.peak()
        for run, rows in zip(batch, shares, strict=True):
            run.spans.append((rows / sum(shares), start, start if decodes else answered, end))
        for run in self.open:
            run.peak = max(run.peak, peak) if run.peak and peak else peak
        if decodes and not any(run.call.decodes for run in self.open if not run.over):
            self.pipe.maybe_free_model_hooks()

    def _answers(self, calls: list[Call]) -> list[Any]:
        """What each call returns or raises; where several cannot be one, each is tried alone."""
        import torch

        try:
            return answers(calls)
        except Exception as error:
            if len(calls) == 1:
                return [error]
            if isinstance(error, torch.OutOfMemoryError):
                self.rows = max(sum(call.rows for call in calls) // 2, 1)
        return [answer for call in calls for answer in self._answers([call])]

    def seconds(self, run: "Run") -> tuple[float, float]:
        """The seconds of a run that is over, and of them those of its network calls: its part of what it shared."""
        between = self.meter.seconds
        whole = sum(share * between(start, end) for share, start, _, end in run.spans)
        return whole, sum(share * between(start, answered) for share, start, answered, _ in run.spans)


class Run:
    """A call of a pipeline for one picture, left in each call of its network until it is answered.

    Attributes:
        cell: What it is.
        call: The call that waits.
        outcome: Once it is over, the picture, or the exception that ended it.
        over: Whether it is.
        rows: Of its calls.
        evaluations: Of the network, so far: calls one after the other on the same input, with the prompt and without
            it, are one.
        spans: What it took part in: its share, and three moments, where it began, was answered and ended.
        peak: MiB at most meanwhile, where it is known.
    """

    def __init__(self, cell: Any, pipe, network: str, keywords: dict[str, Any], once: Once):
        """A run that has not begun."""
        self.cell, self.rows, self.over, self.evaluations = cell, 1, False, 0
        self.call: Call
        self._seen: Any = None  # the network's latest input
        self.outcome: Any = None
        self.spans: list[tuple] = []
        self.peak: float | None = None
        own = copy.copy(pipe)  # what a call notes on the pipeline is this run's
        parts = {network: Waiting(getattr(pipe, network), self, once), "maybe_free_model_hooks": lambda: None}
        parts["decode"] = lambda *args: _wait(Call(pipe.decode, args, {}, decodes=True))
        vars(own).update(parts)
        self._greenlet = greenlet(lambda _: own(**keywords).images[0])
        self._greenlet.gr_context = contextvars.copy_context()

    def go_on(self, answer: Any) -> None:
        """Go on to the next call, with the answer to the one that waits; with an exception, raise it there."""
        self._greenlet.parent = getcurrent()
        resume = self._greenlet.throw if isinstance(answer, Exception) else self._greenlet.switch
        try:
            returned = resume(answer)
        except Exception as error:  # whatever went wrong with this one, the others go on
            self.over, self.outcome = True, error
            return
        if self._greenlet.dead:
            self.over, self.outcome = True, returned
            return
        self.call = returned

    def count(self, call: Call) -> None:
        """Take note of a call of the network."""
        self.evaluations += call.given is not self._seen
        self._seen, self.rows = call.given, call.rows

    def end(self) -> None:
        """End it where it waits: what it has begun is unwound."""
        self._greenlet.throw()


class Waiting:
    """Stands for a network in the pipeline of a run: a call of it waits for its answer."""

    def __init__(self, network, run: Run, once: Once):
        self.network, self.run, self.shared = network, run, once.of_run()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, *args, **kwargs) -> Any:
        """As the network's. With autograd or inference mode, which are a thread's, the call is made here and now."""
        import torch

        call = Call(self.network, args, self.shared(kwargs))
        self.run.count(call)
        here = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        return call.answer() if here else _wait(call)


def _wait(call: Call) -> Any:
    """Leave the greenlet of a run until its call is answered."""
    return cast(greenlet, getcurrent().parent).switch(call)
