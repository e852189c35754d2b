"""Noise sources: equality with what diffusers and other programs draw."""

import warnings

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from noise_draws import SHAPE, SIGMAS, draws, generators, streams

from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NOISE_SOURCES
from samplers_patch import k_sampling


@pytest.mark.parametrize("kind", ["gaussian", "brownian"])
@pytest.mark.parametrize("noise", NOISE_SOURCES)
def test_seeds_decide_the_noise_and_each_image_is_its_own(noise, kind):
    """Equal for equal seeds, other for others, batch-invariant to the bit, global generator untouched."""
    before = torch.random.get_rng_state()
    together = draws(streams(noise, seeds=[5, 6, 7]), kind)
    assert together.dtype == torch.float32 and together.shape == (6, *SHAPE)
    assert torch.equal(together, draws(streams(noise, seeds=[5, 6, 7]), kind))
    assert torch.equal(together, draws(streams(noise, generators(5, 6, 7)), kind))
    assert not torch.equal(together, draws(streams(noise, seeds=[5, 6, 8]), kind))
    alone = draws(streams(noise, seeds=[6], images=1), kind, slice(1, 2))
    assert torch.equal(alone, together[:, 1:2])
    if noise != "comfy":
        assert torch.equal(together, draws(streams(noise, seeds=5), kind))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("noise", ["torch", "cpu", "brownian_tree"])
@pytest.mark.parametrize("make", [lambda: generators(3)[0], lambda: generators(3, 4, 5), lambda: None])
def test_torch_draws_what_diffusers_draws(noise, make):
    """Bit for bit, in the model's dtype, continuing the same streams; without generators, torch's global one."""
    results = []
    for ours in (True, False):
        torch.manual_seed(11)
        generator = make()
        if ours:
            source = streams(noise, generator)
            step = source.step_noise(torch.zeros(SHAPE), SIGMAS)
            results.append([source.initial(SHAPE, "cpu", torch.float16), step(None, None), step(1.0, 0.5)])
        else:
            dtypes = (torch.float16, torch.float32, torch.float32)
            results.append([randn_tensor(SHAPE, generator, torch.device("cpu"), dtype) for dtype in dtypes])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_default_of_the_sde_samplers_is_a_path_that_continues_the_stream():
    """The first interval's noise is the draw after the initial one; on k-diffusion's tree it is not."""
    x = torch.zeros(SHAPE)
    source = streams("torch", seeds=[1, 2, 3])
    initial, path_noise = source.initial(SHAPE, "cpu", torch.float32), source.step_noise(x, SIGMAS, "brownian")
    own = generators(1, 2, 3)
    assert torch.equal(initial, randn_tensor(SHAPE, own))
    assert torch.equal(path_noise(SIGMAS[0], SIGMAS[1]), randn_tensor(SHAPE, own))


@pytest.mark.filterwarnings("ignore:Should have")  # theirs, not ours
@pytest.mark.parametrize("noise", ["brownian_tree", "a1111", "comfy"])
def test_trees_are_those_of_k_diffusion(noise):
    """Also at the ends, where torchsde warns that it rounded its range; a grid's 0 is outside it.

    ComfyUI asks for the grid's own sigmas where they are known to the sampler but for rounding.
    """
    x = torch.zeros(SHAPE)
    seeds = [5, 6, 7]
    if noise == "brownian_tree":
        seeds = [int(torch.randint(0, 2**63 - 1, (), generator=one)) for one in generators(5, 6, 7)]
    ours = streams(noise, seeds=[5, 6, 7]).step_noise(x, SIGMAS, "brownian")
    theirs = k_sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=seeds)
    pairs = [(SIGMAS[0] * 1.0000001, SIGMAS[1]), (SIGMAS[3], SIGMAS[5]), (SIGMAS[2], SIGMAS[1]), tuple(SIGMAS[-2:])]
    asked = [(SIGMAS[0], SIGMAS[1]), *pairs[1:]] if noise == "comfy" else pairs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [ours(*pair) for pair in pairs]
    assert all(torch.equal(one, theirs(*pair)) for one, pair in zip(drawn, asked, strict=True))


def test_a_tree_without_generators_takes_its_seeds_from_the_global_one():
    x = torch.zeros(SHAPE, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        ours = streams("brownian_tree").step_noise(x, SIGMAS, "brownian")(SIGMAS[1], SIGMAS[2])
        torch.manual_seed(11)
        seeds = [int(torch.randint(0, 2**63 - 1, ())) for _ in range(3)]
    theirs = k_sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=seeds)
    assert ours.dtype == torch.float64 and torch.equal(ours, theirs(SIGMAS[1], SIGMAS[2]))


