"""How far each sampler's results are from the distribution that the model knows, in every coordinate and form.

In place of the networks stand closed-form models of a two-Gaussian mixture; the pipelines are the real ones. W1 is the
Wasserstein-1 distance of the latents to the mixture. FLUX: the older way, with the velocity in place of the denoised
latents; the right denoiser in flow coordinates; the right denoiser in VE coordinates; in bold, the coordinates that
"auto" chooses. SDXL: epsilon prediction on the "leading" grid and on Karras'.
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row
from k_diffusing.samplers.facts import FACTS

STEPS, SEED, SIDE = 30, 0, 128  # side: of the latents, of 4 channels
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "FLUX, velocity": ("flux", {"flow_coordinates": "velocity"}),
    "FLUX, flow": ("flux", {"flow_coordinates": "flow"}),
    "FLUX, VE": ("flux", {"flow_coordinates": "ve"}),
    "SDXL, leading": ("sdxl", {"sigma_grid": None}),
    "SDXL, karras": ("sdxl", {"sigma_grid": "karras"}),
}
EXACT = "exact samples"


def cells() -> list[Row]:
    return [*({"sampler": name, "case": case} for name in FACTS for case in COLUMNS), {"sampler": EXACT, "case": EXACT}]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch
    from diffusers.utils import logging

    from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
    from k_diffusing.oracle.mixture import exact_samples, wasserstein

    torch.set_num_threads(1)
    logging.set_verbosity_error()  # its hint at dpmpp_3m_sde's grid
    pipes = {"flux": oracle_flux(), "sdxl": oracle_sdxl()}
    for cell in cells:
        if cell["sampler"] == EXACT:
            samples = exact_samples(4 * SIDE**2, SEED)
        else:
            family, settings = COLUMNS[cell["case"]]
            samples = draw(pipes[family], cell["sampler"], steps=STEPS, seed=SEED, side=SIDE, **settings)
        yield cell | {"w1": round(wasserstein(samples), 4)}


def w1(data: Data, sampler: str, case: str) -> str:
    return f"{select(data, sampler=sampler, case=case)[0]['w1']:.3f}"


def chosen(sampler: str) -> str:
    """The column of the coordinates that "auto" chooses, where no option makes a sampler add noise."""
    facts = FACTS[sampler]
    return "FLUX, flow" if facts.get("derivative_only") and not facts["stochastic"] else "FLUX, VE"


def table(data: Data) -> str:
    """A sampler a line; in bold the coordinates that "auto" chooses."""
    rows = []
    for name in FACTS:
        values = {case: w1(data, name, case) for case in COLUMNS}
        rows.append([name, *(f"**{value}**" if case == chosen(name) else value for case, value in values.items())])
    return markdown_table(["sampler", *COLUMNS], rows)


BENCHMARK = Benchmark(
    name="w1",
    about="The distance of each sampler's results from a closed-form model's distribution, in all coordinates of FLUX.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS, "seed": SEED, "side": SIDE},
    tables={"table": table, "exact": lambda data: w1(data, EXACT, EXACT)},
)
