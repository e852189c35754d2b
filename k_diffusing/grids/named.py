"""Named sigma grids: functions of a noise schedule and a number of steps.

A grid is n + 1 strictly decreasing float32 values on the CPU, the last one usually 0. On flow models named grids are
counted in flow time t.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.model.coordinates import flow_time
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.protocols import NoiseSchedule


def _range(schedule: NoiseSchedule) -> tuple[float, float]:
    return float(schedule.sigmas[0]), float(schedule.sigmas[-1])


def with_zero(sigmas) -> torch.Tensor:
    """A grid [n + 1] from its n sigmas above 0."""
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def _even_timesteps(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    low, high = (float(schedule.timestep(sigma)) for sigma in (schedule.sigmas[0], schedule.sigmas[-1]))
    return torch.linspace(high, low, n)


def simple(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Every (N / n)-th sigma of the model's own N, from the largest down (ComfyUI's "simple")."""
    stride = len(schedule.sigmas) / n
    return with_zero([schedule.sigmas[-1 - int(i * stride)] for i in range(n)])


def normal(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n timesteps evenly from the largest to the smallest, both included (ComfyUI's "normal")."""
    return with_zero(schedule.sigma(_even_timesteps(schedule, n)))


def sgm_uniform(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n + 1 timesteps evenly from the largest to the smallest, without the last (ComfyUI's "sgm_uniform")."""
    return with_zero(schedule.sigma(_even_timesteps(schedule, n + 1)[:-1]))


def ddim_uniform(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Every (N // n)-th sigma from the second smallest up (ComfyUI's "ddim_uniform").

    Where n does not divide N the grid has a few steps more than n, as it has there.
    """
    return with_zero(schedule.sigmas[1 :: max(len(schedule.sigmas) // n, 1)].flip(0))


def beta(schedule: NoiseSchedule, n: int, a: float = 0.6, b: float = 0.6) -> torch.Tensor:
    """Quantiles of a Beta(a, b) distribution of timesteps (Lee et al. 2024, arXiv 2407.12173); doubles are dropped."""
    from scipy import stats  # k-diffusion requires scipy; stats takes a while to import

    quantiles = stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), a, b)
    index = np.rint(quantiles * (len(schedule.sigmas) - 1)).astype(int)
    return with_zero(schedule.sigmas[torch.as_tensor(list(dict.fromkeys(index.tolist())))])


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


def kl_optimal(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """tan of angles evenly between arctan(sigma_max) and arctan(sigma_min) (Sabour et al. 2024, arXiv 2404.14507)."""
    low, high = _range(schedule)
    ramp = torch.arange(n) / max(n - 1, 1)
    return with_zero((ramp * math.atan(low) + (1 - ramp) * math.atan(high)).tan())


def karras(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Even in sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    return k_sampling.get_sigmas_karras(n, *_range(schedule))


def exponential(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Even in log sigma."""
    return k_sampling.get_sigmas_exponential(n, *_range(schedule))


def polyexponential(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Polynomial in log sigma; of degree 1 by k-diffusion's default, which is `exponential`."""
    return k_sampling.get_sigmas_polyexponential(n, *_range(schedule))


def vp(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """The continuous VP schedule of Song et al. 2021 with k-diffusion's constants, whatever the model's range.

    On flow models its sigma is taken in VE coordinates: t = sigma / (1 + sigma).
    """
    sigmas = k_sampling.get_sigmas_vp(n)
    return flow_time(sigmas) if isinstance(schedule, FlowSchedule) else sigmas


SIGMA_GRIDS = {
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "vp": vp,
    "simple": simple,
    "normal": normal,
    "sgm_uniform": sgm_uniform,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
}


def named_grid(sigma_grid: str | Callable) -> Callable[[NoiseSchedule, int], torch.Tensor]:
    """The function (schedule, n) -> sigmas of a name; a function stands for itself."""
    return sigma_grid if callable(sigma_grid) else SIGMA_GRIDS[sigma_grid]
