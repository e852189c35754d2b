"""Modular pipelines with a sampler as their denoise step: equal to our own pipelines, by the largest difference."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import ClassifierFreeGuidance, ControlNetModel, FluxAutoBlocks, StableDiffusionXLAutoBlocks
from PIL import Image
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing import Trace, sampler_blocks
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

ROOT = Path(__file__).resolve().parents[2]
STEPS, SCALE = 5, 4.0
SETTINGS = [
    {},
    {"sigma_grid": "karras"},
    {"program": "comfyui"},
    {"noise": "philox"},
    {"sigma_grid": "exponential", "program": "a1111"},
]


def sample_own(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """A user's: Euler's steps, with a little noise before each."""
    for i in range(len(sigmas) - 1):
        x = x + 0.1 * sigmas[i] * noise_sampler(sigmas[i], sigmas[i + 1])
        denoised = model(x, sigmas[i] * x.new_ones([len(x)]))
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = denoised + (x - denoised) / sigmas[i] * sigmas[i + 1]
    return x


SAMPLERS = ["euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde", "dpm_adaptive", "lms", sample_own]


def modular(auto, pipe, workflow="text2image", put=sampler_blocks, **components):
    """A modular pipeline of the networks of `pipe`, without text encoders: prompts are embeddings."""
    blocks = put(auto.get_workflow(workflow))
    blocks.sub_blocks.pop("text_encoder")
    made = blocks.init_pipeline()
    given = {name: part for name, part in pipe.components.items() if part is not None and name in made.component_names}
    made.update_components(**given, **components)
    return made


@pytest.fixture(scope="module")
def sdxl():
    ours = tiny_sdxl(StableDiffusionXLPipeline)
    return ours, modular(StableDiffusionXLAutoBlocks(), ours, guider=ClassifierFreeGuidance(SCALE))


@pytest.fixture(scope="module")
def flux():
    ours = tiny_flux(FluxPipeline)
    return ours, modular(FluxAutoBlocks(), ours)


def noise_of(settings):
    """Twice the same noise, whatever the source."""
    return {"seeds": 4} if settings.get("program") or settings.get("noise") else {"generator": seeded()}


def sdxl_pair(pipes, sampler, **settings):
    """The latents of our pipeline and of the blocks; the negative prompt has a call of its own, as guiders do it."""
    given = {**sdxl_prompt(2), "height": 16, "width": 16, "num_inference_steps": STEPS, "output_type": "latent"}
    ours = pipes[0](
        **given, comfy_sampler=sampler, guidance_scale=SCALE, batch_guidance=False, **settings, **noise_of(settings)
    )
    return ours.images, pipes[1](**given, sampler=sampler, output="images", **settings, **noise_of(settings))


def flux_pair(pipes, sampler, **settings):
    """The pictures of both, of two images: diffusers' blocks unpack the latents of FLUX."""
    given = {**flux_prompt(2), "height": 32, "width": 16, "num_inference_steps": STEPS, "output_type": "pt"}
    ours = pipes[0](**given, comfy_sampler=sampler, **settings, **noise_of(settings))
    return ours.images, pipes[1](**given, sampler=sampler, output="images", **settings, **noise_of(settings))


# Without dpm_adaptive as a program runs it: the tiny network's noise is too much for the range that it goes through.
SDXL_RUNS = [
    (sampler, settings) for sampler in SAMPLERS for settings in SETTINGS
    if not (sampler == "dpm_adaptive" and "program" in settings)
]  # fmt: skip


