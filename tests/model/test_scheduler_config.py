"""What is read of a diffusers scheduler's config, and what cannot be right."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from sdxl_schedulers import FLOW_CONFIG, FLOW_MATCH, FLOW_SOLVERS, euler, make
from tiny_models import SDXL_SCHEDULE, largest_difference

from k_diffusing.model.scheduler_config import flow_schedule, fresh_scheduler, is_flow, noise_schedule, preconditioning
from k_diffusing.oracle.closed_form import training_sigmas

DISCRETE = [s.name for s in KarrasDiffusionSchedulers if s.name != "EDMEulerScheduler"]


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


def test_a_config_that_does_not_say_predicts_epsilon():
    silent = SimpleNamespace(config={})
    assert preconditioning(silent) is preconditioning(euler(prediction_type="epsilon"))


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
