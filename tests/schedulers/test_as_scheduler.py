"""Samplers as schedulers: against our pipelines, against diffusers' own schedulers in many pipelines, against exact
answers; what a run holds, and what it does when something else happens than the next step.

Tolerance 1e-6 on latents of size 2 to 35, where the same float32 operations are done in the same order (measured: 0.0).
"""

import copy
import functools
import gc
import inspect
import json
import pickle
import sys
import threading
import weakref

import diffusers
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_models import (
    SDXL_SCHEDULE,
    TINY_UNET,
    flux_prompt,
    largest_difference,
    prepared,
    sdxl_prompt,
    seeded,
    seeded_weights,
    tiny_flux,
    tiny_sdxl,
    tiny_unet,
    tiny_vae,
)

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.model.scheduler_config import preconditioning
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl, wasserstein
from k_diffusing.schedulers.as_sampler import KINDS, as_sampler
from k_diffusing.schedulers.as_scheduler import Run, SamplerScheduler
from samplers_patch import SAMPLERS, find_sampler, k_sampling, run_sampler
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SAME = 1e-6
STEPS = 6
SIZE = {"height": 16, "width": 16}
NOT_ADAPTIVE = [name for name, sampler in SAMPLERS.items() if not sampler.adaptive]
STOCHASTIC = [name for name in NOT_ADAPTIVE if SAMPLERS[name].stochastic]
TWO_STAGES = ["heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"]
EULER = EulerDiscreteScheduler(**SDXL_SCHEDULE)
SHIFTING = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


# Pipelines of diffusers on tiny random networks, each with the scheduler that is native to it.


