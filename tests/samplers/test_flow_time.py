"""ComfyUI's samplers in flow time, against k_diffusion's own on x0 + sigma eps, and against what is known."""

import functools
import math

import pytest
import torch

from k_diffusing.oracle.closed_form import draw, oracle_flux
from k_diffusing.oracle.mixture import wasserstein
from k_diffusing.samplers import flow_time, lms
from samplers_patch import k_sampling

ANCESTRAL = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral"]
SDE = ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]
TIMES = torch.tensor([0.999, 0.98, 0.9, 0.86, 0.61, 0.4, 0.12, 0.02, 0.0], dtype=torch.float64)


def function(name):
    return getattr(flow_time, f"sample_{name}")


def denoiser(state, sigma):
    """Of x0 + sigma eps, no image like the next."""
    sigma = sigma.reshape(-1, 1, 1)
    return torch.tanh(state / (1 + sigma**2).sqrt()) + 0.3 * torch.sin(sigma.log()) * state.roll(1, -1).cos()


def flow_denoiser(latents, t):
    time = t.reshape(-1, 1, 1)
    return denoiser(latents / (1 - time), time / (1 - time))


def start():
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def recorded(asked=None):
    """Unit noise, the same each time, and a list of the intervals that it was for."""
    generator = torch.Generator().manual_seed(1)

    def noise_sampler(t, t_next):
        if asked is not None:
            asked.append((t, t_next))
        return torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)

    return noise_sampler


def in_flow_time(name, **options):
    return function(name)(flow_denoiser, start(), TIMES, disable=True, noise_sampler=recorded(), **options)


def in_sigma(name, **options):
    sigmas, x = TIMES / (1 - TIMES), start() / (1 - TIMES[0])
    sampler = getattr(k_sampling, f"sample_{name}")
    return sampler(denoiser, x, sigmas, disable=True, noise_sampler=recorded(), **options)


def down_in_flow_time(sigma, sigma_next, eta=1.0):
    t, t_next = sigma / (1 + sigma), sigma_next / (1 + sigma_next)
    u = t_next * (1 + eta * (t_next / t - 1))
    return u / (1 - u), (sigma_next**2 - (u / (1 - u)) ** 2) ** 0.5


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2s_ancestral"])
def test_an_ancestral_step_is_that_of_sigma_with_another_step_down(name, eta, monkeypatch):
    monkeypatch.setattr(k_sampling, "get_ancestral_step", down_in_flow_time)
    expected = in_sigma(name, eta=eta, s_noise=0.9)
    assert (in_flow_time(name, eta=eta, s_noise=0.9) - expected).abs().max() < 1e-11  # float64, states up to 1000


