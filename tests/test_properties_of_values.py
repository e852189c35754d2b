"""What any input of a kind does: it is accepted, and then it runs, or it is refused with one of the errors promised.

hypothesis looks for the input; its settings are in conftest.py.
"""

import math

import diffusers
import pytest
import torch
from grid_kinds import SUITED, steps_of
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_models import SDXL_SCHEDULE, flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.grids.check import LARGEST_SIGMA, check_sigmas
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.model.guidance import guidance_at
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from samplers_patch import SAMPLERS, check_options, run_sampler, sampler_options
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SDXL = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
SCHEDULES = {
    "sdxl": noise_schedule(SDXL),
    "edm": noise_schedule(diffusers.EDMEulerScheduler()),
    "flow": flow_schedule(FLOW),
}
NUMBERS = st.one_of(
    st.floats(0, 1), st.floats(0, 20), st.floats(), st.integers(-2, 1100), st.sampled_from([0.0, -0.0, 1.0, 1e-9, 999])
)
SCALARS = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=3), st.complex_numbers())


def falling(numbers, least=1) -> st.SearchStrategy:
    return st.lists(numbers, min_size=least, max_size=5, unique=True).map(lambda values: sorted(values, reverse=True))


LISTS = st.one_of(st.lists(NUMBERS, max_size=5), falling(st.floats(0, 1)), falling(st.floats(0, 20)))
GRIDS = st.one_of(LISTS, falling(st.floats(0, 20)).map(lambda values: [*values, 0.0]))


# Sigma lists.


@given(LISTS)
def test_sigmas_are_refused_unless_they_fall(values):
    falls = all(0 <= value <= LARGEST_SIGMA for value in values)
    falls = falls and values and all(a > b for a, b in zip(values, values[1:], strict=False))
    if falls:
        check_sigmas(values)
    else:
        with pytest.raises(ValueError, match="sigmas"):
            check_sigmas(values)


def falls_in_float32(grid) -> bool:
    return bool(grid.sigmas.isfinite().all() and (grid.sigmas.diff() < 0).all() and grid.sigmas[-1] >= 0)


def accepted(call) -> bool:
    """Whether it is; False if it is refused by a ValueError that says something."""
    try:
        call()
    except ValueError as error:
        assert str(error)
        return False
    return True


@given(GRIDS, st.sampled_from(["sigmas", "timesteps", "sigma_grid"]))
def test_a_grid_of_the_users_falls_or_is_refused(values, name):
    given_as = {name: (lambda schedule, n: values) if name == "sigma_grid" else values}
    grids = []
    if accepted(lambda: grids.append(discrete_grid(SDXL, SCHEDULES["sdxl"], 5, **given_as))):
        assert falls_in_float32(grids[0])
    if name != "timesteps" and accepted(lambda: grids.append(flow_grid(FLOW, SCHEDULES["flow"], 5, **given_as))):
        assert falls_in_float32(grids[-1])


@given(st.sampled_from(SUITED), st.integers(1, 200))
def test_a_named_grid_falls_to_zero(suited, n):
    name, kind = suited
    sigmas = SIGMA_GRIDS[name](SCHEDULES[kind], steps_of(name, [n])[0])
    assert sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0


PIPES = {
    "sdxl": (tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt()),
    "flux": (tiny_flux(FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler()), flux_prompt()),
}


def run(family, sampler="euler", **call):
    pipe, prompt = PIPES[family]
    call = {"height": 16, "width": 16, "output_type": "latent", "num_inference_steps": 3, "guidance_scale": 1.0} | call
    return pipe(**prompt, generator=seeded(), comfy_sampler=sampler, **call).images


@given(GRIDS, st.sampled_from(["sdxl", "flux"]), st.sampled_from(["euler", "heun", "dpmpp_2m", "dpmpp_3m_sde", "lms"]))
def test_a_pipeline_renders_any_sigmas_that_it_accepts(values, family, sampler):
    images = []
    if accepted(lambda: images.append(run(family, sampler, sigmas=values))):
        assert images[0].isfinite().all()


