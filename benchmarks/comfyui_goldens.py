"""What ComfyUI makes of the demo models, in a few figures, which the tests hold our runs to.

For each cell the mean, the standard deviation and four elements of the final latents; for each grid all noise levels
and what the network is told. Cells in which a rounding error grows beyond STEADY are left out: on another machine they
would be other pictures, with either program.
"""

import itertools
import json
from collections.abc import Iterable

from benchmarks.comfyui_agreement import GRIDS
from benchmarks.data import ROOT, made
from benchmarks.record import Benchmark, Data, Row
from k_diffusing._files import write_whole
from k_diffusing._versions import package_versions
from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.samplers.facts import ALL_FACTS, FACTS

FILE = "tests/programs/golden/comfyui.json"
STEADY = 5e-5


def runs() -> list:
    """A spread: every sampler on every grid of one of the two models, and what else can be set."""
    from benchmarks.comfyui_side import Cell

    found = []
    sizes = itertools.cycle([(8, 8), (6, 10), (12, 8)])
    for (i, sampler), (j, grid) in itertools.product(enumerate(FACTS), enumerate(GRIDS)):
        height, width = next(sizes)
        more = {"steps": (4, 3, 6, 5)[(i + j) % 4], "seed": 1 + 10 * i + j, "height": height, "width": width}
        if (i + j) % 2:
            found.append(Cell("flux", sampler, grid, cfg=(1.0, 2.0)[j % 2], **more))
        else:
            found.append(Cell("sdxl", sampler, grid, cfg=(5.0, 1.0)[j // 2 % 2], **more))
    listed = [name for name, row in SAMPLER_NAMES.items() if row.comfyui]
    others = [name for name in listed if name in ALL_FACTS and name not in FACTS]
    found += [Cell(model, name, "simple", 5, 3, 2.0) for name in others for model in ("sdxl", "flux")]
    found += [Cell("sdxl", "euler", "normal", steps, 2, 3.0) for steps in (1, 2, 7, 13, 20)]
    found += [Cell("flux", "dpmpp_2m_sde", "simple", steps, 2) for steps in (1, 2, 7, 12)]
    found += [Cell("sdxl", "dpm_2", "sgm_uniform", 6, seed, 1.0) for seed in (0, 2**32 + 1, 2**63 + 5)]
    found += [Cell("sdxl", "heun", "beta", 3, 4, cfg) for cfg in (0.0, 0.5, 1.0000001, 7.5)]
    found += [Cell("flux", "heun", "beta", 3, 4, cfg) for cfg in (0.7, 3.5)]
    found += [Cell("flux", "euler", "simple", 3, 5, guidance=guidance) for guidance in (0.0, 1.0, 7.0)]
    found += [Cell(model, "dpmpp_sde", "karras", 4, 6, 2.0, batch=2) for model in ("sdxl", "flux")]
    found += [Cell("sdxl", "euler_ancestral", "simple", 4, 7, 3.0, batch=3)]
    for model in ("sdxl-v", "flux-sized", "schnell"):
        for sampler, grid in (("euler", "simple"), ("dpmpp_2m_sde", "normal"), ("dpm_2_ancestral", "karras")):
            found.append(Cell(model, sampler, grid, 4, 8, 2.0, height=12, width=8))
    return found


def figures(latents) -> Row:
    """What is kept of latents."""
    flat, n = latents.flatten(), latents.numel()
    places = (0, n // 3, 2 * n // 3, n - 1)
    return {"mean": float(flat.mean()), "std": float(flat.std()), "elements": [float(flat[place]) for place in places]}


def grids(theirs) -> list[Row]:
    """All noise levels and timesteps of each grid, of a few lengths."""
    found = []
    for model, grid, (sampler, steps) in itertools.product(
        ("sdxl", "flux", "sdxl-v", "schnell"), GRIDS, (("euler", 6), ("dpm_2", 5), ("euler", 13))
    ):
        if model in ("sdxl-v", "schnell") and steps != 6:
            continue
        sigmas, told = theirs.sigmas(model, sampler, grid, steps)
        cell = {"model": model, "sampler": sampler, "grid": grid, "steps": steps}
        found.append(cell | {"sigmas": sigmas.tolist(), "timesteps": told.tolist()})
    return found


def measure(cells: list[Row]) -> Iterable[Row]:
    from benchmarks.comfyui_side import apart, comfyui

    theirs, steady = comfyui(), []
    for cell in runs():
        latents, floor = theirs.latents(cell), theirs.floor(cell)
        apart_by = apart(latents, theirs.ours.latents(cell))
        print(f"{cell.settings()}  floor {floor:.0e}  ours {apart_by:.0e}", flush=True)
        if floor < STEADY:
            steady.append(cell.settings() | figures(latents))
    write_golden(theirs.version, {"cells": steady, "grids": grids(theirs)})
    yield made(ROOT / FILE)


def write_golden(version: str, lists: dict[str, list[Row]]) -> None:
    """One row a line."""
    made_by = {"made by": "python -m benchmarks run comfyui_goldens", "ComfyUI": version}
    head = made_by | package_versions("torch", "torchsde") | {"dtype": "float32"}
    text = json.dumps(head | dict.fromkeys(lists, []), indent=1)
    for name, rows in lists.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        text = text.replace(f'"{name}": []', f'"{name}": [\n{lines}\n]')
    write_whole(ROOT / FILE, f"{text}\n".encode())


def count(_: Data) -> str:
    """How many runs the file has."""
    return str(len(json.loads((ROOT / FILE).read_text(encoding="utf-8"))["cells"]))


BENCHMARK = Benchmark(
    name="comfyui_goldens",
    about="Figures of ComfyUI's own runs of the demo models, to which tests/programs holds ours.",
    takes="3 minutes",
    cells=lambda: [{"file": FILE}],
    measure=measure,
    models=("demo", "demo-flux"),
    needs=("COMFYUI",),
    tables={"count": count},
)
