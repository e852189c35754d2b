"""The cells of a grid: one picture for each combination of sampler, steps, seed, prompt and so on.

    axes = Axes(solvers=(Solver("euler"), Solver("heun", per_step=2)), steps=(10, 20), seeds=(0, 1))
    named_cells("sdxl", axes)  # {"sdxl-sample_euler-steps10-seed0.png": Cell("euler", 10, 0, ...), ...}

Standard library only: what a grid consists of is known before anything heavy is imported.
"""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from k_diffusing.render.axes import AXES, Axes, several, tag, values, values_of
from k_diffusing.render.names import file_tags

REFERENCE = "dpmpp_2m"  # the converged reference's sampler: deterministic, of order 2


class Solver(NamedTuple):
    """What a grid must know of a sampler.

    Attributes:
        name: As the grid calls it.
        per_step: Network evaluations in each step but the last, which takes one.
        has_eta: Whether it has an option `eta` that is left to the grid.
        sigma_grid: The named grid it is known to need, or None.
        alone: Whether pictures that are sampled in one call would depend on each other. Each has a call of its own.
        counted: Pairs of evaluations and the steps within them, where per_step does not tell.
    """

    name: str
    per_step: int = 1
    has_eta: bool = False
    sigma_grid: str | None = None
    alone: bool = False
    counted: Sequence[Sequence[int]] = ()

    def facts(self) -> list:
        """As a manifest has it."""
        return [*self[:-1], *([[list(pair) for pair in self.counted]] if self.counted else [])]

    def steps_within(self, evaluations: int) -> int:
        """The most steps that take at most that many evaluations."""
        known = {most: steps for most, steps in self.counted}
        return known.get(evaluations, (evaluations - 1) // self.per_step + 1)


_FIELDS = ("sampler", *sorted(AXES, key=lambda field: bool(AXES[field].instead_of)), "reference")  # results' order
_KINDS = {
    "sampler": str,
    **{field: (float | int if axis.kind is float else axis.kind) for field, axis in AXES.items()},
    "reference": bool,
}
_DEFAULTS = {field: axis.default for field, axis in AXES.items()}
_OPTIONAL = {field for field, default in _DEFAULTS.items() if default is None}


class Cell(namedtuple("Cell", _FIELDS, defaults=[*(_DEFAULTS[field] for field in _FIELDS[1:-1]), False])):
    """One picture.

    Attributes:
        sampler: Its name, REFERENCE in what is drawn beside all samplers.
        reference: Whether it is that: what the probability-flow ODE converges to.

    The others are the fields of AXES. sigma_grid is a name; "scheduler" is the scheduler's own. eta None leaves it to
    the sampler. budget is the number of evaluations that steps were counted from, if they were.
    """

    __slots__ = ()


def told_of(cells: dict[str, Cell], lines: dict[str, dict]) -> set[str]:
    """The files whose lines of the results, by file, tell of their cells: a line may have been edited."""
    return {
        file
        for file in cells.keys() & lines.keys()
        if cells[file]._asdict().items() <= lines[file].items() and isinstance(lines[file].get("evaluations"), int)
    }


def cell_of(line: dict) -> Cell | None:
    """The cell that a line of the results tells of; None if it tells of none."""
    if not line.keys() >= set(Cell._fields):
        return None
    cell = Cell(**{field: line[field] for field in Cell._fields})
    fits = (
        value is None and field in _OPTIONAL or isinstance(value, _KINDS[field])
        for field, value in cell._asdict().items()
    )
    return cell if all(fits) else None


# The fields by which cells are counted, the slowest first; of the fastest the prompt, then the seed.
_SLOW = [field for field, axis in AXES.items() if not axis.fast]
_FAST = [field for field, axis in reversed(AXES.items()) if axis.fast]


def cells(axes: Axes) -> list[Cell]:
    """All cells, those of one sampler next to each other; the references, if steps make columns, at the end."""
    found = []
    for solver in axes.solvers:
        for recipe in combinations(_SLOW, lambda field, solver=solver: values_of(axes, field, solver)):
            if recipe["budget"] is not None:
                recipe["steps"] = solver.steps_within(recipe["budget"])
            alike = combinations(_FAST, lambda field: values(axes, field))
            found += [Cell(solver.name, **recipe, **one) for one in alike]
    return found + references(axes)


def references(axes: Axes) -> list[Cell]:
    """One converged cell for each value that is not a sampler's, if there is more than one number of steps."""
    if not axes.reference or not {"steps", "budget"} & set(several(axes)):
        return []
    grid = axes.sigma_grids[0] or AXES["sigma_grid"].default
    shared = [field for field in _SLOW + _FAST if not AXES[field].of_a_solver]
    return [
        Cell(REFERENCE, steps=axes.reference, sigma_grid=grid, **one, reference=True)
        for one in combinations(shared, lambda field: values(axes, field))
    ]


def combinations(fields: list[str], values: Callable[[str], tuple]) -> Iterator[dict[str, Any]]:
    """Each combination of values of the fields, the first field's the slowest to change."""
    return (dict(zip(fields, one, strict=True)) for one in product(*map(values, fields)))


def named_cells(family: str, axes: Axes) -> dict[str, Cell]:
    """The cells of a grid by their files.

    Args:
        family: Begins the files' names.
        axes: The values of each axis.

    Returns:
        Each cell by its file, FAMILY-sample_NAME and the fields that have more than one value, in the order of `cells`.
    """
    found, fields = {}, several(axes)
    tags = {(field, value): tag(axes, field, value) for field in fields for value in values(axes, field)}
    samplers = file_tags(solver.name for solver in axes.solvers)
    for cell in cells(axes):
        parts = [family, "converged" if cell.reference else f"sample_{samplers[cell.sampler]}"]
        shown = ((field, getattr(cell, field)) for field in fields)
        parts += [tags[pair] for pair in shown if pair in tags and not (cell.reference and AXES[pair[0]].of_a_solver)]
        found["-".join(parts) + ".png"] = cell
    return found
