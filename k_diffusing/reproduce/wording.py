"""What another program's names of samplers and sigma grids are here."""

from typing import Any, NamedTuple

from k_diffusing.names.grids import AUTOMATIC, find_grid
from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.named import find_name

WEB_UIS = ("a1111", "forge")  # by the names of their programs
OF_WEB_UIS = ("automatic", "uniform", "align_your_steps", "ddim")  # grids that these alone have, or have in their way


class Here(NamedTuple):
    """A sampler that a name of another program stands for.

    Attributes:
        sampler: Its name here; None if there is none.
        options: That the name implies.
        grid: The sigma grid that the name asks for as well; None if it does not.
        automatic: The sigma grid that A1111 takes for it.
    """

    sampler: str | None
    options: dict[str, Any]
    grid: str | None
    automatic: str


def sampler_here(name: str) -> Here:
    """The sampler of a name in any program."""
    found = find_name(name)
    if found is None:
        return Here(None, {}, None, "normal")
    grid = found.grid.name if found.grid else None
    try:
        here = asked(found.sampler.name)
    except ValueError:  # it is known, and no function here
        return Here(None, {}, grid, found.sampler.automatic)
    return Here(here.sampler, here.options or {}, grid, found.sampler.automatic)


def grid_here(name: str, program: str | None = None) -> str | None:
    """The sigma grid of a name in any program, as it is called for the one given; None if there is none here."""
    own = "_".join(name.lower().split())
    if program in WEB_UIS and own in OF_WEB_UIS:
        return own
    name, *options = name.split(",")  # as pictures of ours have it: karras,rho=5
    row = find_grid(name)
    if row and options:
        return ",".join([row.name, *options])
    return row.name if row and row.here and row.name != AUTOMATIC else None
