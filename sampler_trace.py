"""What a sampler did: every network call, every draw of noise and every step of one run.

trace = Trace()
pipe("a small red circle on a blue background", comfy_sampler="heun", trace=trace)
trace             # in a notebook: a table
trace.plot()      # sigma, sizes of x and denoised, step sizes
"""

import contextvars
import html
import json
import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from step_starts import step_starts
from whole_file import write_whole

_ACTIVE = contextvars.ContextVar("active_trace", default=None)


def active_trace() -> "Trace | None":
    """The trace of the `with Trace() as trace:` block that this code runs in, if any."""
    return _ACTIVE.get()


@dataclass(frozen=True)
class Reading:
    """A tensor's statistics: rms, mean, largest absolute value as one [3] tensor; the tensor itself if it was kept."""

    stats: torch.Tensor
    dtype: torch.dtype
    values: torch.Tensor | None = None

    @classmethod
    def of(cls, tensor: torch.Tensor, keep: bool) -> "Reading":
        """Computed on the tensor's device without a sync; a kept tensor is copied to the CPU."""
        wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        stats = torch.stack([wide.square().mean().sqrt(), wide.mean(), wide.abs().amax()])
        return cls(stats, tensor.dtype, tensor.detach().to("cpu", copy=True) if keep else None)

    @property
    def rms(self) -> float:
        return float(self.stats[0])

    @property
    def mean(self) -> float:
        return float(self.stats[1])

    @property
    def largest(self) -> float:
        return float(self.stats[2])


@dataclass
class NetworkCall:
    """One call of the model: `stage` counts the calls of a step from 0. sigma, timestep: 0-dim tensors.

    x: the sampler's state, net_input: what of it the network was given, denoised: what the sampler got back.
    """

    step: int
    stage: int
    sigma: torch.Tensor
    timestep: torch.Tensor
    x: Reading
    net_input: Reading
    denoised: Reading

    @property
    def input_scale(self) -> float:
        """c_in: the size of the network's input over that of x."""
        return self.net_input.rms / self.x.rms


@dataclass
class Draw:
    """Unit noise drawn in a step for the interval from sigma to sigma_next; either may be unknown (None).

    calls: how many network calls came before it in the run.
    """

    step: int
    sigma: torch.Tensor | None
    sigma_next: torch.Tensor | None
    noise: Reading
    calls: int = 0

    @property
    def churn(self) -> bool:
        """Whether it raises the noise level, before the step's first network call, in place of falling with it."""
        return self.sigma_next is None or bool(self.sigma_next > self.sigma)


@dataclass
class State:
    """The sampler's state x at noise level sigma, between two steps."""

    sigma: torch.Tensor
    x: Reading


