"""What a grid shows of itself: its contact sheets and its page. Built from the files on disk."""

import argparse
import functools
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from k_diffusing._files import write_png, write_whole
from k_diffusing.render.axes import AXES, Axes, several, tag, title, values
from k_diffusing.render.cells import Cell, cell_of, named_cells, told_of
from k_diffusing.render.errors import BadInput
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.grid import Grid
from k_diffusing.render.manifest import fault_of
from k_diffusing.render.options import cell_command
from k_diffusing.render.published import as_published, is_published
from k_diffusing.render.sheets import contact_sheet, table_sheet
from k_diffusing.render.texts import png_text
from k_diffusing.render.weights import model_name
from k_diffusing.render.words import shown

COLUMNS = 40  # of one sheet; more go to further sheets


class Sheet(NamedTuple):
    """One contact sheet: samplers as rows.

    Attributes:
        file: Its name in the folder.
        column: The field whose values are the columns; None for a sheet without columns.
        shown: The values of that field.
        fixed: The values of the other fields that have several.
        converged: Whether the last column is the converged reference.
    """

    file: str
    column: str | None
    shown: tuple
    fixed: dict[str, Any]
    converged: bool


def sheets(family: str, axes: Axes) -> Iterator[Sheet]:
    """The sheets of a grid.

    The first field with several values makes the columns; each combination of the others is one sheet, or more where
    there are more than COLUMNS values.
    """
    fields = several(axes)
    column, others = (fields[0] if fields else None), fields[1:]
    shown = values(axes, column) if column else ()
    parts = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)] or [()]
    converged = bool(axes.reference) and column in ("steps", "budget")
    for combination in product(*(values(axes, field) for field in others)):
        fixed = dict(zip(others, combination, strict=True))
        name = "-".join([family, "samplers", *(tag(axes, field, value) for field, value in fixed.items())])
        for i, part in enumerate(parts):
            yield Sheet(name + (f"-part{i + 1}" if i else "") + ".png", column, part, fixed, converged)


def write_sheets(folder: RunFolder, args: argparse.Namespace, axes: Axes) -> list[Path]:
    """Write each sheet for which there is a picture. The published sheet of published pictures stays.

    Args:
        folder: The grid's folder.
        args: The command line, which the sheets' text tells of.
        axes: The values of each axis.

    Returns:
        The sheets' files, those that stayed among them.

    Raises:
        OSError: The disk refuses one.
    """
    done, fields = folder.pictures(), several(axes)
    named = named_cells(folder.family, axes)
    told = told_of(named, done)
    files = {key(cell, fields): file for file, cell in named.items() if file in told}
    whole = args.samplers is None and all(as_published(done.get(file, {})) for file in named)
    written = []
    for sheet in sheets(folder.family, axes):
        if whole and is_published(folder.path / sheet.file):
            (folder.path / sheet.file).touch()  # newer than the results: it shows them
            written.append(folder.path / sheet.file)
            continue
        picture = draw(folder, args, axes, sheet, functools.partial(find, files, done, fields, folder.path))
        if picture is not None:
            grid = shown(args.sigma_grid) if args.sigma_grid else None
            text = png_text(args, axes, sheet.fixed, sigma_grid=sheet.fixed.get("sigma_grid", grid))
            write_png(picture, folder.path / sheet.file, text)
            written.append(folder.path / sheet.file)
    return written


def key(cell: Cell, fields: list[str]) -> tuple:
    """What tells a cell from the others of its grid; the reference is the same for all of a sampler's fields."""
    if cell.reference:
        return (None, *(None if AXES[field].of_a_solver else getattr(cell, field) for field in fields))
    return (cell.sampler, *(getattr(cell, field) for field in fields))


def find(files: dict, done: dict, fields: list[str], folder: Path, sampler: str | None, place: dict) -> tuple | None:
    """(path, note) of the cell at these values of the fields; at any value of what the sampler has not."""
    place = {field: None if sampler is None and AXES[field].of_a_solver else place.get(field) for field in fields}
    file = files.get((sampler, *place.values())) or files.get((sampler, *(place | without(place)).values()))
    return file and (folder / file, f"{done[file]['evaluations']} nfe")


def without(place: dict) -> dict:
    """What a sampler has in a place of axes that it has not."""
    return {field: None for field in place if AXES[field].needs}


