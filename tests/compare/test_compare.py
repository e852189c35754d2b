"""The tool finds where two samplers part, and names it: known mistakes, made on purpose, and pairs that agree."""

import json
import sys

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl
from users_samplers import own

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.compare.compare import compare_samplers
from k_diffusing.compare.failure import SamplerError
from k_diffusing.compare.sources import find_source, overruled
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE
from k_diffusing.samplers.asked import asked
from k_diffusing.trace.difference import trace_difference
from k_diffusing.trace.record import Trace
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIZE = {"height": 16, "width": 16}
SENSITIVE = {"mid_block_type": "UNetMidBlock2DCrossAttn"}  # to its timestep, as without one it hardly is


def sdxl(**schedule):
    return tiny_sdxl(StableDiffusionXLPipeline, EulerDiscreteScheduler(**(SDXL_SCHEDULE | schedule)), **SENSITIVE)


def run(a, b, pipe=None, steps=6, **settings):
    return compare_samplers(pipe or sdxl(), a, b, {**sdxl_prompt(), **SIZE}, steps=steps, **settings)


def run_flux(a, b, steps=6, **settings):
    return compare_samplers(tiny_flux(FluxPipeline), a, b, {**flux_prompt(), **SIZE}, steps=steps, **settings)


def first(comparison):
    """Step, quantity and cause of the first difference."""
    found = comparison.difference.first
    assert found is not None, comparison.verdict
    return found.step, found.quantity, found.cause or ""


# Functions with k-diffusion's signature: Euler's method, right and with one mistake each.


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, mistake=None):
    n = len(sigmas) - 1
    for i in range(n):
        sigma_hat = sigmas[i]
        if mistake == "sigma":  # s_churn=2, as k_diffusion's sample_euler has it, but the model is told sigma
            sigma_hat = sigmas[i] * (1 + min(2 / n, 2**0.5 - 1))
            x = x + noise_sampler(sigmas[i], sigma_hat) * (sigma_hat**2 - sigmas[i] ** 2) ** 0.5
        denoised = model(x, (sigmas[i] if mistake == "sigma" else sigma_hat) * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigma_hat, "denoised": denoised})
        if mistake == "last step" and i == n - 1:
            return x
        x = x + (x - denoised) / sigma_hat * (sigmas[i + 1] - sigma_hat)
        if mistake == "half":
            x = x.half().float()
        if mistake == "update" and i == 3:
            x = x * 1.001
    return x


def mistaken(mistake):
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
        return euler(model, x, sigmas, extra_args, callback, disable, noise_sampler, mistake)

    return sampler


