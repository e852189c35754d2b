"""What a pipeline will do, known before any model runs: sampler, noise levels, timesteps, coordinates.

print(pipe.plan("dpmpp_2m", sigma_grid="karras", num_inference_steps=12))
"""

import html
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from k_diffusing.arguments import check_sampler
from k_diffusing.grids.choose import SigmaGrid, discrete_grid, flow_grid, over_the_model
from k_diffusing.model.coordinates import FLOW_COORDINATES
from k_diffusing.model.guidance import GuidanceInterval, guidance_at
from k_diffusing.model.scheduler_config import preconditioning
from k_diffusing.noise.check import check_source
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.programs.choose import find_program
from k_diffusing.programs.records import DIFFUSERS, Program
from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.comfyui import ComfyModel
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import choose_coordinates
from k_diffusing.samplers.records import Sampler
from k_diffusing.samplers.steps import evaluation_count, step_count
from k_diffusing.spaces import LatentSpace, discrete_space, flow_space


class Level(NamedTuple):
    """A noise level, as one network call needs it.

    sigma: the sampler's, 0-dim or [B, 1, ...]. time: diffusers' sigma there, shaped alike. timestep: [B]. guided:
    whether guidance is on.
    """

    sigma: torch.Tensor
    time: torch.Tensor
    timestep: torch.Tensor
    guided: bool


@dataclass(frozen=True)
class SamplingPlan:
    """All that is known of a sampling run before a model runs.

    Attributes:
        sampler: its record.
        options: those given to it.
        sigmas: [steps + 1], the noise levels in the sampler's coordinates, on the CPU.
        space: the changes between latents, the sampler's state and the network's input.
        guided: (time 0-dim or [B]) -> whether the network is guided there.
        noise: the noise source, by its name or as a record.
        initial_scale: what unit noise is multiplied by; on flow models it makes latents, else the state at sigmas[0].
        program: whose conventions these are.
    """

    sampler: Sampler
    options: dict[str, Any]
    sigmas: torch.Tensor
    space: LatentSpace
    guided: Callable[[torch.Tensor], bool]
    noise: str | NoiseSource
    initial_scale: torch.Tensor | float = 1.0
    program: Program = DIFFUSERS

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

    def guides(self, scale: float) -> bool:
        """Whether the network is called with the negative prompt at this guidance scale.

        CFG++ functions step along the answer to the negative prompt, whatever the scale.
        """
        return self.program.guides(scale) or self.sampler.uses_uncond

    def model(self, denoiser: Callable) -> Callable:
        """What the sampler gets as its model: ComfyUI's functions look for more there than the call."""
        return ComfyModel(denoiser, self.space.levels) if self.sampler.custom else denoiser

    def levels(self, x: torch.Tensor) -> "Levels":
        """The levels, for states like x [B, ...] on its device."""
        called = self.sigmas.clone()
        if called[0] == 1 and "first_time" in self.options:
            called[0] = self.options["first_time"]
        sigmas, times = called.unbind(), self.space.time(called).unbind()
        timesteps = self.space.timestep(called).to(x.device).unsqueeze(1).repeat(1, len(x))
        grid = [Level(*row, self.guided(row[1])) for row in zip(sigmas, times, timesteps, strict=True)]
        return Levels(self.space, self.guided, grid)

    def rows(self) -> list[dict[str, float]]:
        """A row of plain numbers for each step."""
        times = self.space.time(self.sigmas)
        columns = zip(self.sigmas, times, self.timesteps, strict=False)
        return [
            {"step": step, "sigma": float(sigma), "timestep": float(timestep), "guided": self.guided(time)}
            for step, (sigma, time, timestep) in enumerate(columns)
        ]

    def __str__(self) -> str:
        lines = [self._title(), f"{'step':>4} {'sigma':>12} {'timestep':>10}  guided"]
        lines += [
            f"{row['step']:4d} {row['sigma']:12.6g} {row['timestep']:10.3f}  {'yes' if row['guided'] else 'no'}"
            for row in self.rows()
        ]
        return "\n".join([*lines, f"{'end':>4} {float(self.sigmas[-1]):12.6g}"])

    def _repr_html_(self) -> str:
        cells = (
            f"<td>{row['step']}</td><td>{row['sigma']:.6g}</td><td>{row['timestep']:.3f}</td>"
            f"<td>{'yes' if row['guided'] else 'no'}</td>"
            for row in self.rows()
        )
        end = f"<td>end</td><td>{float(self.sigmas[-1]):.6g}</td><td></td><td></td>"
        body = "".join(f"<tr>{row}</tr>" for row in (*cells, end))
        head = "<th>step</th><th>sigma</th><th>timestep</th><th>guided</th>"
        caption = html.escape(self._title())
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _title(self) -> str:
        counts = ((self.steps, "steps"), (self.evaluations, "network evaluations"))
        known = [f"{count} {name}" for count, name in counts if count is not None] or ["as many steps as it takes"]
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.sampler.name}{options}: {', '.join(known)}, coordinates {self.coordinates}, noise {self.noise}"


