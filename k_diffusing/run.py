"""One run of a sampler inside a pipeline, observed: callbacks, progress, interruption, a check for nan.

A sampler shows its state at the start of each step, which is the end of the one before. Everything a user sees there
is translated to the scheduler's own latents, and what the user changes is translated back.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.utils import is_torch_xla_available

from k_diffusing._tensors import Stamp
from k_diffusing.plan import Level, SamplingPlan
from k_diffusing.samplers.records import Sampler
from k_diffusing.trace.record import Trace

if is_torch_xla_available():
    import torch_xla.core.xla_model as xla_model
else:
    xla_model = None


SAMPLED = 1024  # elements of each state and network evaluation that are looked at for nan; all of the result are
# Whose nan it is, by where it was seen first. Samplers work element by element, so that an element of the state which
# is nan or inf, and was finite in all that the model returned, is the sampler's.
_SPOILED_BY_SAMPLER = (
    "the sampler made nan or inf of what were finite numbers, by {at}: the model's answers were finite. Look at its "
    "options, the sigma grid, and what your own code does, if the sampler or a callback is yours"
)
SPOILED = {
    "start": "the latents to start from hold nan or inf, at {at}: look at latents=",
    "answer": "the model returned nan or inf at {at}: try torch.float32 or bfloat16, a lower guidance scale or another "
    "sigma grid",
    "state": _SPOILED_BY_SAMPLER,
    "result": _SPOILED_BY_SAMPLER,
    "rest": "a few elements of the result are nan or inf, at {at}, made by the model or by the sampler: try "
    "torch.float32 or bfloat16, and other options",
}


class StopSampling(Exception):  # noqa: N818 - control flow, not an error
    """Leaves a sampler early, with its state x at noise level sigma."""

    def __init__(self, x: torch.Tensor, sigma: torch.Tensor):
        super().__init__("stopped")
        self.x, self.sigma = x, sigma


class Position:
    """Where a sampler is.

    Attributes:
        step: of the grid, counted from 0.
        stage: of the network call to come, within the step; always 0 in a custom sampler, whose steps are known only
            afterwards.
        level: index in the grid of the sigma of the network call to come, where it is known to be one of the grid's.
        calls: network calls made.
    """

    def __init__(self, sampler: Sampler, options: dict[str, Any]):
        self.custom = sampler.custom
        self.churned = bool(options.get("s_churn"))
        self.on_grid = sampler.takes == "sigmas" and not (sampler.custom or self.churned)
        self.step, self.stage, self.level, self.calls = 0, 0, None, 0

    def begin(self, step: int) -> None:
        """Step `step` begins."""
        self.step, self.stage = step, 0
        self.level = step if self.on_grid else None

    def called(self) -> None:
        """The network was called."""
        self.level = None
        self.stage += not self.custom
        self.calls += 1


class Progress:
    """A progress bar: a tick for each step, or for each hundredth of the way in log sigma where steps are not known."""

    def __init__(self, bar, steps: int | None, sigmas: torch.Tensor):
        self.bar, self.steps, self.ticks = bar, steps, 0
        if steps is None:
            self.low, self.high = (math.log(float(end)) for end in (sigmas[sigmas > 0].min(), sigmas.max()))

    def tick(self, sigma: torch.Tensor) -> None:
        """A step ended at sigma."""
        if self.steps is not None:
            self.bar.update()
            return
        at_end = sigma <= 0 or self.high <= self.low
        done = 100 if at_end else int(100 * (self.high - math.log(float(sigma))) / (self.high - self.low))
        self.bar.set_postfix(sigma=f"{float(sigma):.3g}")
        self.bar.update(done - self.ticks)
        self.ticks = done


class FiniteCheck:
    """Whether states and evaluations were finite, looked at all together: one device sync."""

    def __init__(self, sampler: str, dtype: torch.dtype):
        self.sampler, self.dtype, self.sums = sampler, dtype, []

    def note(self, what: str, step: int, sigma: torch.Tensor, tensor: torch.Tensor) -> None:
        """Take note of a few elements of a tensor [B, ...]; what: one of SPOILED, whose nan it would be."""
        some = tensor.flatten()[:: max(tensor.numel() // SAMPLED, 1)]
        self.sums.append((what, step, sigma, some.sum()))

    def note_result(self, step: int, sigma: torch.Tensor, x: torch.Tensor) -> None:
        """Take note of all elements of the result [B, ...]."""
        self.note("result", step, sigma, x)
        self.sums.append(("rest", step, sigma, x.sum()))

    def look(self) -> None:
        """Raise FloatingPointError if anything noted has nan or inf, and say whose it is."""
        finite = torch.stack([total for *_, total in self.sums]).isfinite().tolist() if self.sums else []
        if all(finite):
            self.sums.clear()
            return
        what, step, sigma, _ = self.sums[finite.index(False)]
        level = float(torch.as_tensor(sigma).flatten()[0])
        at = f"step {step}, sigma {level:.4g} (sampler {self.sampler}, model in {self.dtype})"
        raise FloatingPointError(SPOILED[what].format(at=at))


@dataclass
class StepCallbacks:
    """The user's callbacks at the end of a step, and what they may change.

    Attributes:
        conditioning: tensors by name that callbacks may see and replace; the denoiser reads them here.
        on_step_end: diffusers' callback_on_step_end, which gets the tensors that tensor_inputs names.
        legacy: diffusers' deprecated callback, called every legacy_every steps.
    """

    conditioning: dict[str, torch.Tensor]
    on_step_end: Callable | None = None
    tensor_inputs: list[str] = field(default_factory=lambda: ["latents"])
    legacy: Callable | None = None
    legacy_every: int | None = None

    @property
    def want_denoised(self) -> bool:
        """Whether the callback is to see the denoised latents."""
        return self.on_step_end is not None and "denoised" in self.tensor_inputs

    def call(self, pipe, step: int, timestep: torch.Tensor, latents: torch.Tensor, denoised) -> tuple:
        """Call on_step_end: the latents if they were changed or replaced, else None; whether anything was.

        latents, denoised: [B, ...] in the model's dtype. Raises ValueError for latents of another shape.
        """
        assert self.on_step_end is not None
        before = Stamp(latents)
        tensors = {"latents": latents, "denoised": denoised, **self.conditioning}
        guidance = getattr(pipe, "_guidance_scale", None)
        returned = self.on_step_end(pipe, step, timestep, {name: tensors[name] for name in self.tensor_inputs})
        changed = getattr(pipe, "_guidance_scale", None) != guidance
        for name in self.conditioning:
            changed |= returned.get(name, tensors[name]) is not tensors[name]
            self.conditioning[name] = returned.get(name, tensors[name])
        replaced = returned.get("latents", latents)
        self._check(replaced, latents, step)
        if before.holds(replaced):
            return None, changed
        return replaced, True

    @staticmethod
    def _check(replaced, latents: torch.Tensor, step: int) -> None:
        if not isinstance(replaced, torch.Tensor) or replaced.shape != latents.shape:
            found = f"of the shape {tuple(replaced.shape)}" if isinstance(replaced, torch.Tensor) else repr(replaced)
            raise ValueError(
                f"callback_on_step_end returned latents {found} after step {step}, and those of the run are of "
                f"the shape {tuple(latents.shape)}: return a tensor of that shape, or no latents to go on as they are"
            )

    def call_legacy(self, step: int, timestep: torch.Tensor, latents: torch.Tensor) -> None:
        """Call the deprecated callback, in the steps that are its."""
        if self.legacy is not None and step % (self.legacy_every or 1) == 0:
            self.legacy(step, timestep, latents)


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
        self.finite = FiniteCheck(plan.sampler.name, dtype)
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
            if self.position.calls == 0:
                raise ValueError(f"{self.plan.sampler.name} never called the model: its result is no picture")
            with contextlib.suppress(StopSampling):  # it is over anyway
                self._end_step(x, sigma)
        self._finish(x, sigma)

    def _finish(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        if self.trace is not None:
            self.trace.end(x, sigma)
        self.finite.note_result(self.position.step, self.sigma, x)
        self.finite.look()
        self.latents = self.plan.space.latents(x, sigma)

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
        self.finite.note("state", self.position.step, sigma, x)
        self.finite.note("answer", self.position.step, sigma, denoised)
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
