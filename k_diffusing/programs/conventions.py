"""What another program does besides its noise: dropped sigmas, the scale of the initial latents."""

import torch

from k_diffusing._tensors import same_level

COMFY_DROPS_PENULTIMATE = frozenset({"dpm_2", "dpm_2_ancestral"})


def drops_penultimate(noise: str, sampler: str) -> bool:
    """Whether the program reproduced makes its grid one step longer for this sampler, less the last sigma above 0."""
    return noise in ("comfy", "a1111") and sampler in COMFY_DROPS_PENULTIMATE


def comfy_initial_scale(sigma_0, sigma_max) -> torch.Tensor:
    """What ComfyUI multiplies unit noise by at the first sigma of a grid, where data are x0 + sigma eps: 0-dim.

    sqrt(1 + sigma_0^2) at the model's sigma_max, sigma_0 below it. (On flow models always t.)
    """
    sigma = torch.as_tensor(sigma_0)
    at_top = float(sigma) > float(sigma_max) or same_level(float(sigma), float(sigma_max))
    return torch.sqrt(1.0 + sigma**2.0) if at_top else sigma


def initial_scale(noise: str, grid, sigma_max) -> torch.Tensor | float:
    """What the program reproduced multiplies unit noise by, where data are x0 + sigma eps: else the grid's own scale.

    A1111's web UI: the first sigma, unless told to use its "SGM noise multiplier".
    """
    if noise == "comfy":
        return comfy_initial_scale(grid.sigmas[0], sigma_max)
    return grid.sigmas[0] if noise == "a1111" else grid.initial_scale
