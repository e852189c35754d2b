"""What a render script puts into a grid's run."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from k_diffusing.render.cells import Cell, Solver


class Rendered(NamedTuple):
    """A batch that was rendered.

    Attributes:
        pictures: One for each cell.
        evaluations: Of the network, for each picture.
        seconds: Of the whole batch.
        network_seconds: Of its calls of the network; None if that is not known.
        peak_memory: MiB at most; None if that is not known.
        adherence: Which of its caption's words each picture kept; None for a prompt that is no such caption.
    """

    pictures: list[Image.Image]
    evaluations: int
    seconds: float
    network_seconds: float | None = None
    peak_memory: float | None = None
    adherence: list[dict[str, bool] | None] | None = None


Render = Callable[[list[Cell]], Rendered]


class Work(NamedTuple):
    """What a render script puts in.

    Attributes:
        family: Begins its files' names.
        program: The words that begin its command.
        check: Returns the samplers asked for, before any model is loaded, or raises BadInput.
        load: Loads the model, and returns a function that renders a batch of cells of one recipe.
    """

    family: str
    program: str
    check: Callable[[argparse.Namespace], list[Solver]]
    load: Callable[[argparse.Namespace], Render]
