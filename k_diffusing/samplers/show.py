"""The names of samplers and sigma grids, as tables: for a terminal, and for docs/names.md. Standard library alone."""

from collections.abc import Iterable
from itertools import zip_longest

from k_diffusing._messages import unknown
from k_diffusing.names.grids import AUTOMATIC, GRID_NAMES, GridNames, find_grid
from k_diffusing.names.samplers import SAMPLER_NAMES, SamplerNames
from k_diffusing.samplers.facts import ALIASES, ALL_FACTS, COLUMNS, row
from k_diffusing.samplers.named import ROWS, find_name

PROGRAMS = ("here", "ComfyUI", "A1111, Forge", "diffusers")
PAGE = """# What samplers and sigma grids are called

Any of these names is understood wherever a sampler or a sigma grid is asked for, with or without `sample_`, and in any
spelling: case, spaces, hyphens and underscores do not matter. A sigma grid's name after a sampler's implies that grid:
"DPM++ 2M Karras" is `dpmpp_2m` with `sigma_grid="karras"`, unless you give a grid or sigmas of your own. In `compare`
and picture grids a name that ends in Scheduler is that class of diffusers itself.

Made by `k-diffusing samplers --markdown`. ComfyUI's names are those of version 0.29, A1111's of 1.10 with Forge 2.0.1.

## Samplers

All of ComfyUI's are functions here; `k-diffusing samplers --names` shows what each is here, and one that is none is
answered with what can be had. A class has the method with the settings that stand after it. "Automatic" is the sigma
grid that A1111 takes for the sampler where its schedule says so.

{samplers}

## Sigma grids

Where "here" is empty, give the values as `sigmas=`.

{grids}
"""


def _here(sampler: SamplerNames) -> str:
    """What a sampler is called here; "" if it is no function here."""
    name = ALIASES.get(sampler.name, sampler.name)
    return name if name in ALL_FACTS else ""


def names_table() -> str:
    """The names of all samplers and sigma grids in each program, as lines of 120 letters at most."""
    samplers = [(_here(one), *map(_lines, (one.comfyui, one.a1111, one.diffusers))) for one in ROWS.values()]
    grids = [
        (one.name if one.here else "", *map(_lines, (one.comfyui, one.a1111, one.diffusers)))
        for one in GRID_NAMES.values()
    ]
    return f"samplers\n\n{_table(PROGRAMS, samplers)}\n\nsigma grids\n\n{_table(PROGRAMS, grids)}"


def _lines(names: Iterable[str]) -> str:
    """Names below each other; the settings of a scheduler below its class."""
    return "\n".join(",\n  ".join(name.split(",")) for name in names)


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [cells for one in (heading, *rows) for cells in zip_longest(*(c.split("\n") for c in one), fillvalue="")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines)


def about(text: str) -> str:
    """All that is known of a sampler or a sigma grid, by any of its names. Raises ValueError where there is none."""
    found, grid = find_name(text), find_grid(text)
    if found is None and grid is None:
        raise ValueError(unknown("sampler", text, [*ROWS, *GRID_NAMES]))
    told = [] if found is None else [_about_sampler(found.sampler)]
    grids = [one for one in (found and found.grid, grid) if one]
    return "\n\n".join([*told, *map(_about_grid, grids)])


def _about_sampler(one: SamplerNames) -> str:
    here = _here(one)
    facts = zip(COLUMNS[1:], row(here)[1:], strict=True) if here else ()
    found = [("here", here or "no function"), *facts, *_elsewhere(one)]
    if one.a1111:
        found.append(("A1111's Automatic", one.automatic))
    return _told(f"sampler {one.name}", [*found, ("note", one.note)])


def _about_grid(one: GridNames) -> str:
    here = ("here", one.name if one.here else "no: give its values as a list")
    return _told(f"sigma grid {one.name}", [here, *_elsewhere(one), ("note", one.note)])


def _elsewhere(one: SamplerNames | GridNames) -> list[tuple[str, str]]:
    names = (one.comfyui, one.a1111, one.diffusers, one.others)
    return [(program, "; ".join(cell)) for program, cell in zip((*PROGRAMS[1:], "also"), names, strict=True)]


def _told(title: str, found: list[tuple[str, str]]) -> str:
    return "\n".join([title, *(f"  {name:<20}{value}" for name, value in found if value)])


def names_page() -> str:
    """docs/names.md: what other programs call samplers, whether they are functions here or not."""
    samplers = [
        (one.name, one.comfyui, one.a1111, one.automatic if one.a1111 else "", one.diffusers, one.others, one.note)
        for one in SAMPLER_NAMES.values()
    ]
    grids = [
        (one.name if one.here else "", one.comfyui, one.a1111, one.diffusers, one.others, one.note)
        for one in GRID_NAMES.values()
    ]
    heading = (*PROGRAMS[:3], AUTOMATIC.capitalize(), PROGRAMS[3], "also", "")
    return PAGE.format(samplers=_markdown(heading, samplers), grids=_markdown((*PROGRAMS, "also", ""), grids))


def _markdown(heading: tuple[str, ...], rows: list[tuple]) -> str:
    cells = [[cell if isinstance(cell, str) else "<br>".join(cell) for cell in one] for one in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heading, ["---"] * len(heading), *cells])
