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
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from k_diffusing._files import png
from k_diffusing._messages import one_line
from k_diffusing.render.axes import AXES, Axes
from k_diffusing.render.cells import Cell, Solver, batches, named_cells, told_of
from k_diffusing.render.claims import Share
from k_diffusing.render.folder import RunFolder, differences, digest, model_identity
from k_diffusing.render.names import full_name
from k_diffusing.render.options import BadInput, asked, axes, fault_of, plain_command
from k_diffusing.render.published import OUTPUT, as_published, levels_apart
from k_diffusing.render.report import png_text, programs, sheets, write_page, write_sheets


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

    check(args): the samplers asked for, or BadInput, before any model is loaded. load(args): the model, as a function
    that renders a batch of cells of one recipe.
    """

    family: str
    program: str
    check: Callable[[argparse.Namespace], list[Solver]]
    load: Callable[[argparse.Namespace], Render]


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
    """Which of the processes of one launch this is: rank 0 speaks for all. They share a folder as any others do."""

    rank: int
    world: int

    @classmethod
    def of_environment(cls) -> "Ranks":
        world = int(os.environ.get("WORLD_SIZE", 1))
        return cls(int(os.environ.get("RANK", 0)) if world > 1 else 0, world)


def run(work: Work, args: argparse.Namespace, say: Callable) -> int:
    """Render what is missing; `say` (as print) what came of it.

    Exit code: 0, 1 (a sampler or the disk failed), 2 (bad input), 130 (Ctrl-C).
    """
    main, grid = Ranks.of_environment().rank == 0, None
    tell = say if main else lambda *_, **__: None
    try:
        grid = prepare(work, args, tell)
        if grid.complete:
            return nothing_left(grid, args, tell)
        tell = say  # from here on each process has its own troubles
        return render_missing(work, args, grid, main, say)
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
    try:
        wanted = asked(args)
    except OSError as error:
        raise BadInput(f"--model {args.model} cannot be read ({error.strerror}): check its path and rights") from error
    folder, there, unlike = choose_folder(work.family, args, wanted, say)
    if there and not unlike:
        grid = grid_in(folder, axes(args, [Solver(*facts) for facts in there["solvers"]]))
        if grid.complete:
            return grid
    solvers = work.check(args)
    facts = [solver.facts() for solver in solvers]
    if there and (unlike := unlike or other_solvers(there, facts)):
        raise another_grid(folder, unlike)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {folder.path} cannot be made ({error.strerror}): give another folder") from error
    with on_disk(folder):
        texts = {"sampler_texts": args.sampler_texts} if args.sampler_texts else {}
        command = plain_command(work.program, args)
        there = folder.begin({**wanted, "solvers": facts, "command": command, **texts})
    if unlike := compared(there, wanted) or other_solvers(there, facts):  # another launch was first
        raise another_grid(folder, unlike)
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
        there = folder.manifest()
    except OSError as error:
        raise BadInput(f"{folder.manifest_path} cannot be read ({error.strerror}): give another folder") from error
    except ValueError as error:
        raise BadInput(error) from error
    if there is not None and (fault := fault_of(there)):
        raise BadInput(f"{folder.manifest_path}: {fault}: put it right, or delete the file to begin anew")
    return there


def compared(there: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In what a manifest differs from what is asked for; weights that are not here yet are not compared."""
    there = {name: there.get(name) for name in wanted}
    if None in (there["model"]["fingerprint"], wanted["model"]["fingerprint"]):
        there["model"] = wanted["model"] | {"name": there["model"]["name"]}
    before, now = there.pop("sampler_files", None) or {}, wanted.get("sampler_files", {})
    lines = differences(there, {name: wanted[name] for name in there})
    return lines + [
        f"{file} was edited since: sha256 {before[file]} there, {content} here"
        for file, content in now.items()
        if before.get(file, content) != content
    ]


def other_solvers(there: dict[str, Any], facts: list[list]) -> list[str]:
    """In what a manifest's samplers differ from those that were looked up."""
    return differences({"samplers": there["solvers"]}, {"samplers": facts})


def steady(model: dict[str, str | None]) -> dict[str, str | None]:
    """A model's identity as far as it is the same before and after a download."""
    return model if model["revision"] is None and model["fingerprint"] else {"name": model["name"]}


def grid_in(folder: RunFolder, axes: Axes) -> Grid:
    cells = named_cells(folder.family, axes)
    width = max(map(len, cells)) - len(f"{folder.family}-.png")
    return Grid(folder, axes, cells, told_of(cells, folder.finished()), max(26, width))


def nothing_left(grid: Grid, args: argparse.Namespace, say: Callable) -> int:
    """Say so; write the sheets and the page if a run ended before it did."""
    folder = grid.folder
    with on_disk(folder):
        if folder.unsettled() or outdated(grid):
            with folder.claims.locked():
                if folder.settle() and outdated(grid):
                    write_report(grid, args)
    say_nothing_left(grid, say)
    return 0


def say_nothing_left(grid: Grid, say: Callable) -> None:
    folder = grid.folder
    say(
        f"nothing left to do: {len(grid.cells)} pictures in {folder.path}, see {first_sheet(grid)} "
        f"(to render them again, delete {folder.manifest_path})"
    )


def first_sheet(grid: Grid) -> Path:
    return grid.folder.path / next(sheets(grid.folder.family, grid.axes)).file


