"""Samplers of several stages in a step: identities, orders of their options, and the noise along a step.

test_ours.py has what every sampler keeps.
"""

import functools
import math

import pytest
import torch
from diffusers import DPMSolverSinglestepScheduler
from tiny_models import SDXL_SCHEDULE, largest_difference
from wavy_model import SAME, SIGMAS, denoiser, run, start

from k_diffusing.oracle.order import ode_error, slope
from k_diffusing.samplers.runge_kutta import RALSTON, Tableau, sample_runge_kutta
from k_diffusing.schedulers.as_sampler import as_sampler
from samplers_patch import find_sampler

SSPRK3 = Tableau((1, 1 / 2), ((1,), (1 / 4, 1 / 4)), (1 / 6, 1 / 6, 2 / 3))


@pytest.mark.parametrize("name, options, other, others", [
    ("dpmpp_2s", {}, "dpmpp_2s_ancestral", {"eta": 0.0}),
    ("dpmpp_2s", {"r": 0.3}, "dpmpp_sde", {"eta": 0.0, "r": 0.3}),
    ("res_2s", {"eta": 1.0, "c2": 0.4}, "seeds_2", {"solver_type": "phi_2", "r": 0.4}),
    ("res_2s", {"c2": 1.0}, "exp_heun_2_x0", {}),
    ("exp_heun_2_x0_sde", {"eta": 0.7, "solver_type": "phi_1"}, "seeds_2", {"eta": 0.7, "r": 1.0}),
    ("seeds_3", {"eta": 0.0, "r_1": 0.25, "r_2": 0.6}, "dpmpp_3s", {"r_1": 0.25, "r_2": 0.6}),
    (functools.partial(sample_runge_kutta, tableau=RALSTON), {}, "ralston", {}),
    (functools.partial(sample_runge_kutta, tableau=((1.0,), ((1.0,),), (0.5, 0.5))), {}, "heun", {}),
    (functools.partial(sample_runge_kutta, tableau=((), (), (1.0,))), {}, "euler", {}),
])  # fmt: skip
def test_identities(name, options, other, others):
    assert largest_difference(run(name, **options), run(other, **others)) < SAME


@pytest.mark.parametrize("sampler, options, order", [
    ("seeds_2", {"eta": 0.0, "solver_type": "phi_2", "r": 0.7}, 2),
    ("exp_heun_2_x0", {"solver_type": "phi_1"}, 2),
    ("res_2s", {"c2": 0.8}, 2),
    ("res_3s", {"c2": 0.4, "c3": 0.8}, 3),
    ("dpmpp_3s", {"r_1": 0.5, "r_2": 2 / 3}, 3),
    (functools.partial(sample_runge_kutta, tableau=SSPRK3), {}, 3),
])  # fmt: skip
def test_orders_of_other_options(sampler, options, order):
    errors = tuple(ode_error(sampler, n, options) for n in (80, 160))
    assert slope(errors, (80, 160)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name, stages", [("seeds_2", 2), ("seeds_3", 3), ("exp_heun_2_x0_sde", 1), ("res_3s", 2)])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noise_of_a_step_has_its_variance_at_every_stage(name, stages, eta):
    """Of a path of independent draws: each is a vector of its own here, so that squares add up."""
    seen, draws = [], []

    def noise_sampler(sigma, sigma_next):
        draws.append((float(sigma), float(sigma_next)))
        return torch.eye(4, dtype=torch.float64)[len(draws) - 1].reshape(1, 4, 1, 1)

    def model(x, sigma):
        seen.append((x.clone(), float(sigma)))
        return torch.zeros_like(x)

    grid = torch.tensor([5.0, 1.5], dtype=torch.float64)
    x = run(name, grid, torch.zeros(1, 4, 1, 1, dtype=torch.float64), model, eta=eta, noise_sampler=noise_sampler)
    for state, sigma in [*seen[1:], (x, 1.5)]:
        variance = sigma**2 * (1 - math.exp(-2 * eta * math.log(5.0 / sigma)))
        assert float((state**2).sum()) == pytest.approx(variance, rel=1e-12)
    assert all(high >= low for high, low in draws) and (draws[0][0], draws[-1][1]) == (5.0, 1.5)
    assert sum(high > low for high, low in draws) == stages


@pytest.mark.parametrize("end", [0.05, 0.0])
def test_heunpp2_by_its_formula(end):
    """Three slopes, two in the step before the last, one in that, weighted by their levels over the first's."""
    s0, s1, s2, s3 = levels = torch.tensor([9.0, 4.0, 1.5, end], dtype=torch.float64)

    def slope(x, sigma):
        return (x - denoiser(x, sigma)) / sigma

    x = start(9.0)
    first = slope(x, s0)
    ahead = x + (s1 - s0) * first
    second = slope(ahead, s1)
    third = slope(ahead + (s2 - s1) * second, s2)
    x = x + (s1 - s0) * ((1 - (s1 + s2) / (3 * s0)) * first + s1 / (3 * s0) * second + s2 / (3 * s0) * third)
    first = slope(x, s1)
    second = slope(x + (s2 - s1) * first, s2)
    x = x + (s2 - s1) * ((1 - s2 / (2 * s0)) * first + s2 / (2 * s0) * second)
    x = x + (s3 - s2) * slope(x, s2)
    assert largest_difference(run("heunpp2", levels), x) < SAME


def test_dpmpp_2s_is_diffusers():
    """Whose grid has the levels of the stages as well. Its third order has other weights in the second stage."""
    fine = torch.linspace(math.log(14.6), math.log(0.1), 13, dtype=torch.float64).exp()
    known = {key: SDXL_SCHEDULE[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    theirs = run(as_sampler(DPMSolverSinglestepScheduler(**known, solver_order=2)), fine)
    # 1e-5: their sigmas are in float32
    assert largest_difference(run("dpmpp_2s", fine[::2]), theirs) < 1e-5 * float(theirs.abs().max())


@pytest.mark.parametrize("fractions", [{"c2": 2 / 3}, {"c2": 0.5, "c3": 0.5}])
def test_fractions_of_res_3s_that_no_method_has(fractions):
    with pytest.raises(ValueError, match="there is no method of order 3 with c2="):
        find_sampler("res_3s").function(denoiser, start(), SIGMAS, **fractions)


def test_an_unknown_solver_type_is_told():
    with pytest.raises(ValueError, match="unknown solver_type 'heun': choose 'phi_1' or 'phi_2'"):
        find_sampler("seeds_2").function(denoiser, start(), SIGMAS, solver_type="heun")
