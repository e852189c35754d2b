"""What a sampler sees of flow matching's latents: the latents themselves, or x0 + sigma eps."""

from collections.abc import Callable
from typing import NamedTuple

import torch

# Stands for t = 1, where sigma = t / (1 - t) is infinite: sigma 199, at which the latents are noise but for 0.5 %.
# Much larger ones (ComfyUI's 0.99996834 is 31600) make a first step so long that dpm_2_ancestral multiplies the
# difference of two network outputs by 700; the distance to the closed-form model's target is the same to 0.003.
LARGEST_FLOW_TIME = 0.995


class FlowCoordinates(NamedTuple):
    """How a sampler sees flow matching's `latents = (1 - t) x0 + t eps`, and the way back to t and latents.

    sigmas(t): the grid handed to the sampler, from one of flow times. time(sigma): t. state(latents, sigma) and
    latents(state, sigma) change coordinates; sigma must broadcast against the state.
    """

    sigmas: Callable[[torch.Tensor], torch.Tensor]
    time: Callable[[torch.Tensor], torch.Tensor]
    state: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    latents: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def noise_level(t):
    """The sigma of VE coordinates at the flow time t, a number or a tensor: t / (1 - t), infinite at 1 in a tensor."""
    return t / (1 - t)


def flow_time(sigma):
    """The flow time t at the sigma of VE coordinates, a number or a tensor: sigma / (1 + sigma)."""
    return sigma / (1 + sigma)


def to_latents(x, sigma):
    """Flow matching's latents (1 - t) x0 + t eps from x = x0 + sigma eps; sigma must broadcast against x."""
    return x / (1 + sigma)


def to_state(latents, sigma):
    """The state x0 + sigma eps from flow matching's latents (1 - t) x0 + t eps; sigma must broadcast against them."""
    return latents * (1 + sigma)


def variance_exploding(t: torch.Tensor) -> torch.Tensor:
    """The sigmas of a decreasing grid of flow times, whose first value may be 1 (sigma infinite).

    That one is clamped to LARGEST_FLOW_TIME, or half-way to 1 from the next if the grid is finer than that, so
    that the grid stays strictly decreasing.
    """
    t = t.double()
    if t[0] > LARGEST_FLOW_TIME:
        t = torch.cat([torch.clamp((1 + t[1:2]) / 2, min=LARGEST_FLOW_TIME).minimum(t[:1]), t[1:]])
    return noise_level(t).float()


# The sampler runs on the latents themselves: right for those that add no noise and see only the derivative.
FLOW = FlowCoordinates(lambda t: t, lambda sigma: sigma, lambda latents, sigma: latents, lambda x, sigma: x)


# The sampler runs on y = latents / (1 - t) = x0 + sigma eps with sigma = t / (1 - t): right for every sampler.
VE = FlowCoordinates(variance_exploding, flow_time, to_state, to_latents)


FLOW_COORDINATES = {"flow": FLOW, "ve": VE, "velocity": FLOW}
