"""Preconditionings, against diffusers' schedulers and what a perfect network returns."""

import diffusers
import pytest
import torch
from sdxl_schedulers import euler, make, random
from tiny_models import largest_difference

from k_diffusing.model.preconditioning import edm_preconditioning
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_rows_are_eulers(prediction_type):
    """Exactly: the operations are in the same order."""
    scheduler = euler(prediction_type=prediction_type)
    scheduler.set_timesteps(7)
    row = preconditioning(scheduler)
    x, output = random(1, 4, 8, 8), random(1, 4, 8, 8, seed=1)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        assert torch.equal(row.network_input(x, sigma), scheduler.scale_model_input(x, t))
        expected = scheduler.step(output, t, x).pred_original_sample
        assert torch.equal(row.denoised(x, output, sigma), expected)


def test_sample_row():
    """Against DDIM, whose x is ours over sqrt(1 + sigma^2)."""
    scheduler = make("DDIMScheduler", prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(7)
    row, schedule = preconditioning(scheduler), noise_schedule(scheduler)
    x, output = random(1, 4, 8, 8), random(1, 4, 8, 8, seed=1)
    sigma = schedule.sigma(scheduler.timesteps[2])
    scaled = row.network_input(x, sigma)
    expected = scheduler.step(output, scheduler.timesteps[2], scaled).pred_original_sample
    assert torch.equal(row.denoised(x, output, sigma), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_edm_rows(prediction_type):
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction_type)
    scheduler.set_timesteps(7)
    row = preconditioning(scheduler)
    x, output = random(1, 4, 8, 8), random(1, 4, 8, 8, seed=1)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True):
        assert torch.equal(row.network_input(x, sigma), scheduler.scale_model_input(x, t))
        expected = scheduler.step(output, t, x).pred_original_sample
        assert largest_difference(row.denoised(x, output, sigma), expected) < 2e-7  # float32, values to 4


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_rows_undo_what_a_perfect_network_does(sigma):
    """x0 comes back from x = x0 + sigma eps, with the output that each prediction type means."""
    x0, eps, sigma = random(4, 8).double(), random(4, 8, seed=1).double(), torch.tensor(sigma, dtype=torch.float64)
    a, b = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    outputs = {"epsilon": eps, "v_prediction": a * eps - b * x0, "sample": x0}
    for prediction_type, output in outputs.items():
        row = preconditioning(euler(prediction_type=prediction_type))
        x = x0 + sigma * eps
        assert largest_difference(row.denoised(x, output, sigma), x0) < 1e-13  # float64, x up to 50
        assert largest_difference(row.network_input(x, sigma), a * x0 + b * eps) < 1e-14
    row, data = edm_preconditioning("epsilon", 0.5), 0.5
    output = (x0 - data**2 / (sigma**2 + data**2) * x) * (sigma**2 + data**2) ** 0.5 / (sigma * data)
    assert largest_difference(row.denoised(x, output, sigma), x0) < 1e-13


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "edm epsilon", "edm v_prediction"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_output_is_the_inverse_of_denoised(prediction_type, sigma):
    edm = prediction_type.startswith("edm ")
    config = {"prediction_type": prediction_type.removeprefix("edm ")}
    row = preconditioning(diffusers.EDMEulerScheduler(**config) if edm else euler(**config))
    x, output, sigma = random(4, 8).double(), random(4, 8, seed=1).double(), torch.tensor(sigma, dtype=torch.float64)
    again = row.output(x, row.denoised(x, output, sigma), sigma)
    assert largest_difference(again, output) < 1e-12  # float64; sigma 0.03 divides by c_out, which is as small
