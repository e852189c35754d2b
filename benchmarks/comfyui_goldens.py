"""What ComfyUI makes of the demo models, in a few figures: tests/programs/golden/comfyui.json.

    python benchmarks/comfyui_goldens.py path/to/ComfyUI [folder of packages that it needs]

For each cell the mean, the standard deviation and four elements of the final latents; for each grid all noise levels
and what the network is told. Cells in which a rounding error grows beyond STEADY are left out: on another machine they
would be other pictures, with either program.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from comfyui_side import ROOT, Cell, ComfyUI, apart  # noqa: E402

from k_diffusing._files import write_whole  # noqa: E402
from k_diffusing._versions import package_versions  # noqa: E402
from k_diffusing.names.samplers import SAMPLER_NAMES  # noqa: E402
from k_diffusing.samplers.records import ALL_SAMPLERS, SAMPLERS  # noqa: E402

FILE = ROOT / "tests" / "programs" / "golden" / "comfyui.json"
GRIDS = (
    "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "linear_quadratic",
    "kl_optimal",
)  # fmt: skip
STEADY = 5e-5


def cells() -> list[Cell]:
    """A spread: every sampler on every grid of one of the two models, and what else can be set."""
    found = []
    sizes = itertools.cycle([(8, 8), (6, 10), (12, 8)])
    for (i, sampler), (j, grid) in itertools.product(enumerate(SAMPLERS), enumerate(GRIDS)):
        height, width = next(sizes)
        more = {"steps": (4, 3, 6, 5)[(i + j) % 4], "seed": 1 + 10 * i + j, "height": height, "width": width}
        if (i + j) % 2:
            found.append(Cell("flux", sampler, grid, cfg=(1.0, 2.0)[j % 2], **more))
        else:
            found.append(Cell("sdxl", sampler, grid, cfg=(5.0, 1.0)[j // 2 % 2], **more))
    listed = [name for name, row in SAMPLER_NAMES.items() if row.comfyui]
    others = [name for name in listed if name in ALL_SAMPLERS and name not in SAMPLERS]
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


def figures(latents) -> dict:
    """What is kept of latents."""
    flat, n = latents.flatten(), latents.numel()
    places = (0, n // 3, 2 * n // 3, n - 1)
    return {"mean": float(flat.mean()), "std": float(flat.std()), "elements": [float(flat[place]) for place in places]}


def grids(theirs: ComfyUI) -> list[dict]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="its folder")
    parser.add_argument("packages", type=Path, nargs="?", help="the folder of packages that it needs")
    args = parser.parse_args()
    theirs, kept = ComfyUI(args.comfyui, args.packages), []
    for cell in cells():
        latents, floor = theirs.latents(cell), theirs.floor(cell)
        apart_by = apart(latents, theirs.ours.latents(cell))
        print(f"{cell.settings()}  floor {floor:.0e}  ours {apart_by:.0e}", flush=True)
        if floor < STEADY:
            kept.append(cell.settings() | figures(latents))
    made = {
        "made by": "python benchmarks/comfyui_goldens.py path/to/ComfyUI", "ComfyUI": theirs.version,
        **package_versions("torch", "torchsde"), "dtype": "float32",
    }  # fmt: skip
    lists = {"cells": kept, "grids": grids(theirs)}
    text = json.dumps(made | dict.fromkeys(lists, []), indent=1)
    for name, rows in lists.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        text = text.replace(f'"{name}": []', f'"{name}": [\n{lines}\n]')
    FILE.parent.mkdir(exist_ok=True)
    write_whole(FILE, f"{text}\n".encode())


if __name__ == "__main__":
    main()
