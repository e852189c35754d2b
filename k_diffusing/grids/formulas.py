"""Sigma grids by a formula in sigma, over the model's range or the user's.

sigma_min, sigma_max: the ends above 0; None: the model's. On flow models they are flow times.
"""

import math

import numpy as np
import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids.bounds import ends, for_flow, with_zero
from k_diffusing.model.coordinates import LARGEST_FLOW_TIME, flow_time, noise_level
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.protocols import NoiseSchedule


def karras(
    schedule: NoiseSchedule, n: int, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> torch.Tensor:
    """Even in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    return k_sampling.get_sigmas_karras(n, *ends(schedule, sigma_min, sigma_max), rho=rho)


def exponential(
    schedule: NoiseSchedule, n: int, sigma_min: float | None = None, sigma_max: float | None = None
) -> torch.Tensor:
    """Even in log sigma."""
    return k_sampling.get_sigmas_exponential(n, *ends(schedule, sigma_min, sigma_max))


def polyexponential(
    schedule: NoiseSchedule, n: int, rho: float = 1.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> torch.Tensor:
    """Polynomial in log sigma, of degree rho; of degree 1, k-diffusion's default, it is `exponential`."""
    return k_sampling.get_sigmas_polyexponential(n, *ends(schedule, sigma_min, sigma_max), rho=rho)


def vp(
    schedule: NoiseSchedule, n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3
) -> torch.Tensor:
    """The continuous VP schedule of Song et al. 2021 with k-diffusion's constants, whatever the model's range.

    On flow models its sigma is taken in VE coordinates: t = sigma / (1 + sigma).
    """
    sigmas = k_sampling.get_sigmas_vp(n, beta_d, beta_min, eps_s)
    return flow_time(sigmas) if isinstance(schedule, FlowSchedule) else sigmas


def linear_quadratic(schedule: NoiseSchedule, n: int, threshold: float = 0.025) -> torch.Tensor:
    """sigma falls linearly by `threshold` in the first n // 2 steps, then quadratically to 0 (Mochi 1, Movie Gen).

    The slope is continuous where the halves meet; all as a fraction of the largest sigma.
    """
    if n == 1:
        return with_zero(schedule.sigmas[-1:])
    half = n // 2
    slope = threshold / half
    rest = n - half
    curvature = (1 - threshold - slope * rest) / rest**2
    i = torch.arange(n, dtype=torch.float64)
    after = (i - half).clamp(min=0)
    return with_zero((1 - slope * i - curvature * after**2).float() * schedule.sigmas[-1])


def kl_optimal(
    schedule: NoiseSchedule, n: int, c: float = 1.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> torch.Tensor:
    """c tan of angles evenly between arctan(sigma_max / c) and arctan(sigma_min / c) (Sabour et al. 2024, theorem 3.1).

    It is optimal for Euler steps and data of the distribution N(0, c^2): c is the standard deviation of the latents.
    """
    low, high = (math.atan(end / c) for end in ends(schedule, sigma_min, sigma_max))
    ramp = torch.arange(n) / max(n - 1, 1)
    return with_zero(c * (ramp * low + (1 - ramp) * high).tan())


def laplace(
    schedule: NoiseSchedule, n: int, mu: float = 0.0, beta: float = 0.5, sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Even quantiles of a Laplace distribution of log sigma, with mean mu and scale beta, from one end to the other.

    It is a distribution to train on (Hang et al. 2024, arXiv 2407.03297): most steps are near exp(mu). On flow models
    its sigma is taken in VE coordinates: t = sigma / (1 + sigma), at most LARGEST_FLOW_TIME.
    """
    flow = isinstance(schedule, FlowSchedule)
    low, high = ends(schedule, sigma_min, sigma_max)
    if flow:
        low, high = noise_level(low), noise_level(min(high, LARGEST_FLOW_TIME))
    above, below = (math.log(high) - mu) / beta, (math.log(low) - mu) / beta
    first = 0.5 * math.exp(-above) if above > 0 else 1 - 0.5 * math.exp(above)
    last = 0.5 * math.exp(-below) if below > 0 else 1 - 0.5 * math.exp(below)
    x = np.linspace(first, last, n)
    with np.errstate(divide="ignore"):  # far from mu a quantile rounds to 1
        sigmas = np.exp(mu - beta * np.sign(0.5 - x) * np.log(1 - 2 * np.abs(0.5 - x))).clip(low, high)
    sigmas[-1], sigmas[0] = low, high
    return with_zero(flow_time(sigmas) if flow else sigmas)


def bong_tangent(schedule: NoiseSchedule, n: int, pivot: float = 0.6, slope: float = 0.2) -> torch.Tensor:
    """Flow time along two arctangents: from 1 to 1/2, which is at the point pivot (n + 2), and on to 0.

    RES4LYF's name. slope: how steep they are, for 40 points. Whatever the model, the times are not shifted. Raises
    ValueError for a model that is no flow model.
    """
    for_flow(schedule, "bong_tangent")
    if n == 1:
        return with_zero([1.0])
    points = n + 2
    joint, steep = min(max(int(pivot * points), 2), n), slope * 40 / points
    before = 0.5 + 0.5 * _arctangent(steep * (np.arange(joint) - joint))
    after = 0.5 * _arctangent(steep * np.arange(points - joint))
    return with_zero(np.concatenate([before[:-1], after[:-1]]))


def _arctangent(x: np.ndarray) -> np.ndarray:
    """-arctan(x) at rising points, scaled to fall from 1 to 0."""
    falls = -np.arctan(x)
    return (falls - falls[-1]) / (falls[0] - falls[-1])
