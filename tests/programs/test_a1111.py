"""A1111's web UI and Forge, by figures that their own code gave.

A1111: version 1.10.1, commit 82a973c0 (its sd_samplers_kdiffusion, sd_samplers_cfg_denoiser, sd_schedulers and rng,
with k-diffusion ab527a9, on the demo UNet). Forge: f2.0.1 (its k_prediction, sd_schedulers and k_diffusion, on the
demo transformer). Both float32 on a CPU, torch 2.14, 12 steps.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.grids.part import Part
from k_diffusing.images import rounded_mask
from k_diffusing.model.scheduler_config import noise_schedule
from k_diffusing.noise.a1111 import a1111_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.planning import discrete_plan, flow_plan
from k_diffusing.programs.a1111 import a1111, a1111_of
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

GOLDEN = json.loads((Path(__file__).parent / "golden" / "a1111.json").read_text(encoding="utf-8"))
PROMPT = "a large yellow square on a purple background"
SDXL = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
FLUX = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
GRIDS = {
    "uniform": [14.614643096923828, 4.086081027984619, 1.6155803203582764, 0.6951496005058289, 0.0291675366461277, 0],
    "karras": [14.614643096923828, 4.796544075012207, 1.2741049528121948, 0.24795174598693848, 0.02916753850877285, 0],
    "exponential": [14.614643096923828, 3.088987112045288, 0.652895987033844, 0.137997701764107, 0.0291675366461277, 0],
    "polyexponential": [
        14.614643096923828, 3.0889875888824463, 0.652895987033844, 0.13799770176410675, 0.0291675366461277, 0,
    ],
    "sgm_uniform": [14.614643096923828, 5.092407703399658, 2.2797305583953857, 1.162864565849304, 0.571188926696777, 0],
    "kl_optimal": [
        14.614632606506348, 2.6328883171081543, 1.2947678565979004, 0.7116270661354065, 0.3356376886367798,
        0.02916753478348255,
    ],
    "align_your_steps": [14.614999771118164, 2.8678476810455322, 0.8619999885559082, 0.29819455742836, 0.029, 0],
    "simple": [14.614642143249512, 5.087762832641602, 2.276463031768799, 1.1605783700942993, 0.5692849159240723, 0],
    "normal": [14.614643096923828, 4.086081027984619, 1.6155803203582764, 0.6951496005058289, 0.0291675366461277, 0],
    "ddim": [5.134430885314941, 2.292853832244873, 1.1682159900665283, 0.5740503072738647, 0.04131447896361351, 0],
    "beta": [14.614642143249512, 12.052260398864746, 7.32190465927124, 2.5915491580963135, 0.02916753478348255, 0],
}  # fmt: skip
# sampler, grid, settings, seeds, (norm of the latents, three elements of the last image's)
PICTURES = [
    ("euler", None, {}, 0),
    ("dpmpp_2m", None, {}, 0),
    ("dpmpp_2m_sde", None, {}, [0, 1]),
    ("dpmpp_3m_sde", "automatic", {}, 0),
    ("dpm_2_ancestral", "automatic", {}, 0),
    ("dpm_fast", "karras", {}, 0),
    ("euler_ancestral", "kl_optimal", {}, 0),
    ("dpmpp_2s_ancestral", "beta", {}, 0),
    ("euler_ancestral", "karras", {"old_karras": True, "ensd": 31337}, 0),
    ("euler_ancestral", None, {"variation_seed": 77, "variation_strength": 0.3}, 5),
    ("heun", "sgm_uniform", {"sgm_noise_multiplier": True, "quantize": True}, 0),
    ("euler_ancestral", None, {"rng": "NV"}, 0),
    ("lms", "align_your_steps", {"discard_penultimate": True}, 0),
]
# sampler, grid, denoising strength, seeds, settings, whether there is a mask
FROM_AN_IMAGE = [
    ("euler", None, 0.6, 0, {}, False),
    ("dpmpp_2m_sde", None, 0.35, [0, 1], {}, False),
    ("euler_ancestral", "karras", 0.75, 5, {"exact_steps": True}, False),
    ("dpm_fast", "kl_optimal", 0.5, 0, {}, False),
    ("dpm_fast", "simple", 1.0, 0, {}, False),
    ("heun", "ddim", 0.6, 0, {}, False),
    (
        "dpmpp_2m", None, 0.6, 0, {"noise_multiplier": 0.9, "extra_noise": 0.1, "sgm_noise_multiplier": True}, False),
    ("euler_ancestral", None, 0.8, 0, {}, True),
    ("dpm_fast", None, 0.6, 0, {}, True),
]  # fmt: skip
FORGE_PICTURES = [
    ("euler", "simple", 1.0),
    ("euler_ancestral", "karras", 1.0),
    ("dpm_2_ancestral", "kl_optimal", 1.0),
    ("dpmpp_2m", "beta", 1.0),
    ("dpmpp_2m_sde", "karras", 1.0),
    ("dpm_fast", "simple", 2.0),
]


def beside(cells, kind):
    """The cells, each with the figures of the programs' own run of it."""
    return [(*cell, tuple(given)) for cell, given in zip(cells, GOLDEN[kind], strict=True)]


