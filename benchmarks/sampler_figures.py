"""What is measured of the samplers on closed-form models: docs/samplers.json, and the tables of docs/samplers.md.

python benchmarks/sampler_figures.py            measures what the JSON lacks, and writes the tables anew
python benchmarks/sampler_figures.py res_3m     measures these anew

- order: the slope of the error of the probability-flow ODE from 80 to 160 steps, with the options without noise;
- w1: the Wasserstein-1 distance of the results to the mixture that the model knows, at STEPS steps; on a karras grid
  for SDXL's model, on its own for FLUX's. Exact samples are at 0.007, with the one seed here at 0.003 to 0.014.
A table stands between the lines `<!-- FAMILY -->` and `<!-- end -->`.
"""

import json
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl  # noqa: E402
from k_diffusing.oracle.mixture import wasserstein  # noqa: E402
from k_diffusing.oracle.order import ode_error, slope  # noqa: E402
from samplers_patch import ALL_SAMPLERS  # noqa: E402

DATA, PAGE = ROOT / "docs" / "samplers.json", ROOT / "docs" / "samplers.md"
STEPS, ORDER_STEPS = (15, 30, 100), (80, 160)
# The sections of the page that have a table.
FAMILIES = ("k_diffusion", "multistep", "singlestep", "Runge-Kutta", "ER-SDE", "ancestral", "restart", "few steps")
HEAD = ["", "evaluations a step", "order", "measured", *(f"SDXL, {n}" for n in STEPS), *(f"FLUX, {n}" for n in STEPS)]


def names(family: str) -> list[str]:
    """The samplers of a family."""
    return [name for name, record in ALL_SAMPLERS.items() if record.family == family]


def measure(name: str) -> dict:
    """The figures of one sampler."""
    record = ALL_SAMPLERS[name]
    pipes = {"sdxl": (oracle_sdxl(), "karras"), "flux": (oracle_flux(), None)}
    w1 = {
        model: [round(wasserstein(draw(pipe, name, steps=n, sigma_grid=grid)), 4) for n in STEPS]
        for model, (pipe, grid) in pipes.items()
    }
    return {"order": measured_order(record), "w1": w1}


def measured_order(record) -> float | None:
    """None where the sampler takes its own steps, or always adds noise."""
    if record.takes != "sigmas" or (record.stochastic and record.noiseless is None):
        return None
    options = dict(record.noiseless or {}) if record.stochastic else {}
    errors = tuple(ode_error(record.name, n, options) for n in ORDER_STEPS)
    return round(slope(errors, ORDER_STEPS), 2)


def table(data: dict, family: str) -> str:
    """The table of a family, in Markdown."""
    rows = [HEAD, ["---"] * len(HEAD)]
    for name in names(family):
        record, found = ALL_SAMPLERS[name], data[name]
        order = "" if found["order"] is None else f"{found['order']:.2f}"
        distances = [f"{w1:.3f}" for model in ("sdxl", "flux") for w1 in found["w1"][model]]
        rows.append([name, str(record.nfe_per_step or "varies"), str(record.order), order, *distances])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_tables(page: str, data: dict) -> str:
    """The page with its tables anew."""
    return re.sub(
        "(<!-- (.+?) -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table(data, m[2])}\n{m[3]}", page, flags=re.S
    )


def main() -> None:
    torch.set_num_threads(1)
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.is_file() else {}
    for name in (name for family in FAMILIES for name in names(family)):
        if name not in data or name in sys.argv[1:]:
            data[name] = measure(name)
    DATA.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main()
