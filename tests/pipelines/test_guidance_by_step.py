"""guidance= and guider=: the weights that each step has, what they cost, and what is refused before a network runs."""

import math

import diffusers
import pytest
import torch
from diffusers import guiders
from diffusers.callbacks import SDXLCFGCutoffCallback
from guided_runs import FAMILIES, SCALE, SIZE, network, run
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.model.guidance import weights_of
from k_diffusing.samplers.comfyui import after_guidance
from samplers_patch import find_sampler, run_sampler
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

FALLING = [7.0, 6.0, 5.0, 3.0, 2.0, 1.5]
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


@pytest.fixture
def silent(pipes, monkeypatch):
    for pipe in pipes.values():
        monkeypatch.setattr(network(pipe), "forward", lambda *_, **__: pytest.fail("the network ran"))
    return pipes


def set_scale(weights):
    """A callback that gives each step its scale, by diffusers' own means."""

    def callback(pipe, step, timestep, tensors):
        pipe._guidance_scale = weights[min(step + 1, len(weights) - 1)]
        return {}

    return callback


# A number, a list


@every_family
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "dpmpp_sde", "dpm_fast"])
def test_a_number_is_the_pipelines_own_scale(family, sampler, pipes):
    expected, _ = run(pipes[family], family, sampler)
    number = next(iter(SCALE[family].values()))
    for guidance in (number, [number] * 6, lambda sigma: number, {"weight": number}, torch.tensor(number)):
        found, seen = run(pipes[family], family, sampler, guidance=guidance, **{next(iter(SCALE[family])): 1.7})
        assert torch.equal(found, expected)


def test_a_number_equals_diffusers(pipes):
    call = {"num_inference_steps": 5, **SIZE}
    theirs = tiny_sdxl(diffusers.StableDiffusionXLPipeline)(
        **sdxl_prompt(), **call, guidance_scale=4, generator=seeded()
    )
    ours = pipes["sdxl"](**sdxl_prompt(), **call, guidance=4, generator=seeded())
    assert torch.equal(theirs.images, ours.images)
    theirs = tiny_flux(diffusers.FluxPipeline)(
        **flux_prompt(negative=True), **call, true_cfg_scale=4, generator=seeded()
    )
    ours = pipes["flux"](**flux_prompt(negative=True), **call, guidance=4, generator=seeded())
    assert torch.equal(theirs.images, ours.images)


@pytest.mark.parametrize(
    "sampler, options",
    [("euler", {}), ("heun", {}), ("dpm_2", {}), ("dpmpp_2m", {}), ("euler_ancestral", {}), ("heun", {"s_churn": 2.0})],
)
def test_a_list_is_a_callback_that_sets_the_scale_of_each_step(sampler, options, pipes):
    """All evaluations of a step have its weight, also where churn begins above the grid's level."""
    ours, _ = run(pipes["sdxl"], "sdxl", sampler, guidance=FALLING, sampler_options=options)
    called, _ = run(
        pipes["sdxl"], "sdxl", sampler, guidance_scale=FALLING[0], sampler_options=options,
        callback_on_step_end=set_scale(FALLING),
    )  # fmt: skip
    assert torch.equal(ours, called)


def test_a_list_equals_diffusers_loop_with_such_a_callback(pipes):
    call = {"num_inference_steps": 6, **SIZE, "guidance_scale": FALLING[0]}
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    theirs = pipe(**sdxl_prompt(), **call, generator=seeded(), callback_on_step_end=set_scale(FALLING)).images
    ours, _ = run(pipes["sdxl"], "sdxl", guidance=FALLING)
    assert torch.equal(theirs, ours)


@every_family
def test_weights_of_one_cost_no_second_evaluation(family, pipes):
    _, seen = run(pipes[family], family, guidance=[4, 1, 4, 1, 0.5, 1], batch_guidance=True)
    assert [rows for rows, _ in seen.calls] == [2, 1, 2, 1, 2, 1]
    plain, _ = run(pipes[family], family, **{next(iter(SCALE[family])): 1.0})
    found, seen = run(pipes[family], family, guidance=1)
    assert torch.equal(found, plain) and seen.rows == 6


@every_family
def test_a_sampler_that_needs_both_answers_gets_them_at_a_weight_of_one(family, pipes):
    _, seen = run(pipes[family], family, "euler_cfg_pp", guidance=1, batch_guidance=True)
    assert {rows for rows, _ in seen.calls} == {2}


