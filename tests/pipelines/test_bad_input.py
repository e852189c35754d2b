"""Bad input gets an error that names the value, the reason and the cure, before any network runs."""

import diffusers
import pytest
import torch
from tiny_models import SDXL_SCHEDULE, flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


def refuse(*_):
    raise AssertionError("a network ran on bad input")


@pytest.fixture(scope="module")
def pipes():
    pipes = {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}
    pipes["sdxl"].unet.register_forward_pre_hook(refuse)
    pipes["flux"].transformer.register_forward_pre_hook(refuse)
    for pipe in pipes.values():
        pipe.encode_prompt = refuse
        pipe.vae.register_forward_pre_hook(refuse)
    return pipes


def silent(model, x, sigmas, extra_args=None, disable=None):
    return x


BOTH = [
    ({"comfy_sampler": "dpmp2m"}, ValueError, "did you mean 'dpmpp_2m'.*euler, .*dpmpp_3m_sde"),
    ({"comfy_sampler": 5}, TypeError, "name or a callable"),
    ({"comfy_sampler": lambda x: x}, TypeError, "expected sampler"),
    ({"comfy_sampler": "heun", "sampler_options": {"s_chrun": 1}}, TypeError, "no option 's_chrun'.*s_churn"),
    ({"sampler_options": 3}, TypeError, "dict"),
    ({"sigma_grid": "karas"}, ValueError, "did you mean 'karras'.*simple"),
    ({"sigma_grid": "karras", "sigmas": [0.9, 0.5]}, ValueError, "sigmas and sigma_grid='karras'.*choose one"),
    ({"sigmas": [0.5, 0.9]}, ValueError, r"sigmas\[0\] = 0.5 is followed by 0.9"),
    ({"sigmas": [0.9, 0.9]}, ValueError, "decrease strictly"),
    ({"sigmas": [0.9, -0.1]}, ValueError, r"sigmas\[1\] is -0.1"),
    ({"sigmas": [float("nan"), 0.1]}, ValueError, r"sigmas\[0\] is nan"),
    ({"sigmas": [[1.0, 0.5]]}, ValueError, "list of numbers"),
    ({"sigmas": 0.9}, ValueError, "list of numbers.*got 0.9"),
    ({"sigmas": ["0.9"]}, ValueError, "list of numbers"),
    ({"sigmas": [None]}, ValueError, "list of numbers"),
    ({"sigmas": [0.9, 0.5], "comfy_sampler": "dpm_fast"}, ValueError, "dpm_fast chooses its own steps.*leave it out"),
    ({"num_inference_steps": 0}, ValueError, "num_inference_steps=0"),
    ({"num_inference_steps": 2.5}, ValueError, "num_inference_steps=2.5"),
    ({"generator": [torch.Generator()] * 3}, ValueError, "3 generators for 1 images"),
    ({"generator": 42}, TypeError, "generator is a torch.Generator or a list.*42"),
    ({"comfy_sampler": silent, "callback_on_step_end": print}, ValueError, "silent takes no `callback`"),
    ({"callback_on_step_end_tensor_inputs": ["x"]}, ValueError, "callback_on_step_end_tensor_inputs"),
    ({"comfy_sampler": None, "sigma_grid": "karras"}, ValueError, "comfy_sampler=None runs diffusers' own loop"),
    ({"comfy_sampler": None, "sampler_options": {"eta": 1}}, ValueError, "sampler_options"),
    ({"comfy_sampler": None, "callback_on_step_end_tensor_inputs": ["denoised"]}, ValueError, "denoised"),
    ({"no_such_parameter": 1}, TypeError, "no_such_parameter"),
    ({"comfy_sampler": "dpmpp_2m_sde", "sampler_options": {"eta": -1}}, ValueError, "eta=-1: give a finite number"),
    ({"comfy_sampler": "heun", "sampler_options": {"s_noise": None}}, TypeError, "s_noise=None: give a finite number"),
    ({"num_images_per_prompt": 0}, ValueError, "num_images_per_prompt=0: give an integer of at least 1"),
    ({"num_images_per_prompt": -1}, ValueError, "num_images_per_prompt=-1"),
    ({"num_images_per_prompt": 1.5}, ValueError, "num_images_per_prompt=1.5"),
    ({"trace": True}, TypeError, r"trace=True: give a k_diffusing.Trace\(\)"),
    ({"sigma_grid": lambda schedule, n: None}, TypeError, "returns n . 1 decreasing numbers, and it returned None"),
    ({"sigma_grid": lambda schedule, n: ["a"]}, TypeError, r"returned \['a'\]"),
    ({"sigma_grid": lambda schedule, n: [0.1, 0.9]}, ValueError, "decrease strictly"),
]

SDXL_ONLY = [
    ({"timesteps": [100, 900]}, ValueError, "timesteps must decrease strictly"),
    ({"timesteps": [900, 100], "sigmas": [1.0, 0.0]}, ValueError, "choose one"),
    ({"timesteps": [900, 100], "comfy_sampler": "dpm_adaptive"}, ValueError, "timesteps= cannot be kept"),
    ({"denoising_end": 1e-4}, ValueError, "denoising_end=0.0001"),
    ({"height": 13}, ValueError, "divisible by 8"),
    ({"flow_coordinates": "ve"}, TypeError, "flow_coordinates"),
]