def random(*shape, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@seeded_weights()
def make(network_class, **config):
    return network_class(**config).eval()


def assembled(pipeline_class, scheduler, **parts):
    """The pipeline of these parts, with None for all others it has."""
    parameters = inspect.signature(pipeline_class.__init__).parameters.values()
    absent = {p.name: None for p in parameters if p.name != "self" and p.default is p.empty}
    return prepared(pipeline_class(**{**absent, **parts, "scheduler": copy.deepcopy(scheduler)}), torch.float32)


IMAGE = torch.rand(1, 3, 16, 16, generator=seeded())
MASK = (torch.rand(1, 1, 16, 16, generator=seeded()) > 0.5).float()
TINY = {"num_layers": 1, "num_attention_heads": 2}
EMBEDS = {"prompt_embeds": random(1, 5, 16), "negative_prompt_embeds": random(1, 5, 16, seed=8)}
ON_IMAGE = {"image": IMAGE, "strength": 0.5}
ON_MASK = {**SIZE, **ON_IMAGE, "mask_image": MASK}


def controlnet() -> ControlNetModel:
    known, unet = inspect.signature(ControlNetModel.__init__).parameters, tiny_unet().config
    config = {name: value for name, value in unet.items() if name in known}
    network = make(ControlNetModel, **config, conditioning_embedding_out_channels=(4, 8))
    for parameter in network.parameters():  # what starts at zero would make the image count for nothing
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def sd15(pipeline_class):
    unet = make(diffusers.UNet2DConditionModel, **TINY_UNET, attention_head_dim=2)
    return assembled(pipeline_class, EULER, vae=tiny_vae(), unet=unet, requires_safety_checker=False)


def sd3(pipeline_class):
    transformer = make(
        diffusers.SD3Transformer2DModel,
        **TINY,
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        attention_head_dim=8,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
    )
    vae = tiny_vae(scaling_factor=1.5, shift_factor=0.1)
    return assembled(pipeline_class, FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, transformer=transformer)


def flux_fill():
    pipe = tiny_flux(diffusers.FluxFillPipeline)
    config = {**pipe.transformer.config, "in_channels": 16 + 16 + 16, "out_channels": 16}
    pipe.transformer = make(diffusers.FluxTransformer2DModel, **{k: v for k, v in config.items() if k[0] != "_"})
    return pipe


def flux2():
    config = {"in_channels": 16, "num_single_layers": 1, "attention_head_dim": 16, "joint_attention_dim": 16}
    config |= {"timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4)}
    return assembled(
        diffusers.Flux2Pipeline, SHIFTING, transformer=make(diffusers.Flux2Transformer2DModel, **TINY, **config)
    )


def qwen_image():
    config = {"in_channels": 16, "out_channels": 4, "attention_head_dim": 16, "joint_attention_dim": 16}
    transformer = make(diffusers.QwenImageTransformer2DModel, **TINY, **config, axes_dims_rope=(4, 4, 8))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    return assembled(diffusers.QwenImagePipeline, scheduler, transformer=transformer)


def wan():
    config = {"in_channels": 4, "out_channels": 4, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16}
    transformer = make(diffusers.WanTransformer3DModel, **TINY, **config, ffn_dim=16, rope_max_seq_len=32)
    return assembled(diffusers.WanPipeline, FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer)


def ltx():
    config = {"in_channels": 8, "out_channels": 8, "attention_head_dim": 8, "cross_attention_dim": 16}
    transformer = make(diffusers.LTXVideoTransformer3DModel, **TINY, **config, caption_channels=16)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    return assembled(diffusers.LTXPipeline, scheduler, transformer=transformer)


def with_controlnet():
    parts = {"vae": tiny_vae(), "unet": tiny_unet(), "controlnet": controlnet()}
    return assembled(diffusers.StableDiffusionXLControlNetPipeline, EULER, **parts)


def video(frames: int, **more) -> dict:
    return {**EMBEDS, "num_frames": frames, "height": 64, "width": 64, **more}


def masks(shape: tuple) -> dict:
    return {f"{sign}prompt_attention_mask": torch.ones(shape) for sign in ("", "negative_")}


ALONE = {"prompt_embeds": EMBEDS["prompt_embeds"], "height": 64, "width": 64}
# What it is, and (the pipeline, the arguments of a call).
PIPELINES = {
    "SDXL": lambda: (tiny_sdxl(diffusers.StableDiffusionXLPipeline), {**sdxl_prompt(), **SIZE}),
    "SDXL img2img": lambda: (tiny_sdxl(diffusers.StableDiffusionXLImg2ImgPipeline), {**sdxl_prompt(), **ON_IMAGE}),
    "SDXL inpainting": lambda: (tiny_sdxl(diffusers.StableDiffusionXLInpaintPipeline), {**sdxl_prompt(), **ON_MASK}),
    "SDXL ControlNet": lambda: (with_controlnet(), {**sdxl_prompt(), **SIZE, "image": IMAGE}),
    "SD 1.5": lambda: (sd15(diffusers.StableDiffusionPipeline), {**EMBEDS, **SIZE}),
    "SD 1.5 img2img": lambda: (sd15(diffusers.StableDiffusionImg2ImgPipeline), {**EMBEDS, **ON_IMAGE}),
    "SD 1.5 inpainting": lambda: (sd15(diffusers.StableDiffusionInpaintPipeline), {**EMBEDS, **ON_MASK}),
    "SD3": lambda: (sd3(diffusers.StableDiffusion3Pipeline), {**sdxl_prompt(), **SIZE}),
    "SD3 img2img": lambda: (sd3(diffusers.StableDiffusion3Img2ImgPipeline), {**sdxl_prompt(), **SIZE, **ON_IMAGE}),
    "FLUX": lambda: (tiny_flux(diffusers.FluxPipeline), {**flux_prompt(), **SIZE}),
    "FLUX img2img": lambda: (tiny_flux(diffusers.FluxImg2ImgPipeline), {**flux_prompt(), **SIZE, **ON_IMAGE}),
    "FLUX inpainting": lambda: (tiny_flux(diffusers.FluxInpaintPipeline), {**flux_prompt(), **ON_MASK}),
    "FLUX Fill": lambda: (flux_fill(), {**flux_prompt(), **SIZE, "image": IMAGE, "mask_image": MASK}),
    "FLUX Kontext": lambda: (
        tiny_flux(diffusers.FluxKontextPipeline),
        {**flux_prompt(), **SIZE, "image": IMAGE, "max_area": 256, "_auto_resize": False},
    ),
    "FLUX.2": lambda: (flux2(), ALONE),
    "Qwen-Image": lambda: (qwen_image(), {**ALONE, "prompt_embeds_mask": torch.ones(1, 5).long()}),
    "Wan (video)": lambda: (wan(), video(5)),
    "LTX (video)": lambda: (ltx(), video(9, **masks((1, 5)))),
}


@functools.cache
def pipeline(name: str):
    return PIPELINES[name]()


def latents(name: str, scheduler, steps: int = STEPS, **call) -> torch.Tensor:
    """The final latents of diffusers' pipeline with this scheduler."""
    pipe, arguments = pipeline(name)
    pipe.scheduler = scheduler
    call = {"generator": seeded(), "num_inference_steps": steps, "output_type": "latent", **arguments, **call}
    return pipe(**call, return_dict=False)[0]


@functools.cache
def native(name: str):
    return PIPELINES[name]()[0].scheduler


def scheduler_for(name: str, sampler="euler", generator=None, **settings) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(native(name).config, sampler=sampler, **settings)
    scheduler.generator = generator
    return scheduler


def difference_to_native(name: str) -> tuple[float, float]:
    """The largest difference of `euler` to the scheduler that is native to the pipeline, and the largest latent."""
    expected = latents(name, copy.deepcopy(native(name)))
    return largest_difference(latents(name, scheduler_for(name)), expected), float(expected.abs().max())


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
    """diffusers' UniPC as a sampler as a scheduler; rounding as in test_scheduler_bridge."""
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


# Right by an exact answer: as it is with our pipelines, tests/oracle/test_oracles.py.

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


# A run, stepped by hand.

X = random(2, 4, 8, 8) * 14


def network(net_input: torch.Tensor, t) -> torch.Tensor:
    return 0.6 * net_input + 0.4 * torch.sin(3 * net_input.flip(-1) + 0.01 * t)


def fresh_from(config, sampler="dpmpp_2m", steps: int = STEPS, **settings) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(config, sampler=sampler, **settings)
    scheduler.set_timesteps(steps)
    return scheduler


fresh = functools.partial(fresh_from, EULER.config)


def stepped(scheduler, x=X, change=lambda call, x: x, begin: int = 0) -> torch.Tensor:
    """The loop of diffusers' pipelines, with a change of the latents before each call."""
    generator = seeded()
    for call, t in enumerate(scheduler.timesteps[begin:], begin):
        x = change(call, x)
        output = network(scheduler.scale_model_input(x, t).to(x.dtype), t)
        x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
    return x


def called(scheduler, sampler, x=X, change=lambda call, x: x, dtype=torch.float32, **options):
    """The sampler's own result on the same network, and the sigmas it called it at."""
    row, times, levels = preconditioning(EULER), scheduler.timesteps, []

    def denoiser(x, sigma):
        call, level = len(levels), sigma.reshape(-1, 1, 1, 1)
        levels.append(sigma[0])
        x.copy_(change(call, x))
        net_input = row.network_input(x.to(dtype), level).to(dtype)
        return row.denoised(x, network(net_input, times[call]).float(), level)

    grid, x = scheduler._plan.grid, x.float().clone()
    return run_sampler(find_sampler(sampler), denoiser, x, grid, options=options, generator=seeded()), levels


@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
def test_a_timestep_for_each_network_call(sampler):
    scheduler = fresh(sampler)
    x, levels = called(scheduler, sampler)
    assert torch.equal(scheduler.sigmas, torch.stack([*levels, torch.tensor(0.0)]))
    assert len(scheduler.timesteps) == len(levels) == (2 * STEPS - 1 if sampler in TWO_STAGES else STEPS)
    assert scheduler.order == (2 if sampler in TWO_STAGES else 1)
    assert largest_difference(stepped(scheduler), x) <= SAME


def test_churn():
    """Network calls are at levels above the grid's; the latents begin at the first of these, whose noise is in them."""
    scheduler = fresh("heun", sampler_options={"s_churn": 3.0})
    x, levels = called(scheduler, "heun", change=lambda call, x: X if call == 0 else x, s_churn=3.0)
    assert torch.equal(scheduler.sigmas[:-1], torch.stack(levels)) and levels[0] > 1.3 * scheduler._plan.grid[0]
    without = fresh("heun")
    assert abs(scheduler.init_noise_sigma / levels[0] - without.init_noise_sigma / without.sigmas[0]) <= SAME
    assert largest_difference(stepped(scheduler), x) <= SAME


def test_the_null_run_draws_nothing():
    def noise_sampler(sigma, sigma_next):
        raise AssertionError("drawn from")

    before = torch.get_rng_state()
    for sampler in (*NOT_ADAPTIVE, draws_for_itself):
        fresh(sampler)
    fresh("dpmpp_sde", sampler_options={"noise_sampler": noise_sampler})
    assert torch.equal(torch.get_rng_state(), before)


DRAWS = {
    "randn_like": torch.randn_like,
    "randn": lambda x: torch.randn(x.shape),
    "rand": lambda x: torch.rand(x.shape, dtype=torch.float64),
    "rand_like": torch.rand_like,
    "randint": lambda x: torch.randint(2, 9, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 2, 9),
    "randperm": lambda x: torch.randperm(3)[0],
    "normal_": lambda x: torch.empty(x.shape).normal_(),
    "normal": lambda x: torch.normal(x, 1.0),
    "bernoulli": lambda x: torch.bernoulli(x.clamp(0, 1)),
    "multinomial": lambda x: torch.multinomial(torch.ones(4), 1),
    "dropout": torch.nn.functional.dropout,
    "distribution": lambda x: torch.distributions.Normal(0.0, 1.0).sample(x.shape),
    "tree": lambda x: k_sampling.BrownianTreeNoiseSampler(x, 1.0, 9.0)(torch.tensor(8.0), torch.tensor(2.0)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_null_run_leaves_the_generators_to_other_threads(name):
    """The global generator's values, drawn by another thread while timesteps are set, are those of its sequence: it is
    neither advanced nor put back. Nor is a user's generator advanced."""
    own, drawn = seeded(), []

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma in sigmas[:-1]:
            x = x + 0 * DRAWS[name](x) * torch.randn(x.shape, generator=own)
            thread = threading.Thread(target=lambda: drawn.append(torch.rand(1)))
            thread.start(), thread.join()
            x = model(x, sigma * x.new_ones(len(x)))
        return x

    torch.manual_seed(5)
    scheduler = fresh(sampler)
    scheduler.set_begin_index(1)
    drawn.append(torch.rand(1))
    torch.manual_seed(5)
    assert torch.equal(torch.cat(drawn), torch.cat([torch.rand(1) for _ in drawn])) and len(drawn) > 2 * STEPS
    assert torch.equal(own.get_state(), seeded().get_state())


def draws_for_itself(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for sigma in sigmas[:-1]:
        x = x + 0 * torch.randn_like(x) * model(x, sigma * x.new_ones(len(x)))
    return x


def half_at_3(call, x):
    return x * 0.5 if call == 3 else x


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "dpmpp_2m_sde", "lms", "heun", "dpmpp_sde"])
def test_changed_latents_are_gone_on_from(sampler):
    """Call 3 begins a step, or is an inner stage of one, where the change serves that call alone: in both cases what
    happens to the tensor that the sampler gave to the model."""
    scheduler = fresh(sampler)
    changed = stepped(scheduler, change=half_at_3)
    assert largest_difference(changed, called(scheduler, sampler, change=half_at_3)[0]) <= SAME
    assert largest_difference(changed, stepped(fresh(sampler))) > 0.01


def euler_in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * x.new_ones(len(x)))) / sigmas[i]
        x.add_(d * (sigmas[i + 1] - sigmas[i]))
    return x


@pytest.mark.parametrize("change", [lambda call, x: x, half_at_3], ids=["as it is", "changed"])
def test_the_pipelines_first_latents_are_not_written_to(change):
    """Neither by a sampler that writes to its state nor by the change of one."""
    given = X.clone()
    results = [stepped(fresh(sampler), given, change) for sampler in ("euler", euler_in_place)]
    assert torch.equal(given, X)
    # float32 rounding in another order of operations, on latents of size 40
    assert largest_difference(*results) < 1e-4


def test_options_of_a_former_sampler_are_dropped():
    """Of the same name too, whatever they were."""
    former = SamplerScheduler.from_config(EULER.config, sampler="heun", sampler_options={"s_churn": 3.0})
    assert fresh_from(former.config, "dpmpp_2m").config.sampler_options is None
    former = SamplerScheduler.from_config(EULER.config, sampler="euler_ancestral", sampler_options={"eta": 0.5})
    assert torch.equal(stepped(fresh_from(former.config, "dpmpp_sde")), stepped(fresh("dpmpp_sde")))
    kept = SamplerScheduler.from_config(former.config, sigma_grid="karras")
    assert kept.config.sampler_options == {"eta": 0.5}
    other = fresh_from(former.config, "dpmpp_sde", sampler_options={"eta": 0.2})
    assert other.config.sampler_options == {"eta": 0.2}


def test_the_generator_given_to_step_comes_first():
    """Before that of the scheduler, which is taken where a pipeline gives none."""
    expected = stepped(fresh("euler_ancestral"))  # gives seeded() to every step
    scheduler = fresh("euler_ancestral")
    scheduler.generator = seeded(8)
    assert torch.equal(stepped(scheduler), expected)
    assert torch.equal(scheduler.generator.get_state(), seeded(8).get_state())


def in_place(call, x):
    return x.mul_(0.5) if call == 3 else x


@pytest.mark.parametrize("config", [EULER.config, DDIMScheduler(**SDXL_SCHEDULE).config], ids=["the state", "scaled"])
def test_latents_changed_in_place_and_copied(config):
    """Latents may be the sampler's state itself, or computed from it."""
    changes = (lambda call, x: x, in_place, half_at_3, lambda call, x: x.clone())
    same, written, replaced, cloned = (stepped(fresh_from(config), X / 14, change) for change in changes)
    assert torch.equal(written, replaced) and not torch.equal(written, same)
    assert largest_difference(cloned, same) <= SAME * 10  # scaled latents were rounded


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


def test_the_state_keeps_its_digits():
    """A pipeline in bfloat16 sees rounded latents, and the sampler goes on from those that were not."""
    scheduler, x = fresh(), X.bfloat16()
    theirs, expected = stepped(scheduler, x), called(scheduler, "dpmpp_2m", x, dtype=torch.bfloat16)[0]
    assert theirs.dtype == torch.bfloat16
    assert largest_difference(theirs, expected.bfloat16()) == 0


@pytest.mark.parametrize("sampler, begin, start", [("heun", 4, 4), ("heun", 5, 6), ("dpm_2", 5, 6), ("dpm_fast", 4, 5)])
def test_a_run_that_begins_later(sampler, begin, start):
    """With a step of the sampler; inside of one, by Euler steps to the next."""
    scheduler = fresh(sampler)
    sigmas, x = scheduler.sigmas, X / 14
    for call in range(begin, start):
        sigma, t = sigmas[call], scheduler.timesteps[call]
        x = x + network(scheduler._plan.space.network_input(x, sigma), t) * (sigmas[call + 1] - sigma)
    expected = fresh(sampler)
    expected.set_begin_index(start)
    scheduler.set_begin_index(begin)
    tolerance = SAME if start == begin else 1e-5  # Euler's step is rounded otherwise here
    assert largest_difference(stepped(scheduler, X / 14, begin=begin), stepped(expected, x, begin=start)) <= tolerance


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


# Where no step is left to take.


def own_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return k_sampling.sample_euler(model, x, sigmas, callback=callback, disable=True)


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


def witnessed(alive: list):
    """A sampler that leaves a weak reference to its state."""

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        state = torch.zeros_like(x)
        alive.append(weakref.ref(state))
        return k_sampling.sample_euler(lambda x, sigma: model(x, sigma) + state, x, sigmas, disable=True)

    return sampler


def one_step(scheduler) -> None:
    t = scheduler.timesteps[0]
    scheduler.step(network(X, t), t, X)


def living(alive: list) -> int:
    return sum(reference() is not None for reference in alive)


def test_abandoned_runs_leave_nothing():
    """Without the garbage collector."""
    alive, threads, sigmas = [], threading.active_count(), torch.tensor([2.0, 1.0, 0.0])
    sampler = witnessed(alive)
    gc.disable()
    try:
        for _ in range(1000):
            run = Run(lambda model: sampler(model, X, sigmas))
            run.answer(X)
        assert len(alive) == 1000 and living(alive) == 1
        del run
        assert living(alive) == 0
    finally:
        gc.enable()
    assert threading.active_count() == threads


def test_a_scheduler_drops_its_run():
    """With the next set_timesteps, and with itself."""
    alive = []
    scheduler = fresh(witnessed(alive))
    gc.disable()
    try:
        one_step(scheduler)
        assert living(alive) == 1
        scheduler.set_timesteps(STEPS)
        assert living(alive) == 0
        one_step(scheduler)
        del scheduler
        assert living(alive) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("ended", [True, False], ids=["after its thread", "before its thread"])
def test_runs_abandoned_in_another_thread_leave_nothing(ended):
    alive, box = [], []
    begun, dropped = threading.Event(), threading.Event()

    def work():
        box.append(fresh(witnessed(alive)))
        one_step(box[0])
        begun.set()
        if not ended:
            dropped.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(10)
    if ended:
        thread.join()
    box.clear()
    dropped.set()
    thread.join()
    assert len(alive) == 3 and living(alive) == 0  # two null runs, one run


def sampler_in(mode):
    @mode
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def watched(x, sigma):
            before, denoised = modes(), model(x, sigma)
            assert modes() == before
            return denoised

        return inspect.unwrap(k_sampling.sample_euler)(watched, x, sigmas, disable=True)

    return sampler


def modes() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


MODES = {"no_grad": torch.no_grad(), "enable_grad": torch.enable_grad(), "inference_mode": torch.inference_mode()}


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", ["no_grad", "enable_grad"])
def test_grad_mode_is_the_callers(inner, outer):
    """While the run is suspended, when it is over, and when it is dropped in another mode than it began in; the sampler
    has its own again when it goes on."""
    plain = modes()
    scheduler = fresh(sampler_in(MODES[inner]))
    for t in scheduler.timesteps[:2]:
        scheduler.step(network(X, t), t, X)
        assert modes() == plain
    with copy.deepcopy(MODES[outer]):
        before = modes()
        scheduler.set_timesteps(STEPS)
        assert modes() == before
        stepped(scheduler)
        assert modes() == before
    assert modes() == plain


def test_a_sampler_in_inference_mode():
    """Its own is not the pipeline's, while it is suspended and when it is over."""
    scheduler, plain = fresh(sampler_in(MODES["inference_mode"])), modes()
    one_step(scheduler)
    assert modes() == plain
    scheduler.set_timesteps(STEPS)
    assert torch.equal(stepped(scheduler, change=half_at_3), stepped(fresh("euler"), change=half_at_3))
    assert modes() == plain


def test_inference_mode():
    with torch.inference_mode():
        theirs = stepped(fresh("dpmpp_2m_sde"))
    assert torch.equal(theirs.clone(), stepped(fresh("dpmpp_2m_sde")))


# Pickled, since multiprocessing does so with what it hands over; no file is read or written.
@pytest.mark.parametrize("through", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_copies_begin_anew(through):
    scheduler = fresh()
    one_step(scheduler)
    twin = through(scheduler)
    with pytest.raises(RuntimeError, match="set_timesteps"):
        one_step(twin)
    twin.set_timesteps(STEPS)
    assert torch.equal(stepped(twin), stepped(fresh()))
    t = scheduler.timesteps[1]
    scheduler.step(network(X, t), t, X)  # the first one's run is still its own


def test_another_thread_cannot_step_the_run():
    scheduler, errors = fresh(), []
    one_step(scheduler)

    def work():
        try:
            scheduler.step(X, scheduler.timesteps[1], X)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "another thread" in errors[0]


def own_grid(schedule, n):
    return torch.cat([torch.linspace(float(schedule.sigmas[-1]), 0.1, n), torch.zeros(1)])


@pytest.mark.parametrize(
    "settings, again",
    [
        ({"sampler": "dpmpp_2m_sde", "sampler_options": {"eta": 0.3}, "sigma_grid": "karras"}, []),
        ({"sampler": own_euler, "sigma_grid": own_grid}, ["sampler", "sigma_grid"]),
        ({"sampler": k_sampling.sample_heun, "timestep_spacing": "trailing"}, []),
    ],
    ids=["names", "functions", "a function of k_diffusion"],
)
def test_save_and_load(tmp_path, settings, again):
    """again: the settings that loading takes again, the functions or their paths."""
    scheduler = SamplerScheduler.from_config(EULER.config, **settings)
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    pipe.scheduler = scheduler
    pipe.save_pretrained(tmp_path)
    given = {name: settings[name] for name in again}
    paths = {name: scheduler.config[name] for name in again}
    alone = SamplerScheduler.from_pretrained(tmp_path, subfolder="scheduler", **given)
    by_path = SamplerScheduler.from_pretrained(tmp_path, subfolder="scheduler", **json.loads(json.dumps(paths)))
    whole = DiffusionPipeline.from_pretrained(tmp_path, **({"scheduler": alone} if again else {})).scheduler
    for loaded in (alone, by_path, whole, copy.deepcopy(scheduler)):
        for one in (loaded, scheduler):
            one.set_timesteps(STEPS)
        assert torch.equal(loaded.sigmas, scheduler.sigmas)
        assert torch.equal(stepped(loaded), stepped(scheduler))


def test_a_config_in_memory_makes_the_scheduler_again():
    """Functions too, those without a name and those in options, through a scheduler of another class and copies."""
    drawn = []

    def noise_sampler(sigma, sigma_next):
        drawn.append(sigma)
        return torch.zeros_like(X)

    for sampler, options in ((lambda model, x, sigmas: own_euler(model, x, sigmas), None), (as_sampler(EULER), None),
                             ("euler_ancestral", {"noise_sampler": noise_sampler})):  # fmt: skip
        scheduler = fresh(sampler, sampler_options=options, sigma_grid=lambda schedule, n: own_grid(schedule, n))
        through = UniPCMultistepScheduler.from_config(scheduler.config)
        for config in (scheduler.config, copy.deepcopy(dict(scheduler.config)), through.config):
            again = SamplerScheduler.from_config(config, scheduler_class="EulerDiscreteScheduler")
            again.set_timesteps(STEPS)
            assert torch.equal(again.sigmas, scheduler.sigmas)
            assert torch.equal(stepped(again), stepped(fresh(sampler, sampler_options=options, sigma_grid=own_grid)))
    assert drawn


HOSTILE = {
    "sigma_grid": {"sigma_grid": "hostile:run"},
    "sampler": {"sampler": "hostile:run"},
    "of the class": {"_class_name": "SamplerScheduler", "scheduler_class": "DDIMScheduler", "sampler": "hostile:run"},
    "attribute": {"sampler": "hostile:run.__call__"},
    "no scheduler": {"scheduler_class": "StableDiffusionPipeline"},
    "no class": {"scheduler_class": "utils.import_utils"},
    "a list": {"scheduler_class": ["hostile", "run"]},
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module that must not be imported, and a pipeline's folder to put it into the config of."""
    (tmp_path / "hostile.py").write_text("def run(*_):\n    raise SystemError\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("hostile", None)


def loaded_by_us(folder):
    return SamplerScheduler.from_pretrained(folder, subfolder="scheduler")


def loaded_by_a_pipeline(folder):
    return DiffusionPipeline.from_pretrained(folder)


def taken_over(folder):
    """As README has it, for a model whose own scheduler is one of diffusers'."""
    config = EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler").config
    return SamplerScheduler.from_config(config)


def loaded_as_a_dict(folder):
    return SamplerScheduler.from_config(SamplerScheduler.load_config(folder, subfolder="scheduler"))


@pytest.mark.parametrize("load", [loaded_by_us, loaded_by_a_pipeline, taken_over, loaded_as_a_dict])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_loaded_config_runs_nothing(hostile, case, load):
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    pipe.scheduler = SamplerScheduler.from_config(EULER.config)
    pipe.save_pretrained(hostile)
    path = hostile / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    config |= {} if "scheduler_class" in HOSTILE[case] else {"scheduler_class": None}
    path.write_text(json.dumps({**config, "_class_name": "EulerDiscreteScheduler", **HOSTILE[case]}))
    with pytest.raises(ValueError, match="pass it in the call|knows the noise schedules of"):
        load(hostile)
    assert "hostile" not in sys.modules


def test_a_path_in_the_call_is_followed(hostile):
    """In place of the config's, which is not looked at then; also by the constructor. Of options, nothing is."""
    config = {**EULER.config, "sigma_grid": "hostile:walk"}
    SamplerScheduler.from_config(config, sigma_grid=None)
    with pytest.raises(TypeError, match="s_noise='hostile:run'"):
        SamplerScheduler.from_config({**EULER.config, "sampler_options": {"s_noise": "hostile:run"}})
    assert "hostile" not in sys.modules
    SamplerScheduler.from_config(config, sigma_grid="hostile:run")
    assert sys.modules.pop("hostile")
    SamplerScheduler(sigma_grid="hostile:run")
    assert "hostile" in sys.modules


def test_the_config_is_that_of_the_scheduler_it_came_from():
    """Also where the scheduler was made by its constructor, so that its config does not name the class."""
    euler = EulerDiscreteScheduler.from_config(DDIMScheduler(**SDXL_SCHEDULE).config, timestep_spacing="trailing")
    scheduler = SamplerScheduler.from_config(euler.config, sampler="heun", use_karras_sigmas=True)
    assert scheduler.config.scheduler_class == "EulerDiscreteScheduler"
    assert scheduler.config.timestep_spacing == "trailing" and scheduler.config.use_karras_sigmas
    again = SamplerScheduler.from_config(scheduler.config, sampler="euler")
    assert again.config.scheduler_class == "EulerDiscreteScheduler" and again.config.sampler == "euler"
    back = EulerDiscreteScheduler.from_config(again.config)
    assert back.config.timestep_spacing == "trailing"
    assert {cls.__name__ for cls in scheduler.compatibles} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_the_class_of_a_config_is_known(name):
    """KDPM2 has LMS's settings, and the noise schedule that goes with them."""
    scheduler_class = getattr(diffusers, name)
    config = scheduler_class(**({} if "EDM" in name else {"num_train_timesteps": 20})).config
    found = SamplerScheduler.from_config(config).config.scheduler_class
    assert found == ("LMSDiscreteScheduler" if "KDPM2" in name else name)


def test_nothing_waits_for_the_device():
    """Tensors on the meta device have no values: to read one raises."""
    x = torch.zeros(1, 4, 8, 8, device="meta")
    for sampler in ("euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde"):
        scheduler = SamplerScheduler.from_config(EULER.config, sampler=sampler)
        scheduler.set_timesteps(STEPS, device="meta")
        scheduler.set_begin_index(0)
        assert scheduler.timesteps.device.type == "meta"
        for t in scheduler.timesteps:
            x = scheduler.step(scheduler.scale_model_input(x, t), t, x).prev_sample
        assert x.device.type == "meta"


# Bad input says what to do.


def adaptive(model, x, sigmas, extra_args=None, callback=None, disable=None):
    while float(model(x, sigmas[:1]).abs().max()) > 0.5 and float(x.abs().max()) > 0.1:
        x = x / 2
    return model(x, sigmas[:1])


def endless(model, x, sigmas, extra_args=None, callback=None, disable=None):
    while True:
        model(x, sigmas[:1])


def late(model, x, sigmas, extra_args=None, callback=None, disable=None):
    if len(x) > 1:  # unlike the state of the null run
        x = model(x, sigmas[:1])
    return own_euler(model, x, sigmas)


def step_twice(scheduler):
    one_step(scheduler), one_step(scheduler)


def step_on(scheduler):
    stepped(scheduler), one_step(scheduler)


def flow(**settings):
    return SamplerScheduler.from_config(SHIFTING.config, **settings)


BAD_INPUT = {
    "adaptive": (lambda: fresh("dpm_adaptive"), ValueError, "dpm_adaptive chooses its steps.*comfy_sampler="),
    "custom adaptive": (lambda: fresh(adaptive), ValueError, "adaptive chooses its steps"),
    "endless": (lambda: fresh(endless), ValueError, "endless chooses its steps"),
    "other calls than planned": (lambda: stepped(fresh(late)), RuntimeError, "did not call the network 6 times"),
    "no set_timesteps": (lambda: SamplerScheduler().step(X, 999.0, X), RuntimeError, "call set_timesteps first"),
    "step twice": (lambda: step_twice(fresh()), RuntimeError, "got timestep .* next one, 1 of 6.*in order.*deepcopy"),
    "after the end": (lambda: step_on(fresh()), RuntimeError, "over after 6 steps.*set_timesteps"),
    "unknown timestep": (lambda: fresh().step(X, 3.5, X), ValueError, "3.5 is none of scheduler.timesteps"),
    "variance": (
        lambda: fresh().step(X.repeat(1, 2, 1, 1), fresh().timesteps[0], X),
        ValueError,
        "without the variance",
    ),
    "generators": (
        lambda: fresh().step(X, fresh().timesteps[0], X, generator=[seeded()] * 3),
        ValueError,
        "3 generators for 2 images",
    ),
    "attribute": (lambda: fresh().alphas_cumprod, AttributeError, "'alphas_cumprod'.*give it back a scheduler"),
    "step index": (lambda: fresh()._step_index, AttributeError, "'_step_index'"),
    "copied run": (lambda: copy.deepcopy(suspended().__dict__), TypeError, "cannot be copied"),
    "unknown setting": (lambda: fresh(etaa=1), TypeError, "no setting 'etaa'.*timestep_spacing"),
    "no config": (lambda: SamplerScheduler.from_config(EULER), TypeError, "pipe.scheduler.config"),
    "no calls": (lambda: fresh(lambda model, x, sigmas: x), ValueError, "never calls the model"),
    "unknown option": (lambda: fresh("euler", sampler_options={"eta": 1}), TypeError, "no option 'eta'"),
    "option's value": (
        lambda: fresh("dpmpp_2m_sde", sampler_options={"eta": -1}),
        ValueError,
        "eta=-1: give a finite number of at least 0",
    ),
    "unknown sampler": (lambda: fresh("eular"), ValueError, "did you mean 'euler'"),
    "import path": (lambda: fresh("no_such_module:f"), ValueError, "cannot be imported.*pass the function"),
    "unknown class": (
        lambda: SamplerScheduler.from_config(diffusers.LCMScheduler().config),
        ValueError,
        "no scheduler class we know.*EulerDiscreteScheduler",
    ),
    "a list of classes": (
        lambda: SamplerScheduler.from_config({"_class_name": ["hostile", "run"]}),
        ValueError,
        r"config is of \['hostile', 'run'\].*EulerDiscreteScheduler",
    ),
    "not saved": (lambda: fresh(witnessed([])).save_pretrained("never_made"), ValueError, "cannot be saved"),
    "two grids": (lambda: fresh(sigma_grid="karras").set_timesteps(timesteps=[9, 5]), ValueError, "choose one"),
    "no sigmas": (lambda: fresh().set_timesteps(sigmas=[]), ValueError, r"sigmas must be .* 1 at least, got \[\]"),
    "one of a range": (lambda: fresh("dpm_fast").set_timesteps(sigmas=[9.0]), ValueError, "dpm_fast chooses"),
    "doubled sigmas": (lambda: fresh().set_timesteps(sigmas=[3.0, 3.0]), ValueError, "sigmas must decrease strictly"),
    "negative sigmas": (lambda: fresh().set_timesteps(sigmas=[-1.0]), ValueError, r"sigmas\[0\] is -1.0"),
    "rising timesteps": (lambda: fresh().set_timesteps(timesteps=[100, 500]), ValueError, "timesteps must decrease"),
    "no list": (lambda: fresh().set_timesteps(timesteps=500), ValueError, "timesteps must be a list of numbers"),
    "words": (lambda: flow().set_timesteps(sigmas=["a"], mu=1), ValueError, "sigmas must be a list of numbers"),
    "begin before the first": (lambda: fresh().set_begin_index(-1), ValueError, "begin_index=-1: .*0 or more"),
    "begin in the middle of one": (lambda: fresh().set_begin_index(1.5), ValueError, "begin_index=1.5: .*0 or more"),
    "begin after the end": (lambda: fresh("heun").set_begin_index(13), ValueError, "begin_index=13.* give 0 to 11"),
    "grid of a range": (lambda: fresh("dpm_fast").set_timesteps(sigmas=[9, 5, 0]), ValueError, "dpm_fast chooses"),
    "unknown noise": (lambda: fresh(noise="comfi"), ValueError, "did you mean 'comfy'"),
    "no seed": (
        lambda: fresh("euler_ancestral", noise="philox").step(X, fresh().timesteps[0], X),
        ValueError,
        "generator after manual_seed",
    ),
    "no steps": (lambda: fresh(steps=0), ValueError, "at least 1"),
    "begin with churn": (
        lambda: fresh("euler", sampler_options={"s_churn": 2}).set_begin_index(3),
        ValueError,
        "cannot begin with call 3 of 6.*s_churn",
    ),
    "velocity": (lambda: flow(flow_coordinates="velocity"), ValueError, "'auto', 'flow' or 've'"),
    "no mu": (lambda: flow().set_timesteps(5), ValueError, "pass mu="),
    "flow timesteps": (lambda: flow().set_timesteps(timesteps=[900, 500], mu=1), ValueError, "sigmas="),
    "two grids of flow": (
        lambda: flow(sigma_grid="karras").set_timesteps(sigmas=[1.0, 0.3], mu=1),
        ValueError,
        "choose one",
    ),
    "flow sampler": (
        lambda: fresh(as_sampler(FlowMatchEulerDiscreteScheduler())),
        ValueError,
        "integrate flow matching, and this model is none",
    ),
}


def suspended() -> SamplerScheduler:
    scheduler = fresh()
    one_step(scheduler)
    return scheduler


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    act, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        act()


def test_two_pipelines_by_turns():
    """A second run may begin, and ends the first, which is told so; each on its own scheduler, both go on."""
    scheduler = suspended()
    scheduler.set_begin_index(0)
    times = scheduler.timesteps
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(0)
    with pytest.raises(RuntimeError, match="two pipelines that run by turns"):
        scheduler.step(X, times[1], X)
    one_step(scheduler)


def test_an_error_in_the_sampler_ends_the_run():
    def failing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        x = model(x, sigmas[:1].expand(len(x)))
        if len(x) > 1:
            raise KeyError("the sampler's")
        return model(x, sigmas[1:2].expand(len(x)))

    scheduler = fresh(failing)
    with pytest.raises(KeyError, match="the sampler's"):
        one_step(scheduler)
    with pytest.raises(RuntimeError, match="set_timesteps first"):
        one_step(scheduler)
