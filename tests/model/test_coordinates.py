"""Flow coordinates: states and sigmas there and back."""

import pytest
import torch
from sdxl_schedulers import random
from tiny_models import largest_difference

from k_diffusing.model.coordinates import FLOW, LARGEST_FLOW_TIME, VE, variance_exploding
from k_diffusing.oracle.mixture import MIXTURE
from samplers_patch import find_sampler, run_sampler


@pytest.mark.parametrize("coordinates", [FLOW, VE])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.99, LARGEST_FLOW_TIME])
def test_state_and_back(coordinates, t):
    latents, t = random(2, 5, 16).double(), torch.tensor([t, 0.0], dtype=torch.float64)
    sigma = t[0] / (1 - t[0]) if coordinates is VE else t[0]
    state = coordinates.state(latents, sigma)
    assert largest_difference(coordinates.latents(state, sigma), latents) < 2e-15  # float64
    assert float(coordinates.time(sigma)) == pytest.approx(float(t[0]), abs=1e-15)


def test_ve_state_is_variance_exploding():
    x0, eps, t = random(2, 16).double(), random(2, 16, seed=1).double(), torch.tensor(0.8, dtype=torch.float64)
    sigma = t / (1 - t)
    assert largest_difference(VE.state((1 - t) * x0 + t * eps, sigma), x0 + sigma * eps) < 1e-14  # float64


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 12.0, 100.0])
@pytest.mark.parametrize("n", [1, 2, 20, 1000, 5000])
def test_ve_grid_decreases(n, shift):
    """However close to 1 the second time is: the first is clamped, never below it."""
    t = torch.linspace(1, 0, n + 1)
    t = shift * t / (1 + (shift - 1) * t)
    sigmas = variance_exploding(t)
    assert sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0
    assert sigmas.dtype == torch.float32
    assert sigmas[0] >= LARGEST_FLOW_TIME / (1 - LARGEST_FLOW_TIME) * 0.999


FIRST_TIMES = {  # of (first, second), the time that the first becomes
    (1.0, 0.9): LARGEST_FLOW_TIME,
    (0.999, 0.9): LARGEST_FLOW_TIME,
    (1.0, 0.994): 0.997,  # half-way to 1
    (0.997, 0.996): 0.997,  # half-way to 1 would be above the user's own
    (0.9955, 0.9952): 0.9955,
    (LARGEST_FLOW_TIME, 0.994): LARGEST_FLOW_TIME,
    (0.9949, 0.9): 0.9949,
}


@pytest.mark.parametrize("first, second", FIRST_TIMES)
def test_ve_grid_of_a_first_time_near_one(first, second):
    sigmas = variance_exploding(torch.tensor([first, second, 0.0], dtype=torch.float64))
    times = sigmas / (1 + sigmas)
    # 3e-7: float32, at times near 1
    assert times.tolist() == pytest.approx([FIRST_TIMES[first, second], second, 0.0], abs=3e-7)


def test_ve_grid_keeps_a_first_time_below_one():
    t = torch.tensor([0.9, 0.5, 0.0])
    assert largest_difference(variance_exploding(t), torch.tensor([9.0, 1.0, 0.0])) < 1e-5  # float32's 0.9


def test_euler_is_the_same_in_both_coordinates():
    """float64, 20 steps, on the closed-form mixture, from the same first time."""
    t = torch.linspace(1, 0, 21, dtype=torch.float64)
    t[0] = LARGEST_FLOW_TIME

    def denoiser(coordinates):
        def denoised(x, sigma):
            time = coordinates.time(sigma).reshape(-1, 1)
            return MIXTURE.posterior_mean(coordinates.latents(x, sigma.reshape(-1, 1)), 1 - time, time)

        return denoised

    z = random(1, 500).double()
    results = []
    for coordinates, sigmas in ((FLOW, t), (VE, t / (1 - t))):
        x = coordinates.state(z, sigmas[0])
        results.append(run_sampler(find_sampler("euler"), denoiser(coordinates), x, sigmas))
    # float64 rounds the VE state, up to 1e5, by 1e-11; the steps shrink that with it
    assert largest_difference(*results) < 1e-11
    assert results[0].std() > 0.5
