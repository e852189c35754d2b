"""The grids that are tried: those with a name, formulas, those proposed from a fine run, and blends of the best."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.tune.fine import Fine, Levels
from k_diffusing.tune.pictures import Pictures
from k_diffusing.tune.propose import POWERS, best_sigmas, even_rotation

OWN = "scheduler"  # the name of the scheduler's own grid
STARTS = (1.0, 0.6)  # of the largest sigma: where proposed grids begin
TRIED = len(SIGMA_GRIDS) + len(STARTS) * (len(POWERS) + 2) + 6  # grids at most that are tried at first


@dataclass
class Trial:
    """A grid and how it did.

    Attributes:
        name: What it is.
        grid: [n + 1], as the pipeline takes it.
        named: Whether a user can have it by a name.
        errors: Of the pictures so far, relative to the fine run's end.
    """

    name: str
    grid: list[float]
    named: bool = False
    errors: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean log of the errors: of two grids the one with the smaller is better."""
        return float(np.mean(np.log(np.maximum(self.errors, 1e-12))))


def usable(grid: Sequence[float], n: int) -> bool:
    """Whether values are a grid of n steps."""
    return len(grid) == n + 1 and all(a > b for a, b in zip(grid, grid[1:], strict=False)) and grid[-1] == 0


def named_trials(pictures: Pictures, n: int) -> list[Trial]:
    """The scheduler's own grid and all of SIGMA_GRIDS that are for this model and for n steps."""
    found = []
    for name in (OWN, *SIGMA_GRIDS):
        try:
            plan = pictures.plan("euler", None, None if name == OWN else name, n)
        except ValueError:  # for another kind of model, or other numbers of steps
            continue
        grid = plan.space.time(plan.sigmas).tolist()
        if usable(grid, n):
            found.append(Trial(name, grid, named=True))
    return found


def formula_trials(levels: Levels, n: int) -> list[Trial]:
    """Formulas with other constants than those of the named grids."""
    high, low = levels.largest, levels.smallest
    u = np.linspace(0, 1, n)
    found: dict[str, np.ndarray] = {}
    found["karras, rho 5"] = (high**0.2 + u * (low**0.2 - high**0.2)) ** 5
    for c in (0.5, 2.0):
        angles = np.arctan(high / c) + u * (np.arctan(low / c) - np.arctan(high / c))
        found[f"kl_optimal, c {c:g}"] = c * np.tan(angles)
    even = 1 - np.arange(n) / n
    for shift in (1.5, 3.0) if levels.flow else ():
        time = np.minimum(shift * even / (1 + (shift - 1) * even), levels.largest / (1 + levels.largest))
        found[f"even time, shift {shift:g}"] = time / (1 - time)
    return [Trial(name, levels.grid(sigmas)) for name, sigmas in found.items()]


def proposed_trials(fine: Fine, levels: Levels, n: int) -> list[Trial]:
    """Those that the fine run proposes; of a flow model, whose grids begin at time 1, from there alone."""
    found: dict[str, np.ndarray | None] = {}
    for share in STARTS[: 1 if levels.flow else None]:
        part = fine.below(share * levels.largest)
        suffix = "" if share == 1 else f", from {part.sigmas[0]:.3g}"
        found |= {f"change of D, sigma^-{p:g}{suffix}": best_sigmas(part, p, n).get(n) for p in POWERS}
        found |= {f"rotation^{p:g}{suffix}": even_rotation(part, n, p) for p in (0.75, 1.0)}
    return [Trial(name, levels.grid(sigmas)) for name, sigmas in found.items() if sigmas is not None]


def first_trials(pictures: Pictures, levels: Levels, fine: Fine, n: int) -> list[Trial]:
    """All that are tried before any is judged, each grid once."""
    return different([*named_trials(pictures, n), *formula_trials(levels, n), *proposed_trials(fine, levels, n)], n)


def different(trials: Iterable[Trial], n: int) -> list[Trial]:
    """The usable ones, without those equal to an earlier one to 0.1 %."""
    kept: list[Trial] = []
    for trial in trials:
        if usable(trial.grid, n) and not any(np.allclose(trial.grid, other.grid, rtol=1e-3) for other in kept):
            kept.append(trial)
    return kept


def blends(best: Sequence[Trial], levels: Levels) -> list[Trial]:
    """Half-way in log sigma between each two of the best."""
    logs = [np.log(levels.sigmas(trial.grid)) for trial in best]
    pairs = [(i, j) for i in range(len(best)) for j in range(i)]
    return [
        Trial(f"between {best[j].name} and {best[i].name}", levels.grid(np.exp((logs[i] + logs[j]) / 2)))
        for i, j in pairs
    ]
