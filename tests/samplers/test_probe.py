"""What is measured of a sampler without a network: its evaluations, and whether it mixes the images of a batch."""

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, HeunDiscreteScheduler, PNDMScheduler

from k_diffusing.render.checks import solver_of
from k_diffusing.samplers.probe import Probe
from k_diffusing.schedulers.as_sampler import as_sampler
from samplers_patch import SAMPLERS, find_sampler


def midpoint(model, x, sigmas):
    """Two evaluations in every step, the last too."""
    for sigma, sigma_next in zip(sigmas[:-1], sigmas[1:], strict=True):
        middle = (sigma + sigma_next) / 2
        x_2 = x + (x - model(x, sigma * x.new_ones(len(x)))) / sigma * (middle - sigma)
        x = x + (x_2 - model(x_2, middle * x.new_ones(len(x)))) / middle * (sigma_next - sigma)
    return x


def by_answers(model, x, sigmas):
    for sigma in sigmas[:-1]:
        x = model(x, sigma * x.new_ones(len(x)))
        if x.abs().mean() > 1:
            x = model(x, sigma * x.new_ones(len(x)))
    return x


def by_sigma(model, x, sigmas):
    for sigma in sigmas[:-1]:
        for _ in range(1 + (sigma > 1)):
            x = model(x, sigma * x.new_ones(len(x)))
    return x


def endless(model, x, sigmas):
    while True:
        x = model(x, sigmas[0] * x.new_ones(len(x)))


def of_the_batch(model, x, sigmas):
    return model(x - x.mean(), sigmas[0] * x.new_ones(len(x)))


def own_noise(model, x, sigmas):
    return model(x, sigmas[0] * x.new_ones(len(x))) + torch.randn_like(x)


def given_noise(model, x, sigmas, noise_sampler=None):
    return model(x, sigmas[0] * x.new_ones(len(x))) + noise_sampler(sigmas[0], sigmas[1])


def broken(model, x, sigmas):
    raise RuntimeError("boom")


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if not sampler.adaptive])
def test_counts_agree_with_the_table(name):
    probe = Probe(SAMPLERS[name], {})
    for budget in (1, 2, 7, 20):
        assert probe.steps_within(budget) == solver_of(SAMPLERS[name]).steps_within(budget)
    assert not probe.mixes_images()


def test_counts_of_functions_and_schedulers():
    assert [Probe(find_sampler(midpoint), {}).steps_within(n) for n in (1, 2, 3, 9)] == [0, 1, 1, 4]
    for scheduler in (HeunDiscreteScheduler(), FlowMatchHeunDiscreteScheduler()):
        flow = "FlowMatch" in type(scheduler).__name__
        assert Probe(find_sampler(as_sampler(scheduler)), {}, flow).steps_within(9) == 5
    assert Probe(find_sampler(as_sampler(PNDMScheduler(skip_prk_steps=True))), {}).steps_within(9) == 8
    assert Probe(find_sampler(as_sampler(PNDMScheduler())), {}).steps_within(20) == 11  # three of four, after them one


@pytest.mark.parametrize("sampler", [by_answers, by_sigma, endless, SAMPLERS["dpm_adaptive"].function])
def test_counts_that_cannot_be_known(sampler):
    with pytest.raises(ValueError, match="depends on sigmas or on the model's answers|finds no end"):
        Probe(find_sampler(sampler), {}).steps_within(9)


def test_which_samplers_mix_the_images_of_a_batch():
    before = torch.random.get_rng_state()
    mixing = [of_the_batch, broken, SAMPLERS["dpm_adaptive"].function]
    assert all(Probe(find_sampler(sampler), {}).mixes_images() for sampler in mixing)
    assert not any(Probe(find_sampler(sampler), {}).mixes_images() for sampler in (midpoint, given_noise, own_noise))
    assert torch.equal(torch.random.get_rng_state(), before)
