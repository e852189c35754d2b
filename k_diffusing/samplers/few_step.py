"""Samplers of models that were distilled to few steps: to the denoised estimate, or near it, and noise up again.

Each takes what k_diffusion's functions do, as told in `exponential_multistep`.
"""

import bisect
import functools
import math
from collections.abc import Callable
from functools import partial

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator
from k_diffusing.samplers.exponential_adams import Target, multistep


@torch.no_grad()
def sample_lcm(
    model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, s_noise=1.0, s_noise_end=None,
    noise_clip_std=0.0,
):  # fmt: skip
    """Latent consistency: the denoised estimate, with all noise drawn anew.

    s_noise, s_noise_end: factors of the noise in the first step and in the last, linear between them; s_noise_end None:
    the same. noise_clip_std: how many of an image's standard deviations its noise is clipped to; 0: not at all.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    ends = s_noise, s_noise if s_noise_end is None else s_noise_end
    factors = [ends[0] + (ends[1] - ends[0]) * i / max(len(sigmas) - 2, 1) for i in range(len(sigmas) - 1)]
    noise_sampler = _noise_by_step(noise_sampler or k_sampling.default_noise_sampler(x), factors, noise_clip_std)
    return multistep(model, x, sigmas, steps, 1, _lcm_target, noise_sampler)


@torch.no_grad()
def sample_tcd(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=0.3, s_noise=1.0, noise_sampler=None,
    schedule="scaled_linear",
):  # fmt: skip
    """Trajectory consistency: to the noise level at (1 - eta) of the next timestep, and noise up to that one.

    eta: the paper's gamma; 0 adds no noise, 1 goes down to the first timestep. schedule: how the model's timesteps go
    with sigma, "scaled_linear" as Stable Diffusion's and SDXL's, or "flow", proportional to sigma / (1 + sigma). Raises
    ValueError for another.
    """
    if schedule not in TIMES:
        raise ValueError(f"unknown schedule {schedule!r}: choose one of {', '.join(TIMES)}")
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 1, partial(_tcd_target, eta, *TIMES[schedule]), noise_sampler, s_noise)


def _lcm_target(sigma: float, sigma_next: float) -> Target:
    return Target(0.0, noise=sigma_next)


def _noise_by_step(noise_sampler: Callable, factors: list[float], clip: float) -> Callable:
    """Noise of factors[0] in the first draw, and so on."""
    factor = iter(factors)

    def draw(sigma, sigma_next):
        noise = noise_sampler(sigma, sigma_next)
        if clip > 0:
            bound = clip * noise.flatten(1).std(1).reshape(-1, *[1] * (noise.ndim - 1))
            noise = noise.clamp(-bound, bound)
        return noise * next(factor)

    return draw


def _tcd_target(eta: float, time: Callable, sigma_at: Callable, sigma: float, sigma_next: float) -> Target:
    down = min(sigma_at((1 - eta) * time(sigma_next)), sigma_next) if eta > 0 else sigma_next
    return Target(down, noise=math.sqrt(sigma_next**2 - down**2))


@functools.cache
def _log_sigmas() -> list[float]:
    """The logarithms of the sigmas at Stable Diffusion's 1000 timesteps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    return (((1 - kept) / kept).log() / 2).tolist()


def _timestep(sigma: float) -> float:
    """Between Stable Diffusion's timesteps linear in log sigma, and beyond them the nearest."""
    table, log_sigma = _log_sigmas(), math.log(sigma)
    low = min(max(bisect.bisect_right(table, log_sigma) - 1, 0), len(table) - 2)
    return min(max(low + (log_sigma - table[low]) / (table[low + 1] - table[low]), 0), len(table) - 1)


def _sigma(timestep: float) -> float:
    """The inverse of `_timestep`."""
    table, low = _log_sigmas(), min(int(timestep), 998)
    return math.exp(table[low] + (timestep - low) * (table[low + 1] - table[low]))


# The time of a sigma, and back.
TIMES = {
    "scaled_linear": (_timestep, _sigma),
    "flow": (lambda sigma: sigma / (1 + sigma), lambda t: t / (1 - t)),
}