@pytest.fixture(scope="module")
def sdxl():
    pipe = StableDiffusionXLPipeline.from_pretrained("demo_models/sdxl-shapes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def flux():
    pipe = FluxPipeline.from_pretrained("demo_models/flux-shapes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def figures(latents):
    """Their norm, and three elements of the last image's."""
    last = latents[-1]
    return [float(value) for value in (latents.norm(), last[0, 0, 0], last[1, 5, 9], last[3, 15, 15])]


def agree(found, given):
    """To 2e-3 of the latents' own size: the figures have four digits, and another CPU's sums differ by 1e-4."""
    return found == pytest.approx(given, abs=2e-3 * max(1, given[0] / 25))


def plan(sampler="euler", grid=None, steps=5, program="a1111", **more):
    return discrete_plan(SDXL, sampler, None, grid, steps, program=program, **more)


@pytest.mark.parametrize(("sampler", "grid", "settings", "seeds", "given"), beside(PICTURES, "pictures"))
def test_pictures_are_those_of_the_web_ui(sdxl, sampler, grid, settings, seeds, given):
    images = 2 if isinstance(seeds, list) or "variation_seed" in settings else 1
    latents = sdxl(
        PROMPT, negative_prompt="", num_images_per_prompt=images, height=128, width=128, num_inference_steps=12,
        guidance_scale=3.0, comfy_sampler=sampler, sigma_grid=grid, seeds=seeds, output_type="latent",
        program=a1111(**settings) if settings else "a1111",
    ).images  # fmt: skip
    assert agree(figures(latents), given)


@pytest.mark.parametrize(
    ("sampler", "grid", "denoise", "seeds", "settings", "masked", "given"), beside(FROM_AN_IMAGE, "from an image")
)
def test_pictures_from_an_image_are_those_of_the_web_ui(sdxl, sampler, grid, denoise, seeds, settings, masked, given):
    mask = torch.zeros(128, 128)
    mask[24:88, 40:112] = 1
    latents = sdxl(
        PROMPT, negative_prompt="", num_images_per_prompt=2 if isinstance(seeds, list) else 1, height=128, width=128,
        num_inference_steps=12, guidance_scale=3.0, comfy_sampler=sampler, sigma_grid=grid, seeds=seeds,
        output_type="latent", program=a1111(**settings) if settings else "a1111", denoise=denoise,
        image=3 * torch.sin(torch.arange(4 * 16 * 16).reshape(1, 4, 16, 16) / 7.0),
        mask_image=mask if masked else None,
    ).images  # fmt: skip
    assert agree(figures(latents), given)


@pytest.mark.parametrize(
    ("steps", "denoise", "taken", "exact"),
    [(20, 0.75, 16, 26), (20, 0.6, 13, 33), (20, 0.05, 2, 400), (20, 0.01, 1, 2000), (7, 0.3, 3, 23), (1, 0.5, 1, 2)],
)
def test_denoise_takes_a_part_of_the_steps_and_one_more(steps, denoise, taken, exact):
    part, whole = Part(denoise), plan("euler", "karras", steps)
    assert torch.equal(plan("euler", "karras", steps, part=part).sigmas, whole.sigmas[-taken - 1 :])
    program = a1111(exact_steps=True)
    longer = plan("euler", "karras", exact, program=program).sigmas
    assert torch.equal(plan("euler", "karras", steps, program=program, part=part).sigmas, longer[-steps - 1 :])


def test_a_mask_is_made_smaller_and_rounded(sdxl):
    """A picture's edge of grey levels: each latent is made anew or kept."""
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1)))
    for mask in (ramp, torch.from_numpy(np.asarray(ramp) / np.float32(255))):
        found = rounded_mask(mask, (2, 4, 16, 16), torch.device("cpu"))
        assert found.shape == (2, 4, 16, 16) and set(found.unique().tolist()) == {0.0, 1.0}
        assert found[..., :8].max() == 0 and found[..., 8:].min() == 1
    with pytest.raises(ValueError, match="from 0"):
        rounded_mask(torch.full((128, 128), 2.0), (2, 4, 16, 16), torch.device("cpu"))