def test_one_generator_gives_a_tree_its_seeds_in_turn():
    x, generator = torch.zeros(SHAPE), generators(5)[0]
    seeds = [int(torch.randint(0, 2**63 - 1, (), generator=generator)) for _ in range(3)]
    ours = streams("brownian_tree", generators(5)[0]).step_noise(x, SIGMAS, "brownian")
    theirs = k_sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=seeds)
    assert torch.equal(ours(SIGMAS[1], SIGMAS[2]), theirs(SIGMAS[1], SIGMAS[2]))


@pytest.mark.parametrize("noise", ["torch", "cpu", "philox", "brownian_tree"])
def test_noise_is_where_the_latents_are_and_in_their_dtype(noise):
    """On the meta device, as on a GPU: drawn on the generators' CPU, and moved."""
    source, x = noise_streams(noise, None, [1, 2, 3], 3, "meta"), torch.empty(SHAPE, dtype=torch.float16, device="meta")
    made = [source.initial(SHAPE, "meta", torch.float16), source.step_noise(x, SIGMAS)(None, None)]
    assert [(one.device.type, one.dtype, one.shape) for one in made] == [("meta", torch.float16, SHAPE)] * 2


def test_the_cpu_source_without_generators_draws_on_the_cpu():
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        assert noise_streams("cpu", None, None, 3, "meta").initial(SHAPE, "meta", torch.float32).device.type == "meta"
        assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("noise", ["comfy", "a1111"])
def test_these_programs_draw_in_float32(noise):
    source = streams(noise, seeds=[1, 2, 3])
    made = [source.initial(SHAPE, "cpu", torch.float16), source.step_noise(torch.zeros(SHAPE).half(), SIGMAS)(1, 0)]
    assert [one.dtype for one in made] == [torch.float32] * 2


def test_a1111_draws_on_the_cpu_for_apples_gpus():
    assert noise_streams("a1111", None, [1, 2, 3], 3, "mps").tree_seeds() == [1, 2, 3]  # no generator is made there


def test_comfyuis_tree_is_on_the_cpu():
    x = torch.empty(SHAPE, device="meta")
    tree = streams("comfy", seeds=7).step_noise(x, SIGMAS, "brownian")
    assert tree(SIGMAS[1], SIGMAS[2]).device.type == "meta"


def test_comfyui_draws_a_batch_from_one_seed():
    """Initial noise from a generator with the seed, the steps' on a CPU from one with seed + 1, one tree per batch."""
    first, later = generators(7, 8)
    x = torch.zeros(SHAPE)
    source = streams("comfy", seeds=7)
    assert torch.equal(source.initial(SHAPE, "cpu", torch.bfloat16), torch.randn(SHAPE, generator=first))
    step, tree = source.step_noise(x, SIGMAS), source.step_noise(x, SIGMAS, "brownian")
    assert all(torch.equal(step(1.0, 0.5), torch.randn(SHAPE, generator=later)) for _ in range(2))
    theirs = k_sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=7)
    assert torch.equal(tree(SIGMAS[1], SIGMAS[2]), theirs(SIGMAS[1], SIGMAS[2]))
    assert torch.equal(draws(streams("comfy", generators(7)[0])), draws(streams("comfy", seeds=7)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, on which ComfyUI and A1111 draw their noise")
def test_on_a_gpu_the_programs_draw_there_and_the_cpu_source_does_not():
    x = torch.zeros(2, 4, 16, 16, device="cuda")
    comfy = noise_streams("comfy", None, 7, 2, "cuda")
    assert torch.equal(
        comfy.initial(x.shape, "cuda", torch.float16).cpu(), torch.randn(x.shape, generator=generators(7)[0])
    )
    own = torch.Generator("cuda").manual_seed(7)
    assert torch.equal(comfy.step_noise(x, SIGMAS)(None, None), torch.randn(x.shape, generator=own, device="cuda"))
    for kind in ("gaussian", "brownian"):
        results = [
            noise_streams("cpu", None, [1, 2], 2, device)
            .step_noise(x.to(device), SIGMAS, kind)(SIGMAS[0], SIGMAS[1])
            .cpu()
            for device in ("cpu", "cuda")
        ]
        assert torch.equal(*results)
