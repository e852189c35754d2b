"""What users switch on to save memory or time works with every sampler: offloading, tiling, caches, torch.compile."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.observing import FiniteCheck
from samplers_patch import ALL_SAMPLERS, SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

FAMILIES = ("sdxl", "flux")
STAGES = {name: sampler.nfe_per_step for name, sampler in SAMPLERS.items()}
NOT_ADAPTIVE = [name for name, sampler in SAMPLERS.items() if not sampler.adaptive]


def made(family, **config):
    return tiny_sdxl(StableDiffusionXLPipeline, **config) if family == "sdxl" else tiny_flux(FluxPipeline, **config)


def network(pipe):
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def prompts(family, images=1, dtype=torch.float32):
    return sdxl_prompt(images, dtype) if family == "sdxl" else flux_prompt(images, dtype, negative=True)


def run(pipe, sampler="euler", steps=4, images=1, side=16, output_type="pt", **call):
    family = "sdxl" if hasattr(pipe, "unet") else "flux"
    prompt = prompts(family, images)
    guided = {"guidance_scale": 5.0} if family == "sdxl" else {"true_cfg_scale": 3.0}
    size = {"height": side, "width": side, "num_inference_steps": steps, "output_type": output_type}
    return pipe(**{**prompt, **guided, **size, **call}, comfy_sampler=sampler, generator=seeded()).images


# Offloading.


@pytest.mark.parametrize("family", FAMILIES)
def test_offloading(family):
    pipe, plain = made(family), made(family)
    pipe.enable_model_cpu_offload(device="cpu")
    for sampler in ("euler", "dpmpp_sde", None):
        assert torch.equal(run(pipe, sampler), run(plain, sampler))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: accelerate cannot offload from a CPU")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloading_from_a_gpu(family, how):
    pipe, plain = made(family), made(family).to("cuda")
    getattr(pipe, how)()
    for sampler in ("euler", "dpmpp_sde", "dpmpp_2m"):
        # the same kernels on the same numbers
        assert largest_difference(run(pipe, sampler), run(plain, sampler)) < 1e-5


# The meta device is as strict as a GPU is slow: to read a value raises, and so do CPU tensors that are not 0-dim.


@pytest.fixture(scope="module")
def strict():
    """Both pipelines with their network on the meta device, and their prompts there."""
    found = {}
    for family in FAMILIES:
        pipe = made(family)
        network(pipe).to("meta")
        found[family] = pipe, {name: embeds.to("meta") for name, embeds in prompts(family).items()}
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_of_the_result_waits_for_the_device(strict, family):
    """The one read of a value in a call, which shows that on the meta device any would raise."""
    pipe, prompt = strict[family]
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        run(pipe, output_type="latent", **prompt)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
def test_no_step_waits_for_the_device(strict, family, sampler, monkeypatch):
    """All but the check of the result for nan, once a call. dpm_adaptive must read its error at each step."""
    pipe, prompt = strict[family]
    monkeypatch.setattr(FiniteCheck, "look", lambda self: None)
    assert run(pipe, sampler, output_type="latent", **prompt).device.type == "meta"


# The VAE, and the model's dtype.


@pytest.mark.parametrize("family", FAMILIES)
def test_vae_in_tiles_and_slices(family):
    pipe = made(family)
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    ours, theirs = (run(pipe, sampler, images=2, side=64, steps=2) for sampler in ("euler", None))
    assert torch.equal(ours, theirs)
    pipe.vae.disable_tiling()
    assert not torch.equal(ours, run(pipe, images=2, side=64, steps=2))  # tiles were taken


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(family, dtype):
    """Pictures are as near to float32's as the network's own rounding lets them be."""
    pipe = made(family, dtype=dtype)
    seen = set()
    network(pipe).register_forward_pre_hook(
        lambda module, args, kwargs: seen.add((args[0] if args else kwargs["hidden_states"]).dtype), with_kwargs=True
    )
    shape = (1, 4, 8, 8) if family == "sdxl" else (1, 16, 16)
    latents = torch.randn(shape, generator=seeded())  # older versions of torch draw others in half precision
    half_call = {**prompts(family, dtype=dtype), "latents": latents.to(dtype)}
    for sampler in ("euler", "dpmpp_2m_sde"):
        half, full = run(pipe, sampler, **half_call).float(), run(made(family), sampler, latents=latents)
        assert half.isfinite().all() and largest_difference(half, full) < 0.1  # of [0, 1]; measured: up to 0.02
    assert seen == {dtype}


# Caches of the transformer. A cache compares an evaluation with the last one of the same name.


def cached(config):
    pipe = made("flux", num_layers=2, num_single_layers=2)
    pipe.transformer.enable_cache(config)
    return pipe


@pytest.fixture(scope="module")
def uncached():
    return made("flux", num_layers=2, num_single_layers=2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_cache_that_never_skips_changes_nothing(sampler, uncached):
    pipe = cached(FirstBlockCacheConfig(threshold=0.0))
    assert torch.equal(run(pipe, sampler, output_type="latent"), run(uncached, sampler, output_type="latent"))


@pytest.mark.parametrize("sampler", NOT_ADAPTIVE)
@pytest.mark.parametrize("config", [FirstBlockCacheConfig(threshold=1e9), TaylorSeerCacheConfig(cache_interval=2)])
def test_a_cache_that_skips(sampler, config, uncached):
    if isinstance(config, TaylorSeerCacheConfig):
        config.disable_cache_before_step = 1
    pipe = cached(config)
    first, second = (run(pipe, sampler, steps=5, output_type="latent") for _ in range(2))
    assert torch.equal(first, second)  # nothing of one call is left for the next
    assert first.isfinite().all() and not torch.equal(first, run(uncached, sampler, steps=5, output_type="latent"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_cache_state_for_each_stage_and_prompt(sampler, monkeypatch):
    pipe, names = made("flux"), []
    context = pipe.transformer.cache_context
    monkeypatch.setattr(pipe.transformer, "cache_context", lambda name: names.append(name) or context(name))
    run(pipe, sampler, steps=9, output_type="latent")
    stages = ["", "_1", "_2"][: STAGES[sampler]]
    assert set(names) == {f"{side}{stage}" for side in ("cond", "uncond") for stage in stages}
    assert names[:2] == ["cond", "uncond"]


# torch.compile: what the network is given keeps its dtype, shape, strides and device.


@pytest.mark.parametrize("family", FAMILIES)
def test_one_compilation_serves_every_sampler(family):
    """But rectified_cfg_pp, whose predictor is called with the prompt alone, on half as many rows: it takes two."""
    pipe, graphs = made(family), []

    def backend(module, example_inputs):
        graphs.append(module)
        return module.forward

    served = [sampler for sampler in ALL_SAMPLERS if sampler != "rectified_cfg_pp"]
    call = {"images": 2, "steps": 3, "output_type": "latent"}
    plain = {sampler: run(pipe, sampler, **call) for sampler in served}
    torch._dynamo.reset()
    network(pipe).compile(backend=backend, fullgraph=True, dynamic=False)
    for sampler, expected in plain.items():
        assert torch.equal(run(pipe, sampler, **call), expected)
        assert len(graphs) == 1, sampler
    torch._dynamo.reset()
