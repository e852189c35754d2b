"""`pipe.plan(...)`: what a run will do, without running a model."""

import pytest
import torch
from tiny_models import flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing import SAMPLERS, SamplingPlan, Trace
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

PROMPTS = {"sdxl": sdxl_prompt, "flux": flux_prompt}
STEPS = 5
# In units of a model's largest sigma, for both kinds of model; sigma 0 is the last one, or is not reached.
FRACTIONS = {"to 0": [0.9, 0.6, 0.4, 0.2, 0.1, 0.0], "above 0": [0.9, 0.6, 0.4, 0.2, 0.1, 0.05], "one step": [0.9, 0.0]}


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


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
