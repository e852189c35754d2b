"""Is a sampler right? Asked of a closed-form model, whose answer is known exactly.

    judge("k:dpmpp_2m", "sdxl").verdict

Two measurements: how far the results are, in distribution, from the two-Gaussian mixture that the model knows, in
the real pipelines; and for samplers that add no noise the order of accuracy on the probability-flow ODE.
"""

from collections.abc import Callable
from dataclasses import dataclass

from k_diffusing.compare.failure import sampler_errors
from k_diffusing.compare.sources import find_source
from k_diffusing.grids.given import GridChoice, ListedGrid, given_grid
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import wasserstein
from k_diffusing.oracle.order import order
from k_diffusing.programs.choose import find_program
from k_diffusing.samplers.find import find_sampler
from k_diffusing.trace.record import Trace
from k_diffusing.web.tables import html_table

ORACLES = ("sdxl", "flux")
STEPS = (25, 100)
RIGHT = 0.03  # W1 at 100 steps: k_diffusion's samplers are below 0.025, and those known to be wrong above 0.035
ORDER_MARGIN = 0.25  # what a measured order may be below the true one


@dataclass(frozen=True)
class Judgement:
    """What was measured of a sampler.

    Attributes:
        label: the sampler, as it was given.
        model: "sdxl" or "flux".
        distances: Wasserstein-1 to the mixture at STEPS.
        order: of accuracy; None where noise or the sampler's own steps forbid it.
        order_note: why it is None.
        evaluations: of the network, in a step.
    """

    label: str
    model: str
    distances: tuple[float, ...]
    order: float | None
    order_note: str
    evaluations: float

    @property
    def right(self) -> bool:
        """Whether the results are near enough to the mixture."""
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
        """One line."""
        word = "right" if self.right else "wrong"
        figures = ", ".join(f"{w1:.3f} at {n} steps" for n, w1 in zip(STEPS, self.distances, strict=True))
        order = f"order {self.order:.2f}" if self.order is not None else f"order not measured: {self.order_note}"
        if self.wasteful:
            order += (
                f"; warning: {self.evaluations:.0f} evaluations a step should reach order 2: is each at its own sigma?"
            )
        return f"{self.label} on {self.model}: {word} in distribution (W1 {figures}); {order}"

    def _repr_html_(self) -> str:
        columns = ("in distribution", *(f"W1 at {n} steps" for n in STEPS), "evaluations a step", "order of accuracy")
        order = f"{self.order:.2f}" if self.order is not None else f"not measured: {self.order_note}"
        figures = (*(f"{w1:.3f}" for w1 in self.distances), f"{self.evaluations:.3g}", order)
        return html_table(f"{self.label} on {self.model}", columns, [("right" if self.right else "wrong", *figures)])


def judge(
    sampler: str | Callable, model: str = "sdxl", program: str | None = None, sigma_grid: GridChoice = None
) -> Judgement:
    """Make both measurements of a sampler.

    Args:
        sampler: as `compare.sources.find_source` takes it.
        model: the closed-form model, "sdxl" or "flux".
        program: whose sampler of that name is meant, with its noise and noise levels; "program" among the sampler's
            own options wins.
        sigma_grid: as a pipeline's; None: the one that the sampler's name implies, or on "sdxl" karras.

    Raises:
        ValueError: another model, a name that is no sampler's, or a grid that cannot be had in 25 and in 100 steps.
        TypeError: a function that is no sampler.
        SamplerError: a sampler that fails.
    """
    if model not in ORACLES:
        raise ValueError(f"unknown closed-form model {model!r}: choose one of {', '.join(ORACLES)}")
    pipe = oracle_sdxl() if model == "sdxl" else oracle_flux()
    source = find_source(sampler, pipe.scheduler)
    keywords = {"sampler_options": source.options, "program": program, **source.keywords}
    if isinstance(given_grid(sigma_grid, find_program(keywords["program"]).grids), ListedGrid):
        raise ValueError("a sampler is judged in 25 and in 100 steps, and a list of sigmas has its own: name a grid")
    if sigma_grid is not None or source.sigma_grid or model == "sdxl":
        keywords["sigma_grid"] = sigma_grid if sigma_grid is not None else source.sigma_grid or "karras"
    for n in STEPS if sigma_grid is not None else ():
        pipe.plan("euler", None, sigma_grid, n, program=keywords["program"])  # raises
    trace, distances = Trace(), []
    for n in STEPS:
        with sampler_errors(source.label, source.sampler, trace):
            distances.append(wasserstein(draw(pipe, source.sampler, steps=n, trace=trace, **keywords)))
    try:
        run = find_program(keywords["program"]).sampler(find_sampler(source.sampler), model == "flux")
        measured, note = order(run, source.options, trace.coordinates), ""
    except Exception as error:  # a sampler may need a grid that ends at 0, whatever it then raises
        measured, note = None, str(error) or type(error).__name__
    return Judgement(source.label, model, tuple(distances), measured, note, len(trace.calls) / STEPS[-1])
