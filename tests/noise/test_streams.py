"""Streams that go on after the initial noise, of packed latents and in flow time."""

import pytest
import torch
from noise_draws import SEEDED, SHAPE, SIGMAS, streams

from k_diffusing.noise.sources import NOISE_SOURCES


@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_noise_goes_on_where_the_initial_latents_were_drawn_elsewhere(noise):
    """The web UIs' streams begin with those latents; diffusers' generators were drawn from already."""
    x, drawn, skipped = torch.zeros(SHAPE), streams(noise, seeds=[1, 2, 3]), streams(noise, seeds=[1, 2, 3])
    if noise in ("philox", "a1111"):
        drawn.initial(SHAPE, "cpu", torch.float32)
    skipped = skipped.after_initial(SHAPE, "cpu", torch.float32)
    assert torch.equal(skipped.step_noise(x, SIGMAS)(None, None), drawn.step_noise(x, SIGMAS)(None, None))


@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_packed_latents_that_were_drawn_elsewhere(noise):
    source, shape = streams(noise, seeds=[1, 2, 3]), (3, 16, 16)
    if noise in SEEDED:
        with pytest.raises(ValueError, match=r"\(3, 16, 16\) are packed.*FluxPipeline.*'torch', 'cpu'"):
            source.after_initial(shape, "cpu", torch.float32)
    else:
        source.after_initial(shape, "cpu", torch.float32)


def pack(latents):
    return latents.reshape(len(latents), 4, -1).transpose(1, 2).contiguous()


@pytest.mark.parametrize("kind", ["gaussian", "brownian"])
@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_packed_latents_get_the_noise_of_unpacked_ones_where_the_program_draws_those(noise, kind):
    packed = streams(noise, seeds=[1, 2, 3]).step_noise(
        pack(torch.zeros(SHAPE)), SIGMAS, kind, unpacked_shape=SHAPE, pack=pack
    )(SIGMAS[1], SIGMAS[2])
    flat = streams(noise, seeds=[1, 2, 3]).step_noise(torch.zeros(SHAPE), SIGMAS, kind)(SIGMAS[1], SIGMAS[2])
    assert packed.shape == (3, 64, 4)
    assert torch.equal(packed, pack(flat) if noise in SEEDED else flat.reshape(3, 64, 4))


def test_a_tree_in_flow_time():
    x, times = torch.zeros(SHAPE), torch.tensor([0.99, 0.7, 0.3, 0.0])
    in_flow = streams("comfy", seeds=7).step_noise(x, times, "brownian")
    in_ve = streams("comfy", seeds=7).step_noise(x, times / (1 - times), "brownian", time=lambda s: s / (1 + s))
    a, b = times[1], times[2]
    assert (in_flow(a, b) - in_ve(a / (1 - a), b / (1 - b))).abs().max() < 1e-3  # torchsde resolves time to 1e-6
