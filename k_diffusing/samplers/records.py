"""k_diffusion's samplers: what each of them is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from k_diffusing._k_diffusion import k_sampling

Denoiser = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Sampler:
    """One sampling function, and what a caller must know of it.

    order: of accuracy, as published. nfe_per_step: network evaluations in a step. stochastic: adds noise with
    its default options. derivative_only: uses the model only as (x - denoised) / sigma. noise: the kind it draws,
    "churn" (only if s_churn > 0), "gaussian", "brownian" or None. takes: "sigmas" (a grid) or "sigma_range"
    (sigma_min, sigma_max and, unless adaptive, n). sigma_grid: the named grid it is known to need, or None.
    single_step: whether the function, if it takes a grid, can go from sigma to 0 in its first step.
    flow_coordinates: "flow" if it is written for those. grid_scheduler: whose sigmas it wants where the user gives
    none; None: those of the pipeline's scheduler. keeps_bounds: whether it is a diffusers scheduler's own step, which
    puts the bounds of its config on the denoised sample.
    """

    name: str
    function: Callable
    order: int | None = None
    nfe_per_step: int | None = None
    stochastic: bool = True
    derivative_only: bool = False
    noise: str | None = "gaussian"
    takes: str = "sigmas"
    adaptive: bool = False
    sigma_grid: str | None = None
    single_step: bool = True
    custom: bool = False
    flow_coordinates: str | None = None
    grid_scheduler: Any = None
    keeps_bounds: bool = False


SAMPLERS = {
    "euler": Sampler("euler", k_sampling.sample_euler, 1, 1, False, True, "churn"),
    "euler_ancestral": Sampler("euler_ancestral", k_sampling.sample_euler_ancestral, 1, 1, True, True),
    "heun": Sampler("heun", k_sampling.sample_heun, 2, 2, False, True, "churn"),
    "dpm_2": Sampler("dpm_2", k_sampling.sample_dpm_2, 2, 2, False, True, "churn"),
    "dpm_2_ancestral": Sampler("dpm_2_ancestral", k_sampling.sample_dpm_2_ancestral, 2, 2, True, True),
    "lms": Sampler("lms", k_sampling.sample_lms, 4, 1, False, True, None),
    "dpm_fast": Sampler("dpm_fast", k_sampling.sample_dpm_fast, 3, 3, False, True, takes="sigma_range"),
    "dpm_adaptive": Sampler(
        "dpm_adaptive", k_sampling.sample_dpm_adaptive, 3, 3, False, True, takes="sigma_range", adaptive=True
    ),
    "dpmpp_2s_ancestral": Sampler("dpmpp_2s_ancestral", k_sampling.sample_dpmpp_2s_ancestral, 2, 2),
    "dpmpp_sde": Sampler("dpmpp_sde", k_sampling.sample_dpmpp_sde, 2, 2, noise="brownian"),
    "dpmpp_2m": Sampler("dpmpp_2m", k_sampling.sample_dpmpp_2m, 2, 1, False, noise=None),
    "dpmpp_2m_sde": Sampler("dpmpp_2m_sde", k_sampling.sample_dpmpp_2m_sde, 2, 1, noise="brownian", single_step=False),
    "dpmpp_3m_sde": Sampler(
        "dpmpp_3m_sde", k_sampling.sample_dpmpp_3m_sde, 3, 1, noise="brownian", sigma_grid="karras", single_step=False
    ),
}
