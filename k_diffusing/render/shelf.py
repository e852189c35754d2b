"""The folders that hold grids: what a new one is called, and what is in all of them. Standard library only."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k_diffusing.render.axes import AXES, Axes
from k_diffusing.render.cells import Solver, named_cells
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.manifest import SCRIPT_SETTINGS, SETTINGS, fault_of
from k_diffusing.render.words import number

LONGEST = 80  # letters of a folder's name before its digits


def folder_of(shelf: Path, family: str, args: argparse.Namespace, digits: str) -> Path:
    """The folder of a grid that has none of its own yet, or the one that it has.

    Args:
        shelf: Where the folders are.
        family: Begins the folder's name.
        args: The command line, as `options.parse` gives it. What is no default in it makes the middle of the name.
        digits: Of what was asked; they end the name and tell it from all others.
    """
    there = sorted(path for path in shelf.glob(f"{family}-*") if re.split("-", path.name)[-1] == digits)
    name = "-".join([family, *told(args)])[:LONGEST].rstrip("-_.")
    return there[0] if there else shelf / f"{name}-{digits}"


def told(args: argparse.Namespace) -> Iterator[str]:
    """Parts of a folder's name: euler_heun, steps5_10, 2prompts, karras, height512."""
    tags = {axis.option: axis.tag for axis in AXES.values()} | {name: name for name in (*SETTINGS, *SCRIPT_SETTINGS)}
    for name in ("model", "samplers", *tags):
        given = getattr(args, name, None)
        if name not in args.changed or given is None:
            continue
        words = [Path(given).stem] if name == "model" else [*map(_word, given if isinstance(given, list) else [given])]
        if name == "prompt" or len(words) > 4:
            yield f"{len(words)}{name}s" if name == "prompt" else f"{len(words)}{name.rstrip('s')}s"
        else:
            yield tags.get(name, "") + "_".join(re.sub(r"[^\w.]+", "_", word).strip("_") for word in words)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else number(value)


def listing(shelf: Path) -> Iterator[str]:
    """Two lines for each grid in a folder and in the folders in it: where it is and how far, and its command."""
    folders = sorted({shelf, *filter(Path.is_dir, shelf.glob("*"))})
    manifests = [path for folder in folders for path in sorted(folder.glob("*-manifest.json"))]
    for path in manifests:
        yield from _lines(RunFolder(path.parent, path.name.removesuffix("-manifest.json")))
    if not manifests:
        yield f"no grids in {shelf}: --output FOLDER names another"


def _lines(folder: RunFolder) -> Iterator[str]:
    try:
        there = folder.manifest()
        fault = "it is gone" if there is None else fault_of(there)
    except (ValueError, OSError) as error:
        there, fault = None, str(error)
    if there is None or fault:
        yield f"{folder.manifest_path}: {fault}"
        return
    cells = named_cells(folder.family, _axes(there))
    done = len(folder.finished().keys() & cells.keys())
    yield f"{folder.path}: {done} of {len(cells)} pictures"
    yield f"    {shlex.join([*there['command'], *_words(there)])}"


def _axes(manifest: dict[str, Any]) -> Axes:
    """The axes of a manifest that can be compared."""
    given = {
        axis.values: tuple(values)
        for axis in AXES.values()
        if isinstance(values := manifest["axes"].get(axis.option), list) and values
    }
    return Axes(tuple(Solver(*facts) for facts in manifest["solvers"]), **given, reference=_reference(manifest))


def _reference(manifest: dict[str, Any]) -> int:
    steps = manifest["settings"].get("reference")
    return steps if isinstance(steps, int) else 0


def _words(manifest: dict[str, Any]) -> Iterator[str]:
    """The axes as words of the command line, each value as it was given."""
    texts = manifest.get("sampler_texts", {}) | manifest.get("grid_texts", {})
    flags = {"samplers": "--samplers"} | {axis.option: axis.flag for axis in AXES.values()}
    for name, given in manifest["axes"].items():
        if isinstance(given, list) and name in flags:
            yield flags[name]
            yield from (texts.get(value, value) if isinstance(value, str) else number(value) for value in given)
