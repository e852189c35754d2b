"""What a sampler did: every network call, every draw of noise and every step of one run.

trace = Trace()
pipe("a small red circle on a blue background", comfy_sampler="heun", trace=trace)
trace             # in a notebook: a table
trace.plot()      # sigma, sizes of x and denoised, step sizes
"""

import contextvars
import hashlib
import html
import json
import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from k_diffusing._files import write_whole
from k_diffusing.noise.interval import Interval
from k_diffusing.trace.step_starts import step_starts

SHOWN = 40  # lines of a trace that is printed

_ACTIVE = contextvars.ContextVar("active_trace", default=None)


def active_trace() -> "Trace | None":
    """The trace of the `with Trace() as trace:` block that this code runs in, if any."""
    return _ACTIVE.get()


def chosen_trace(trace: "Trace | None") -> "Trace | None":
    """The user's trace of a call, or else the active one. Raises TypeError for what is none."""
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace={trace!r}: give a k_diffusing.Trace() of yours, to look into after the call")
    return active_trace() if trace is None else trace


@dataclass(frozen=True)
class Reading:
    """A tensor's statistics: rms, mean, largest absolute value as one [3] tensor; the tensor itself if it was kept."""

    stats: torch.Tensor
    dtype: torch.dtype
    values: torch.Tensor | None = field(default=None, repr=False)

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
    """Unit noise drawn in a step for an interval. calls: how many network calls came before it in the run."""

    step: int
    interval: Interval
    noise: Reading
    calls: int = 0

    @property
    def sigma(self) -> torch.Tensor | None:
        return self.interval.sigma

    @property
    def sigma_next(self) -> torch.Tensor | None:
        return self.interval.sigma_next

    @property
    def churn(self) -> bool:
        return self.interval.churn


@dataclass
class State:
    """The sampler's state x at noise level sigma, between two steps."""

    sigma: torch.Tensor
    x: Reading


@dataclass(repr=False)
class Trace:
    """One run of a sampler, the latest that was given this trace.

    tensors: keep the tensors, not only their statistics (on the CPU; 3 of the latents' size for each network call).
    replay(trace, draw, interval) -> noise: stands in for the run's own noise, draw(interval).

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

    @property
    def caption(self) -> str:
        """One line about the run."""
        if not self.calls:
            return "Trace: no run yet"
        steps = "steps not told" if self.steps_from is None else f"{self.step_count} steps"
        return f"{self.sampler}: {steps}, {len(self.calls)} network calls, {self.coordinates}"

    def __repr__(self) -> str:
        """The caption and `rows` as a table, of a long one the beginning and the end."""
        rows = self.rows()
        lines = ["".join(f"{name:>14}" for name in row) for row in rows[:1]]
        lines += ["".join(f"{_number(value):>14}" for value in row.values()) for row in rows]
        if len(lines) > SHOWN:
            left_out = f"{'...':>14}   ({len(lines) - SHOWN + 1} more)"
            lines = [*lines[: SHOWN // 2], left_out, *lines[SHOWN // 2 + 1 - SHOWN :]]
        return "\n".join([self.caption, *lines])

    def _repr_html_(self) -> str:
        rows = self.rows()
        if not rows:
            return f"<p>{self.caption}</p>"
        head = "".join(f"<th>{name}</th>" for name in rows[0])
        body = "".join(f"<tr>{''.join(f'<td>{_number(value)}</td>' for value in row.values())}</tr>" for row in rows)
        caption = html.escape(self.caption)
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
        """Write path (JSON) and, if tensors were kept, the same name with .safetensors; each whole or not at all.

        Of an earlier trace saved there nothing is left.
        """
        path, tensors, texts = Path(path), {}, {}
        for name in ("calls", "draws", "states"):
            texts[name] = [_to_json(entry, f"{name}.{i}", tensors) for i, entry in enumerate(getattr(self, name))]
        texts |= {name: getattr(self, name) for name in ("sampler", "model", "coordinates", "size", "steps_from")}
        texts["sigmas"] = None if self.sigmas is None else self.sigmas.tolist()
        content = save(tensors, metadata=WRITER) if tensors else None
        texts["tensors"] = None if content is None else hashlib.sha256(content).hexdigest()
        beside = path.with_suffix(".safetensors")
        if content is not None:
            write_whole(beside, content)
        write_whole(path, json.dumps(texts).encode())
        if content is None and _is_ours(beside):
            beside.unlink()

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """The trace that `save` wrote. Raises ValueError, with what is wrong, for whatever else there is at path."""
        path = Path(path)
        try:
            return _trace(json.loads(path.read_bytes()), path.with_suffix(".safetensors"))
        except KeyError as error:
            reason = f"it has no {error}"
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
        raise ValueError(f"{path} is not a trace: {reason}; give the .json file that Trace.save wrote")


# Of the files of a trace.

WRITER = {"format": "pt", "written by": "Trace.save"}  # "format" as transformers has it


def _number(value: float) -> str:
    return "" if value != value else f"{value:.5g}"


def _is_ours(path: Path) -> bool:
    """Whether it is a safetensors file that a trace wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() == WRITER
    except (OSError, SafetensorError):
        return False


