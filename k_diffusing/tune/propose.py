"""Grids proposed from a fine run: the best nodes by an integral, all numbers of steps at once, and even rotation."""

import numpy as np

from k_diffusing.tune.fine import Fine

POWERS = (0.75, 1.0, 1.25, 1.5)  # 2 would be the bound of Sabour et al. 2024 (arXiv 2404.14507) on the ODE's path


def step_costs(fine: Fine, power: float) -> np.ndarray:
    """What a step from level i to level k costs, [N, N + 1], infinite for k <= i; level N is sigma 0.

    The integral of |D(v) - D_i|^2 v^-power dlambda from i to k, by the trapezoid rule over the levels between. The
    last level above 0 stands for all below it.
    """
    lambdas = -np.log(fine.sigmas)
    weighted = fine.change * fine.sigmas**-power
    pieces = (weighted[:, 1:] + weighted[:, :-1]) / 2 * np.diff(lambdas)
    total = np.concatenate([np.zeros((len(lambdas), 1)), pieces.cumsum(axis=1)], axis=1)
    costs = total - total.diagonal()[:, None]
    costs = np.concatenate([costs, costs[:, -1:]], axis=1)
    costs[np.tril_indices_from(costs)] = np.inf
    return costs


def best_nodes(costs: np.ndarray, most: int) -> dict[int, list[int]]:
    """For each number of steps up to `most` the levels, from 0 to the last, whose steps cost least in sum.

    costs: [N, N + 1] as `step_costs` makes them. Returns {n: n + 1 increasing numbers of levels}; exact, as all are
    weighed.
    """
    last = costs.shape[1] - 1
    square = np.vstack([costs, np.full((1, last + 1), np.inf)])
    best, came = square[0], []
    nodes = {1: [0, last]}
    for n in range(2, min(most, last) + 1):
        through = best[:, None] + square
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
        path = [last]
        for back in reversed(came):
            path.append(int(back[path[-1]]))
        nodes[n] = [0, *reversed(path)]
    return nodes


def best_sigmas(fine: Fine, power: float, most: int) -> dict[int, np.ndarray]:
    """For each number of steps the n sigmas above 0 that `best_nodes` finds."""
    found = best_nodes(step_costs(fine, power), most)
    return {n: fine.sigmas[nodes[:-1]] for n, nodes in found.items()}


def even_rotation(fine: Fine, n: int, power: float = 1.0) -> np.ndarray:
    """N sigmas between which the trajectory turns evenly (2603.00763 has it by curvature and torsion); to a power."""
    turned = np.concatenate([[0.0], (fine.turn**power).cumsum()])
    places = np.linspace(0, turned[-1], n + 1)[:-1]
    return np.exp(np.interp(places, turned, np.log(fine.sigmas)))
