"""The samplers on closed-form models: their orders, and how far their results are from the truth.

- order: the slope of the error of the probability-flow ODE from 80 to 160 steps, with the options without noise;
- w1: the Wasserstein-1 distance of the results to the mixture that the model knows, at STEPS steps; on a karras grid
  for SDXL's model, on its own for FLUX's. Exact samples are at 0.007, with the one seed here at 0.003 to 0.014.
"""

from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row
from k_diffusing.samplers.facts import ALL_FACTS

STEPS, ORDER_STEPS = (15, 30, 100), (80, 160)
# The sections of the page that have a table, and their parts' names.
FAMILIES = {
    "k_diffusion": "k-diffusion",
    "multistep": "multistep",
    "singlestep": "singlestep",
    "Runge-Kutta": "runge-kutta",
    "ER-SDE": "er-sde",
    "ancestral": "ancestral",
    "restart": "restart",
    "few steps": "few-steps",
}
HEAD = ["", "evaluations a step", "order", "measured", *(f"SDXL, {n}" for n in STEPS), *(f"FLUX, {n}" for n in STEPS)]


def names(family: str) -> list[str]:
    """The samplers of a family."""
    return [name for name, facts in ALL_FACTS.items() if facts.get("family", "k_diffusion") == family]


def cells() -> list[Row]:
    return [{"sampler": name} for family in FAMILIES for name in names(family)]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    torch.set_num_threads(1)
    for cell in cells:
        yield cell | {"order": measured_order(cell["sampler"]), "w1": distances(cell["sampler"])}


def distances(name: str) -> dict[str, list[float]]:
    """W1 by model, at STEPS steps."""
    from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
    from k_diffusing.oracle.mixture import wasserstein

    pipes = {"sdxl": (oracle_sdxl(), "karras"), "flux": (oracle_flux(), None)}
    return {
        model: [round(wasserstein(draw(pipe, name, steps=n, sigma_grid=grid)), 4) for n in STEPS]
        for model, (pipe, grid) in pipes.items()
    }


def measured_order(name: str) -> float | None:
    """None where the sampler takes its own steps, or always adds noise."""
    from k_diffusing.oracle.order import ode_error, slope
    from samplers_patch import ALL_SAMPLERS

    record = ALL_SAMPLERS[name]
    if record.takes != "sigmas" or (record.stochastic and record.noiseless is None):
        return None
    options = dict(record.noiseless or {}) if record.stochastic else {}
    coarse, fine = (ode_error(name, n, options) for n in ORDER_STEPS)
    return round(slope((coarse, fine), ORDER_STEPS), 2)


def table(data: Data, family: str) -> str:
    """A sampler of the family a line."""
    rows = []
    for name in names(family):
        [found], facts = select(data, sampler=name), ALL_FACTS[name]
        order = "" if found["order"] is None else f"{found['order']:.2f}"
        w1 = [f"{value:.3f}" for model in ("sdxl", "flux") for value in found["w1"][model]]
        rows.append([name, str(facts["nfe_per_step"] or "varies"), str(facts["order"]), order, *w1])
    return markdown_table(HEAD, rows)


BENCHMARK = Benchmark(
    name="samplers",
    about="Every sampler's order, and the distance of its results from a distribution that a closed-form model knows.",
    takes="15 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS, "order_steps": ORDER_STEPS},
    tables={part: lambda data, family=family: table(data, family) for family, part in FAMILIES.items()},
)
