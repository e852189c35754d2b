"""`pipe.plan(...)`: what a run will do, without running a model."""

import diffusers
import pytest
import torch
from tiny_models import SDXL_SCHEDULE, flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing import SAMPLERS, SamplingPlan, Trace
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

PROMPTS = {"sdxl": sdxl_prompt, "flux": flux_prompt}
STEPS = 5
# In units of a model's largest sigma, for both kinds of model; sigma 0 is the last one, or is not reached.
FRACTIONS = {"to 0": [0.9, 0.6, 0.4, 0.2, 0.1, 0.0], "above 0": [0.9, 0.6, 0.4, 0.2, 0.1, 0.05], "one step": [0.9, 0.0]}


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


@pytest.fixture(scope="module")
def static():
    return tiny_flux(FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))


@pytest.fixture
def silent(pipes, monkeypatch):
    """The same pipelines, whose networks must not be called; they have no text encoders."""

    def refuse(*args, **kwargs):
        raise AssertionError("a network ran")

    for network in (pipes["sdxl"].unet, pipes["flux"].transformer):
        monkeypatch.setattr(network, "forward", refuse)
    for pipe in pipes.values():
        assert pipe.text_encoder is None and pipe.text_encoder_2 is None
    return pipes


def traced(pipes, model: str, sampler: str, **arguments) -> Trace:
    trace, call = Trace(), {"height": 16, "width": 16, "output_type": "latent", "generator": seeded()}
    pipes[model](**PROMPTS[model](), **call, comfy_sampler=sampler, trace=trace, **arguments)
    return trace


def grid_of(fractions: list[float]):
    return lambda schedule, n: float(schedule.sigmas[-1]) * torch.tensor(fractions)


@pytest.mark.parametrize("model", PROMPTS)
def test_no_model_runs(silent, model):
    plan = silent[model].plan("heun", {"s_noise": 1.01}, "karras", STEPS)
    assert isinstance(plan, SamplingPlan) and plan.sampler is SAMPLERS["heun"] and plan.options == {"s_noise": 1.01}
    assert (plan.steps, plan.evaluations, len(plan.sigmas), len(plan.timesteps)) == (STEPS, 2 * STEPS - 1, 6, 5)
    assert plan.coordinates == ("ve" if model == "sdxl" else "flow") and plan.noise == "torch"


@pytest.mark.parametrize("sigma_grid", [None, "karras", "beta"])
@pytest.mark.parametrize("sampler", [name for name, one in SAMPLERS.items() if one.takes == "sigmas"])
@pytest.mark.parametrize("model", PROMPTS)
def test_levels_are_those_of_the_run(pipes, model, sampler, sigma_grid):
    size = {"height": 16, "width": 16} if model == "flux" else {}
    plan = pipes[model].plan(sampler, None, sigma_grid, STEPS, **size)
    trace = traced(pipes, model, sampler, sigma_grid=sigma_grid, num_inference_steps=STEPS)
    assert torch.equal(plan.sigmas, trace.sigmas)
    starts = [call for call in trace.calls if call.stage == 0]
    assert [float(call.sigma) for call in starts] == plan.sigmas[:-1].tolist()
    assert [float(call.timestep) for call in starts] == plan.timesteps.tolist()
    assert [row["sigma"] for row in plan.rows()] == plan.sigmas[:-1].tolist()


