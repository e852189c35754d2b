"""The sigma grids that are nodes of ComfyUI: each by its node's name, with the node's inputs and their defaults.

pipe(prompt, program="comfyui", sigma_grid={"KarrasScheduler": {"rho": 5.0}})

Their ends are numbers of the node, whatever the model. They are run whole, as by SamplerCustom: only the KSampler nodes
drop a sigma for some samplers.
"""

from collections.abc import Callable

import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids import named
from k_diffusing.grids.bounds import with_zero
from k_diffusing.grids.tables import ALIGN_YOUR_STEPS, OPTIMAL_STEPS
from k_diffusing.grids.tabulated import interpolated
from k_diffusing.protocols import NoiseSchedule

LARGEST, SMALLEST = 14.614642, 0.0291675
AYS_MODELS = {"SD1": "sd15", "SDXL": "sdxl", "SVD": "svd"}
OSS_MODELS = {"FLUX": "flux", "Wan": "wan", "Chroma": "chroma"}


def karras(
    schedule: NoiseSchedule, n: int, sigma_max: float = LARGEST, sigma_min: float = SMALLEST, rho: float = 7.0
) -> torch.Tensor:
    """KarrasScheduler: even in sigma^(1 / rho)."""
    return k_sampling.get_sigmas_karras(n, sigma_min, sigma_max, rho)


def exponential(
    schedule: NoiseSchedule, n: int, sigma_max: float = LARGEST, sigma_min: float = SMALLEST
) -> torch.Tensor:
    """ExponentialScheduler: even in log sigma."""
    return k_sampling.get_sigmas_exponential(n, sigma_min, sigma_max)


def polyexponential(
    schedule: NoiseSchedule, n: int, sigma_max: float = LARGEST, sigma_min: float = SMALLEST, rho: float = 1.0
) -> torch.Tensor:
    """PolyexponentialScheduler: polynomial in log sigma, of degree rho."""
    return k_sampling.get_sigmas_polyexponential(n, sigma_min, sigma_max, rho)


def laplace(
    schedule: NoiseSchedule, n: int, sigma_max: float = LARGEST, sigma_min: float = SMALLEST, mu: float = 0.0,
    beta: float = 0.5,
) -> torch.Tensor:  # fmt: skip
    """LaplaceScheduler: n quantiles of a Laplace distribution, clamped to the range. No step leads to 0."""
    x = torch.linspace(0, 1, n)
    logs = mu - beta * (0.5 - x).sign() * (1 - 2 * (0.5 - x).abs() + 1e-5).log()
    return logs.exp().clamp(sigma_min, sigma_max)


def vp(
    schedule: NoiseSchedule, n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3
) -> torch.Tensor:
    """VPScheduler: the continuous VP schedule, in more digits at its end than k_diffusion's own function has."""
    t = torch.linspace(1, eps_s, n)
    return with_zero((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


def beta_sampling(schedule: NoiseSchedule, n: int, alpha: float = 0.6, beta: float = 0.6) -> torch.Tensor:
    """BetaSamplingScheduler: quantiles of a Beta distribution of timesteps."""
    return named.beta(schedule, n, alpha, beta)


def sd_turbo(schedule: NoiseSchedule, n: int, denoise: float = 1.0) -> torch.Tensor:
    """SDTurboScheduler: of the timesteps 999, 899, ..., 99 the last tenths that denoise asks for, and n of those."""
    times = torch.arange(999, 0, -100)[10 - int(10 * denoise) :][:n]
    return with_zero(schedule.sigma(times.float()))


def align_your_steps(schedule: NoiseSchedule, n: int, model_type: str = "SD1", denoise: float = 1.0) -> torch.Tensor:
    """AlignYourStepsScheduler: the last steps, as many as denoise asks for, of the n of a model's table."""
    return _last_part(ALIGN_YOUR_STEPS, AYS_MODELS, model_type, n, denoise)


def optimal_steps(schedule: NoiseSchedule, n: int, model_type: str = "FLUX", denoise: float = 1.0) -> torch.Tensor:
    """OptimalStepsScheduler: likewise."""
    return _last_part(OPTIMAL_STEPS, OSS_MODELS, model_type, n, denoise)


def _last_part(tables, models: dict[str, str], model_type: str, n: int, denoise: float) -> torch.Tensor:
    if model_type not in models:
        raise ValueError(f"model_type={model_type!r}: choose one of {', '.join(models)}")
    return interpolated(tables[models[model_type]], n)[-(round(n * denoise) + 1) :]


NODES: dict[str, Callable[..., torch.Tensor]] = {
    "KarrasScheduler": karras,
    "ExponentialScheduler": exponential,
    "PolyexponentialScheduler": polyexponential,
    "LaplaceScheduler": laplace,
    "VPScheduler": vp,
    "BetaSamplingScheduler": beta_sampling,
    "SDTurboScheduler": sd_turbo,
    "AlignYourStepsScheduler": align_your_steps,
    "OptimalStepsScheduler": optimal_steps,
}
