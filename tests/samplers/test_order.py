"""Orders of accuracy, measured: how the error falls with the step on an ODE whose solution is known.

The probability-flow ODE of one-dimensional data moves every point along with its quantile, so that the exact
solution from sigma_0 to sigma_1 is x -> Q_1(F_0(x)), with F the mixture's distribution function at sigma_0 and Q_1
its inverse at sigma_1. No reference integration is needed. All is in float64, on grids even in log sigma that stop
above 0: the last step to 0 is an Euler step whatever the sampler.
"""

import math

import pytest
import torch

from k_diffusing.oracle.closed_form import Mixture
from samplers_patch import SAMPLERS, adds_noise, find_sampler, run_sampler

DATA = Mixture(weights=(0.4, 0.6), means=(-1.0, 0.8), widths=(0.5, 0.6))  # smooth at the steps used here
SIGMA_MIN, SIGMA_MAX = 0.1, 10.0
FAR = 1000.0  # a sigma so large that the first steps, from there on, are all but exact


@pytest.fixture(autouse=True)
def float64():
    """dpm_fast and dpm_adaptive make tensors of their own of sigma_min and sigma_max, in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def denoiser(x, sigma):
    sigma = sigma.reshape(-1, 1)
    return DATA.posterior_mean(x, torch.ones_like(sigma), sigma)


def error(sampler: str, steps: int, options: dict | None = None, sigma_max: float = SIGMA_MAX) -> float:
    """Largest error at SIGMA_MIN over 19 points, from the quantiles 0.05 to 0.95 at sigma_max."""
    sigmas = torch.linspace(math.log(sigma_max), math.log(SIGMA_MIN), steps + 1).exp()
    p = torch.linspace(0.05, 0.95, 19)[None]
    x = run_sampler(find_sampler(sampler), denoiser, DATA.quantile(p, sigma_max), sigmas, options=options)
    assert x.dtype == torch.float64
    return float((x - DATA.quantile(p, SIGMA_MIN)).abs().max())


def slope(sampler: str, steps: tuple[int, int], options: dict | None = None, sigma_max: float = SIGMA_MAX) -> float:
    """d log(error) / d log(step) between two numbers of steps."""
    coarse, fine = (error(sampler, n, options, sigma_max) for n in steps)
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])


# Sampler, options, order. Where it is not the published one, the reason is in the tests below.
ORDERS = [
    ("euler", {}, 1),
    ("euler_ancestral", {"eta": 0.0}, 1),
    ("heun", {}, 2),
    ("dpm_2", {}, 2),
    ("dpm_2_ancestral", {"eta": 0.0}, 2),
    ("lms", {"order": 1}, 1),
    ("lms", {"order": 2}, 2),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2s_ancestral", {"eta": 0.0}, 2),
    ("dpmpp_sde", {"eta": 0.0}, 2),
    ("dpmpp_2m_sde", {"eta": 0.0}, 2),
    ("dpmpp_2m_sde", {"eta": 0.0, "solver_type": "heun"}, 2),
    ("dpmpp_3m_sde", {"eta": 0.0}, 2),
]


@pytest.mark.parametrize("sampler, options, order", ORDERS)
def test_order(sampler, options, order):
    # 0.07: what the next power of the step still adds at 80 to 160 steps
    assert slope(sampler, (80, 160), options) == pytest.approx(order, abs=0.07)


@pytest.mark.parametrize("order, expected", [(3, 2.9), (4, 3.9)])
def test_lms_order_without_its_first_steps(order, expected):
    """Started where they do no harm; the slope still climbs to the order (3.75, 3.87, 3.93 on finer grids)."""
    assert slope("lms", (160, 320), {"order": order}, FAR) == pytest.approx(expected, abs=0.07)


def test_lms_first_steps_hold_it_back():
    """lms begins with an Euler step, whose error, of second order, is what remains on fine grids."""
    slopes = [slope("lms", steps) for steps in ((20, 40), (80, 160), (160, 320), (640, 1280))]
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[0] > 3.2 and slopes[-1] == pytest.approx(2, abs=0.1)


def test_dpmpp_3m_sde_is_of_second_order():
    """Not for its first steps: as published and in k_diffusion, its second difference has half the Taylor weight."""
    assert slope("dpmpp_3m_sde", (160, 320), {"eta": 0.0}, FAR) == pytest.approx(2, abs=0.07)
    smaller = error("dpmpp_2m_sde", 80, {"eta": 0.0}) / error("dpmpp_3m_sde", 80, {"eta": 0.0})
    assert smaller == pytest.approx(4, abs=1)  # of the same order, and yet four times as exact


@pytest.mark.parametrize("left_over, order", [(0, 2), (1, 2), (2, 3)])
def test_dpm_fast(left_over, order):
    """Steps of three evaluations and order 3, but for the last: of the orders 2 and 1, of 1, or of 2.

    One last step of order k costs an error of order k + 1.
    """
    steps = (165 + left_over, 330 + left_over)
    assert slope("dpm_fast", steps) == pytest.approx(order, abs=0.07)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_keeps_its_tolerance(order):
    """No grid, so no step to take the slope against: the error falls with the tolerance, about in proportion."""
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5)
    errors = [error("dpm_adaptive", 1, {"rtol": tol, "atol": tol, "order": order}) for tol in tolerances]
    assert errors == sorted(errors, reverse=True)
    assert all(found < 3 * tol for found, tol in zip(errors, tolerances, strict=True))


def test_every_sampler_is_here():
    tested = {name for name, *_ in ORDERS} | {"dpm_fast", "dpm_adaptive"}
    assert tested == set(SAMPLERS)
    assert not any(adds_noise(find_sampler(name), options) for name, options, _ in ORDERS)
    assert all(SAMPLERS[name].order >= order for name, _, order in ORDERS)


def test_a_sampler_with_a_wrong_step_is_seen():
    """Heun's method with its second slope taken at the wrong sigma loses an order."""

    def lame_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
        ones = x.new_ones(len(x))
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            d = (x - model(x, sigma * ones)) / sigma
            ahead = x + d * (following - sigma)
            x = x + (d + (ahead - model(ahead, sigma * ones)) / sigma) / 2 * (following - sigma)
        return x

    assert slope(lame_heun, (80, 160)) == pytest.approx(1, abs=0.1)
