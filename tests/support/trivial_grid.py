"""A render script without a model, for tests of the grid engine: a picture is one colour, a start takes 0.3 s.

    python tests/support/trivial_grid.py --output FOLDER --seeds 0 1 2 3

Of the environment: LOG names a file that gets a line for each cell rendered. KILL_AT=n: SIGKILL at the n-th line of
the engine's modules that runs; KILL_AT=loaded:n counts from where the first cell is begun. FILE_LIMIT=n: no file may
grow beyond n bytes, as on a full disk.
"""

import os
import resource
import signal
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from k_diffusing.render import engine  # noqa: E402
from k_diffusing.render import options as grid_options  # noqa: E402
from k_diffusing.render.cells import Cell, Solver  # noqa: E402
from k_diffusing.render.launch import say_line  # noqa: E402
from k_diffusing.render.work import Rendered, Work  # noqa: E402

ENGINE = {str(ROOT / "k_diffusing" / "_files.py"), *map(str, (ROOT / "k_diffusing" / "render").glob("*.py"))}
SOLVERS = [Solver("euler"), Solver("heun", 2), Solver("dpmpp_sde", 2, has_eta=True), Solver("dpmpp_2m")]
DEFAULTS = {
    "model": __file__,
    "prompt": "a prompt",
    "steps": 4,
    "guidance_scale": 5.0,
    "dtype": "float32",
    "device": "cpu",
}


def check(args) -> list[Solver]:
    return [solver for solver in SOLVERS if not args.samplers or solver.name in args.samplers]


def colour(cell: Cell) -> tuple[int, int, int]:
    return cell.seed % 256, 10 * cell.steps % 256, 50 * len(cell.sampler) % 256


def load(args):
    if os.environ.get("KILL_AT", "").startswith("loaded:"):
        kill_at(int(os.environ["KILL_AT"].removeprefix("loaded:")))
    return render


def render(cell: Cell) -> Rendered:
    if "LOG" in os.environ:
        with open(os.environ["LOG"], "a") as log:
            log.write(f"{cell.sampler} {cell.steps} {cell.seed}\n")
    return Rendered(Image.new("RGB", (16, 16), colour(cell)), cell.steps, seconds=0.5)


def side_by_side(render, size: int):
    """What renders so many cells at a time, from a function that renders one."""

    def render_cells(cells, at_once):
        cells = iter(cells)
        while batch := list(islice(cells, min(size, at_once))):
            for cell in batch:
                try:
                    yield cell, render(cell)
                except Exception as error:
                    yield cell, error

    return render_cells


def one_by_one(args):
    return side_by_side(load(args), 1)


def arguments(argv: list[str] | None):
    return grid_options.parse(grid_options.options(__doc__), argv, DEFAULTS, DEFAULTS)


def main(argv: list[str] | None = None, check=check, load=load) -> int:
    work = Work("sdxl", "python trivial_grid.py", check, lambda args: side_by_side(load(args), args.batch_size))
    return engine.run(work, arguments(argv), say_line)


def kill_at(count: int) -> None:
    """SIGKILL this process when it has run so many lines of the engine."""
    left = [count]

    def trace(frame, event, _):
        if frame.f_code.co_filename not in ENGINE:
            return None
        left[0] -= event == "line"
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    caller = sys._getframe(1)
    while caller is not None:  # functions that run already
        caller.f_trace = trace if caller.f_code.co_filename in ENGINE else None
        caller = caller.f_back


if __name__ == "__main__":
    if "FILE_LIMIT" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_LIMIT"]), resource.RLIM_INFINITY))
    if os.environ.get("KILL_AT", "").isdigit():
        kill_at(int(os.environ["KILL_AT"]))
    code = main()
    if "torch" in sys.modules and "WORLD_SIZE" not in os.environ:
        sys.exit("torch was imported")
    sys.exit(code)
