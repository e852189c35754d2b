"""Is a sampler right? Asked of a closed-form model, whose answer is known exactly.

    judge("k:dpmpp_2m", "sdxl").verdict

Two measurements: how far the results are, in distribution, from the two-Gaussian mixture that the model knows, in
the real pipelines; and for samplers that add no noise the order of accuracy on the probability-flow ODE.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from k_diffusing.compare.failure import sampler_errors
from k_diffusing.compare.sources import Source, find_source
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.oracle.closed_form import Mixture, draw, oracle_flux, oracle_sdxl, wasserstein
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.comfyui import ComfyModel, Levels, model_sampling
from k_diffusing.samplers.find import find_sampler
from k_diffusing.trace.record import Trace

ORACLES = ("sdxl", "flux")
STEPS = (25, 100)
RIGHT = 0.03  # W1 at 100 steps: k_diffusion's samplers are below 0.025, and those known to be wrong above 0.035
ORDER_STEPS = (80, 160)
ORDER_MARGIN = 0.25  # what a measured order may be below the true one
SMOOTH = Mixture(weights=(0.4, 0.6), means=(-1.0, 0.8), widths=(0.5, 0.6))  # resolved by the steps used here
SIGMA_MIN, SIGMA_MAX = 0.1, 10.0


@dataclass(frozen=True)
class Judgement:
    """distances: Wasserstein-1 at STEPS. order: of accuracy, None where noise or the sampler's own steps forbid it.
    evaluations: of the network, in a step."""

    label: str
    model: str
    distances: tuple[float, ...]
    order: float | None
    order_note: str
    evaluations: float

    @property
    def right(self) -> bool:
        return self.distances[-1] <= RIGHT

    def reaches(self, order: float) -> bool:
        """Whether the order measured is this one or higher. Raises ValueError where none was measured."""
        if self.order is None:
            raise ValueError(f"order {order:g} cannot be asked of {self.label}: {self.order_note}")
        return self.order >= order - ORDER_MARGIN

    @property
    def wasteful(self) -> bool:
        """Whether it has two evaluations in a step, and yet only the order that Euler's method has with one."""
        return self.order is not None and self.evaluations > 1.5 and not self.reaches(2)

    @property
    def verdict(self) -> str:
        word = "right" if self.right else "wrong"
        figures = ", ".join(f"{w1:.3f} at {n} steps" for n, w1 in zip(STEPS, self.distances, strict=True))
        order = f"order {self.order:.2f}" if self.order is not None else f"order not measured: {self.order_note}"
        if self.wasteful:
            order += (
                f"; warning: {self.evaluations:.0f} evaluations a step should reach order 2: is each at its own sigma?"
            )
        return f"{self.label} on {self.model}: {word} in distribution (W1 {figures}); {order}"


def judge(sampler: str | Callable, model: str = "sdxl") -> Judgement:
    """Both measurements, on the closed-form SDXL or FLUX, of a sampler as `find_source` takes them.

    Raises ValueError or TypeError for another model, or for what is no sampler; SamplerError for one that fails.
    """
    if model not in ORACLES:
        raise ValueError(f"unknown closed-form model {model!r}: choose one of {', '.join(ORACLES)}")
    pipe = oracle_sdxl() if model == "sdxl" else oracle_flux()
    source = find_source(sampler, pipe.scheduler)
    keywords = {"sampler_options": source.options, **source.keywords}
    if model == "sdxl":
        keywords["sigma_grid"] = "karras"
    trace, distances = Trace(), []
    for n in STEPS:
        with sampler_errors(source.label, source.sampler, trace):
            distances.append(wasserstein(draw(pipe, source.sampler, steps=n, trace=trace, **keywords)))
    try:
        measured, note = order(source, trace.coordinates), ""
    except Exception as error:  # a sampler may need a grid that ends at 0, whatever it then raises
        measured, note = None, str(error) or type(error).__name__
    return Judgement(source.label, model, tuple(distances), measured, note, len(trace.calls) / STEPS[-1])


def order(source: Source, coordinates: str = "ve") -> float:
    """d log(error) / d log(step) on the probability-flow ODE, whose exact solution moves every quantile along.

    Raises ValueError for a sampler that chooses its own steps, or whose result depends on the noise it draws.
    """
    if find_sampler(source.sampler).takes != "sigmas":
        raise ValueError("it chooses its own steps")
    coarse, fine = (_error(source, n, coordinates) for n in ORDER_STEPS)
    if _error(source, ORDER_STEPS[0], coordinates, seed=1) != coarse:
        raise ValueError("it adds noise")
    if not (0 < coarse < math.inf and 0 < fine < math.inf):
        raise ValueError(f"its errors are {coarse:g} and {fine:g}")
    return math.log(coarse / fine) / math.log(ORDER_STEPS[1] / ORDER_STEPS[0])


def _error(source: Source, steps: int, coordinates: str, seed: int = 0) -> float:
    """Largest error at SIGMA_MIN over 19 points between the quantiles 0.05 and 0.95, on a grid even in log sigma."""
    flow = coordinates == "flow"
    sigmas = torch.linspace(math.log(SIGMA_MAX), math.log(SIGMA_MIN), steps + 1, dtype=torch.float64).exp()
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)[None]
    x, exact = SMOOTH.quantile(p, SIGMA_MAX), SMOOTH.quantile(p, SIGMA_MIN)
    if flow:
        x, sigmas = x / (1 + sigmas[0]), sigmas / (1 + sigmas)

    def denoiser(x, sigma, **_):
        sigma = sigma.reshape(-1, 1)
        return SMOOTH.posterior_mean(x, 1 - sigma if flow else torch.ones_like(sigma), sigma)

    schedule = FlowSchedule(sigmas.flip(0), shift=lambda t: t)
    model = ComfyModel(denoiser, model_sampling(Levels(schedule), flow))
    generator = torch.Generator().manual_seed(seed)
    x = run_sampler(find_sampler(source.sampler), model, x, sigmas, options=source.options, generator=generator)
    return float(((x * (1 + SIGMA_MIN) if flow else x) - exact).abs().max())
