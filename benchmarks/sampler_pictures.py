"""What every sampler draws: one sheet for each demo model, a tile for each sampler, for their cards.

CFG++ samplers have a weight of their own kind. On SDXL the grid is karras, on FLUX the model's.
"""

from collections.abc import Iterable

from benchmarks.data import made_webp
from benchmarks.demos import UNDISTILLED
from benchmarks.record import Benchmark, Row
from benchmarks.style import IMAGES
from k_diffusing.samplers.facts import ALL_FACTS

STEPS, TILE, COLUMNS, SEED = 10, 96, 9, 0
WEIGHTS = {"cfg_pp": 0.6, "rectified": 1.0}
GRIDS = {"demo": "karras", "demo-flux": None}


def cells() -> list[Row]:
    return [{"model": model} for model in GRIDS]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch
    from PIL import Image

    from k_diffusing import models

    torch.set_num_threads(1)
    models.hide_loading_bars()
    for cell in cells:
        pipe = models.load(cell["model"])
        pipe.set_progress_bar_config(disable=True)
        rows = -(-len(ALL_FACTS) // COLUMNS)
        sheet = Image.new("RGB", (TILE * COLUMNS, TILE * rows))
        for i, name in enumerate(ALL_FACTS):
            picture = drawn(pipe, name, models.DEMOS[cell["model"]].keywords, GRIDS[cell["model"]])
            sheet.paste(picture.resize((TILE, TILE)), (TILE * (i % COLUMNS), TILE * (i // COLUMNS)))
        yield cell | made_webp(IMAGES / f"samplers-{cell['model']}.webp", sheet, quality=80)


def drawn(pipe, name: str, keywords: dict, grid: str | None):
    """The picture of one sampler."""
    call = {**keywords, "comfy_sampler": name, "sigma_grid": grid, "num_inference_steps": STEPS, "seeds": SEED}
    if ALL_FACTS[name].get("family") == "CFG++":
        call |= {"guidance": WEIGHTS["rectified" if name == "rectified_cfg_pp" else "cfg_pp"], **UNDISTILLED}
    return pipe(**call).images[0]


BENCHMARK = Benchmark(
    name="sampler_pictures",
    about="What every sampler draws on both demo models: a sheet of tiles for the samplers' cards.",
    takes="5 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS, "tile": TILE, "columns": COLUMNS, "seed": SEED, **WEIGHTS, "samplers": list(ALL_FACTS)},
    models=tuple(GRIDS),
)