@pytest.mark.parametrize("grid", FRACTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("model", PROMPTS)
def test_evaluations_are_those_of_the_run(pipes, model, sampler, grid):
    fractions = FRACTIONS[grid]
    arguments = {"sigma_grid": grid_of(fractions), "num_inference_steps": len(fractions) - 1}
    plan, calls = pipes[model].plan(sampler, **arguments), len(traced(pipes, model, sampler, **arguments).calls)
    if SAMPLERS[sampler].adaptive and grid != "one step":
        assert plan.steps is None and plan.evaluations is None
    else:
        assert plan.evaluations == calls


def test_denoising_end_leaves_out_steps(silent):
    whole, part = (silent["sdxl"].plan("euler", None, None, 10, denoising_end=end) for end in (None, 0.7))
    assert part.steps == 7 and torch.equal(part.sigmas, whole.sigmas[:8])


def test_flow_time_is_shifted_by_the_size(silent):
    plan = silent["flux"].plan
    small, large = plan(height=16, width=16), plan(height=1024, width=1024)
    assert float(small.sigmas[1]) < float(large.sigmas[1])
    assert torch.equal(plan(latents=torch.zeros(1, 16, 16)).sigmas, plan(height=16, width=16).sigmas)


def test_a_title_tells_the_program(silent):
    title = str(silent["flux"].plan("euler", program="comfyui")).split("\n")[0]
    assert title == "euler: 28 steps, 28 network evaluations, program comfyui, coordinates flow, noise comfy"
    assert "program" not in str(silent["flux"].plan("euler", noise="comfy")).split("\n")[0]


@pytest.mark.parametrize("model", PROMPTS)
def test_table_in_a_terminal(silent, model):
    plan = silent[model].plan("dpmpp_2m_sde", {"eta": 0.5}, "karras", 4, guidance_interval=(0.3, 1.0), noise="cpu")
    title, head, *rows, end = str(plan).split("\n")
    assert title == "dpmpp_2m_sde, eta=0.5: 4 steps, 4 network evaluations, coordinates ve, noise cpu"
    assert head.split() == ["step", "sigma", "timestep", "guided"]
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"] and end.split() == ["end", "0"]
    assert rows[0].split()[-1] == "no" and rows[-1].split()[-1] == "yes"
    for row, sigma, timestep in zip(rows, plan.sigmas, plan.timesteps, strict=False):
        assert row.split()[1:3] == [f"{float(sigma):.6g}", f"{float(timestep):.3f}"]


def test_table_of_a_sampler_that_chooses_its_steps(silent):
    assert str(silent["sdxl"].plan("dpm_adaptive")).startswith(
        "dpm_adaptive: as many steps as it takes, coordinates ve"
    )


def test_table_in_a_notebook(silent):
    plan = silent["sdxl"].plan(lambda model, x, sigmas: x, None, "karras", 4)
    page = plan._repr_html_()
    assert page.startswith("<table><caption>&lt;lambda&gt;: 4 steps, coordinates ve") and page.endswith("</table>")
    assert page.count("<tr>") == 1 + 4 + 1 and page.count("<td>yes</td>") == 4
    assert f"<td>{float(plan.sigmas[0]):.6g}</td><td>{float(plan.timesteps[0]):.3f}</td>" in page


WRONG = [
    ({"comfy_sampler": "eulr"}, ValueError, "did you mean 'euler'"),
    ({"comfy_sampler": 3}, TypeError, "a sampler is a name or a callable"),
    ({"sampler_options": {"s_chrun": 1}}, TypeError, "has no option 's_chrun'"),
    ({"sampler_options": {"s_churn": -1}}, ValueError, "s_churn=-1"),
    ({"sigma_grid": "karas"}, ValueError, "did you mean 'karras'"),
    ({"sigma_grid": lambda schedule, n: [1.0, 2.0]}, ValueError, "must decrease strictly"),
    ({"num_inference_steps": 0}, ValueError, "num_inference_steps=0"),
    ({"noise": "phillox"}, ValueError, "did you mean 'philox'"),
    ({"sigma_grid": "karras", "sigmas": [1.0, 0.5, 0.0]}, ValueError, "each set the sigmas"),
    ({"comfy_sampler": "dpm_fast", "sigmas": [1.0, 0.5, 0.0]}, ValueError, "sigmas= cannot be kept"),
    ({"guidance_interval": (0.8, 0.2)}, ValueError, "is no part of the schedule"),
]


@pytest.mark.parametrize("arguments, error, message", WRONG)
@pytest.mark.parametrize("model", PROMPTS)
def test_wrong_input(silent, model, arguments, error, message):
    with pytest.raises(error, match=message):
        silent[model].plan(**arguments)


@pytest.mark.parametrize(
    "model, arguments, message",
    [
        ("sdxl", {"denoising_end": 0.001}, "leaves no step to take"),
        ("sdxl", {"timesteps": [1, 2]}, "must decrease strictly"),
        ("flux", {"flow_coordinates": "vp"}, "unknown flow_coordinates 'vp'"),
        ("flux", {"flow_coordinates": "flow", "sampler_options": {"s_churn": 1.0}}, "s_churn adds noise"),
        ("flux", {"sigmas": [2.0, 1.0]}, "between 0 and 1"),
    ],
)
def test_wrong_input_of_one_model(silent, model, arguments, message):
    with pytest.raises(ValueError, match=message):
        silent[model].plan(**arguments)


def named(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's method."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i])
        callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


BOTH = {
    "karras": {"sigma_grid": "karras", "num_inference_steps": 5},
    "guided in part": {"guidance_interval": (0.2, 0.6), "num_inference_steps": 5},
    "of a program": {"noise": "comfy", "comfy_sampler": "dpm_2"},
    "options": {"comfy_sampler": "lms", "sampler_options": {"order": 2}},
    "sigmas": {"sigmas": [0.9, 0.4, 0.2]},
    "a user's": {"comfy_sampler": named},
}
SDXL_ALONE = {
    "the first part": {"denoising_end": 0.5, "num_inference_steps": 6},
    "the first part of a named grid": {"denoising_end": 0.4, "sigma_grid": "karras", "num_inference_steps": 6},
    "timesteps": {"timesteps": [900, 500, 100]},
    "rounded timesteps": {"quantize": True, "comfy_sampler": "heun"},
}
FLUX_ALONE = {
    "ve": {"flow_coordinates": "ve", "comfy_sampler": "heun", "noise": "comfy"},
    "velocity": {"flow_coordinates": "velocity", "sigma_grid": "simple"},
}
CALLS = [(model, call) for model in PROMPTS for call in BOTH.values()]
CALLS += [("sdxl", call) for call in SDXL_ALONE.values()] + [("flux", call) for call in FLUX_ALONE.values()]


@pytest.mark.parametrize("model, call", CALLS, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_call_does_what_its_plan_says(pipes, model, call):
    pipe, trace = pipes[model], Trace()
    call = {"num_inference_steps": 4} | call
    size = {"height": 16, "width": 16}
    plan = pipe.plan(**call, **(size if model == "flux" else {}))
    pipe(**PROMPTS[model](), **size, output_type="latent", generator=seeded(), trace=trace, **call)
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


def test_the_whole_table(static):
    """Of the 1000 levels those of times 1, 0.667 and 0.334 before a shift of 3; the first as large as VE's can be."""
    plan = static.plan("heun", {"s_churn": 2.0, "s_noise": 1.0}, "simple", 3, guidance_interval={"sigma": (0.9, 0.1)})
    assert str(plan).splitlines() == [
        "heun, s_churn=2.0, s_noise=1.0: 3 steps, 5 network evaluations, coordinates ve, noise torch",
        "step        sigma   timestep  guided",
        "   0          199    995.000  no",
        "   1        6.009    857.326  yes",
        "   2       1.5045    600.719  yes",
        " end            0",
    ]


def test_the_whole_table_in_a_notebook(static):
    plan = static.plan(named, None, "simple", 2, guidance_interval={"sigma": (0.9, 0.1)}, noise="comfy")
    assert plan._repr_html_() == (
        "<table><caption>named: 2 steps, coordinates ve, noise comfy</caption>"
        "<thead><tr><th>step</th><th>sigma</th><th>timestep</th><th>guided</th></tr></thead><tbody>"
        "<tr><td>0</td><td>199</td><td>995.000</td><td>no</td></tr>"
        "<tr><td>1</td><td>3</td><td>750.000</td><td>yes</td></tr>"
        "<tr><td>end</td><td>0</td><td></td><td></td></tr></tbody></table>"
    )


@pytest.mark.parametrize(
    "end, steps",
    [(0.5, 5), (0.8, 8), (0.1, 1), (0.999, 10), (1.0, 10), (0.0, 10), (1, 10), (None, 10)],
)
def test_the_first_part_of_the_denoising(pipes, end, steps):
    """The steps whose timestep is in it; only a fraction between 0 and 1 is one, as in diffusers."""
    whole = pipes["sdxl"].plan(num_inference_steps=10)
    part = pipes["sdxl"].plan(num_inference_steps=10, denoising_end=end)
    assert part.steps == steps and torch.equal(part.sigmas, whole.sigmas[: steps + 1])


@pytest.mark.parametrize("end", [0.1, 0.4, 0.9, 0.9999])
def test_the_first_part_of_a_named_grid(pipes, end):
    """Whose timesteps are not the scheduler's, but known all the same."""
    whole, part = (pipes["sdxl"].plan("euler", None, "karras", 8, denoising_end=value) for value in (None, end))
    steps = sum(timestep >= round(1000 - 1000 * end) for timestep in whole.timesteps.tolist())
    assert 0 < part.steps == steps


@pytest.mark.parametrize("model", PROMPTS)
def test_a_programs_grid_of_dpm_2(pipes, model):
    """ComfyUI's is that of one step more, less its last sigma above 0; other samplers keep theirs."""

    def sigmas(sampler, n, noise):
        return pipes[model].plan(sampler, None, "karras", n, noise=noise).sigmas.tolist()

    assert sigmas("dpm_2", 6, "torch") == sigmas("heun", 6, "torch") == sigmas("heun", 6, "comfy")
    assert sigmas("dpm_2", 6, "comfy") == [*sigmas("dpm_2", 7, "torch")[:6], 0.0]


def test_too_small_a_part(pipes):
    with pytest.raises(ValueError, match=r"^denoising_end=0\.001 leaves no step to take on a grid of 4 steps$"):
        pipes["sdxl"].plan(num_inference_steps=4, denoising_end=0.001)


def test_a_functions_own_grid_and_coordinates(pipes, static):
    def sampler(model, x, sigmas):
        return x

    sampler.grid_scheduler = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE | {"timestep_spacing": "trailing"})
    plan = pipes["sdxl"].plan(sampler, num_inference_steps=5)
    schedule = noise_schedule(pipes["sdxl"].scheduler)
    assert torch.equal(plan.sigmas, discrete_grid(sampler.grid_scheduler, schedule, 5).sigmas)
    assert not torch.equal(plan.sigmas, pipes["sdxl"].plan(num_inference_steps=5).sigmas)
    sampler.grid_scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    sampler.flow_coordinates = "flow"
    plan = static.plan(sampler, num_inference_steps=5)
    assert torch.equal(plan.sigmas, flow_grid(sampler.grid_scheduler, flow_schedule(static.scheduler), 5).sigmas)
    assert plan.coordinates == "flow"
    message = (
        "^sampler integrates flow matching, which SDXL is not: take a scheduler with betas, such as UniPC.* without"
    )
    with pytest.raises(ValueError, match=f"{message} use_flow_sigmas$"):
        pipes["sdxl"].plan(sampler)


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


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_names_of_other_programs(silent, model):
    """The grid that a name implies, unless the user gives one, or sigmas."""
    pipe, steps = silent[model], {"num_inference_steps": STEPS}

    def same(a, b) -> bool:
        return a.sampler is b.sampler and a.options == b.options and torch.equal(a.sigmas, b.sigmas)

    karras = pipe.plan("dpmpp_2m", sigma_grid="karras", **steps)
    assert same(pipe.plan("DPM++ 2M Karras", **steps), karras)
    assert same(pipe.plan("DPMSolverMultistepScheduler", sigma_grid="use_karras_sigmas", **steps), karras)
    assert same(pipe.plan("DPM++ 2M", sigma_grid="Automatic", **steps), karras)
    given = pipe.plan("dpmpp_2m", sigma_grid="sgm_uniform", **steps)
    assert same(pipe.plan("DPM++ 2M Karras", sigma_grid="SGM Uniform", **steps), given)
    sigmas = [0.9, 0.5, 0.2] if model == "flux" else [9.0, 3.0, 0.0]
    assert same(pipe.plan("DPM++ 2M Karras", sigmas=sigmas), pipe.plan("dpmpp_2m", sigmas=sigmas))
    unipc = pipe.plan("UniPCMultistepScheduler,solver_type=bh2", {"lower_order_final": False}, **steps)
    assert (unipc.sampler.name, unipc.options) == ("uni_pc_bh2", {"order": 2, "lower_order_final": False})


def test_a_picture_by_the_name_in_another_program(pipes):
    a = traced(pipes, "sdxl", "LMS Karras", num_inference_steps=3)
    b = traced(pipes, "sdxl", "lms", sigma_grid="karras", num_inference_steps=3)
    assert torch.equal(a.sigmas, b.sigmas) and a.sampler == b.sampler == "lms"
