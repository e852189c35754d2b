"""How near our pictures are to ComfyUI's, and what each of its differences from diffusers changes: docs/reproduce.md.

    python benchmarks/comfyui_agreement.py path/to/ComfyUI [folder of packages that it needs]
    python benchmarks/comfyui_agreement.py --draw     the table and the figure again, from docs/comfyui-agreement.json

All numbers are |a - b| / |a| of the final latents of the demo models, a ComfyUI's.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from comfyui_goldens import GRIDS  # noqa: E402
from comfyui_side import ROOT, Cell, ComfyUI, apart  # noqa: E402
from figure_style import fill_page, machine, markdown_table, pyplot, save  # noqa: E402

from k_diffusing._files import write_whole  # noqa: E402
from k_diffusing.programs.comfyui import COMFYUI  # noqa: E402
from k_diffusing.programs.records import DIFFUSERS, Program  # noqa: E402
from k_diffusing.samplers.records import SAMPLERS  # noqa: E402

DATA, PAGE = ROOT / "docs" / "comfyui-agreement.json", ROOT / "docs" / "reproduce.md"
FIGURE = ROOT / "docs" / "images" / "comfyui-differences.png"
STEPS, SEED, CFGS = 12, 0, {"sdxl": 5.0, "flux": 2.0}
FAR = 1e-4  # cells farther apart are compared with ComfyUI's own rounding errors


class Difference(NamedTuple):
    """Something in which ComfyUI differs from diffusers, and the runs in which it can be seen.

    without: ComfyUI's record, but for this. changes: to the call in its place.
    """

    name: str
    without: Program = COMFYUI
    samplers: tuple[str, ...] = ("euler", "dpmpp_2m", "dpmpp_2m_sde")
    models: tuple[str, ...] = ("sdxl", "flux")
    grids: tuple[str, ...] = ("karras", "sgm_uniform")
    cfgs: tuple[float, ...] = (2.0,)


def _without(*names: str) -> Program:
    """ComfyUI's record with fields of diffusers' in it."""
    return replace(COMFYUI, **{name: getattr(DIFFUSERS, name) for name in names})


_AS_NAMED = _without("sampler", "options", "flow_levels")
_ON_FLOW = ("dpmpp_2m", "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde")
DIFFERENCES = (
    Difference("noise of the steps", replace(COMFYUI, noise="cpu"), ("euler_ancestral", "dpmpp_2m_sde")),
    Difference("sigmas in double precision", _without("noise_schedule"), models=("sdxl",)),
    Difference("whole timesteps", _without("quantize"), models=("sdxl",)),
    Difference("10,000 levels, shift 1.15", _without("flow_schedule"), models=("flux",)),
    Difference("a sigma dropped", _without("drops_penultimate"), ("dpm_2", "dpm_2_ancestral")),
    Difference("lms' last step", _AS_NAMED, ("lms",)),
    Difference("range of dpm_fast and dpm_adaptive", _AS_NAMED, ("dpm_fast", "dpm_adaptive")),
    Difference("samplers on the latents", _AS_NAMED, _ON_FLOW, models=("flux",)),
    Difference("first time of SDE samplers", _without("options"), ("dpmpp_sde", "dpmpp_2m_sde"), models=("flux",)),
    Difference("negative prompt at cfg below 1", _without("guides"), cfgs=(0.5,)),
)


def agreement(theirs: ComfyUI, model: str, sampler: str) -> dict:
    """The farthest cell of a sampler, and how far ComfyUI is from itself in the worst of those that are far."""
    worst, floor = 0.0, 0.0
    for cell in (Cell(model, sampler, grid, STEPS, SEED, CFGS[model]) for grid in GRIDS):
        found = apart(theirs.latents(cell), theirs.ours.latents(cell))
        worst = max(worst, found)
        if found > FAR:
            floor = max(floor, theirs.floor(cell))
    return {"model": model, "sampler": sampler, "largest": worst, "floor": floor}


def effect(theirs: ComfyUI, difference: Difference, model: str) -> dict:
    """How far apart the programs are, at most and at least of all samplers and grids, with one difference left."""
    found = []
    for sampler in difference.samplers:
        for grid in difference.grids:
            for cfg in difference.cfgs:
                cell = Cell(model, sampler, grid, STEPS, cfg=cfg)
                found.append(apart(theirs.latents(cell), theirs.ours.latents(cell, program=difference.without)))
    return {
        "difference": difference.name,
        "model": model,
        "largest": max(found),
        "median": sorted(found)[len(found) // 2],
    }


def measured(comfyui: Path, packages: Path | None) -> dict:
    """All of docs/comfyui-agreement.json."""
    theirs = ComfyUI(comfyui, packages)
    effects = _told(effect(theirs, one, model) for one in DIFFERENCES for model in one.models)
    samplers = _told(agreement(theirs, model, sampler) for model in CFGS for sampler in SAMPLERS)
    return {"ComfyUI": theirs.version, "machine": machine(), "samplers": samplers, "effects": effects}


def _told(rows: Iterable[dict]) -> list[dict]:
    kept = []
    for row in rows:
        print(row, flush=True)
        kept.append(row)
    return kept


def table(data: dict) -> str:
    """A sampler a line."""
    largest = {(row["sampler"], row["model"]): _number(row) for row in data["samplers"]}
    return markdown_table(
        ["", "SDXL", "FLUX"], [[name, *(largest[name, model] for model in CFGS)] for name in SAMPLERS]
    )


def _number(row: dict) -> str:
    own = f" (ComfyUI itself: {row['floor']:.0e})" if row["floor"] else ""
    return f"{row['largest']:.0e}{own}"


def _brief(value: float) -> str:
    """One digit of a number."""
    return f"{float(f'{value:.1g}'):g}"


def effects_table(data: dict) -> str:
    """A difference a line: at most, and the median run."""
    found = {
        (row["difference"], row["model"]): f"{_brief(row['largest'])} ({_brief(row['median'])})"
        for row in data["effects"]
    }
    rows = [[one.name, *(found.get((one.name, model), "none") for model in CFGS)] for one in DIFFERENCES]
    return markdown_table(["", "SDXL", "FLUX"], rows)


def draw(data: dict, place: Callable = save) -> None:
    """A bar for each difference, from the median run to the farthest."""
    plot = pyplot()
    figure, axes = plot.subplots(figsize=(9, 4.2), layout="constrained")
    for i, one in enumerate(reversed(DIFFERENCES)):
        for shift, model, colour in ((0.18, "sdxl", "#0072b2"), (-0.18, "flux", "#d55e00")):
            rows = [row for row in data["effects"] if (row["difference"], row["model"]) == (one.name, model)]
            for row in rows:
                axes.plot([row["median"], row["largest"]], [i + shift] * 2, color=colour, lw=5, solid_capstyle="butt")
                axes.plot(row["largest"], i + shift, "o", color=colour, ms=5)
    for model, colour in (("SDXL", "#0072b2"), ("FLUX", "#d55e00")):
        axes.plot([], [], "o-", color=colour, lw=5, label=model)
    worst = max(row["largest"] for row in data["samplers"] if not row["floor"])
    axes.axvline(worst, color="#777777", ls="--", lw=1, label='program="comfyui", all of them taken care of')
    axes.set_yticks(range(len(DIFFERENCES)), [one.name for one in reversed(DIFFERENCES)])
    axes.set(xscale="log", xlabel="|a - b| / |a| of the final latents with this one left: median run, farthest run")
    axes.legend(loc="upper left", fontsize=8)
    place(figure, FIGURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, nargs="?", help="its folder")
    parser.add_argument("packages", type=Path, nargs="?", help="the folder of packages that it needs")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    args = parser.parse_args()
    if not args.draw:
        write_whole(DATA, f"{json.dumps(measured(args.comfyui, args.packages), indent=1)}\n".encode())
    data = json.loads(DATA.read_text(encoding="utf-8"))
    draw(data)
    fill_page(PAGE, {"comfyui-agreement": table(data), "comfyui-differences": effects_table(data)})


if __name__ == "__main__":
    main()
