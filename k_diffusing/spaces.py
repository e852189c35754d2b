"""What a sampler sees of a model: every change between a scheduler's latents, a sampler's state, a network's input."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from k_diffusing.grids.choose import SigmaGrid
from k_diffusing.model.coordinates import FLOW_COORDINATES, noise_level
from k_diffusing.model.preconditioning import Preconditioning, vp_scale
from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule, LogSigmaSchedule
from k_diffusing.samplers.comfyui import Levels, model_sampling

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LatentSpace:
    """The three forms of one state: latents as diffusers' scheduler holds them, the sampler's x, the network's input.

    sigma is the sampler's. It is 0-dim, or has as many dimensions as the tensors [B, ...] that go with it.

    Attributes:
        coordinates: "ve" (x = x0 + sigma eps), "flow" (x = (1 - t) x0 + t eps, sigma = t), or "velocity".
        time: what diffusers calls sigma at a sigma: on flow models t.
        timestep: what the network is told at a sigma of any shape.
        initial: the standard deviation of latents that are all noise at sigma.
        state: x from latents, at sigma. latents: latents from x.
        network_input: what the network is given of latents.
        denoised: the clean sample, from (x, the network's output, sigma).
        flow: whether it is a flow model's.
        remains: the part of clean latents that is left beside the noise, at a sigma.
        noised: latents from (clean sample, unit noise, sigma).
        levels: the noise schedule, as functions of ComfyUI want it.
    """

    coordinates: str
    time: Callable[[torch.Tensor], torch.Tensor]
    timestep: Callable[[torch.Tensor], torch.Tensor]
    initial: Callable[[torch.Tensor], torch.Tensor | float]
    state: Change
    latents: Change
    network_input: Change
    denoised: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    flow: bool
    remains: Callable[[torch.Tensor], torch.Tensor | float]
    noised: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    levels: Levels


def discrete_space(
    schedule: DiscreteSchedule | LogSigmaSchedule, row: Preconditioning, grid: SigmaGrid, quantize: bool = False
) -> LatentSpace:
    """Of an epsilon, v or sample model, in the latents of the grid's scheduler: x0 + sigma eps, or scaled to unit."""
    if grid.timesteps is not None:
        schedule = schedule.with_grid(grid.sigmas[:-1], grid.timesteps)
    on = functools.cache(schedule.to)

    def initial(sigma):
        above = sigma / grid.sigmas[0] if grid.sigmas[0] > 0 else 1.0  # where a sampler with churn begins
        return grid.initial_scale * above / (vp_scale(sigma) if scaled else 1)

    scaled = grid.scaled_latents
    return LatentSpace(
        coordinates="ve",
        time=lambda sigma: sigma,
        timestep=lambda sigma: on(sigma.device).timestep(sigma, quantize),
        initial=initial,
        state=lambda latents, sigma: latents * vp_scale(sigma) if scaled else latents,
        latents=lambda x, sigma: x / vp_scale(sigma) if scaled else x,
        network_input=lambda latents, sigma: latents if scaled else row.network_input(latents, sigma),
        denoised=row.denoised,
        flow=False,
        remains=lambda sigma: 1.0,
        noised=lambda clean, noise, sigma: (clean + noise * sigma) / (vp_scale(sigma) if scaled else 1),
        levels=model_sampling(Levels(schedule), flow=False),
    )


def flow_space(schedule: FlowSchedule, chosen: str) -> LatentSpace:
    """Of a flow model, whose latents are (1 - t) x0 + t eps in whatever coordinates the sampler runs."""
    coordinates, ve = FLOW_COORDINATES[chosen], chosen == "ve"
    time = coordinates.time
    return LatentSpace(
        coordinates=chosen,
        time=time,
        timestep=lambda sigma: schedule.timestep(time(sigma)),
        initial=lambda sigma: 1.0,
        state=coordinates.state,
        latents=coordinates.latents,
        network_input=lambda latents, sigma: latents,
        denoised=lambda x, output, sigma: coordinates.latents(x, sigma) - time(sigma) * output,
        flow=True,
        remains=lambda sigma: 1 - time(sigma),
        noised=lambda clean, noise, sigma: time(sigma) * noise + (1 - time(sigma)) * clean,
        levels=model_sampling(Levels(schedule, noise_level if ve else (lambda t: t)), flow=not ve),
    )