def ancestral_backwards(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """Euler ancestral with the draws of the steps in reverse order."""
    n = len(sigmas) - 1
    for i in range(n):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        up = (sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2) ** 0.5
        down = (sigmas[i + 1] ** 2 - up**2) ** 0.5
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if i < n - 1:
            x = x + up * noise_sampler(sigmas[n - 2 - i], sigmas[n - 1 - i])
    return x


# Agreement.


@pytest.mark.parametrize(
    "a, b",
    [
        ("k:euler", "diffusers:EulerDiscreteScheduler"),
        ("k:heun", "diffusers:HeunDiscreteScheduler"),
        ("k:dpm_2", "diffusers:KDPM2DiscreteScheduler"),
        ("k:lms", "diffusers:LMSDiscreteScheduler"),
        ("k:dpmpp_2m", "diffusers:DPMSolverMultistepScheduler"),
        ("k:euler_ancestral", "diffusers:EulerAncestralDiscreteScheduler"),
        ("k:dpmpp_2m_sde", "diffusers:DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++"),
        ("k:dpmpp_sde", "diffusers:DPMSolverSDEScheduler"),
    ],
)
def test_counterparts_agree(a, b):
    comparison = run(a, b, grid="karras")
    # The tool's own tolerance: the same method in another order of operations, float32.
    assert comparison.difference.agree, comparison.verdict
    assert comparison.verdict.startswith("agree to ") and not comparison.notes


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_flow_schedulers_of_any_class_share_a_grid(kind):
    """flow_coordinates="ve" begins below t = 1, and so must the run that it is compared with."""
    pipe = tiny_flux(FluxPipeline, kind(use_flow_sigmas=True, prediction_type="flow_prediction"))
    comparison = compare_samplers(pipe, "k:euler", "k:euler,flow_coordinates=ve", {**flux_prompt(), **SIZE}, steps=6)
    assert comparison.difference.agree, comparison.verdict
    times = [
        trace.sigmas if trace.coordinates == "flow" else trace.sigmas / (1 + trace.sigmas)
        for trace in comparison.traces
    ]
    assert largest_difference(*times) < 1e-6  # float32, there and back


@pytest.mark.parametrize(
    "a, b",
    [
        ("k:euler", "diffusers:FlowMatchEulerDiscreteScheduler"),
        ("k:heun", "diffusers:FlowMatchHeunDiscreteScheduler"),
        ("k:dpmpp_2m", "diffusers:DPMSolverMultistepScheduler"),
        ("k:dpmpp_2m_sde", "diffusers:DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++"),
        ("k:euler", "k:euler,flow_coordinates=ve"),
    ],
)
def test_counterparts_agree_on_flux(a, b):
    comparison = run_flux(a, b)
    assert comparison.difference.agree, comparison.verdict


def test_a_sampler_agrees_with_itself_to_the_last_bit():
    for sampler in ("k:dpmpp_sde", "k:euler,s_churn=5", "k:dpm_fast", "k:dpm_adaptive", euler):
        assert run(sampler, sampler).difference.largest == 0, sampler


# Known mistakes.


def test_timesteps_rounded_to_the_nearest():
    step, quantity, cause = first(run("k:euler", "k:euler,quantize=True", grid="karras"))
    assert quantity == "timestep" and cause == "rounding of sigma to timestep in b"
    assert step == 1  # the first is an integer on this grid


@pytest.mark.parametrize(
    "grid, cause",
    [("karras", "rounding of sigma to timestep in a"), ("exponential", "a cuts timesteps to integers")],
)
def test_integer_timesteps_of_a_scheduler(grid, cause):
    """DPMSolverMultistep's own timesteps against the interpolated ones of the same sigmas."""
    scheduler = DPMSolverMultistepScheduler(**SDXL_SCHEDULE, **{f"use_{grid}_sigmas": True})
    pipe, call = (
        tiny_sdxl(StableDiffusionXLPipeline, scheduler, **SENSITIVE),
        {**sdxl_prompt(), **SIZE, "output_type": "latent"},
    )
    traces = Trace(tensors=True), Trace(tensors=True)
    for sigma_grid, trace in zip((None, grid), traces, strict=True):
        pipe(**call, num_inference_steps=6, sigma_grid=sigma_grid, generator=seeded(), trace=trace)
    found = trace_difference(*traces).first
    assert found.step <= 1 and (found.quantity, found.cause) == ("timestep", cause)  # 998.9999 may be cut to 998


def test_leading_against_trailing_spacing():
    comparison = run("k:euler", "diffusers:EulerDiscreteScheduler,timestep_spacing=trailing", grid="own")
    assert first(comparison) == (0, "sigma grid", "leading against trailing spacing of the timesteps")


def test_initial_noise_scaled_by_sigma_or_by_its_root():
    ours, theirs = (f"diffusers:{name}Scheduler,timestep_spacing=trailing" for name in ("EulerDiscrete", "DDIM"))
    step, quantity, cause = first(run(ours, theirs, grid="own"))
    assert (step, quantity) == (0, "initial noise scale")
    assert cause == "a scales unit noise by sigma, b by sqrt(sigma^2 + 1)"


def test_a_wrong_last_step():
    step, quantity, cause = first(run(euler, mistaken("last step")))
    assert (step, quantity) == (5, "last step") and cause == "a ends at its denoised latents, the other does not"


def test_noise_drawn_in_another_order():
    step, quantity, cause = first(run("k:euler_ancestral", ancestral_backwards))
    assert (step, quantity) == (0, "noise") and cause == "drawn in another order, b's draw 0 is a's draw 4"


def test_velocity_passed_as_denoised():
    step, quantity, cause = first(run_flux("k:dpmpp_2m", "k:dpmpp_2m,flow_coordinates=velocity"))
    assert (step, quantity) == (0, "denoised")
    assert cause == "b has the derivative (the velocity, or the noise) in place of the denoised latents"


def test_sigma_in_place_of_sigma_hat():
    step, quantity, cause = first(run("k:euler,s_churn=2", mistaken("sigma")))
    assert (step, quantity) == (0, "sigma of the call")
    assert cause == "b uses sigma where, noise having been added, it is at sigma_hat"


def test_a_state_in_half_precision():
    step, quantity, cause = first(run(euler, mistaken("half"), tolerance=1e-5))
    assert (step, quantity) == (0, "update rule") and cause == "the state is half precision in b"


def test_another_update_rule():
    assert first(run(euler, mistaken("update")))[:2] == (3, "update rule")
    step, quantity, cause = first(run("k:euler", "k:heun"))
    assert (step, quantity, cause) == (0, "update rule", "methods of different stages")
    step, quantity, cause = first(run("k:euler", "k:dpmpp_2m"))
    assert (step, quantity, cause) == (1, "update rule", "a takes an Euler step, the other does not")


def test_other_initial_noise():
    pipe, call = sdxl(), {**sdxl_prompt(), **SIZE, "num_inference_steps": 4, "output_type": "latent"}
    traces = []
    for seed in (0, 1):
        traces.append(Trace(tensors=True))
        pipe(**call, generator=torch.Generator().manual_seed(seed), trace=traces[-1])
    assert trace_difference(*traces).first.quantity == "initial noise"


def test_other_guidance_is_seen_in_denoised():
    pipe, call = sdxl(), {**sdxl_prompt(), **SIZE, "num_inference_steps": 4, "output_type": "latent"}
    traces = []
    for scale in (5.0, 5.5):
        traces.append(Trace(tensors=True))
        pipe(**call, guidance_scale=scale, generator=torch.Generator().manual_seed(0), trace=traces[-1])
    found = trace_difference(*traces).first
    assert (found.step, found.quantity) == (0, "denoised")


# What is refused, and what fails.


def test_a_second_sampler_that_cannot_be_right_is_refused_before_the_first_runs():
    pipe, calls = tiny_flux(FluxPipeline), []
    pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    call = {**flux_prompt(), **SIZE}
    with pytest.raises(ValueError, match="integrates flow matching.* choose flow_coordinates='auto' or 'flow'"):
        compare_samplers(pipe, "euler", "FlowMatchEulerDiscreteScheduler,flow_coordinates=ve", call, steps=3)
    with pytest.raises(ValueError, match="unknown flow_coordinates 'vp'"):
        compare_samplers(pipe, "euler", "euler,flow_coordinates=vp", call, steps=3)
    assert not calls


def test_what_fails_in_decoding_is_not_the_sampler(monkeypatch):
    pipe = sdxl()
    monkeypatch.setattr(pipe.vae, "decode", lambda *_, **__: {}["out of memory"])
    with pytest.raises(KeyError, match="out of memory"):
        run("euler", "heun", pipe)


def test_latents_alone():
    call = {**sdxl_prompt(), **SIZE, "output_type": "latent"}
    comparison = compare_samplers(sdxl(), "euler", "euler", call, steps=2)
    assert comparison.pictures[0].shape == (4, 8, 8)


# Shared noise.


def test_noise_that_cannot_be_shared_is_said():
    comparison = run("k:euler_ancestral", "k:dpmpp_sde")
    assert any(note.startswith("noise could not be shared") for note in comparison.notes)


def test_noise_of_a_chain_of_intervals_is_their_sum():
    """One sampler draws twice in a step, the other once for the whole of it: the same Brownian path."""

    def ancestral(model, x, sigmas, noise_sampler, parts):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(len(x)))
            x = denoised + (x - denoised) * sigmas[i + 1] / sigmas[i]
            if sigmas[i + 1] > 0:
                levels = torch.linspace(float(sigmas[i]), float(sigmas[i + 1]), parts + 1)
                steps = zip(levels[:-1], levels[1:], strict=True)
                x = x + 0.1 * sum((high - low).sqrt() * noise_sampler(high, low) for high, low in steps)
        return x

    def in_two(model, x, sigmas, extra_args=None, disable=None, noise_sampler=None):
        return ancestral(model, x, sigmas, noise_sampler, 2)

    def in_one(model, x, sigmas, extra_args=None, disable=None, noise_sampler=None):
        return ancestral(model, x, sigmas, noise_sampler, 1)

    comparison = run(in_two, in_one)
    # 1e-5: the sum of two float32 draws, scaled there and back
    assert comparison.difference.result < 1e-5 and not any("shared" in note for note in comparison.notes)