class Levels(NamedTuple):
    """The noise levels of a plan, for a batch on a device. grid: one for each of the plan's sigmas."""

    space: LatentSpace
    guided: Callable[[torch.Tensor], bool]
    grid: list[Level]

    def at(self, sigma: torch.Tensor, x: torch.Tensor, index: int | None) -> Level:
        """The level at which the network is called on x [B, ...], sigma [B]: the grid's, if its index is known."""
        if index is not None:  # known on the host: fewer operations
            return self.grid[index]
        time, shape = self.space.time(sigma), (-1, *[1] * (x.ndim - 1))
        return Level(sigma.reshape(shape), time.reshape(shape), self.space.timestep(sigma), self.guided(time))


def discrete_plan(
    scheduler,
    comfy_sampler: str | Callable,
    sampler_options: dict[str, Any] | None,
    sigma_grid: str | Callable | None,
    num_inference_steps: int,
    *,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    denoising_end: float | None = None,
    quantize: bool | None = None,
    guidance_interval: GuidanceInterval | None = None,
    noise: str | NoiseSource | None = None,
    program: str | Program | None = None,
) -> SamplingPlan:
    """The plan for an epsilon, v or sample model with this diffusers scheduler, whose config alone is read.

    quantize, noise, sigma_grid: None leaves them to the program.

    Raises ValueError or TypeError for input that cannot be right, with the value, the reason and the choices.
    """
    program, explicit = find_program(program, noise), {"timesteps": timesteps, "sigmas": sigmas}
    more, own = program.grid_names, program.own_grid(sigma_grid)
    comfy_sampler, sampler_options, sigma_grid = asked(comfy_sampler, sampler_options, sigma_grid, timesteps, sigmas)
    sigma_grid = own or sigma_grid
    if sigma_grid is None and timesteps is None and sigmas is None:
        sigma_grid = program.default_grid
    named = program.sampler(find_sampler(comfy_sampler), False)
    sampler = check_sampler(named, sampler_options, sigma_grid, num_inference_steps, more, **explicit)
    noise = program.noise if noise is None else noise
    quantize = program.quantize if quantize is None else quantize
    check_source(noise)
    if getattr(sampler.function, "flow_coordinates", None) == "flow":
        raise ValueError(
            f"{sampler.name} integrates flow matching, which SDXL is not: take a scheduler with betas, such as "
            "UniPCMultistepScheduler.from_config(pipe.scheduler.config), without use_flow_sigmas"
        )
    schedule = program.noise_schedule(scheduler)
    guided = guidance_at(guidance_interval, schedule)
    grid_scheduler, drop = sampler.grid_scheduler or scheduler, program.drops(sampler.name)
    chosen = program.grid(sigma_grid, sampler.name)
    grid = discrete_grid(grid_scheduler, schedule, num_inference_steps, chosen, timesteps, sigmas, drop)
    scale = program.initial_scale(grid.initial_scale, grid.sigmas[0], schedule.sigmas[-1])
    if program.whole_range and sampler.takes == "sigma_range":
        grid = grid._replace(sigmas=over_the_model(schedule, num_inference_steps), timesteps=None)
    space = discrete_space(schedule, preconditioning(scheduler), grid._replace(initial_scale=scale), quantize)
    levels = grid.sigmas[: _steps_before(denoising_end, scheduler, schedule, grid) + 1]
    if quantize:
        space.timestep(levels)  # raises where timesteps are not integers
    options = program.options(sampler, schedule) | (sampler_options or {})
    return SamplingPlan(sampler, options, levels, space, guided, noise, scale, program)


