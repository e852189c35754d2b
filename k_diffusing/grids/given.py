"""A sigma grid as a user gives it: a name, a name with options, numbers, a file of numbers, a function.

pipe(prompt, sigma_grid={"karras": {"rho": 5, "sigma_max": 10}})
pipe(prompt, sigma_grid="karras,rho=5,sigma_max=10")    # the same, as the command line has it
pipe(prompt, sigma_grid=[14.6, 5.2, 1.1, 0.2, 0])       # the steps are those of the list
pipe(prompt, sigma_grid="my_grid.json")                 # {"sigmas": [14.6, ..., 0]}; what else is in it is left alone
pipe(prompt, sigma_grid="tuned.json")                   # grids by their number of steps, of k-diffusing tune
"""

import inspect
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from k_diffusing._messages import unknown
from k_diffusing.grids.check import check_sigmas
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.grids.tuned import TunedGrid, is_tuned, load_grid
from k_diffusing.names.grids import AUTOMATIC, check_grid_name, find_grid
from k_diffusing.names.spelling import spelling
from k_diffusing.names.texts import literal
from k_diffusing.protocols import NoiseSchedule

IN_UNIT = ("pivot", "threshold")  # options that are above 0 and below 1
SIGNED = ("mu",)  # those that may have any sign; all others are above 0
ENDS = ("sigma_min", "sigma_max")
Numbers = Sequence[float] | np.ndarray | torch.Tensor
GridChoice = str | os.PathLike | Mapping[str, Mapping[str, Any]] | Numbers | Callable | None
FORMS = "a name, {name: options}, a list of sigmas, a .json file of them, or a function (schedule, n) -> sigmas"


