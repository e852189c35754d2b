"""Linear multistep that ends in denoised latents, as ComfyUI's does."""

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator


@torch.no_grad()
def sample_lms(model, x, sigmas, extra_args=None, callback=None, disable=None, order=4):
    """k_diffusion's lms but for the last step to 0, which returns the denoised latents; arguments as there."""
    model, slopes, levels = Evaluator(model, x, extra_args, callback), [], sigmas.detach().cpu().numpy()
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = model.begin(i, x, sigmas[i])
        if sigmas[i + 1] == 0:
            x = denoised
            continue
        slopes = [(x - denoised) / sigmas[i], *slopes[: order - 1]]
        weights = [k_sampling.linear_multistep_coeff(len(slopes), levels, i, j) for j in range(len(slopes))]
        x = x + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    return x
