"""Which network calls of a run begin its steps, where the sampler itself does not tell."""

from collections.abc import Sequence

from k_diffusing._tensors import same_level

RAISED = 1.415  # churn raises a level to sqrt(2) times itself at most (Karras et al. 2022, algorithm 2)


def step_starts(levels: Sequence[float], grid: Sequence[float]) -> list[int] | None:
    """Find the first network call of each step on a grid.

    A step begins at its sigma of the grid, or at one raised by churn. Its last stage may be at the next sigma, where
    the next step begins too: so what counts is that every step makes as many calls, the last as many or fewer. Failing
    that, that each level is called once.

    Args:
        levels: sigma of each call, in order.
        grid: n + 1 decreasing sigmas.

    Returns:
        The numbers of the calls; None where the calls leave it open.
    """
    n = len(grid) - 1
    counts = [count for count in range(1, len(levels) + 1) if (n - 1) * count < len(levels) <= n * count]
    for begins in (same_level, _raised_from):
        fitting = [
            starts
            for starts in (range(0, n * count, count) for count in counts)
            if all(begins(levels[start], sigma) for start, sigma in zip(starts, grid, strict=False))
        ]
        if fitting:
            return list(fitting[0]) if len(fitting) == 1 else None
    return _called_once(levels, grid[:-1])


def _called_once(levels: Sequence[float], grid: Sequence[float]) -> list[int] | None:
    """The one call at each level of the grid; a run may stop early if it makes no other calls."""
    places = [[call for call, level in enumerate(levels) if same_level(level, sigma)] for sigma in grid]
    starts = [found[0] for found in places if len(found) == 1]
    whole = len(starts) == len(grid) or starts == list(range(len(levels)))
    return starts if whole and starts[:1] == [0] and starts == sorted(starts) else None


def _raised_from(level: float, sigma: float) -> bool:
    return same_level(level, sigma) or sigma < level <= RAISED * sigma
