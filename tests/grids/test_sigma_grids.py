"""Sigma grids: named ones against their sources, and those of diffusers' schedulers."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from tiny_models import SDXL_SCHEDULE, largest_difference

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids.check import check_sigmas
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule

SDXL = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
SCHEDULES = {
    "sdxl": noise_schedule(SDXL),
    "edm": noise_schedule(diffusers.EDMEulerScheduler()),
    "flow": flow_schedule(FLOW),
}
STEPS = [1, 2, 3, 8, 30, 1000]

# Numbers printed by ComfyUI's functions of the same names, n = 8, on SDXL's schedule and on a flow schedule of
# 1000 levels with shift 3.
GOLDEN = {
    "sdxl": {
        "simple": [14.614641, 7.2973518, 4.0817294, 2.4925306, 1.6128862, 1.0689514, 0.69320488, 0.39774564, 0.0],
        "normal": [14.61464, 6.6779995, 3.5220563, 2.0606415, 1.2768321, 0.79125983, 0.43966573, 0.02916716, 0.0],
        "sgm_uniform": [14.61464, 7.3019819, 4.086081, 2.4959669, 1.6155803, 1.0711591, 0.69514954, 0.39970142, 0.0],
        "ddim_uniform": [7.3718443, 4.1166964, 2.5109215, 1.623692, 1.0760311, 0.69839811, 0.40221775, 0.041314412, 0],
        "beta": [14.614641, 10.483473, 5.6865916, 2.9636128, 1.6182789, 0.9198333, 0.51539063, 0.24326976, 0.0],
        "linear_quadratic": [14.614641, 14.523299, 14.431958, 14.340616, 14.249275, 13.29019, 10.595615, 6.1655517, 0],
        "kl_optimal": [14.614633, 3.4934831, 1.8781236, 1.1878667, 0.77703708, 0.48318735, 0.24432784, 0.029167159, 0],
    },
    "flow": {
        "simple": [1.0, 0.95454544, 0.89999998, 0.83333331, 0.75, 0.64285713, 0.5, 0.30000001, 0.0],
        "normal": [1.0, 0.94754249, 0.88278782, 0.80083734, 0.69379306, 0.54804564, 0.33797219, 0.0089285718, 0.0],
        "sgm_uniform": [1.0, 0.95469379, 0.90035903, 0.83399796, 0.7511211, 0.64468634, 0.50298506, 0.30500895, 0.0],
        "ddim_uniform": [0.9553377, 0.90095848, 0.8345164, 0.751497, 0.6448119, 0.5026596, 0.3038278, 0.0059760958, 0],
        "beta": [1.0, 0.9802494, 0.9335348, 0.85952181, 0.75074929, 0.59638554, 0.39217135, 0.15591398, 0.0],
        "linear_quadratic": [1.0, 0.99374998, 0.98750001, 0.98124999, 0.97500002, 0.90937501, 0.72500002, 0.421875, 0],
        "kl_optimal": [1.0, 0.79817343, 0.62953556, 0.48315629, 0.35183662, 0.23049454, 0.11527256, 0.0029940121, 0.0],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", GOLDEN)
@pytest.mark.parametrize("name", GOLDEN["sdxl"])
def test_golden(name, kind):
    # 3e-5: the table of sigmas in float32 differs by 7e-6, and the tangent near pi / 2 multiplies that by 4
    expected = torch.tensor(GOLDEN[kind][name])
    assert largest_difference(SIGMA_GRIDS[name](SCHEDULES[kind], 8), expected) < (3e-5 if kind == "sdxl" else 3e-7)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", ["karras", "exponential", "polyexponential"])
def test_k_diffusions_own(name, kind):
    table = SCHEDULES[kind].sigmas
    expected = getattr(k_sampling, f"get_sigmas_{name}")(12, float(table[0]), float(table[-1]))
    assert torch.equal(SIGMA_GRIDS[name](SCHEDULES[kind], 12), expected)


def test_k_diffusions_vp():
    expected = k_sampling.get_sigmas_vp(12)
    assert torch.equal(SIGMA_GRIDS["vp"](SCHEDULES["sdxl"], 12), expected)
    t = SIGMA_GRIDS["vp"](SCHEDULES["flow"], 12).double()
    # float32's rounding of t near 1, 6e-8, is multiplied by the derivative (1 + sigma)^2 of sigma(t)
    assert ((t / (1 - t) - expected).abs() <= 1.2e-7 * (1 + expected) ** 2).all()


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", SIGMA_GRIDS)
def test_every_grid(name, kind, n):
    """Strictly decreasing to 0, n + 1 values, from the schedule's largest sigma.

    Not so: ddim_uniform counts up from the smallest sigmas in whole strides, so that it starts lower and has a few
    steps more or less than n; beta drops doubles, which it has where n nears the number of levels; vp has its own
    range.
    """
    schedule = SCHEDULES[kind]
    sigmas = SIGMA_GRIDS[name](schedule, n)
    assert sigmas.dtype == torch.float32 and sigmas.device.type == "cpu"
    assert sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0
    if name != "ddim_uniform" and not (name == "beta" and n == 1000):
        assert len(sigmas) == n + 1
    if name not in ("ddim_uniform", "vp"):
        # 2e-6: float32 rounding through a logarithm, or through the tangent near pi / 2 (up to 80 times that)
        tolerance = 2e-4 if name == "kl_optimal" and kind == "edm" else 2e-6
        assert sigmas[0] == pytest.approx(float(schedule.sigmas[-1]), rel=tolerance)


@pytest.mark.parametrize("n, count", [(1, 1), (8, 8), (20, 20), (30, 31), (1000, 999)])
def test_ddim_uniforms_count(n, count):
    assert len(SIGMA_GRIDS["ddim_uniform"](SCHEDULES["sdxl"], n)) == count + 1


def test_more_steps_than_levels():
    """Grids made of the model's own levels run out of them: doubles are an error, never passed on."""
    with pytest.raises(ValueError, match="decrease strictly"):
        discrete_grid(SDXL, SCHEDULES["sdxl"], 2000, "simple")


@pytest.mark.parametrize(
    "values, complaint",
    [
        ([3.0, 2.0, 2.0, 0.0], r"\[1\] = 2"),
        ([1.0, 2.0, 0.0], r"\[0\] = 1"),
        ([2.0, float("nan"), 0.0], r"\[1\] is nan"),
        ([2.0, -1.0], r"\[1\] is -1"),
        ([float("inf"), 0.0], r"\[0\] is inf"),
        ([1e19, 0.0], r"\[0\] is 1e\+19: .* at most 1e\+18"),
        ([], "list of numbers"),
    ],
)
def test_bad_sigmas(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_sigmas(values)


# The grids of diffusers' schedulers.

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
