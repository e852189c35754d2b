"""The cells of a grid: one picture for each combination of sampler, steps, seed, prompt and so on.

    axes = Axes(solvers=(Solver("euler"), Solver("heun", per_step=2)), steps=(10, 20), seeds=(0, 1))
    named_cells("sdxl", axes)  # {"sdxl-sample_euler-steps10-seed0.png": Cell("euler", 10, 0, ...), ...}

Standard library only: what a grid consists of is known before anything heavy is imported.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby, product
from typing import NamedTuple

from k_diffusing.render.names import file_tags

REFERENCE = "dpmpp_2m"  # the converged reference's sampler: deterministic, of order 2


class Solver(NamedTuple):
    """What a grid must know of a sampler.

    per_step: network evaluations in each step but the last, which takes one. has_eta: has an option `eta` that is left
    to the grid. sigma_grid: the named grid it is known to need, or None. alone: a picture would depend on the others in
    its batch. counted: pairs of evaluations and the steps within them, where per_step does not tell.
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
        return dict(self.counted).get(evaluations, (evaluations - 1) // self.per_step + 1)


class Cell(NamedTuple):
    """One picture.

    sigma_grid: a name; "scheduler" is the scheduler's own. eta: None leaves it to the sampler. budget: the number of
    evaluations that `steps` were counted from, if they were. reference: drawn beside all samplers as what the
    probability-flow ODE converges to.
    """

    sampler: str
    steps: int
    seed: int = 0
    prompt: str = ""
    sigma_grid: str = "scheduler"
    guidance_scale: float = 1.0
    true_cfg_scale: float | None = None
    eta: float | None = None
    budget: int | None = None
    reference: bool = False

    @property
    def recipe(self) -> tuple:
        """All but seed and prompt: cells of one recipe can be rendered in one batch."""
        return self._replace(seed=0, prompt="", budget=None)


def told_of(cells: dict[str, Cell], lines: dict[str, dict]) -> set[str]:
    """The files whose lines of the results, by file, tell of their cells: a line may have been edited."""
    return {
        file
        for file in cells.keys() & lines.keys()
        if cells[file]._asdict().items() <= lines[file].items() and isinstance(lines[file].get("evaluations"), int)
    }


def cell_of(line: dict) -> Cell | None:
    """The cell that a line of the results tells of; None if it tells of none."""
    kinds = [float | int if kind is float else kind for kind in Cell.__annotations__.values()]
    if not line.keys() >= set(Cell._fields):
        return None
    cell = Cell(*(line[name] for name in Cell._fields))
    return cell if all(map(isinstance, cell, kinds)) else None


class Axes(NamedTuple):
    """The values of each axis, each at least one. budgets: in place of steps, if not empty. sigma_grids: None is
    the grid that the sampler needs, or the scheduler's. reference: steps of the converged reference, 0 for none."""

    solvers: tuple[Solver, ...]
    steps: tuple[int, ...] = ()
    budgets: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    prompts: tuple[str, ...] = ("",)
    sigma_grids: tuple[str | None, ...] = (None,)
    guidance_scales: tuple[float, ...] = (1.0,)
    true_cfg_scales: tuple[float | None, ...] = (None,)
    etas: tuple[float | None, ...] = (None,)
    reference: int = 0


# The fields of a cell that make columns and parts of names, in this order: the axis, and what a name has before the
# value.
FIELDS = {
    "steps": ("steps", "steps"),
    "budget": ("budgets", "nfe"),
    "seed": ("seeds", "seed"),
    "prompt": ("prompts", "prompt"),
    "sigma_grid": ("sigma_grids", ""),
    "guidance_scale": ("guidance_scales", "g"),
    "true_cfg_scale": ("true_cfg_scales", "cfg"),
    "eta": ("etas", "eta"),
}
OF_A_SOLVER = {"steps", "budget", "sigma_grid", "eta"}  # fields that the reference does not share with the others


def values(axes: Axes, field: str) -> tuple:
    """All values that a field of the cells has."""
    if field == "eta" and not any(solver.has_eta for solver in axes.solvers):
        return (None,)
    if field == "steps" and axes.budgets:
        return ()
    return getattr(axes, FIELDS[field][0])


def several(axes: Axes) -> list[str]:
    """The fields with more than one value."""
    return [field for field in FIELDS if len(values(axes, field)) > 1]


def cells(axes: Axes) -> list[Cell]:
    """All cells, those of one recipe next to each other; the references, if steps make columns, at the end."""
    found = []
    common = (axes.sigma_grids, axes.guidance_scales, axes.true_cfg_scales)
    for solver, count, grid, guidance, true_cfg in product(axes.solvers, axes.budgets or axes.steps, *common):
        steps, budget = (solver.steps_within(count), count) if axes.budgets else (count, None)
        grid = grid or solver.sigma_grid or "scheduler"
        for eta in axes.etas if solver.has_eta else (None,):
            for prompt, seed in product(axes.prompts, axes.seeds):
                found.append(Cell(solver.name, steps, seed, prompt, grid, guidance, true_cfg, eta, budget))
    return found + references(axes)


def references(axes: Axes) -> list[Cell]:
    """One converged cell for each guidance, prompt and seed, if there is more than one number of steps."""
    if not axes.reference or not {"steps", "budget"} & set(several(axes)):
        return []
    grid = axes.sigma_grids[0] or "scheduler"
    return [
        Cell(REFERENCE, axes.reference, seed, prompt, grid, guidance, true_cfg, reference=True)
        for guidance, true_cfg, prompt, seed in product(
            axes.guidance_scales, axes.true_cfg_scales, axes.prompts, axes.seeds
        )
    ]


def number(value: float) -> str:
    """All digits that tell it from another: 5 for 5.0, 0.1 for 0.1."""
    return repr(value).removesuffix(".0")


def tag(axes: Axes, field: str, value) -> str:
    """A value as a part of a file's name: "steps10", "karras", "prompt2" for the second prompt."""
    shown = axes.prompts.index(value) + 1 if field == "prompt" else value
    return FIELDS[field][1] + (shown if isinstance(shown, str) else number(shown))


def named_cells(family: str, axes: Axes) -> dict[str, Cell]:
    """The file of each cell, and the cell: family-sample_NAME and the fields that have more than one value."""
    found, fields = {}, several(axes)
    tags = {(field, value): tag(axes, field, value) for field in fields for value in values(axes, field)}
    samplers = file_tags(solver.name for solver in axes.solvers)
    for cell in cells(axes):
        parts = [family, "converged" if cell.reference else f"sample_{samplers[cell.sampler]}"]
        shown = ((field, getattr(cell, field)) for field in fields)
        parts += [tags[pair] for pair in shown if pair in tags and not (cell.reference and pair[0] in OF_A_SOLVER)]
        found["-".join(parts) + ".png"] = cell
    return found


def batches(todo: Iterable[tuple[str, Cell]], size: int, alone: Iterable[str]) -> list[list[tuple[str, Cell]]]:
    """(file, cell) pairs in batches of at most `size` of one recipe; samplers in `alone` one by one."""
    found, alone = [], set(alone)
    for recipe, group in groupby(todo, key=lambda pair: pair[1].recipe):
        pairs, most = list(group), 1 if recipe.sampler in alone else size
        found += [pairs[i : i + most] for i in range(0, len(pairs), most)]
    return found
