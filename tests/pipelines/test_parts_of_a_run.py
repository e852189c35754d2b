"""A part of a run, from an image or from what another run left: denoise, start_step, end_step, a mask."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

PROGRAMS = [None, "comfyui"]
# Two stages make one rounding more than a whole run, of latents of size 20 at most; an Euler step of a network here
# does not magnify it.
ROUNDING = 2e-4
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


def run(pipes, model, **options):
    prompt = sdxl_prompt(1) if model == "sdxl" else flux_prompt(1, negative=True)
    call = {**prompt, **SIZE, "num_inference_steps": 6, "seeds": 3, "output_type": "latent", "sigma_grid": "karras"}
    return pipes[model](**call | options).images


def image_latents(seed: int = 5) -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def unpacked(pipes, model, latents: torch.Tensor) -> torch.Tensor:
    pipe = pipes[model]
    return latents if model == "sdxl" else pipe._unpack_latents(latents, 32, 32, pipe.vae_scale_factor)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2"])
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_two_stages_are_the_whole(pipes, model, sampler, program):
    """The second goes on from the noise that the first has left; on flow models ComfyUI hands on latents / (1 - t)."""
    options = {"comfy_sampler": sampler, "program": program, "noise": "cpu"}
    left = run(pipes, model, end_step=4, return_with_leftover_noise=True, **options)
    both = run(pipes, model, latents=left, add_noise=False, start_step=4, **options)
    assert largest_difference(both, run(pipes, model, **options)) < ROUNDING
    plan = pipes[model].plan(sampler, None, "karras", 6, program=program, end_step=4, return_with_leftover_noise=True)
    whole = pipes[model].plan(sampler, None, "karras", 6, program=program)
    assert torch.equal(plan.sigmas, whole.sigmas[:5])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_an_early_end_leads_to_no_noise(pipes, model, program):
    plan = pipes[model].plan("euler", None, "karras", 6, program=program, end_step=4)
    whole = pipes[model].plan("euler", None, "karras", 6, program=program)
    assert torch.equal(plan.sigmas[:-1], whole.sigmas[:4]) and plan.sigmas[-1] == 0
    with_noise = run(pipes, model, program=program, end_step=4, return_with_leftover_noise=True)
    assert largest_difference(run(pipes, model, program=program, end_step=4), with_noise) > 0.01


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_denoise_takes_the_last_steps_of_a_longer_grid(pipes, model):
    plan = pipes[model].plan("euler", None, "karras", 6, denoise=0.55)
    longer = pipes[model].plan("euler", None, "karras", int(6 / 0.55))
    assert torch.equal(plan.sigmas, longer.sigmas[-7:]) and plan.steps == 6
    assert torch.equal(plan.timesteps, longer.timesteps[-6:])
    whole = pipes[model].plan("euler", None, "karras", 6)
    assert torch.equal(pipes[model].plan("euler", None, "karras", 6, denoise=1.0).sigmas, whole.sigmas)
    own = pipes[model].plan("euler", None, None, 6, denoise=0.5)  # of the scheduler's config, with its timesteps
    assert torch.equal(own.timesteps, pipes[model].plan("euler", None, None, 12).timesteps[-6:])


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_noise_is_added_to_an_image(pipes, model, program):
    """Seen by the first network call: (image + sigma noise), on flow models (1 - t) image + t noise."""
    pipe, image, seen = pipes[model], image_latents(), []
    network = pipe.unet if model == "sdxl" else pipe.transformer

    def see(module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"])[-1:].clone())

    hook = network.register_forward_pre_hook(see, with_kwargs=True)
    try:
        run(pipes, model, image=image, denoise=0.5, program=program, noise="cpu")
    finally:
        hook.remove()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    size = SIZE if model == "flux" else {}  # which shifts flow time
    sigma = pipe.plan("euler", None, "karras", 6, denoise=0.5, program=program, **size).sigmas[0]
    if model == "sdxl":
        expected = (image + sigma * noise) / (sigma**2 + 1) ** 0.5
    else:
        expected = (1 - sigma) * image + sigma * noise
    assert largest_difference(unpacked(pipes, model, seen[0]), expected) < 1e-5  # of values of size 3, in float32


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "dpm_fast", "euler_ancestral"])
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_what_a_mask_keeps_is_the_image(pipes, model, sampler, program):
    image, mask = image_latents(), torch.zeros(32, 32)
    mask[:, 16:] = 1
    options = {"comfy_sampler": sampler, "program": program, "image": image}
    masked = unpacked(pipes, model, run(pipes, model, mask_image=mask, **options))
    all_anew = unpacked(pipes, model, run(pipes, model, mask_image=torch.ones(32, 32), **options))
    plain = unpacked(pipes, model, run(pipes, model, **options))
    assert largest_difference(all_anew, plain) < ROUNDING
    last = 0 if sampler != "dpm_fast" or program is None else 0.15  # ComfyUI's ends at sigma 0.03
    assert largest_difference(masked[..., :8], image[..., :8]) <= last + 1e-5
    assert largest_difference(masked[..., 8:], image[..., 8:]) > 0.1


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_a_picture_is_encoded_and_its_size_taken(pipes, model):
    """The VAE's most likely latents: at denoise near 0 the picture comes back as the VAE has it."""
    pipe = pipes[model]
    pixels = (np.random.default_rng(0).random((32, 32, 3)) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    size = {"height": None, "width": None}
    again = run(pipes, model, image=picture, denoise=0.999, start_step=5, sigma_grid="karras", **size)
    vae, config = pipe.vae, pipe.vae.config
    raw = vae.encode(pipe.image_processor.preprocess(picture)).latent_dist.mode()
    expected = (raw - (config.get("shift_factor") or 0)) * config.scaling_factor
    again = unpacked(pipes, model, again)
    assert again.shape == expected.shape and largest_difference(again, expected) < 0.2  # the last step's noise, 0.03
    from_latents = run(pipes, model, image=expected, denoise=0.999, start_step=5)
    assert largest_difference(unpacked(pipes, model, from_latents), again) < 1e-5


def test_one_image_serves_for_a_batch_and_two_do_not_for_three(pipes):
    image = image_latents()
    prompt = sdxl_prompt(2)
    call = {**prompt, **SIZE, "num_inference_steps": 3, "seeds": [3, 4], "output_type": "latent", "denoise": 0.5}
    pair = pipes["sdxl"](**call, image=image).images
    assert torch.equal(pair, pipes["sdxl"](**call, image=image.repeat(2, 1, 1, 1)).images)
    with pytest.raises(ValueError, match=r"image= has latents of the shape \[3, 4, 16, 16\], and \[2, 4, 16, 16\]"):
        pipes["sdxl"](**call, image=image.repeat(3, 1, 1, 1))


REFUSED = {
    "denoise of 0": ({"denoise": 0}, ValueError, "above 0, of at most 1"),
    "denoise above 1": ({"denoise": 1.2}, ValueError, "above 0, of at most 1"),
    "denoise in words": ({"denoise": "half"}, TypeError, "above 0, of at most 1"),
    "a negative step": ({"start_step": -1}, ValueError, "counted from 0"),
    "half a step": ({"end_step": 2.5}, TypeError, "counted from 0"),
    "a start after the end": ({"start_step": 4, "end_step": 4}, ValueError, "leave no step of 6"),
    "a start behind the grid": ({"start_step": 6}, ValueError, "leave no step of 6"),
    "a mask alone": ({"mask_image": torch.ones(4, 4)}, ValueError, "there is no image="),
    "nothing to go on from": ({"add_noise": False}, ValueError, "pass latents="),
    "a mask out of range": ({"image": image_latents(), "mask_image": torch.full((4, 4), 2.0)}, ValueError, "from 0"),
    "own sigmas made longer": ({"sigmas": [0.9, 0.5], "denoise": 0.5, "sigma_grid": None}, ValueError, "makes a grid"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_what_cannot_be_is_refused(pipes, model, case):
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        run(pipes, model, **options)
