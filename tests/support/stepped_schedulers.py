"""A sampler as a scheduler on a small network, stepped by hand as diffusers' pipelines do it."""

import functools
import weakref

import torch
from their_pipelines import EULER, STEPS, random
from tiny_models import seeded

from k_diffusing.grids.choose import discrete_grid
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from samplers_patch import find_sampler, k_sampling, run_sampler

X = random(2, 4, 8, 8) * 14


def network(net_input: torch.Tensor, t) -> torch.Tensor:
    return 0.6 * net_input + 0.4 * torch.sin(3 * net_input.flip(-1) + 0.01 * t)


def fresh_from(config, sampler="dpmpp_2m", steps: int = STEPS, **settings) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(config, sampler=sampler, **settings)
    scheduler.set_timesteps(steps)
    return scheduler


fresh = functools.partial(fresh_from, EULER.config)


def stepped(scheduler, x=X, change=lambda call, x: x, begin: int = 0) -> torch.Tensor:
    """The loop of diffusers' pipelines, with a change of the latents before each call."""
    generator = seeded()
    for call, t in enumerate(scheduler.timesteps[begin:], begin):
        x = change(call, x)
        output = network(scheduler.scale_model_input(x, t).to(x.dtype), t)
        x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
    return x


GRID = discrete_grid(EULER, noise_schedule(EULER), STEPS).sigmas  # that of `fresh`


def called(scheduler, sampler, x=X, change=lambda call, x: x, dtype=torch.float32, **options):
    """The sampler's own result on the same network, and the sigmas it called it at."""
    row, times, levels = preconditioning(EULER), scheduler.timesteps, []

    def denoiser(x, sigma):
        call, level = len(levels), sigma.reshape(-1, 1, 1, 1)
        levels.append(sigma[0])
        x.copy_(change(call, x))
        net_input = row.network_input(x.to(dtype), level).to(dtype)
        return row.denoised(x, network(net_input, times[call]).float(), level)

    grid, x = GRID, x.float().clone()
    return run_sampler(find_sampler(sampler), denoiser, x, grid, options=options, generator=seeded()), levels


def half_at_3(call, x):
    return x * 0.5 if call == 3 else x


def own_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return k_sampling.sample_euler(model, x, sigmas, callback=callback, disable=True)


def witnessed(alive: list):
    """A sampler that leaves a weak reference to its state."""

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        state = torch.zeros_like(x)
        alive.append(weakref.ref(state))
        return k_sampling.sample_euler(lambda x, sigma: model(x, sigma) + state, x, sigmas, disable=True)

    return sampler


def one_step(scheduler) -> None:
    t = scheduler.timesteps[0]
    scheduler.step(network(X, t), t, X)


def living(alive: list) -> int:
    return sum(reference() is not None for reference in alive)
