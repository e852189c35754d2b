"""FluxPipeline against diffusers' own class: same weights, seed, sigmas; largest difference of latents."""

import inspect

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_models import flux_prompt, largest_difference, seeded, tiny_flux

from flux_comfy_pipeline import FluxPipeline
from samplers_patch import SAMPLERS

CALL = {"num_inference_steps": 8, "height": 16, "width": 16, "output_type": "latent"}


@pytest.fixture(scope="module")
def ours():
    return tiny_flux(FluxPipeline)


@pytest.fixture(scope="module")
def theirs():
    return tiny_flux(diffusers.FluxPipeline)


def latents(pipe, scheduler=None, images=1, negative=False, **call):
    pipe.scheduler = scheduler or FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return pipe(**flux_prompt(images, negative=negative), generator=seeded(), **{**CALL, **call}).images


CONFIGS = [
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    {"shift": 3.0},
    {"shift_terminal": 0.02},
    {"use_dynamic_shifting": True, "use_karras_sigmas": True},
    {"shift": 3.0, "use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_euler_equals_flow_match_euler(ours, theirs, config):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    assert largest_difference(latents(ours, scheduler), latents(theirs, scheduler)) == 0.0


CALLS = [
    {"sigmas": [1.0, 0.7, 0.5, 0.2], "num_inference_steps": 4},
    {"true_cfg_scale": 3.0, "negative": True},
    {"guidance_scale": 1.5},
    {"images": 2, "height": 24},
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_parameter_acts_as_in_diffusers(ours, theirs, call):
    assert largest_difference(latents(ours, **call), latents(theirs, **call)) == 0.0


def test_a_shift_set_by_hand_counts(ours, theirs):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_shift(3.0)
    assert largest_difference(latents(ours, scheduler), latents(theirs, scheduler)) == 0.0
    assert (
        largest_difference(latents(ours, scheduler), latents(ours, FlowMatchEulerDiscreteScheduler(shift=1.0))) > 1e-3
    )


def test_model_without_guidance_embedding():
    pipes = [tiny_flux(c, guidance_embeds=False) for c in (FluxPipeline, diffusers.FluxPipeline)]
    a, b = (latents(pipe) for pipe in pipes)
    assert largest_difference(a, b) == 0.0


def test_none_is_diffusers_own_loop(ours, theirs):
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    a, b = (latents(pipe, **call) for pipe, call in ((ours, {"comfy_sampler": None}), (theirs, {})))
    assert largest_difference(a, b) == 0.0
    with pytest.raises(ValueError, match="FlowMatchHeun|sigmas"):  # it takes no sigmas: diffusers' own loop refuses it
        latents(theirs, scheduler)


@pytest.mark.parametrize("output_type", ["pt", "np", "pil"])
def test_decoded_images_equal_diffusers(ours, theirs, output_type):
    a, b = (latents(pipe, output_type=output_type) for pipe in (ours, theirs))
    if output_type == "pil":
        assert a[0].tobytes() == b[0].tobytes()
    else:
        assert largest_difference(torch.as_tensor(a), torch.as_tensor(b)) == 0.0


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "lms"])
def test_coordinates_agree_where_both_are_right(ours, sampler):
    """Two discretisations of one ODE, from one first sigma, approach each other as the steps get finer."""
    call = {"comfy_sampler": sampler, "scheduler": FlowMatchEulerDiscreteScheduler()}
    call["sigmas"] = torch.linspace(0.98, 0.01, 100).tolist()
    a, b = (latents(ours, flow_coordinates=c, num_inference_steps=100, **call) for c in ("auto", "ve"))
    assert 0.0 < largest_difference(a, b) < 5e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_step_stays_in_bounds(ours, sampler):
    """From t = 1 on, latents have unit size: a first step too long for a real network would blow them up."""
    sizes = []

    def callback(pipe, i, t, kwargs):
        sizes.append(float(kwargs["latents"].std()))
        return {}

    latents(ours, comfy_sampler=sampler, callback_on_step_end=callback, num_inference_steps=28)
    assert 0.7 < sizes[0] < 1.3


def test_euler_is_the_same_in_both_coordinates(ours):
    """The same step in other symbols, given the same first sigma; float32 at sigma up to 20 leaves 1e-5."""
    sigmas = [0.95, 0.7, 0.5, 0.2]
    call = {"sigmas": sigmas, "num_inference_steps": 4, "scheduler": FlowMatchEulerDiscreteScheduler()}
    a, b = (latents(ours, flow_coordinates=c, **call) for c in ("flow", "ve"))
    assert largest_difference(a, b) < 1e-5


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "lms"])
def test_velocity_is_right_for_derivative_only_samplers(ours, sampler):
    a, b = (latents(ours, comfy_sampler=sampler, flow_coordinates=c) for c in ("flow", "velocity"))
    assert largest_difference(a, b) == 0.0


@pytest.mark.parametrize("name", ["FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"])
def test_other_flow_match_schedulers_give_a_grid(ours, name):
    assert latents(ours, getattr(diffusers, name)(shift=3.0)).isfinite().all()


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_use_flow_sigmas_schedulers_give_a_grid(ours, name):
    scheduler = getattr(diffusers, name)(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    exact = latents(ours, scheduler, num_inference_steps=200)
    assert largest_difference(latents(ours, scheduler, num_inference_steps=50, comfy_sampler="dpmpp_2m"), exact) < 0.05


def test_timesteps_told_to_the_network(ours, theirs):
    """t * 1000 / 1000 in the model's dtype, as diffusers tells them, in bfloat16 too."""
    for dtype in (torch.float32, torch.bfloat16):
        seen = {}
        for cls in (FluxPipeline, diffusers.FluxPipeline):
            pipe = tiny_flux(cls, dtype=dtype)
            told = seen.setdefault(cls, [])
            pipe.transformer.register_forward_pre_hook(
                lambda module, args, kwargs, told=told: told.append(kwargs["timestep"].clone()), with_kwargs=True
            )
            pipe(**flux_prompt(dtype=dtype), generator=seeded(), **CALL)
        assert torch.equal(*(torch.stack(told) for told in seen.values()))


def test_signature_is_diffusers_plus_keywords():
    ours = inspect.signature(FluxPipeline.__call__).parameters
    theirs = inspect.signature(diffusers.FluxPipeline.__call__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert all(ours[name].default == theirs[name].default for name in list(theirs)[1:])
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs) :])


def test_a_scheduler_without_dynamic_shifting_made_from_flux_config():
    """from_config keeps use_dynamic_shifting, which FlowMatchHeun does not have: its own static shift counts."""
    config = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0).config
    results = []
    for scheduler in (diffusers.FlowMatchHeunDiscreteScheduler.from_config(config), {"shift": 3.0}):
        if isinstance(scheduler, dict):
            scheduler = diffusers.FlowMatchHeunDiscreteScheduler(**scheduler)
        pipe = tiny_flux(FluxPipeline, scheduler)
        call = {"height": 16, "width": 16, "num_inference_steps": 4, "output_type": "latent"}
        results.append(pipe(**flux_prompt(), **call, generator=seeded(), comfy_sampler="heun").images)
    assert torch.equal(*results)
