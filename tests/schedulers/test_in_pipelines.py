"""Samplers as schedulers in pipelines: against our pipelines, diffusers' own schedulers, and exact answers.

Tolerance 1e-6 on latents of size 2 to 35, where the same float32 operations are done in the same order (measured: 0.0).
"""

import copy
import functools

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler
from stepped_schedulers import own_euler
from their_pipelines import (
    NOT_ADAPTIVE,
    PIPELINES,
    SAME,
    SIZE,
    STEPS,
    STOCHASTIC,
    TWO_STAGES,
    difference_to_native,
    latents,
    native,
    random,
    scheduler_for,
)
from tiny_models import flux_prompt, largest_difference, prepared, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import wasserstein
from k_diffusing.schedulers.as_sampler import as_sampler
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


@pytest.mark.parametrize("name", PIPELINES)
def test_euler_equals_the_native_scheduler(name):
    difference, size = difference_to_native(name)
    assert difference <= SAME and size > 1


# The same latents as our pipelines.


@functools.cache
def ours(name: str):
    return tiny_sdxl(StableDiffusionXLPipeline) if name == "SDXL" else tiny_flux(FluxPipeline)


def our_latents(name: str, sampler, generator=None, **call) -> torch.Tensor:
    prompt = sdxl_prompt() if name == "SDXL" else flux_prompt()
    call = {"generator": generator or seeded(), "num_inference_steps": STEPS, **prompt, **SIZE, **call}
    return ours(name)(**call, comfy_sampler=sampler, output_type="latent").images


@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
def test_sdxl_equals_our_pipeline(sampler):
    assert largest_difference(latents("SDXL", scheduler_for("SDXL", sampler)), our_latents("SDXL", sampler)) <= SAME