def test_forge_from_an_image(flux):
    """On FLUX the first network call sees (1 - t) image + t noise of the cut grid's first t."""
    chosen = flow_plan(FLUX, "euler", None, "simple", 12, size_mu=0.6, program="forge", part=Part(0.5))
    whole = flow_plan(FLUX, "euler", None, "simple", 12, size_mu=0.6, program="forge")
    assert torch.equal(chosen.sigmas, whole.sigmas[-8:])
    t, image, noise = chosen.sigmas[0], torch.full((1, 4, 2), 3.0), torch.full((1, 4, 2), -1.0)
    assert torch.equal(chosen.start(noise, image), noise * t + (1 - t) * image)


def test_guidance_below_one_calls_the_network_with_the_negative_prompt(sdxl):
    latents = sdxl(
        PROMPT, negative_prompt="", height=128, width=128, num_inference_steps=12, guidance_scale=0.5, seeds=0,
        output_type="latent", program="a1111",
    ).images  # fmt: skip
    assert agree(figures(latents), GOLDEN["guidance 0.5"][0])


@pytest.mark.parametrize(("sampler", "grid", "cfg", "given"), beside(FORGE_PICTURES, "flux, Forge"))
def test_flux_pictures_are_those_of_forge(flux, sampler, grid, cfg, given):
    packed = flux(
        PROMPT, negative_prompt="", height=128, width=128, num_inference_steps=12, guidance_scale=3.5,
        true_cfg_scale=cfg, comfy_sampler=sampler, sigma_grid=grid, max_sequence_length=64, seeds=3,
        output_type="latent", program="a1111",
    ).images  # fmt: skip
    assert agree(figures(flux._unpack_latents(packed, 128, 128, 8)), given)


@pytest.mark.parametrize("name", GRIDS)
def test_grids(name):
    sigmas = plan("euler", name).sigmas
    assert sigmas.dtype is torch.float32
    # to the last bit on the CPU that made them; exp, tan and powers of another may round the other way
    assert sigmas.tolist() == pytest.approx(GRIDS[name], rel=2.4e-7)


def test_forges_turbo():
    """Not SD-Turbo's ten timesteps: the steps are spread over all of them."""
    sigmas = plan("euler", "Turbo", steps=7, program="forge").sigmas
    times = noise_schedule(SDXL).timestep(sigmas[:-1])
    assert times.round().tolist() == [999, 856, 713, 570, 428, 285, 142]  # its formula's, rounded
    with pytest.raises(ValueError, match="'turbo' is none for FLUX"):
        flow_plan(FLUX, "euler", None, "turbo", 5, size_mu=0.8, program="forge")


