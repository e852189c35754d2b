"""Sigma grids of numbers, as nodes of ComfyUI make them: functions of a noise schedule, the steps and the numbers.

pipe(..., sigma_grid=partial(karras, sigma_max=10.0, sigma_min=0.1, rho=5.0))
"""

import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids import named
from k_diffusing.grids.bounds import with_zero
from k_diffusing.protocols import NoiseSchedule


def karras(schedule: NoiseSchedule, n: int, sigma_max: float, sigma_min: float, rho: float) -> torch.Tensor:
    """KarrasScheduler: even in sigma^(1 / rho)."""
    return k_sampling.get_sigmas_karras(n, sigma_min, sigma_max, rho)


def exponential(schedule: NoiseSchedule, n: int, sigma_max: float, sigma_min: float) -> torch.Tensor:
    """ExponentialScheduler: even in log sigma."""
    return k_sampling.get_sigmas_exponential(n, sigma_min, sigma_max)


def polyexponential(schedule: NoiseSchedule, n: int, sigma_max: float, sigma_min: float, rho: float) -> torch.Tensor:
    """PolyexponentialScheduler: polynomial in log sigma, of degree rho."""
    return k_sampling.get_sigmas_polyexponential(n, sigma_min, sigma_max, rho)


def vp(schedule: NoiseSchedule, n: int, beta_d: float, beta_min: float, eps_s: float) -> torch.Tensor:
    """VPScheduler: the continuous VP schedule."""
    return k_sampling.get_sigmas_vp(n, beta_d, beta_min, eps_s)


def beta(schedule: NoiseSchedule, n: int, alpha: float, beta: float) -> torch.Tensor:
    """BetaSamplingScheduler: quantiles of a Beta distribution of timesteps."""
    return named.beta(schedule, n, alpha, beta)


def sd_turbo(schedule: NoiseSchedule, n: int, denoise: float) -> torch.Tensor:
    """SDTurboScheduler: of the timesteps 999, 899, ..., 99 the last tenths that denoise asks for, and n of those."""
    times = torch.arange(999, 0, -100)[10 - int(10 * denoise) :][:n]
    return with_zero(schedule.sigma(times.float()))


def listed(schedule: NoiseSchedule, n: int, sigmas: list[float]) -> list[float]:
    """ManualSigmas: those that are listed."""
    return sigmas
