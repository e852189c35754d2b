"""One run of a sampler inside a pipeline, observed: callbacks, progress, interruption, a check for nan.

A sampler shows its state at the start of each step, which is the end of the one before. Everything a user sees there
is translated to the scheduler's own latents, and what the user changes is translated back.
"""

import contextlib
from collections.abc import Callable

import torch
from diffusers.utils import is_torch_xla_available

from k_diffusing.observing import FiniteCheck, Position, Progress, StepCallbacks
from k_diffusing.plan import Level, SamplingPlan
from k_diffusing.trace.record import Trace

if is_torch_xla_available():
    import torch_xla.core.xla_model as xla_model
else:
    xla_model = None


class StopSampling(Exception):  # noqa: N818 - control flow, not an error
    """Leaves a sampler early, with its state x at noise level sigma."""

    def __init__(self, x: torch.Tensor, sigma: torch.Tensor):
        super().__init__("stopped")
        self.x, self.sigma = x, sigma


class SamplingRun:
    """One run of a sampler inside a pipeline: it observes, and drives nothing.

        with run:
            run.end(run_sampler(..., observer=run))
        latents = run.latents

    Attributes:
        position: where the sampler is.
        latents: the result [B, ...], in the scheduler's own form; after an interruption, as far as the run came.
    """

    def __init__(
        self, pipe, plan: SamplingPlan, x: torch.Tensor, dtype: torch.dtype, callbacks: StepCallbacks,
        trace: Trace | None, size: tuple[int, int],
    ):  # fmt: skip
        """Begin to look at a run.

        Args:
            pipe: The pipeline, whose `interrupt` ends the run and whose progress bar shows it.
            plan: What will be done.
            x: The state at the first noise level, [B, ...].
            dtype: The model's, in which users see latents.
            callbacks: The user's.
            trace: The user's, if there is one.
            size: Of the images, in pixels (height, width).
        """
        self.pipe, self.plan, self.dtype, self.callbacks, self.trace = pipe, plan, dtype, callbacks, trace
        self.position = Position(plan.sampler, plan.options)
        self.finite = FiniteCheck(plan.sampler.name, dtype, plan.evaluations)
        # A sampler makes finite numbers of finite ones, unless something of the user's has a part in it.
        self.looks_at_states = plan.sampler.custom or bool(plan.options) or callbacks.on_step_end is not None
        self.start, self.sigma = x, plan.sigmas[0]
        self.latents: torch.Tensor
        self.denoised: torch.Tensor | None = None  # of the step's first evaluation
        self.latest: torch.Tensor | None = None
        self.finite.note("start", 0, self.sigma, x)
        if trace is not None:
            trace.start(plan.sampler.name, plan.sigmas, "ve" if plan.coordinates == "ve" else "flow", pipe, size)

    def __enter__(self) -> "SamplingRun":
        steps = self.plan.steps
        self._bar = self.pipe.progress_bar(total=100 if steps is None else steps)
        self.progress = Progress(self._bar.__enter__(), steps, self.plan.sigmas)
        return self

    def __exit__(self, kind, error, traceback) -> bool:
        self._bar.__exit__(kind, error, traceback)
        if isinstance(error, StopSampling):
            self._finish(error.x, error.sigma)
        return isinstance(error, StopSampling)

    @property
    def watch_noise(self) -> Callable | None:
        """What notes every draw of a noise_sampler, if a trace is to have them."""
        return None if self.trace is None else self.trace.watch_noise

    def end(self, x: torch.Tensor) -> None:
        """The sampler returned x. On a grid of one sigma there was no step to take.

        Raises FloatingPointError if the network returned nan or inf, or the sampler made it; ValueError if the network
        was never called.
        """
        sigma = self.plan.sigmas[-1]
        if len(self.plan.sigmas) > 1:
            if self.position.calls == 0 and self.plan.sampler.custom:
                raise ValueError(f"{self.plan.sampler.name} never called the model: its result is no picture")
            with contextlib.suppress(StopSampling):  # it is over anyway
                self._end_step(x, sigma)
        self._finish(x, sigma)

    def _finish(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        if self.trace is not None:
            self.trace.end(x, sigma)
        self.finite.note_result(self.position.step, self.sigma, x)
        self.finite.look()
        self.latents = self.plan.result(x, sigma)

    @property
    def shows_denoised(self) -> bool:
        """Whether somebody looks at the denoised latents: a callback, or a trace."""
        return self.callbacks.want_denoised or self.trace is not None

    def at_start(self, x: torch.Tensor) -> bool:
        """Whether the network is about to be called for the first time, on the state that the run started from.

        Values are compared only where the sampler may have changed them before.
        """
        if self.position.calls > 0:
            return False
        return torch.equal(x, self.start) if self.position.custom or self.position.churned else True

    def evaluated(
        self, x: torch.Tensor, sigma: torch.Tensor, at: Level, net_input: torch.Tensor, denoised: torch.Tensor,
        returned: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Take note of a network evaluation at the state x, sigma [B]; return what the sampler gets.

        returned: that, if it is not the denoised latents.
        """
        returned = denoised if returned is None else returned
        if self.callbacks.want_denoised:  # or let go at once: memory that is held on to makes every step slower
            self.latest = denoised
            self.denoised = denoised if self.denoised is None else self.denoised
        if self.looks_at_states:
            self.finite.note("state", self.position.step, at.sigma, x)
        self.finite.note("answer", self.position.step, at.sigma, denoised)
        self.position.called()
        if self.plan.sampler.adaptive:  # it would search for a step that makes nan small, for ever
            self.finite.look()
        if self.trace is not None:
            self.trace.record_call(x, sigma, at.timestep, net_input, returned)
        return returned

    def begin_step(self, index: int, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        """The sampler's state at the start of step `index`; whether x or the conditioning was changed since."""
        changed = index > 0 and self._end_step(x, sigma)
        self.position.begin(index)
        self.sigma, custom = sigma, self.plan.sampler.custom
        if self.trace is not None:
            self.trace.begin_step(index, x, sigma, late=custom)
        # A custom sampler tells us only after its first evaluation, which is repeated if anything was changed.
        self.denoised = self.latest if custom and not changed else None
        return changed

    def _end_step(self, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        changed = self._call_back(x, sigma)
        self.progress.tick(sigma)
        if self.callbacks.legacy is not None:
            latents = self.plan.space.latents(x, sigma).to(self.dtype)
            self.callbacks.call_legacy(self.position.step, self._timestep(), latents)
        if xla_model is not None:
            xla_model.mark_step()
        if self.pipe.interrupt:
            raise StopSampling(x, sigma)
        return changed

    def _call_back(self, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        if self.callbacks.on_step_end is None:
            return False
        latents = self.plan.space.latents(x, sigma).to(self.dtype)
        denoised = None if self.denoised is None else self.denoised.to(self.dtype)
        replaced, changed = self.callbacks.call(self.pipe, self.position.step, self._timestep(), latents, denoised)
        if replaced is not None:
            x.copy_(self.plan.space.state(replaced.to(x), sigma))
        return changed

    def _timestep(self) -> torch.Tensor:
        """What the network is told at the start of the step."""
        return self.plan.space.timestep(torch.as_tensor(self.sigma)).to(self.start.device)
