"""The closed-form judge: right samplers are right, wrong ones wrong, and orders are those that are known."""

import pytest
import torch
from users_samplers import LAME

from k_diffusing.oracle.judge import judge
from k_diffusing.oracle.order import ORDER_STEPS, order


def heun(model, x, sigmas, extra_args=None, callback=None, disable=None, lame=False):
    """Heun's method; lame: with its second slope taken at the wrong sigma."""
    ones = x.new_ones(len(x))
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - model(x, sigma * ones)) / sigma
        if following > 0:
            ahead = x + d * (following - sigma)
            there = sigma if lame else following
            d = (d + (ahead - model(ahead, there * ones)) / there) / 2
        x = x + d * (following - sigma)
    return x


def lame_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return heun(model, x, sigmas, lame=True)


def too_noisy(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """Euler ancestral with half of the noise it takes out put back."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        x = denoised + (x - denoised) / sigmas[i] * sigmas[i + 1] * 0.5
        if sigmas[i + 1] > 0:
            x = x + 0.5 * sigmas[i + 1] * noise_sampler(sigmas[i], sigmas[i + 1])
    return x


@pytest.mark.parametrize("model", ["sdxl", "flux"])
@pytest.mark.parametrize(
    "sampler, expected",
    [("k:euler", 1), ("k:dpmpp_2m", 2), (heun, 2), ("diffusers:DPMSolverMultistepScheduler", 2)],
)
def test_right_samplers(sampler, expected, model):
    judgement = judge(sampler, model)
    assert judgement.right, judgement.verdict
    # 0.05: what the next power of the step still adds at 80 to 160 steps
    assert judgement.order == pytest.approx(expected, abs=0.05)


def test_right_stochastic_sampler():
    judgement = judge("k:dpmpp_2m_sde")
    assert judgement.right and judgement.order is None
    assert judgement.verdict.endswith("order not measured: it adds noise")


@pytest.mark.parametrize(
    "sampler, model",
    [
        (too_noisy, "sdxl"),
        ("k:dpmpp_2m,flow_coordinates=velocity", "flux"),
        ("k:dpm_2_ancestral,flow_coordinates=flow", "flux"),
    ],
)
def test_wrong_samplers(sampler, model):
    judgement = judge(sampler, model)
    assert not judgement.right and "wrong in distribution" in judgement.verdict


@pytest.mark.parametrize("coordinates", ["ve", "flow"])
def test_a_lost_order_is_seen(coordinates):
    """In the limit it is right: its distance falls with the steps. But it is no method of second order."""
    assert order(lame_heun, coordinates=coordinates) == pytest.approx(1, abs=0.05)


def test_samplers_with_steps_of_their_own_have_no_order():
    with pytest.raises(ValueError, match="chooses its own steps"):
        order("dpm_adaptive")
    assert ORDER_STEPS[1] == 2 * ORDER_STEPS[0]


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    judge("k:dpmpp_sde")
    assert torch.equal(torch.get_rng_state(), state)


def test_two_evaluations_a_step_that_reach_order_1_are_warned_of(tmp_path):
    path = tmp_path / "lame.py"
    path.write_text(LAME)
    judgement = judge(f"{path}:sample_lame")
    assert judgement.right and judgement.wasteful
    assert "order 1.00; warning: 2 evaluations a step should reach order 2" in judgement.verdict
    for sampler in (heun, "k:euler", "k:dpmpp_sde", "k:heun,s_churn=1"):
        assert "warning" not in judge(sampler).verdict


def test_a_sampler_that_needs_a_grid_that_ends_at_0_is_judged():
    def needs_zero(model, x, sigmas):
        last = {0.0: model(x, sigmas[0])}[float(sigmas[-1])]  # KeyError on the grid that the order is measured on
        return heun(model, x, sigmas) + 0 * last

    judgement = judge(needs_zero)
    assert judgement.right and judgement.order is None and "order not measured" in judgement.verdict


def test_an_unknown_model():
    with pytest.raises(ValueError, match="choose one of sdxl, flux"):
        judge("k:heun", "sd3")
