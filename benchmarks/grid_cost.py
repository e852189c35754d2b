"""What a picture grid costs with its network calls joined: docs/grid_cost.md is made by `make bench`.

The grids of `make samples`, 13 samplers at 28 steps, on the demo models: rendered side by side with the scripts'
`--batch-size`, over one at a time (`--batch-size 1`). Loading is left out; the VAE, the text encoders and the host's
work are in. The two take turns; each figure is the median of the ratios of neighbours, with the least and the largest.
On one thread the time is that of the processor, of which other programs take nothing; on two, other programs at work on
the machine make the ratio larger, as threads wait for each other.

Below, milliseconds of a row in a call of the bare network, by the rows of the call: the least of several.
"""

import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import figure_style  # noqa: E402

import test  # noqa: E402
import test_flux  # noqa: E402
from k_diffusing.render import cells as grid_cells  # noqa: E402
from k_diffusing.render import checks, options, pipelines, rendering  # noqa: E402
from k_diffusing.render.calls import OF_ALL_ROWS  # noqa: E402

TURNS = 3
ROWS = (1, 2, 4, 8, 13, 26)
SCRIPTS = {"SDXL": test, "FLUX": test_flux}


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

    def ratios(self) -> str:
        """Side by side over one at a time: the median, the least and the largest."""
        ratios = []
        for turn in range(TURNS):
            order = (1, self.rows) if turn % 2 else (self.rows, 1)
            times = {rows: self.seconds(rows) for rows in order}
            ratios.append(times[self.rows] / times[1])
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def row_milliseconds(grid: Grid) -> dict[int, float]:
    """Of a row, by the rows of a call of the network: a call of the grid's own, its rows repeated."""
    network, kept = getattr(grid.pipe, grid.script.network), []
    hook = network.register_forward_pre_hook(lambda _, *given: kept.append(given), with_kwargs=True)
    try:
        next(rendering.renderer(grid.script, grid.args, grid.pipe)(iter(grid.cells), 1))
    finally:
        hook.remove()
    args, kwargs = kept[0]
    found = {}
    for rows in ROWS:
        call = [repeated(list(args), rows), repeated(kwargs, rows)]
        times = []
        for _ in range(7):
            start = clock()
            with torch.no_grad():
                network(*call[0], **call[1])
            times.append(clock() - start)
        found[rows] = 1000 * min(times) / rows
    return found


def repeated(value, rows: int, name: str = ""):
    """The first row of each tensor so many times."""
    if isinstance(value, dict):
        return {key: repeated(each, rows, key) for key, each in value.items()}
    if isinstance(value, list):
        return [repeated(each, rows) for each in value]
    whole = not isinstance(value, torch.Tensor) or name in OF_ALL_ROWS
    return value if whole else value[:1].repeat(rows, *[1] * (value.ndim - 1))


def main() -> None:
    machine = figure_style.machine().replace(", one thread used", "")
    print(f"# What a grid costs\n\nMade by `make bench`. {machine}.\n")
    print("\n".join(__doc__.split("\n")[2:]))
    grids = [Grid(module) for module in SCRIPTS.values()]
    print("| | SDXL | FLUX |\n| --- | ---: | ---: |")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = [grid.ratios() for grid in grids]
        print(f"| side by side over one at a time, threads: {threads} | {' | '.join(found)} |", flush=True)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = [row_milliseconds(grid) for grid in grids]
        for rows in ROWS:
            print(
                f"| ms of a row, rows: {rows}, threads: {threads} | {' | '.join(f'{of[rows]:.1f}' for of in found)} |"
            )


if __name__ == "__main__":
    main()