def flux_pair(sampler, call=(), **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """From diffusers' pipeline with the sampler as its scheduler, and from ours."""
    call = {"latents": random(1, 16, 16), **dict(call)}
    theirs = latents("FLUX", scheduler_for("FLUX", sampler, seeded(), **settings), **call)
    return theirs, our_latents("FLUX", sampler, **call, **settings)


@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
def test_flux_equals_our_pipeline(sampler):
    assert largest_difference(*flux_pair(sampler)) <= SAME


GRIDS = [("karras", {}), (None, {"timesteps": [950, 700, 400, 100]}), (None, {"sigmas": [14.0, 5.0, 1.0, 0.2, 0.0]})]


@pytest.mark.parametrize("sigma_grid, call", GRIDS, ids=["karras", "timesteps", "sigmas"])
def test_grids_of_sdxl(sigma_grid, call):
    theirs = latents("SDXL", scheduler_for("SDXL", "dpmpp_2m", sigma_grid=sigma_grid), **call)
    assert largest_difference(theirs, our_latents("SDXL", "dpmpp_2m", sigma_grid=sigma_grid, **call)) <= SAME


@pytest.mark.parametrize(
    "sigma_grid, call", [("karras", {}), (None, {"sigmas": [1.0, 0.7, 0.2]})], ids=["karras", "sigmas"]
)
def test_grids_of_flux(sigma_grid, call):
    assert largest_difference(*flux_pair("dpmpp_2m", call, sigma_grid=sigma_grid)) <= SAME


@pytest.mark.parametrize("coordinates", ["flow", "ve"])
def test_flow_coordinates(coordinates):
    assert largest_difference(*flux_pair("heun", flow_coordinates=coordinates)) <= SAME


def test_noise_of_a_pipeline_that_passes_no_generator():
    """FLUX's: all noise from scheduler.generator, or from torch's global one, as diffusers has it."""
    generator = seeded()
    theirs = latents("FLUX", scheduler_for("FLUX", "euler_ancestral", generator), generator=generator)
    assert largest_difference(theirs, our_latents("FLUX", "euler_ancestral")) <= SAME * 10  # the rounding error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = latents("FLUX", scheduler_for("FLUX", "euler_ancestral"))
        torch.manual_seed(5)
        assert torch.equal(first, latents("FLUX", scheduler_for("FLUX", "euler_ancestral")))
        assert not torch.equal(first, latents("FLUX", scheduler_for("FLUX", "euler_ancestral")))


@pytest.mark.parametrize("noise", NOISE_SOURCES)
@pytest.mark.parametrize("sampler", ["dpm_2_ancestral", "dpmpp_2m_sde"])
def test_noise_sources_equal_our_pipeline(noise, sampler):
    """The steps' noise, and for ComfyUI's rules the initial scale and the dropped sigma too."""
    initial = noise_streams(noise, seeded(), None, 1, "cpu").initial((1, 4, 8, 8), "cpu", torch.float32)
    theirs = latents("SDXL", scheduler_for("SDXL", sampler, noise=noise), latents=initial, generator=drawn(noise))
    assert largest_difference(theirs, our_latents("SDXL", sampler, noise=noise)) <= SAME


def drawn(noise: str) -> torch.Generator:
    """A generator from which the initial latents were drawn."""
    generator = seeded()
    if not NOISE_SOURCES[noise].seeded:
        torch.randn(1, 4, 8, 8, generator=generator)
    return generator


def test_noise_source_of_packed_latents():
    for noise in ("cpu", "brownian_tree"):
        generator = seeded()
        theirs = latents("FLUX", scheduler_for("FLUX", "dpmpp_2m_sde", generator, noise=noise), generator=generator)
        # the rounding error of latents that our pipeline does not round
        assert largest_difference(theirs, our_latents("FLUX", "dpmpp_2m_sde", noise=noise)) <= SAME * 10
    with pytest.raises(ValueError, match="packed.*our FluxPipeline"):
        latents("FLUX", scheduler_for("FLUX", "euler_ancestral", seeded(), noise="philox"))


# Against other schedulers of diffusers.


@pytest.mark.parametrize("name", ["SDXL", "SDXL img2img", "SDXL inpainting"])
def test_heun_equals_diffusers(name):
    """Two network calls in a step, of which img2img begins with a first; the pipeline counts them by `order`."""
    heun = HeunDiscreteScheduler.from_config(native(name).config)
    theirs = latents(name, SamplerScheduler.from_config(heun.config, sampler="heun"))
    assert largest_difference(theirs, latents(name, heun)) <= SAME


def test_euler_on_ddim_equals_ddim():
    """DDIM is Euler in sigma; its latents are x / sqrt(sigma^2 + 1), and ours are then too. Rounding: 1e-6 of 20."""
    ddim = DDIMScheduler.from_config(native("SDXL").config, clip_sample=False)
    theirs = SamplerScheduler.from_config(ddim.config, sampler="euler")
    assert largest_difference(latents("SDXL", theirs), latents("SDXL", ddim)) <= 5e-5
    assert float(theirs.init_noise_sigma) == 1


def test_a_bound_that_is_left_out_is_told_once(warnings_of_bounds):
    """By each scheduler; one whose sampler is the scheduler itself keeps it. Rounding: 1e-6 of x, whose size is 20."""
    ddim = DDIMScheduler.from_config(native("SDXL").config, clip_sample=True)
    kept = SamplerScheduler.from_config(ddim.config, sampler=as_sampler(ddim))
    expected = latents("SDXL", ddim)
    assert largest_difference(latents("SDXL", kept), expected) <= 5e-5
    assert largest_difference(latents("SDXL", scheduler_from(ddim, clip_sample=False)), expected) > 0.1
    assert warnings_of_bounds == []
    clipped = scheduler_from(ddim)
    for _ in range(2):
        latents("SDXL", clipped)
    (message,) = warnings_of_bounds
    assert "clip_sample=True in the config of DDIMScheduler" in message
    scheduler_from(ddim, thresholding=True).set_timesteps(STEPS)
    assert len(warnings_of_bounds) == 3 and "thresholding=True" in warnings_of_bounds[-1]


def scheduler_from(scheduler, **settings) -> SamplerScheduler:
    return SamplerScheduler.from_config(scheduler.config, sampler="euler", **settings)


@pytest.mark.parametrize("name", ["SDXL", "SDXL img2img"])
def test_there_and_back(name):
    """diffusers' UniPC as a sampler as a scheduler; rounding as in test_as_sampler.py."""
    unipc = UniPCMultistepScheduler.from_config(native(name).config)
    theirs = SamplerScheduler.from_config(unipc.config, sampler=as_sampler(unipc))
    expected = latents(name, unipc)
    assert largest_difference(latents(name, theirs), expected) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["SDXL", "FLUX"])
def test_noise_is_added_as_diffusers_adds_it(name):
    """Before the first step, at begin_index, at timesteps, and after a step, as inpainting does."""
    theirs, own = native(name), scheduler_for(name)
    add = "add_noise" if name == "SDXL" else "scale_noise"
    for scheduler in (theirs, own):
        scheduler.set_timesteps(STEPS, **({} if name == "SDXL" else {"mu": 0.5}))
    clean, noise = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=8)

    def noised(scheduler, timestep):
        return getattr(scheduler, add)(clean, *((noise, timestep) if name == "SDXL" else (timestep, noise)))

    for act in (
        lambda scheduler: None,
        lambda scheduler: scheduler.set_begin_index(2),
        lambda scheduler: scheduler.step(noise, scheduler.timesteps[2], clean),
    ):
        act(theirs), act(own)
        timestep = theirs.timesteps[[4, 1]]
        assert largest_difference(noised(own, timestep), noised(theirs, timestep)) <= SAME


# Right by an exact answer: as it is with our pipelines, tests/oracle/test_closed_form.py.


ORACLES = {
    "epsilon": lambda: oracle_sdxl(),
    "v_prediction": lambda: oracle_sdxl("v_prediction"),
    "flow": oracle_flux,
}


# Wasserstein-1 distance after 30 steps: the worst of README's table for our pipelines and 5 %, on FLUX and on SDXL
# with Karras sigmas.
W1 = {"euler_ancestral": 0.07, "dpmpp_3m_sde": 0.04}


