"""Noise schedules, against diffusers' schedulers and k_diffusion."""

import importlib

import diffusers
import numpy as np
import pytest
import torch
from sdxl_schedulers import FLOW_MATCH, euler
from tiny_models import largest_difference

import samplers_patch  # noqa: F401 - lets k_diffusion's other modules be imported
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from k_diffusing.oracle.closed_form import training_sigmas


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        {"num_train_timesteps": 50},
    ],
)
def test_exact_on_the_table_both_ways(config):
    schedule = noise_schedule(euler(**config))
    timesteps = torch.arange(len(schedule.sigmas)).float()
    assert torch.equal(schedule.timestep(schedule.sigmas), timesteps)
    assert torch.equal(schedule.sigma(timesteps), schedule.sigmas)


def test_zero_terminal_snr():
    schedule = noise_schedule(euler(rescale_betas_zero_snr=True))
    assert float(schedule.sigmas[-1]) == pytest.approx(4096, rel=1e-6)  # sqrt(2^24 - 1)
    # relative 2e-3: near the end 1 - alphas_cumprod's float32 rounding is a part of alphas_cumprod that grows
    assert (schedule.sigmas / training_sigmas(zero_terminal_snr=True) - 1).abs().max() < 2e-3


OFF_GRID = torch.tensor([0.03, 0.5, 0.7315, 1.0, 3.3, 14.0])
BEYOND = torch.tensor([0.001, 50.0])


def test_off_grid_against_k_diffusion():
    external = importlib.import_module("k_diffusion.external")
    schedule = noise_schedule(euler())
    sigmas = torch.cat([OFF_GRID, BEYOND])
    reference = external.DiscreteSchedule(schedule.sigmas, quantize=False)
    # 5e-4: float32's logarithm, 1e-7 to 2e-7, over the spacing of log sigma, at least 0.003, at timesteps to 1000
    assert largest_difference(schedule.timestep(sigmas), reference.sigma_to_t(sigmas)) < 5e-4
    nearest = reference.sigma_to_t(sigmas, quantize=True)
    assert torch.equal(schedule.timestep(sigmas, quantize=True), nearest.float())
    timesteps = torch.tensor([0.0, 0.25, 10.5, 998.9, 999.0])
    ours, theirs = schedule.sigma(timesteps), reference.t_to_sigma(timesteps)
    assert (ours / theirs - 1).abs().max() < 1e-6  # float32's log and exp


def test_off_grid_against_diffusers():
    scheduler, schedule = euler(), noise_schedule(euler())
    table = np.log(schedule.sigmas.double().numpy())
    expected = torch.tensor(scheduler._sigma_to_t(OFF_GRID.double().numpy(), table))
    assert largest_difference(schedule.timestep(OFF_GRID).double(), expected) < 5e-4


def test_off_grid_is_between_its_neighbours():
    schedule = noise_schedule(euler())
    middle = (schedule.sigmas[100] * schedule.sigmas[101]).sqrt()
    assert float(schedule.timestep(middle)) == pytest.approx(100.5, abs=5e-4)
    assert schedule.timestep(middle.reshape(1, 1)).shape == (1, 1)


def test_pairs_of_a_grid_are_kept():
    """Whatever interpolation says; quantize rounds only what is off the grid."""
    pairs = torch.tensor([10.0, 2.0]), torch.tensor([960.4, 500.25])
    schedule = noise_schedule(euler()).with_grid(*pairs)
    for quantize in (False, True):
        assert torch.equal(schedule.timestep(pairs[0], quantize), pairs[1])
        assert torch.equal(schedule.timestep(pairs[0][1], quantize), pairs[1][1])
    off = schedule.timestep(torch.tensor([3.0]), quantize=True)
    assert off == off.round()


def test_edm_timesteps():
    scheduler = diffusers.EDMEulerScheduler()
    schedule = noise_schedule(scheduler)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas[:-1]
    assert torch.equal(schedule.timestep(sigmas), scheduler.timesteps)
    assert (schedule.sigma(scheduler.timesteps) / sigmas - 1).abs().max() < 1e-6  # float32's log and exp
    with pytest.raises(ValueError, match="quantize"):
        schedule.timestep(sigmas, quantize=True)


def test_continuous_v_prediction_is_told_the_logarithm():
    """As the timesteps of diffusers' own: off its grid too."""
    scheduler = euler(prediction_type="v_prediction", timestep_type="continuous")
    schedule = noise_schedule(scheduler)
    scheduler.set_timesteps(10)
    assert torch.equal(schedule.timestep(scheduler.sigmas[:-1]), scheduler.timesteps)
    sigma = torch.tensor([0.05, 1.0, 3.3])
    assert torch.equal(schedule.timestep(sigma), 0.25 * sigma.log())
    assert torch.equal(schedule.sigmas, noise_schedule(euler()).sigmas)
    epsilon = noise_schedule(euler(timestep_type="continuous"))
    assert torch.equal(epsilon.timestep(epsilon.sigmas), torch.arange(1000.0))  # diffusers keeps these discrete


@pytest.mark.parametrize("name", FLOW_MATCH)
def test_flow_match_schedules(name):
    scheduler = getattr(diffusers, name)(shift=3.0)
    schedule = flow_schedule(scheduler)
    own = scheduler.sigmas[scheduler.sigmas > 0]
    assert largest_difference(schedule.sigmas, own.flip(0)) < 2e-7  # the last bit of float32
    assert largest_difference(schedule.timestep(own), scheduler.timesteps.float()) < 2e-4  # a thousand times that
    scheduler.set_timesteps(5)
    assert torch.equal(flow_schedule(scheduler).sigmas, schedule.sigmas)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shift(kind):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    t = torch.linspace(1, 0.1, 10)
    scheduler.set_timesteps(sigmas=t.tolist(), mu=0.8)
    assert largest_difference(flow_schedule(scheduler, 0.8).shift(t), scheduler.sigmas[:-1]) < 2e-7  # float32


def test_set_shift():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(5.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.5])
    assert float(flow_schedule(scheduler).shift(torch.tensor(0.5))) == pytest.approx(float(scheduler.sigmas[1]))


@pytest.mark.parametrize("scheduler", [euler(), diffusers.EDMEulerScheduler()], ids=["discrete", "log sigma"])
def test_a_schedule_moves_with_all_it_has(scheduler):
    schedule = noise_schedule(scheduler).with_grid(torch.tensor([2.0]), torch.tensor([500.0]))
    same, moved = vars(schedule.to("cpu")), vars(schedule.to("meta"))
    assert all(torch.equal(same[name], value) for name, value in vars(schedule).items() if value is not None)
    assert {value.device.type for value in moved.values() if value is not None} == {"meta"}
    assert same.keys() == moved.keys()


def test_beyond_the_timesteps_are_their_ends():
    schedule = noise_schedule(euler())
    ends = schedule.sigma(torch.tensor([-3.0, 1500.0]))
    assert torch.equal(ends, schedule.sigmas[[0, -1]])


def test_the_levels_of_edm_are_all_its_own():
    scheduler = diffusers.EDMEulerScheduler()
    assert torch.equal(noise_schedule(scheduler).sigmas, scheduler.sigmas[:-1].flip(0)) and scheduler.sigmas[-1] == 0


def test_flow_time_at_a_timestep_is_shifted():
    schedule = flow_schedule(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert float(schedule.sigma(torch.tensor(500.0))) == pytest.approx(0.75)  # 3 t / (1 + 2 t) at a half
