"""`noise=` and `seeds=` of both pipelines: what each source makes of a call."""

import pytest
import torch
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.noise.philox import PhiloxGenerator
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.trace.record import Trace
from samplers_patch import k_sampling
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

CALL = {"height": 16, "width": 16, "num_inference_steps": 4, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


def run(pipes, family, sampler="euler_ancestral", images=1, dtype=torch.float32, **settings):
    prompt = (sdxl_prompt if family == "sdxl" else flux_prompt)(images, dtype)
    return pipes[family](**prompt, **(CALL | settings), comfy_sampler=sampler).images


def traced(pipes, family, sampler="euler_ancestral", **settings):
    trace = Trace(tensors=True)
    run(pipes, family, sampler, trace=trace, **settings)
    return trace


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde"])
def test_a_seed_is_a_generator_on_the_cpu(pipes, family, sampler):
    assert torch.equal(run(pipes, family, sampler, seeds=7), run(pipes, family, sampler, generator=seeded(7)))
    pair = run(pipes, family, sampler, images=2, seeds=7)
    assert torch.equal(pair, run(pipes, family, sampler, images=2, generator=[seeded(7), seeded(8)]))
    assert torch.equal(pair, run(pipes, family, sampler, images=2, seeds=[7, 8]))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("noise", [name for name in NOISE_SOURCES if name != "comfy"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_no_picture_depends_on_its_batch(pipes, family, noise, sampler):
    """But ComfyUI's, where one generator draws for the whole batch."""
    both = run(pipes, family, sampler, images=2, noise=noise, seeds=[3, 4])
    prompt = (sdxl_prompt if family == "sdxl" else flux_prompt)(2)
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in prompt.items()}
        alone = pipes[family](**one, **CALL, comfy_sampler=sampler, noise=noise, seeds=[3 + i]).images
        # 1e-5: a batch of two against a batch of one, float32, on latents of size 30
        assert largest_difference(both[i : i + 1], alone) < 1e-5 * max(1, float(alone.abs().max()))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_after_the_largest_seed_comes_zero(pipes, family, noise):
    last = 2**64 - 1
    pair = run(pipes, family, images=2, noise=noise, seeds=last)
    if noise == "comfy":  # one seed for the batch; its steps' noise is of the seed after it
        trace = traced(pipes, family, noise=noise, seeds=last)
        drawn = torch.randn((1, 4, 8, 8), generator=seeded(0))
        drawn = drawn if family == "sdxl" else FluxPipeline._pack_latents(drawn, 1, 4, 8, 8)
        assert torch.equal(trace.draws[0].noise.values, drawn)
    else:
        assert torch.equal(pair, run(pipes, family, images=2, noise=noise, seeds=[last, 0]))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_the_global_generator_is_left_alone(pipes, family, noise):
    state = torch.get_rng_state()
    first, again, other = (run(pipes, family, "dpmpp_sde", noise=noise, seeds=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_philox_draws_unpacked_latents(pipes):
    generator = PhiloxGenerator(5)
    trace = traced(pipes, "flux", noise="philox", seeds=5)
    drawn = [FluxPipeline._pack_latents(generator.randn((4, 8, 8))[None], 1, 4, 8, 8) for _ in range(4)]
    # x at the first level, 199, is the noise times 1 + 199 over latents of unit noise
    assert largest_difference(trace.states[0].x.values / 200, drawn[0]) < 1e-5
    for draw, expected in zip(trace.draws, drawn[1:], strict=True):
        assert torch.equal(draw.noise.values, expected)


def test_comfyui_on_sdxl(pipes):
    """Initial noise of the seed times sqrt(sigma_max^2 + 1); on a CPU, step noise of the next seed; for the batch."""
    trace = traced(pipes, "sdxl", images=2, noise="comfy", seeds=9, sigma_grid="karras")
    initial = torch.randn((2, 4, 8, 8), generator=seeded(9))
    sigma = trace.sigmas[0]
    assert torch.equal(trace.states[0].x.values, initial * (sigma**2 + 1) ** 0.5)
    later = seeded(10)
    for draw in trace.draws:
        assert torch.equal(draw.noise.values, torch.randn((2, 4, 8, 8), generator=later))


def test_comfyui_below_the_largest_sigma(pipes):
    """Its leading grid starts below sigma_max, where the noise is scaled by sigma alone."""
    trace = traced(pipes, "sdxl", noise="comfy", seeds=9)
    assert trace.sigmas[0] < 14
    assert torch.equal(trace.states[0].x.values, torch.randn((1, 4, 8, 8), generator=seeded(9)) * trace.sigmas[0])


def test_a1111_scales_the_noise_by_sigma(pipes):
    trace = traced(pipes, "sdxl", images=2, noise="a1111", seeds=9, sigma_grid="karras")
    streams = [seeded(9), seeded(10)]
    initial = torch.stack([torch.randn((4, 8, 8), generator=one) for one in streams])
    assert torch.equal(trace.states[0].x.values, initial * trace.sigmas[0])
    for draw in trace.draws:
        assert torch.equal(draw.noise.values, torch.stack([torch.randn((4, 8, 8), generator=one) for one in streams]))


def test_comfyui_on_flux(pipes):
    trace = traced(pipes, "flux", "euler", noise="comfy", seeds=9)
    initial = torch.randn((1, 4, 8, 8), generator=seeded(9))
    assert torch.equal(trace.states[0].x.values, FluxPipeline._pack_latents(initial, 1, 4, 8, 8) * trace.sigmas[0])


def test_comfyuis_tree_spans_the_grid(pipes):
    trace = traced(pipes, "sdxl", "dpmpp_2m_sde", noise="comfy", seeds=9, sigma_grid="karras")
    like, low, high = torch.zeros(1, 4, 8, 8), trace.sigmas[-2], trace.sigmas[0]
    tree = k_sampling.BrownianTreeNoiseSampler(like, low, high, seed=9)
    for draw in trace.draws[:-1]:  # the last one ends where torchsde rounds
        assert torch.equal(draw.noise.values, tree(draw.sigma, draw.sigma_next))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", ["dpm_2", "dpm_2_ancestral", "heun"])
def test_the_penultimate_sigma_is_dropped_as_there(pipes, family, sampler):
    plain, theirs = (traced(pipes, family, sampler, noise=noise, seeds=1) for noise in ("torch", "comfy"))
    assert len(theirs.sigmas) == len(plain.sigmas)
    longer = traced(pipes, family, sampler, noise="torch", seeds=1, num_inference_steps=5).sigmas
    dropped = torch.cat([longer[:-2], longer[-1:]])
    assert torch.equal(theirs.sigmas, plain.sigmas if sampler == "heun" else dropped)


def test_users_sigmas_are_kept(pipes):
    sigmas = [9.0, 3.0, 1.0, 0.0]
    assert traced(pipes, "sdxl", "dpm_2", noise="comfy", seeds=1, sigmas=sigmas).sigmas.tolist() == sigmas


def test_a1111_continues_each_images_stream(pipes):
    trace = traced(pipes, "sdxl", images=2, noise="a1111", seeds=20)
    streams = [seeded(20), seeded(21)]
    drawn = [torch.cat([torch.randn((1, 4, 8, 8), generator=g) for g in streams]) for _ in range(4)]
    for draw, expected in zip(trace.draws, drawn[1:], strict=True):
        assert torch.equal(draw.noise.values, expected)


@pytest.mark.parametrize("noise", ["comfy", "a1111"])
def test_noise_keeps_its_digits_in_half_precision(noise):
    """Those programs draw in float32 whatever the model's dtype."""
    for family, tiny in (("sdxl", tiny_sdxl), ("flux", tiny_flux)):
        kind = StableDiffusionXLPipeline if family == "sdxl" else FluxPipeline
        pipes = {family: tiny(kind, dtype=torch.bfloat16)}
        trace = traced(pipes, family, "euler", noise=noise, seeds=1, dtype=torch.bfloat16)
        x = trace.states[0].x.values
        assert x.dtype == torch.float32 and not torch.equal(x.bfloat16().float(), x)


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"noise": "cuda"}, "unknown noise 'cuda'"),
        ({"noise": "philox"}, "starts from a seed"),
        ({"seeds": [1, 2]}, "got 2 seeds for 1 images"),
        ({"seeds": 1, "generator": torch.Generator()}, "leave one of them out"),
        ({"noise": "philox", "seeds": 1, "height": 4096, "width": 4096}, "draws up to 262144 elements"),
    ],
)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_bad_input(pipes, family, settings, error):
    with pytest.raises(ValueError, match=error):
        run(pipes, family, **settings)


def test_diffusers_own_loop_has_its_own_noise(pipes):
    with pytest.raises(ValueError, match="noise='cpu' needs a sampler"):
        run(pipes, "sdxl", None, noise="cpu")
