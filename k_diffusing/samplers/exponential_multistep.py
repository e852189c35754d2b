"""Samplers of denoised estimates, several of them: presets over the exponential Adams method.

Each takes what k_diffusion's do, `sample(model, x, sigmas, extra_args, callback, disable, ...)`:

    model: (x [B, ...], sigma [B], **extra_args) -> denoised [B, ...]
    x: the state x0 + sigma eps at sigmas[0]
    sigmas: n + 1 decreasing noise levels, the last one usually 0: a tensor on any device, or a list
    callback: called once a step with x, i, sigma, sigma_hat and denoised
    disable: whether no progress bar is shown
    noise_sampler: (sigma, sigma_next) -> unit noise like x; torch's global generator if left out
    eta: how much noise is added, 0 none; s_noise: a factor of that noise
"""

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator
from k_diffusing.samplers.exponential_adams import multistep


@torch.no_grad()
def sample_res_multistep(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Two estimates (RES, 2M): order 2."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, order=2)


@torch.no_grad()
def sample_res_3m(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Three estimates: order 3, with the weight of the second difference that k_diffusion's 3M SDE has by half."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return multistep(model, x, sigmas, steps, order=3)