@every_family
def test_the_weights_outside_of_the_interval_are_one(family, pipes):
    interval = {"guidance_interval": (0.0, 0.5), "batch_guidance": True}
    _, ends = run(pipes[family], family, **interval)
    found, seen = run(pipes[family], family, guidance=[5] * 6, **interval)
    assert [rows for rows, _ in seen.calls] == [rows for rows, _ in ends.calls]
    size = {"height": 16, "width": 16} if family == "flux" else {}
    plan = pipes[family].plan("euler", None, None, 6, guidance=[5] * 6, guidance_interval=(0.0, 0.5), **size)
    assert [row["weight"] for row in plan.rows()] == [5.0 if rows == 2 else 1.0 for rows, _ in seen.calls]


@every_family
def test_a_users_function_has_the_weight_of_the_step_that_sigma_lies_in(family, pipes):
    """Its steps are not known as they begin."""

    def sample_mine(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([len(x)]))
            x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
        return x

    ours, _ = run(pipes[family], family, sample_mine, guidance=FALLING)
    k_diffusions, _ = run(
        pipes[family], family, guidance=FALLING, **({"flow_coordinates": "ve"} if family == "flux" else {})
    )
    assert largest_difference(ours, k_diffusions) < 1e-4  # float32, of values up to 20: Euler in another form


def test_restarts_have_the_weights_of_their_noise(pipes):
    """A stretch that is gone again within one step of the grid has the weights of the steps it passes."""
    seen = []

    def of_sigma(sigma):
        seen.append(float(sigma))
        return 5.0 if sigma > 1 else 1.0

    pipe, grid = pipes["sdxl"], {"sigma_grid": "karras", "batch_guidance": True}
    _, of_function = run(pipe, "sdxl", "restart", 12, guidance=of_sigma, **grid)
    sigmas = pipe.plan("restart", None, "karras", 12).sigmas[:-1].tolist()
    _, of_list = run(pipe, "sdxl", "restart", 12, guidance=[of_sigma(sigma) for sigma in sigmas], **grid)
    differ = [(a, b) for a, b in zip(of_function.calls, of_list.calls, strict=True) if a != b]
    assert len(differ) <= 2  # calls in the step that 1 lies in


# A function of sigma


@every_family
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_2s_ancestral", "dpm_fast"])
def test_a_function_is_asked_at_each_evaluation(family, sampler, pipes):
    asked = []

    def of_sigma(sigma):
        asked.append(sigma)
        return torch.where(sigma > 0.7, torch.tensor(4.0), torch.tensor(1.0))

    pipe = pipes[family]
    _, seen = run(pipe, family, sampler, guidance=of_sigma, batch_guidance=True)
    assert all(sigma.shape == () and sigma.device.type == "cpu" for sigma in asked)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    table = ((1 - alphas) / alphas).sqrt().log()
    for rows, t in seen.calls:
        low = min(int(t), 998)
        sigma = t / 1000 if family == "flux" else math.exp(float(torch.lerp(table[low], table[low + 1], t - low)))
        assert rows == (2 if sigma > 0.7 else 1) or abs(sigma - 0.7) < 1e-3
    assert {rows for rows, _ in seen.calls} == {1, 2}


# CFG++


def estimates(x, sigma):
    """With the prompt, and without it."""
    sigma = sigma.reshape(-1, 1, 1, 1)
    scaled = x / (1 + sigma**2).sqrt()
    return scaled.tanh() + 0.3 * torch.sin((sigma + 1e-3).log()), scaled.roll(1, -1).cos() / (1 + sigma)