def test_grids_over_another_range():
    old = a1111(old_karras=True)
    karras, normal = plan("euler", "karras", program=old).sigmas, plan("euler", "normal", program=old).sigmas
    assert karras.tolist() == pytest.approx([10, 4.070104122161865, 1.4507321119308472, 0.4324527978897095, 0.1, 0])
    assert normal.tolist() == pytest.approx([10, 3.37101149559021, 1.4744038581848145, 0.6730492115020752, 0.1, 0])
    assert torch.equal(plan("euler", "uniform", program=old).sigmas, plan("euler", "uniform").sigmas)
    own = plan("euler", "karras", program=a1111(old_karras=True, sigma_min=0.05, rho=5.0)).sigmas
    assert own[[0, -2]].tolist() == pytest.approx([10, 0.05]) and own[1] != karras[1]


@pytest.mark.parametrize(
    ("sampler", "grid"),
    [("euler", "uniform"), ("dpmpp_2m", "karras"), ("dpmpp_2m_sde", "exponential"), ("dpm_2", "karras")],
)
def test_automatic_is_the_samplers_own(sampler, grid):
    assert torch.equal(plan(sampler).sigmas, plan(sampler, grid).sigmas)
    assert torch.equal(plan(sampler, "automatic").sigmas, plan(sampler, grid).sigmas)


def test_dropped_sigmas():
    for name in ("dpm_2", "dpm_2_ancestral", "dpmpp_3m_sde"):
        longer = plan("euler", "karras", steps=6).sigmas
        assert torch.equal(plan(name, "karras").sigmas, torch.cat([longer[:-2], longer[-1:]]))
    always = a1111(discard_penultimate=True)
    assert len(plan("euler", "karras", program=always).sigmas) == 6
    assert plan("euler", "karras", program=always).sigmas[-2] > plan("euler", "karras").sigmas[-2]


def test_the_table_of_noise_levels():
    sigmas = plan().space.levels.sigmas
    assert (float(sigmas[0]), float(sigmas[-1])) == (0.02916753478348255, 14.614642143249512)
    half = plan(program=a1111(half_alphas=True)).space.levels.sigmas
    assert torch.equal(half, half.half().float())


def test_timesteps_are_rounded_only_if_told():
    assert (plan("euler", "karras").timesteps % 1 != 0).any()
    assert (plan("euler", "karras", program=a1111(quantize=True)).timesteps % 1 == 0).all()
    assert (plan("euler", "karras", program="forge").timesteps % 1 == 0).all()
    assert (plan("euler", "karras", quantize=True).timesteps % 1 == 0).all()  # the user's word before the program's


def test_samplers_of_a_range_go_over_the_models_and_add_noise():
    found = plan("dpm_fast", "karras", steps=7, program=a1111(old_karras=True))
    assert (float(found.sigmas[0]), float(found.sigmas[-2])) == (14.614642143249512, 0.02916753478348255)
    assert found.evaluations == 7 and found.options == {"eta": 1.0}
    assert float(found.initial_scale) == 10  # that of the grid it was told
    assert discrete_plan(SDXL, "dpm_fast", {"eta": 0.0}, None, 7, program="a1111").options == {"eta": 0.0}


def test_sgm_noise_multiplier():
    assert float(plan().initial_scale) == pytest.approx(14.614643096923828)
    assert float(plan(program=a1111(sgm_noise_multiplier=True)).initial_scale) == pytest.approx(14.648816, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "seeds", "images", "first", "later"),
    [
        ({}, 7, 1, (-0.820135, 0.395631, 0.898908), (0.13324, 0.182545, -0.514632)),
        ({"ensd": 31337}, 7, 1, (-0.820135, 0.395631, 0.898908), (-1.78265, 1.250457, 0.553538)),
        (
            {"variation_seed": 9, "variation_strength": 0.25},
            7, 2, (-1.198073, 0.107851, 0.525628), (0.13324, 0.182545, -0.514632),
        ),
        ({"rng": "NV"}, 7, 1, (-0.304847, 1.045333, -0.278564), (-1.287012, -0.395833, 0.375573)),
        (
            {"rng": "NV", "ensd": 31337, "variation_seed": 9, "variation_strength": 0.25},
            7, 2, (-0.306303, 1.362746, -0.327994), (0.240831, -0.34251, -0.195688),
        ),
    ],
)  # fmt: skip
def test_noise(settings, seeds, images, first, later):
    streams = noise_streams(a1111_noise(**settings), None, seeds, images, "cpu")
    initial = streams.initial((images, 4, 4, 4), "cpu", torch.float32)
    step = streams.step_noise(initial, torch.tensor([2.0, 1.0, 0.0]))(2.0, 1.0)
    # the figures have six digits; the angle of a variation rounds at 1e-6
    assert initial[-1].flatten()[:3].tolist() == pytest.approx(first, abs=5e-6)
    assert step[-1].flatten()[:3].tolist() == pytest.approx(later, abs=5e-6)