@pytest.mark.parametrize("sampler, settings", SDXL_RUNS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_sdxl_is_our_pipelines(sdxl, sampler, settings):
    assert largest_difference(*sdxl_pair(sdxl, sampler, **settings)) == 0


@pytest.mark.parametrize("settings", [*SETTINGS, {"flow_coordinates": "velocity"}, {"mu": 0.3}], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_flux_is_our_pipelines(flux, sampler, settings):
    assert largest_difference(*flux_pair(flux, sampler, **settings)) == 0


def test_options_grids_and_parts_of_the_schedule(sdxl):
    assert largest_difference(*sdxl_pair(sdxl, "dpmpp_2m_sde", sampler_options={"eta": 0.3}, denoising_end=0.6)) == 0
    assert largest_difference(*sdxl_pair(sdxl, "euler", sigmas=[9.0, 3.0, 1.0, 0.0])) == 0
    assert largest_difference(*sdxl_pair(sdxl, "euler", timesteps=[900, 500, 100])) == 0
    assert largest_difference(*sdxl_pair(sdxl, "heun", quantize=True, sigma_grid="karras")) == 0


def test_latents_of_the_users(sdxl, flux):
    latents = torch.randn(2, 4, 8, 8, generator=seeded())
    assert largest_difference(*sdxl_pair(sdxl, "euler", latents=latents)) == 0
    packed = torch.randn(2, 32, 16, generator=seeded())
    assert largest_difference(*flux_pair(flux, "dpmpp_2m", latents=packed)) == 0


def test_several_images_of_a_prompt(sdxl):
    ours, made = sdxl
    given = {**sdxl_prompt(1), "height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent"}
    given |= {"num_images_per_prompt": 2, "seeds": [3, 8], "noise": "philox"}
    latents = ours(**given, comfy_sampler="euler_ancestral", guidance_scale=SCALE, batch_guidance=False).images
    assert largest_difference(latents, made(**given, sampler="euler_ancestral", output="images")) == 0


def test_the_pipelines_guider_is_asked_in_its_steps_alone(sdxl):
    """Of 6 steps the middle ones are guided, also where an adaptive sampler takes more."""
    ours, made = sdxl
    rows, unet = [], ours.unet
    hook = unet.register_forward_pre_hook(lambda module, args: rows.append(round(float(args[1][0]))))
    made.update_components(guider=ClassifierFreeGuidance(SCALE, start=0.5, stop=0.9))
    given = {**sdxl_prompt(1), "height": 16, "width": 16, "num_inference_steps": 6, "generator": seeded()}
    try:
        made(**given, sampler="euler", output_type="latent")
        assert [rows.count(step) for step in dict.fromkeys(rows)] == [1, 1, 1, 2, 2, 1]
        rows.clear()
        made(**given, sampler="dpm_adaptive", output_type="latent")
        counts = [rows.count(step) for step in dict.fromkeys(rows)]
        assert counts[0] == 1 and 2 in counts and len(counts) > 6
    finally:
        hook.remove()
        made.update_components(guider=ClassifierFreeGuidance(SCALE))


def test_what_the_given_denoiser_does_besides_it_does_here():
    """A ControlNet's: euler on the scheduler's own grid is diffusers' loop."""
    pipe = tiny_sdxl(StableDiffusionXLPipeline, mid_block_type="UNetMidBlock2DCrossAttn")  # as a ControlNet wants it
    picture = Image.effect_noise((16, 16), 60).convert("RGB")
    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32)).eval()
    for parameter in net.controlnet_down_blocks.parameters():
        torch.nn.init.constant_(parameter, 0.05)
    given = {**sdxl_prompt(1), "control_image": picture, "height": 16, "width": 16, "num_inference_steps": STEPS}
    given |= {"output_type": "latent", "output": "images", "controlnet_conditioning_scale": 0.7}
    theirs, ours = (
        modular(StableDiffusionXLAutoBlocks(), pipe, "controlnet_text2image", put, controlnet=net)
        for put in (lambda blocks: blocks, sampler_blocks)
    )
    latents = theirs(**given, generator=seeded())
    assert largest_difference(latents, ours(**given, generator=seeded(), sampler="euler")) == 0
    given["controlnet_conditioning_scale"] = 0.0
    assert largest_difference(latents, ours(**given, generator=seeded(), sampler="euler")) > 0.1


def test_a_trace(sdxl):
    trace = Trace()
    given = {**sdxl_prompt(1), "height": 16, "width": 16, "num_inference_steps": 4, "generator": seeded()}
    sdxl[1](**given, sampler="heun", trace=trace, output_type="latent")
    assert len(trace.calls) == 7 and len(trace.states) == 5 and trace.size == (16, 16)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sampler": "eulr"}, "did you mean"),
        ({"sampler": "euler_cfg_pp"}, "keeps only what its guider made of both"),
        ({"seeds": 3, "generator": seeded()}, "leave one of them out"),
        ({"seeds": [3, 4, 5]}, "3 seeds for 1 images"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"sigma_grid": "nowhere"}, "sigma_grid"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_runs(sdxl, flux, settings, reason):
    for (ours, made), prompt, network in ((sdxl, sdxl_prompt(1), "unet"), (flux, flux_prompt(1), "transformer")):
        calls = []
        hook = getattr(ours, network).register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        with pytest.raises(ValueError, match=reason):
            made(**{"sampler": "euler", "height": 16, "width": 16, **prompt, **settings})
        hook.remove()
        assert not calls


def test_blocks_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="no blocks of text to image"):
        sampler_blocks(StableDiffusionXLAutoBlocks().get_workflow("image2image"))
    with pytest.raises(ValueError, match="no blocks of text to image"):
        sampler_blocks(FluxAutoBlocks())


def test_the_first_block_makes_the_plan_and_the_given_blocks_stay_as_they_were():
    given = FluxAutoBlocks().get_workflow("text2image")
    names = list(given.sub_blocks)
    made = sampler_blocks(given)
    assert list(given.sub_blocks) == names and "denoise.before_denoise.set_timesteps" in names
    assert list(made.sub_blocks)[:2] == ["sampler", "text_encoder"]
    assert made.sub_blocks["decode"] is given.sub_blocks["decode"]


def test_the_example_of_the_page_runs(monkeypatch):
    """On the demo model, whose components stand in for those that `load_components` would read."""
    page = (ROOT / "docs" / "modular.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    pipe = StableDiffusionXLPipeline.from_pretrained(ROOT / "demo_models" / "sdxl-shapes")
    example = example.replace('init_pipeline("stabilityai/stable-diffusion-xl-base-1.0")', "init_pipeline()")
    example = example.replace("pipe.load_components(dtype=torch.float16)", "pipe.update_components(**parts)")
    example = example.replace("25", "3").replace("prompt=", "height=128, width=128, prompt=")
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    names = {"parts": {name: parts[name] for name in parts if name not in ("image_encoder", "feature_extractor")}}
    exec(compile(example, "docs/modular.md", "exec"), names)
    assert names["image"].size == (128, 128)