@pytest.mark.parametrize("part", [0.2, 0.6, 1.0])
def test_euler_with_the_weights_of_cfg_pp_is_euler_cfg_pp(part):
    sigmas = torch.tensor([14.6, 6.0, 2.4, 1.1, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
    levels = sigmas.tolist()
    weights = weights_of({"cfg++": part}, levels, steps=7).weights
    x = 14.6 * torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)

    def model(weight_of):
        def denoiser(x, sigma, model_options=None):
            cond, uncond = estimates(x, sigma)
            guided = uncond + weight_of(sigma) * (cond - uncond)
            return after_guidance(model_options or {}, x, sigma, guided, cond, uncond)

        return denoiser

    by_weights = model(lambda sigma: weights[levels.index(float(sigma[0]))])
    euler = run_sampler(find_sampler("euler"), by_weights, x.clone(), sigmas)
    cfg_pp = run_sampler(find_sampler("euler_cfg_pp"), model(lambda sigma: part), x.clone(), sigmas)
    assert largest_difference(euler, cfg_pp) < 1e-12  # float64, the same sums in another order


@every_family
@pytest.mark.parametrize("sigma_grid", [None, "karras"])
def test_euler_cfg_pp_is_euler_with_guidance_in_the_pipelines(family, sigma_grid, pipes):
    same = {"sigma_grid": sigma_grid, **({"flow_coordinates": "ve"} if family == "flux" else {})}
    function, _ = run(pipes[family], family, "euler_cfg_pp", guidance=0.6, **same)
    weights, _ = run(pipes[family], family, "euler", guidance={"cfg++": 0.6}, **same)
    plain, _ = run(pipes[family], family, "euler", guidance=0.6, **same)
    size = float(weights.abs().max())
    # float32; on FLUX the states begin at sigma 199, of which the latents are a part
    assert largest_difference(function, weights) / size < (1e-5 if family == "sdxl" else 5e-5)
    assert largest_difference(weights, plain) / size > 1e-4


@every_family
@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2m", "dpm_fast", "dpm_adaptive", "restart", "seeds_2"])
def test_cfg_pp_is_defined_for_samplers_of_any_kind(family, sampler, pipes):
    latents, _ = run(pipes[family], family, sampler, guidance={"cfg++": 0.6, "rescale": 0.5})
    assert latents.isfinite().all()


def karras(n):
    ends = 14.6 ** (1 / 7), 0.03 ** (1 / 7)
    return [(ends[0] + (ends[1] - ends[0]) * i / (n - 1)) ** 7 for i in range(n)] + [0.0]


def test_weights_of_cfg_pp():
    sigmas = karras(20)
    plain = weights_of({"cfg++": 0.6}, sigmas, 20).weights
    assert plain == pytest.approx([0.6 / (1 - b / a) for a, b in zip(sigmas, sigmas[1:], strict=False)])
    assert plain[-1] == 0.6 and weights_of({"cfg++": 0.6, "reference_steps": 20}, sigmas, 20).weights == plain
    twice = weights_of({"cfg++": 0.6}, karras(40), 40).weights
    assert twice[0] / plain[0] == pytest.approx(2, rel=0.1)  # as strong as that: it grows with the number of steps
    for n in (40, 80, 400):
        same = weights_of({"cfg++": 0.6, "reference_steps": 20}, karras(n), n).weights
        assert same[0] == pytest.approx(plain[0], rel=0.1) and same[n // 2] == pytest.approx(plain[10], rel=0.1)
    assert max(weights_of({"cfg++": 1}, karras(2000), 2000).weights) == 30
    assert max(weights_of({"cfg++": 1, "max": 7}, karras(2000), 2000).weights) == 7


def test_weights_of_cfg_pp_begin_with_its_part_where_sigma_is_infinite(silent):
    size = {"height": 16, "width": 16, "flow_coordinates": "flow"}
    weights = silent["flux"].plan("euler", None, None, 6, guidance={"cfg++": 0.6}, **size).guidance.weights
    assert weights[0] == weights[-1] == 0.6 < min(weights[1:-1])  # flow time 1


def test_a_part_of_a_run_has_the_weights_of_the_whole(pipes):
    choice = {"cfg++": 0.6, "reference_steps": 10}
    whole = pipes["sdxl"].plan("euler", None, "karras", 20, guidance=choice).guidance.weights
    part = pipes["sdxl"].plan("euler", None, "karras", 20, guidance=choice, start_step=5).guidance.weights
    assert part == whole[5:]


# Rescaled


def test_rescale_is_diffusers_guidance_rescale(pipes):
    expected, _ = run(pipes["sdxl"], "sdxl", guidance_rescale=0.7)
    for guidance in ({"rescale": 0.7}, {"weight": 5, "rescale": 0.7}, {"weight": [5] * 6, "rescale": 0.7}):
        found, _ = run(pipes["sdxl"], "sdxl", guidance=guidance)
        assert torch.equal(found, expected)


def test_rescale_on_flux(pipes):
    plain, _ = run(pipes["flux"], "flux")
    alone, _ = run(pipes["flux"], "flux", guidance={"rescale": 0.7})
    both, _ = run(pipes["flux"], "flux", guidance={"weight": 3, "rescale": 0.7})
    assert torch.equal(alone, both) and largest_difference(alone, plain) > 1e-3


# Callbacks


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_callback_that_ends_guidance_does_so_with_weights_too(sampler, pipes):
    cutoff = {
        "callback_on_step_end": SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2),
        "batch_guidance": True,
    }
    expected, _ = run(pipes["sdxl"], "sdxl", sampler, **cutoff)
    found, seen = run(pipes["sdxl"], "sdxl", sampler, guidance=[5.0] * 6, **cutoff)
    assert torch.equal(found, expected) and [rows for rows, _ in seen.calls] == [2, 2, 2, 1, 1, 1]


def test_a_callback_that_sets_the_scale_overrules_the_weights(pipes):
    def double(pipe, step, timestep, tensors):
        pipe._guidance_scale = 9.0
        return {}

    found, _ = run(pipes["sdxl"], "sdxl", guidance=[5.0] * 6, callback_on_step_end=double)
    expected, _ = run(pipes["sdxl"], "sdxl", guidance=[5.0] + [9.0] * 5)
    assert torch.equal(found, expected)


# Guiders

WORK = {  # by family; what diffusers' class cannot take is its own
    "ClassifierFreeGuidance": FAMILIES,
    "AdaptiveProjectedGuidance": FAMILIES,
    "AdaptiveProjectedMixGuidance": FAMILIES,
    "ClassifierFreeZeroStarGuidance": FAMILIES,
    "TangentialClassifierFreeGuidance": FAMILIES,
}


@every_family
@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde"])
def test_guiders_that_need_both_answers(family, name, sampler, pipes):
    guider = getattr(guiders, name)()
    first, seen = run(pipes[family], family, sampler, guider=guider, batch_guidance=True)
    again, _ = run(pipes[family], family, sampler, guider=guider, batch_guidance=True)
    assert first.isfinite().all() and torch.equal(first, again)
    assert guider.get_state()["step"] is None  # it is the user's, and is left as it was
    assert {rows for rows, _ in seen.calls} <= {1, 2} and seen.calls[-1][0] == 2


@every_family
def test_a_guider_of_plain_guidance_is_plain_guidance(family, pipes):
    number = next(iter(SCALE[family].values()))
    expected, _ = run(pipes[family], family)
    found, _ = run(pipes[family], family, guider=guiders.ClassifierFreeGuidance(number))
    assert torch.equal(found, expected)


@every_family
def test_a_guider_that_starts_late_and_stops_early_costs_less(family, pipes):
    guider = guiders.AdaptiveProjectedGuidance(5.0, adaptive_projected_guidance_momentum=-0.5, start=0.0, stop=0.5)
    _, seen = run(pipes[family], family, guider=guider, batch_guidance=True)
    assert [rows for rows, _ in seen.calls] == [2, 2, 2, 1, 1, 1]


REFUSED = {
    "SkipLayerGuidance": ({"skip_layer_guidance_layers": [0]}, "changes the network"),
    "PerturbedAttentionGuidance": ({"perturbed_guidance_layers": [0]}, "changes the network"),
    "SmoothedEnergyGuidance": ({"seg_guidance_layers": [0]}, "changes the network"),
    "AutoGuidance": ({"auto_guidance_layers": [0], "dropout": 0.1}, "changes the network"),
    "LTX2Guidance": ({}, r"needs more than the answers .*pred_cond_stg"),
}


@every_family
@pytest.mark.parametrize("name", [name for name in REFUSED if hasattr(guiders, name)])
def test_other_guiders_are_refused_with_the_reason(family, name, silent):
    options, words = REFUSED[name]
    with pytest.raises(ValueError, match=f"guider={name}.* {words}"):
        run(silent[family], family, guider=getattr(guiders, name)(**options))


def test_a_guider_that_cannot_take_the_latents_is_refused(silent):
    class Flat(guiders.ClassifierFreeGuidance):
        def forward(self, pred_cond, pred_uncond=None):
            raise RuntimeError("I want rows\nof numbers")

    with pytest.raises(
        ValueError, match=r"guider=Flat cannot take answers of the shape \[B, 4, 64, 64\] \(RuntimeError: I want rows"
    ):
        run(silent["sdxl"], "sdxl", guider=Flat())


# Bad input

BAD = [
    ({"guidance": "5"}, TypeError, "'5' is no guidance: give a number, a list"),
    ({"guidance": True}, TypeError, "True is no guidance"),
    ({"guidance": math.nan}, TypeError, "nan is no guidance"),
    ({"guidance": []}, ValueError, "holds no weight"),
    ({"guidance": [5, "a"]}, TypeError, "has 'a' among its weights"),
    ({"guidance": [5, 4]}, ValueError, "has 2 weights, and the run takes 6 steps"),
    ({"guidance": {}}, ValueError, "says nothing: its keys are"),
    ({"guidance": {"cfgpp": 0.6}}, ValueError, r"no key 'cfgpp': its keys are weight .*cfg\+\+"),
    ({"guidance": {"cfg++": 7}}, ValueError, r"'cfg\+\+': 7}.*from 0 to 2"),
    ({"guidance": {"cfg++": "a"}}, TypeError, "finite number"),
    ({"guidance": {"cfg++": 0.6, "weight": 5}}, ValueError, "both 'weight' and 'cfg"),
    ({"guidance": {"cfg++": 0.6, "reference_steps": 0}}, ValueError, "give a number of steps"),
    ({"guidance": {"cfg++": 0.6, "max": 0.5}}, ValueError, "of at least 1"),
    ({"guidance": {"weight": 5, "max": 7}}, ValueError, r"'max', which belongs to 'cfg\+\+'"),
    ({"guidance": {"rescale": 1.5}}, ValueError, "from 0 to 1"),
    ({"guidance": {"weight": {"cfg++": 1}}}, TypeError, "is no guidance"),
    ({"guidance": lambda sigma: None}, ValueError, "has None for sigma"),
    ({"guidance": lambda sigma: math.inf}, ValueError, "has inf for sigma"),
    ({"guidance": 5, "guider": guiders.ClassifierFreeGuidance()}, ValueError, "both guide: leave one"),
    ({"guider": guiders.ClassifierFreeGuidance}, TypeError, r"no guider.*give ClassifierFreeGuidance\(\)|no guider"),
    ({"guider": 5}, TypeError, "guider=5 is no guider of diffusers.guiders"),
]


@every_family
@pytest.mark.parametrize(("options", "error", "words"), BAD)
def test_bad_input(options, error, words, family, silent):
    with pytest.raises(error, match=words):
        run(silent[family], family, **options)
    size = {"height": 16, "width": 16} if family == "flux" else {}
    with pytest.raises(error, match=words):
        silent[family].plan("euler", None, None, 6, **options, **size)


def test_flux_needs_a_negative_prompt(silent):
    call = {**flux_prompt(), **SIZE, "num_inference_steps": 2}
    for options in ({"guidance": 4}, {"guidance": [4, 1]}, {"guider": guiders.ClassifierFreeGuidance()}):
        with pytest.raises(ValueError, match="need a negative prompt on FLUX"):
            silent["flux"](**call, **options)


def test_a_unet_that_embeds_the_scale_takes_no_weights(monkeypatch):
    pipe = tiny_sdxl(StableDiffusionXLPipeline, time_cond_proj_dim=8)
    monkeypatch.setattr(pipe.unet, "forward", lambda *_, **__: pytest.fail("the network ran"))
    with pytest.raises(ValueError, match="distilled to take the scale as an embedding"):
        run(pipe, "sdxl", guidance=5)


def test_a_rescale_beside_a_guider(silent):
    with pytest.raises(ValueError, match="give it to the guider, ClassifierFreeGuidance"):
        run(silent["sdxl"], "sdxl", guider=guiders.ClassifierFreeGuidance(), guidance_rescale=0.7)


@every_family
def test_diffusers_own_loop_has_neither(family, pipes):
    for name, value in {"guidance": [5], "guider": guiders.ClassifierFreeGuidance()}.items():
        with pytest.raises(ValueError, match=f"{name}=.*comfy_sampler=None"):
            run(pipes[family], family, None, **{name: value})


# Plans


def test_a_plan_shows_the_weights(silent):
    plan = silent["sdxl"].plan("heun", None, "karras", 3, guidance=[7, 1, 2.5])
    assert [(row["guided"], row["weight"]) for row in plan.rows()] == [(True, 7.0), (False, 1.0), (True, 2.5)]
    assert "yes, 7\n" in str(plan) and "no, 1\n" in str(plan) and "<td>yes, 2.5</td>" in plan._repr_html_()
    assert "weight" not in silent["sdxl"].plan("heun", None, "karras", 3).rows()[0]
    guided = silent["sdxl"].plan("heun", None, "karras", 3, guider=guiders.ClassifierFreeGuidance())
    assert "guider ClassifierFreeGuidance" in str(guided)
