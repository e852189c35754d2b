"""Each k_diffusion sampler beside its counterpart in diffusers, on both demo models.

|a - b| / |a| of the latents after 20 steps, float32, one seed, the noise of the one given to the other. Three cases:
both with the grid, scale and timesteps of their own scheduler ("default"); both on the same sigmas ("same"); and
k_diffusion's with `pipe.scheduler` set to the counterpart, against diffusers' own loop with it, and against
`as_sampler` ("loop").
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.demos import demo_pipeline
from benchmarks.pages import markdown_table, power
from benchmarks.record import Benchmark, Data, Row
from k_diffusing.samplers.facts import COLUMNS, FACTS, row

STEPS = 20
SDE = "DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++"
TOLERANCE = 5e-4  # as compare has it
# On SDXL, on FLUX; None: diffusers has no scheduler with this method there.
COUNTERPARTS = {
    "euler": ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", None),
    "heun": ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    "dpm_2": ("KDPM2DiscreteScheduler", None),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", None),
    "lms": ("LMSDiscreteScheduler", None),
    "dpm_fast": (None, None),
    "dpm_adaptive": (None, None),
    "dpmpp_2s_ancestral": (None, None),
    "dpmpp_sde": ("DPMSolverSDEScheduler", None),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler"),
    "dpmpp_2m_sde": (SDE, SDE),
    "dpmpp_3m_sde": (f"{SDE},solver_order=3", f"{SDE},solver_order=3"),
}
MODELS = {"demo": "karras", "demo-flux": "scheduler"}  # the sigmas that both are given


def counterpart(model: str, sampler: str) -> str | None:
    return COUNTERPARTS[sampler][[*MODELS].index(model)]


def cells() -> list[Row]:
    return [{"model": model, "sampler": name} for model in MODELS for name in FACTS if counterpart(model, name)]


def measure(cells: list[Row]) -> Iterable[Row]:
    pipes = {model: demo_pipeline(model) for model in {cell["model"] for cell in cells}}
    for cell in cells:
        yield cell | compared(pipes[cell["model"]], cell["model"], cell["sampler"])


def compared(pipe, model: str, name: str) -> Row:
    """A sampler and its counterpart, in the three cases."""
    from k_diffusing.compare.compare import compare_samplers
    from k_diffusing.models import DEMOS

    call, other = DEMOS[model].keywords, counterpart(model, name)
    pair = (f"k:{name}", f"diffusers:{other}")
    found = {
        case: verdict(compare_samplers(pipe, *pair, call, grid=grid, steps=STEPS))
        for case, grid in (("default", "own"), ("same", MODELS[model]))
    }
    return {"counterpart": other, **found, "loop": own_loop(pipe, call, name, other)}


def verdict(comparison) -> Row:
    """The largest difference; where they part, also of what, and that of the results."""
    found = comparison.difference
    if found.agree:
        return {"largest": float(f"{found.largest:.1g}")}
    return {"parts": f"step {found.first.step}, {found.first}", "result": float(f"{found.result:.1g}")}


def own_loop(pipe, call: dict, name: str, other: str | None) -> list[float] | str:
    """With the counterpart for pipe.scheduler: diffusers' own loop against k_diffusion's sampler, and as_sampler."""
    import torch

    from k_diffusing.compare.sources import find_source
    from k_diffusing.trace.difference import distance

    if FACTS[name]["noise"] == "brownian":
        return "another source of noise"
    bridge: Any = find_source(f"diffusers:{other}", pipe.scheduler).sampler
    before, pipe.scheduler = pipe.scheduler, bridge.scheduler
    options = {"num_inference_steps": STEPS, "output_type": "latent"}
    try:
        loop, *others = (
            pipe(**call, **options, comfy_sampler=sampler, generator=torch.Generator().manual_seed(0)).images
            for sampler in (None, name, bridge)
        )
    except ValueError:
        return "its loop refuses it"
    finally:
        pipe.scheduler = before
    return [float(f"{distance(loop, latents):.1g}") for latents in others]


# What is shown.


def table(data: Data, model: str) -> str:
    """A sampler a line, the three cases beside one another."""
    rows = []
    for name in FACTS:
        if not counterpart(model, name):
            rows.append([name, "none", "", "", ""])
            continue
        [found] = select(data, model=model, sampler=name)
        label = found["counterpart"].replace("Scheduler", "").replace(",", ", ")
        rows.append([name, label, told(found["default"]), told(found["same"]), loop_told(found["loop"])])
    return markdown_table(
        ["k_diffusion", "diffusers", "default settings", "same sigmas, same noise", "pipe.scheduler set to it"], rows, 5
    )


def told(found: Row) -> str:
    """A verdict in words."""
    if "largest" in found:
        return f"agree: {power(found['largest'])}"
    return f"**part** at {found['parts']}; the result differs by {power(found['result'])}"


def loop_told(found: list[float] | str) -> str:
    if isinstance(found, str):
        return found
    return " / ".join(power(value) if value <= TOLERANCE else f"**{power(value)}**" for value in found)


def samplers(data: Data) -> str:
    """Each sampler's facts, its counterparts, and what `make samples` draws with it; for a page in docs."""
    rows = []
    for name in FACTS:
        others = [same_method(data, model, name) for model in MODELS]
        pictures = [f'<img src="../output/{model}-sample_{name}.png" width="96">' for model in ("sdxl", "flux-dev")]
        rows.append([*row(name), *others, *pictures])
    head = [*COLUMNS, "diffusers' counterpart, SDXL", "FLUX", "SDXL demo", "FLUX demo"]
    return markdown_table(head, rows, left=len(head))


def same_method(data: Data, model: str, name: str) -> str:
    """The counterpart with the difference on the same sigmas; none where it follows another rule."""
    if not counterpart(model, name):
        return "none"
    [found] = select(data, model=model, sampler=name)
    kind, *options = found["counterpart"].split(",")
    label = ", ".join([kind.removesuffix("Scheduler"), *(f"`{option.split('=')[-1]}`" for option in options)])
    same = found["same"]
    return f"{label}: {power(same['largest'])}" if "largest" in same else f"none: `{options[-1]}` is another rule"


def agreement(data: Data) -> str:
    """The largest difference of any pair that agrees on the same sigmas and noise."""
    return power(max(row["same"].get("largest", 0) for row in data["rows"]))


BENCHMARK = Benchmark(
    name="parity",
    about="Each k_diffusion sampler beside its counterpart in diffusers, on both demo models.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS},
    models=("demo", "demo-flux"),
    tables={
        "sdxl": lambda data: table(data, "demo"),
        "flux": lambda data: table(data, "demo-flux"),
        "agreement": agreement,
        "samplers": samplers,
    },
)
