"""Samplers that extrapolate denoised estimates: presets over the exponential Adams method.

Each takes what k_diffusion's do, `sample(model, x, sigmas, extra_args, callback, disable, ...)`:

    model: (x [B, ...], sigma [B], **extra_args) -> denoised [B, ...]
    x: the state x0 + sigma eps at sigmas[0]
    sigmas: n + 1 decreasing noise levels, the last one usually 0: a tensor on any device, or a list
    callback: called once a step with x, i, sigma, sigma_hat and denoised
    disable: whether no progress bar is shown
    eta: how much noise is added, 0 none; s_noise: a factor of it
    noise_sampler: (sigma, sigma_next) -> unit noise like x; torch's global generator if left out
"""

from collections.abc import Callable
from functools import partial

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator
from k_diffusing.samplers.exponential_adams import (
    adams_weights,
    ancestral_target,
    multistep,
    sde_target,
)


@torch.no_grad()
def sample_res_multistep(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Two estimates: RES's multistep method, 2M with exact weights."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 2)


@torch.no_grad()
def sample_res_3m(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Three estimates: 3M with the weight of the second difference that k_diffusion's 3M SDE halves."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 3)


@torch.no_grad()
def sample_dpmpp_2m_sde_heun(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Two estimates, for the SDE: k_diffusion's dpmpp_2m_sde with solver_type="heun"."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 2, partial(sde_target, eta**0.5), noise_sampler, s_noise)


@torch.no_grad()
def sample_dpmpp_3m_sde_exact(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Three estimates, for the SDE: k_diffusion's dpmpp_3m_sde with the whole weight of the second difference."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, 3, partial(sde_target, eta**0.5), noise_sampler, s_noise)


@torch.no_grad()
def sample_res_multistep_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    variant=None,
):  # fmt: skip
    """res_multistep down to below the next sigma, and up by noise.

    For eta 1 it is dpmpp_2m_sde_heun. variant: "published" counts how far back the former estimate is in steps to below
    the next sigma, which are longer for some sigmas than for others, unless eta is 0 or 1.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    weights = published_weights() if variant == "published" else adams_weights
    return multistep(model, x, sigmas, steps, 2, partial(ancestral_target, eta), noise_sampler, s_noise, weights)


def published_weights() -> Callable[..., list[float]]:
    """`adams_weights`, with the former node as far back as the former step went if steps are measured as this one."""
    former = 1.0

    def weights(nodes, start, end, exponent):
        nonlocal former
        places = [start, *(start - (start - node) * former / exponent for node in nodes[1:])]
        former = exponent
        return adams_weights(places, start, end, exponent)

    return weights
