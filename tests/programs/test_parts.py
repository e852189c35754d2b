"""Each part of ComfyUI's record, by what a plan or a call does of it."""

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from tiny_models import flux_prompt, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.model.schedules import DiscreteSchedule
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE
from k_diffusing.programs.comfyui import COMFYUI
from k_diffusing.samplers.find import find_sampler
from k_diffusing.trace.record import Trace
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

CALL = {"height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent", "seeds": 1}


@pytest.fixture
def flux():
    return tiny_flux(FluxPipeline)


@pytest.fixture
def sdxl():
    return tiny_sdxl(StableDiffusionXLPipeline)


def test_noise_levels_are_computed_in_double_precision():
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - roots**2, dim=0)
    exact = ((1 - kept) / kept).sqrt()
    schedule = COMFYUI.noise_schedule(EulerDiscreteScheduler(**SDXL_SCHEDULE))
    assert torch.equal(schedule.sigmas, exact.float()) and torch.equal(schedule.log_sigmas, exact.log().float())


def test_zero_terminal_snr_ends_at_a_finite_sigma():
    scheduler = EulerDiscreteScheduler(**SDXL_SCHEDULE | {"rescale_betas_zero_snr": True})
    assert float(COMFYUI.noise_schedule(scheduler).sigmas[-1]) == pytest.approx((1 / 4.8973e-8 - 1) ** 0.5, rel=1e-4)


def test_of_two_timesteps_as_near_the_smaller_is_told():
    logs = torch.tensor([-2.0, -0.5, 0.5, 2.0])
    schedule = DiscreteSchedule(logs.exp(), logs=logs)
    assert schedule.timestep(torch.ones(1), quantize=True).tolist() == [1.0]  # log 1 is in the middle of the table


def test_timesteps_of_sdxl_are_whole(sdxl):
    planned = sdxl.plan("euler", None, "karras", 7, program="comfyui")
    assert torch.equal(planned.timesteps, planned.timesteps.round())
    interpolated = sdxl.plan("euler", None, "karras", 7, program="comfyui", quantize=False).timesteps
    assert not torch.equal(interpolated, interpolated.round())


@pytest.mark.parametrize("height", [16, 64, 1024])
def test_flux_has_ten_thousand_levels_at_one_shift(flux, height):
    planned = flux.plan("euler", None, "karras", 5, height=height, width=height, program="comfyui")
    factor = math.exp(1.15)
    smallest = factor / (factor + 9999)  # of a uniform time of 1 / 10,000
    assert float(planned.sigmas[-2]) == pytest.approx(smallest, rel=1e-5)


def test_mu_is_the_users(flux):
    planned = flux.plan("euler", None, "simple", 2, program="comfyui", mu=0.5)
    assert float(planned.sigmas[1]) == pytest.approx(math.exp(0.5) / (math.exp(0.5) + 1), rel=1e-6)


def test_schnell_has_a_thousand_unshifted_levels():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    times = COMFYUI.flow_schedule(scheduler, 0.7, None).sigmas
    assert torch.equal(times, torch.arange(1, 1001) / 1000)


def test_first_time_of_sde_samplers(flux):
    factor = math.exp(1.15)
    first = factor / (factor + (1 / 0.9999 - 1))
    planned = flux.plan("dpmpp_2m_sde", None, "simple", 4, program="comfyui")
    assert planned.options["first_time"] == pytest.approx(first, rel=1e-12)
    assert float(planned.levels(torch.zeros(1, 16, 16), 1.0).grid[0].timestep) == pytest.approx(1000 * first, rel=1e-6)
    mine = flux.plan("dpmpp_2m_sde", {"first_time": 0.99}, "simple", 4, program="comfyui")
    assert mine.options["first_time"] == 0.99
    with pytest.raises(ValueError, match="first_time=1.0: give a time above 0 and below 1"):
        flux.plan("dpmpp_2m_sde", {"first_time": 1.0}, "simple", 4, program="comfyui")


def test_percent_to_sigma_is_in_double_precision(flux):
    factor, level = math.exp(1.15), flux.plan("euler", program="comfyui").space.levels.percent_to_sigma(1e-4)
    # 1 - t is 3e-5, of which float32's t has three digits
    assert 1 - level == pytest.approx(1 - factor / (factor + (1 / 0.9999 - 1)), rel=1e-9)


