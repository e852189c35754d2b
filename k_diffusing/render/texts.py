"""The text in a picture: what made it."""

import argparse
import functools
from typing import Any

from k_diffusing._versions import PROGRAMS, package_versions
from k_diffusing.model.guidance_asked import asked, of_text
from k_diffusing.names.grids import find_grid
from k_diffusing.render.axes import AXES, Axes, values
from k_diffusing.render.cells import Cell
from k_diffusing.render.manifest import SCRIPT_SETTINGS
from k_diffusing.render.names import full_name
from k_diffusing.render.weights import model_name
from k_diffusing.render.words import shown
from k_diffusing.render.work import Rendered
from k_diffusing.reproduce.infotext import write_infotext
from k_diffusing.samplers.named import find_name

# What a picture's text begins with, in this order. What the sampler takes stands beside its name.
AXES_RECORDED = [axis.field for axis in AXES.values() if not (axis.instead_of or axis.beside_sampler)]
RECORDED = ("prompt", "negative_prompt", "steps", "seed", "guidance_scale", "noise", "program", "dtype")
NONE, PARAMETERS = "(none)", "parameters"
RECORDED += (*(field for field in AXES_RECORDED if field not in RECORDED), *SCRIPT_SETTINGS)


def cell_text(args: argparse.Namespace, axes: Axes, cell: Cell, rendered: Rendered) -> dict[str, str]:
    """What a picture says of itself."""
    options = {axis.field: getattr(cell, axis.field) for axis in AXES.values() if axis.beside_sampler}
    options = {field: value for field, value in options.items() if value is not None}
    made = {"sampler": full_name(cell.sampler), **options, "evaluations": rendered.evaluations}
    text = png_text(args, axes, cell._asdict(), **made)
    return text | {PARAMETERS: parameters(text, cell, rendered.picture.size)}


def parameters(text: dict[str, str], cell: Cell, size: tuple[int, int]) -> str:
    """The same as A1111's web UI writes it, for tools that read that; its names where it has them.

    Args:
        text: What the picture says of itself.
        cell: What it is.
        size: Its width and height, in pixels.
    """
    name = cell.sampler.split(",")[0]
    named, grid = find_name(name), find_grid(str(cell.sigma_grid))
    flux = cell.true_cfg_scale is not None
    by_step = cell.guidance is not None and asked(of_text(cell.guidance)).has_weights
    fields = {
        "Steps": cell.steps,
        "Sampler": named.sampler.a1111[0] if named and named.sampler.a1111 else name,
        "Schedule type": grid.a1111[0] if grid and grid.a1111 else grid and grid.name,
        "CFG scale": None if by_step else (cell.true_cfg_scale if flux else cell.guidance_scale),
        "Guidance": cell.guidance,
        "Distilled CFG Scale": cell.guidance_scale if flux else None,
        "Seed": cell.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": text["model"],
        "Eta": cell.eta,
        "Version": f"k-diffusing {text['k-diffusing']}",
    }
    negative = text.get("negative_prompt", NONE)
    return write_infotext(cell.prompt, "" if negative == NONE else negative, fields)


def png_text(args: argparse.Namespace, axes: Axes, fixed: dict[str, Any], **more) -> dict[str, str]:
    """What made a picture; nothing that differs from run to run or tells of the machine's folders.

    Args:
        args: The command line.
        axes: The values of each axis.
        fixed: The values that the picture has, by field; of other axes all values are listed.
        **more: What else is to be told, after the settings.

    Returns:
        Texts by their names, in the order in which they stand in the file.
    """
    made = {name: getattr(args, name) for name in RECORDED if hasattr(args, name)}
    for name in AXES_RECORDED:
        if name in fixed or values(axes, name) not in ((), (None,)):
            made[name] = fixed[name] if name in fixed else shown(values(axes, name), longest=10_000)
    made = {name: made[name] for name in RECORDED if made.get(name) is not None or name == "negative_prompt"}
    made |= {**more, "model": model_name(args.model), **programs()}
    return {name: NONE if value is None else str(value) for name, value in made.items()}


@functools.cache
def programs() -> dict[str, str | None]:
    """The versions of the programs that made a picture."""
    return package_versions(*PROGRAMS, "k-diffusing")
