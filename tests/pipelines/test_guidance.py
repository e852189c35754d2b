"""guidance_interval and batch_guidance: which network calls are guided, and that nothing else changes."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from guided_runs import FAMILIES, PLAIN, SIZE, Rows, network, run
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline, dynamic_shift
from k_diffusing.model import guidance
from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule, LogSigmaSchedule
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


@pytest.fixture(scope="module")
def pipes():
    return {"sdxl": tiny_sdxl(StableDiffusionXLPipeline), "flux": tiny_flux(FluxPipeline)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("interval", [None, (0, 1), (0.0, 1.0), {"sigma": (math.inf, 0)}])
def test_guided_everywhere(family, interval, pipes):
    expected, _ = run(pipes[family], family)
    found, seen = run(pipes[family], family, guidance_interval=interval)
    assert torch.equal(found, expected) and seen.rows == 12


@pytest.mark.parametrize("family", FAMILIES)
def test_guided_nowhere_equals_no_guidance(family, pipes):
    expected, _ = run(pipes[family], family, **PLAIN[family])
    found, seen = run(pipes[family], family, guidance_interval={"sigma": (1e-6, 0)})
    # CFG with a batch of one row more runs the same kernels: no tolerance
    assert torch.equal(found, expected) and seen.rows == 6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_sde", "dpm_fast"])
def test_calls_outside_the_interval_are_not_guided(family, sampler, pipes):
    half = 499.5
    if family == "flux":  # 6 steps: the half is on the grid, and is where the second interval starts
        shift = math.exp(dynamic_shift(pipes["flux"], 16, 16, None))
        half = 1000 * shift * 0.5 / (1 + (shift - 1) * 0.5)
    everywhere, seen = run(pipes[family], family, sampler)
    _, evaluations = run(pipes[family], family, sampler, **PLAIN[family])
    for interval, inside in (((0, 0.5), lambda t: t > half + 0.01), ((0.5, 1), lambda t: t < half + 0.01)):
        latents, rows = run(pipes[family], family, sampler, guidance_interval=interval)
        assert rows.rows == sum(2 if inside(t) else 1 for _, t in evaluations.calls) < seen.rows
        assert largest_difference(latents, everywhere) > 1e-4


def test_the_interval_in_sigma_and_in_fractions_is_the_same_one(pipes):
    pipe = pipes["sdxl"]
    sigma = {"sigma": (5.0, 0.5)}
    with Rows(pipe) as seen:
        pipe(**sdxl_prompt(), **SIZE, num_inference_steps=20, generator=seeded(), guidance_interval=sigma)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    sigmas = ((1 - alphas) / alphas).sqrt()
    for rows, t in seen.calls:
        assert rows == (2 if 0.5 < sigmas[int(t)] <= 5.0 else 1)
    assert 20 < seen.rows < 40


LEVELS = [0.9, 0.7, 0.5, 0.3, 0.1]
TINY_BIT, BIT = 4e-6, 1e-4  # relative, within and beyond _tensors.ROUNDED
ENDS = {  # of an interval in sigma: at which of LEVELS the network is guided
    (0.7, 0.3): [0.7, 0.5],
    (0.9, 0.1): [0.9, 0.7, 0.5, 0.3],
    (0.5, 0.0): [0.5, 0.3, 0.1],
    (0.5, 0.499): [0.5],
    (0.7 * (1 - TINY_BIT), 0.3 * (1 - TINY_BIT)): [0.7, 0.5],
    (0.7 * (1 + TINY_BIT), 0.3 * (1 + TINY_BIT)): [0.7, 0.5],
    (0.7 * (1 - BIT), 0.3 * (1 - BIT)): [0.5, 0.3],
    (0.7 * (1 + BIT), 0.3 * (1 + BIT)): [0.7, 0.5],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ends", ENDS)
def test_an_interval_includes_its_start_and_not_its_end(family, ends, pipes):
    """Where a level of the grid is an end, or is one but for rounding."""
    pipe, sigmas = pipes["sdxl"], [*LEVELS, 0.0]
    if family == "flux":
        pipe, sigmas = tiny_flux(FluxPipeline, FlowMatchEulerDiscreteScheduler()), LEVELS
    _, seen = run(pipe, family, steps=5, sigmas=sigmas, guidance_interval={"sigma": ends}, batch_guidance=True)
    assert [level for level, (rows, _) in zip(LEVELS, seen.calls, strict=True) if rows == 2] == ENDS[ends]


def test_the_ends_of_all_levels():
    """Infinity (t = 1 in VE coordinates) is a start that is in the interval, and 0 an end that is not."""
    guides = guidance.guidance_at({"sigma": (math.inf, 0.0)}, None)
    assert guides(torch.tensor(math.inf)) and not guides(torch.tensor(0.0))


def test_fractions_count_the_intervals_between_timesteps(pipes):
    """The 1000 timesteps have 999 intervals, so 0.3 of them end at timestep 699.3."""
    timesteps = [900, 700, 699, 300]
    for interval, guided in (((0.0, 0.3), [900, 700]), ((0.3, 1.0), [699, 300])):
        _, seen = run(pipes["sdxl"], "sdxl", steps=None, timesteps=timesteps, guidance_interval=interval)
        assert [t for rows, t in seen.calls if rows == 2] == guided and len(seen.calls) == 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2s_ancestral"])
def test_one_batch_or_two_calls(family, sampler, pipes):
    one, of_one = run(pipes[family], family, sampler, images=2, batch_guidance=True)
    two, of_two = run(pipes[family], family, sampler, images=2, batch_guidance=False)
    assert {rows for rows, _ in of_one.calls} == {4} and {rows for rows, _ in of_two.calls} == {2}
    assert len(of_two.calls) == 2 * len(of_one.calls)
    # the same sums in another order, over six steps of guidance 5: float32 rounding of values up to 30
    assert largest_difference(one, two) < 1e-4 * max(1, float(one.abs().max()))


def test_rescaled_guidance_in_two_calls(pipes):
    one, _ = run(pipes["sdxl"], "sdxl", guidance_rescale=0.7)
    two, _ = run(pipes["sdxl"], "sdxl", guidance_rescale=0.7, batch_guidance=False)
    assert largest_difference(one, two) < 1e-4 * float(one.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cfg_pp_sampler_sees_no_second_estimate_outside(family, pipes):
    seen = []

    def sample_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
        """Euler whose direction is that of the estimate without the prompt (Chung et al. 2024, CFG++)."""
        latest = {}

        def keep(args):
            latest.update(args)
            return args["denoised"]

        for i in range(len(sigmas) - 1):
            options = {"model_options": {"sampler_post_cfg_function": [keep]}}
            denoised = model(x, sigmas[i] * x.new_ones([len(x)]), **options)
            seen.append(torch.equal(latest["uncond_denoised"], latest["cond_denoised"]))
            x = denoised + (x - latest["uncond_denoised"]) / sigmas[i] * sigmas[i + 1]
        return x

    _, rows = run(pipes[family], family, sample_pp, guidance_interval=(0.0, 0.5))
    guided = [not same for same in seen]
    assert guided == sorted(guided, reverse=True) and 0 < sum(guided) < len(guided)
    assert rows.rows == len(guided) + sum(guided)  # no evaluation is made twice


def test_a_meta_sigma_is_not_read_without_an_interval():
    assert guidance.guidance_at(None, None)(torch.ones(2, device="meta"))


def test_fractions_of_each_schedule():
    discrete = DiscreteSchedule(torch.linspace(0.1, 10, 101))
    assert discrete.sigma_at(0) == pytest.approx(10) and discrete.sigma_at(1) == pytest.approx(0.1)
    assert discrete.sigma_at(0.25) == pytest.approx(float(discrete.sigmas[75]))
    logs = LogSigmaSchedule(torch.tensor([0.01, 1.0, 100.0]))
    assert logs.sigma_at(0.5) == pytest.approx(1.0) and logs.sigma_at(0.0) == pytest.approx(100.0)
    flow = FlowSchedule(torch.linspace(0.001, 1, 1000), shift=lambda t: 3 * t / (1 + 2 * t))
    assert flow.sigma_at(0.5) == pytest.approx(0.75)


BAD = [
    ((0.8, 0.2), ValueError, r"\(0.8, 0.2\).*rise from 0"),
    ((0.5, 0.5), ValueError, "rise from 0"),
    ((-0.1, 0.5), ValueError, "rise from 0"),
    ((0.28, 5.42), ValueError, r"noise levels are given as \{'sigma'"),
    ((float("nan"), 0.5), ValueError, "rise from 0"),
    ({"sigma": (0.28, 5.42)}, ValueError, "out of order: noise levels fall"),
    ({"sigma": (5.0, -1.0)}, ValueError, "out of order"),
    ({"percent": (0.1, 0.2)}, ValueError, "'percent'.*give {'sigma'"),
    ({}, ValueError, "fractions"),
    (0.5, TypeError, "needs two numbers"),
    ((0.1, 0.5, 0.9), TypeError, "needs two numbers"),
    (("0.1", 0.5), TypeError, "are numbers"),
    ({"sigma": 5.0}, TypeError, "needs two numbers"),
]


@pytest.mark.parametrize(("interval", "error", "words"), BAD)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_interval(interval, error, words, family, pipes, monkeypatch):
    monkeypatch.setattr(network(pipes[family]), "forward", lambda *_, **__: pytest.fail("the network ran"))
    with pytest.raises(error, match=words):
        run(pipes[family], family, guidance_interval=interval)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_own_loop_has_neither(family, pipes):
    other = {"batch_guidance": family != "sdxl"}
    for options in ({"guidance_interval": (0, 0.5)}, other):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.*comfy_sampler=None"):
            run(pipes[family], family, None, **options)


@pytest.mark.parametrize(
    "tokens, prompts, shape",
    [(9, "a", r"\(1, 9, 16\)"), (5, ["a", "b"], r"\(2, 5, 16\)")],
    ids=["length", "number"],
)
def test_prompts_of_two_shapes_in_one_batch(pipes, monkeypatch, tokens, prompts, shape):
    """Told before an encoder runs: what it makes of a text is max_sequence_length tokens long."""

    def refuse(*_, **__):
        raise AssertionError("an encoder ran on bad input")

    given = {name: embeds for name, embeds in flux_prompt(negative=True).items() if name.startswith("negative")}
    monkeypatch.setattr(pipes["flux"], "encode_prompt", refuse, raising=False)
    with pytest.raises(ValueError, match=rf"shapes \(1, 5, 16\) and {shape}"):
        pipes["flux"](prompts, **given, batch_guidance=True, true_cfg_scale=3.0, max_sequence_length=tokens, **SIZE)


def test_a_text_beside_embeddings_in_one_batch(pipes, monkeypatch):
    """Where the lengths fit, they are joined, with the result of two calls."""
    embeds = flux_prompt(negative=True)
    given = {name: embeds.pop(name) for name in list(embeds) if name.startswith("negative")}
    pipe, original = pipes["flux"], pipes["flux"].encode_prompt

    def encode_prompt(prompt, *args, **kwargs):
        return original(None, None, **(kwargs | (embeds if prompt else {})))

    monkeypatch.setattr(pipe, "encode_prompt", encode_prompt, raising=False)
    call = {**SIZE, "true_cfg_scale": 3.0, "max_sequence_length": 5, "num_inference_steps": 2, "output_type": "latent"}
    one, two = (
        pipe("a", **given, **call, generator=seeded(), batch_guidance=joined).images for joined in (True, False)
    )
    assert (one - two).abs().max() < 1e-5  # float32, rows of one batch against rows of two
