"""The sampler that a name means, in whatever program it is one, and the sigma grid that it implies.

find_name("DPM++ 2M SDE Karras")   dpmpp_2m_sde, on karras
find_name("sample_euler_ancestral") and find_name("k_euler_a")   euler_ancestral
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from k_diffusing._messages import nearest
from k_diffusing.names.grids import GRID_NAMES, GRIDS_BY_SPELLING, GridNames
from k_diffusing.names.samplers import METHODS_OF, OPTIONS_OF, SAMPLER_NAMES, SamplerNames
from k_diffusing.names.spelling import by_spelling, spelling
from k_diffusing.names.texts import literal
from k_diffusing.samplers.facts import ALL_FACTS


class Named(NamedTuple):
    """What a text names.

    Attributes:
        sampler: The sampler's row.
        grid: The sigma grid's that the text ends in, or that a config asks for; None if there is none.
        options: Of the sampler, that a config asks for.
    """

    sampler: SamplerNames
    grid: GridNames | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def name(self) -> str:
        """The same in our spelling: dpmpp_2m_sde, or dpmpp_2m_sde_karras."""
        return self.sampler.name if self.grid is None else f"{self.sampler.name}_{self.grid.name}"


def _with_aliases(name: str) -> SamplerNames:
    """A sampler's row, with the further names that its facts give; one of these alone may be all there is."""
    row, aliases = SAMPLER_NAMES.get(name, SamplerNames(name)), ALL_FACTS.get(name, {}).get("aliases", ())
    more = (alias for alias in aliases if alias not in SAMPLER_NAMES and alias not in row.spellings)
    return row._replace(others=(*row.others, *more))


ROWS = {name: _with_aliases(name) for name in SAMPLER_NAMES | ALL_FACTS}
_SAMPLERS: dict[str, SamplerNames] = by_spelling(ROWS.values())


def find_name(text: str) -> Named | None:
    """The sampler that a text names, and the sigma grid if it ends in one; None where it names no sampler.

    Case, spaces, hyphens, underscores, `sample_` or `k_` before it and `_gpu` after it do not matter. A scheduler class
    of diffusers may have settings after it, each as ",setting=value".
    """
    if "," in text:
        name, *settings = text.split(",")
        return of_scheduler(name, dict(map(_setting, settings)))
    key = spelling(text)
    if row := _sampler(key):
        return Named(row)
    for ending, grid in GRIDS_BY_SPELLING.items():
        if key.endswith(ending) and (row := _sampler(key.removesuffix(ending))):
            return Named(row, grid)
    return None


def _setting(text: str) -> tuple[str, Any]:
    """A setting of a text: its name and its value, a literal if it is one."""
    name, _, value = text.partition("=")
    return name.strip(), literal(value.strip())


def _sampler(key: str) -> SamplerNames | None:
    short = key.removeprefix("sample").removesuffix("gpu")
    forms = (key, short, short.removeprefix("k"), f"{key}scheduler")
    return next((_SAMPLERS[form] for form in forms if form in _SAMPLERS), None)


def of_scheduler(class_name: str, config: Mapping[str, Any]) -> Named | None:
    """The sampler and the sigma grid that a diffusers scheduler stands for; None where no sampler is its method.

    Args:
        class_name: Such as "DPMSolverMultistepScheduler".
        config: Of the scheduler. A setting that is not in it has its default.
    """
    defaults = METHODS_OF.get(class_name, {})
    method = {name: config.get(name, default) for name, default in defaults.items()}
    for row in ROWS.values():
        for text in row.diffusers:
            name, *settings = text.split(",")
            if name == class_name and defaults | dict(map(_setting, settings)) == method:
                return Named(row, _grid_of(config), _options_of(class_name, config))
    return None


def _grid_of(config: Mapping[str, Any]) -> GridNames | None:
    return next((row for row in GRID_NAMES.values() if any(config.get(name) for name in row.diffusers)), None)


def _options_of(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    settings = OPTIONS_OF.get(class_name, {}).items()
    return {option: config.get(setting, default) for setting, (option, default) in settings}


def nearest_name(text: str) -> str:
    """The sampler, with a sigma grid if need be, that a misspelt text is most like."""
    choices = {key: Named(row) for key, row in _SAMPLERS.items()}
    both = product(_SAMPLERS.items(), GRIDS_BY_SPELLING.items())
    choices |= {key + ending: Named(row, grid) for (key, row), (ending, grid) in both if grid.here}
    [close] = nearest(spelling(text), choices)
    return choices[close].name