# The command line.


@pytest.mark.parametrize(
    "sampler, expected",
    [
        ("mine.py", "unknown sampler source 'mine.py': give "),
        ("x:euler", "unknown sampler source 'x:euler': give "),
        ("eular", "did you mean 'euler'"),
        ("EulerDiskreteScheduler", "EulerDiscreteScheduler"),
        ("k:eular", "did you mean 'euler'"),
        ("k:euler,eta=1", "euler has no option 'eta'"),
        ("k:euler,eta", "is not option=value"),
        ("k:dpmpp_2m_sde,eta=-1", "eta=-1: give a finite number"),
        ("diffusers:EulerDiskreteScheduler", "EulerDiscreteScheduler"),
        ("diffusers:EulerDiscreteScheduler,spacing=1", "timestep_spacing"),
        ("diffusers:UNet2DModel", "has no scheduler"),
        ("nowhere.py:sample", "there is no file nowhere.py"),
    ],
)
def test_bad_sources(sampler, expected):
    with pytest.raises((ValueError, TypeError), match=expected):
        find_source(sampler, EulerDiscreteScheduler())


@pytest.mark.parametrize("name, source", [("heun,s_churn=1", "k:"), ("UniPCMultistepScheduler", "diffusers:")])
def test_names_alone(name, source):
    found, known = (find_source(text, EulerDiscreteScheduler()) for text in (name, source + name))
    assert found.options == known.options and found.sampler.__name__ == known.sampler.__name__


