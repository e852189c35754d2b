"""Euler steps to below the next noise level, and noise up to it: presets over `exponential_adams` of order 1.

Each takes what k_diffusion's functions do, as told in `exponential_multistep`.
"""

from functools import partial

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator
from k_diffusing.samplers.exponential_adams import Target, ancestral_target, multistep


@torch.no_grad()
def sample_ddim(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=0.0, s_noise=1.0, noise_sampler=None
):
    """DDIM: euler at eta 0, euler_ancestral at eta, DDPM at eta 1."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 1, partial(ancestral_target, eta), noise_sampler, s_noise)


@torch.no_grad()
def sample_euler_ancestral_rf(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """euler_ancestral with eta measured in the time of flow matching, t = sigma / (1 + sigma)."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 1, partial(flow_target, eta), noise_sampler, s_noise)


def flow_target(eta: float, sigma: float, sigma_next: float) -> Target:
    """The step down to u = t' (1 + eta (t' / t - 1)), of the time t = sigma / (1 + sigma), and up to t' by noise."""
    t, t_next = sigma / (1 + sigma), sigma_next / (1 + sigma_next)
    u = max(t_next * (1 + eta * (t_next / t - 1)), 0.0)
    down = u / (1 - u)
    return Target(down, noise=max(sigma_next**2 - down**2, 0.0) ** 0.5)
