"""A grid moved by Gauss-Newton: how the ends of the pictures move with its sigmas, as runs of the sampler tell."""

import numpy as np
import torch

from k_diffusing.tune.candidates import Trial
from k_diffusing.tune.fine import Levels

WAYS = 7  # at most, in which a grid is moved beside its start: its levels themselves where there are no more
TOLD = -0.15  # of the mean step in log sigma: how far a grid is moved to learn; nothing is above the start
LARGEST = 0.25  # likewise: how far a level is moved then, at most
DAMPED = (0.03, 0.3)  # of the mean diagonal
CLOSE = 0.02  # in log sigma: levels come no nearer to each other
SURE = 0.05  # of the median square of errors: pictures that are nearer already do not weigh more


def ways(n: int, flow: bool) -> np.ndarray:
    """Shapes [K, n] of moves of log sigma: tents over the numbers of the levels; a flow model's start stays at 1."""
    count = min(n - 1, WAYS)
    knots = np.linspace(0, n - 1, count + 1)
    return np.array([np.interp(np.arange(n), knots, row) for row in np.eye(count + 1)[int(flow) :]])


def moved(base: Trial, levels: Levels, move: np.ndarray) -> Trial:
    """The grid whose log sigmas [n] are moved by so many mean steps."""
    logs = np.log(levels.sigmas(base.grid))
    step = (logs[0] - logs[-1]) / max(len(logs) - 1, 1)
    target = logs + step * move
    target[0] = min(target[0], np.log(levels.largest))
    for i in range(1, len(target)):
        target[i] = min(target[i], target[i - 1] - CLOSE)
    return Trial(f"{base.name.removesuffix(', moved')}, moved", levels.grid(np.exp(target)))


def tried(base: Trial, levels: Levels) -> list[Trial]:
    """The grids to run: the base, and it moved a little in each way."""
    shapes = ways(len(base.grid) - 1, levels.flow)
    return [Trial(base.name, base.grid), *(moved(base, levels, TOLD * way) for way in shapes)]


def best_moves(runs: list[torch.Tensor], ends: torch.Tensor) -> list[list[float]]:
    """For each of DAMPED the parts of the ways that should bring the pictures nearest to their ends.

    runs: of `tried`, final latents [P, elements] each. ends: [P, elements], the fine run's. What is made small is the
    sum over pictures of |r|^2 / (|r_0|^2 + c), with r the relative distance: nearly that of log |r|.
    """
    sizes = ends.double().norm(dim=1)[:, None]
    first, *others = (((run.double() - ends) / sizes) for run in runs)
    squares = (first**2).sum(1)
    weights = (1 / (squares + SURE * squares.median() + 1e-12)).sqrt()[:, None]
    slopes = torch.stack([((other - first) / TOLD * weights).flatten() for other in others])
    gram, right = (slopes @ slopes.T).numpy(), (slopes @ (first * weights).flatten()).numpy()
    size = np.trace(gram) / len(gram) or 1.0
    found = [-np.linalg.solve(gram + damped * size * np.eye(len(gram)), right) for damped in DAMPED]
    return [(move * min(1.0, LARGEST / max(np.abs(move).max(), LARGEST))).tolist() for move in found]
