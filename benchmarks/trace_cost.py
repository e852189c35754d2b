"""What a trace costs: time of a traced call over that of a plain one, on the demo models.

28 steps of euler at 128 x 128, one thread; plain and traced calls take turns, and the medians are compared.
"""

import statistics
import time
from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.demos import demo_pipeline
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

TURNS, STEPS = 15, 28
TITLES = {"demo": "SDXL demo", "demo-flux": "FLUX demo"}
KINDS = ("plain", "statistics", "tensors")


def cells() -> list[Row]:
    return [{"model": model} for model in TITLES]


def measure(cells: list[Row]) -> Iterable[Row]:
    for cell in cells:
        yield cell | medians(cell["model"])


def medians(model: str) -> Row:
    """Seconds of a plain call, and the others' over them."""
    from k_diffusing.models import DEMOS
    from k_diffusing.trace.record import Trace

    pipe, call = demo_pipeline(model), DEMOS[model].keywords
    makes = {"plain": lambda: None, "statistics": Trace, "tensors": lambda: Trace(tensors=True)}
    seconds(pipe, call, None)
    times = {kind: [] for kind in KINDS}
    for _ in range(TURNS):
        for kind in KINDS:
            times[kind].append(seconds(pipe, call, makes[kind]()))
    found = {kind: statistics.median(times[kind]) for kind in KINDS}
    return {kind: round(found[kind] / (1 if kind == "plain" else found["plain"]), 3) for kind in KINDS}


def seconds(pipe, call: dict, trace) -> float:
    import torch

    start = time.thread_time()
    pipe(**call, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0), trace=trace)
    return time.thread_time() - start


def table(data: Data) -> str:
    rows = []
    for model, title in TITLES.items():
        [row] = select(data, model=model)
        rows.append([title, f"{row['plain']:.2f}", *(f"{row[kind]:.3f}" for kind in KINDS[1:])])
    return markdown_table(["", "seconds of a call", "with a trace, times as long", "with `tensors=True`"], rows)


BENCHMARK = Benchmark(
    name="trace_cost",
    about="The time of a traced call over that of a plain one.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    settings={"turns": TURNS, "steps": STEPS},
    models=("demo", "demo-flux"),
    alone=True,
    tables={"table": table},
)
