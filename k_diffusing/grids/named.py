"""Named sigma grids: functions of a noise schedule and a number of steps.

A grid is n + 1 strictly decreasing float32 values on the CPU, the last one usually 0. On flow models named grids are
counted in flow time t. What a function takes besides are its options; one that does not suit a model raises ValueError.
"""

from collections.abc import Callable

import torch

from k_diffusing.grids.formulas import (
    bong_tangent,
    exponential,
    karras,
    kl_optimal,
    laplace,
    linear_quadratic,
    polyexponential,
    vp,
)
from k_diffusing.grids.leveled import beta, beta57, ddim_uniform, lcm_timesteps, normal, sgm_uniform, simple, turbo
from k_diffusing.grids.tabulated import DISTILLED_GRIDS, align_your_steps, optimal_steps
from k_diffusing.protocols import NoiseSchedule

SIGMA_GRIDS: dict[str, Callable[..., torch.Tensor]] = {
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "vp": vp,
    "simple": simple,
    "normal": normal,
    "sgm_uniform": sgm_uniform,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "beta57": beta57,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
    "bong_tangent": bong_tangent,
    "laplace": laplace,
    "align_your_steps": align_your_steps,
    "optimal_steps": optimal_steps,
    "turbo": turbo,
    "lcm_timesteps": lcm_timesteps,
    **DISTILLED_GRIDS,
}


def named_grid(sigma_grid: str | Callable) -> Callable[[NoiseSchedule, int], torch.Tensor]:
    """The function (schedule, n) -> sigmas of a name; a function stands for itself."""
    return sigma_grid if callable(sigma_grid) else SIGMA_GRIDS[sigma_grid]