def test_bad_files(tmp_path):
    broken, other = tmp_path / "broken.py", tmp_path / "other.py"
    broken.write_text("1 / 0\n")
    other.write_text("def sample_me(model): pass\n\ndef helper(): pass\n")
    with pytest.raises(ValueError, match="cannot be imported: ZeroDivisionError"):
        find_source(f"{broken}:sample")
    with pytest.raises(ValueError, match="has no function 'sample_you'; it has: sample_me"):
        find_source(f"{other}:sample_you")
    with pytest.raises(TypeError, match="cannot be called as a sampler"):
        find_source(f"{other}:sample_me")


def test_comfyui_that_is_not_there():
    with pytest.raises(ValueError, match="PYTHONPATH"):
        find_source("comfy:euler")


def test_comfyui_that_lacks_a_package(tmp_path, monkeypatch):
    """Its folder is found, so that putting it on PYTHONPATH is no cure."""
    installed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "comfy"}
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "cli_args.py").write_text("import no_such_package.inside\n")
    (tmp_path / "comfy" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(ValueError, match="it needs no_such_package: install its requirements") as caught:
            find_source("comfy:euler")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "comfy"]:
            del sys.modules[name]
        sys.modules.update(installed)
    assert "PYTHONPATH" not in str(caught.value)


def test_traces_that_cannot_be_compared():
    pipe, call = sdxl(), {**sdxl_prompt(), "num_inference_steps": 2, "output_type": "latent"}
    small, large, light = Trace(tensors=True), Trace(tensors=True), Trace()
    pipe(**call, **SIZE, trace=small)
    pipe(**call, height=32, width=16, trace=large)
    pipe(**call, **SIZE, trace=light)
    with pytest.raises(ValueError, match=r"shape, \(1, 4, 8, 8\) and \(1, 4, 16, 8\)"):
        trace_difference(small, large)
    with pytest.raises(ValueError, match=r"Trace\(tensors=True\)"):
        trace_difference(small, light)
    large.model = "another"
    with pytest.raises(ValueError, match="of two models, 'StableDiffusionXLPipeline' and 'another'"):
        trace_difference(small, large)
    with pytest.raises(ValueError, match="has no network call"):
        trace_difference(small, Trace(tensors=True))


# Samplers that fail, and forms of sigma.

EULER = """    for i in range(len(sigmas) - 1):
        denoised = model(x, {sigma})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x
"""


@pytest.mark.parametrize("sigma", ["float(sigmas[i])", "sigmas[i]", "sigmas[i : i + 1]", "sigmas[i].double()"])
@pytest.mark.parametrize("run", [run, run_flux])
def test_forms_of_sigma(tmp_path, sigma, run):
    settings = "k:euler,flow_coordinates=ve" if run is run_flux else "k:euler"
    comparison = run(settings, own(tmp_path, EULER.format(sigma=sigma)))
    assert comparison.difference.largest < 1e-5, comparison.verdict  # float32, another order of operations


def test_too_many_sigmas(tmp_path):
    with pytest.raises(SamplerError, match=r"takes sigma as a number or of shape \[1\], not \[7\]"):
        run("k:euler", own(tmp_path, EULER.format(sigma="sigmas")))


# Settings that a shared grid overrules.


