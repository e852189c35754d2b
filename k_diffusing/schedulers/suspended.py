"""A function that calls a model, turned inside out: suspended in each of its calls until it is given the answer.

It runs in a greenlet: in the thread of its caller, so that devices, streams and autocast are the caller's.
"""

import contextlib
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable
from typing import cast

import torch
from greenlet import getcurrent, greenlet

from k_diffusing._tensors import Stamp


class _Suspended:
    """The runs suspended in a thread, ended with the thread: later nobody could, and what they hold would stay."""

    def __init__(self):
        self.runs = weakref.WeakSet()

    def __del__(self):
        if sys.is_finalizing():
            return
        getcurrent()  # ends those that were dropped by other threads
        for run in list(self.runs):
            run.throw()


_of_thread = threading.local()


def _suspendable(function: Callable) -> greenlet:
    """A greenlet of function(model), which is switched out in each call of model(x, sigma).

    It hands out x, and is switched in again with the answer and, where x was changed, what it is to be.
    No frame of it may hold the greenlet, for then it would never be collected; the caller is its parent. The caller
    keeps its own grad and inference modes, whatever those that the function sets for itself. (Not kept is the inference
    mode of a caller who ends a run that began outside of it, if the function has inference mode for itself.)
    """
    outside = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def look():
        nonlocal outside
        outside = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def model(x, sigma):
        same = torch.is_inference_mode_enabled() == outside[0]
        with contextlib.nullcontext() if same else torch.inference_mode(outside[0]), torch.set_grad_enabled(outside[1]):
            try:
                changed, answer = cast(greenlet, getcurrent().parent).switch(x)
            finally:
                look()
        if changed is not None:
            x.copy_(changed)
        return answer

    def body():
        look()
        try:
            return function(model)
        finally:
            torch.set_grad_enabled(outside[1])

    run = greenlet(body)
    run.gr_context = contextvars.copy_context()
    if not hasattr(_of_thread, "suspended"):
        _of_thread.suspended = _Suspended()
    _of_thread.suspended.runs.add(run)
    return run


class SuspendedRun:
    """A run of function(model), suspended inside its call of the model(x, sigma); one that is dropped unwinds.

    Attributes:
        x: the state at which it wants the network, [B, ...]; the result once it is over.
    """

    def __init__(self, function: Callable):
        self._greenlet, self._given = _suspendable(function), None
        self.x = self._greenlet.switch()

    @property
    def over(self) -> bool:
        """Whether the function returned."""
        return self._greenlet.dead

    def answer(self, answer, changed: torch.Tensor | None = None) -> None:
        """Go on to the next call of the model.

        Args:
            answer: what the model returns.
            changed: what x is to be, if not what it was.

        Raises:
            RuntimeError: in another thread than the run began in.
        """
        try:
            self._greenlet.parent = getcurrent()
        except ValueError as error:
            raise RuntimeError(
                "this run began in another thread: call every step of it there, or set_timesteps to start again"
            ) from error
        self.x = self._greenlet.switch(changed, answer)

    def __reduce_ex__(self, protocol):
        raise TypeError("a suspended run cannot be copied or pickled; its scheduler can, which leaves the run out")

    def give(self, latents: torch.Tensor) -> None:
        """Take note of what the pipeline was given."""
        self._given = Stamp(latents)

    def gave(self, latents: torch.Tensor) -> bool:
        """Whether these are the latents given last, as they were."""
        return self._given is not None and self._given.holds(latents)
