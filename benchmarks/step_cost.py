"""What a step costs outside the network, as ratios within one run.

Both pipelines at 1024 x 1024, the real classes around networks that answer at once, one thread, float32, CFG on. Times
but the grid's are those that the thread had the processor for; medians of repetitions that take turns. What each row is
says docs/step_cost.md.
"""

import functools
from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row
from k_diffusing.samplers.facts import FACTS

FAMILIES, SIDES = ("sdxl", "flux"), (1024, 128)
SDE = {"dpmpp_sde": 2, "dpmpp_2m_sde": 1, "dpmpp_3m_sde": 1}  # draws in a step
COUNTED = ("diffusers", *(name for name in FACTS if name not in ("dpm_adaptive", "dpm_fast")))
WEIGHED = ("euler", "dpmpp_2m", "dpmpp_2m_sde", "lms")


def cells() -> list[Row]:
    found = []
    for family in FAMILIES:
        found += [{"of": "time", "family": family, "side": side} for side in SIDES]
        found += [{"of": "draws", "family": family, "sampler": sampler} for sampler in SDE]
        found += [{"of": "operations", "family": family, "sampler": sampler} for sampler in COUNTED]
        found += [{"of": "memory", "family": family, "sampler": sampler} for sampler in WEIGHED]
        found += [{"of": "grid", "family": family}]
    return found


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from benchmarks import step_cost_runs as runs

    torch.set_num_threads(1)
    pipeline, memory = functools.cache(runs.pipeline), functools.cache(runs.memory)
    for cell in cells:
        family, sampler = cell["family"], cell.get("sampler", "")
        if cell["of"] == "time":
            yield cell | runs.times(pipeline(family), family, cell["side"])
        elif cell["of"] == "draws":
            yield cell | runs.draws(pipeline(family), family, sampler, SDE[sampler])
        elif cell["of"] == "operations":
            asked = None if sampler == "diffusers" else sampler
            yield cell | {"operations": runs.operations(pipeline(family), family, asked)}
        elif cell["of"] == "memory":
            yield cell | {kind: round(value, 4) for kind, value in memory(family, WEIGHED)[sampler].items()}
        else:
            yield cell | {"ratio": round(runs.grid(family), 3)}


def table(data: Data) -> str:
    """All rows, SDXL beside FLUX."""
    lines: list[list[str]] = []

    def line(label: str, key: str, form: str, **cell) -> None:
        lines.append([label, *(f"{select(data, family=family, **cell)[0][key]:{form}}" for family in FAMILIES)])

    for side in SIDES:
        at, cell = f"{side} x {side}", {"of": "time", "side": side}
        for name, told in (("diffusers", "diffusers"), ("euler", "euler"), ("first", "euler, first run on a grid")):
            line(f"{told}: microseconds a step, {at}", name, ".0f", **cell)
        line(f"euler over diffusers, {at}", "ratio", ".2f", **cell)
    for name in SDE:
        line(f"{name}: randn for each draw", "path", ".1f", of="draws", sampler=name)
        line(f"{name}: its step above euler's, in randn for each draw", "step", ".1f", of="draws", sampler=name)
        line(f"{name}, tree: randn for each draw", "tree", ".1f", of="draws", sampler=name)
    for name in COUNTED:
        line(f"operations in a step, {name}", "operations", ".0f", of="operations", sampler=name)
    for name in WEIGHED:
        line(f"memory of a call over diffusers', {name}", "all", ".4f", of="memory", sampler=name)
        line(f"the same without the weights, {name}", "without weights", ".3f", of="memory", sampler=name)
    line("time of a grid over a call for each", "ratio", ".2f", of="grid")
    return markdown_table(["", "SDXL", "FLUX"], lines)


def milliseconds(data: Data, family: str, loop: str) -> str:
    """Of a step at 1024 x 1024 in diffusers' loop or in ours."""
    return f"{select(data, of='time', family=family, side=1024)[0][loop] / 1000:.2f}"


def memory_apart(data: Data) -> str:
    """How far a call's memory is from diffusers' at most."""
    return f"{max(abs(row['all'] - 1) for row in select(data, of='memory')):.1%}".replace("%", " %")


BENCHMARK = Benchmark(
    name="step_cost",
    about="What a step of our pipelines costs outside the network, beside diffusers' own loop.",
    takes="10 minutes",
    cells=cells,
    measure=measure,
    models=("demo", "demo-flux"),
    alone=True,
    tables={
        "table": table,
        "sdxl-ours": lambda data: milliseconds(data, "sdxl", "euler"),
        "sdxl-diffusers": lambda data: milliseconds(data, "sdxl", "diffusers"),
        "flux-ours": lambda data: milliseconds(data, "flux", "euler"),
        "flux-diffusers": lambda data: milliseconds(data, "flux", "diffusers"),
        "memory": memory_apart,
        "sdxl-grid": lambda data: f"{select(data, of='grid', family='sdxl')[0]['ratio']:.2f}",
        "flux-grid": lambda data: f"{select(data, of='grid', family='flux')[0]['ratio']:.2f}",
    },
)
