"""How near our pictures are to ComfyUI's, and what each of its differences from diffusers changes.

All numbers are |a - b| / |a| of the final latents of the demo models, a ComfyUI's. Of k_diffusion's samplers the
farthest of nine grids is kept, and where that is far, how far ComfyUI is from itself when its initial noise is changed
by a rounding error; of all other samplers the farthest of two grids.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.data import select
from benchmarks.pages import markdown_table, power
from benchmarks.record import Benchmark, Data, Row
from benchmarks.style import BLUE, GREY, RED, WIDTH, pyplot
from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.samplers.facts import ALL_FACTS, FACTS

STEPS, SEED, CFGS = 12, 0, {"sdxl": 3.0, "flux": 2.0}
FAR = 1e-4  # cells farther apart are compared with ComfyUI's own rounding errors
TITLES = {"sdxl": ("SDXL", BLUE), "flux": ("FLUX", RED)}
GRIDS = (
    "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "linear_quadratic",
    "kl_optimal",
)  # fmt: skip
OTHER_GRIDS = {"sdxl": ("karras", "simple"), "flux": ("simple", "beta")}
OTHERS = [name for name, row in SAMPLER_NAMES.items() if row.comfyui and name in ALL_FACTS and name not in FACTS]


class Difference(NamedTuple):
    """Something in which ComfyUI differs from diffusers, and the runs in which it can be seen.

    instead: what ComfyUI's record has instead; of a field without a value, what diffusers' has.
    """

    name: str
    instead: dict[str, Any]
    samplers: tuple[str, ...] = ("euler", "dpmpp_2m", "dpmpp_2m_sde")
    models: tuple[str, ...] = ("sdxl", "flux")
    grids: tuple[str, ...] = ("karras", "sgm_uniform")
    cfgs: tuple[float, ...] = (2.0,)


def _diffusers(*fields: str) -> dict[str, Any]:
    return dict.fromkeys(fields)


_AS_NAMED = _diffusers("sampler", "options", "flow_levels")
_ON_FLOW = ("dpmpp_2m", "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde")
DIFFERENCES = (
    Difference("noise of the steps", {"noise": "cpu"}, ("euler_ancestral", "dpmpp_2m_sde")),
    Difference("sigmas in double precision", _diffusers("noise_schedule"), models=("sdxl",)),
    Difference("whole timesteps", _diffusers("quantize"), models=("sdxl",)),
    Difference("10,000 levels, shift 1.15", _diffusers("flow_schedule"), models=("flux",)),
    Difference("a sigma dropped", _diffusers("drops_penultimate"), ("dpm_2", "dpm_2_ancestral")),
    Difference("lms' last step", _AS_NAMED, ("lms",)),
    Difference("range of dpm_fast and dpm_adaptive", _AS_NAMED, ("dpm_fast", "dpm_adaptive")),
    Difference("samplers on the latents", _AS_NAMED, _ON_FLOW, models=("flux",)),
    Difference("first time of SDE samplers", _diffusers("options"), ("dpmpp_sde", "dpmpp_2m_sde"), models=("flux",)),
    Difference("negative prompt at cfg below 1", _diffusers("guides"), cfgs=(0.5,)),
)


def cells() -> list[Row]:
    effects = [{"difference": one.name, "model": model} for one in DIFFERENCES for model in one.models]
    return [*effects, *({"sampler": sampler, "model": model} for model in CFGS for sampler in (*FACTS, *OTHERS))]


def measure(cells: list[Row]) -> Iterable[Row]:
    from benchmarks.comfyui_side import comfyui

    theirs, differences = comfyui(), {one.name: one for one in DIFFERENCES}
    for cell in cells:
        if "difference" in cell:
            yield cell | effect(theirs, differences[cell["difference"]], cell["model"])
        else:
            yield cell | agreement(theirs, cell["model"], cell["sampler"])


def agreement(theirs, model: str, sampler: str) -> Row:
    """The farthest cell of a sampler, and how far ComfyUI is from itself in the worst of those that are far."""
    from benchmarks.comfyui_side import Cell, apart

    cfg = 1.0 if model == "sdxl" and ALL_FACTS[sampler].get("uses_uncond") else CFGS[model]
    worst, floor = 0.0, 0.0
    for grid in GRIDS if sampler in FACTS else OTHER_GRIDS[model]:
        cell = Cell(model, sampler, grid, STEPS, SEED, cfg)
        found = apart(theirs.latents(cell), theirs.ours.latents(cell))
        worst = max(worst, found)
        if found > FAR:
            floor = max(floor, theirs.floor(cell))
    return {"largest": worst, "floor": floor}


def effect(theirs, difference: Difference, model: str) -> Row:
    """How far apart the programs are, at most and in the median run, with one difference left."""
    from dataclasses import replace

    from benchmarks.comfyui_side import Cell, apart
    from k_diffusing.programs.comfyui import COMFYUI
    from k_diffusing.programs.records import DIFFUSERS

    values = {name: getattr(DIFFUSERS, name) if value is None else value for name, value in difference.instead.items()}
    without, found = replace(COMFYUI, **values), []
    for sampler in difference.samplers:
        for grid in difference.grids:
            for cfg in difference.cfgs:
                cell = Cell(model, sampler, grid, STEPS, cfg=cfg)
                found.append(apart(theirs.latents(cell), theirs.ours.latents(cell, program=without)))
    return {"largest": max(found), "median": sorted(found)[len(found) // 2]}


# What is shown.


def samplers_table(data: Data, samplers: Iterable[str]) -> str:
    """A sampler a line."""
    found = {(row["sampler"], row["model"]): told(row) for row in data["rows"] if "sampler" in row}
    return markdown_table(["", "SDXL", "FLUX"], [[name, *(found[name, model] for model in CFGS)] for name in samplers])


def told(row: Row) -> str:
    own = f" (ComfyUI itself: {power(row['floor'])})" if row["floor"] else ""
    return power(row["largest"]) + own


def effects_table(data: Data) -> str:
    """A difference a line: at most, and the median run."""
    rows = []
    for one in DIFFERENCES:
        found = [select(data, difference=one.name, model=model) for model in CFGS]
        texts = [f"{_brief(row[0]['largest'])} ({_brief(row[0]['median'])})" if row else "none" for row in found]
        rows.append([one.name, *texts])
    return markdown_table(["", "SDXL", "FLUX"], rows)


def largest(data: Data) -> float:
    """Of k_diffusion's samplers, where no rounding error of ComfyUI's own grows."""
    return max(row["largest"] for row in data["rows"] if row.get("sampler") in FACTS and not row["floor"])


def _brief(value: float) -> str:
    """One digit of a number."""
    return f"{float(f'{value:.1g}'):g}"


def figure(data: Data):
    """A bar for each difference, from the median run to the farthest."""
    drawn, axes = pyplot().subplots(figsize=(WIDTH, 4.2), layout="constrained")
    for i, one in enumerate(reversed(DIFFERENCES)):
        for shift, (model, (_, colour)) in zip((0.18, -0.18), TITLES.items(), strict=True):
            for row in select(data, difference=one.name, model=model):
                axes.plot([row["median"], row["largest"]], [i + shift] * 2, color=colour, lw=5, solid_capstyle="butt")
                axes.plot(row["largest"], i + shift, "o", color=colour, ms=5)
    for title, colour in TITLES.values():
        axes.plot([], [], "o-", color=colour, lw=5, label=title)
    axes.axvline(largest(data), color=GREY, ls="--", lw=1, label='program="comfyui", all of them taken care of')
    axes.set_yticks(range(len(DIFFERENCES)), [one.name for one in reversed(DIFFERENCES)])
    axes.set(xscale="log", xlabel="|a - b| / |a| of the final latents with this one left: median run, farthest run")
    axes.legend(loc="upper left", fontsize=8)
    return drawn


BENCHMARK = Benchmark(
    name="comfyui_agreement",
    about="How near our pictures are to ComfyUI's own, and what each of its differences from diffusers changes.",
    takes="6 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS, "seed": SEED, "cfg": CFGS},
    models=("demo", "demo-flux"),
    needs=("COMFYUI",),
    tables={
        "samplers": lambda data: samplers_table(data, FACTS),
        "others": lambda data: samplers_table(data, OTHERS),
        "differences": effects_table,
        "largest": lambda data: power(largest(data)),
    },
    pictures={"comfyui-differences.png": figure},
)
