"""What a sampler did: every network call, every draw of noise and every step of one run.

trace = Trace()
pipe("a small red circle on a blue background", comfy_sampler="heun", trace=trace)
trace             # in a notebook: a table
trace.plot()      # sigma, sizes of x and denoised, step sizes
"""

import contextvars
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from k_diffusing.noise.interval import Interval
from k_diffusing.trace import show, store
from k_diffusing.trace.entries import Draw, NetworkCall, Reading, State
from k_diffusing.trace.step_starts import step_starts

_ACTIVE: contextvars.ContextVar["Trace | None"] = contextvars.ContextVar("active_trace", default=None)


def active_trace() -> "Trace | None":
    """The trace of the `with Trace() as trace:` block that this code runs in, if any."""
    return _ACTIVE.get()


def chosen_trace(trace: "Trace | None") -> "Trace | None":
    """The user's trace of a call, or else the active one. Raises TypeError for what is none."""
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace={trace!r}: give a k_diffusing.Trace() of yours, to look into after the call")
    return active_trace() if trace is None else trace


@dataclass(repr=False)
class Trace:
    """One run of a sampler, the latest that was given this trace.

    Attributes:
        tensors: whether to keep the tensors, not only their statistics: on the CPU, 3 of the latents' size for each
            network call.
        replay: (trace, draw, interval) -> noise, which stands in for the run's own noise, draw(interval).
        sampler: its name.
        model: the pipeline's class and where it was loaded from.
        coordinates: the sampler's, "ve" (x = x0 + sigma eps) or "flow" (x = (1 - t) x0 + t eps, sigma = t).
        size: (height, width) in pixels.
        sigmas: [steps + 1], the grid in these coordinates.
        steps_from: "sampler", which told where its steps begin; "calls", for one without a callback whose network calls
            show it; None where they leave it open: then all is one step.
        calls: the network calls, in the order in which they were made.
        draws: the draws of noise, likewise.
        states: states[i] is that at the start of step i; the last one is the result.
    """

    tensors: bool = False
    replay: Callable | None = None
    sampler: str | None = None
    model: str | None = None
    coordinates: str = "ve"
    size: tuple[int, int] | None = None
    sigmas: torch.Tensor | None = None
    steps_from: str | None = "sampler"
    calls: list[NetworkCall] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def __enter__(self) -> "Trace":
        self._token = _ACTIVE.set(self)
        return self

    def __exit__(self, *_) -> None:
        _ACTIVE.reset(self._token)

    # What a run tells its trace.

    def start(self, sampler: str, sigmas: torch.Tensor, coordinates: str, pipe, size: tuple[int, int]) -> None:
        """A run of a pipeline begins; what was noted of an earlier one is dropped."""
        self.sampler, self.sigmas, self.coordinates, self.size = sampler, sigmas, coordinates, size
        self.model = f"{type(pipe).__name__} {pipe.name_or_path or ''}".strip()
        self.calls, self.draws, self.states, self.steps_from = [], [], [], "sampler"

    def begin_step(self, index: int, x: torch.Tensor, sigma: torch.Tensor, late: bool = False) -> None:
        """Step `index` begins at x; late: the latest network call was the first in it already."""
        if late and self.calls:
            self.calls[-1].step, self.calls[-1].stage = index, 0
            if self.draws and self.draws[-1].churn and self.draws[-1].calls == len(self.calls) - 1:
                self.draws[-1].step = index
        self.states.append(State(torch.as_tensor(sigma), Reading.of(x, self.tensors)))

    def record_call(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        timestep: torch.Tensor,
        net_input: torch.Tensor,
        denoised: torch.Tensor,
    ) -> None:
        """The network was called: x, net_input and denoised of shape [B, ...], sigma and timestep of shape [B]."""
        step = max(len(self.states) - 1, 0)
        again = bool(self.calls) and self.calls[-1].step == step
        readings = (Reading.of(tensor, self.tensors) for tensor in (x, net_input, denoised))
        self.calls.append(
            NetworkCall(step, self.calls[-1].stage + 1 if again else 0, sigma[0], timestep.flatten()[0], *readings)
        )

    def watch_noise(self, draw: Callable[[Interval], torch.Tensor]) -> Callable[[Interval], torch.Tensor]:
        """The same draw(interval), or its stand-in `replay`, with every draw noted."""

        def watched(interval: Interval) -> torch.Tensor:
            drawn = draw(interval) if self.replay is None else self.replay(self, draw, interval)
            reading = Reading.of(drawn, self.tensors)
            self.draws.append(Draw(max(len(self.states) - 1, 0), interval, reading, len(self.calls)))
            return drawn

        return watched

    def end(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """The run is over, or was left, at x."""
        told = bool(self.states)
        self.states.append(State(torch.as_tensor(sigma), Reading.of(x, self.tensors)))
        if told or not self.calls or self.sigmas is None:
            return
        starts = step_starts([float(call.sigma) for call in self.calls], self.sigmas.tolist())
        self.steps_from = None if starts is None else "calls"
        found = self.with_steps(starts, list(self.sigmas)) if starts else self.with_steps([0], [self.calls[0].sigma])
        self.calls, self.draws, self.states = found.calls, found.draws, found.states

    def with_steps(self, starts: list[int], sigmas: Sequence) -> "Trace":
        """The same run, told in steps that begin with these of its network calls, at these noise levels."""
        steps = [max(bisect(starts, call) - 1, 0) for call in range(len(self.calls))]
        calls = [
            replace(call, step=step, stage=number - starts[step])
            for number, (call, step) in enumerate(zip(self.calls, steps, strict=True))
        ]
        draws = []
        for draw in self.draws:  # churn comes before the call that it belongs to
            call = draw.calls if draw.churn else draw.calls - 1
            draws.append(replace(draw, step=steps[min(max(call, 0), len(steps) - 1)]))
        states = [State(torch.as_tensor(sigma), calls[i].x) for i, sigma in zip(starts, sigmas, strict=False)]
        return replace(self, calls=calls, draws=draws, states=[*states, self.states[-1]])

    # What a user asks of it.

    @property
    def step_count(self) -> int:
        """Steps begun."""
        return max(len(self.states) - 1, 0)

    def rows(self) -> list[dict[str, float]]:
        """One row of plain numbers for each network call, to print or to make a data frame of."""
        return show.rows(self)

    @property
    def caption(self) -> str:
        """One line about the run."""
        return show.caption(self)

    def __repr__(self) -> str:
        """The caption and `rows` as a table, of a long one the beginning and the end."""
        return show.text_table(self)

    def _repr_html_(self) -> str:
        return show.html_table(self)

    def plot(self):
        """A matplotlib figure, as `show.plot` draws it. Raises ImportError without matplotlib."""
        return show.plot(self)

    def strip(self, pipe, frames: int = 8):
        """The denoised estimates of `frames` steps, decoded by the pipeline that ran, side by side: a PIL image.

        Raises ValueError if the tensors were not kept.
        """
        return show.strip(self, pipe, frames)

    def save(self, path: str | Path) -> None:
        """Write path (JSON) and, if tensors were kept, the same name with .safetensors; each whole or not at all.

        Of an earlier trace saved there nothing is left.
        """
        store.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """The trace that `save` wrote. Raises ValueError, with what is wrong, for whatever else there is at path."""
        return cls(**store.load(path))
