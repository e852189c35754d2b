"""What every sampler draws: one sheet for each demo model, a tile for each sampler, for their cards.

CFG++ samplers have a weight of their own kind. On SDXL the grid is karras, on FLUX the model's.
"""

import io
from collections.abc import Iterable

from benchmarks.data import made
from benchmarks.record import Benchmark, Row
from benchmarks.style import IMAGES
from k_diffusing._files import write_whole
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
        sheet, content = Image.new("RGB", (TILE * COLUMNS, TILE * rows)), io.BytesIO()
        for i, name in enumerate(ALL_FACTS):
            picture = drawn(pipe, name, models.DEMOS[cell["model"]].keywords, GRIDS[cell["model"]])
            sheet.paste(picture.resize((TILE, TILE)), (TILE * (i % COLUMNS), TILE * (i // COLUMNS)))
        sheet.save(content, format="webp", quality=80, method=6)
        path = IMAGES / f"samplers-{cell['model']}.webp"
        write_whole(path, content.getvalue())
        yield cell | made(path)


def drawn(pipe, name: str, keywords: dict, grid: str | None):
    """The picture of one sampler."""
    call = {**keywords, "comfy_sampler": name, "sigma_grid": grid, "num_inference_steps": STEPS, "seeds": SEED}
    if ALL_FACTS[name].get("family") == "CFG++":
        weight = WEIGHTS["rectified" if name == "rectified_cfg_pp" else "cfg_pp"]
        call |= {"guidance": weight, "guidance_scale": 1.0}  # FLUX's distilled guidance would come on top
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
