"""Functions of ComfyUI run in both pipelines: a stand-in of its package here, and its own where it is installed."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline, dynamic_shift
from k_diffusing.compare.sources import find_source
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import wasserstein
from k_diffusing.samplers.comfyui import model_sampling
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

INSTALLED = importlib.util.find_spec("comfy") is not None
SIZE = {"height": 16, "width": 16, "num_inference_steps": 4, "output_type": "latent"}


@pytest.fixture
def comfyui(monkeypatch):
    """The stand-in's samplers, by way of `comfy:` names, as a user has them."""
    installed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "comfy"}
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "support" / "stand_in")
    yield lambda name: find_source(f"comfy:{name}").sampler
    for name in [name for name in sys.modules if name.split(".")[0] == "comfy"]:
        del sys.modules[name]
    sys.modules.update(installed)


def sdxl(sampler, **settings):
    prompt = settings.pop("prompt", sdxl_prompt())
    call = SIZE | {"generator": seeded()} | settings
    return tiny_sdxl(StableDiffusionXLPipeline)(**prompt, **call, comfy_sampler=sampler).images


def flux(sampler, **settings):
    call = SIZE | {"generator": seeded()} | settings
    prompt = flux_prompt(negative=settings.get("true_cfg_scale", 1) > 1)
    return tiny_flux(FluxPipeline)(**prompt, **call, comfy_sampler=sampler).images


def test_euler_is_euler(comfyui):
    # 1e-5: the same steps in another order of operations, float32
    assert (sdxl(comfyui("euler")) - sdxl("euler")).abs().max() < 1e-5
    assert (flux(comfyui("euler")) - flux("euler")).abs().max() < 1e-5


@pytest.mark.parametrize("coordinates, kind", [("auto", "CONST"), ("flow", "CONST"), ("ve", "EPS")])
def test_flux_is_their_kind_of_model_in_flow_coordinates(comfyui, coordinates, kind):
    seen = []
    flux(comfyui("look"), flow_coordinates=coordinates, sampler_options={"seen": seen})
    assert kind in seen[0]["kinds"] and {"CONST": "EPS", "EPS": "CONST"}[kind] not in seen[0]["kinds"]


def test_noise_levels_of_sdxl(comfyui):
    seen = []
    sdxl(comfyui("look"), sampler_options={"seen": seen})
    levels = seen[0]
    # SDXL's schedule: the largest and smallest sigma, and that of timestep 499.5
    assert (levels["max"], levels[0.0]) == (pytest.approx(14.6146, abs=1e-4),) * 2
    assert (levels["min"], levels[1.0]) == (pytest.approx(0.0292, abs=1e-4),) * 2
    assert levels[0.5] == pytest.approx(1.6129, abs=1e-2)


def test_noise_levels_of_flux(comfyui):
    seen = []
    pipe = tiny_flux(FluxPipeline)
    pipe(**flux_prompt(), **SIZE, comfy_sampler=comfyui("look"), sampler_options={"seen": seen})
    shift = torch.tensor(dynamic_shift(pipe, 16, 16, None)).exp().item()
    for percent in (0.0, 1e-4, 0.5):
        t = 1 - percent
        # 1e-3: percent counts to the smallest of the 1000 levels, theirs to 0
        assert seen[0][percent] == pytest.approx(shift * t / (1 + (shift - 1) * t), abs=1e-3)
    assert seen[0]["max"] == 1.0 and 0 < seen[0]["min"] < 0.01


@pytest.mark.parametrize("coordinates", ["auto", "ve"])
def test_noise_of_their_kind_of_model_is_right_in_distribution(comfyui, coordinates):
    sampler = comfyui("renoised")
    assert wasserstein(draw(oracle_sdxl(), sampler, steps=60, sigma_grid="karras")) < 0.06  # measured: 0.03
    assert wasserstein(draw(oracle_flux(), sampler, steps=60, flow_coordinates=coordinates)) < 0.06


