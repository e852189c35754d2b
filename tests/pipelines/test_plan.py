"""What a pipeline will do, said before: `pipe.plan(...)` against the calls that follow, and as a table."""

import diffusers
import pytest
import torch
from tiny_models import SDXL_SCHEDULE, flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from k_diffusing.trace.record import Trace
from samplers_patch import SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

STATIC = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline, STATIC)}


def named(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's method."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i])
        callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


CALLS = {
    "plain": {},
    "karras": {"sigma_grid": "karras", "num_inference_steps": 5},
    "guided in part": {"guidance_interval": (0.2, 0.6), "num_inference_steps": 5},
    "of a program": {"noise": "comfy", "comfy_sampler": "dpm_2"},
    "options": {"comfy_sampler": "lms", "sampler_options": {"order": 2}},
    "sigmas": {"sigmas": [0.9, 0.4, 0.2]},
    "a user's": {"comfy_sampler": named},
}
SDXL_CALLS = {
    "the first part": {"denoising_end": 0.5, "num_inference_steps": 6},
    "the first part of a named grid": {"denoising_end": 0.4, "sigma_grid": "karras", "num_inference_steps": 6},
    "timesteps": {"timesteps": [900, 500, 100]},
    "rounded timesteps": {"quantize": True, "comfy_sampler": "heun"},
}
FLUX_CALLS = {
    "ve": {"flow_coordinates": "ve", "comfy_sampler": "heun", "noise": "comfy"},
    "velocity": {"flow_coordinates": "velocity", "sigma_grid": "simple"},
}
EVERY = [(family, {"comfy_sampler": name}) for family in ("sdxl", "flux") for name in SAMPLERS]
EVERY += [(family, call) for family in ("sdxl", "flux") for call in CALLS.values()]
EVERY += [("sdxl", call) for call in SDXL_CALLS.values()] + [("flux", call) for call in FLUX_CALLS.values()]


@pytest.mark.parametrize("family, call", EVERY, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_call_does_what_its_plan_says(pipes, family, call):
    pipe, trace = pipes[family], Trace()
    call = {"num_inference_steps": 4} | call
    plan = pipe.plan(**call)
    size = {"height": 16, "width": 16, "output_type": "latent"}
    pipe(**(sdxl_prompt() if family == "sdxl" else flux_prompt()), **size, generator=seeded(), trace=trace, **call)
    assert torch.equal(trace.sigmas, plan.sigmas) and pipe.num_timesteps == plan.num_timesteps
    assert trace.sampler == plan.sampler.name and trace.coordinates == ("ve" if plan.coordinates == "ve" else "flow")
    assert plan.steps in (trace.step_count, None) and plan.evaluations in (len(trace.calls), None)
    if plan.sampler.takes == "sigmas":
        first = [next(one for one in trace.calls if one.step == step) for step in range(trace.step_count)]
        assert [one.timestep for one in first] == [row["timestep"] for row in plan.rows()] == plan.timesteps.tolist()
        assert [one.sigma for one in first] == [row["sigma"] for row in plan.rows()] == plan.sigmas[:-1].tolist()
    assert [row["step"] for row in plan.rows()] == list(range(len(plan.sigmas) - 1))


def test_guided_rows(pipes):
    """As many as the interval has of the schedule's timesteps: those from 799 down to 400."""
    plan = pipes["sdxl"].plan(num_inference_steps=10, guidance_interval=(0.2, 0.6))
    guided = [row["guided"] for row in plan.rows()]
    assert guided == [400 <= row["timestep"] <= 800 for row in plan.rows()] and any(guided) and not all(guided)
    assert all(row["guided"] for row in pipes["flux"].plan(num_inference_steps=10).rows())


def test_as_a_table(pipes):
    """Of the 1000 levels those of times 1, 0.667 and 0.334 before a shift of 3; the first as large as VE's can be."""
    plan = pipes["flux"].plan("heun", {"s_churn": 2.0}, "simple", 3, guidance_interval={"sigma": (0.9, 0.1)})
    assert str(plan).splitlines() == [
        "heun, s_churn=2.0: 3 steps, 5 network evaluations, coordinates ve, noise torch",
        "step        sigma   timestep  guided",
        "   0          199    995.000  no",
        "   1        6.009    857.326  yes",
        "   2       1.5045    600.719  yes",
        " end            0",
    ]


def test_as_a_table_in_a_notebook(pipes):
    plan = pipes["flux"].plan(named, None, "simple", 2, guidance_interval={"sigma": (0.9, 0.1)}, noise="comfy")
    assert plan._repr_html_() == (
        "<table><caption>named: 2 steps, coordinates ve, noise comfy</caption>"
        "<thead><tr><th>step</th><th>sigma</th><th>timestep</th><th>guided</th></tr></thead><tbody>"
        "<tr><td>0</td><td>199</td><td>995.000</td><td>no</td></tr>"
        "<tr><td>1</td><td>3</td><td>750.000</td><td>yes</td></tr>"
        "<tr><td>end</td><td>0</td><td></td><td></td></tr></tbody></table>"
    )


def test_counts_that_are_not_known_are_not_told(pipes):
    plan = pipes["sdxl"].plan("dpm_adaptive", None, "karras", 4)
    assert plan.steps is plan.evaluations is None and plan.num_timesteps == 4
    title = "dpm_adaptive: as many steps as it takes, coordinates ve, noise torch"
    assert str(plan).startswith(f"{title}\n") and title in plan._repr_html_()


@pytest.mark.parametrize(
    "end, steps",
    [(0.5, 5), (0.8, 8), (0.1, 1), (0.999, 10), (1.0, 10), (0.0, 10), (1, 10), (None, 10)],
)
def test_the_first_part_of_the_denoising(pipes, end, steps):
    """The steps whose timestep is in it; only a fraction between 0 and 1 is one, as in diffusers."""
    whole = pipes["sdxl"].plan(num_inference_steps=10)
    part = pipes["sdxl"].plan(num_inference_steps=10, denoising_end=end)
    assert part.steps == steps and torch.equal(part.sigmas, whole.sigmas[: steps + 1])


def test_too_small_a_part(pipes):
    with pytest.raises(ValueError, match=r"^denoising_end=0\.001 leaves no step to take on a grid of 4 steps$"):
        pipes["sdxl"].plan(num_inference_steps=4, denoising_end=0.001)


def test_a_functions_own_grid_and_coordinates(pipes):
    def sampler(model, x, sigmas):
        return x

    sampler.grid_scheduler = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE | {"timestep_spacing": "trailing"})
    plan = pipes["sdxl"].plan(sampler, num_inference_steps=5)
    schedule = noise_schedule(pipes["sdxl"].scheduler)
    assert torch.equal(plan.sigmas, discrete_grid(sampler.grid_scheduler, schedule, 5).sigmas)
    assert not torch.equal(plan.sigmas, pipes["sdxl"].plan(num_inference_steps=5).sigmas)
    sampler.grid_scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    sampler.flow_coordinates = "flow"
    plan = pipes["flux"].plan(sampler, num_inference_steps=5)
    assert torch.equal(plan.sigmas, flow_grid(sampler.grid_scheduler, flow_schedule(STATIC), 5).sigmas)
    assert plan.coordinates == "flow"
    message = (
        "^sampler integrates flow matching, which SDXL is not: take a scheduler with betas, such as UniPC.* without"
    )
    with pytest.raises(ValueError, match=f"{message} use_flow_sigmas$"):
        pipes["sdxl"].plan(sampler)


@pytest.mark.parametrize("method", ["plan", "__call__"])
@pytest.mark.parametrize(
    "bad, error, message",
    [
        ({"comfy_sampler": "eular"}, ValueError, "did you mean 'euler"),
        ({"sampler_options": {"etta": 1}}, TypeError, "no option 'etta'"),
        ({"sigma_grid": "karas"}, ValueError, "did you mean 'karras'"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps=0"),
        ({"noise": "a1112"}, ValueError, "a1112"),
        ({"sigmas": [0.1, 0.5]}, ValueError, "decrease"),
        ({"guidance_interval": (0.6, 0.2)}, ValueError, "guidance_interval"),
    ],
)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_what_cannot_be_planned(pipes, family, bad, error, message, method):
    with pytest.raises(error, match=message):
        getattr(pipes[family], method)(**bad, **({"prompt": "a bird"} if method == "__call__" else {}))


@pytest.mark.parametrize(
    "sampler, coordinates, patched, enough",
    [
        ("euler", "flow", True, True),
        ("dpmpp_2m", "flow", True, False),  # it reads denoised latents
        ("dpm_fast", "flow", True, False),  # its solver calls the model itself
        (named, "flow", False, False),
        ("euler", "velocity", True, False),
        (named, "velocity", True, False),
        ("euler", "ve", False, False),
    ],
)
def test_where_the_networks_output_is_the_derivative(pipes, sampler, coordinates, patched, enough):
    plan = pipes["flux"].plan(sampler, flow_coordinates=coordinates)
    assert (plan.coordinates, plan.patches_to_d, plan.derivative_is_enough) == (coordinates, patched, enough)
