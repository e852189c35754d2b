"""The plan of one call, from a diffusers scheduler and the user's choices."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from k_diffusing.arguments import check_sampler
from k_diffusing.grids.choose import SigmaGrid, discrete_grid, flow_grid, over_the_model
from k_diffusing.grids.given import ListedGrid, given_grid
from k_diffusing.grids.part import WHOLE, Part
from k_diffusing.model.coordinates import noise_level
from k_diffusing.model.guidance import GuidanceInterval, guidance_at
from k_diffusing.model.guidance_asked import GuidanceChoice
from k_diffusing.model.guiders import guidance_of
from k_diffusing.model.scheduler_config import preconditioning
from k_diffusing.noise.check import check_source
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.plan import SamplingPlan
from k_diffusing.programs.choose import find_program
from k_diffusing.programs.records import Program
from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import choose_coordinates
from k_diffusing.samplers.records import Sampler
from k_diffusing.spaces import discrete_space, flow_space


def discrete_plan(
    scheduler,
    comfy_sampler: str | Callable,
    sampler_options: dict[str, Any] | None,
    sigma_grid: Any,
    num_inference_steps: int,
    *,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    denoising_end: float | None = None,
    quantize: bool | None = None,
    guidance: GuidanceChoice | None = None,
    guider: Any = None,
    guidance_interval: GuidanceInterval | None = None,
    noise: str | NoiseSource | None = None,
    program: str | Program | None = None,
    part: Part = WHOLE,
) -> SamplingPlan:
    """The plan for an epsilon, v or sample model with this diffusers scheduler, whose config alone is read.

    quantize, noise, sigma_grid: None leaves them to the program. sigma_grid: as `given_grid` takes it. part: which
    steps are taken.

    Raises ValueError or TypeError for input that cannot be right, with the value, the reason and the choices.
    """
    explicit = {"timesteps": timesteps, "sigmas": sigmas}
    program, sampler, sampler_options, sigma_grid, noise = _choices(
        comfy_sampler, sampler_options, sigma_grid, num_inference_steps, noise, program, flow=False, **explicit
    )
    quantize = program.quantize if quantize is None else quantize
    if getattr(sampler.function, "flow_coordinates", None) == "flow":
        raise ValueError(f"{sampler.name} integrates flow matching, which SDXL is not: {_cure_of_flow(sampler)}")
    schedule = program.noise_schedule(scheduler)
    guided = guidance_at(guidance_interval, schedule)
    grid_scheduler, drop = sampler.grid_scheduler or scheduler, program.drops(sampler.name, sigma_grid)
    check_part(part, sigma_grid, **explicit)
    part = replace(part, cut=program.cut)
    chosen, steps = program.grid(sigma_grid, sampler.name), part.grid_steps(num_inference_steps)
    full = discrete_grid(grid_scheduler, schedule, steps, chosen, timesteps, sigmas, drop)
    grid = part.of(full, num_inference_steps)
    image_scale = program.image_scale(grid.sigmas[0], schedule.sigmas[-1])
    scale = program.initial_scale(grid.initial_scale, grid.sigmas[0], schedule.sigmas[-1])
    scale = scale if part.from_the_top else image_scale
    if program.whole_range and sampler.takes == "sigma_range":
        grid = grid._replace(sigmas=_range_of(part, grid.sigmas, schedule, num_inference_steps), timesteps=None)
    space = discrete_space(schedule, preconditioning(scheduler), grid._replace(initial_scale=scale), quantize)
    levels = grid.sigmas[: _steps_before(denoising_end, scheduler, schedule, grid) + 1]
    if quantize:
        space.timestep(levels)  # raises where timesteps are not integers
    options = program.options(sampler, schedule) | (sampler_options or {})
    listed = isinstance(sigma_grid, ListedGrid) or timesteps is not None or sigmas is not None
    whole = len(levels) - 1 if listed else steps
    weights = guidance_of(guidance, guider, levels.tolist(), levels.tolist(), whole, packed=False)
    tree = full.sigmas if program.whole_tree else None
    return SamplingPlan(sampler, options, levels, space, guided, noise, scale, image_scale, program, weights, tree)


def _choices(
    comfy_sampler, sampler_options, sigma_grid, steps: int, noise, program, *, flow: bool, **explicit
) -> tuple[Program, Sampler, dict[str, Any] | None, Any, str | NoiseSource]:
    """The program, and what the user and it choose: the sampler, its options, the sigma grid, the noise source.

    explicit: the user's own sigmas or timesteps. Raises ValueError or TypeError for what cannot be right.
    """
    program = find_program(program, noise)
    sigma_grid = given_grid(sigma_grid, program.grids)
    own = program.own_grid(sigma_grid)
    comfy_sampler, sampler_options, sigma_grid = asked(comfy_sampler, sampler_options, sigma_grid, *explicit.values())
    sigma_grid = own or sigma_grid
    if sigma_grid is None and all(values is None for values in explicit.values()):
        sigma_grid = program.default_grid
    named = program.sampler(find_sampler(comfy_sampler), flow)
    sampler = check_sampler(named, sampler_options, sigma_grid, steps, program.grid_names, **explicit)
    noise = program.noise if noise is None else noise
    check_source(noise)
    return program, sampler, sampler_options, sigma_grid, noise


def _range_of(part: Part, sigmas: torch.Tensor, schedule, steps: int) -> torch.Tensor:
    """The grid of a sampler that takes a range: the model's, or where denoise is given the part, to before its end."""
    if part.denoise is None and not part.start_step:
        return over_the_model(schedule, steps)
    return sigmas if part.leftover else torch.cat([sigmas[:-1], torch.zeros(1)])


