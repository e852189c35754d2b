"""Samplers that tell of no steps: where their network calls show the steps, and comparisons that go by them."""

import pytest
import torch
from tiny_models import flux_prompt, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.compare.compare import compare_samplers
from k_diffusing.trace.record import Trace
from k_diffusing.trace.step_starts import step_starts
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

SIZE = {"height": 16, "width": 16}
GRID = [14.0, 7.0, 3.0, 1.0, 0.4, 0.0]


def middles(grid):
    return [(high * low) ** 0.5 for high, low in zip(grid, grid[1:], strict=False)]


def calls_of(*step):
    """Levels and starts of a sampler with these calls in each step ("here", "middle", "next"), and one in the last."""
    levels, starts = [], []
    for here, middle, following in zip(GRID[:-2], middles(GRID), GRID[1:], strict=False):
        starts.append(len(levels))
        levels += [{"here": here, "middle": middle, "next": following}[name] for name in step]
    return [*levels, GRID[-2]], [*starts, len(levels)]


@pytest.mark.parametrize(
    "step",
    [
        ["here"],
        ["here", "next"],
        ["here", "here"],
        ["here", "middle"],
        ["here", "middle", "next"],
        ["here", "middle", "middle", "next"],
        ["here", "next", "next"],
    ],
)
def test_steps_of_equal_calls(step):
    levels, starts = calls_of(*step)
    assert step_starts(levels, GRID) == starts


def test_steps_that_begin_at_raised_levels():
    raised = [1.4 * sigma for sigma in GRID[:-1]]
    assert step_starts(raised, GRID) == [0, 1, 2, 3, 4]
    heun = [level for pair in zip(raised, GRID[1:], strict=True) for level in pair][:-1]
    assert step_starts(heun, GRID) == [0, 2, 4, 6, 8]


def test_steps_of_unequal_calls():
    first, second, third, fourth, fifth, _ = GRID
    assert step_starts([first, 10.0, second, third, 2.0, 1.5, fourth, fifth], GRID) == [0, 2, 3, 6, 7]
    assert step_starts([first, second, third], GRID) == [0, 1, 2]  # it stopped early
    assert step_starts([first, second, second, third, third, fourth, fifth], GRID) is None
    assert step_starts(middles(GRID[:-1]), GRID) is None
    assert step_starts([first, second, third, second, third, fourth, fifth], GRID) is None
    assert step_starts([first, first, second, second], [first, second, 0.0]) is None  # two and two, or three and one


# Samplers that never call their callback, and the same with it.


def method(stages, told=False):
    """A sampler that evaluates at these parts of the step, each from an Euler step there, and goes on by the last."""

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        ones = x.new_ones(len(x))
        for i in range(len(sigmas) - 1):
            sigma, following = sigmas[i], sigmas[i + 1]
            d = 0
            for part in stages if following > 0 else stages[:1]:
                level = sigma + part * (following - sigma)
                ahead = x + d * (level - sigma)
                denoised = model(ahead, level * ones)
                d = (ahead - denoised) / level
                if told and part == stages[0]:
                    callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
            x = x + d * (following - sigma)
        return x

    return sampler


def twice(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's method that asks for everything twice."""
    ones = x.new_ones(len(x))
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        model(x, sigma * ones)
        x = x + (x - model(x, sigma * ones)) / sigma * (following - sigma)
    return x


def heun(model, x, sigmas, extra_args=None, callback=None, disable=None, wrong=False):
    ones = x.new_ones(len(x))
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - model(x, sigma * ones)) / sigma
        if following == 0:
            x = x + d * (following - sigma)
        else:
            ahead = x + d * (following - sigma)
            d_ahead = (ahead - model(ahead, following * ones)) / following
            x = x + (d + d_ahead) / 2 * (following - sigma) * (1.05 if wrong else 1)
    return x


def wrong_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return heun(model, x, sigmas, wrong=True)


def churned(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, s_churn=2.0):
    """k_diffusion's Euler with churn."""
    n = len(sigmas) - 1
    for i in range(n):
        sigma_hat = sigmas[i] * (1 + min(s_churn / n, 2**0.5 - 1))
        x = x + noise_sampler(sigmas[i], sigma_hat) * (sigma_hat**2 - sigmas[i] ** 2) ** 0.5
        x = x + (x - model(x, sigma_hat * x.new_ones(len(x)))) / sigma_hat * (sigmas[i + 1] - sigma_hat)
    return x


def ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        up = (sigmas[i + 1] ** 2 * (sigmas[i] ** 2 - sigmas[i + 1] ** 2) / sigmas[i] ** 2) ** 0.5
        down = (sigmas[i + 1] ** 2 - up**2) ** 0.5
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + up * noise_sampler(sigmas[i], sigmas[i + 1])
    return x


def run(a, b, family="sdxl", steps=6, **settings):
    pipe, prompt = tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt()
    if family == "flux":
        pipe, prompt = tiny_flux(FluxPipeline), flux_prompt()
    return compare_samplers(pipe, a, b, {**prompt, **SIZE}, steps=steps, **settings)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize(
    "silent, known",
    [
        (method([0]), "euler"),
        (twice, "euler"),
        (heun, "heun"),
        (churned, "euler,s_churn=2"),
        (ancestral, "euler_ancestral"),
        (method([0, 0.5]), method([0, 0.5], told=True)),
        (method([0, 0.5, 0.75]), method([0, 0.5, 0.75], told=True)),
        (method([0, 0.5, 0.5, 1]), method([0, 0.5, 0.5, 1], told=True)),
    ],
)
def test_the_same_method_agrees(silent, known, family):
    if family == "flux" and isinstance(known, str) and known == "heun":
        known = "heun,flow_coordinates=ve"  # Heun's own coordinates give another discretisation there
    for pair in ((silent, known), (known, silent)):
        comparison = run(*pair, family)
        # 1e-5: float32, in another order of operations
        assert comparison.difference.largest < 1e-5, comparison.verdict
        assert comparison.verdict.endswith("over 6 steps")
        assert not any("call by call" in note for note in comparison.notes)


def test_what_differs_is_found_in_its_step():
    found = run("heun", wrong_heun).difference.first
    assert (found.step, found.quantity) == (0, "update rule")
    found = run("euler", heun).difference.first
    assert (found.step, found.cause) == (0, "methods of different stages")


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(steps):
    for a, b in (("heun", heun), (heun, "heun"), (heun, heun)):
        assert run(a, b, steps=steps).difference.largest < 1e-5


def test_a_sampler_that_calls_at_no_sigma_of_the_grid_is_compared_call_by_call():
    middle = method([0.5])
    comparison = run(middle, middle)
    assert comparison.verdict == "agree to 0.0e+00 over 6 network calls"
    assert "compared call by call" in comparison.notes[0]
    assert comparison.table().startswith("call ")
    comparison = run("euler", middle)
    assert not comparison.difference.agree
    assert comparison.verdict.startswith("part at network call 0: sigma of the call: ")


def test_results_decide_where_steps_cannot_be_matched():
    """Euler's method that looks ahead in some of its steps, and makes nothing of it."""

    def looking(model, x, sigmas, extra_args=None, callback=None, disable=None):
        ones = x.new_ones(len(x))
        for i, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            if i in (1, 2):
                model(x, following * ones)
            x = x + (x - model(x, sigma * ones)) / sigma * (following - sigma)
        return x

    comparison = run("euler", looking)
    assert comparison.difference.agree and comparison.verdict.endswith("in the result")
    assert "b called no callback" in comparison.notes[0]
    assert len(comparison.difference.rows) == 1  # the calls before the first at another sigma
    assert not run("heun", looking).difference.agree


def test_draws_of_noise_belong_to_their_steps():
    for sampler, options in ((ancestral, {}), (churned, {})):
        trace, pipe = Trace(), tiny_sdxl(StableDiffusionXLPipeline)
        call = {**sdxl_prompt(), **SIZE, "num_inference_steps": 4, "output_type": "latent"}
        pipe(**call, comfy_sampler=sampler, sampler_options=options, generator=seeded(), trace=trace)
        assert [draw.step for draw in trace.draws] == list(range(len(trace.draws)))
        assert trace.steps_from == "calls" and torch.equal(
            torch.stack([state.sigma for state in trace.states]), trace.sigmas
        )
