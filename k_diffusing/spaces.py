"""What a sampler sees of the latents that a diffusers pipeline steps: scales, timesteps, coordinates."""

from collections.abc import Callable
from typing import NamedTuple

from k_diffusing.grids.choose import SigmaGrid
from k_diffusing.model.coordinates import FlowCoordinates
from k_diffusing.model.preconditioning import Preconditioning
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.samplers.comfyui import Levels, model_sampling


class View(NamedTuple):
    """What a sampler sees of a pipeline's latents; sigma is the sampler's, and broadcasts against the latents.

    shown(sigma): what diffusers calls sigma there (flow: t). timestep(sigma): what the network is told. initial(sigma):
    the standard deviation of latents that are all noise. state(latents, sigma), latents(x, sigma): to the sampler's
    state and back. network_input(latents, sigma). denoised(x, output, sigma). noised(clean, noise, sigma): latents.
    velocity: the network's output is dx/dsigma. levels: the noise schedule as ComfyUI's functions want it.
    """

    shown: Callable
    timestep: Callable
    initial: Callable
    state: Callable
    latents: Callable
    network_input: Callable
    denoised: Callable
    noised: Callable
    velocity: bool
    levels: Levels


def discrete_view(schedule, row: Preconditioning, grid: SigmaGrid) -> View:
    """Of an epsilon, v or sample model, in the latents of the grid's scheduler: x0 + sigma eps, or scaled to unit."""
    if grid.timesteps is not None:
        schedule = schedule.with_grid(grid.sigmas[:-1], grid.timesteps)

    def scale(sigma):
        return (sigma**2 + 1) ** 0.5

    def initial(sigma):
        above = sigma / grid.sigmas[0] if grid.sigmas[0] > 0 else 1.0  # where a sampler with churn begins
        return grid.initial_scale * above / (scale(sigma) if scaled else 1)

    scaled = grid.scaled_latents
    return View(
        shown=lambda sigma: sigma,
        timestep=schedule.timestep,
        initial=initial,
        state=lambda latents, sigma: latents * scale(sigma) if scaled else latents,
        latents=lambda x, sigma: x / scale(sigma) if scaled else x,
        network_input=lambda latents, sigma: latents if scaled else row.network_input(latents, sigma),
        denoised=row.denoised,
        noised=lambda clean, noise, sigma: (clean + noise * sigma) / (scale(sigma) if scaled else 1),
        velocity=False,
        levels=model_sampling(Levels(schedule), flow=False),
    )


def flow_view(schedule: FlowSchedule, coordinates: FlowCoordinates, ve: bool) -> View:
    """Of a flow model, whose latents are (1 - t) x0 + t eps whatever the sampler's coordinates."""
    time = coordinates.time
    return View(
        shown=time,
        timestep=lambda sigma: schedule.timestep(time(sigma)),
        initial=lambda sigma: 1.0,
        state=coordinates.state,
        latents=coordinates.latents,
        network_input=lambda latents, sigma: latents,
        denoised=lambda x, output, sigma: coordinates.latents(x, sigma) - time(sigma) * output,
        noised=lambda clean, noise, sigma: time(sigma) * noise + (1 - time(sigma)) * clean,
        velocity=not ve,
        levels=model_sampling(Levels(schedule, (lambda t: t / (1 - t)) if ve else (lambda t: t)), flow=not ve),
    )
