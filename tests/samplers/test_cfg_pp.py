"""CFG++: against guidance by step, its formulas, and a function that asks the model as ComfyUI's do.

test_ours.py has what every sampler keeps.
"""

import math

import pytest
import torch
from guided_runs import run as guided_run
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.oracle.mixture import Mixture
from k_diffusing.oracle.order import SMOOTH, ode_error
from k_diffusing.samplers.comfyui import after_guidance
from samplers_patch import OUR_SAMPLERS, find_sampler, run_sampler
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIGMAS = torch.tensor([14.6, 6.0, 2.4, 1.1, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
SAME = 1e-12  # of states up to 30 in float64: the same numbers added up in another order
NAMES = [name for name, record in OUR_SAMPLERS.items() if record.uses_uncond and name != "rectified_cfg_pp"]
SECOND_ORDER = [("dpmpp_2m_cfg_pp", {}), ("res_multistep_cfg_pp", {}), ("res_multistep_ancestral_cfg_pp", {"eta": 0.0})]


def estimates(x, sigma):
    """With the prompt, and without it."""
    sigma = sigma.reshape(-1, 1, 1, 1)
    scaled = x / (1 + sigma**2).sqrt()
    return scaled.tanh() + 0.3 * torch.sin((sigma + 1e-3).log()), scaled.roll(1, -1).cos() / (1 + sigma)


def model(scale, of=estimates):
    """Guided with a scale, as pipelines' models are: functions in model_options see both estimates."""

    def denoiser(x, sigma, model_options=None):
        cond, uncond = of(x, sigma)
        guided = uncond + scale * (cond - uncond)
        return after_guidance(model_options or {}, x, sigma, guided, cond, uncond)

    return denoiser


def start(scale: float = 14.6) -> torch.Tensor:
    return scale * torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)


def run(name, denoiser, sigmas=SIGMAS, **options):
    return run_sampler(find_sampler(name), denoiser, start(), sigmas, generator=seeded(1), options=options)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_second_answer_it_is_the_plain_sampler(name):
    """Of a model that is not asked, or that was not guided."""
    plain = run(name.removesuffix("_cfg_pp"), model(0.6))
    assert largest_difference(run(name, lambda x, sigma: model(0.6)(x, sigma)), plain) < SAME
    alike = model(0.6, of=lambda x, sigma: (estimates(x, sigma)[0],) * 2)
    assert largest_difference(run(name, alike), run(name.removesuffix("_cfg_pp"), alike)) < SAME
    assert largest_difference(run(name, model(0.6)), plain) > 1e-2


def test_cfg_pp_with_euler_is_a_guidance_that_falls_with_the_step():
    """By the weight lambda / (1 - t / s) (arXiv 2406.08070)."""
    levels = SIGMAS.tolist()
    weights = {s: 0.6 / (1 - t / s) for s, t in zip(levels, levels[1:], strict=False)}

    def by_step(x, sigma):
        return model(weights[float(sigma[0])])(x, sigma)

    assert largest_difference(run("euler_cfg_pp", model(0.6)), run("euler", by_step)) < SAME


@pytest.mark.parametrize("name, options", SECOND_ORDER)
def test_constant_estimates_are_guided_as_by_euler(name, options):
    """What higher orders add are differences between steps, of which there are none."""
    constant = model(0.6, of=lambda x, sigma: (torch.ones_like(x), torch.zeros_like(x)))
    expected = run("euler_cfg_pp", constant, SIGMAS[:-1])
    assert largest_difference(run(name, constant, SIGMAS[:-1], **options), expected) < SAME
    published = run(name, constant, SIGMAS[:-1], variant="published", **options)
    assert largest_difference(published, expected) > 1e-3  # it guides by more, or by less


@pytest.mark.parametrize("variant", [None, "published"])
@pytest.mark.parametrize("name", ["dpmpp_2m_cfg_pp", "res_multistep_cfg_pp"])
def test_steps_of_second_order_by_their_formulas(name, variant):
    """The formula of the unguided estimates with the guidance on top, and the published ones as they are written."""
    levels, x, old = SIGMAS[:-1], start(), None
    for s, t in zip(levels, levels[1:], strict=False):
        guided, unguided, h = model(0.6)(x, s.expand(2)), estimates(x, s)[1], (s / t).log()
        psi_1 = 1 - t / s
        share = psi_1 / 2 if name == "dpmpp_2m_cfg_pp" else 1 - psi_1 / h
        share = 0.0 if old is None else share * h / old[0]
        former = unguided if old is None else old[1]
        if variant is None or old is None:
            x = guided + t / s * (x - unguided) + share * (unguided - former)
        elif name == "dpmpp_2m_cfg_pp":
            x = guided + t / s * (x - unguided) + share * (guided - former)
        else:
            x = t / s * (x + guided - unguided) + (psi_1 + share) * unguided - share * former
        old = h, unguided
    assert largest_difference(run(name, model(0.6), levels, variant=variant), x) < SAME


@pytest.mark.parametrize("variant", [None, "published"])
def test_two_stages_use_the_unguided_estimate_of_the_first(variant):
    s, t = grid = torch.tensor([5.0, 2.0], dtype=torch.float64)
    guided, x, middle = model(0.6), start(), (s * t).sqrt()
    first, first_unguided = guided(x, s.expand(2)), estimates(x, s)[1]
    ahead = first + middle / s * (x - first_unguided)
    second, second_unguided = guided(ahead, middle.expand(2)), estimates(ahead, middle)[1]
    taken = second_unguided if variant else first_unguided
    expected = t / s * (x + first - taken) + (1 - t / s) * second
    ours = run("dpmpp_2s_ancestral_cfg_pp", guided, grid, eta=0.0, variant=variant)
    assert largest_difference(ours, expected) < SAME


@pytest.mark.parametrize("variant, right", [(None, True), ("published", False)])
def test_the_published_two_stages_stay_wrong_however_small_the_step(variant, right):
    """Without guidance, where what it should be is known: the first estimate less the second is of the step's order."""

    def unguided(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def hooked(x, sigma, model_options=None):
            denoised = model(x, sigma)
            return after_guidance(model_options or {}, x, sigma, denoised, denoised, denoised)

        sampler = find_sampler("dpmpp_2s_ancestral_cfg_pp").function
        return sampler(hooked, x, sigmas, {"model_options": {}}, disable=True, eta=0.0, variant=variant)

    coarse, fine = (ode_error(unguided, n) for n in (80, 160))
    assert (fine < coarse / 3) if right else (fine > 0.2)  # of points that are 1 apart


@pytest.mark.parametrize("name", NAMES)
def test_what_else_looks_at_the_estimates_still_does(name):
    seen = []

    def look(told):
        seen.append(told["denoised"])
        return told["denoised"]

    extra_args = {"model_options": {"sampler_post_cfg_function": [look], "other": 1}}
    OUR_SAMPLERS[name].function(model(0.6), start(), SIGMAS, extra_args=extra_args, disable=True)
    assert len(seen) >= len(SIGMAS) - 1
    assert extra_args == {"model_options": {"sampler_post_cfg_function": [look], "other": 1}}  # the caller's own


# Rectified-CFG++


def test_rectified_cfg_pp_is_its_formula():
    """With v = (x - D) / t: half a step along v_c, and there v_c' - v_u' for the whole step (2510.07631)."""
    levels, x = SIGMAS.tolist(), start()
    for t, after in zip(levels, levels[1:], strict=False):
        sigma = torch.full((2,), t, dtype=torch.float64)
        v = (x - estimates(x, sigma)[0]) / t
        middle = (t + after) / 2
        ahead = x + (middle - t) * v
        cond, uncond = ((ahead - one) / middle for one in estimates(ahead, sigma * 0 + middle))
        x = x + (after - t) * (v + 2.5 * (cond - uncond))
    assert largest_difference(run("rectified_cfg_pp", model(2.5)), x) < SAME


def test_rectified_cfg_pp_without_a_second_answer_is_euler():
    assert largest_difference(run("rectified_cfg_pp", model(0.6, of=lambda x, s: (estimates(x, s)[0],) * 2)),
                              run("euler", model(1.0))) < SAME  # fmt: skip


def test_rectified_cfg_pp_becomes_guidance_of_a_weight_more():
    """On two closed-form models, one of the prompt: the error to guidance of weight 1 + alpha falls with the step."""

    def closed(x, sigma):
        ones = torch.ones_like(sigma)
        shape = (-1, 1, 1, 1)
        narrow = Mixture((0.5, 0.5), (0.2, 0.8), (0.3, 0.4))
        return (one.posterior_mean(x, ones.reshape(shape), sigma.reshape(shape)) for one in (narrow, SMOOTH))

    def end(name, weight, steps):
        return run(name, model(weight, of=closed), torch.logspace(1, -1, steps + 1, dtype=torch.float64))

    fine = end("rk4", 2.5, 400)
    errors = [largest_difference(end("rectified_cfg_pp", 1.5, steps), fine) for steps in (80, 160, 320)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("batch_guidance", [True, False])
def test_rectified_cfg_pp_takes_three_rows_a_step(family, batch_guidance):
    pipe = tiny_sdxl(StableDiffusionXLPipeline) if family == "sdxl" else tiny_flux(FluxPipeline)
    latents, seen = guided_run(pipe, family, "rectified_cfg_pp", 4, guidance=2.0, batch_guidance=batch_guidance)
    assert latents.isfinite().all() and seen.rows == 12
    size = {"height": 16, "width": 16} if family == "flux" else {}
    plan = pipe.plan("rectified_cfg_pp", None, None, 4, **size)
    assert plan.coordinates == ("flow" if family == "flux" else "ve") and plan.evaluations == 8


def asks_as_comfyuis_do(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's step of CFG++, written down once more, for a model in either coordinates."""
    seen, extra_args = {}, dict(extra_args or {})

    def look(told):
        seen.update(told)
        return told["denoised"]

    extra_args["model_options"] = {"sampler_post_cfg_function": [look]}
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
        x = denoised + sigmas[i + 1] / sigmas[i] * (x - seen["uncond_denoised"])
    return x


@pytest.mark.parametrize("scale", [1.5, 4.0])
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_pipelines_give_the_unguided_estimate(family, scale):
    if family == "sdxl":
        pipe, keywords = tiny_sdxl(StableDiffusionXLPipeline), {"guidance_scale": scale, **sdxl_prompt()}
    else:
        pipe, keywords = tiny_flux(FluxPipeline), {"true_cfg_scale": scale, **flux_prompt(negative=True)}
        keywords["flow_coordinates"] = "ve"
    keywords |= {"height": 16, "width": 16, "num_inference_steps": 5, "output_type": "latent"}
    ours, theirs, plain = (
        pipe(comfy_sampler=sampler, generator=seeded(), **keywords).images
        for sampler in ("euler_cfg_pp", asks_as_comfyuis_do, "euler")
    )
    # 1e-5: float32, states up to 200
    assert largest_difference(ours, theirs) < 1e-5
    assert largest_difference(ours, plain) > 1e-3
