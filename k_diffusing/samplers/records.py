"""The samplers, k_diffusion's and ours: what each of them is."""

import importlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.facts import FACTS, OUR_FACTS


@dataclass(frozen=True)
class Sampler:
    """One sampling function, and what a caller must know of it.

    Attributes:
        name: without `sample_`.
        function: with k-diffusion's signature.
        order: of accuracy, as published.
        nfe_per_step: network evaluations in a step.
        stochastic: adds noise with its default options.
        derivative_only: uses the model only as (x - denoised) / sigma.
        noise: the kind it draws, "churn" (only if s_churn > 0), "gaussian", "brownian" or None.
        takes: "sigmas" (a grid) or "sigma_range" (sigma_min, sigma_max and, unless adaptive, n).
        adaptive: chooses its own steps.
        sigma_grid: the named grid it is known to need, or None.
        single_step: whether the function, if it takes a grid, can go from sigma to 0 in its first step.
        custom: whether it is a function of the user's.
        flow_coordinates: "flow" if it is written for those.
        grid_scheduler: whose sigmas it wants where the user gives none; None: those of the pipeline's scheduler.
        keeps_bounds: whether it is a diffusers scheduler's own step, which puts the bounds of its config on the
            denoised sample.
        last_step: whether one that takes a range is led on from its end to 0 by an Euler step, for which it has an
            evaluation less.
        uses_uncond: whether it asks for the estimate without the prompt (CFG++).
        measured: the order measured on a smooth model with the default options, noise apart, if it is another.
        nfe_first: evaluations in the first steps, if they take others.
        nfe_last: those in the last steps of a grid that ends at 0, or of any grid if ends_alike.
        ends_alike: whether a grid that ends above 0 has the same last steps.
        family: of ours: what it belongs with.
        module: of ours: the module of this package that has the function.
        sources: of ours: papers.
        aliases: of ours: other names.
        noiseless: the options with which a stochastic one adds no noise, None if it always does.
        twin: the sampler that it then is.
        distilled: whether it is for models distilled to few steps.
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
    last_step: bool = True
    uses_uncond: bool = False
    measured: float | None = None
    nfe_first: tuple[int, ...] = ()
    nfe_last: tuple[int, ...] = (1,)
    ends_alike: bool = False
    family: str = "k_diffusion"
    module: str | None = None
    sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    noiseless: Mapping[str, Any] | None = field(default_factory=lambda: {"eta": 0.0})
    twin: str | None = None
    distilled: bool = False

    @property
    def even(self) -> bool:
        """Whether all steps take nfe_per_step evaluations, but for the last one to 0, which takes one."""
        return self.nfe_per_step is not None and (self.nfe_first, self.nfe_last) == ((), (1,))


def _our_function(name: str, module: str) -> Callable:
    return getattr(importlib.import_module(f"{__package__}.{module}"), f"sample_{name}")


SAMPLERS = {name: Sampler(name, getattr(k_sampling, f"sample_{name}"), **facts) for name, facts in FACTS.items()}
OUR_SAMPLERS = {name: Sampler(name, _our_function(name, facts["module"]), **facts) for name, facts in OUR_FACTS.items()}
ALL_SAMPLERS = ChainMap(OUR_SAMPLERS, SAMPLERS)  # iterates over k_diffusion's first
