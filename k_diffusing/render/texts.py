"""The text in a picture: what made it."""

import argparse
import functools
from typing import Any

from k_diffusing._versions import PROGRAMS, package_versions
from k_diffusing.render.axes import AXES, Axes, values
from k_diffusing.render.cells import Cell
from k_diffusing.render.manifest import SCRIPT_SETTINGS
from k_diffusing.render.names import full_name
from k_diffusing.render.weights import model_name
from k_diffusing.render.words import shown
from k_diffusing.render.work import Rendered

# What a picture's text begins with, in this order. What the sampler takes stands beside its name.
AXES_RECORDED = [axis.field for axis in AXES.values() if not (axis.instead_of or axis.beside_sampler)]
RECORDED = ("prompt", "negative_prompt", "steps", "seed", "guidance_scale", "noise", "dtype")
RECORDED += (*(field for field in AXES_RECORDED if field not in RECORDED), *SCRIPT_SETTINGS)


def cell_text(args: argparse.Namespace, axes: Axes, cell: Cell, rendered: Rendered) -> dict[str, str]:
    """What a picture says of itself."""
    options = {axis.field: getattr(cell, axis.field) for axis in AXES.values() if axis.beside_sampler}
    options = {field: value for field, value in options.items() if value is not None}
    made = {"sampler": full_name(cell.sampler), **options, "evaluations": rendered.evaluations}
    return png_text(args, axes, cell._asdict(), **made)


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
    return {name: "(none)" if value is None else str(value) for name, value in made.items()}


@functools.cache
def programs() -> dict[str, str | None]:
    """The versions of the programs that made a picture."""
    return package_versions(*PROGRAMS, "k-diffusing")