FLUX_ONLY = [
    ({"flow_coordinates": "vp"}, ValueError, "unknown flow_coordinates 'vp'.*auto, flow, ve, velocity"),
    ({"flow_coordinates": "flow", "sampler_options": {"s_churn": 5}}, ValueError, "s_churn.*'auto' or 've'"),
    ({"quantize": True}, TypeError, "quantize"),
    ({"sigmas": [1.5, 0.5]}, ValueError, "between 0 and 1"),
]

CASES = [(model, *case) for model in ("sdxl", "flux") for case in BOTH]
CASES += [("sdxl", *case) for case in SDXL_ONLY] + [("flux", *case) for case in FLUX_ONLY]


def call(pipe, prompt, **arguments):
    return pipe(**prompt, **{"num_inference_steps": 2, "height": 16, "width": 16, "generator": seeded(), **arguments})


@pytest.mark.parametrize(
    "model, arguments, error, message",
    CASES,
    ids=[f"{i}-{model}-{'-'.join(bad)}" for i, (model, bad, *_) in enumerate(CASES)],
)
def test_bad_calls(pipes, model, arguments, error, message):
    prompt = sdxl_prompt() if model == "sdxl" else flux_prompt()
    with pytest.raises(error, match=f"(?s){message}"):
        call(pipes[model], prompt, **arguments)


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_no_prompt(pipes, model):
    with pytest.raises(ValueError, match="prompt is an empty list"):
        call(pipes[model], {"prompt": []})


@pytest.mark.parametrize("model, prompt", [("sdxl", sdxl_prompt), ("flux", flux_prompt)])
@pytest.mark.parametrize("latents", [lambda given: given[:1], lambda given: given[..., :1], lambda given: None])
def test_latents_that_a_callback_cannot_return(model, prompt, latents):
    """What could be broadcast to the run's shape would be the same for all images."""
    pipe = tiny_sdxl(StableDiffusionXLPipeline) if model == "sdxl" else tiny_flux(FluxPipeline)

    def callback(pipe, i, t, kwargs):
        return {"latents": latents(kwargs["latents"])}

    with pytest.raises(ValueError, match=r"_step_end returned latents .* after step 0, .* of the shape \(2, "):
        call(pipe, prompt(2), callback_on_step_end=callback)


@pytest.mark.parametrize(
    "model, scheduler, message",
    [
        ("sdxl", diffusers.FlowMatchEulerDiscreteScheduler(), "FlowMatchEuler.*flow matching.*EulerDiscreteScheduler"),
        ("sdxl", diffusers.CMStochasticIterativeScheduler(), "CMStochasticIterative.*no noise schedule we know"),
        ("sdxl", diffusers.UniPCMultistepScheduler(use_flow_sigmas=True), "UniPC.*without use_flow_sigmas"),
        ("flux", diffusers.DDIMScheduler(), "DDIMScheduler is not set up for flow.*FlowMatchEuler"),
        ("flux", diffusers.UniPCMultistepScheduler(), "UniPC.*use_flow_sigmas=True"),
    ],
)
def test_schedulers_of_the_wrong_kind(pipes, model, scheduler, message):
    pipe = pipes[model]
    before, pipe.scheduler = pipe.scheduler, scheduler
    try:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            call(pipe, sdxl_prompt() if model == "sdxl" else flux_prompt())
    finally:
        pipe.scheduler = before


def test_unknown_prediction_type(pipes):
    pipe = pipes["sdxl"]
    before, pipe.scheduler = pipe.scheduler, diffusers.DDPMScheduler(prediction_type="noise", **SDXL_SCHEDULE)
    try:
        with pytest.raises(ValueError, match="'noise'.*epsilon, v_prediction, sample"):
            call(pipe, sdxl_prompt())
    finally:
        pipe.scheduler = before


def test_quantize_needs_integer_timesteps(pipes):
    pipe = pipes["sdxl"]
    before, pipe.scheduler = pipe.scheduler, diffusers.EDMEulerScheduler()
    try:
        with pytest.raises(ValueError, match="quantize"):
            call(pipe, sdxl_prompt(), quantize=True)
    finally:
        pipe.scheduler = before


@pytest.mark.parametrize("pipeline_class", [StableDiffusionXLPipeline, FluxPipeline])
def test_missing_model_folder(pipeline_class, tmp_path):
    with pytest.raises((OSError, ValueError), match="no-such-model"):
        pipeline_class.from_pretrained(str(tmp_path / "no-such-model"))


def test_a_function_for_flow_models_in_sdxl(pipes):
    def mine(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return x

    mine.flow_coordinates = "flow"
    with pytest.raises(ValueError, match="mine integrates flow matching.*FluxPipeline, or take a function") as caught:
        pipes["sdxl"](**sdxl_prompt(), height=16, width=16, comfy_sampler=mine)
    assert "scheduler" not in str(caught.value)


def test_timesteps_that_flux_is_not_trained_on(pipes, monkeypatch):
    pipe = pipes["flux"]
    config = pipe.scheduler.config
    monkeypatch.setattr(pipe, "scheduler", type(pipe.scheduler).from_config(config, num_train_timesteps=10_000))
    with pytest.raises(ValueError, match='num_train_timesteps=10000.*Leave it at 1000.*program="comfyui"'):
        pipe(**flux_prompt(), height=16, width=16, comfy_sampler="euler")