@pytest.mark.parametrize("sampler", STOCHASTIC)
@pytest.mark.parametrize("prediction", ORACLES)
def test_stochastic_samplers_are_right(prediction, sampler):
    oracle = ORACLES[prediction]()
    pipeline_class = diffusers.FluxPipeline if prediction == "flow" else diffusers.StableDiffusionXLPipeline
    pipe = prepared(pipeline_class(**oracle.components), torch.float32)
    grid = None if prediction == "flow" and sampler != "dpmpp_3m_sde" else "karras"
    pipe.scheduler = SamplerScheduler.from_config(oracle.scheduler.config, sampler=sampler, sigma_grid=grid)
    pipe.scheduler.generator = generator = seeded(0)
    side = 72 * pipe.vae_scale_factor
    x = pipe(
        prompt_embeds=torch.zeros(1, 5, 16),
        pooled_prompt_embeds=torch.zeros(1, 16),
        height=side,
        width=side,
        num_inference_steps=30,
        guidance_scale=1.0,
        generator=generator,
        output_type="latent",
    ).images
    assert wasserstein(x) < W1.get(sampler, 0.03)


@pytest.mark.parametrize("name", ["SDXL", "FLUX"])
def test_callbacks_that_change_latents(name):
    def callback(pipe, step, t, tensors):
        return {"latents": tensors["latents"] * 0.9} if step == 2 else {}

    theirs, expected = (
        flux_pair("dpmpp_2m", {"callback_on_step_end": callback})
        if name == "FLUX"
        else (f(name, s, callback_on_step_end=callback) for f, s in (
            (latents, scheduler_for(name, "dpmpp_2m")), (our_latents, "dpmpp_2m")))
    )  # fmt: skip
    assert largest_difference(theirs, expected) <= SAME


@pytest.mark.parametrize("sampler", TWO_STAGES)
def test_img2img_where_the_pipeline_counts_calls(sampler):
    """FLUX passes its sigmas, and then takes the number of timesteps for that of steps: 5.5 of 11, so 6 are left."""
    calls = []
    scheduler = scheduler_for("FLUX img2img", sampler, seeded())
    latents("FLUX img2img", scheduler, callback_on_step_end=lambda pipe, i, t, tensors: calls.append(i) or {})
    assert scheduler.order == 1 and len(calls) == 6


def test_denoising_end():
    """The latents where the pipeline stops, and no more steps; the run is dropped with the next one."""
    scheduler = scheduler_for("SDXL", "dpmpp_2m")
    theirs = latents("SDXL", scheduler, denoising_end=0.5)
    assert largest_difference(theirs, our_latents("SDXL", "dpmpp_2m", denoising_end=0.5)) <= SAME
    assert largest_difference(latents("SDXL", scheduler), our_latents("SDXL", "dpmpp_2m")) <= SAME


NO_STEP = {
    "SDXL": [{"sigmas": [0.9]}, {"sigmas": (3.0,)}, {"sigmas": torch.zeros(1)}, {"timesteps": []}],
    "FLUX": [{"sigmas": []}, {"sigmas": [0.0]}],
}


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_sde", own_euler])
@pytest.mark.parametrize("name, call", [(name, call) for name in NO_STEP for call in NO_STEP[name]])
def test_a_grid_without_a_step_leaves_the_initial_latents(name, call, sampler):
    """As in diffusers' own loop, also in our pipelines; no callback is called."""
    expected, called = latents(name, copy.deepcopy(native(name)), **call), []
    call = {**call, "callback_on_step_end": lambda *arguments: called.append(arguments) or {}}
    for ones in (latents(name, scheduler_for(name, sampler), **call), our_latents(name, sampler, **call)):
        assert largest_difference(ones, expected) == 0
    assert called == []


@pytest.mark.parametrize("sampler", [*NOT_ADAPTIVE, own_euler])
def test_img2img_without_a_step_leaves_the_image(sampler):
    """Pipelines begin after the last step, counted as long as the others. (diffusers' schedulers leave no image.)"""
    clean = latents("SDXL img2img", scheduler_for("SDXL img2img", sampler), strength=0.1)
    scheduler = scheduler_for("SDXL img2img", "euler")
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(STEPS)
    assert largest_difference(scheduler.add_noise(clean, torch.ones_like(clean), scheduler.timesteps[:1]), clean) == 0
    assert clean.shape == (1, 4, 8, 8)
    assert largest_difference(clean, latents("SDXL img2img", scheduler, strength=0.1)) == 0


# What happens besides the next step.


@pytest.mark.parametrize("end", ["interrupt", "error"])
def test_one_scheduler_for_several_calls(end):
    scheduler = scheduler_for("SDXL", "dpmpp_2m_sde")
    expected = latents("SDXL", scheduler)

    def callback(pipe, step, t, tensors):
        if step == 2 and end == "error":
            raise KeyError("the user's")
        pipe._interrupt = step == 2
        return {}

    try:
        stopped = latents("SDXL", scheduler, callback_on_step_end=callback)
        assert end == "interrupt" and not torch.equal(stopped, expected)
    except KeyError:
        assert end == "error"
    assert torch.equal(latents("SDXL", scheduler), expected)
