"""StableDiffusionXLPipeline against diffusers' own class: same weights, seed, sigmas; largest difference of latents."""

import inspect

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from tiny_models import SDXL_SCHEDULE, largest_difference, sdxl_prompt, seeded, tiny_sdxl, tiny_vae

from samplers_patch import SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

CALL = {"num_inference_steps": 8, "output_type": "latent"}


@pytest.fixture(scope="module")
def ours():
    return tiny_sdxl(StableDiffusionXLPipeline)


@pytest.fixture(scope="module")
def theirs():
    return tiny_sdxl(diffusers.StableDiffusionXLPipeline)


def latents(pipe, scheduler=None, images=1, **call):
    pipe.scheduler = scheduler or EulerDiscreteScheduler(**SDXL_SCHEDULE)
    return pipe(**sdxl_prompt(images), generator=seeded(), **{**CALL, **call}).images


EULER_CONFIGS = [
    {},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"interpolation_type": "log_linear"},
    {"final_sigmas_type": "sigma_min"},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "v_prediction", "timestep_type": "continuous"},
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
]


@pytest.mark.parametrize("config", EULER_CONFIGS, ids=str)
def test_euler_equals_diffusers_euler(ours, theirs, config):
    scheduler = EulerDiscreteScheduler(**{**SDXL_SCHEDULE, **config})
    assert largest_difference(latents(ours, scheduler), latents(theirs, scheduler)) == 0.0


CALLS = [
    {"timesteps": [900, 700, 500, 300, 100], "num_inference_steps": None},
    {"sigmas": [12.0, 7.1, 3.3, 1.0, 0.2, 0.0]},
    {"denoising_end": 0.6},
    {"guidance_rescale": 0.7},
    {"guidance_scale": 1.0},
    {"original_size": (64, 32), "crops_coords_top_left": (3, 5), "target_size": (32, 32)},
    {"negative_original_size": (8, 8), "negative_target_size": (8, 8), "images": 2},
    {"num_images_per_prompt": 2, "height": 24, "width": 16},
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_parameter_acts_as_in_diffusers(ours, theirs, call):
    assert largest_difference(latents(ours, **call), latents(theirs, **call)) == 0.0


def test_edm_euler_equals_diffusers(ours, theirs):
    scheduler = diffusers.EDMEulerScheduler()
    assert largest_difference(latents(ours, scheduler), latents(theirs, scheduler)) == 0.0


def test_guidance_embedding_models():
    pipes = [
        tiny_sdxl(c, time_cond_proj_dim=8) for c in (StableDiffusionXLPipeline, diffusers.StableDiffusionXLPipeline)
    ]
    a, b = (latents(pipe) for pipe in pipes)
    assert largest_difference(a, b) == 0.0


def test_unit_noise_given_as_latents(ours, theirs):
    noise = torch.randn(1, 4, 8, 8, generator=seeded(5))
    assert largest_difference(latents(ours, latents=noise), latents(theirs, latents=noise)) == 0.0


def test_none_is_diffusers_own_loop(ours, theirs):
    scheduler = diffusers.DPMSolverMultistepScheduler(**SDXL_SCHEDULE)
    a, b = latents(ours, scheduler, comfy_sampler=None), latents(theirs, scheduler)
    assert largest_difference(a, b) == 0.0


# diffusers' schedulers that are the same method, on the same sigmas. Not 0.0: they order the same operations
# differently, or truncate their timesteps to integers; the tolerance is on latents of size 30.
SAME_METHOD = [
    ("heun", "HeunDiscreteScheduler", {}, 1e-4),
    ("lms", "LMSDiscreteScheduler", {}, 1e-4),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}, 1e-4),
    ("dpm_2", "KDPM2DiscreteScheduler", {}, 2e-3),
]


@pytest.mark.parametrize("sampler, name, config, tolerance", SAME_METHOD)
def test_same_method_as_a_diffusers_scheduler(ours, theirs, sampler, name, config, tolerance):
    scheduler = getattr(diffusers, name)(**SDXL_SCHEDULE, **config)
    a, b = latents(ours, scheduler, comfy_sampler=sampler), latents(theirs, scheduler)
    assert largest_difference(a, b) <= tolerance


