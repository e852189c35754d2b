"""Which grid is best on some pictures, and how sure that is."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from k_diffusing.tune.candidates import Trial, blends, different
from k_diffusing.tune.fine import Levels

PARTS = (8, 4, 2, 1)  # the rounds see an eighth, a quarter, half and all of the pictures
KEPT = ((8, 3), (4, 3), (3, 2))  # after each round but the last: of the best, and of the best with a name
BEYOND = 1.5  # standard errors by which a grid has to win; a moved one was fitted to half of the pictures


class Interval(NamedTuple):
    """A geometric mean over pictures with its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Of errors, or of ratios of errors, by Student's t of their logs."""
    from scipy import stats  # takes a while to import

    logs = np.log(np.maximum(values, 1e-12))
    mean, count = float(logs.mean()), len(logs)
    half = float(stats.t.ppf(0.975, count - 1) * logs.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
    return Interval(math.exp(mean), *(math.exp(mean + sign * half) if half < 700 else math.nan for sign in (-1, 1)))


def ratio(a: Trial, b: Trial) -> Interval:
    """Of a's errors to b's on the same pictures."""
    return interval([x / max(y, 1e-12) for x, y in zip(a.errors, b.errors, strict=True)])


Measure = Callable[[list[Trial], int], None]
Move = Callable[[Trial, int], list[Trial]]


def race(trials: list[Trial], measure: Measure, move: Move, pictures: int, levels: Levels) -> list[Trial]:
    """Judge grids on more and more pictures, dropping the worse and trying variations of the best.

    Args:
        trials: All of one number of steps.
        measure: (trials, count) measures their errors on the first `count` pictures.
        move: (trial, count) -> what might be better, by the first `count` pictures.
        pictures: How many there are.
        levels: Of the model.

    Returns:
        Those that were measured on all pictures, the best first.
    """
    n, (eighth, quarter, half, every) = len(trials[0].grid) - 1, rounds(pictures)
    measure(trials, eighth)
    alive = survivors(trials, *KEPT[0])
    measure(alive, quarter)
    alive = _with(alive, blends(sorted(alive, key=_score)[:3], levels), n)
    measure(alive, quarter)
    alive = survivors(alive, *KEPT[1])
    measure(alive, half)
    alive = survivors(alive, *KEPT[2])
    measure(alive, every)
    alive = _with(alive, move(min(alive, key=_score), half), n)
    measure(alive, every)
    return sorted(alive, key=_score)


def rounds(pictures: int) -> list[int]:
    """How many pictures each round sees."""
    return [max(pictures // part, 1) for part in PARTS]


def _with(alive: list[Trial], more: list[Trial], n: int) -> list[Trial]:
    """The grids, and those of n steps that are not among them."""
    return [*alive, *different([*alive, *more], n)[len(alive) :]]


def _score(trial: Trial) -> float:
    return trial.score


def survivors(trials: list[Trial], most: int, most_named: int) -> list[Trial]:
    """The best of all, and the best of those with a name."""
    ranked = sorted(trials, key=_score)
    named = [trial for trial in ranked if trial.named][:most_named]
    return [*ranked[:most], *(trial for trial in named if trial not in ranked[:most])]


def choose(trials: list[Trial], in_doubt: Callable[[list[Trial]], list[list[float]]]) -> Trial:
    """The best one, if it beats the best with a name beyond the spread between pictures; else that one.

    in_doubt: (grids) -> their errors on other pictures. Where the best is ahead and not by enough, these count too.
    """
    best = min(trials, key=_score)
    named = min((trial for trial in trials if trial.named), key=_score, default=best)
    if best is named or wins(best.errors, named.errors):
        return best
    more, other = in_doubt([best, named])
    return best if wins([*best.errors, *more], [*named.errors, *other]) else named


def wins(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the mean of the paired log ratios of a to b is below 0 by more than BEYOND of its standard errors."""
    logs = np.log(np.maximum(a, 1e-12)) - np.log(np.maximum(b, 1e-12))
    spread = float(logs.std(ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return float(logs.mean()) + BEYOND * spread < 0
