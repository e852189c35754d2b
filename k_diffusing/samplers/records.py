"""k_diffusion's samplers: what each of them is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.facts import FACTS


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


SAMPLERS = {name: Sampler(name, getattr(k_sampling, f"sample_{name}"), **facts) for name, facts in FACTS.items()}