def draw(folder: RunFolder, args: argparse.Namespace, axes: Axes, sheet: Sheet, find):
    """The sheet's image; None if it would be empty."""
    names = [solver.name for solver in axes.solvers]
    heading, caption = heading_of(args, axes, sheet)
    if sheet.column is None:
        tiles = [(name, found[1], found[0]) for name in names if (found := find(name, {}))]
        return contact_sheet(tiles, heading, caption) if tiles else None
    columns = [title(sheet.column, value) for value in sheet.shown]

    def tile(i, j):
        if j == len(sheet.shown):
            return find(None, sheet.fixed)
        return find(names[i], sheet.fixed | {sheet.column: sheet.shown[j]})

    if sheet.converged:
        columns.append("converged")
    if not any(tile(i, j) for i in range(len(names)) for j in range(len(columns))):
        return None
    return table_sheet(names, columns, tile, heading, caption)


def heading_of(args: argparse.Namespace, axes: Axes, sheet: Sheet) -> tuple[str, str]:
    """The model and what is fixed in the sheet; and the prompt."""
    told = [field for field, axis in AXES.items() if axis.in_heading and len(values(axes, field)) == 1]
    fixed = {field: values(axes, field)[0] for field in told}
    fixed |= {field: value for field, value in sheet.fixed.items() if field != "prompt"}
    parts = [model_name(args.model), *(title(field, value) for field, value in fixed.items())]
    prompt = sheet.fixed.get("prompt", "" if sheet.column == "prompt" else axes.prompts[0])
    return ", ".join(parts), prompt


def first_sheet(grid: Grid) -> Path:
    """The sheet that a user is sent to."""
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


def write_page(folder: RunFolder) -> Path:
    """Write index.html with all finished cells of all families in a folder. Raises OSError, ValueError."""
    from k_diffusing.render.page import grid_page

    path, found = folder.path, []
    for manifest in sorted(filter(Path.is_file, path.glob("*-manifest.json"))):
        found += page_cells(RunFolder(path, manifest.name.removesuffix("-manifest.json")))
    models = ", ".join(dict.fromkeys(cell["axes"]["model"] for cell in found))
    page = grid_page(models, found).encode("utf-8", "replace")
    write_whole(path / "index.html", page, prefix=f"{folder.family}-")  # what is left of it, this family cleans up
    return path / "index.html"


def page_cells(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """What the page is told of each finished cell."""
    manifest = folder.manifest()
    if manifest is None or not {"model", "settings", "versions", "command"} <= manifest.keys():
        return  # another program's
    if fault := fault_of(manifest):
        raise ValueError(f"{folder.manifest_path}: {fault}: put it right, or delete the file to begin anew")
    settings = {name.replace("_", " "): shown(value) for name, value in manifest["settings"].items()}
    settings |= {name: str(value) for name, value in manifest["versions"].items()}
    texts, grids = manifest.get("sampler_texts", {}), manifest.get("grid_texts", {})
    lines = folder.pictures()
    found = {file: cell for file, line in lines.items() if (cell := cell_of(line)) is not None}
    for file, cell in sorted(found.items(), key=functools.partial(rank, asked_order(manifest))):
        given = cell._replace(sigma_grid=grids.get(cell.sigma_grid, cell.sigma_grid))
        axes, more = page_axes(manifest["model"]["name"], cell)
        yield {
            "file": file,
            "picture": folder.path / file,
            "axes": axes,
            "settings": more | settings,
            "result": {name: value for name, value in lines[file].items() if name not in ("file", *Cell._fields)},
            "command": cell_command(manifest["command"], given, texts.get(cell.sampler, cell.sampler)),
        }


def asked_order(manifest: dict[str, Any]) -> dict[str, dict[str, int]]:
    """By field, the places of the samplers, and of the values that are words, in what was asked for."""
    asked = {"sampler": [solver[0] for solver in manifest["solvers"]]}
    asked |= {axis.field: manifest["axes"].get(axis.option) for axis in AXES.values() if axis.kind is str}
    lists = {field: values for field, values in asked.items() if isinstance(values, list)}
    return {field: {str(value): place for place, value in enumerate(values)} for field, values in lists.items()}


def rank(order: dict[str, dict[str, int]], item: tuple[str, Cell]) -> list[int]:
    """The places of a cell's values; results have no order but that in which pictures were finished."""
    return [places.get(getattr(item[1], field), len(places)) for field, places in order.items()]


def page_axes(model: str, cell: Cell) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cell's values by the names that the page has for their axes; and those that are not of an axis.

    A converged reference stands beside all values of a sampler's axes, and what another axis decides is none.
    """
    found = {"sampler": cell.sampler} | {axis.page: getattr(cell, axis.field) for axis in AXES.values()}
    decided = {AXES[axis.instead_of].page for axis in AXES.values() if axis.instead_of and found[axis.page] is not None}
    beside = {"sampler", *(axis.page for axis in AXES.values() if axis.of_a_solver)} if cell.reference else set()
    axes = {name: ... if name in beside else None if name in decided else value for name, value in found.items()}
    return {"model": model, **axes}, {name: found[name] for name in found if name in decided | beside}
