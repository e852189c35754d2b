"""Grids proposed from a fine run: the search is exact, whatever the costs."""

from itertools import combinations

import numpy as np
import pytest
import torch

from k_diffusing.tune.fine import Fine, Levels
from k_diffusing.tune.propose import best_nodes, best_sigmas, even_rotation, step_costs


def fine_of(estimates, sigmas):
    """A fine run with these denoised estimates [N, elements]."""
    change = ((estimates[:, None] - estimates[None]) ** 2).sum(-1)
    turn = np.abs(np.diff(np.arctan(sigmas)))
    return Fine(sigmas, change, turn, torch.zeros(1, estimates.shape[1]), (estimates.shape[1],))


@pytest.mark.parametrize("seed", range(3))
def test_the_nodes_are_the_best_of_all(seed):
    random = np.random.default_rng(seed)
    costs = np.where(np.tri(8, 9, dtype=bool), np.inf, random.random((8, 9)))
    found = best_nodes(costs, 8)
    assert list(found) == list(range(1, 9))
    for n, nodes in found.items():
        every = [[0, *inner, 8] for inner in combinations(range(1, 8), n - 1)]
        cheapest = min(sum(costs[a, b] for a, b in zip(one, one[1:], strict=False)) for one in every)
        assert sum(costs[a, b] for a, b in zip(nodes, nodes[1:], strict=False)) == pytest.approx(cheapest, rel=1e-12)
        assert nodes[0] == 0 and nodes[-1] == 8 and len(nodes) == n + 1


def test_the_cost_of_a_step_is_its_integral():
    """Of an estimate linear in lambda |D - D_i|^2 is the square of the way: a third of its cube, times the slope's."""
    sigmas = np.exp(np.linspace(2, -3, 401))
    estimates = -np.log(sigmas)[:, None] * np.array([[3.0, 4.0]])
    costs = step_costs(fine_of(estimates, sigmas), power=0.0)
    way = np.log(sigmas[100] / sigmas[300])
    assert costs[100, 300] == pytest.approx(25 * way**3 / 3, rel=1e-3)  # the trapezoid rule with 200 pieces: 1e-5
    assert costs[100, 401] == costs[100, 400], "nothing is known below the last level"
    assert np.isinf(costs[100, :101]).all()


def test_grids_are_dense_where_the_estimates_change():
    sigmas = np.exp(np.linspace(3, -3, 61))
    estimates = np.stack([np.tanh(3 * np.log(sigmas)), np.zeros(61)], axis=1)  # changes at sigma 1
    found = best_sigmas(fine_of(estimates, sigmas), 0.0, 8)[8]
    assert found[0] == sigmas[0] and (np.diff(found) < 0).all()
    assert sum(0.3 < sigma < 3 for sigma in found) >= 5


def test_rotation_is_even():
    sigmas = np.exp(np.linspace(3, -3, 601))
    angles = np.arctan(even_rotation(fine_of(np.zeros((601, 1)), sigmas), 6))
    assert np.ptp(np.diff(angles)) < 0.01  # of 0.25: the levels between which it is linear are 0.01 apart in log sigma


@pytest.mark.parametrize("flow", [False, True])
def test_levels_there_and_back(flow):
    levels = Levels(flow, largest=199.0 if flow else 14.6, smallest=0.03)
    sigmas = levels.fine(40)
    grid = levels.grid(sigmas)
    assert len(grid) == 41 and grid[-1] == 0 and (grid[0] == 1.0) == flow
    assert np.allclose(levels.sigmas(grid), sigmas, rtol=1e-6)
    assert (np.diff(sigmas) < 0).all() and sigmas[-1] == pytest.approx(0.03)
