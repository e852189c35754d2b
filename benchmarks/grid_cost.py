"""What a picture grid costs with its network calls joined.

The grids of `make samples`, 13 samplers at 28 steps, on the demo models: rendered side by side with the scripts'
`--batch-size`, over one at a time (`--batch-size 1`); FLUX's also over one at a time by true CFG, two calls for each
evaluation, in place of its guidance embedding; and milliseconds of a row in a call of the bare network, by the rows of
the call. docs/grid_cost.md says more.
"""

import functools
from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

FAMILIES, THREADS, ROWS = ("sdxl", "flux"), (1, 2), (1, 2, 4, 8, 13, 26)
TRUE_CFG = ("--guidance-scale", "1", "--true-cfg-scale", "2")


def cells() -> list[Row]:
    found = []
    for threads in THREADS:
        found += [{"of": "grid", "threads": threads, "family": family} for family in FAMILIES]
        found.append({"of": "true CFG", "threads": threads, "family": "flux"})
    for threads in THREADS:
        found += [{"of": "row", "threads": threads, "rows": n, "family": family} for n in ROWS for family in FAMILIES]
    return found


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from benchmarks.grid_cost_runs import SCRIPTS, Grid, row_milliseconds

    grid = functools.cache(lambda family, *argv: Grid(SCRIPTS[family], *argv))
    for cell in cells:
        loaded = grid(cell["family"])
        torch.set_num_threads(cell["threads"])
        if cell["of"] == "grid":
            yield cell | loaded.ratios()
        elif cell["of"] == "true CFG":
            yield cell | loaded.ratios(grid(cell["family"], *TRUE_CFG))
        else:
            yield cell | {"milliseconds": round(row_milliseconds(loaded, cell["rows"]), 2)}


def told(row: Row) -> str:
    return f"{row['median']:.2f} ({row['least']:.2f} to {row['largest']:.2f})"


def table(data: Data) -> str:
    """SDXL beside FLUX."""
    lines = []
    for threads in THREADS:
        found = [select(data, of="grid", threads=threads, family=family)[0] for family in FAMILIES]
        lines.append([f"side by side over one at a time, threads: {threads}", *map(told, found)])
        [paired] = select(data, of="true CFG", threads=threads)
        lines.append([f"over one at a time by true CFG, threads: {threads}", "", told(paired)])
        if threads > 1:
            lines.append(["the least times of both", *(f"{row['best']:.2f}" for row in found)])
    for threads in THREADS:
        for n in ROWS:
            found = [select(data, of="row", threads=threads, rows=n, family=family)[0] for family in FAMILIES]
            times = [f"{row['milliseconds']:.1f}" for row in found]
            lines.append([f"ms of a row, rows: {n}, threads: {threads}", *times])
    return markdown_table(["", "SDXL", "FLUX"], lines)


def ratio(data: Data, family: str, of: str = "grid", threads: int = 1) -> str:
    """Side by side over one at a time."""
    return f"{select(data, of=of, threads=threads, family=family)[0]['median']:.2f}"


def rows_of_flux(data: Data, threads: int, most: int = 13) -> str:
    """9.0 ms alone and 5.1 in calls of 13, which is 0.57."""
    of = {"of": "row", "threads": threads, "family": "flux"}
    alone, joined = (select(data, rows=n, **of)[0]["milliseconds"] for n in (1, most))
    return f"{alone:.1f} ms alone and {joined:.1f} in calls of {most}, which is {joined / alone:.2f}"


BENCHMARK = Benchmark(
    name="grid_cost",
    about="The time of a picture grid with its network calls joined, over that of one picture after the other.",
    takes="10 minutes",
    cells=cells,
    measure=measure,
    models=("demo", "demo-flux"),
    alone=True,
    tables={
        "table": table,
        "sdxl": lambda data: ratio(data, "sdxl"),
        "flux": lambda data: ratio(data, "flux"),
        "true-cfg": lambda data: ratio(data, "flux", "true CFG"),
        "true-cfg-two": lambda data: ratio(data, "flux", "true CFG", threads=2),
        "rows": lambda data: rows_of_flux(data, 1),
        "rows-two": lambda data: rows_of_flux(data, 2),
    },
)
