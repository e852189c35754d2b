"""Pictures back to the noise that they are sampled from, on the closed-form models and on demo weights."""

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_models import largest_difference

from k_diffusing import ALL_SAMPLERS, invert
from k_diffusing.images import clean_latents
from k_diffusing.inversion import FALLING
from k_diffusing.models import DEMOS, load
from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import MIXTURE
from k_diffusing.samplers.options import adds_noise

SIDE = 8
EMBEDS = {"prompt_embeds": torch.zeros(1, 5, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": oracle_sdxl(), "flux": oracle_flux()}


def latents(seed=0):
    """Clean latents of the mixture that the closed-form models know, [1, 4, SIDE, SIDE]."""
    return MIXTURE.quantile(
        torch.rand(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).double()
    ).float()


def options_of(name):
    """Those with which a sampler adds no noise; None where it always does."""
    record = ALL_SAMPLERS[name]
    return {} if not adds_noise(record, None) else record.noiseless


RISES = [
    name for name, record in ALL_SAMPLERS.items()
    if record.takes == "sigmas" and options_of(name) is not None and not record.uses_uncond and name not in FALLING
]  # fmt: skip


def round_trip(pipe, kind, sampler, steps, options=None, grid=None, **more):
    """The largest difference between clean latents and what comes back of them."""
    size, clean = {"height": SIDE * 8, "width": SIDE * 8}, latents()
    settings = {"sampler_options": options, "sigma_grid": grid, **EMBEDS, **size, **more}
    noise = invert(pipe, clean, sampler=sampler, steps=steps, **settings)
    back = pipe(
        latents=noise, comfy_sampler=sampler, num_inference_steps=steps, guidance_scale=1.0, output_type="latent",
        seeds=0, **settings,
    ).images  # fmt: skip
    packed = pipe._pack_latents(clean, *clean.shape) if kind == "flux" else clean
    assert noise.shape == back.shape == packed.shape and noise.dtype == torch.float32
    return largest_difference(back, packed)


@pytest.mark.parametrize("kind", ["sdxl", "flux"])
@pytest.mark.parametrize("name", RISES)
def test_every_sampler_that_goes_up(pipes, name, kind):
    """The latents come back, the nearer the finer the grid."""
    first_order = ALL_SAMPLERS[name].order == 1 or name in ("gradient_estimation", "tcd")
    steps = (24, 96) if first_order else (12, 48)
    coarse, fine = (round_trip(pipes[kind], kind, name, n, options_of(name), "karras") for n in steps)
    assert fine < coarse or fine < 0.01
    assert fine < (0.65 if first_order else 0.1)  # of latents that reach over 3; euler's own error at 96 steps is 0.61


LISTED = [14.0 * 0.8**i for i in range(28)]


@pytest.mark.parametrize(
    "settings",
    [{"program": "comfyui"}, {"program": "a1111"}, {"grid": [*LISTED, 0.0]}, {"grid": "exponential"}, {}],
)
def test_under_any_conventions(pipes, settings):
    more = dict(settings)
    assert round_trip(pipes["sdxl"], "sdxl", "heun", 30, None, more.pop("grid", None), **more) < 0.2


def test_a_grid_that_ends_above_zero(pipes):
    """The picture is the state at its last sigma."""
    assert round_trip(pipes["sdxl"], "sdxl", "heun", 1, None, LISTED) < 0.05


REFUSED = [
    ("euler_ancestral", "adds noise, .*sampler_options={'eta': 0.0}, or take euler"),
    ("lcm", "adds noise, which no inversion can take back: take euler"),
    ("dpm_fast", "chooses its own steps, from the largest sigma down"),
    ("dpm_adaptive", "chooses its own steps"),
    ("heunpp2", ".*takes for the largest: take heun"),
    ("ddim", ".*below the next one, .*take euler"),
    ("ipndm_v", "extrapolates over its steps, which grow here, .*take ipndm"),
    ("res_multistep_ancestral", ".*take res_multistep"),
    ("euler_cfg_pp", "guides along the answer to the negative prompt"),
]


@pytest.mark.parametrize("name, why", REFUSED)
def test_samplers_that_cannot_go_up(pipes, name, why):
    options = {"eta": 0.0} if name == "res_multistep_ancestral" else None
    with pytest.raises(ValueError, match=f"^{name} cannot go up a sigma grid: it {why}"):
        invert(pipes["sdxl"], latents(), sampler=name, sampler_options=options, **EMBEDS)


def test_what_cannot_be_given(pipes):
    for name in ("latents", "denoise", "seeds", "mask_image", "output_type"):
        with pytest.raises(TypeError, match=f"^invert takes no {name}: it goes from a picture to all of its noise$"):
            invert(pipes["sdxl"], latents(), **EMBEDS, **{name: 1})
    with pytest.raises(ValueError, match="did you mean 'karras'"):
        invert(pipes["sdxl"], latents(), sigma_grid="karas", **EMBEDS)
    with pytest.raises(ValueError, match=r"image= has latents of the shape \[1, 4, 8, 8\]"):
        invert(pipes["sdxl"], latents(), height=128, width=128, **EMBEDS)


def test_a_function_of_ones_own(pipes):
    def own(model, x, sigmas):
        for i in range(len(sigmas) - 1):
            d = (x - model(x, sigmas[i] * x.new_ones(len(x)))) / sigmas[i]
            x = x + d * (sigmas[i + 1] - sigmas[i])
        return x

    euler, mine = (round_trip(pipes["sdxl"], "sdxl", sampler, 20, grid="karras") for sampler in ("euler", own))
    assert mine == pytest.approx(euler, abs=1e-4)  # the same formula, in float32 sums of another order
    with pytest.raises(ValueError, match="adds noise"):
        invert(pipes["sdxl"], latents(), sampler=lambda model, x, sigmas, noise_sampler=None: x, **EMBEDS)


@pytest.mark.parametrize("model", DEMOS)
def test_a_picture_of_a_demo_model(model):
    """It comes back as its VAE alone has it, to less than 1 of 255 levels on average, whatever that makes of it."""
    pipe, call = load(model), DEMOS[model].keywords
    guides = {"true_cfg_scale": 1.0, "max_sequence_length": 64} if model == "demo-flux" else {}
    prompt, steps = call["prompt"], 20
    picture = pipe(**call, comfy_sampler="dpmpp_2m", num_inference_steps=12, seeds=3).images[0]
    assert isinstance(picture, PIL.Image.Image)
    noise = invert(pipe, picture, prompt, sampler="heun", steps=steps, **guides)
    [back] = pipe(
        prompt, latents=noise, comfy_sampler="heun", num_inference_steps=steps, guidance_scale=1.0, height=128,
        width=128, **guides,
    ).images  # fmt: skip
    channels = 4 if model == "demo" else pipe.transformer.config.in_channels // 4
    clean = clean_latents(pipe, picture, (1, channels, 16, 16), pipe.device)
    [alone] = pipe.decode(clean if model == "demo" else pipe._pack_latents(clean, *clean.shape), 128, 128)
    apart = np.abs(np.asarray(back, float) - np.asarray(alone, float))
    assert apart.mean() < 0.8 and apart.max() < 60