@pytest.mark.parametrize("scale, calls", [(0.5, 2), (0.0, 2), (1.0, 1), (1.0000001, 2), (1.0000000001, 1), (3.0, 2)])
def test_the_negative_prompt_is_asked_at_any_scale_but_1(sdxl, scale, calls):
    rows = []
    sdxl.unet.register_forward_pre_hook(lambda unet, given: rows.append(len(given[0])))
    sdxl(**sdxl_prompt(), **CALL, comfy_sampler="euler", guidance_scale=scale, program="comfyui")
    assert set(rows) == {calls}


def test_guidance_below_1_changes_the_picture(flux):
    a, b = (
        flux(
            **flux_prompt(negative=True), **CALL, comfy_sampler="euler", true_cfg_scale=scale, program="comfyui"
        ).images
        for scale in (0.5, 1.0)
    )
    assert (a - b).abs().max() > 1e-4


def told(pipe, monkeypatch, **call):
    """What a pipeline's encode_prompt is asked for, before anything is encoded."""
    seen = []

    class AskedError(Exception):
        pass

    def ask(*args, **keywords):
        seen.append((args, keywords))
        raise AskedError

    monkeypatch.setattr(pipe, "encode_prompt", ask)
    with pytest.raises(AskedError):
        pipe("a red circle", **{**CALL, "comfy_sampler": "euler", **call})
    return seen[0]


@pytest.mark.parametrize("program, negative", [("comfyui", ""), (None, None)])
def test_no_negative_prompt_is_an_empty_one(sdxl, monkeypatch, program, negative):
    _, keywords = told(sdxl, monkeypatch, guidance_scale=5.0, program=program)
    assert keywords["negative_prompt"] == negative


@pytest.mark.parametrize("program, given, tokens", [("comfyui", 512, 256), (None, 512, 512), ("comfyui", 64, 64)])
def test_tokens_of_a_prompt(flux, monkeypatch, program, given, tokens):
    _, keywords = told(flux, monkeypatch, program=program, max_sequence_length=given)
    assert keywords["max_sequence_length"] == tokens


def test_sigmas_are_dropped_of_functions_of_its_names(sdxl):
    def sample_dpm_2(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return x

    def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return x

    by_name, function, mine = (
        sdxl.plan(sampler, None, "karras", 5, program="comfyui").sigmas
        for sampler in ("dpm_2", sample_dpm_2, sample_mine)
    )
    assert torch.equal(by_name, function) and len(mine) == len(function) == 6
    assert float(function[-2]) > float(mine[-2])


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde_gpu"])
def test_functions_of_sde_samplers_names_get_a_brownian_path(name):
    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
        return x

    sample.__name__ = f"sample_{name}"
    assert find_sampler(sample).noise == "brownian"


def test_a_tree_is_asked_for_times_of_the_grid(flux):
    """Noise between times of the latents, not between sigmas of x0 + sigma eps, nor from the time that stands for 1."""
    trace = Trace()
    flux(**flux_prompt(), **CALL, comfy_sampler="dpmpp_2m_sde", sigma_grid="simple", program="comfyui", trace=trace)
    planned = flux.plan("dpmpp_2m_sde", None, "simple", 3, height=16, width=16, program="comfyui")
    begins, ends = planned.options["first_time"], planned.sigmas[1:3].tolist()
    asked = [(float(draw.sigma), float(draw.sigma_next)) for draw in trace.draws]
    assert asked == [(pytest.approx(begins), ends[0]), tuple(ends)]


def test_lms_ends_in_what_is_denoised(sdxl):
    trace = Trace(tensors=True)
    final = sdxl(**sdxl_prompt(), **CALL, comfy_sampler="lms", program="comfyui", trace=trace).images
    # 1e-6: a tensor of float32 to the pipeline's own form and back
    assert (trace.calls[-1].denoised.tensor - final).abs().max() < 1e-6


def test_what_takes_a_range_has_no_step_to_0(sdxl):
    planned = sdxl.plan("dpm_fast", None, "simple", 7, program="comfyui")
    assert planned.evaluations == 7 and sdxl.plan("dpm_fast", None, "simple", 7).evaluations == 7
    assert planned.steps == 3 and sdxl.plan("dpm_fast", None, "simple", 7).steps == 4
