"""The grid that is asked for, in the folder that is chosen for it."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from k_diffusing.render.axes import Axes
from k_diffusing.render.cells import Cell, Solver, named_cells, told_of
from k_diffusing.render.errors import BadInput, on_disk
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.manifest import asked, compared, digest, fault_of, other_solvers
from k_diffusing.render.options import axes, plain_command
from k_diffusing.render.published import OUTPUT
from k_diffusing.render.shelf import folder_of
from k_diffusing.render.weights import model_identity, steady
from k_diffusing.render.work import Work


class Grid(NamedTuple):
    """A grid about to be run.

    Attributes:
        folder: Where it is.
        axes: The values of each axis.
        cells: Its cells by their files.
        done: The files of those that are finished.
        width: Letters of a cell's name in the lines that tell of it.
    """

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
        """Whether all cells are finished."""
        return self.done >= self.cells.keys()


def prepare(work: Work, args: argparse.Namespace, say: Callable) -> Grid:
    """The grid that is asked for, in its folder.

    What is asked for is compared with the folder's manifest before anything is imported to look at it.

    Args:
        work: What the script puts in.
        args: The command line, as `options.parse` gives it.
        say: Is told if it goes to another folder, as print is.

    Returns:
        The grid, whose folder and manifest are there.

    Raises:
        BadInput: What is asked for cannot be, or the folder holds another grid.
        FolderError: The disk refuses a file.
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
    with on_disk(folder.path):
        texts = {"sampler_texts": args.sampler_texts} if args.sampler_texts else {}
        files = {name: text for name, text in args.grid_texts.items() if name != text}
        texts |= {"grid_texts": files} if files else {}
        command = plain_command(work.program, args)
        there = folder.begin({**wanted, "solvers": facts, "command": command, **texts})
    if unlike := compared(there, wanted) or other_solvers(there, facts):  # another launch was first
        raise another_grid(folder, unlike)
    return grid_in(folder, axes(args, solvers))


def choose_folder(
    family: str, args: argparse.Namespace, wanted: dict, say: Callable
) -> tuple[RunFolder, dict | None, list[str]]:
    """The folder of the grid, the manifest there, and in what that differs from what is asked for.

    It is another folder than `output` if no folder was named and `output` holds another grid.
    """
    folder = RunFolder(args.output or OUTPUT, family)
    there, unlike = held(folder, wanted)
    if args.output is not None or not unlike:
        return folder, there, unlike
    digits = digest(wanted | {"model": steady(wanted["model"])})
    folder = folder._replace(path=folder_of(OUTPUT, family, args, digits))
    say(f"{OUTPUT} holds another grid ({unlike[0]}): this one goes to {folder.path}")
    return folder, *held(folder, wanted)


def held(folder: RunFolder, wanted: dict[str, Any]) -> tuple[dict | None, list[str]]:
    """The manifest of a folder, and in what it differs from what is asked for."""
    there = manifest_of(folder)
    return there, compared(there, wanted) if there else []


def another_grid(folder: RunFolder, unlike: list[str]) -> BadInput:
    """The error that tells in what the folder's grid differs."""
    lines = "".join(f"\n  {line}" for line in unlike)
    return BadInput(f"--output {folder.path} holds another grid: give another folder{lines}")


def manifest_of(folder: RunFolder) -> dict[str, Any] | None:
    """The manifest of a folder, None if there is none. Raises BadInput if it is none that can be compared."""
    try:
        there = folder.manifest()
    except OSError as error:
        raise BadInput(f"{folder.manifest_path} cannot be read ({error.strerror}): give another folder") from error
    except ValueError as error:
        raise BadInput(error) from error
    if there is not None and (fault := fault_of(there)):
        raise BadInput(f"{folder.manifest_path}: {fault}: put it right, or delete the file to begin anew")
    return there


def grid_in(folder: RunFolder, axes: Axes) -> Grid:
    """The grid of these axes, with what is finished of it in a folder."""
    cells = named_cells(folder.family, axes)
    width = max(map(len, cells)) - len(f"{folder.family}-.png")
    return Grid(folder, axes, cells, told_of(cells, folder.finished()), max(26, width))


def note_weights(folder: RunFolder, args: argparse.Namespace) -> None:
    """Complete the manifest with what only loading could tell: the commit of weights from the hub."""
    model = model_identity(args.model)
    with on_disk(folder.path), folder.claims.locked():
        there = manifest_of(folder)
        if there is None:  # deleted since
            return
        if there["model"]["fingerprint"] is None and model["fingerprint"]:
            folder.write_manifest(there | {"model": model})
        elif unlike := compared({"model": there["model"]}, {"model": model}):
            raise another_grid(folder, unlike[:1])
