"""Sigma grids that choose among a model's own levels, by their numbers or by timesteps."""

import numpy as np
import torch

from k_diffusing.grids.bounds import for_timesteps, with_zero
from k_diffusing.protocols import NoiseSchedule


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


def beta57(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """`beta` with a = 0.5 and b = 0.7: more of the steps at small sigmas (RES4LYF's name)."""
    return beta(schedule, n, 0.5, 0.7)


def turbo(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """The first n of the ten timesteps of SD-Turbo (Sauer et al. 2023, arXiv 2311.17042): 999, 899, ..., 99 of 1000.

    It ends early, with a step from there to 0: for models distilled to one step or a few. Raises ValueError for n > 10.
    """
    if n > 10:
        raise ValueError(f"turbo has ten steps at most, not {n}: it is for models distilled to a few")
    count = len(for_timesteps(schedule, "turbo").sigmas)
    return with_zero(schedule.sigma(torch.arange(10, 10 - n, -1) * (count // 10) - 1))


def lcm_timesteps(schedule: NoiseSchedule, n: int, original_steps: int = 50) -> torch.Tensor:
    """n of the timesteps 1000 k / original_steps - 1 on which an LCM, or TCD, was distilled (arXiv 2310.04378).

    They are those of diffusers' LCMScheduler and TCDScheduler. Raises ValueError where n is more than there are.
    """
    count = len(for_timesteps(schedule, "lcm_timesteps").sigmas)
    if n > original_steps or original_steps > count:
        raise ValueError(
            f"lcm_timesteps takes n={n} of original_steps={original_steps}, of the model's {count}: make n the smallest"
        )
    learnt = torch.arange(original_steps, 0, -1) * (count // original_steps) - 1
    return with_zero(schedule.sigma(learnt[torch.arange(n) * original_steps // n]))