def _steps_before(denoising_end: float | None, scheduler, schedule, grid: SigmaGrid) -> int:
    """How many steps of the grid to take: those whose timestep is in the part before `denoising_end`."""
    steps = len(grid.sigmas) - 1
    if not isinstance(denoising_end, float) or not 0 < denoising_end < 1:
        return steps
    timesteps = schedule.timestep(grid.sigmas[:-1]) if grid.timesteps is None else grid.timesteps
    train = scheduler.config.num_train_timesteps
    steps = int((timesteps >= round(train - denoising_end * train)).sum())
    if steps == 0:
        raise ValueError(f"denoising_end={denoising_end} leaves no step to take on a grid of {len(timesteps)} steps")
    return steps


def flow_plan(
    scheduler,
    comfy_sampler: str | Callable,
    sampler_options: dict[str, Any] | None,
    sigma_grid: str | Callable | None,
    num_inference_steps: int,
    *,
    size_mu: float | None = None,
    mu: float | None = None,
    sigmas: list[float] | None = None,
    flow_coordinates: str = "auto",
    guidance_interval: GuidanceInterval | None = None,
    noise: str | NoiseSource | None = None,
    program: str | Program | None = None,
) -> SamplingPlan:
    """The plan for a flow-matching model with this diffusers scheduler, whose config alone is read.

    size_mu: the log of the dynamic time shift for the size of the image. mu: the user's own in its place, or in that of
    the program's. noise, sigma_grid: None leaves them to the program. Raises as discrete_plan does.
    """
    program = find_program(program, noise)
    more, own = program.grid_names, program.own_grid(sigma_grid)
    comfy_sampler, sampler_options, sigma_grid = asked(comfy_sampler, sampler_options, sigma_grid, sigmas)
    sigma_grid = own or sigma_grid
    if sigma_grid is None and sigmas is None:
        sigma_grid = program.default_grid
    named = program.sampler(find_sampler(comfy_sampler), True)
    sampler = check_sampler(named, sampler_options, sigma_grid, num_inference_steps, more, sigmas=sigmas)
    noise = program.noise if noise is None else noise
    check_source(noise)
    coordinates = choose_coordinates(flow_coordinates, sampler, sampler_options)
    schedule = program.flow_schedule(scheduler, size_mu, mu)
    guided = guidance_at(guidance_interval, schedule)
    grid_scheduler, drop = sampler.grid_scheduler or scheduler, program.drops(sampler.name)
    chosen, used_mu = program.grid(sigma_grid, sampler.name), size_mu if mu is None else mu
    times = flow_grid(grid_scheduler, schedule, num_inference_steps, chosen, sigmas, used_mu, drop).sigmas
    first = times[0]
    if program.whole_range and sampler.takes == "sigma_range":
        times = over_the_model(schedule, num_inference_steps)
    levels = FLOW_COORDINATES[coordinates].sigmas(times)
    told = replace(schedule, train_steps=scheduler.config.num_train_timesteps)
    space = flow_space(told, coordinates)
    scale = program.flow_scale(first)
    options = program.options(sampler, schedule) | (sampler_options or {})
    return SamplingPlan(sampler, options, levels, space, guided, noise, scale, program)
