"""One step from sigma to 0 is one evaluation, and its result the denoised latents: every sampler, every way in."""

import diffusers
import pytest
import torch
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

import test as sdxl_script
from flux_comfy_pipeline import FluxPipeline
from k_diffusing.compare.compare import compare_samplers
from k_diffusing.model.coordinates import LARGEST_FLOW_TIME
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from k_diffusing.trace.record import Trace
from samplers_patch import SAMPLERS, run_sampler, step_count
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIZE = {"height": 16, "width": 16}
SIGMAS = torch.tensor([14.6, 0.0])
# x - sigma * ((x - denoised) / sigma) is denoised but for the rounding of x: up to 4 * 14.6, on FLUX 4 * 199.
ROUNDING = {"sdxl": 2e-5, "flux": 2e-4}
RANGED = ["dpm_fast", "dpm_adaptive"]  # no range is left to them, nor noise to take out and put back
STEPPED = [name for name, sampler in SAMPLERS.items() if not sampler.adaptive]  # those that a scheduler can be made of


@pytest.fixture(scope="module")
def pipes():
    sdxl, flux = tiny_sdxl(StableDiffusionXLPipeline), tiny_flux(FluxPipeline)
    return {"sdxl": (sdxl, sdxl_prompt()), "flux": (flux, flux_prompt())}


@pytest.mark.parametrize("name, eta", [*((n, {}) for n in SAMPLERS), *((n, {"eta": 1.0}) for n in RANGED)])
def test_functions(name, eta):
    sampler, calls, begun = SAMPLERS[name], [], []

    def denoiser(x, sigma):
        calls.append(float(sigma[0]))
        return x / (1 + sigma[0] ** 2) + 0.1

    class Observer:
        def begin_step(self, index, x, sigma):
            begun.append((index, float(sigma)))

    x, generator = torch.randn(2, 4, 6, 6, generator=seeded()) * SIGMAS[0], seeded(1)
    result = run_sampler(sampler, denoiser, x, SIGMAS, options=eta, generator=generator, observer=Observer())
    first = float(SIGMAS[0])
    assert calls == [first] and begun == [(0, first)] and step_count(sampler, SIGMAS) in (1, None)
    assert largest_difference(result, denoiser(x, SIGMAS[:1].expand(2))) < ROUNDING["sdxl"]
    assert torch.equal(generator.get_state(), seeded(1).get_state())  # no step is left that could take noise