@pytest.mark.parametrize("grid", ["scheduler", "karras"])
@pytest.mark.parametrize(
    "kind, settings, names",
    [
        ("Euler", "use_karras_sigmas=True", "use_karras_sigmas"),
        ("DPMSolverMultistep", "timestep_spacing=trailing,solver_order=1", "timestep_spacing"),
        ("Heun", "timestep_spacing=trailing,use_karras_sigmas=True", "timestep_spacing and use_karras_sigmas"),
    ],
)
def test_settings_that_a_shared_grid_overrules_are_noted(kind, settings, names, grid):
    text = f"diffusers:{kind}DiscreteScheduler,{settings}".replace("MultistepDiscrete", "Multistep")
    notes = run("k:euler", text, grid=grid).notes
    assert any(note.startswith(f"{names} of {text} had no effect") and "--sigma-grid own" in note for note in notes)
    assert not any("had no effect" in note for note in run("k:euler", text, grid="own").notes)


def test_settings_that_have_an_effect_or_change_nothing_are_not_noted():
    for settings in ("solver_order=3", "solver_type=heun", "timestep_spacing=leading", "lower_order_final=False"):
        assert not overruled(
            f"diffusers:DPMSolverMultistepScheduler,{settings}", sdxl().scheduler, torch.tensor([9.0, 4.0, 1.0, 0.0])
        )


def test_a_shift_that_a_shared_grid_overrules_is_noted():
    notes = run_flux("k:euler", "diffusers:FlowMatchEulerDiscreteScheduler,shift=6.0,use_dynamic_shifting=False").notes
    assert any(note.startswith("shift and use_dynamic_shifting of ") for note in notes)


# Names in other programs, and the sigma grids that they imply.


def test_names_of_other_programs_and_their_grids():
    named = run("DPM++ 2M Karras", "DPMSolverMultistepScheduler")
    plain = run("dpmpp_2m", "DPMSolverMultistepScheduler", grid="karras")
    assert named.call["grid"] == "karras" and named.difference.agree
    assert torch.equal(named.traces[0].sigmas, plain.traces[0].sigmas)
    assert run("DPM++ 2M Karras", "Euler", grid="scheduler").call["grid"] == "scheduler"
    own_grids = [trace.sigmas for trace in run("Euler Karras", "Euler Exponential", grid="own").traces]
    for grid, sigmas in zip(("karras", "exponential"), own_grids, strict=True):
        assert torch.equal(sigmas, run("euler", "euler", grid=grid).traces[0].sigmas)


@pytest.mark.parametrize("grid", ["karras,rho=5", {"karras": {"rho": 5}}, [9.0, 3.0, 0.5, 0.0]])
def test_a_grid_with_options_or_numbers(grid):
    comparison = run("euler", "EulerDiscreteScheduler", grid=grid)
    assert comparison.difference.agree and json.loads(comparison.to_json())["call"]["grid"] in (
        grid,
        {"karras": {"rho": 5}},
    )
    if isinstance(grid, list):
        assert comparison.traces[1].sigmas.tolist() == grid
    with pytest.raises(ValueError, match="did you mean 'rho'"):
        run("euler", "heun", grid="karras,roh=5")


def test_names_that_imply_two_grids():
    with pytest.raises(ValueError, match="Euler Karras is on karras, Euler Beta is on beta: name one sigma grid"):
        run("Euler Karras", "Euler Beta")
    with pytest.raises(ValueError, match="sigma grid Automatic is another for each sampler"):
        run("Euler", "DPM++ 2M", grid="Automatic")


def test_a_class_of_diffusers_is_the_sampler_and_options_that_its_name_means():
    """Rounding, 12 steps in float32: 2e-5."""
    for text in ("UniPCMultistepScheduler,solver_type=bh1", "UniPCMultistepScheduler,solver_order=3,solver_type=bh2"):
        sampler, options, _ = asked(text)
        ours = ",".join([sampler, *(f"{name}={value}" for name, value in options.items())])
        assert run(ours, text, steps=12, grid="karras", tolerance=1e-4).difference.agree


def test_what_a_notebook_and_a_terminal_show():
    comparison = run("k:euler", "k:heun", steps=3)
    first, *_, last = repr(comparison).splitlines()
    assert first.startswith("k:euler and k:heun part at ") and last.lstrip().startswith("end")
    page = comparison._repr_html_()
    assert page.count("<tr>") == 1 + 3 + 1 and "k:euler and k:heun part at " in page
