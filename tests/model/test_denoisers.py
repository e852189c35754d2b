"""Noise schedules, preconditionings and flow coordinates, against diffusers' schedulers and k_diffusion."""

import importlib
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from tiny_models import SDXL_SCHEDULE, largest_difference

from k_diffusing._k_diffusion import k_sampling  # noqa: F401 - lets k_diffusion's other modules be imported
from k_diffusing.model.coordinates import FLOW, LARGEST_FLOW_TIME, VE, variance_exploding
from k_diffusing.model.preconditioning import edm_preconditioning
from k_diffusing.model.scheduler_config import flow_schedule, fresh_scheduler, is_flow, noise_schedule, preconditioning
from k_diffusing.oracle.closed_form import MIXTURE, training_sigmas
from samplers_patch import find_sampler, run_sampler

DISCRETE = [s.name for s in KarrasDiffusionSchedulers if s.name != "EDMEulerScheduler"]
FLOW_CONFIG = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SOLVERS = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"]
FLOW_MATCH = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"]


def make(name: str, **config):
    return getattr(diffusers, name).from_config(SDXL_SCHEDULE | {"num_train_timesteps": 1000} | config)


def euler(**config) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(**(SDXL_SCHEDULE | config))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Noise schedules.


@pytest.mark.parametrize("name", DISCRETE)
def test_every_scheduler_means_the_same_schedule(name):
    """Whatever set_timesteps, or a script by hand, has set on it before."""
    scheduler = make(name)
    own = scheduler.alphas_cumprod
    scheduler.set_timesteps(5)
    scheduler.sigmas_original = scheduler.sigmas = torch.zeros(4)
    schedule = noise_schedule(scheduler)
    assert torch.equal(schedule.sigmas, ((1 - own) / own) ** 0.5)
    # relative 2e-5: float32's cumulative product of 1000 factors, against float64's
    assert (schedule.sigmas / training_sigmas() - 1).abs().max() < 2e-5


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


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_solvers_with_flow_sigmas(name):
    """Each has its own times; flow_shift=3 makes of them what our shift makes of those of flow_shift=1."""
    scheduler, unshifted = make(name, **FLOW_CONFIG), make(name, **FLOW_CONFIG | {"flow_shift": 1.0})
    schedule = flow_schedule(scheduler)
    scheduler.set_timesteps(5)
    unshifted.set_timesteps(5)
    # float32, and the 1e-6 that UniPC takes off a first time of 1 after shifting
    assert largest_difference(schedule.shift(unshifted.sigmas[:5]), scheduler.sigmas[:5]) < 2e-6
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


@pytest.mark.parametrize("setting", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
def test_one_setting_makes_a_solver_one_of_flow(setting):
    assert is_flow(make("UniPCMultistepScheduler", **setting)) and not is_flow(make("UniPCMultistepScheduler"))


def test_a_fresh_scheduler_has_the_settings_and_what_is_set_anew():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_shift(5.0)
    assert fresh_scheduler(scheduler).shift == 5.0
    fresh = fresh_scheduler(make("PNDMScheduler"), skip_prk_steps=True, no_such_setting=1)
    assert fresh.config.skip_prk_steps and fresh.config.beta_end == SDXL_SCHEDULE["beta_end"]
    assert not make("PNDMScheduler").config.skip_prk_steps


# Preconditioning.


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


def test_a_config_that_does_not_say_predicts_epsilon():
    silent = SimpleNamespace(config={})
    assert preconditioning(silent) is preconditioning(euler(prediction_type="epsilon"))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample", "edm epsilon", "edm v_prediction"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_output_is_the_inverse_of_denoised(prediction_type, sigma):
    edm = prediction_type.startswith("edm ")
    config = {"prediction_type": prediction_type.removeprefix("edm ")}
    row = preconditioning(diffusers.EDMEulerScheduler(**config) if edm else euler(**config))
    x, output, sigma = random(4, 8).double(), random(4, 8, seed=1).double(), torch.tensor(sigma, dtype=torch.float64)
    again = row.output(x, row.denoised(x, output, sigma), sigma)
    assert largest_difference(again, output) < 1e-12  # float64; sigma 0.03 divides by c_out, which is as small


# Flow coordinates.


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


# What cannot be right is refused, by name and with the cure.


@pytest.mark.parametrize("name", [*FLOW_MATCH, *FLOW_SOLVERS])
def test_flow_scheduler_on_sdxl(name):
    scheduler = getattr(diffusers, name)() if name in FLOW_MATCH else make(name, **FLOW_CONFIG)
    with pytest.raises(ValueError, match=f"{name}.*flow matching.*EulerDiscreteScheduler.from_config"):
        noise_schedule(scheduler)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_discrete_scheduler_on_flux(name):
    with pytest.raises(ValueError, match=f"{name}.*FlowMatchEulerDiscreteScheduler"):
        flow_schedule(make(name))


@pytest.mark.parametrize("name", ["CMStochasticIterativeScheduler", "ScoreSdeVeScheduler", "IPNDMScheduler"])
def test_scheduler_without_a_schedule(name):
    with pytest.raises(ValueError, match=f"{name} has no noise schedule.*KarrasDiffusionSchedulers"):
        noise_schedule(getattr(diffusers, name)())


def test_unknown_prediction_type():
    scheduler = make("DDIMScheduler", prediction_type="score")
    with pytest.raises(ValueError, match="'score'.*epsilon, v_prediction, sample"):
        preconditioning(scheduler)
