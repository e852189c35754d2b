"""Grids of published tables, and those whose formula somebody else has printed numbers of."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import AysSchedules
from sdxl_schedulers import SCHEDULES, make
from tiny_models import largest_difference

from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.grids.tables import ALIGN_YOUR_STEPS, DISTILLED, OPTIMAL_STEPS
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule

# SVD's schedule, as far as its kind and its largest sigma go.
SVD = {"timestep_type": "continuous", "beta_end": 0.9999, "prediction_type": "v_prediction"}
AYS_OF_DIFFUSERS = {"sdxl": "StableDiffusionXL", "sd15": "StableDiffusion", "svd": "StableDiffusionVideo"}


@pytest.mark.parametrize("model", ALIGN_YOUR_STEPS)
def test_align_your_steps(model):
    """The table at its own 10 steps, 0 in the place of its last value; diffusers has it in three digits."""
    schedule = SCHEDULES["sdxl"]
    if model == "svd":
        schedule = noise_schedule(make("EulerDiscreteScheduler", **SVD))
    sigmas = SIGMA_GRIDS["align_your_steps"](schedule, 10, model=model)
    assert sigmas.tolist() == torch.tensor([*ALIGN_YOUR_STEPS[model][:-1], 0.0]).tolist()
    # 0.015: the third digit of 0.113, which NVIDIA's own ten digits make 0.1114
    assert sigmas.tolist() == pytest.approx(AysSchedules[f"{AYS_OF_DIFFUSERS[model]}Sigmas"], rel=0.015)


def test_which_table_is_a_models_own():
    continuous = noise_schedule(make("EulerDiscreteScheduler", **SVD))
    for schedule, first in ((SCHEDULES["sdxl"], 14.614641), (continuous, 700.0)):
        assert float(SIGMA_GRIDS["align_your_steps"](schedule, 10)[0]) == pytest.approx(first)
    assert SIGMA_GRIDS["align_your_steps"](SCHEDULES["sdxl"], 10)[1] == torch.tensor(6.3184485287)


@pytest.mark.parametrize("model", OPTIMAL_STEPS)
def test_optimal_steps(model):
    table = OPTIMAL_STEPS[model]
    sigmas = SIGMA_GRIDS["optimal_steps"](SCHEDULES["flow"], len(table) - 1, model=model)
    assert sigmas.tolist() == torch.tensor([*table[:-1], 0.0]).tolist()


@pytest.mark.parametrize("n", [1, 4, 20, 37])
def test_a_table_at_another_number_of_steps(n):
    """Linear in the logarithm between the table's own, and 0 after them."""
    sigmas = SIGMA_GRIDS["align_your_steps"](SCHEDULES["sdxl"], n).double()
    places = [10 * i / n for i in range(n)]
    expected = [np.interp(place, range(11), np.log(ALIGN_YOUR_STEPS["sdxl"])) for place in places]
    assert largest_difference(sigmas[:-1].log(), torch.tensor(expected)) < 2e-7  # sigmas in float32
    assert sigmas[-1] == 0 and len(sigmas) == n + 1


def test_twice_as_many_steps_keep_the_tables_own():
    sigmas = SIGMA_GRIDS["align_your_steps"](SCHEDULES["sdxl"], 20)
    assert largest_difference(sigmas[:-1:2], torch.tensor(ALIGN_YOUR_STEPS["sdxl"][:-1])) < 2e-6  # float32, up to 14.6


@pytest.mark.parametrize("name, n", [(name, n) for name, row in DISTILLED.items() for n in row.lists])
def test_the_lists_of_distilled_models(name, n):
    row, kind = DISTILLED[name], "sdxl" if DISTILLED[name].kind == "timesteps" else "flow"
    sigmas = SIGMA_GRIDS[name](SCHEDULES[kind], n)
    values = torch.tensor(row.lists[n], dtype=torch.float32)
    if row.kind == "timesteps":
        assert largest_difference(SCHEDULES[kind].timestep(sigmas[:-1]), values) < 1e-3  # of 1000, in float32
    elif row.kind == "times":
        assert torch.equal(sigmas[:-1], values)


def test_flux2_turbo_is_shifted_as_its_pipeline_does():
    """The list is what the model's page gives as sigmas= of diffusers' pipeline, which shifts it by the size."""
    config = {"use_dynamic_shifting": True}
    scheduler, mu = diffusers.FlowMatchEulerDiscreteScheduler(**config), 2.02
    sigmas = SIGMA_GRIDS["flux2_dev_turbo"](flow_schedule(scheduler, mu), 8)
    scheduler.set_timesteps(sigmas=list(DISTILLED["flux2_dev_turbo"].lists[8]), mu=mu)
    assert largest_difference(sigmas, scheduler.sigmas) < 2e-7  # float32


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("n, original", [(1, 50), (4, 50), (8, 50), (7, 50), (50, 50), (4, 100)])
def test_lcm_timesteps(name, n, original):
    scheduler = make(name, original_inference_steps=original)
    scheduler.set_timesteps(n)
    sigmas = SIGMA_GRIDS["lcm_timesteps"](SCHEDULES["sdxl"], n, original_steps=original)
    assert SCHEDULES["sdxl"].timestep(sigmas[:-1]).round().tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("n, times", [(1, [999]), (4, [999, 899, 799, 699]), (10, range(999, 0, -100))])
def test_turbo(n, times):
    times = torch.tensor([*times], dtype=torch.float32)
    assert torch.equal(SIGMA_GRIDS["turbo"](SCHEDULES["sdxl"], n)[:-1], SCHEDULES["sdxl"].sigma(times))


def test_bong_tangent():
    """Numbers that RES4LYF's scheduler of that name prints for 8 steps, to four digits."""
    printed = [1, 0.9713, 0.9294, 0.8629, 0.7443, 0.5, 0.2131, 0.0696, 0]
    assert SIGMA_GRIDS["bong_tangent"](SCHEDULES["flow"], 8).tolist() == pytest.approx(printed, abs=5e-5)


def test_beta57_is_beta_of_its_numbers():
    assert torch.equal(
        SIGMA_GRIDS["beta57"](SCHEDULES["flow"], 12), SIGMA_GRIDS["beta"](SCHEDULES["flow"], 12, a=0.5, b=0.7)
    )


@pytest.mark.parametrize("mu, beta", [(0.0, 0.5), (-1.0, 0.3), (1.0, 2.0), (0.5, 0.02)])
def test_laplace_has_even_quantiles(mu, beta):
    """The part of the distribution above each sigma falls in even steps, but for what float32 rounds at its ends."""
    logs = (SIGMA_GRIDS["laplace"](SCHEDULES["sdxl"], 21, mu=mu, beta=beta)[:-1].double().log() - mu) / beta
    above = torch.where(logs > 0, 0.5 * (-logs).exp(), 1 - 0.5 * logs.exp())
    steps = above.diff()
    assert float(steps.max() - steps.min()) < 1e-5 / beta  # float32's 1e-7 over beta, times 21 steps
    assert (steps > 0).all()


def test_kl_optimal_of_data_with_another_deviation():
    """The angles arctan(sigma / c) are even."""
    for c in (0.3, 1.0, 2.5):
        sigmas = SIGMA_GRIDS["kl_optimal"](SCHEDULES["sdxl"], 12, c=c)[:-1].double()
        steps = (sigmas / c).arctan().diff()
        assert float(steps.max() - steps.min()) < 1e-5  # float32's tangent near pi / 2