def outdated(grid: Grid) -> bool:
    """Whether a sheet or the page lacks results."""
    lines = grid.folder.results_path.stat().st_mtime_ns
    shown = (first_sheet(grid), grid.folder.path / "index.html")
    return any(not file.exists() or file.stat().st_mtime_ns < lines for file in shown)


def write_report(grid: Grid, args: argparse.Namespace) -> list[Path]:
    """The contact sheets, and the page of all grids in the folder. Called under the folder's lock."""
    written = write_sheets(grid.folder, args, grid.axes)
    if written:
        try:
            write_page(grid.folder)
        except ValueError as error:  # the manifest of another family
            raise BadInput(error) from error
    return written


def render_missing(work: Work, args: argparse.Namespace, grid: Grid, main: bool, say: Callable) -> int:
    """Render what is not finished, beside whoever else does; the last one at work writes sheets and page."""
    with on_disk(grid.folder):
        finished, share = grid.folder.join()
    try:
        done = told_of(grid.cells, finished)
        todo = {file: cell for file, cell in grid.cells.items() if file not in done}
        failed, stopped = render_share(work, args, grid, todo, share, main, say)
    except BaseException:
        with on_disk(grid.folder):
            share.leave()
        raise
    with on_disk(grid.folder):
        share.leave(last=lambda: report(grid, args, share.claimed, main, say))
    if main and share.others:
        cells = sum(map(len, share.others.values()))
        say(
            f"still at work in {grid.folder.path}: other processes ({len(share.others)}), on pictures ({cells}); "
            "the last one writes the sheets"
        )
    if stopped:
        raise KeyboardInterrupt
    return int(failed > 0)


def render_share(
    work: Work, args: argparse.Namespace, grid: Grid, todo: dict[str, Cell], share: Share, main: bool, say: Callable
) -> tuple[int, bool]:
    """Render cells until none is free, or Ctrl-C: the number of those that failed, and whether it was that."""
    size, alone, failed = args.batch_size, [solver.name for solver in grid.axes.solvers if solver.alone], 0

    def first_free(taken: set[str]) -> list[str]:
        free = islice(((file, cell) for file, cell in todo.items() if file not in taken), size)
        return [file for file, _ in next(iter(batches(free, size, alone)), [])]

    def claim() -> list[tuple[str, Cell]]:
        with on_disk(grid.folder):
            return [(file, todo[file]) for file in share.claim(first_free)]

    if not (batch := claim()):
        return 0, False
    render = work.load(args)
    note_weights(grid.folder, args)
    with ctrl_c() as stop, progress(len(todo), main, say) as (say_above, show):
        while batch:
            failed += render_batch(render, batch, grid, args, say_above)
            batch = [] if stop.is_set() else claim()
            show(len(share.finished) + failed)
    return failed, stop.is_set()


def report(grid: Grid, args: argparse.Namespace, worked: bool, main: bool, say: Callable) -> None:
    """Put the folder in order, write sheets and page of what there is, and say where they are.

    Called under the folder's lock. A process that joined too late to have worked finds them written.
    """
    grid.folder.settle()
    if not (worked or outdated(grid)):
        if main:
            say_nothing_left(grid, say)
        return
    written = write_report(grid, args)
    if written:
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        say(f"all of them: {written[0]}{more}, {grid.folder.path / 'index.html'}")
    compared = [line for line in grid.folder.pictures().values() if "levels_from_published" in line]
    if compared:
        say(f"{sum(map(as_published, compared))} of {len(compared)} pictures as published")


def note_weights(folder: RunFolder, args: argparse.Namespace) -> None:
    """Complete the manifest with what only loading could tell: the commit of weights from the hub."""
    model = model_identity(args.model)
    with on_disk(folder), folder.claims.locked():
        there = manifest_of(folder)
        if there["model"]["fingerprint"] is None and model["fingerprint"]:
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
    options = {axis.field: getattr(cell, axis.field) for axis in AXES.values() if axis.beside_sampler}
    options = {field: value for field, value in options.items() if value is not None}
    made = {"sampler": full_name(cell.sampler), **options, "evaluations": rendered.evaluations}
    return png_text(args, axes, cell._asdict(), **made)


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
    """An event that the first Ctrl-C sets; the second raises KeyboardInterrupt. In the main thread alone, and not where
    SIGINT is ignored, as under nohup, or has a handler that is not Python's."""
    stop = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
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
    """A bar on a terminal's stderr with the time left: how to say a line above it, and how to show that so many of the
    cells are done, by whomever."""
    if not main or not sys.stderr.isatty():
        yield say, lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=cells, unit="picture", dynamic_ncols=True) as bar:

        def say_above(line: str, file=None) -> None:
            with tqdm.external_write_mode(file=file or sys.stdout):
                say(line, file=file or sys.stdout)

        yield say_above, lambda done: bar.update(done - bar.n)


def say_line(line: str, file=None) -> None:
    """As print, in one write: the lines of several processes stay whole. What the stream's encoding lacks is escaped;
    where nobody reads on, as after `| head -1`, the work goes on unheard."""
    stream = file or sys.stdout
    if stream is None:  # closed before Python began
        return
    try:
        stream.write(f"{shown_in(stream.encoding or 'utf-8', line)}\n")
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())  # or Python fails to flush the line as it ends


def shown_in(encoding: str, line: str) -> str:
    """The line, with escapes for characters that the encoding lacks."""
    return line.encode(encoding, "backslashreplace").decode(encoding)
