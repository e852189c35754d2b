"""The grids of diffusers' schedulers, and those of a user's functions."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from sdxl_schedulers import FLOW, SCHEDULES, SDXL
from tiny_models import SDXL_SCHEDULE, largest_difference

from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule

# These list each level twice, or one of their own between two: every second pair is the grid.
TWO_STAGE = ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"]
TWO_STAGE += ["DPMSolverSDEScheduler"]
NO_SIGMAS = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler"]
NAMES = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
# EDM's and the singlestep scheduler know no spacing; KDPM2Ancestral, slow to construct, shares KDPM2's code for it.
NO_SPACING = ["EDMEulerScheduler", "DPMSolverSinglestepScheduler", "KDPM2AncestralDiscreteScheduler"]


def make(name: str, **config):
    cls = getattr(diffusers, name)
    if name == "EDMEulerScheduler":
        return cls(**config)
    return cls.from_config(SDXL_SCHEDULE | {"num_train_timesteps": 1000, "skip_prk_steps": True} | config)


def own_pairs(scheduler, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """sigmas and timesteps that a scheduler steps through, from its state after set_timesteps."""
    scheduler.set_timesteps(n)
    timesteps = torch.as_tensor(scheduler.timesteps).float()
    if type(scheduler).__name__ in NO_SIGMAS:
        timesteps = timesteps.unique().flip(0)  # PNDM's first steps visit a timestep twice
        kept = scheduler.alphas_cumprod[timesteps.long()]
        return ((1 - kept) / kept) ** 0.5, timesteps
    stride = 2 if type(scheduler).__name__ in TWO_STAGE else 1
    return scheduler.sigmas.float()[: len(timesteps) : stride], timesteps[::stride]


def check_pairs(name: str, n: int, **config):
    """The grid is the scheduler's own, whatever was set on it before; and that is left as it was."""
    scheduler = make(name, **config)
    scheduler.set_timesteps(4)
    before = torch.as_tensor(scheduler.timesteps).clone()
    grid = discrete_grid(scheduler, SCHEDULES["edm" if name == "EDMEulerScheduler" else "sdxl"], n)
    assert torch.equal(torch.as_tensor(scheduler.timesteps), before)
    sigmas, timesteps = own_pairs(scheduler, n)
    assert torch.equal(grid.timesteps, timesteps)
    assert torch.equal(grid.sigmas[:-1], sigmas)
    assert len(grid.sigmas) == n + 1 and (grid.sigmas.diff() < 0).all()


@pytest.mark.parametrize("n", [1, 30])
@pytest.mark.parametrize("name", NAMES)
def test_scheduler_grid(name, n):
    check_pairs(name, n)


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_SPACING])
def test_scheduler_spacing(name, spacing):
    # set_alpha_to_one: else linspace's last timestep, 0, already is the last noise level (the test below)
    check_pairs(name, 7, timestep_spacing=spacing, set_alpha_to_one=True)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
def test_a_step_of_no_length_is_left_out(name):
    """SDXL's set_alpha_to_one=False ends at timestep 0's level; linspace's last timestep is 0: nothing to do."""
    scheduler = make(name, timestep_spacing="linspace", set_alpha_to_one=False)
    grid = discrete_grid(scheduler, SCHEDULES["sdxl"], 7)
    sigmas, timesteps = own_pairs(scheduler, 7)
    assert torch.equal(grid.sigmas, sigmas)
    assert torch.equal(grid.timesteps, timesteps[:-1])


@pytest.mark.parametrize("sigmas", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_scheduler_sigmas(name, sigmas):
    check_pairs(name, 7, **{sigmas: True})


@pytest.mark.parametrize("last, expected", [("zero", 0.0), ("sigma_min", 0.0291675)])
def test_last_sigma(last, expected):
    scheduler = make("EulerDiscreteScheduler", final_sigmas_type=last)
    # SDXL's sigma at timestep 0, given to 6 digits
    assert float(discrete_grid(scheduler, noise_schedule(scheduler), 5).sigmas[-1]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "config", [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"shift": 2.0, "use_karras_sigmas": True}]
)
def test_flow_scheduler_grid(config):
    """FlowMatchEuler's own sigmas from evenly spaced times, as diffusers' FLUX pipeline asks for them."""
    n, mu = 7, 0.9 if config.get("use_dynamic_shifting") else None
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    grid = flow_grid(scheduler, flow_schedule(scheduler, mu), n, mu=mu)
    own = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    own.set_timesteps(sigmas=[1 - i / n for i in range(n)], mu=mu)
    assert largest_difference(grid.sigmas, own.sigmas) < 2e-7  # the last bit of linspace in float32
    assert largest_difference(grid.timesteps, own.timesteps) < 2e-4  # a thousand times that


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda values: np.array(values[::-1])[::-1]])
def test_functions_return_what_holds_numbers(kind):
    """A list, an array, a reversed one too, or a tensor."""
    values = [0.9, 0.5, 0.1, 0.0]
    discrete = discrete_grid(SDXL, SCHEDULES["sdxl"], 3, lambda schedule, n: kind(values))
    flow = flow_grid(FLOW, SCHEDULES["flow"], 3, lambda schedule, n: kind(values))
    for grid in (discrete, flow):
        assert grid.sigmas.dtype == torch.float32 and torch.equal(grid.sigmas, torch.tensor(values))