@pytest.mark.parametrize("model", ["sdxl", "flux"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_pipelines(pipes, model, name):
    pipe, prompt = pipes[model]
    trace, shown = Trace(tensors=True), []

    def callback(pipe, i, t, kwargs):
        shown.append((i, kwargs["latents"], kwargs["denoised"]))
        return {}

    latents = pipe(
        **prompt, **SIZE, num_inference_steps=1, comfy_sampler=name, generator=seeded(), output_type="latent",
        trace=trace, callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "denoised"],
    ).images  # fmt: skip
    [(index, seen, denoised)] = shown
    assert index == 0 and torch.equal(seen, latents)
    assert largest_difference(latents, denoised) < ROUNDING[model]
    assert (len(trace.calls), trace.step_count, len(trace.draws)) == (1, 1, 0) and pipe.num_timesteps == 1
    assert float(trace.states[1].sigma) == 0 and torch.equal(trace.states[1].x.values, latents)


@pytest.mark.parametrize("coordinates", ["flow", "ve", "velocity"])
@pytest.mark.parametrize("name", ["euler", "dpm_fast", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_coordinates_of_flux(pipes, coordinates, name):
    """From the same state: x of t = 1 in flow coordinates, of LARGEST_FLOW_TIME in VE's; one Euler step to 0."""
    pipe, prompt = pipes["flux"]
    start = LARGEST_FLOW_TIME if coordinates == "ve" else 1.0
    grid = lambda schedule, n: torch.tensor([start, 0.0])  # noqa: E731
    call = {**prompt, **SIZE, "num_inference_steps": 1, "output_type": "latent", "sigma_grid": grid}
    latents = pipe(**call, generator=seeded(), comfy_sampler=name, flow_coordinates=coordinates).images
    euler = pipe(**call, generator=seeded(), comfy_sampler="euler", flow_coordinates=coordinates).images
    assert largest_difference(latents, euler) < ROUNDING["flux"]


@pytest.mark.parametrize("noise", NOISE_SOURCES)
@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpm_2_ancestral"])
def test_sources_of_noise(pipes, noise, name):
    pipe, prompt = pipes["sdxl"]
    call = {**prompt, **SIZE, "num_inference_steps": 1, "output_type": "latent", "noise": noise, "sigma_grid": "karras"}
    latents, euler = (pipe(**call, seeds=7, comfy_sampler=sampler).images for sampler in (name, "euler"))
    if name == "dpm_2_ancestral":  # whose program may make its grid one step longer, less the penultimate sigma
        assert latents.isfinite().all()
    else:
        assert largest_difference(latents, euler) < ROUNDING["sdxl"]


def scheduled(pipe, name: str):
    return SamplerScheduler.from_config(pipe.scheduler.config, sampler=name)


@pytest.mark.parametrize("name", STEPPED)
def test_schedulers(pipes, name):
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    call = {**sdxl_prompt(), **SIZE, "num_inference_steps": 1, "output_type": "latent"}
    expected = pipes["sdxl"][0](**call, generator=seeded(), comfy_sampler=name).images
    pipe.scheduler = scheduled(pipe, name)
    assert len(pipe(**call, generator=seeded()).images) == 1 and len(pipe.scheduler.timesteps) == 1
    assert largest_difference(pipe(**call, generator=seeded()).images, expected) < ROUNDING["sdxl"]


@pytest.mark.parametrize("model", ["sdxl", "flux"])
@pytest.mark.parametrize("name", STEPPED)
def test_image_to_image_with_one_step_left(model, name):
    if model == "sdxl":
        pipe, call, calls = tiny_sdxl(diffusers.StableDiffusionXLImg2ImgPipeline), sdxl_prompt(), []
        pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    else:
        pipe, call, calls = tiny_flux(diffusers.FluxImg2ImgPipeline), {**flux_prompt(), **SIZE}, []
        pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    pipe.scheduler = scheduled(pipe, name)
    call |= {"image": torch.rand(1, 3, 16, 16, generator=seeded()), "num_inference_steps": 20}
    call["strength"] = 0.05 if model == "sdxl" else 0.02  # FLUX's pipeline takes 20 steps of two calls for 39 steps
    assert pipe(**call, generator=seeded(), output_type="latent").images.isfinite().all()
    assert len(calls) == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_comparison(pipes, name):
    pipe, prompt = pipes["sdxl"]
    comparison = compare_samplers(pipe, "k:euler", f"k:{name}", {**prompt, **SIZE}, steps=1)
    assert comparison.difference.agree, comparison.verdict


@pytest.mark.parametrize("name", ["dpm_fast", "dpmpp_2m_sde", "dpmpp_3m_sde"])
@pytest.mark.parametrize("oracle, keywords", [(oracle_sdxl, {}), (oracle_flux, {"flow_coordinates": "ve"})])
def test_closed_form_models(oracle, keywords, name):
    latents, euler = (draw(oracle(), sampler, steps=1, **keywords) for sampler in (name, "euler"))
    assert largest_difference(latents, euler) < ROUNDING["flux"]


def test_picture_grid(tmp_path):
    """The demo model, every sampler, one step; nothing is left to render again."""
    argv = ["--steps", "1", "--height", "16", "--width", "16", "--output", str(tmp_path)]
    assert sdxl_script.main(argv) == 0
    pictures = {path.name for path in tmp_path.glob("sdxl-sample_*.png")}
    assert pictures == {f"sdxl-sample_{name}.png" for name in SAMPLERS}