def check_part(part: Part, sigma_grid: Any, **explicit) -> None:
    """Raise ValueError for a part by `denoise` of the user's own sigmas or timesteps."""
    given = [name for name, values in explicit.items() if values is not None]
    given += ["sigma_grid"] if isinstance(sigma_grid, ListedGrid) else []
    if given and not part.all_noise:
        raise ValueError(f"denoise={part.denoise} makes a grid longer, which {given[0]}= leaves no room for: cut it")


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


def _cure_of_flow(sampler: Sampler) -> str:
    """What to take in place of a sampler that is written for flow models."""
    if sampler.grid_scheduler is not None or sampler.keeps_bounds:  # a diffusers scheduler
        return (
            "take a scheduler with betas, such as UniPCMultistepScheduler.from_config(pipe.scheduler.config), without "
            "use_flow_sigmas"
        )
    return "its flow_coordinates say 'flow'. Run it with FluxPipeline, or take a function for x0 + sigma * eps"


def flow_plan(
    scheduler,
    comfy_sampler: str | Callable,
    sampler_options: dict[str, Any] | None,
    sigma_grid: Any,
    num_inference_steps: int,
    *,
    size_mu: float | None = None,
    mu: float | None = None,
    sigmas: list[float] | None = None,
    flow_coordinates: str = "auto",
    guidance: GuidanceChoice | None = None,
    guider: Any = None,
    guidance_interval: GuidanceInterval | None = None,
    noise: str | NoiseSource | None = None,
    program: str | Program | None = None,
    part: Part = WHOLE,
) -> SamplingPlan:
    """The plan for a flow-matching model with this diffusers scheduler, whose config alone is read.

    size_mu: the log of the dynamic time shift for the size of the image. mu: the user's own in its place, or in that of
    the program's. noise, sigma_grid: None leaves them to the program. part: which steps are taken. Raises as
    discrete_plan does.
    """
    program, sampler, sampler_options, sigma_grid, noise = _choices(
        comfy_sampler, sampler_options, sigma_grid, num_inference_steps, noise, program, flow=True, sigmas=sigmas
    )
    coordinates = choose_coordinates(flow_coordinates, sampler, sampler_options)
    schedule = program.flow_schedule(scheduler, size_mu, mu)
    guided = guidance_at(guidance_interval, schedule)
    grid_scheduler, drop = sampler.grid_scheduler or scheduler, program.drops(sampler.name, sigma_grid)
    chosen, used_mu = program.grid(sigma_grid, sampler.name), size_mu if mu is None else mu
    check_part(part, sigma_grid, sigmas=sigmas)
    part = replace(part, cut=program.cut)
    grid = flow_grid(
        grid_scheduler, schedule, part.grid_steps(num_inference_steps), chosen, sigmas, used_mu, drop
    )  # fmt: skip
    times = part.of(grid, num_inference_steps).sigmas
    first = times[0]
    if program.whole_range and sampler.takes == "sigma_range":
        times = _range_of(part, times, schedule, num_inference_steps)
    levels = program.flow_levels(sampler, coordinates, times, schedule)
    told = replace(schedule, train_steps=scheduler.config.num_train_timesteps)
    space = flow_space(told, coordinates)
    image_scale = program.image_scale(space.time(levels[0]), None)
    scale = program.flow_scale(first) if part.from_the_top else image_scale
    options = program.options(sampler, schedule) | (sampler_options or {})
    listed = isinstance(sigma_grid, ListedGrid) or sigmas is not None
    whole = len(levels) - 1 if listed else part.grid_steps(num_inference_steps)
    times = space.time(levels)
    spread = levels if coordinates == "ve" else noise_level(times)
    weights = guidance_of(guidance, guider, times.tolist(), spread.tolist(), whole, packed=True)
    tree = program.flow_levels(sampler, coordinates, grid.sigmas, schedule) if program.whole_tree else None
    return SamplingPlan(sampler, options, levels, space, guided, noise, scale, image_scale, program, weights, tree)
