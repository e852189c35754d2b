"""Samplers as schedulers: what a step costs, and what abandoned runs leave.

Overhead: microseconds for each network call that a loop over the scheduler takes longer than the sampler itself, given
a network that costs nothing; the smallest of many rounds, by turns, on one core. There and back: from the pipeline to
the sampler and to the pipeline again, nothing else; also while another thread of the program computes in Python. Each
with greenlets, as it is done, and with threads. Left: memory after 1000 runs that were begun and never ended.
"""

from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

SAMPLERS, SIDES = ("euler", "dpmpp_2m", "heun"), (8, 128)
WAYS, BESIDE = ("greenlet", "thread"), ("alone", "another thread busy")
OVERHEADS = ("its own", "overhead, greenlet", "overhead, thread", "diffusers' Euler loop")


def cells() -> list[Row]:
    steps = [{"of": "step", "sampler": sampler, "side": side} for sampler in SAMPLERS for side in SIDES]
    switches = [{"of": "switch", "beside": beside, "way": way} for beside in BESIDE for way in WAYS]
    return [*steps, *switches, *({"of": "left", "threads": threads} for threads in (False, True))]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from benchmarks import suspended_runs

    torch.set_num_threads(1)
    for cell in cells:
        if cell["of"] == "step":
            values = suspended_runs.overheads(cell["sampler"], cell["side"])
            yield cell | {name: round(value) for name, value in zip(OVERHEADS, values, strict=True)}
        elif cell["of"] == "switch":
            found = suspended_runs.there_and_back(cell["way"], cell["beside"] == BESIDE[1])
            yield cell | {"microseconds": round(found, 1)}
        else:
            yield cell | {"MiB": round(suspended_runs.leak(cell["threads"]))}


def steps_table(data: Data) -> str:
    rows = []
    for row in select(data, of="step"):
        latents = f"4 x {row['side']} x {row['side']}"
        rows.append([f"{row['sampler']}, {latents}", *(str(row[name]) for name in OVERHEADS)])
    return markdown_table(["microseconds a call", *OVERHEADS], rows)


def overhead(data: Data) -> str:
    """Microseconds of a call that a scheduler costs, from the least to the largest."""
    found = [row["overhead, greenlet"] for row in select(data, of="step")]
    return f"{min(found)} to {max(found)}"


def switches_table(data: Data) -> str:
    rows = []
    for beside in BESIDE:
        found = [select(data, of="switch", beside=beside, way=way)[0] for way in WAYS]
        rows.append([beside, *(f"{row['microseconds']:.0f}" for row in found)])
    return markdown_table(["there and back, microseconds", *WAYS], rows)


def left(data: Data) -> str:
    own, threads = (select(data, of="left", threads=threads)[0]["MiB"] for threads in (False, True))
    return f"1000 runs that are begun and abandoned leave {own} MiB of memory, 1000 in threads that end {threads} MiB."


BENCHMARK = Benchmark(
    name="suspended",
    about="What a step of a sampler costs as a scheduler, and what abandoned runs leave.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    alone=True,
    tables={"steps": steps_table, "overhead": overhead, "switches": switches_table, "left": left},
)
