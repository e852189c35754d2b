"""What pages say of convergence in words: which samplers are the nearest, and from where on."""

from collections import Counter

from benchmarks.convergence_figures import OWN_GRID, TABLE_BUDGETS, at_the_floor, least, nearest
from benchmarks.data import select
from benchmarks.pages import listed
from benchmarks.record import Data
from k_diffusing.samplers.facts import FACTS

DEMOS = ("demo, SDXL", "demo, FLUX", OWN_GRID)
TWO_STAGES = ("heun", "dpm_2")
SCHEDULERS, KARRAS = "the scheduler's own", "Karras'"


def most_often(data: Data, models: tuple[str, ...], stochastic: bool) -> tuple[list[str], int]:
    """Who is among the nearest in most cells of the tables' columns, and in how many."""
    cells = [nearest(data, model, stochastic, budget) for model in models for budget in TABLE_BUDGETS]
    counts = Counter(name for names in cells for name in names)
    most = max(counts.values())
    return [name for name in FACTS if counts[name] == most], most


def told_most_often(data: Data, models: tuple[str, ...], stochastic: bool) -> str:
    names, most = most_often(data, models, stochastic)
    return f"{listed(names)}, in {most} of {len(models) * len(TABLE_BUDGETS)} cells"


def flux_grid(data: Data) -> str:
    """On which grid, the scheduler's own or Karras', the sampler that is nearest most often has less error."""
    name = most_often(data, DEMOS, False)[0][0]
    errors = {
        budget: [least(data, model, False, budget)[name] for model in (OWN_GRID, "demo, FLUX")]
        for budget in TABLE_BUDGETS
    }
    own = [budget for budget, (of_own, karras) in errors.items() if of_own < karras]
    others = [budget for budget in errors if budget not in own]
    if not own or not others:
        return f"{name} has less error on {SCHEDULERS if own else KARRAS} grid with each number of evaluations"
    with_own, with_karras = f"{SCHEDULERS} grid with {listed(own)} evaluations", f"{KARRAS} with {listed(others)}"
    return f"{name} has less error on {with_own}, on {with_karras}"


def overtake(data: Data, model: str) -> str:
    """From where on both two-stage samplers are nearer than euler."""
    settings = sorted(row["setting"] for row in select(data, model=model, sampler="euler"))
    ahead = [
        all(error_at(data, model, name, setting) < error_at(data, model, "euler", setting) for name in TWO_STAGES)
        for setting in settings
    ]
    first = next((i for i in range(len(settings)) if all(ahead[i:])), None)
    return "with none of the numbers measured" if first is None else f"from {settings[first]} evaluations on"


def error_at(data: Data, model: str, sampler: str, setting: int) -> float:
    """Of a sampler that is given so many evaluations."""
    return select(data, model=model, sampler=sampler, setting=setting)[0]["error"]


def firsts(data: Data, sampler: str) -> str:
    """In how many cells of the demo models' columns a sampler is the first."""
    cells = [nearest(data, model, False, budget)[0] for model in DEMOS for budget in TABLE_BUDGETS]
    return f"{cells.count(sampler)} of {len(cells)}"


def scatter(data: Data) -> str:
    """How many times as large as the least the largest error of the four pictures of a run is, at most."""
    rows = [row for model in DEMOS for row in select(data, model=model) if "errors" in row]
    return f"{max(max(row['errors']) / min(row['errors']) for row in rows):.0f}"


def noisy_at_the_floor(data: Data, model: str, budget: int) -> str:
    """How many samplers that add noise are, and who is not."""
    names = at_the_floor(data, model, budget)
    others = [name for name in least(data, model, True, budget) if name not in names]
    without = f" (not {listed(others, 'or')})" if others else ""
    return f"{len(names)} of {len(names) + len(others)}{without}"
