"""What a render script puts into a grid's run."""

import argparse
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

from PIL import Image

from k_diffusing.render.cells import Cell, Solver


class Rendered(NamedTuple):
    """A cell that was rendered.

    Attributes:
        picture: What it shows.
        evaluations: Of the network.
        seconds: That it took; of what several cells took together, its part.
        network_seconds: Of its calls of the network; None if that is not known.
        peak_memory: MiB at most while it was at work; None if that is not known.
        adherence: Which of its caption's words the picture kept; None for a prompt that is no such caption.
    """

    picture: Image.Image
    evaluations: int
    seconds: float
    network_seconds: float | None = None
    peak_memory: float | None = None
    adherence: dict[str, bool] | None = None


# From cells, which are taken as there is room for them, at most so many at a time: each cell, as soon as it is over,
# with what came of it.
Render = Callable[[Iterable[Cell], int], Generator[tuple[Cell, Rendered | Exception]]]


class Work(NamedTuple):
    """What a render script puts in.

    Attributes:
        family: Begins its files' names.
        program: The words that begin its command.
        check: Returns the samplers asked for, before any model is loaded, or raises BadInput.
        load: Loads the model, and returns a function that renders cells.
    """

    family: str
    program: str
    check: Callable[[argparse.Namespace], list[Solver]]
    load: Callable[[argparse.Namespace], Render]
