"""Guidance by step on the demo models: captions kept to, by number of steps, and the rows of the network they took.

euler on SDXL's scheduler's grid and on FLUX's, the captions and seeds of adherence.py. A row is a call of the network
for one image with one prompt.
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.demos import ALL, CAPTIONS, SEED, UNDISTILLED, demo_pipeline, kept, network_of, runs
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

STEPS = (6, 12, 24)
CFG_PP, CFG_PP_FAR = '`guidance={"cfg++": 0.6}`', '`guidance={"cfg++": 0.6, "reference_steps": 24}`'
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "`guidance=3`": {"guidance": 3},
        "`guidance=3`, `guidance_interval=(0.2, 0.8)`": {"guidance": 3, "guidance_interval": (0.2, 0.8)},
        '`guidance={"weight": 3, "rescale": 0.7}`': {"guidance": {"weight": 3, "rescale": 0.7}},
        CFG_PP: {"guidance": {"cfg++": 0.6}},
        CFG_PP_FAR: {"guidance": {"cfg++": 0.6, "reference_steps": 24}},
    },
    "demo-flux": {
        "`guidance=2`": {"guidance": 2},
        "`guidance_scale=3.5`, distilled": {"guidance_scale": 3.5},
        "`guidance=2`, `guidance_interval=(0.2, 0.8)`": {"guidance": 2, "guidance_interval": (0.2, 0.8)},
        CFG_PP: {"guidance": {"cfg++": 0.6}},
        CFG_PP_FAR: {"guidance": {"cfg++": 0.6, "reference_steps": 24}},
        '`comfy_sampler="rectified_cfg_pp"`, `guidance=1`': {"guidance": 1, "comfy_sampler": "rectified_cfg_pp"},
    },
}
TITLES = {"demo": "SDXL demo", "demo-flux": "FLUX demo"}


def cells() -> list[Row]:
    return [
        {"model": model, "guidance": choice, "steps": steps}
        for model, choices in CHOICES.items()
        for choice in choices
        for steps in STEPS
    ]


def measure(cells: list[Row]) -> Iterable[Row]:
    from k_diffusing.models import DEMOS

    pipes = {model: demo_pipeline(model) for model in {cell["model"] for cell in cells}}
    for cell in cells:
        choice = {"comfy_sampler": "euler", **UNDISTILLED, **CHOICES[cell["model"]][cell["guidance"]]}
        call = DEMOS[cell["model"]].call | choice | {"num_inference_steps": cell["steps"]}
        yield cell | captions_kept(pipes[cell["model"]], call)


def captions_kept(pipe, call: dict[str, Any]) -> Row:
    """The captions kept to in all four words, and the rows that an image took."""
    rows = []

    def see(_, args, kwargs):
        rows.append(len(args[0] if args else kwargs["hidden_states"]))

    hook = network_of(pipe).register_forward_pre_hook(see, with_kwargs=True)
    try:
        right = sum(kept(scenes, pictures)[ALL] for scenes, pictures in runs(pipe, call, CAPTIONS))
    finally:
        hook.remove()
    return {"right": right, "rows": sum(rows) / CAPTIONS}


def table(data: Data, model: str) -> str:
    """A choice a line: captions right in all four words, and in brackets the rows."""
    rows = []
    for choice in CHOICES[model]:
        found = [select(data, model=model, guidance=choice, steps=steps)[0] for steps in STEPS]
        rows.append([choice, *(f"{row['right']} ({row['rows']:g})" for row in found)])
    return markdown_table([f"{TITLES[model]}, euler", *(f"{steps} steps" for steps in STEPS)], rows)


def right(data: Data, model: str, choice: str, steps: int) -> int:
    return select(data, model=model, guidance=choice, steps=steps)[0]["right"]


def few_steps(data: Data, model: str) -> str:
    """What CFG++ keeps with the fewest steps, without and with reference steps, beside a constant weight."""
    found = [right(data, model, choice, STEPS[0]) for choice in (CFG_PP, CFG_PP_FAR, [*CHOICES[model]][0])]
    return "{} captions, with `reference_steps` {}, and a constant weight {}".format(*found)


def beside(data: Data, model: str, place: int) -> str:
    """What a choice keeps with the most steps, and what a constant weight does."""
    constant, other = [*CHOICES[model]][0], [*CHOICES[model]][place]
    found = [right(data, model, choice, STEPS[-1]) for choice in (other, constant)]
    return f"{found[0]} captions with {STEPS[-1]} steps, where a constant weight keeps {found[1]}"


BENCHMARK = Benchmark(
    name="guidance",
    about="Captions kept to by each kind of guidance, and the rows of the network that it takes.",
    takes="20 minutes",
    cells=cells,
    measure=measure,
    settings={"captions": CAPTIONS, "seed": SEED},
    models=("demo", "demo-flux"),
    tables={
        "sdxl": lambda data: table(data, "demo"),
        "flux": lambda data: table(data, "demo-flux"),
        "few-sdxl": lambda data: few_steps(data, "demo"),
        "few-flux": lambda data: few_steps(data, "demo-flux"),
        "interval": lambda data: beside(data, "demo", 1),
        "rectified": lambda data: beside(data, "demo-flux", -1),
    },
)
