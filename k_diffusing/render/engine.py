"""Runs a grid: what is asked against what is there, then the missing cells, then sheets and page.

Whatever ends a run, the same command goes on where it stopped. Nothing heavy is imported here: what needs torch is
behind the functions of a `Work`.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from itertools import chain, islice
from typing import Any

from PIL import Image

from k_diffusing._files import png
from k_diffusing._messages import one_line
from k_diffusing.render.cells import Cell, told_of
from k_diffusing.render.claims import Share
from k_diffusing.render.errors import BadInput, FolderError, on_disk
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.grid import Grid, note_weights, prepare
from k_diffusing.render.launch import Ranks, ctrl_c, progress
from k_diffusing.render.published import OUTPUT, as_published, levels_apart
from k_diffusing.render.report import first_sheet, outdated, write_report
from k_diffusing.render.texts import PARAMETERS, cell_text, programs
from k_diffusing.render.work import Rendered, Work


def run(work: Work, args: argparse.Namespace, say: Callable) -> int:
    """Render what is missing of a grid.

    Args:
        work: What the script puts in.
        args: The command line, as `options.parse` gives it.
        say: Is told what comes of it, as print is.

    Returns:
        The exit code: 0, 1 (a sampler or the disk failed), 2 (bad input) or 130 (Ctrl-C).
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


def nothing_left(grid: Grid, args: argparse.Namespace, say: Callable) -> int:
    """Say so; write the sheets and the page if a run ended before it did."""
    folder = grid.folder
    with on_disk(folder.path):
        if folder.unsettled() or outdated(grid):
            with folder.claims.locked():
                if folder.settle() and outdated(grid):
                    write_report(grid, args)
    say_nothing_left(grid, say)
    return 0


def say_nothing_left(grid: Grid, say: Callable) -> None:
    """Say where the pictures are, and how to render them again."""
    folder = grid.folder
    say(
        f"nothing left to do: {len(grid.cells)} pictures in {folder.path}, see {first_sheet(grid)} "
        f"(to render them again, delete {folder.manifest_path})"
    )


def render_missing(work: Work, args: argparse.Namespace, grid: Grid, main: bool, say: Callable) -> int:
    """Render what is not finished, beside whoever else does; the last one at work writes sheets and page."""
    with on_disk(grid.folder.path):
        finished, share = grid.folder.join()
    try:
        done = told_of(grid.cells, finished)
        todo = {file: cell for file, cell in grid.cells.items() if file not in done}
        failed, stopped = render_share(work, args, grid, todo, share, main, say)
    except BaseException:
        with on_disk(grid.folder.path):
            share.leave()
        raise
    with on_disk(grid.folder.path):
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

    def claim() -> Cell | None:
        with on_disk(grid.folder.path):
            claimed = share.claim(lambda taken: list(islice((file for file in todo if file not in taken), 1)))
        return todo[claimed[0]] if claimed else None

    if not (cell := claim()):
        return 0, False
    render, files, failed = work.load(args), {cell: file for file, cell in todo.items()}, 0
    note_weights(grid.folder, args)
    at_once = -(-len(todo) // Ranks.of_environment().world)  # the processes of a launch begin together
    with ctrl_c() as stop, progress(len(todo), main, say) as (say_above, show):
        free = chain([cell], iter(lambda: None if stop.is_set() else claim(), None))
        with contextlib.closing(render(free, at_once)) as rendered:
            for cell, outcome in rendered:
                conclude(outcome, cell, files[cell], grid, args, say_above)
                if isinstance(outcome, Exception):
                    failed += 1
                else:
                    share.finished.add(files[cell])
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


def conclude(outcome: Rendered | Exception, cell: Cell, file: str, grid: Grid, args, say: Callable) -> None:
    """Record a cell that is over, or say why it failed."""
    if isinstance(outcome, Exception):
        say(f"{grid.label(file)} failed: {one_line(outcome)}", file=sys.stderr)
        return
    line, text = result(cell, outcome), cell_text(args, grid.axes, cell, outcome)
    with on_disk(grid.folder.path):
        told = record(grid.folder, file, outcome.picture, text, line)
    say(f"{grid.label(file)} {line['seconds']:6.2f} s {outcome.evaluations:4d} evaluations  {told}")


def record(folder: RunFolder, file: str, picture: Image.Image, text: dict[str, str], line: dict[str, Any]) -> str:
    """A finished cell; where its picture is, and how it compares with what is published there, if anything is.

    A published file stays, if the render is that picture again.
    """
    made_with = {"evaluations", PARAMETERS, *programs()}
    path, settings = folder.path / file, {name: text[name] for name in text.keys() - made_with}
    levels = levels_apart(path, picture, settings)
    line = line if levels is None else line | {"levels_from_published": levels}
    same = as_published(line)
    folder.record(file, path.read_bytes() if same else png(picture, text), line)
    if levels is None:
        return str(path)
    by = f" to {levels} of 255" if levels else ""
    return f"{path}, as published{by}" if same else f"{path}, differs from the published picture by {levels} of 255"


def result(cell: Cell, rendered: Rendered) -> dict[str, Any]:
    """A line of the results."""
    line = cell._asdict() | {"evaluations": rendered.evaluations, "seconds": round(rendered.seconds, 4)}
    if rendered.network_seconds is not None:
        line["network_seconds"] = round(rendered.network_seconds, 4)
    if rendered.peak_memory is not None:
        line["peak_memory"] = round(rendered.peak_memory, 1)
    if rendered.adherence:
        line["adherence"] = rendered.adherence
    return line
