"""What is asked for by a name: the sampler, and the options and the sigma grid that the name implies.

    sampler, options, sigma_grid = asked("DPM++ 2M SDE Karras", {"eta": 0.5})

Standard library alone: a misspelt name is answered before torch is imported.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from k_diffusing._messages import SAMPLER_FORMS
from k_diffusing.names.grids import AUTOMATIC, find_grid
from k_diffusing.names.programs import check_program_name
from k_diffusing.names.samplers import NOT_RUN, SamplerNames
from k_diffusing.names.texts import sampler_text
from k_diffusing.samplers.facts import ALIASES, ALL_FACTS
from k_diffusing.samplers.named import find_name, nearest_name


class Asked(NamedTuple):
    """A sampler as it is called here, or a function; its options; a sigma grid as it is called here, or a function."""

    sampler: Any
    options: Any = None
    sigma_grid: Any = None


def asked(sampler: Any, options: Any = None, sigma_grid: Any = None, *explicit: Any) -> Asked:
    """What a user asks for.

    Args:
        sampler: A name in any program, or what else a sampler may be.
        options: The user's own, which win over those that the name implies.
        sigma_grid: Likewise, a name in any program, a function or None.
        explicit: The user's own sigmas or timesteps, in place of a grid that the name implies.

    Raises:
        ValueError: A name that is no sampler's, or that of one that is no function here; it says what can be had.
    """
    found = find_name(_name_of(sampler))
    grid = find_grid(sigma_grid) if isinstance(sigma_grid, str) else None
    if isinstance(sampler, str):
        sampler = _here(sampler)
        if found and found.options and (options is None or isinstance(options, dict)):
            options = found.options | (options or {})
        if found and sigma_grid is None and all(values is None for values in explicit):
            grid = found.grid
    if grid is not None and grid.name == AUTOMATIC:
        return Asked(sampler, options, found.sampler.automatic if found else "normal")
    return Asked(sampler, options, sigma_grid if grid is None else grid.name)


def asked_grid(sampler: Any) -> str | None:
    """The sigma grid that a sampler's name implies, if it is a name and implies one."""
    found = find_name(sampler) if isinstance(sampler, str) else None
    return found.grid.name if found and found.grid else None


def _name_of(sampler: Any) -> str:
    """A sampler's name: as given, of a record, or of a function."""
    name = sampler if isinstance(sampler, str) else getattr(sampler, "name", getattr(sampler, "__name__", ""))
    return name if isinstance(name, str) else ""


def _here(text: str) -> str:
    """The name here. Raises ValueError."""
    found = find_name(text)
    if found is None and find_grid(text):
        raise ValueError(f"{text!r} is a sigma grid and no sampler: give it as sigma_grid, or after a sampler's name")
    if found is None:
        raise ValueError(
            f"unknown sampler {text!r}: did you mean {nearest_name(text)!r}? Choose one of {', '.join(ALL_FACTS)} "
            "(each also with the prefix sample_), or pass a function with k-diffusion's signature."
        )
    name = ALIASES.get(found.sampler.name, found.sampler.name)
    if name not in ALL_FACTS:
        raise ValueError(_elsewhere(text, found.sampler))
    return name


def _elsewhere(text: str, row: SamplerNames) -> str:
    """On a sampler that is known and no function here: what it is, and how it can be had."""
    programs = (("ComfyUI's", row.comfyui), ("A1111's", row.a1111), ("diffusers'", row.diffusers))
    known = ", ".join(f"{owner} {names[0]}" for owner, names in programs if names)
    ways = [
        f"take as_sampler({name}.from_config(pipe.scheduler.config)), or {name} on the command line"
        for name in row.diffusers
        if name not in NOT_RUN
    ]
    return f"{text!r} is no function here ({known}): {[*ways, 'pass a function of your own with its method'][0]}"


def check_texts(texts: Iterable[str]) -> None:
    """Raise ValueError for a sampler, a source, a file or a program that a word of the command line misspells.

    Whoever runs it checks the rest.
    """
    for text in texts:
        kind, name, settings = sampler_text(text)
        if kind == "k":
            _here(name)
        elif kind.endswith(".py") and not Path(kind).is_file():
            raise ValueError(f"there is no file {kind}: give {SAMPLER_FORMS}")
        elif kind not in ("diffusers", "comfy") and not kind.endswith(".py"):
            raise ValueError(f"unknown sampler source {text!r}: give {SAMPLER_FORMS}")
        parts = (setting.replace(" ", "").partition("=") for setting in settings)
        values = {option: value for option, _, value in parts}
        if values.get("program", "None") != "None":
            check_program_name(values["program"].strip("'\""))
