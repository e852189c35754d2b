"""Runs a grid: what is asked against what is there, then the missing cells, then sheets and page.

Whatever ends a run, the same command goes on where it stopped. Nothing heavy is imported here: what needs torch is
behind the functions of a `Work`.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from contact_sheet import png
from grid_cells import Axes, Cell, Solver, batches, named_cells
from grid_options import BadInput, asked, axes, plain_command
from grid_report import png_text, programs, sheets, write_page, write_sheets
from published import OUTPUT, as_published, levels_apart
from run_folder import RunFolder, differences, digest, model_identity


class Rendered(NamedTuple):
    """A batch: its pictures, the network evaluations that each took, seconds of the batch and of its network calls,
    MiB at most, and of each picture which of its caption's words it kept (None: no such caption)."""

    pictures: list[Image.Image]
    evaluations: int
    seconds: float
    network_seconds: float | None = None
    peak_memory: float | None = None
    adherence: list[dict[str, bool] | None] | None = None


Render = Callable[[list[Cell]], Rendered]


class Work(NamedTuple):
    """What a render script puts in. family begins its files' names; program is its own name.

    check(args): the samplers asked for, or BadInput, before any model is loaded. load(args, prompts): the model with
    these prompts encoded, as a function that renders a batch of cells of one recipe.
    """

    family: str
    program: str
    check: Callable[[argparse.Namespace], list[Solver]]
    load: Callable[[argparse.Namespace, list[str]], Render]


class FolderError(Exception):
    """The disk refused a file."""


class Grid(NamedTuple):
    """A grid about to be run: its cells by file, the files of those that are finished, the width of a cell's name."""

    folder: RunFolder
    axes: Axes
    cells: dict[str, Cell]
    done: set[str]
    width: int

    def label(self, file: str) -> str:
        """A cell's name in the lines that tell of it."""
        return file.removeprefix(f"{self.folder.family}-").removesuffix(".png").ljust(self.width)

    @property
    def complete(self) -> bool:
        return self.done >= self.cells.keys()


class Ranks(NamedTuple):
    """Which of the processes of one launch this is. They share a folder, and meet once, before the first picture."""

    rank: int
    world: int

    @classmethod
    def of_environment(cls) -> "Ranks":
        world = int(os.environ.get("WORLD_SIZE", 1))
        return cls(int(os.environ.get("RANK", 0)) if world > 1 else 0, world)

    def meet(self) -> None:
        """Wait until all have read what is done, so that none takes a new cell for an old one."""
        if self.world == 1:
            return
        from accelerate import PartialState

        state = PartialState(cpu=True)  # gloo: nothing but this meeting goes through it, and no rank waits for a GPU
        state.wait_for_everyone()
        state.destroy_process_group()


