"""What a name means, in whatever program it is a sampler's or a sigma grid's.

find_name("DPM++ 2M SDE Karras")   dpmpp_2m_sde, on karras
find_name("sample_euler_ancestral") and find_name("k_euler_a")   euler_ancestral
find_grid("SGM Uniform")           sgm_uniform
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

from k_diffusing._messages import nearest
from k_diffusing.names.grids import AUTOMATIC, GRID_NAMES, GridNames
from k_diffusing.names.samplers import METHODS_OF, SAMPLER_NAMES, SamplerNames


class Named(NamedTuple):
    """What a text names.

    Attributes:
        sampler: The sampler's row.
        grid: The sigma grid's that the text ends in, or that a config asks for; None if there is none.
    """

    sampler: SamplerNames
    grid: GridNames | None = None

    @property
    def name(self) -> str:
        """The same in our spelling: dpmpp_2m_sde, or dpmpp_2m_sde_karras."""
        return self.sampler.name if self.grid is None else f"{self.sampler.name}_{self.grid.name}"


def spelling(text: str) -> str:
    """A name without all that does not matter: case, spaces, hyphens, underscores. "++" is read as "pp"."""
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("++", "pp"))


def _spellings(rows: Iterable) -> dict[str, Any]:
    return {spelling(text): row for row in rows for text in row.spellings}


_SAMPLERS: dict[str, SamplerNames] = _spellings(SAMPLER_NAMES.values())
_GRIDS: dict[str, GridNames] = _spellings(GRID_NAMES.values())


def find_name(text: str) -> Named | None:
    """The sampler that a text names, and the sigma grid if it ends in one; None where it names no sampler.

    Case, spaces, hyphens, underscores, `sample_` or `k_` before it and `_gpu` after it do not matter.
    """
    key = spelling(text)
    if row := _sampler(key):
        return Named(row)
    for ending, grid in _GRIDS.items():
        if key.endswith(ending) and (row := _sampler(key.removesuffix(ending))):
            return Named(row, grid)
    return None


def _sampler(key: str) -> SamplerNames | None:
    short = key.removeprefix("sample").removesuffix("gpu")
    forms = (key, short, short.removeprefix("k"), f"{key}scheduler")
    return next((_SAMPLERS[form] for form in forms if form in _SAMPLERS), None)


def find_grid(text: str) -> GridNames | None:
    """The sigma grid that a text names; None where it names none."""
    return _GRIDS.get(spelling(text))


def of_scheduler(class_name: str, config: Mapping[str, Any]) -> Named | None:
    """The sampler and the sigma grid that a diffusers scheduler stands for; None where no sampler is its method.

    Args:
        class_name: Such as "DPMSolverMultistepScheduler".
        config: Of the scheduler. A setting that is not in it has its default.
    """
    defaults = METHODS_OF.get(class_name, {})
    method = {name: config.get(name, default) for name, default in defaults.items()}
    for row in SAMPLER_NAMES.values():
        for text in row.diffusers:
            name, *settings = text.split(",")
            if name == class_name and defaults | dict(setting.split("=") for setting in settings) == method:
                return Named(row, _grid_of(config))
    return None


def _grid_of(config: Mapping[str, Any]) -> GridNames | None:
    return next((row for row in GRID_NAMES.values() if any(config.get(name) for name in row.diffusers)), None)


def nearest_name(text: str) -> str:
    """The sampler, with a sigma grid if need be, that a misspelt text is most like."""
    choices = {key: Named(row) for key, row in _SAMPLERS.items()}
    both = product(_SAMPLERS.items(), _GRIDS.items())
    choices |= {key + ending: Named(row, grid) for (key, row), (ending, grid) in both if grid.here}
    [close] = nearest(spelling(text), choices)
    return choices[close].name


def check_grid_name(text: object) -> None:
    """Raise ValueError unless a text names a sigma grid that is here, in whatever program."""
    row, here = find_grid(str(text)), [row.name for row in GRID_NAMES.values() if row.here and row.name != AUTOMATIC]
    choices = (
        f"Choose one of {', '.join(here)}, a function (schedule, n) -> sigmas, "
        "or None for the grid of the scheduler's config"
    )
    if row is None:
        names = {key: row.name for key, row in _GRIDS.items() if row.here}
        [close] = nearest(spelling(str(text)), names)
        raise ValueError(f"unknown sigma_grid {text!r}: did you mean {names[close]!r}? {choices}")
    if not row.here:
        raise ValueError(f"sigma_grid {text!r} is known and not here: give its values as sigmas=. {choices}")