@dataclass(frozen=True, repr=False)
class OptionGrid:
    """A named grid with options: a function (schedule, n) -> sigmas.

    Attributes:
        name: The grid's.
        options: By their names.
        function: Which takes them.
    """

    name: str
    options: dict[str, Any]
    function: Callable[..., torch.Tensor]

    def __call__(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """The sigmas [n + 1]."""
        return self.function(schedule, n, **self.options)

    def __repr__(self) -> str:
        return repr(self.plain)

    @property
    def plain(self) -> dict[str, dict[str, Any]]:
        """What JSON can hold of it; a user may give the same."""
        return {self.name: self.options}


@dataclass(frozen=True, repr=False)
class ListedGrid:
    """A list of sigmas, which has its own number of steps: a function (schedule, n) -> sigmas.

    Attributes:
        values: [steps + 1], decreasing.
    """

    values: tuple[float, ...]

    def __call__(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """The values, whatever n."""
        return torch.tensor(self.values, dtype=torch.float32)

    def __repr__(self) -> str:
        return repr(self.plain)

    @property
    def plain(self) -> list[float]:
        """What JSON can hold of it; a user may give the same."""
        return list(self.values)


def given_grid(sigma_grid: Any, own: Mapping[str, Callable] | None = None) -> Any:
    """What a user gives as a name or a function; None stays None.

    Args:
        sigma_grid: One of FORMS. Names alone are left as they are, for whoever looks them up.
        own: A program's own grids by name, in place of ours where the names are the same.

    Raises:
        ValueError: An option, a value, a list or a file that cannot be.
        TypeError: Options that are none.
    """
    if isinstance(sigma_grid, Mapping):
        return _with_options(sigma_grid, own or {})
    if isinstance(sigma_grid, os.PathLike) or is_file(sigma_grid):
        path = Path(sigma_grid)
        return load_grid(path) if is_tuned(path) else ListedGrid(read_sigmas(path))
    if isinstance(sigma_grid, str) and "," in sigma_grid:
        return _with_options(_read_text(sigma_grid), own or {})
    if isinstance(sigma_grid, (list, tuple, np.ndarray, torch.Tensor)):
        return ListedGrid(_checked(sigma_grid, "sigma_grid"))
    return sigma_grid


def plain_grid(sigma_grid: Any) -> Any:
    """The choice as JSON can hold it, where it can: names, options, numbers; a function as it is."""
    return sigma_grid.plain if isinstance(sigma_grid, (OptionGrid, ListedGrid, TunedGrid)) else sigma_grid


def is_file(sigma_grid: Any) -> bool:
    """Whether a text names a file of sigmas."""
    return isinstance(sigma_grid, str) and sigma_grid.lower().endswith(".json")


def read_sigmas(path: Path) -> tuple[float, ...]:
    """The sigmas of a JSON file, under the key "sigmas". Raises ValueError where there are none."""
    example = '{"sigmas": [14.6, 5.2, 1.1, 0]}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"sigma_grid={str(path)!r} cannot be read ({error}): give a file such as {example}") from error
    if not isinstance(found, dict) or "sigmas" not in found:
        raise ValueError(f'sigma_grid={str(path)!r} has no "sigmas": give a file such as {example}')
    return _checked(found["sigmas"], f"{path}: sigmas")


def _checked(values: Any, name: str) -> tuple[float, ...]:
    check_sigmas(values, name, least=2)
    return tuple(map(float, values))


def _read_text(text: str) -> dict[str, dict[str, Any]]:
    """A name with options as the command line has it: karras,rho=5."""
    name, *settings = (part.strip() for part in text.split(","))
    options = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"sigma_grid {text!r}: {setting!r} is not option=value, as in karras,rho=5")
        options[option.strip()] = literal(value.strip())
    return {name: options}


def _with_options(sigma_grid: Mapping, own: Mapping[str, Callable]) -> Any:
    """A grid of a name and options; the name alone where there are none."""
    if len(sigma_grid) != 1:
        raise ValueError(f"sigma_grid={dict(sigma_grid)!r}: give one name with its options, as in {{'karras': {{}}}}")
    [(text, options)] = sigma_grid.items()
    name = {spelling(known): known for known in own}.get(spelling(str(text)))
    row = find_grid(str(text))
    if name is None and (row is None or not row.here):
        check_grid_name(text)
    name = name or (row.name if row else str(text))
    if not isinstance(options, Mapping):
        raise TypeError(f"sigma_grid={{{name!r}: {options!r}}}: options are a dict, such as {{'rho': 5}}")
    if not options:
        return name
    if name == AUTOMATIC:
        raise ValueError(f"sigma_grid {name!r} is another grid for each sampler: name one, to give it options")
    function = own.get(name) or SIGMA_GRIDS[name]
    parameters = list(inspect.signature(function).parameters.values())[2:]
    known = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    read = {}
    for option, value in options.items():
        if option not in known:
            choices = f"Its options: {', '.join(known)}" if known else ": it takes none, so give the name alone"
            raise ValueError(f"sigma_grid {name!r}: {unknown('option', option, known)} {choices}".replace(" :", ":"))
        read[option] = _option(name, option, value, known[option])
    return OptionGrid(name, read, function)


def _option(name: str, option: str, value: Any, default: Any) -> Any:
    """The value of an option, as JSON can hold it; a word is for the grid's function to know.

    Raises:
        ValueError: What the option cannot be.
    """
    if not isinstance(default, Real) and option not in ENDS:
        return value
    whole = isinstance(default, Integral)
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    kind, fits = "a number above 0", number > 0
    if option in SIGNED:
        kind, fits = "a number", True
    elif option in IN_UNIT:
        kind, fits = "a number above 0 and below 1", 0 < number < 1
    elif option == "denoise":
        kind, fits = "a number above 0, of at most 1", 0 < number <= 1
    elif whole:
        kind, fits = "an integer of at least 1", number >= 1 and number.is_integer()
    if not (fits and math.isfinite(number)):
        raise ValueError(f"sigma_grid {name!r}: {option}={value!r} must be {kind}")
    return int(number) if whole else number