def run(work: Work, args: argparse.Namespace, say: Callable) -> int:
    """Render what is missing; `say` (as print) what came of it.

    Exit code: 0, 1 (a sampler or the disk failed), 2 (bad input), 130 (Ctrl-C).
    """
    ranks, grid = Ranks.of_environment(), None
    tell = say if ranks.rank == 0 else lambda *_, **__: None
    try:
        grid = prepare(work, args, tell)
        if grid.complete:
            return nothing_left(grid, args, tell)
        ranks.meet()
        tell = say  # from here on each process has its own troubles
        return render_missing(work, args, grid, ranks, say)
    except BadInput as error:
        tell(f"error: {error}", file=sys.stderr)
        return 2
    except FolderError as error:
        tell(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        where = grid.folder.path if grid else args.output or OUTPUT
        tell(f"interrupted: the pictures rendered so far are in {where}; the same command goes on", file=sys.stderr)
        return 130


@contextlib.contextmanager
def on_disk(folder: RunFolder) -> Iterator[None]:
    """Turn an OSError into the one line that tells of it."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{folder.path} cannot be written ({error.strerror or error}): everything so far is intact, "
            "and the same command goes on from here"
        ) from error


def prepare(work: Work, args: argparse.Namespace, say: Callable) -> Grid:
    """The grid that is asked for, in its folder. Raises BadInput, FolderError.

    What is asked for is compared with the folder's manifest before anything is imported to look at it.
    """
    wanted = asked(args)
    folder, there, unlike = choose_folder(work.family, args, wanted, say)
    if there and not unlike:
        grid = grid_in(folder, axes(args, [Solver(*facts) for facts in there["solvers"]]))
        if grid.complete:
            return grid
    solvers = work.check(args)
    facts = [list(solver) for solver in solvers]
    if there and not unlike:
        unlike = differences({"samplers": there["solvers"]}, {"samplers": facts})
    if unlike:
        raise another_grid(folder, unlike)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {folder.path} cannot be made ({error.strerror}): give another folder") from error
    with on_disk(folder):
        folder.begin({**wanted, "solvers": facts, "command": plain_command(work.program, args)})
    return grid_in(folder, axes(args, solvers))


def choose_folder(
    family: str, args: argparse.Namespace, wanted: dict, say: Callable
) -> tuple[RunFolder, dict | None, list[str]]:
    """The folder of the grid, the manifest there, and in what that differs from what is asked for; another folder than
    `output` if that holds another grid."""
    folder = RunFolder(args.output or OUTPUT, family)
    there, unlike = held(folder, wanted)
    if args.output is not None or not unlike:
        return folder, there, unlike
    folder = folder._replace(path=OUTPUT / f"{family}-{digest(wanted | {'model': steady(wanted['model'])})}")
    say(f"{OUTPUT} holds another grid ({unlike[0]}): this one goes to {folder.path}")
    return folder, *held(folder, wanted)


def held(folder: RunFolder, wanted: dict[str, Any]) -> tuple[dict | None, list[str]]:
    """The manifest of a folder, and in what it differs from what is asked for."""
    there = manifest_of(folder)
    return there, compared(there, wanted) if there else []


def another_grid(folder: RunFolder, unlike: list[str]) -> BadInput:
    lines = "".join(f"\n  {line}" for line in unlike)
    return BadInput(f"--output {folder.path} holds another grid: give another folder{lines}")


def manifest_of(folder: RunFolder) -> dict[str, Any] | None:
    try:
        return folder.manifest()
    except (OSError, ValueError) as error:
        raise BadInput(error) from error


def compared(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In what a manifest differs from what is asked for; weights that are not here yet are not compared."""
    there = {name: there.get(name) for name in wanted}
    if None in (there["model"]["fingerprint"], wanted["model"]["fingerprint"]):
        there["model"] = wanted["model"] | {"name": there["model"]["name"]}
    return differences(there, wanted)


def steady(model: dict[str, str | None]) -> dict[str, str | None]:
    """A model's identity as far as it is the same before and after a download."""
    return model if model["revision"] is None and model["fingerprint"] else {"name": model["name"]}


def grid_in(folder: RunFolder, axes: Axes) -> Grid:
    cells = named_cells(folder.family, axes)
    width = max(map(len, cells)) - len(f"{folder.family}-.png")
    return Grid(folder, axes, cells, cells.keys() & folder.finished(), max(26, width))


def nothing_left(grid: Grid, args: argparse.Namespace, say: Callable) -> int:
    """Say so; write the sheets and the page if a run ended before it did."""
    folder = grid.folder
    first = folder.path / next(sheets(folder.family, grid.axes)).file
    with on_disk(folder):
        if any(folder.part(file).exists() for file in grid.cells):
            folder.repair()
        page, lines = folder.path / "index.html", folder.results_path.stat().st_mtime_ns
        if any(not file.exists() or file.stat().st_mtime_ns < lines for file in (first, page)):
            write_report(grid, args)
    say(
        f"nothing left to do: {len(grid.cells)} pictures in {folder.path}, all of them: {first} "
        f"(to render them again, delete {folder.manifest_path})"
    )
    return 0


def write_report(grid: Grid, args: argparse.Namespace) -> list[Path]:
    """The contact sheets, and the page of all grids in the folder."""
    with grid.folder.reporting():
        written = write_sheets(grid.folder, args, grid.axes)
        if written:
            try:
                write_page(grid.folder.path)
            except ValueError as error:  # the manifest of another family
                raise BadInput(error) from error
    return written


def render_missing(work: Work, args: argparse.Namespace, grid: Grid, ranks: Ranks, say: Callable) -> int:
    """This process's share of the cells that are not finished, then sheets and page of what there is."""
    todo = [(file, cell) for file, cell in grid.cells.items() if file not in grid.done]
    alone = [solver.name for solver in grid.axes.solvers if solver.alone]
    mine = batches(todo, args.batch_size, alone)[ranks.rank :: ranks.world]
    failed, stopped = 0, False
    if mine:
        render = work.load(args, list(dict.fromkeys(cell.prompt for batch in mine for _, cell in batch)))
        note_weights(grid.folder, args)
        with ctrl_c() as stop, progress(sum(map(len, mine)), ranks.rank == 0, say) as (say_above, advance):
            for batch in mine:
                failed += render_batch(render, batch, grid, args, say_above)
                advance(len(batch))
                if stopped := stop.is_set():
                    break
    with on_disk(grid.folder):
        written = write_report(grid, args)
    if ranks.rank == 0 and written:
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        say(f"all of them: {written[0]}{more}, {grid.folder.path / 'index.html'}")
        compared = [line for line in grid.folder.pictures().values() if "levels_from_published" in line]
        if compared:
            say(f"{sum(map(as_published, compared))} of {len(compared)} pictures as published")
    if stopped:
        raise KeyboardInterrupt
    return int(failed > 0)


def note_weights(folder: RunFolder, args: argparse.Namespace) -> None:
    """Complete the manifest with what only loading could tell: the commit of weights from the hub."""
    there, model = manifest_of(folder), model_identity(args.model)
    if there["model"]["fingerprint"] is None and model["fingerprint"]:
        with on_disk(folder):
            folder.write_manifest(there | {"model": model})
    elif unlike := compared({"model": there["model"]}, {"model": model}):
        raise another_grid(folder, unlike[:1])


def render_batch(render: Render, batch: list[tuple[str, Cell]], grid: Grid, args, say: Callable) -> int:
    """Render and record the cells of a batch; of one that fails, each alone. The number of cells that failed."""
    try:
        rendered = render([cell for _, cell in batch])
    except Exception as error:  # whatever went wrong with this one, the others can be rendered
        if len(batch) > 1:
            return sum(render_batch(render, [one], grid, args, say) for one in batch)
        say(f"{grid.label(batch[0][0])} failed: {one_line(error)}", file=sys.stderr)
        return 1
    for i, (file, cell) in enumerate(batch):
        line, text = result(cell, rendered, i, len(batch)), cell_text(args, grid.axes, cell, rendered)
        with on_disk(grid.folder):
            told = record(grid.folder, file, rendered.pictures[i], text, line)
        say(f"{grid.label(file)} {line['seconds']:6.2f} s {rendered.evaluations:4d} evaluations  {told}")
    return 0


def record(folder: RunFolder, file: str, picture: Image.Image, text: dict[str, str], line: dict[str, Any]) -> str:
    """A finished cell; where its picture is, and how it compares with what is published there, if anything is.

    A published file stays, if the render is that picture again.
    """
    path, settings = folder.path / file, {name: text[name] for name in text.keys() - {"evaluations", *programs()}}
    levels = levels_apart(path, picture, settings)
    line = line if levels is None else line | {"levels_from_published": levels}
    same = as_published(line)
    folder.record(file, path.read_bytes() if same else png(picture, text), line)
    if levels is None:
        return str(path)
    by = f" to {levels} of 255" if levels else ""
    return f"{path}, as published{by}" if same else f"{path}, differs from the published picture by {levels} of 255"


def cell_text(args: argparse.Namespace, axes: Axes, cell: Cell, rendered: Rendered) -> dict[str, str]:
    """What a picture says of itself."""
    eta = {} if cell.eta is None else {"eta": cell.eta}
    made = {"sampler": f"sample_{cell.sampler}", "sigma_grid": cell.sigma_grid, **eta}
    return png_text(args, axes, cell._asdict(), **made, evaluations=rendered.evaluations)


def result(cell: Cell, rendered: Rendered, i: int, images: int) -> dict[str, Any]:
    """A line of the results, for image i of a batch; times are the batch's, divided by its size."""
    line = cell._asdict() | {"evaluations": rendered.evaluations, "seconds": round(rendered.seconds / images, 4)}
    if rendered.network_seconds is not None:
        line["network_seconds"] = round(rendered.network_seconds / images, 4)
    if rendered.peak_memory is not None:
        line["peak_memory"] = round(rendered.peak_memory, 1)
    if rendered.adherence and rendered.adherence[i]:
        line["adherence"] = rendered.adherence[i]
    return line


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second raises KeyboardInterrupt. In the main thread alone."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(*_) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\ninterrupted: the picture at work is finished first; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def progress(cells: int, main: bool, say: Callable) -> Iterator[tuple[Callable, Callable]]:
    """A bar on a terminal's stderr with the time left: how to say a line above it, and how to move it on."""
    if not main or not sys.stderr.isatty():
        yield say, lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=cells, unit="picture", dynamic_ncols=True) as bar:

        def say_above(line: str, file=None) -> None:
            with tqdm.external_write_mode(file=file or sys.stdout):
                say(line, file=file or sys.stdout)

        yield say_above, bar.update


def say_line(line: str, file=None) -> None:
    """As print, in one write: the lines of several processes stay whole."""
    stream = file or sys.stdout
    stream.write(f"{line}\n")
    stream.flush()


def one_line(error: BaseException) -> str:
    """The type and the first line of the message, 200 characters at most."""
    line = f"{type(error).__name__}: {error}".split("\n")[0]
    return line if len(line) <= 200 else f"{line[:197]}..."
