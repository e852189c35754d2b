"""What a pipeline will do, known before any model runs: sampler, noise levels, timesteps, coordinates.

print(pipe.plan("dpmpp_2m", sigma_grid="karras", num_inference_steps=12))
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from k_diffusing.images import Kept
from k_diffusing.model.guidance import Guidance
from k_diffusing.model.guiders import Guide, guide_of
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.noise.streams import Streams
from k_diffusing.programs.choose import PROGRAMS
from k_diffusing.programs.records import DIFFUSERS, Program
from k_diffusing.samplers.comfyui import ComfyModel
from k_diffusing.samplers.host_numbers import host_grid
from k_diffusing.samplers.records import Sampler
from k_diffusing.samplers.steps import evaluation_count, step_count
from k_diffusing.spaces import LatentSpace
from k_diffusing.web.tables import html_table


class Level(NamedTuple):
    """A noise level, as one network call needs it.

    sigma: the sampler's, 0-dim or [B, 1, ...]. time: diffusers' sigma there, shaped alike. timestep: [B]. told: the
    same as the network takes it, [B]. guided: whether the answer without the prompt is asked for. weight: that of the
    answer to the prompt. step: of the grid; 0 where nothing depends on it.
    """

    sigma: torch.Tensor
    time: torch.Tensor
    timestep: torch.Tensor
    told: torch.Tensor
    guided: bool
    weight: float
    step: int


@dataclass(frozen=True)
class SamplingPlan:
    """All that is known of a sampling run before a model runs.

    Attributes:
        sampler: its record.
        options: those given to it.
        sigmas: [steps + 1], the noise levels in the sampler's coordinates, on the CPU.
        space: the changes between latents, the sampler's state and the network's input.
        guided: (time 0-dim or [B]) -> whether that is in the guidance interval.
        noise: the noise source, by its name or as a record.
        initial_scale: what unit noise is multiplied by; on flow models it makes latents, else the state at sigmas[0].
        image_scale: the same where the noise is added to an image.
        program: whose conventions these are.
        guidance: the weights by step, a guider, or neither.
        tree: the levels that a Brownian tree spans, if not sigmas.
    """

    sampler: Sampler
    options: dict[str, Any]
    sigmas: torch.Tensor
    space: LatentSpace
    guided: Callable[[torch.Tensor], bool]
    noise: str | NoiseSource
    initial_scale: torch.Tensor | float = 1.0
    image_scale: torch.Tensor | float = 1.0
    program: Program = DIFFUSERS
    guidance: Guidance = Guidance()
    tree: torch.Tensor | None = None

    @property
    def coordinates(self) -> str:
        """Those in which the sampler runs: "ve", "flow" or "velocity"."""
        return self.space.coordinates

    @property
    def patches_to_d(self) -> bool:
        """Whether the network's output stands in for `to_d`.

        It is the derivative, and k_diffusion's functions ask for that of their latest evaluation alone; a user's
        function may ask for any.
        """
        return self.coordinates == "velocity" or (self.coordinates == "flow" and not self.sampler.custom)

    @property
    def derivative_is_enough(self) -> bool:
        """Whether the sampler does nothing with denoised latents but pass them to the `to_d` that is patched."""
        return self.coordinates == "flow" and self.sampler.derivative_only and self.sampler.takes == "sigmas"

    @property
    def timesteps(self) -> torch.Tensor:
        """[steps], what the network is told at sigmas[:-1]."""
        return self.space.timestep(self.sigmas[:-1])

    @property
    def steps(self) -> int | None:
        """Steps of the sampler; None where they depend on what the model answers."""
        return step_count(self.sampler, self.sigmas)

    @property
    def num_timesteps(self) -> int:
        """What diffusers calls so: the steps, or those of the grid where the sampler chooses its own."""
        return self.steps or len(self.sigmas) - 1

    @property
    def evaluations(self) -> int | None:
        """Network evaluations to come, where a guided pair counts as one; None where they are not known."""
        return evaluation_count(self.sampler, self.sigmas)

    def start(
        self, noise: torch.Tensor | None, clean: torch.Tensor | None = None, add_noise: bool = True
    ) -> torch.Tensor:
        """What a run begins with: on flow models the latents at sigmas[0], else the sampler's state there.

        Args:
            noise: Unit noise, [B, ...]; without add_noise what an earlier run left, as `result` gives it, or None.
            clean: The latents of an image, or None.
            add_noise: Whether noise is added to the image; or else the run goes on from what an earlier one left.
        """
        sigma, space = self.sigmas[0], self.space
        if not add_noise:
            left: Any = clean if noise is None else noise
            if self.program.hands_on_ve:
                return space.remains(sigma) * left
            return left if space.flow else space.state(left, sigma)
        assert noise is not None
        if clean is None:
            return noise * self.initial_scale
        return noise * self.image_scale + space.remains(sigma) * clean

    def step_noise(self, streams: Streams, **packing) -> Callable:
        """(x, sigmas, kind) -> the noise_sampler that `run_sampler` asks for; packing: of `streams.step_noise`."""
        make = partial(streams.step_noise, time=self.space.time, **packing)
        if self.tree is None:
            return make
        return lambda x, sigmas, kind="gaussian": make(x, self.tree if kind == "brownian" else sigmas, kind)

    def kept(
        self, mask: torch.Tensor, clean: torch.Tensor | None, noise: torch.Tensor | None, add_noise: bool
    ) -> Kept:  # fmt: skip
        """The part of an image that stays, all shaped as latents; without add_noise it is shown with none."""
        assert clean is not None  # there is no mask without its image
        if not self.program.shows_image:
            return Kept(mask, clean, None)
        unit = noise if add_noise and noise is not None else torch.zeros_like(clean)
        return Kept(mask, clean, lambda sigma: self.space.state(self.space.noised(clean, unit, sigma), sigma))

    def result(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What a run that ends with the state x [B, ...] at sigma hands on: the scheduler's latents there.

        ComfyUI's are x0 + sigma eps, on flow models too.
        """
        latents = self.space.latents(x, sigma)
        if not self.program.hands_on_ve or float(sigma) == 0:
            return latents
        return latents / self.space.remains(sigma) if self.space.flow else x

    def guides(self, scale: float) -> bool:
        """Whether the network is called with the negative prompt, at this guidance scale if it is the weight.

        CFG++ functions step along the answer to the negative prompt, whatever the weight.
        """
        asked = self.guidance.guides if self.guidance.by_step else self.program.guides(scale)
        return asked or self.sampler.uses_uncond

    def model(self, denoiser: Callable) -> Callable:
        """What the sampler gets as its model: ComfyUI's functions look for more there than the call."""
        return ComfyModel(denoiser, self.space.levels) if self.sampler.custom else denoiser

    def levels(self, x: torch.Tensor, scale: float, tell: Callable = lambda timestep: timestep) -> "Levels":
        """The levels, for states like x [B, ...] on its device.

        scale: the weight where guidance= tells of none. tell(timestep): as the network takes it, of any shape.
        """
        called = self.sigmas.clone()
        if called[0] == 1 and "first_time" in self.options:
            called[0] = self.options["first_time"]
        sigmas, times = host_grid(called).numbers, host_grid(self.space.time(called)).numbers
        timesteps = self.space.timestep(called).to(x.device).unsqueeze(1).repeat(1, len(x))
        weights = (*(self.guidance.weights or [scale] * (len(called) - 1)), 1.0)
        levels = Levels(self, scale, tell, guide_of(self.guidance, len(called) - 1), [])
        for step, row in enumerate(zip(sigmas, times, timesteps, tell(timesteps), strict=True)):
            levels.grid.append(levels.level(*row, weights[step], step))
        return levels

    def rows(self) -> list[dict[str, float]]:
        """A row of plain numbers for each step."""
        times = self.space.time(self.sigmas)
        columns = zip(self.sigmas, times, self.timesteps, strict=False)
        return [
            {"step": step, "sigma": float(sigma), "timestep": float(timestep), **self._guided_row(step, time)}
            for step, (sigma, time, timestep) in enumerate(columns)
        ]

    def _guided_row(self, step: int, time: torch.Tensor) -> dict[str, Any]:
        """Whether the step is guided, and the weight if it is known here."""
        guided, weights = self.guided(time), self.guidance.weights
        if not weights:
            return {"guided": guided}
        return {"guided": guided and weights[step] != 1, "weight": weights[step] if guided else 1.0}

    def __str__(self) -> str:
        lines = [self._title(), f"{'step':>4} {'sigma':>12} {'timestep':>10}  guided"]
        lines += [
            f"{row['step']:4d} {row['sigma']:12.6g} {row['timestep']:10.3f}  {_guided(row)}" for row in self.rows()
        ]
        return "\n".join([*lines, f"{'end':>4} {float(self.sigmas[-1]):12.6g}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (f"{row['step']}", f"{row['sigma']:.6g}", f"{row['timestep']:.3f}", _guided(row)) for row in self.rows()
        ]
        end = ("end", f"{float(self.sigmas[-1]):.6g}", "", "")
        return html_table(self._title(), ("step", "sigma", "timestep", "guided"), [*rows, end])

    def _title(self) -> str:
        counts = ((self.steps, "steps"), (self.evaluations, "network evaluations"))
        known = [f"{count} {name}" for count, name in counts if count is not None] or ["as many steps as it takes"]
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        whose = [f"program {name}" for name, program in PROGRAMS.items() if program is self.program]
        guider = [] if self.guidance.guider is None else [f"guider {type(self.guidance.guider).__name__}"]
        told = [*known, *whose, f"coordinates {self.coordinates}", f"noise {self.noise}", *guider]
        return f"{self.sampler.name}{options}: {', '.join(told)}"


def _guided(row: dict[str, Any]) -> str:
    """The last column of a row: yes or no, and the weight if the plan knows it."""
    guided = "yes" if row["guided"] else "no"
    return f"{guided}, {row['weight']:.4g}" if "weight" in row else guided


class Levels(NamedTuple):
    """The noise levels of a plan, for a batch on a device.

    plan: whose they are. scale: the weight where guidance= tells of none. tell: a timestep as the network takes it.
    guide: what makes one of two answers of the network. grid: a level for each of the plan's sigmas.
    """

    plan: SamplingPlan
    scale: float
    tell: Callable[[torch.Tensor], torch.Tensor]
    guide: Guide
    grid: list[Level]

    def at(self, sigma: torch.Tensor, x: torch.Tensor, position, model_options: dict | None = None) -> Level:
        """The level at which the network is called on x [B, ...], sigma [B].

        position: where the sampler is (`observing.Position`). model_options: what the sampler passes on to the model;
        with "prompt_alone" the answer without the prompt is not asked for.
        """
        at = self._at(sigma, x, position)
        return at._replace(guided=False) if model_options and model_options.get("prompt_alone") else at

    def _at(self, sigma: torch.Tensor, x: torch.Tensor, position) -> Level:
        if position.level is not None:  # known on the host: fewer operations
            return self.grid[position.level]
        space, guidance = self.plan.space, self.plan.guidance
        time, shape = space.time(sigma), (-1, *[1] * (x.ndim - 1))
        weight, step = self.scale, 0
        if guidance.by_step:
            level = float(time.flatten()[0])
            step = position.step if position.begins else guidance.step_at(level, position.grid_step)
            weight = guidance.weight(level, step) if guidance.weights else weight
        timestep = space.timestep(sigma)
        return self.level(sigma.reshape(shape), time.reshape(shape), timestep, self.tell(timestep), weight, step)

    def level(self, sigma, time, timestep, told, weight: float, step: int) -> Level:
        """One level, of which it is found whether the answer without the prompt is asked for."""
        plan, guidance = self.plan, self.plan.guidance
        guided = plan.guided(time) and (
            plan.sampler.uses_uncond or not guidance.by_step or self.guide.needs_both(weight, step)
        )
        return Level(sigma, time, timestep, told, guided, weight, step)