def test_ancestral_euler_on_equal_noise(ours, theirs):
    """diffusers draws noise in the last step too and multiplies it by 0: the stream is the same up to there."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SDXL_SCHEDULE)
    a, b = latents(ours, scheduler, comfy_sampler="euler_ancestral"), latents(theirs, scheduler)
    assert largest_difference(a, b) <= 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_scheduler_state_does_not_matter_and_is_left_alone(ours, sampler):
    scheduler = EulerDiscreteScheduler(**SDXL_SCHEDULE)
    before = latents(ours, scheduler, comfy_sampler=sampler, num_inference_steps=3)
    scheduler.set_timesteps(17)
    scheduler.sigmas_original = torch.ones(3)  # older scripts patch this in
    timesteps = scheduler.timesteps.clone()
    after = latents(ours, scheduler, comfy_sampler=sampler, num_inference_steps=3)
    assert largest_difference(before, after) == 0.0
    assert torch.equal(scheduler.timesteps, timesteps)


FIRST_ORDER = [
    EulerDiscreteScheduler(**SDXL_SCHEDULE),
    DDIMScheduler(**SDXL_SCHEDULE, clip_sample=False),
    diffusers.DPMSolverMultistepScheduler(**SDXL_SCHEDULE, solver_order=1),
]


@pytest.mark.parametrize("scheduler", FIRST_ORDER, ids=lambda scheduler: type(scheduler).__name__)
def test_unfinished_latents_are_in_the_schedulers_convention(ours, theirs, scheduler):
    """All are Euler's method, so their states agree half-way too, but for rounding: 1e-4 on latents of size 10."""
    call = {"denoising_end": 0.5}
    assert largest_difference(latents(ours, scheduler, **call), latents(theirs, scheduler, **call)) <= 1e-4


def test_quantize_rounds_what_is_between_grid_points(ours):
    seen = []
    hook = ours.unet.register_forward_pre_hook(lambda module, args: seen.append(args[1].clone()))
    try:
        latents(ours, sigma_grid="karras", quantize=True)
        rounded, seen[:] = torch.stack(seen), []
        latents(ours, sigma_grid="karras")
    finally:
        hook.remove()
    assert torch.equal(rounded, rounded.round())
    assert torch.equal(torch.stack(seen).round(), rounded)
    assert not torch.equal(torch.stack(seen), rounded)


@pytest.mark.parametrize("output_type, kind", [("pil", list), ("np", "ndarray"), ("pt", torch.Tensor)])
def test_decoded_images_equal_diffusers(ours, theirs, output_type, kind):
    a, b = (latents(pipe, output_type=output_type) for pipe in (ours, theirs))
    if output_type == "pil":
        assert a[0].tobytes() == b[0].tobytes()
    else:
        assert largest_difference(torch.as_tensor(a), torch.as_tensor(b)) == 0.0


def test_latents_mean_and_std_of_the_vae():
    vae = tiny_vae(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 3.0, 4.0])
    pipes = [tiny_sdxl(c, vae=vae) for c in (StableDiffusionXLPipeline, diffusers.StableDiffusionXLPipeline)]
    a, b = (latents(pipe, output_type="pt") for pipe in pipes)
    assert largest_difference(a, b) == 0.0


def test_return_dict_and_the_watermark(ours):
    class Watermark:
        def apply_watermark(self, images):
            return images * 0

    ours.watermark = Watermark()
    try:
        (images,) = ours(**sdxl_prompt(), num_inference_steps=1, output_type="pt", return_dict=False)
    finally:
        ours.watermark = None
    assert torch.equal(images, torch.full_like(images, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_sample_in_float32(dtype):
    """The state and its arithmetic are float32; what users see has the model's dtype."""
    pipe = tiny_sdxl(StableDiffusionXLPipeline, dtype=dtype)
    states, seen = [], []

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        states.append(x.dtype)
        return SAMPLERS["dpmpp_2m"].function(model, x, sigmas, extra_args, callback, disable)

    def callback(pipe, i, t, kwargs):
        seen.extend(value.dtype for value in kwargs.values())
        return {}

    result = pipe(
        **sdxl_prompt(dtype=dtype), **CALL, comfy_sampler=sampler, callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "denoised"],
    ).images  # fmt: skip
    assert states == [torch.float32]
    assert set(seen) == {dtype} and result.dtype == dtype
    image = pipe(**sdxl_prompt(dtype=dtype), num_inference_steps=2, output_type="pt").images
    assert image.isfinite().all()
    assert pipe.vae.dtype == dtype  # up-cast for decoding where the config asks for it, and back


def test_signature_is_diffusers_plus_keywords():
    ours = inspect.signature(StableDiffusionXLPipeline.__call__).parameters
    theirs = inspect.signature(diffusers.StableDiffusionXLPipeline.__call__).parameters
    shared = [name for name in theirs if name != "kwargs"]
    assert list(ours)[: len(shared)] == shared
    assert all(ours[name].default == theirs[name].default for name in shared[1:])
    extra = [ours[name] for name in list(ours)[len(shared) :]]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in extra)
