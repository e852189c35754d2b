"""Orders of accuracy, measured: how a sampler's error falls with the step on an ODE whose solution is known.

The probability-flow ODE of one-dimensional data moves every point along with its quantile, so that the exact
solution from sigma_0 to sigma_1 is x -> Q_1(F_0(x)), with F the mixture's distribution function at sigma_0 and Q_1
its inverse at sigma_1. No reference integration is needed. All is in float64, on grids even in log sigma that stop
above 0: the last step to 0 is an Euler step whatever the sampler.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from k_diffusing.model.coordinates import flow_time, to_latents, to_state
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.oracle.mixture import Mixture
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import ComfyModel, Levels, model_sampling
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.records import Sampler

ORDER_STEPS = (80, 160)
SMOOTH = Mixture(weights=(0.4, 0.6), means=(-1.0, 0.8), widths=(0.5, 0.6))  # resolved by the steps used here
SIGMA_MIN, SIGMA_MAX = 0.1, 10.0


def order(sampler: str | Callable | Sampler, options: dict[str, Any] | None = None, coordinates: str = "ve") -> float:
    """Measure the order of accuracy of a sampler that adds no noise.

    Args:
        sampler: a name, a function with k-diffusion's signature, or a record.
        options: of the sampler.
        coordinates: those in which it runs, "ve" or "flow".

    Returns:
        `slope` over ORDER_STEPS.

    Raises:
        ValueError: the sampler chooses its own steps, or its result depends on the noise that it draws.
    """
    if find_sampler(sampler).takes != "sigmas":
        raise ValueError("it chooses its own steps")
    coarse, fine = (ode_error(sampler, n, options, coordinates) for n in ORDER_STEPS)
    if ode_error(sampler, ORDER_STEPS[0], options, coordinates, seed=1) != coarse:
        raise ValueError("it adds noise")
    if not (0 < coarse < math.inf and 0 < fine < math.inf):
        raise ValueError(f"its errors are {coarse:g} and {fine:g}")
    return slope((coarse, fine), ORDER_STEPS)


def slope(errors: tuple[float, float], steps: tuple[int, int]) -> float:
    """The order that two errors show: d log(error) / d log(step), between two numbers of steps."""
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


def ode_error(
    sampler: str | Callable | Sampler, steps: int, options: dict[str, Any] | None = None, coordinates: str = "ve",
    sigma_max: float = SIGMA_MAX, seed: int = 0,
) -> float:  # fmt: skip
    """The largest error of a sampler's result; arguments as those of `solve`."""
    x, exact = solve(sampler, steps, options, coordinates, sigma_max, seed)
    return float((x - exact).abs().max())


def solve(
    sampler: str | Callable | Sampler, steps: int, options: dict[str, Any] | None = None, coordinates: str = "ve",
    sigma_max: float = SIGMA_MAX, seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Run a sampler down the ODE, from 19 points: the quantiles 0.05 to 0.95 at sigma_max.

    Args:
        sampler: a name, or a function with k-diffusion's signature.
        steps: of a grid even in log sigma.
        options: of the sampler.
        coordinates: those in which it runs, "ve" or "flow".
        sigma_max: where the grid begins; it ends at SIGMA_MIN.
        seed: of the noise, for one that adds noise.

    Returns:
        Where the points come to at SIGMA_MIN, [1, 19], and where the solution has them.
    """
    flow = coordinates == "flow"
    sigmas = torch.linspace(math.log(sigma_max), math.log(SIGMA_MIN), steps + 1, dtype=torch.float64).exp()
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)[None]
    x, exact = SMOOTH.quantile(p, sigma_max), SMOOTH.quantile(p, SIGMA_MIN)
    if flow:
        x, sigmas = to_latents(x, sigmas[0]), flow_time(sigmas)

    def denoiser(x, sigma, **_):
        sigma = sigma.reshape(-1, 1)
        return SMOOTH.posterior_mean(x, 1 - sigma if flow else torch.ones_like(sigma), sigma)

    schedule = FlowSchedule(sigmas.flip(0), shift=lambda t: t, train_steps=len(sigmas))
    model = ComfyModel(denoiser, model_sampling(Levels(schedule), flow))
    generator = torch.Generator().manual_seed(seed)
    x = run_sampler(find_sampler(sampler), model, x, sigmas, options=options, generator=generator)
    return (to_state(x, SIGMA_MIN) if flow else x), exact