@dataclass
class Trace:
    """One run of a sampler, the latest that was given this trace.

    tensors: keep the tensors, not only their statistics (on the CPU; 3 of the latents' size for each network call).
    replay(trace, draw, sigma, sigma_next) -> noise: stands in for the run's own noise, draw(sigma, sigma_next).

    sigmas: the grid, in the sampler's coordinates: "ve" (x = x0 + sigma eps) or "flow" (x = (1 - t) x0 + t eps,
    sigma = t). calls, draws: in the order in which they were made. states[i]: at the start of step i; the last one
    is the result. size: (height, width) in pixels. model: the pipeline's class and where it was loaded from.
    steps_from: "sampler", which told where its steps begin; "calls", for one without a callback whose network calls
    show it; None where they leave it open: then all is one step.
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

    def watch_noise(self, noise: Callable) -> Callable:
        """The same noise_sampler(sigma, sigma_next), or its stand-in `replay`, with every draw noted."""

        def watched(sigma, sigma_next):
            drawn = noise(sigma, sigma_next) if self.replay is None else self.replay(self, noise, sigma, sigma_next)
            reading = Reading.of(drawn, self.tensors)
            self.draws.append(Draw(max(len(self.states) - 1, 0), sigma, sigma_next, reading, len(self.calls)))
            return drawn

        return watched

    def end(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """The run is over, or was left, at x."""
        told = bool(self.states)
        self.states.append(State(torch.as_tensor(sigma), Reading.of(x, self.tensors)))
        if told or not self.calls:
            return
        starts = step_starts([float(call.sigma) for call in self.calls], self.sigmas.tolist())
        self.steps_from = None if starts is None else "calls"
        found = self.with_steps(starts, self.sigmas) if starts else self.with_steps([0], [self.calls[0].sigma])
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
        rows = []
        for number, call in enumerate(self.calls):
            row = {"call": number, "step": call.step, "stage": call.stage, "sigma": float(call.sigma)}
            row |= {"timestep": float(call.timestep), "input_scale": call.input_scale}
            row |= {f"{name}_rms": getattr(call, name).rms for name in ("x", "denoised")}
            last = call.stage == 0 and call.step + 1 < len(self.states)
            noise = [draw.noise.rms for draw in self.draws if draw.step == call.step]
            row["noise_rms"] = noise[-1] if call.stage == 0 and noise else math.nan
            row["next_x_rms"] = self.states[call.step + 1].x.rms if last else math.nan
            rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return "<p>Trace: no run yet</p>"
        head = "".join(f"<th>{name}</th>" for name in rows[0])
        cells = (
            "".join(f"<td>{'' if value != value else f'{value:.5g}'}</td>" for value in row.values()) for row in rows
        )
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        caption = html.escape(f"{self.sampler}: {self.step_count} steps, {len(rows)} network calls, {self.coordinates}")
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def plot(self):
        """A matplotlib figure: sigma by network call, rms of x and of denoised, and the step in log sigma.

        Raises ImportError without matplotlib.
        """
        import matplotlib.pyplot as plt  # optional: pip install matplotlib

        rows = self.rows()
        figure, (top, middle, bottom) = plt.subplots(3, 1, sharex=True, figsize=(7, 7), layout="constrained")
        calls = [row["call"] for row in rows]
        top.semilogy(calls, [row["sigma"] for row in rows], "o-", ms=3)
        top.set(ylabel="sigma", title=f"{self.sampler}, {self.step_count} steps")
        middle.plot(calls, [row["x_rms"] for row in rows], "o-", ms=3, label="x")
        middle.plot(calls, [row["denoised_rms"] for row in rows], "o-", ms=3, label="denoised")
        middle.set(ylabel="rms", yscale="log")
        middle.legend()
        starts = [row for row in rows if row["stage"] == 0]
        steps = [math.log(a["sigma"] / b["sigma"]) for a, b in zip(starts, starts[1:], strict=False)]
        bottom.plot([row["call"] for row in starts[:-1]], steps, "o-", ms=3)
        bottom.set(ylabel="step in log sigma", xlabel="network call")
        return figure

    def strip(self, pipe, frames: int = 8):
        """The denoised estimates of `frames` steps, first image of the batch, decoded side by side: a PIL image.

        pipe: the pipeline that ran. Raises ValueError if the tensors were not kept.
        """
        from PIL import Image

        starts = [call for call in self.calls if call.stage == 0]
        if not starts or starts[0].denoised.values is None:
            raise ValueError("there is nothing to decode: run with Trace(tensors=True)")
        count = min(frames, len(starts))
        chosen = [starts[round(i * (len(starts) - 1) / max(count - 1, 1))] for i in range(count)]
        tiles = [pipe.decode(call.denoised.values[:1], *self.size)[0] for call in chosen]
        strip = Image.new("RGB", (sum(tile.width for tile in tiles), tiles[0].height))
        for i, tile in enumerate(tiles):
            strip.paste(tile, (i * tile.width, 0))
        return strip

    def save(self, path: str | Path) -> None:
        """Write path (JSON) and, if tensors were kept, the same name with .safetensors; each whole or not at all."""
        path, tensors, texts = Path(path), {}, {}
        for name in ("calls", "draws", "states"):
            texts[name] = [_to_json(entry, f"{name}.{i}", tensors) for i, entry in enumerate(getattr(self, name))]
        texts |= {name: getattr(self, name) for name in ("sampler", "model", "coordinates", "size", "steps_from")}
        texts["sigmas"] = None if self.sigmas is None else self.sigmas.tolist()
        if tensors:
            write_whole(path.with_suffix(".safetensors"), save(tensors))
        write_whole(path, json.dumps(texts).encode())

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """The trace that `save` wrote. Raises ValueError for a file that is none."""
        path = Path(path)
        texts = json.loads(path.read_text())
        if not isinstance(texts, dict) or "calls" not in texts:
            raise ValueError(f"{path} is not a trace: give the .json file that Trace.save wrote")
        beside = path.with_suffix(".safetensors")
        tensors = load_file(beside) if beside.exists() else {}
        known = {name: texts[name] for name in ("sampler", "model", "coordinates")}
        trace = cls(tensors=bool(tensors), steps_from=texts.get("steps_from", "sampler"), **known)
        trace.size = None if texts["size"] is None else tuple(texts["size"])
        trace.sigmas = None if texts["sigmas"] is None else torch.tensor(texts["sigmas"])
        for name, kind in (("calls", NetworkCall), ("draws", Draw), ("states", State)):
            entries = enumerate(texts[name])
            setattr(trace, name, [kind(**_from_json(entry, f"{name}.{i}", tensors)) for i, entry in entries])
        return trace


def _to_json(entry: Any, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """An entry's fields as JSON has them; kept tensors go to `tensors`."""
    texts = {}
    for name, value in vars(entry).items():
        if isinstance(value, Reading):
            texts[name] = {"stats": value.stats.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
            if value.values is not None:
                tensors[f"{key}.{name}"] = value.values.contiguous()
        else:
            texts[name] = float(value) if isinstance(value, torch.Tensor) else value
    return texts


def _from_json(texts: dict[str, Any], key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    fields = {}
    for name, value in texts.items():
        if isinstance(value, dict):
            kept = tensors.get(f"{key}.{name}")
            fields[name] = Reading(torch.tensor(value["stats"]), getattr(torch, value["dtype"]), kept)
        else:
            fields[name] = torch.tensor(value) if isinstance(value, float) else value
    return fields
