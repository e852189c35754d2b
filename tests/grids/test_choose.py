"""The grids of diffusers' schedulers, and those of a user's functions."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from grid_kinds import SUITED, steps_of
from sdxl_schedulers import FLOW, SCHEDULES, SDXL
from tiny_models import SDXL_SCHEDULE, largest_difference

from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.grids.named import SIGMA_GRIDS
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


@pytest.mark.parametrize("name, kind", [pair for pair in SUITED if pair[1] != "edm"])
def test_named_grids_are_those_of_the_models_schedule(name, kind):
    make_grid, scheduler = (discrete_grid, SDXL) if kind == "sdxl" else (flow_grid, FLOW)
    [n, *_] = steps_of(name, [6])
    grid = make_grid(scheduler, SCHEDULES[kind], n, name)
    assert torch.equal(grid.sigmas, SIGMA_GRIDS[name](SCHEDULES[kind], n)) and grid.timesteps is None


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler", "karras"])
def test_less_the_penultimate_sigma(name):
    """The grid of one step more, without its last sigma above 0 and the timestep of that."""
    scheduler, choice = (SDXL, name) if name == "karras" else (make(name), None)
    whole = discrete_grid(scheduler, SCHEDULES["sdxl"], 7, choice)
    less = discrete_grid(scheduler, SCHEDULES["sdxl"], 6, choice, drop_penultimate=True)
    assert less.sigmas.tolist() == [*whole.sigmas[:6].tolist(), 0.0] and float(whole.sigmas[-1]) == 0.0
    assert less.timesteps is whole.timesteps is None or torch.equal(less.timesteps, whole.timesteps[:-1])
    assert (less.initial_scale, less.scaled_latents) == (whole.initial_scale, whole.scaled_latents)


def test_less_the_penultimate_flow_time():
    whole, less = (flow_grid(FLOW, SCHEDULES["flow"], n, drop_penultimate=n == 6) for n in (7, 6))
    assert less.sigmas.tolist() == [*whole.sigmas[:6].tolist(), 0.0]
    assert torch.equal(less.timesteps, whole.timesteps[:-1])


def test_the_users_own_values_are_kept_whole():
    values = {"sigmas": [14.0, 3.0, 0.5, 0.0], "timesteps": [900, 500, 100]}
    for name, own in values.items():
        kept, less = (
            discrete_grid(SDXL, SCHEDULES["sdxl"], 9, **{name: own}, drop_penultimate=d) for d in (False, True)
        )
        assert torch.equal(kept.sigmas, less.sigmas) and len(kept.sigmas) == 4
    kept, less = (flow_grid(FLOW, SCHEDULES["flow"], 9, sigmas=[0.9, 0.5], drop_penultimate=d) for d in (False, True))
    assert torch.equal(kept.sigmas, less.sigmas) and len(kept.sigmas) == 3


# Whether they take the values themselves or leave it to us to look them up.
TAKE_VALUES = ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler", "DDPMScheduler"]
TAKE_VALUES += ["HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "PNDMScheduler"]


@pytest.mark.parametrize("n, times", [(None, [950, 500, 101]), (9, [950, 500, 101]), (9, [700])])
@pytest.mark.parametrize("name", TAKE_VALUES)
def test_a_users_timesteps(name, n, times):
    grid = discrete_grid(make(name), SCHEDULES["sdxl"], n, timesteps=times)
    expected = SCHEDULES["sdxl"].sigma(torch.tensor(times, dtype=torch.float32))
    assert grid.timesteps.tolist() == times and grid.timesteps.dtype == torch.float32
    assert largest_difference(grid.sigmas[:-1], expected) < 1e-5  # float32, sigmas of up to 10
    assert float(grid.sigmas[-1]) < 0.0292 and grid.sigmas.dtype == torch.float32  # 0, or the level of timestep 0


@pytest.mark.parametrize("name", TAKE_VALUES)
def test_no_timesteps_leave_no_step(name):
    grid = discrete_grid(make(name), SCHEDULES["sdxl"], None, timesteps=[])
    assert len(grid.sigmas) == 1 and len(grid.timesteps) == 0


@pytest.mark.parametrize("values", [[14.0, 3.0, 0.5, 0.0], [9.0, 1.0], [2.0]])
@pytest.mark.parametrize("name", TAKE_VALUES)
def test_a_users_sigmas(name, values):
    """As they are: with the last one, 0 or not; one leaves no step."""
    grid = discrete_grid(make(name), SCHEDULES["sdxl"], None, sigmas=np.array(values))
    assert grid.sigmas.tolist() == values and grid.sigmas.dtype == torch.float32
    assert grid.timesteps is None or len(grid.timesteps) == len(values) - 1
    if name == "EulerDiscreteScheduler":  # which takes sigmas, and pairs timesteps with them
        assert (grid.timesteps is None) == (len(values) == 1)


@pytest.mark.parametrize("values", [[1.0, 0.5, 0.2], [0.9], [0.7, 0.1, 0.01]])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_a_users_flow_times(name, values):
    """They are shifted, and go on to 0; whether the scheduler takes them itself or not."""
    config = {"use_flow_sigmas": True, "flow_shift": 3.0} if name == "UniPCMultistepScheduler" else {"shift": 3.0}
    scheduler = getattr(diffusers, name)(**config)
    grid = flow_grid(scheduler, flow_schedule(scheduler), 28, sigmas=values)
    shifted = [3 * t / (1 + 2 * t) for t in values]
    assert grid.sigmas.tolist() == pytest.approx([*shifted, 0.0], abs=1e-6) and grid.sigmas.dtype == torch.float32
    if name == "FlowMatchEulerDiscreteScheduler":
        assert grid.timesteps.tolist() == pytest.approx([1000 * t for t in shifted], abs=1e-3)
    else:
        assert grid.timesteps is None


def test_no_flow_times_leave_no_step():
    grid = flow_grid(FLOW, SCHEDULES["flow"], 28, sigmas=[])
    assert grid.sigmas.tolist() == [0.0] and grid.timesteps is None
    with pytest.raises(
        ValueError, match=r"^sigmas\[0\] is 1\.01: the sigmas of a flow model are times, between 0 and 1$"
    ):
        flow_grid(FLOW, SCHEDULES["flow"], 28, sigmas=[1.01, 0.5])


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_a_flow_solver_makes_its_own_grid(name):
    """Their set_timesteps takes no sigmas of a flow model. DEIS repeats the last flow time where UniPC puts 0."""
    scheduler, own = (getattr(diffusers, name)(use_flow_sigmas=True, flow_shift=3.0) for _ in range(2))
    own.set_timesteps(7)
    grid = flow_grid(scheduler, flow_schedule(scheduler), 7)
    assert torch.equal(grid.sigmas, torch.cat([own.sigmas[:7].float(), torch.zeros(1)]))
    assert torch.equal(grid.timesteps, own.timesteps.float())


def test_steps_of_pndm_are_those_of_plms():
    """Its Runge-Kutta steps, which come first unless they are skipped, visit timesteps of their own."""
    grids = [discrete_grid(make("PNDMScheduler", skip_prk_steps=skip), SCHEDULES["sdxl"], 7) for skip in (True, False)]
    assert torch.equal(grids[0].sigmas, grids[1].sigmas) and torch.equal(grids[0].timesteps, grids[1].timesteps)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("choice", [{}, {"sigma_grid": "karras"}, {"sigmas": [9.0, 1.0, 0.0]}])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_unit_noise_becomes_a_state_as_the_scheduler_has_it(name, choice, spacing):
    grid = discrete_grid(make(name, timestep_spacing=spacing), SCHEDULES["sdxl"], 6, **choice)
    first = float(grid.sigmas[0])
    assert not grid.scaled_latents
    assert float(grid.initial_scale) == pytest.approx(first if spacing == "trailing" else (first**2 + 1) ** 0.5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_unit_noise_is_the_latents_of_schedulers_that_scale_them(name):
    """Over sqrt(sigma^2 + 1), whatever the spacing."""
    grid = discrete_grid(make(name, timestep_spacing="trailing"), SCHEDULES["sdxl"], 6)
    assert grid.scaled_latents
    assert float(grid.initial_scale) == pytest.approx((float(grid.sigmas[0]) ** 2 + 1) ** 0.5)


def test_timesteps_that_rise():
    with pytest.raises(
        ValueError, match=r"^timesteps must decrease strictly, but timesteps\[0\] = 100 is followed by 900:"
    ):
        discrete_grid(SDXL, SCHEDULES["sdxl"], 2, timesteps=[100, 900])


def test_what_a_function_must_return():
    with pytest.raises(
        TypeError, match=r"^sigma_grid is a function that returns n \+ 1 decreasing numbers, and it returned 5$"
    ):
        flow_grid(FLOW, SCHEDULES["flow"], 3, lambda schedule, n: 5)
