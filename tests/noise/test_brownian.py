"""Brownian paths, against the closed form of their covariance."""

import itertools
import math

import pytest
import torch
from noise_draws import SIGMAS, generators, streams
from torch.utils._python_dispatch import TorchDispatchMode

from k_diffusing.noise.brownian import BrownianPath

MANY = 200_000  # elements, of which each is a path of its own


def path(*shape, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return BrownianPath(lambda: torch.randn(shape, generator=generator, dtype=torch.float64), **options)


def overlap(one, other):
    """The covariance of two increments in unit noise: the shared length over the root of both, signed."""
    shared = max(0, min(max(one), max(other)) - max(min(one), min(other)))
    same = (one[0] > one[1]) == (other[0] > other[1])
    return (1 if same else -1) * shared / math.sqrt(abs(one[0] - one[1]) * abs(other[0] - other[1]))


QUESTIONS = {
    "consecutive": [(10, 7), (7, 3), (3, 1), (1, 0)],
    "dpmpp_sde": [(10, 6), (10, 4), (4, 2), (4, 1), (1, 0.3), (1, 0)],
    "split, then split again": [(9, 1), (9, 4), (4, 1), (6, 5), (2, 1.5), (9, 1)],
    "nested": [(9, 1), (7, 2), (5, 3), (4.5, 4)],
    "gaps and ends": [(5, 4), (2, 1), (20, 0), (3, 4.5), (30, 25), (0.5, 7)],
    "upwards": [(1, 2), (2, 5), (1.5, 3), (5, 1)],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_increments_have_the_covariance_of_brownian_motion(name):
    """Mean 0 and the closed-form covariance, each to 4.5 standard errors: (1 + rho^2) / n is that of a product of
    unit normals with correlation rho."""
    asked = QUESTIONS[name]
    w = path(MANY)
    noise = torch.stack([w(*interval) for interval in asked])
    assert noise.mean(1).abs().max() < 4.5 / math.sqrt(MANY)
    for (i, one), (j, other) in itertools.combinations_with_replacement(enumerate(asked), 2):
        rho = overlap(one, other)
        error = float((noise[i] * noise[j]).mean()) - rho
        assert abs(error) < 4.5 * math.sqrt((1 + rho**2) / MANY), (one, other)


def test_the_distribution_is_normal_after_a_bridge():
    """Fourth moments are 3, also of sums: of an increment, of a bridged one, and of the two neighbours' difference."""
    w = path(MANY)
    whole, upper = w(8, 2), w(8, 5)
    lower = w(5, 2)
    for noise in (whole, upper, lower, (upper - lower) / math.sqrt(2)):
        assert abs(float((noise**4).mean()) - 3) < 4.5 * math.sqrt(96 / MANY)
    assert abs(float((upper**2 * lower**2).mean()) - 1) < 4.5 * math.sqrt(
        8 / MANY
    )  # independent, not just uncorrelated


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_repeated_and_split_intervals_are_consistent(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    w = BrownianPath(lambda: torch.randn(2, 500, generator=generator, dtype=dtype))
    levels = [14.6, 9.0, 4.0, 1.7, 0.2, 0.0]
    noise = {pair: w(*pair) for pair in itertools.pairwise(levels)}
    whole = w(14.6, 0.0)
    parts = sum(math.sqrt(high - low) * noise[high, low] for high, low in noise) / math.sqrt(14.6)
    assert (whole - parts).abs().max() < 4 * tolerance  # whole and noise are up to 4
    w(12.0, 3.0), w(1.0, 0.1), w(20.0, 16.0)
    for pair, first in noise.items():
        assert (w(*pair) - first).abs().max() < tolerance
        assert torch.equal(w(*reversed(pair)), -w(*pair))


def test_a_split_of_a_tiny_or_a_huge_interval_keeps_its_precision():
    """FLUX in VE coordinates starts at a sigma of thousands: the noise of low intervals must not drown in it."""
    w = BrownianPath(lambda: torch.randn(100))
    w(30000.0, 100.0), w(100.0, 0.01)
    first = w(0.01, 0.0)
    assert (w(30000.0, 0.0) - w(30000.0, 0.0)).abs().max() == 0
    w(0.006, 0.003)
    assert (w(0.01, 0.0) - first).abs().max() < 1e-6


class Operations(TorchDispatchMode):
    """Takes note of the names of the operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_consecutive_steps_cost_one_draw_each_and_read_no_tensor_but_sigma():
    sampler = streams("torch", generators(0)[0], images=1).step_noise(torch.zeros(1, 4, 8, 8), SIGMAS, "brownian")
    with Operations() as operations:
        for pair in itertools.pairwise(SIGMAS.tolist()):
            sampler(*pair)
    assert operations.names == ["randn", "mul"] * (len(SIGMAS) - 1)
    with Operations() as operations:
        sampler(SIGMAS[-2], SIGMAS[-1])
    assert operations.names.count("_local_scalar_dense") == 2 and "randn" not in operations.names


def test_dpmpp_sde_pattern_costs_two_draws_a_step():
    drawn = []
    w = BrownianPath(lambda: drawn.append(1) or torch.zeros(1))
    for high, low in itertools.pairwise(SIGMAS.tolist()):
        w(high, (high + low) / 2), w(high, low)
    assert len(drawn) == 2 * (len(SIGMAS) - 1)


def test_what_is_forgotten_is_refused_and_the_rest_kept():
    w = path(4, remember=3)
    noise = {pair: w(*pair) for pair in itertools.pairwise(range(10, -1, -1))}
    assert len(w.pieces) == 3 and all(torch.equal(w(*pair), noise[pair]) for pair in [(3, 2), (2, 1), (1, 0)])
    with pytest.raises(ValueError, match="from sigma 4 .* last 3 intervals, up to 3.*brownian_tree"):
        w(4, 3)


def test_an_empty_interval_gets_unit_noise_and_leaves_the_path_alone():
    w = path(1000)
    first = w(2, 1)
    assert abs(float(w(1.5, 1.5).std()) - 1) < 0.1 and torch.equal(w(2, 1), first)


def test_a_path_remembers_sixteen_intervals():
    levels = torch.linspace(20, 1, 20)
    noise = streams("torch", seeds=1, images=1).step_noise(torch.zeros(1, 4), levels, "brownian")
    first = [noise(*pair) for pair in itertools.pairwise(levels[:17])][0]
    assert torch.equal(noise(levels[0], levels[1]), first)
    noise(levels[16], levels[17])
    with pytest.raises(ValueError, match="last 16 intervals"):
        noise(levels[0], levels[1])
