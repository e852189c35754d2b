"""What another program does besides its noise: how it scales the initial latents, which sigmas it drops."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from k_diffusing._tensors import same_level
from k_diffusing.model.preconditioning import vp_scale

Scale = torch.Tensor | float


@dataclass(frozen=True)
class Program:
    """A program whose pictures can be reproduced.

    Attributes:
        name: What it is called.
        initial_scale: What it multiplies unit noise by where data are x0 + sigma eps, from the scale that the
            scheduler's config has, the first sigma of the grid and the model's largest.
        flow_scale: The same on flow models, from the flow time at the first sigma.
        drops_penultimate: The samplers whose grid it makes one step longer, less the last sigma above 0.
    """

    name: str
    initial_scale: Callable[[Scale, torch.Tensor, torch.Tensor], Scale]
    flow_scale: Callable[[torch.Tensor], Scale] = lambda t: 1.0
    drops_penultimate: frozenset[str] = frozenset()


def comfyui_scale(own: Scale, sigma: torch.Tensor, sigma_max: torch.Tensor) -> torch.Tensor:
    """sqrt(1 + sigma^2) at the model's largest sigma, and sigma below it."""
    at_top = float(sigma) > float(sigma_max) or same_level(float(sigma), float(sigma_max))
    return vp_scale(sigma) if at_top else sigma


DIFFUSERS = Program("diffusers", initial_scale=lambda own, sigma, sigma_max: own)
COMFYUI = Program(
    "ComfyUI",
    initial_scale=comfyui_scale,
    flow_scale=lambda t: t,
    drops_penultimate=frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"}),
)
A1111 = Program(
    "A1111's web UI",
    initial_scale=lambda own, sigma, sigma_max: sigma,  # unless it is told to use its "SGM noise multiplier"
    drops_penultimate=frozenset({"dpm_2", "dpm_2_ancestral"}),
)


def program_of(noise: str) -> Program:
    """The program that a noise source, one of NOISE_SOURCES, belongs to."""
    return {"comfy": COMFYUI, "a1111": A1111}.get(noise, DIFFUSERS)
