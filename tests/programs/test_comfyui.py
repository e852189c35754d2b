"""What ComfyUI makes of the names of our samplers: which formulas, in which coordinates, from which time."""

import math

import pytest
import torch
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.programs.comfyui import FROM_NOISE, IN_LOG_SNR, ON_TIMES
from k_diffusing.samplers import flow_uni_pc
from k_diffusing.trace.record import Trace
from samplers_patch import OUR_SAMPLERS, sampler_options
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

FIRST = 0.9999683341  # the time that stands for 1, of times shifted by exp(1.15)


@pytest.fixture(scope="module")
def flux():
    return tiny_flux(FluxPipeline)


@pytest.fixture(scope="module")
def sdxl():
    return tiny_sdxl(StableDiffusionXLPipeline)


def plan(pipe, name, program="comfyui", options=None):
    grid = "simple"
    return pipe.plan(name, sampler_options=options, sigma_grid=grid, num_inference_steps=6, program=program)


def test_the_names_are_ours():
    assert not ON_TIMES & IN_LOG_SNR and {*ON_TIMES, *IN_LOG_SNR} <= set(OUR_SAMPLERS)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_the_published_form_is_taken_unless_the_user_says_otherwise(request, family):
    pipe = request.getfixturevalue(family)
    with_variants = [name for name, record in OUR_SAMPLERS.items() if "variant" in sampler_options(record)]
    assert "er_sde" in with_variants
    for name in with_variants:
        assert plan(pipe, name).options["variant"] == "published"
        assert plan(pipe, name, options={"variant": None}).options["variant"] is None
        assert "variant" not in plan(pipe, name, program=None).options


@pytest.mark.parametrize("name", sorted(ON_TIMES))
def test_on_flow_models_these_run_on_the_times(flux, name):
    planned = plan(flux, name)
    assert planned.coordinates == "flow" and float(planned.sigmas[0]) == 1
    assert plan(flux, name, program=None).coordinates == "ve"


@pytest.mark.parametrize("name", sorted(IN_LOG_SNR))
def test_on_flow_models_these_begin_next_to_one(flux, name):
    planned, usual = plan(flux, name), plan(flux, name, program=None)
    assert planned.coordinates == usual.coordinates == "ve"
    first = 1 - 1e-6 if name in FROM_NOISE else FIRST
    # 1e-3: 1 - t has three digits in float32
    assert float(planned.sigmas[0]) == pytest.approx(first / (1 - first), rel=1e-3)
    assert float(usual.sigmas[0]) < 200


@pytest.mark.parametrize("name", ["res_2s", "rk4", "restart"])
def test_what_comfyui_has_not_stays_as_it_is(flux, name):
    planned = plan(flux, name)
    assert planned.coordinates == "ve" and float(planned.sigmas[0]) < 200


def test_2m_sde_with_heun_is_that_of_flow_time(flux):
    planned = plan(flux, "dpmpp_2m_sde_heun")
    assert planned.coordinates == "flow" and planned.options["solver_type"] == "heun"
    call = {"height": 16, "width": 16, "num_inference_steps": 4, "output_type": "latent", "program": "comfyui"}
    heun, midpoint = (
        flux(**flux_prompt(), **call, comfy_sampler=name, seeds=1).images
        for name in ("dpmpp_2m_sde_heun", "dpmpp_2m_sde")
    )
    options = {"solver_type": "heun"}
    the_same = flux(**flux_prompt(), **call, comfy_sampler="dpmpp_2m_sde", sampler_options=options, seeds=1).images
    assert largest_difference(heun, the_same) == 0.0 and largest_difference(heun, midpoint) > 1e-4


def test_noise_of_sa_solver_is_between_a_fifth_and_four_of_the_model(flux, sdxl):
    tau = plan(sdxl, "sa_solver").options["tau_func"]
    assert [tau(sigma) for sigma in (5.2, 5.0, 0.6, 0.5)] == [0, 1, 1, 0]
    tau, shift = plan(flux, "sa_solver").options["tau_func"], math.exp(1.15)
    high, low = shift * 4, shift / 4  # sigma of x0 + sigma eps at shifted times 0.8 and 0.2
    assert [tau(sigma) for sigma in (1.01 * high, 0.99 * high, 1.01 * low, 0.99 * low)] == [0, 1, 1, 0]


@pytest.mark.parametrize("name", sorted(ON_TIMES | IN_LOG_SNR))
def test_pictures_of_every_name(flux, sdxl, name):
    call = {"height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent", "program": "comfyui"}
    for pipe, prompt in ((flux, flux_prompt(negative=True)), (sdxl, sdxl_prompt())):
        assert pipe(**prompt, **call, comfy_sampler=name, generator=seeded()).images.isfinite().all()


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_one_step_of_a_range_goes_nowhere(request, family, name):
    """Its range ends where it begins, and no step to 0 follows, as in ComfyUI: what comes is the initial noise."""
    pipe, prompt = request.getfixturevalue(family), {"sdxl": sdxl_prompt, "flux": flux_prompt}[family]()
    call = {"height": 16, "width": 16, "num_inference_steps": 1, "output_type": "latent", "seeds": 1}
    noise = pipe(**prompt, **call, comfy_sampler=name, program="comfyui").images
    clean = pipe(**prompt, **call, comfy_sampler=name).images
    assert float(noise.std()) == pytest.approx(14.65 if family == "sdxl" else 1, rel=0.2)
    assert largest_difference(noise, clean) > 0.1


def users(model, x, sigmas, variant="mine", first_time=0.5, tau_func=None):
    return x - sigmas[0] * (x - model(x, sigmas[:1]))


def test_a_users_function_gets_no_options_of_comfyui(flux, sdxl):
    for pipe in (flux, sdxl):
        assert plan(pipe, users).options == {} and plan(pipe, users, options={"variant": "b"}).options == {
            "variant": "b"
        }


def test_a_function_of_comfyui_that_takes_a_range_is_not_led_on(sdxl, monkeypatch):
    def sample_range(model, x, sigma_min, sigma_max, extra_args=None, callback=None, disable=None):
        return model(x, sigma_max * x.new_ones(len(x)))

    call = {"height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent", "program": "comfyui"}
    steps = []
    for module in ("comfy.k_diffusion.sampling", "mine"):
        monkeypatch.setattr(sample_range, "__module__", module)
        trace = Trace()
        sdxl(**sdxl_prompt(), **call, comfy_sampler=sample_range, seeds=1, trace=trace)
        steps.append(len(trace.calls))
    assert steps == [1, 2]  # a user's own has an Euler step to 0 after it


@pytest.mark.parametrize("sample", [flow_uni_pc.sample_uni_pc, flow_uni_pc.sample_uni_pc_bh2])
def test_what_unipc_leaves_on_flow_models_is_divided(sample):
    """Data that are all 1: whatever the steps, what is left at t = 0.001 is (1 - t) and noise of t."""
    times, noise = torch.linspace(1, 0, 5), torch.zeros(1, 4, 2, 2)
    published, ours = (
        sample(lambda x, t, **_: torch.ones_like(x), noise, times, variant=name) for name in ("published", None)
    )
    # 1e-6: some operations in float32
    assert largest_difference(ours, torch.ones_like(ours)) < 1e-6
    assert largest_difference(published, torch.full_like(ours, (1 - 2**-10) / 0.999)) < 1e-6


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2"])
def test_unipc_of_flow_models_is_that_one(flux, name):
    planned = plan(flux, name)
    assert planned.sampler.function is getattr(flow_uni_pc, f"sample_{name}")