@pytest.mark.parametrize("name, options", [
    ("dpmpp_sde", {}), ("dpmpp_sde", {"eta": 0.4, "r": 0.3}), ("dpmpp_2m_sde", {"s_noise": 0.9}),
    ("dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.5}), ("dpmpp_3m_sde", {}), ("dpmpp_3m_sde", {"eta": 0.0}),
])  # fmt: skip
def test_an_integrator_in_half_log_snr_is_that_in_log_sigma(name, options):
    assert (in_flow_time(name, **options) - in_sigma(name, **options)).abs().max() < 1e-11


def test_dpm_2_without_noise_is_that_of_the_derivative_in_t():
    theirs = k_sampling.sample_dpm_2(flow_denoiser, start(), TIMES, disable=True)
    assert (in_flow_time("dpm_2_ancestral", eta=0.0) - theirs).abs().max() < 1e-13


@pytest.mark.parametrize("name", ANCESTRAL + SDE)
def test_right_in_distribution(name):
    """At most the 0.03 at which a sampler counts as wrong."""
    assert wasserstein(draw(oracle_flux(), function(name), steps=100)) < 0.03


@pytest.mark.parametrize("name", ANCESTRAL + SDE)
def test_without_noise_nothing_is_drawn(name):
    asked, times = [], torch.linspace(1, 0, 9)
    noise_sampler, model = recorded(asked), lambda x, t: flow_denoiser(x, t.clamp(max=0.999))
    x = function(name)(model, start().float(), times, disable=True, eta=0.0, noise_sampler=noise_sampler)
    assert torch.isfinite(x).all() and asked == []


@pytest.mark.parametrize("name", ANCESTRAL + SDE)
def test_one_step_is_one_evaluation_and_its_answer(name):
    calls = []

    def model(x, t):
        calls.append(t)
        return flow_denoiser(x, t.clamp(max=0.9))

    x = start()
    result = function(name)(model, x, torch.tensor([1.0, 0.0], dtype=torch.float64), disable=True)
    assert len(calls) == 1 and torch.equal(result, flow_denoiser(x, calls[0].clamp(max=0.9)))


@pytest.mark.parametrize("name", ANCESTRAL)
def test_a_step_further_down_than_to_zero_stops_there(name):
    """1 + eta (t' / t - 1) is below 0: the step ends in the denoised latents, and all noise is new."""
    asked, model = [], lambda x, t: torch.ones_like(x)
    noise = functools.partial(function(name), model, start(), disable=True, noise_sampler=recorded(asked))
    x = noise(torch.tensor([1.0, 0.25], dtype=torch.float64), eta=3.0)
    assert (x - (0.75 + 0.25 * recorded()(0, 0))).abs().max() < 1e-15 and len(asked) == 1


@pytest.mark.parametrize("shift, percent, expected", [(math.exp(1.15), 1e-4, 0.9999683341), (1.0, 0.25, 0.75)])
def test_the_time_that_stands_for_one(shift, percent, expected):
    assert flow_time.largest_time(shift, percent) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", SDE)
def test_the_first_time_is_the_one_given(name):
    seen, asked = [], []

    def model(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    times = torch.linspace(1, 0, 4)
    function(name)(model, start(), times, disable=True, noise_sampler=recorded(asked), first_time=0.9921875)
    assert seen[0] == 0.9921875 == asked[0][0].item()
    assert times[0] == 1  # the caller's own


def test_the_times_of_noise_to_the_last_bit():
    """In float32, by the logit and the sigmoid: a Brownian tree has other noise for a time one bit off."""
    asked, times = [], torch.linspace(0.9999, 0, 40) ** 1.3
    sampler = function("dpmpp_sde")
    sampler(flow_denoiser, start().float(), times, disable=True, noise_sampler=recorded(asked))
    others = []
    for i in range(38):
        start_snr, end_snr = -times[i].logit(), -times[i + 1].logit()
        middle = torch.sigmoid(-(start_snr + 0.5 * (end_snr - start_snr)))
        assert asked[2 * i] == (times[i], middle) and asked[2 * i + 1] == (times[i], times[i + 1])
        start_log, end_log = (((1 - t) / t).log() for t in times[i : i + 2])
        others.append(bool(torch.sigmoid(-(start_log + 0.5 * (end_log - start_log))) != middle))
    assert any(others)  # by the logarithm of the quotient a bit is another


def test_an_unknown_solver_type_is_told():
    with pytest.raises(ValueError, match="unknown solver_type 'euler': choose 'midpoint' or 'heun'"):
        function("dpmpp_2m_sde")(flow_denoiser, start(), TIMES, solver_type="euler")


def test_lms_ends_in_the_denoised_latents():
    last = []

    def model(x, sigma):
        last[:] = [denoiser(x, sigma)]
        return last[0]

    sigmas = torch.tensor([10.0, 5.0, 2.0, 1.0, 0.3, 0.1, 0.0], dtype=torch.float64)
    result = lms.sample_lms(model, 10 * start(), sigmas, disable=True)
    assert torch.equal(result, last[0])
    # up to there it is k_diffusion's
    before = k_sampling.sample_lms(denoiser, 10 * start(), sigmas[:-1], disable=True)
    assert (result - denoiser(before, sigmas[-2:-1].expand(2))).abs().max() < 1e-14
