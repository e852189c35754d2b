"""The axes of a picture grid: one record of each. Whatever goes through the axes goes through these records.

The command line, the manifest, the results, the files' names, the text in pictures, the contact sheets, the page and
the command of a cell. A new axis is a record here; if it is the pipeline's business, `rendering.keywords_of` passes it.

Standard library only: what a grid consists of is known before anything heavy is imported.
"""

import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

from k_diffusing.render.words import finite, grid_word, guidance_word, number, text


class Axis(NamedTuple):
    """All that is known of an axis.

    Attributes:
        field: Its name in a cell, a line of the results and a picture's text.
        values: The field of Axes that holds its values.
        option: Its name on the command line, where "_" is "-", and in a manifest.
        kind: The type of a value: int, float or str.
        default: What a cell has where nothing is given; None if cells need not have a value.
        tag: What a file's name has before a value.
        title: A value as a column's title and in a heading, such as "{} steps". A word stands there by itself.
        page: Its name on the page.
        read: Makes a value of a word of the command line, or raises ArgumentTypeError.
        metavar: What `--help` shows for a value.
        help: What `--help` says of the option.
        aliases: Further names of the option, with their dashes.
        always: The values where the option is left out and no model has defaults of its own; None if that is no value.
        families: The families of pictures whose script has it; empty if all have.
        of_a_solver: Whether the converged reference, which stands beside all samplers, has no part in it.
        needs: The field of a Solver that tells whether the sampler has it; None if all have.
        own: The field of a Solver with the value that the sampler needs where none is given.
        fast: Whether cells that differ in it alone stand next to each other.
        in_heading: Whether a sheet's heading tells of its only value.
        instead_of: The field that its values decide, in place of values of that field.
        numbered: Whether a file's name has a value's number, from 1, for the value.
    """

    field: str
    values: str
    option: str
    kind: type
    default: Any
    tag: str
    title: str
    page: str
    read: Callable[[str], Any]
    metavar: str
    help: str | None = None
    aliases: tuple[str, ...] = ()
    always: tuple | None = None
    families: tuple[str, ...] = ()
    of_a_solver: bool = False
    needs: str | None = None
    own: str | None = None
    fast: bool = False
    in_heading: bool = False
    instead_of: str | None = None
    numbered: bool = False

    @property
    def flag(self) -> str:
        """The option as it is written on a command line."""
        return f"--{self.option.replace('_', '-')}"

    @property
    def beside_sampler(self) -> bool:
        """Whether it is an option of the sampler, and stands beside its name in a picture's text."""
        return bool(self.needs or self.own)


_RECORDS = (
    Axis(
        "steps", "steps", "steps", int, 0, tag="steps", title="{} steps", page="steps", read=int, metavar="N",
        of_a_solver=True, in_heading=True,
    ),
    Axis(
        "budget", "budgets", "evaluations", int, None, tag="nfe", title="{} nfe", page="evaluations up to", read=int,
        metavar="N", help="the steps with at most N network evaluations", of_a_solver=True, in_heading=True,
        instead_of="steps",
    ),
    Axis(
        "seed", "seeds", "seeds", int, 0, tag="seed", title="seed {}", page="seed", read=int, metavar="N",
        aliases=("--seed",), always=(0,), fast=True, in_heading=True,
    ),
    Axis(
        "prompt", "prompts", "prompt", str, "", tag="prompt", title="prompt {}", page="prompt", read=text,
        metavar="TEXT", help="one or more, each in quotes", fast=True, numbered=True,
    ),
    Axis(
        "sigma_grid", "sigma_grids", "sigma_grid", str, "scheduler", tag="", title="sigma grid {}", page="sigma grid",
        read=grid_word, metavar="NAME", help="karras, karras,rho=5, sigmas.json, ...; scheduler: its own",
        of_a_solver=True, own="sigma_grid",
    ),
    Axis(
        "guidance_scale", "guidance_scales", "guidance_scale", float, 1.0, tag="g", title="guidance {}",
        page="guidance", read=finite, metavar="X",
    ),
    Axis(
        "true_cfg_scale", "true_cfg_scales", "true_cfg_scale", float, None, tag="cfg", title="true CFG {}",
        page="true cfg", read=finite, metavar="X", help="guidance by a second evaluation of a prompt",
        families=("flux-dev",),
    ),
    Axis(
        "guidance", "guidances", "guidance", str, None, tag="guidance", title="{}", page="guidance by step",
        read=guidance_word, metavar="WEIGHTS", numbered=True,
        help="in place of the scale: one for each step (7,5,3,1), cfg++=0.6, cfg++=0.6,reference_steps=20,rescale=0.7",
    ),
    Axis(
        "eta", "etas", "eta", float, None, tag="eta", title="eta {}", page="eta", read=finite, metavar="X",
        help="for the samplers that have it", of_a_solver=True, needs="has_eta",
    ),
)  # fmt: skip
AXES = {axis.field: axis for axis in _RECORDS}  # in the order of a file's name


def _no_values(axis: Axis) -> tuple:
    """What Axes has where nothing is given: no steps and no budgets, and of all else one value."""
    if axis.field == "steps" or axis.instead_of:
        return ()
    return (None,) if axis.own else (axis.default,)


class Axes(
    namedtuple(
        "Axes",
        ["solvers", *(axis.values for axis in _RECORDS), "reference"],
        defaults=[*map(_no_values, _RECORDS), 0],
    )
):
    """The values of each axis.

    Attributes:
        solvers: The samplers, each a Solver.
        reference: The steps of the converged reference, 0 for none.

    The others, named by the `values` of AXES, are tuples of one value at least. Those of an axis that decides another
    are in place of the other's. None among them is what the sampler needs, or the default.
    """

    __slots__ = ()


def values(axes: Axes, field: str) -> tuple:
    """All values that a field of the cells has; none if another axis decides it."""
    axis = AXES[field]
    if any(getattr(axes, other.values) for other in _RECORDS if other.instead_of == field):
        return ()
    if axis.needs and not any(getattr(solver, axis.needs) for solver in axes.solvers):
        return (None,)
    return getattr(axes, axis.values)


def values_of(axes: Axes, field: str, solver) -> tuple:
    """The values that the field has in the cells of one sampler; (None,) if another axis decides it."""
    axis, given = AXES[field], values(axes, field) or (None,)
    if axis.needs and not getattr(solver, axis.needs):
        return (None,)
    if axis.own:
        return tuple(value or getattr(solver, axis.own) or axis.default for value in given)
    return given


def several(axes: Axes) -> list[str]:
    """The fields with more than one value."""
    return [field for field in AXES if len(values(axes, field)) > 1]


def tag(axes: Axes, field: str, value) -> str:
    """A value as a part of a file's name: "steps10", "karras", "prompt2" for the second prompt."""
    axis = AXES[field]
    shown = values(axes, field).index(value) + 1 if axis.numbered else value
    return axis.tag + (re.sub(r"[^\w.-]+", "_", shown.replace("=", "")) if isinstance(shown, str) else number(shown))


def title(field: str, value) -> str:
    """A value as the title of a column, or in a heading."""
    return value if isinstance(value, str) else AXES[field].title.format(number(value))
