"""The runs behind grid_cost: a script's grid, and calls of its network."""

import statistics
import time

import torch

import test
import test_flux
from k_diffusing.render import cells as grid_cells
from k_diffusing.render import checks, options, pipelines, rendering
from k_diffusing.render.calls import OF_ALL_ROWS

TURNS = 3
SCRIPTS = {"sdxl": test, "flux": test_flux}


def clock() -> float:
    """Seconds: those of the processor where one thread is at work."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Grid:
    """The default grid of a script, on a pipeline that is loaded once."""

    def __init__(self, module, *argv: str):
        self.script, self.args = module.SCRIPT, module.arguments(["--device", "cpu", *argv])
        self.cells = grid_cells.cells(options.axes(self.args, checks.check(self.script, self.args)))
        self.pipe, self.rows = pipelines.load(self.script, self.args), self.args.batch_size

    def seconds(self, rows: int) -> float:
        """Of the whole grid, with as many rows in a call."""
        self.args.batch_size = rows
        render = rendering.renderer(self.script, self.args, self.pipe)
        start = clock()
        for _, outcome in render(iter(self.cells), len(self.cells)):
            if isinstance(outcome, Exception):
                raise outcome
        return clock() - start

    def ratios(self, other: "Grid | None" = None) -> dict[str, float]:
        """Side by side over one at a time: the median, the least and the largest; "best": of the least times.

        other: what is rendered one at a time; this grid itself by default.
        """
        ratios, joined, alone = [], [], []
        for turn in range(TURNS):
            runs = [(joined, self, self.rows), (alone, other or self, 1)]
            for times, grid, rows in runs[:: -1 if turn % 2 else 1]:
                times.append(grid.seconds(rows))
            ratios.append(joined[-1] / alone[-1])
        found = {"median": statistics.median(ratios), "least": min(ratios), "largest": max(ratios)}
        found["best"] = min(joined) / min(alone)
        return {name: round(value, 3) for name, value in found.items()}


def row_milliseconds(grid: Grid, rows: int) -> float:
    """Of a row in a call of the network with so many: the first call of the grid, its rows repeated. The least of 7."""
    network, kept = getattr(grid.pipe, grid.script.network), []
    hook = network.register_forward_pre_hook(lambda _, *given: kept.append(given), with_kwargs=True)
    try:
        next(rendering.renderer(grid.script, grid.args, grid.pipe)(iter(grid.cells), 1))
    finally:
        hook.remove()
    args, kwargs = kept[0]
    call, times = (repeated(list(args), rows), repeated(kwargs, rows)), []
    for _ in range(7):
        start = clock()
        with torch.no_grad():
            network(*call[0], **call[1])
        times.append(clock() - start)
    return 1000 * min(times) / rows


def repeated(value, rows: int, name: str = ""):
    """The first row of each tensor so many times."""
    if isinstance(value, dict):
        return {key: repeated(each, rows, key) for key, each in value.items()}
    if isinstance(value, list):
        return [repeated(each, rows) for each in value]
    whole = not isinstance(value, torch.Tensor) or name in OF_ALL_ROWS
    return value if whole else value[:1].repeat(rows, *[1] * (value.ndim - 1))