def _to_json(entry: Any, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """An entry's fields as JSON has them; kept tensors go to `tensors`."""
    texts = {}
    for name, value in vars(entry).items():
        if isinstance(value, Reading):
            texts[name] = {"stats": value.stats.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
            if value.values is not None:  # a file may not have one tensor under two names
                twice = any(value.values is other for other in tensors.values())
                tensors[f"{key}.{name}"] = value.values.clone() if twice else value.values.contiguous()
        elif isinstance(value, Interval):
            for level in ("sigma", "sigma_next"):
                sigma = getattr(value, level)
                texts[level] = None if sigma is None else float(sigma)
        else:
            texts[name] = float(value) if isinstance(value, torch.Tensor) else value
    return texts


def _trace(texts: Any, beside: Path) -> Trace:
    """The trace that these texts and the file of tensors beside them hold; ValueError or KeyError if they hold none."""
    _check(isinstance(texts, dict), "it is a JSON file of something else")
    tensors = None
    if texts["tensors"] is not None:
        content = beside.read_bytes()
        whole = hashlib.sha256(content).hexdigest() == texts["tensors"]
        _check(whole, f"{beside} is damaged, or holds the tensors of another run")
        tensors = load(content)
    trace = Trace(tensors=tensors is not None)
    for name in ("sampler", "model"):
        _check(texts[name] is None or isinstance(texts[name], str), f"{name} is {texts[name]!r}, not a text")
        setattr(trace, name, texts[name])
    for name, choices in (("coordinates", ("ve", "flow")), ("steps_from", ("sampler", "calls", None))):
        _check(texts[name] in choices, f"{name} is {texts[name]!r}, not one of {choices}")
        setattr(trace, name, texts[name])
    if texts["size"] is not None:
        trace.size = tuple(_whole(value, "size") for value in _list(texts["size"], "size", 2))
    if texts["sigmas"] is not None:
        trace.sigmas = torch.tensor([_real(value, "sigmas") for value in _list(texts["sigmas"], "sigmas")])
    for name, kind in (("calls", NetworkCall), ("draws", Draw), ("states", State)):
        entries = enumerate(_list(texts[name], name))
        setattr(trace, name, [_entry(kind, entry, f"{name}.{i}", tensors) for i, entry in entries])
    return trace


def _entry(kind: type, texts: Any, key: str, tensors: dict[str, torch.Tensor] | None) -> Any:
    """A NetworkCall, Draw or State, by the types of its fields."""
    _check(isinstance(texts, dict), f"{key} is {texts!r:.40}")
    values = {}
    for one in fields(kind):
        if one.type is Interval:
            values[one.name] = _interval(texts, key)
            continue
        name, value = f"{key}.{one.name}", texts[one.name]
        if one.type is Reading:
            values[one.name] = _reading(value, name, tensors)
        elif one.type is int:
            values[one.name] = _whole(value, name)
        else:
            values[one.name] = torch.tensor(_real(value, name))
    return kind(**values)


def _interval(texts: dict[str, Any], key: str) -> Interval:
    """Of a draw in whose texts null stands for a level that was not told: it is that of churn."""
    told = ((name, texts[name]) for name in ("sigma", "sigma_next"))
    levels = [None if value is None else torch.tensor(_real(value, f"{key}.{name}")) for name, value in told]
    return Interval(*levels, raised=None in levels)


def _reading(texts: Any, key: str, tensors: dict[str, torch.Tensor] | None) -> Reading:
    _check(isinstance(texts, dict), f"{key} is {texts!r:.40}")
    stats = torch.tensor([_real(value, key) for value in _list(texts["stats"], key, 3)])
    dtype = getattr(torch, texts["dtype"], None) if isinstance(texts["dtype"], str) else None
    _check(isinstance(dtype, torch.dtype), f"{key} has the dtype {texts['dtype']!r:.40}")
    return Reading(stats, dtype, None if tensors is None else tensors[key])


def _check(right: bool, reason: str) -> None:
    if not right:
        raise ValueError(reason)


def _list(value: Any, key: str, length: int | None = None) -> list:
    right = isinstance(value, list) and length in (None, len(value))
    _check(right, f"{key} is {value!r:.40}, not a list" + (f" of {length}" if length else ""))
    return value


def _whole(value: Any, key: str) -> int:
    _check(type(value) is int and 0 <= value < 2**63, f"{key} is {value!r:.40}, not a count")
    return value


def _real(value: Any, key: str) -> float:
    _check(type(value) in (int, float), f"{key} is {value!r:.40}, not a number")
    return float(value)
