"""Orders of accuracy, measured by oracle/order.py, against those published."""

import pytest
import torch

from k_diffusing.oracle.order import SIGMA_MAX, ode_error, slope, solve
from samplers_patch import SAMPLERS, adds_noise, find_sampler

FAR = 1000.0  # a sigma so large that the first steps, from there on, are all but exact


@pytest.fixture(autouse=True)
def float64():
    """dpm_fast and dpm_adaptive make tensors of their own of sigma_min and sigma_max, in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def order_of(sampler, steps: tuple[int, int], options: dict | None = None, sigma_max: float = SIGMA_MAX) -> float:
    """The slope between two numbers of steps."""
    coarse, fine = (ode_error(sampler, n, options, sigma_max=sigma_max) for n in steps)
    return slope((coarse, fine), steps)


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
    assert order_of(sampler, (80, 160), options) == pytest.approx(order, abs=0.07)


@pytest.mark.parametrize("sampler, options", [*((name, options) for name, options, _ in ORDERS), ("dpm_fast", {})])
def test_float64_stays_float64(sampler, options):
    assert solve(sampler, 6, options)[0].dtype == torch.float64


def test_float64_stays_float64_in_adaptive_steps():
    assert solve("dpm_adaptive", 1)[0].dtype == torch.float64


@pytest.mark.parametrize("order, expected", [(3, 2.9), (4, 3.9)])
def test_lms_order_without_its_first_steps(order, expected):
    """Started where they do no harm; the slope still climbs to the order (3.75, 3.87, 3.93 on finer grids)."""
    assert order_of("lms", (160, 320), {"order": order}, FAR) == pytest.approx(expected, abs=0.07)


def test_lms_first_steps_hold_it_back():
    """lms begins with an Euler step, whose error, of second order, is what remains on fine grids."""
    slopes = [order_of("lms", steps) for steps in ((20, 40), (80, 160), (160, 320), (640, 1280))]
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[0] > 3.2 and slopes[-1] == pytest.approx(2, abs=0.1)


def test_dpmpp_3m_sde_is_of_second_order():
    """Not for its first steps: as published and in k_diffusion, its second difference has half the Taylor weight."""
    assert order_of("dpmpp_3m_sde", (160, 320), {"eta": 0.0}, FAR) == pytest.approx(2, abs=0.07)
    smaller = ode_error("dpmpp_2m_sde", 80, {"eta": 0.0}) / ode_error("dpmpp_3m_sde", 80, {"eta": 0.0})
    assert smaller == pytest.approx(4, abs=1)  # of the same order, and yet four times as exact


@pytest.mark.parametrize("left_over, order", [(0, 2), (1, 2), (2, 3)])
def test_dpm_fast(left_over, order):
    """Steps of three evaluations and order 3, but for the last: of the orders 2 and 1, of 1, or of 2.

    One last step of order k costs an error of order k + 1.
    """
    steps = (165 + left_over, 330 + left_over)
    assert order_of("dpm_fast", steps) == pytest.approx(order, abs=0.07)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_keeps_its_tolerance(order):
    """No grid, so no step to take the slope against: the error falls with the tolerance, about in proportion."""
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5)
    errors = [ode_error("dpm_adaptive", 1, {"rtol": tol, "atol": tol, "order": order}) for tol in tolerances]
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

    assert order_of(lame_heun, (80, 160)) == pytest.approx(1, abs=0.1)