@pytest.mark.parametrize("settings", [{"ensd": 3}, {"rng": "CPU"}, {"rng": "NV", "ensd": 3}])
@pytest.mark.parametrize("kind", ["gaussian", "brownian"])
def test_an_image_of_a_batch_has_the_noise_it_has_alone(settings, kind):
    if settings.get("rng") == "NV" and kind == "brownian":
        pytest.skip("it is refused")
    sigmas = torch.tensor([2.0, 1.0, 0.5, 0.0])

    def draws(seeds):
        streams = noise_streams(a1111_noise(**settings), None, seeds, len(seeds), "cpu")
        x = streams.initial((len(seeds), 4, 4, 4), "cpu", torch.float32)
        noise = streams.step_noise(x, sigmas, kind)
        return x, noise(sigmas[0], sigmas[1]), noise(sigmas[1], sigmas[2])

    for both, alone in zip(draws([3, 8]), draws([8]), strict=True):
        assert torch.equal(both[1:], alone)


def test_nv_refuses_a_tree(sdxl):
    with pytest.raises(ValueError, match="rng='NV'.*not reproduced"):
        sdxl(PROMPT, comfy_sampler="dpmpp_2m_sde", height=128, width=128, seeds=0, program=a1111(rng="NV"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rng": "GPUs"}, "'GPU'"),
        ({"variation_strength": 0.5}, "needs variation_seed"),
        ({"variation_seed": 1, "variation_strength": 1.5}, "from 0 to 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        a1111(**settings)


def test_grids_that_are_none():
    with pytest.raises(ValueError, match="unknown sigma_grid"):
        plan("euler", "karass")
    ours = discrete_plan(SDXL, "euler", None, "align_your_steps", 5).sigmas
    assert float(ours[1]) == pytest.approx(3.7681790315) != float(plan("euler", "align_your_steps").sigmas[1])
    for name in ("uniform", "automatic", "align_your_steps"):
        with pytest.raises(ValueError, match="none for FLUX.*simple"):
            flow_plan(FLUX, "euler", None, name, 5, size_mu=0.8, program="a1111")


def test_what_a_pictures_text_says():
    fields = {
        "Steps": "20", "Sampler": "Euler a", "Schedule type": "Karras", "RNG": "CPU", "ENSD": "31337",
        "SGM noise multiplier": "True", "Discard penultimate sigma": "True", "Schedule max sigma": "12.0", "Eta": "0.5",
        "Variation seed": "9", "Variation seed strength": "0.25",
    }  # fmt: skip
    told = discrete_plan(SDXL, "euler_ancestral", None, "karras", 5, program=a1111_of(fields))
    asked = a1111(
        rng="CPU", ensd=31337, sgm_noise_multiplier=True, discard_penultimate=True, sigma_max=12.0, eta=0.5,
        variation_seed=9, variation_strength=0.25,
    )  # fmt: skip
    same = discrete_plan(SDXL, "euler_ancestral", None, "karras", 5, program=asked)
    assert torch.equal(told.sigmas, same.sigmas) and told.options == {"eta": 0.5}
    assert float(told.sigmas[0]) == pytest.approx(12)
    assert float(told.initial_scale) == float(same.initial_scale) == pytest.approx(145**0.5)
    assert torch.equal(
        *(
            noise_streams(one.noise, None, 7, 1, "cpu").initial((1, 4, 4, 4), "cpu", torch.float32)
            for one in (told, same)
        )
    )
    with pytest.raises(ValueError, match="ENSD"):
        a1111_of({"ENSD": "many"})
