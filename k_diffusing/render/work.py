"""What a render script puts into a grid's run."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from k_diffusing.render.cells import Cell, Solver


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