@given(GRIDS, st.sampled_from(["sdxl", "flux"]), st.sampled_from(["euler", "heun", "dpmpp_2m", "dpmpp_3m_sde", "lms"]))
def test_a_scheduler_steps_any_sigmas_that_it_accepts(values, family, sampler):
    scheduler = SamplerScheduler.from_config((SDXL if family == "sdxl" else FLOW).config, sampler=sampler)
    if not accepted(lambda: scheduler.set_timesteps(sigmas=values)):
        return
    x = scheduler.init_noise_sigma * torch.randn(1, 4, 2, 2, generator=seeded())
    for t in scheduler.timesteps:
        output = torch.sin(scheduler.scale_model_input(x, t))
        x = scheduler.step(output, t, x, generator=seeded(), return_dict=False)[0]
    assert x.isfinite().all()


@given(st.lists(NUMBERS, max_size=4))
def test_a_scheduler_takes_falling_timesteps(values):
    scheduler = SamplerScheduler.from_config(SDXL.config, sampler="heun")
    if accepted(lambda: scheduler.set_timesteps(timesteps=values)):
        assert (scheduler.sigmas.diff() <= 0).all()  # a second stage is at the level where the next step begins


# Options of samplers.

ALL_OPTIONS = sorted({name for record in SAMPLERS.values() for name in sampler_options(record)})
OPTIONS = st.dictionaries(st.sampled_from([*ALL_OPTIONS, "etta"]), SCALARS, max_size=3)
LEVELS = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0])


def gaussian(x, sigma):
    """The exact denoiser of unit-variance Gaussian data."""
    return x / (1 + sigma.reshape(-1, 1) ** 2)


@given(st.sampled_from(sorted(SAMPLERS)), OPTIONS)
@example("dpm_adaptive", {"accept_safety": 0.0})
@example("dpm_adaptive", {"rtol": 0.0, "atol": 0.0})
@example("euler", {"s_tmin": 1.0, "s_tmax": math.inf, "s_churn": 1e308})
def test_options_that_are_accepted_run(name, options):
    try:
        check_options(SAMPLERS[name], options)
    except (ValueError, TypeError) as error:
        assert name in str(error)
        return
    try:
        result = run_sampler(SAMPLERS[name], gaussian, torch.ones(1, 4) * 10, LEVELS, options=options)
    except RuntimeError as error:  # promised for dpm_adaptive alone
        assert "attempts in a row" in str(error)
    else:
        assert result.shape == (1, 4)


# Guidance intervals.

PAIRS = st.one_of(st.tuples(NUMBERS, NUMBERS), st.lists(SCALARS, max_size=3), st.tuples(st.floats(0, 1), st.just(1)))
INTERVALS = st.one_of(PAIRS, SCALARS, st.dictionaries(st.sampled_from(["sigma", "time"]), PAIRS, max_size=2))


@given(INTERVALS.filter(lambda interval: interval is not None), st.sampled_from(sorted(SCHEDULES)))
def test_an_interval_is_one_part_of_the_schedule_or_refused(interval, kind):
    try:
        guides = guidance_at(interval, SCHEDULES[kind])
    except (ValueError, TypeError) as error:
        assert "guidance_interval" in str(error)
        return
    guided = [guides(sigma) for sigma in SCHEDULES[kind].sigmas[::20]]
    assert sum(a != b for a, b in zip(guided, guided[1:], strict=False)) <= 2
    assert not (guided[0] and guided[-1]) or all(guided)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(SCHEDULES)), st.floats(0.001, 0.999))
def test_two_intervals_that_meet_share_nothing_and_leave_nothing_out(start, end, kind, where):
    schedule = SCHEDULES[kind]
    start, middle, end = sorted((start, where, end))
    if not start < middle < end:
        return
    whole, first, second = (guidance_at(pair, schedule) for pair in ((start, end), (start, middle), (middle, end)))
    for sigma in schedule.sigmas[::20]:
        assert first(sigma) + second(sigma) == whole(sigma)