def test_the_wrong_kind_of_model_would_be_seen(comfyui, monkeypatch):
    monkeypatch.setattr("k_diffusing.spaces.model_sampling", lambda levels, flow: model_sampling(levels, False))
    assert wasserstein(draw(oracle_flux(), comfyui("renoised"), steps=60)) > 0.1


def test_cfg_pp_sees_the_unguided_estimate(comfyui):
    """The hook's two estimates are those of calls with the prompt alone and with the negative prompt alone."""
    seen, prompt = [], sdxl_prompt()
    sampler = comfyui("euler_cfg_pp")
    sdxl(sampler, prompt=prompt, sampler_options={"seen": seen})
    alone = {"cond_denoised": ("prompt_embeds", "pooled_prompt_embeds")}
    alone["uncond_denoised"] = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
    for name, (embeds, pooled) in alone.items():
        single = []
        one = {"prompt_embeds": prompt[embeds], "pooled_prompt_embeds": prompt[pooled]}
        sdxl(sampler, prompt=one, guidance_scale=1.0, sampler_options={"seen": single})
        assert torch.equal(seen[0]["input"], single[0]["input"])
        # 1e-5: a batch of two against a batch of one
        assert (seen[0][name] - single[0]["denoised"]).abs().max() < 1e-5
    guided = seen[0]["uncond_denoised"] + 5.0 * (seen[0]["cond_denoised"] - seen[0]["uncond_denoised"])
    # 1e-3: guidance multiplies rounding at sigma 5
    assert (seen[0]["denoised"] - guided).abs().max() < 1e-3


def test_cfg_pp_on_flux_with_true_cfg(comfyui):
    seen = []
    flux(comfyui("euler_cfg_pp"), true_cfg_scale=3.0, sampler_options={"seen": seen})
    guided = seen[0]["uncond_denoised"] + 3.0 * (seen[0]["cond_denoised"] - seen[0]["uncond_denoised"])
    assert (seen[0]["denoised"] - guided).abs().max() < 1e-5  # float32
    assert (seen[0]["cond_denoised"] - seen[0]["uncond_denoised"]).abs().max() > 1e-3


def test_what_the_hook_returns_is_what_the_sampler_gets(comfyui):
    sampler = comfyui("euler_cfg_pp")
    assert (sdxl(sampler, sampler_options={"gain": 0.5}) - sdxl(sampler)).abs().max() > 1e-2


@pytest.mark.parametrize("name, options", [("euler", {"s_churn": 0.5}), ("renoised", {})])
def test_all_noise_is_the_generators(comfyui, name, options):
    state = torch.get_rng_state()
    results = [
        sdxl(comfyui(name), sampler_options=options, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], sdxl(comfyui("euler"), generator=seeded(1)))


def test_nothing_of_comfyui_is_imported_without_it():
    assert INSTALLED or not any(name.split(".")[0] == "comfy" for name in sys.modules)


# ComfyUI's own, where it is installed (its folder on PYTHONPATH). docs/comfyui.md has the table of all of them.

RIGHT = """
dpm_2 dpm_2_ancestral dpm_adaptive dpm_fast dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2s_ancestral dpmpp_3m_sde
dpmpp_sde er_sde euler euler_ancestral euler_cfg_pp gradient_estimation heun heunpp2 ipndm lms res_multistep sa_solver
seeds_2 seeds_3
""".split()


@pytest.mark.skipif(not INSTALLED, reason="ComfyUI is not installed: put its folder on PYTHONPATH")
@pytest.mark.parametrize("name", RIGHT)
def test_comfyuis_own_samplers_are_right_in_distribution(name):
    sampler = find_source(f"comfy:{name}").sampler
    for steps, bound in ((30, 0.09), (100, 0.05)):  # as for k_diffusion's
        assert wasserstein(draw(oracle_sdxl(), sampler, steps, sigma_grid="karras")) < bound
        assert wasserstein(draw(oracle_flux(), sampler, steps)) < bound
