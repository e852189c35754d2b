"""Noise sources: exact answers for Brownian paths and Philox, equality with what diffusers, GPUs and programs draw."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids.choose import SigmaGrid
from k_diffusing.noise.brownian import BrownianPath
from k_diffusing.noise.check import check_noise
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.philox import PHILOX_LIMIT, PhiloxGenerator, philox
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.programs.conventions import comfy_initial_scale, drops_penultimate, initial_scale
from samplers_patch import SAMPLERS

SIGMAS = k_sampling.get_sigmas_karras(8, 0.03, 14.6)
SHAPE = (3, 4, 8, 8)
SEEDED = [name for name, source in NOISE_SOURCES.items() if source.seeded]
MANY = 200_000  # elements, of which each is a path of its own


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def streams(noise, generator=None, seeds=None, images=3):
    return noise_streams(noise, generator, seeds, images, "cpu")


def path(*shape, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return BrownianPath(lambda: torch.randn(shape, generator=generator, dtype=torch.float64), **options)


def overlap(one, other):
    """The covariance of two increments in unit noise: the shared length over the root of both, signed."""
    shared = max(0, min(max(one), max(other)) - max(min(one), min(other)))
    same = (one[0] > one[1]) == (other[0] > other[1])
    return (1 if same else -1) * shared / math.sqrt(abs(one[0] - one[1]) * abs(other[0] - other[1]))


QUESTIONS = {
    "consecutive": [(10, 7), (7, 3), (3, 1), (1, 0)],
    "dpmpp_sde": [(10, 6), (10, 4), (4, 2), (4, 1), (1, 0.3), (1, 0)],
    "split, then split again": [(9, 1), (9, 4), (4, 1), (6, 5), (2, 1.5), (9, 1)],
    "nested": [(9, 1), (7, 2), (5, 3), (4.5, 4)],
    "gaps and ends": [(5, 4), (2, 1), (20, 0), (3, 4.5), (30, 25), (0.5, 7)],
    "upwards": [(1, 2), (2, 5), (1.5, 3), (5, 1)],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_increments_have_the_covariance_of_brownian_motion(name):
    """Mean 0 and the closed-form covariance, each to 4.5 standard errors: (1 + rho^2) / n is that of a product of
    unit normals with correlation rho."""
    asked = QUESTIONS[name]
    w = path(MANY)
    noise = torch.stack([w(*interval) for interval in asked])
    assert noise.mean(1).abs().max() < 4.5 / math.sqrt(MANY)
    for (i, one), (j, other) in itertools.combinations_with_replacement(enumerate(asked), 2):
        rho = overlap(one, other)
        error = float((noise[i] * noise[j]).mean()) - rho
        assert abs(error) < 4.5 * math.sqrt((1 + rho**2) / MANY), (one, other)


def test_the_distribution_is_normal_after_a_bridge():
    """Fourth moments are 3, also of sums: of an increment, of a bridged one, and of the two neighbours' difference."""
    w = path(MANY)
    whole, upper = w(8, 2), w(8, 5)
    lower = w(5, 2)
    for noise in (whole, upper, lower, (upper - lower) / math.sqrt(2)):
        assert abs(float((noise**4).mean()) - 3) < 4.5 * math.sqrt(96 / MANY)
    assert abs(float((upper**2 * lower**2).mean()) - 1) < 4.5 * math.sqrt(
        8 / MANY
    )  # independent, not just uncorrelated


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_repeated_and_split_intervals_are_consistent(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    w = BrownianPath(lambda: torch.randn(2, 500, generator=generator, dtype=dtype))
    levels = [14.6, 9.0, 4.0, 1.7, 0.2, 0.0]
    noise = {pair: w(*pair) for pair in itertools.pairwise(levels)}
    whole = w(14.6, 0.0)
    parts = sum(math.sqrt(high - low) * noise[high, low] for high, low in noise) / math.sqrt(14.6)
    assert (whole - parts).abs().max() < 4 * tolerance  # whole and noise are up to 4
    w(12.0, 3.0), w(1.0, 0.1), w(20.0, 16.0)
    for pair, first in noise.items():
        assert (w(*pair) - first).abs().max() < tolerance
        assert torch.equal(w(*reversed(pair)), -w(*pair))


def test_a_split_of_a_tiny_or_a_huge_interval_keeps_its_precision():
    """FLUX in VE coordinates starts at a sigma of thousands: the noise of low intervals must not drown in it."""
    w = BrownianPath(lambda: torch.randn(100))
    w(30000.0, 100.0), w(100.0, 0.01)
    first = w(0.01, 0.0)
    assert (w(30000.0, 0.0) - w(30000.0, 0.0)).abs().max() == 0
    w(0.006, 0.003)
    assert (w(0.01, 0.0) - first).abs().max() < 1e-6


class Operations(TorchDispatchMode):
    """Takes note of the names of the operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_consecutive_steps_cost_one_draw_each_and_read_no_tensor_but_sigma():
    sampler = streams("torch", generators(0)[0], images=1).step_noise(torch.zeros(1, 4, 8, 8), SIGMAS, "brownian")
    with Operations() as operations:
        for pair in itertools.pairwise(SIGMAS.tolist()):
            sampler(*pair)
    assert operations.names == ["randn", "mul"] * (len(SIGMAS) - 1)
    with Operations() as operations:
        sampler(SIGMAS[-2], SIGMAS[-1])
    assert operations.names.count("_local_scalar_dense") == 2 and "randn" not in operations.names


def test_dpmpp_sde_pattern_costs_two_draws_a_step():
    drawn = []
    w = BrownianPath(lambda: drawn.append(1) or torch.zeros(1))
    for high, low in itertools.pairwise(SIGMAS.tolist()):
        w(high, (high + low) / 2), w(high, low)
    assert len(drawn) == 2 * (len(SIGMAS) - 1)


def test_what_is_forgotten_is_refused_and_the_rest_kept():
    w = path(4, remember=3)
    noise = {pair: w(*pair) for pair in itertools.pairwise(range(10, -1, -1))}
    assert len(w.pieces) == 3 and all(torch.equal(w(*pair), noise[pair]) for pair in [(3, 2), (2, 1), (1, 0)])
    with pytest.raises(ValueError, match="from sigma 4 .* last 3 intervals, up to 3.*brownian_tree"):
        w(4, 3)


def test_an_empty_interval_gets_unit_noise_and_leaves_the_path_alone():
    w = path(1000)
    first = w(2, 1)
    assert abs(float(w(1.5, 1.5).std()) - 1) < 0.1 and torch.equal(w(2, 1), first)


def draws(source, kind="gaussian", images=slice(None)):
    x = torch.zeros(SHAPE)[images]
    noise = source.step_noise(x, SIGMAS, kind)
    pairs = [(SIGMAS[i], SIGMAS[i + 1]) for i in range(4)]
    pairs.append((SIGMAS[1], (SIGMAS[1] + SIGMAS[2]) / 2))
    return torch.stack([source.initial(x.shape, "cpu", torch.float32), *(noise(*pair) for pair in pairs)])


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
    """Also at the ends, where torchsde warns that it rounded its range; a grid's 0 is outside it."""
    x = torch.zeros(SHAPE)
    seeds = [5, 6, 7]
    if noise == "brownian_tree":
        seeds = [int(torch.randint(0, 2**63 - 1, (), generator=one)) for one in generators(5, 6, 7)]
    ours = streams(noise, seeds=[5, 6, 7]).step_noise(x, SIGMAS, "brownian")
    theirs = k_sampling.BrownianTreeNoiseSampler(x, SIGMAS[-2], SIGMAS[0], seed=seeds)
    pairs = [(SIGMAS[0] * 1.0000001, SIGMAS[1]), (SIGMAS[3], SIGMAS[5]), (SIGMAS[2], SIGMAS[1]), tuple(SIGMAS[-2:])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noise = [ours(*pair) for pair in pairs]
    assert all(torch.equal(one, theirs(*pair)) for one, pair in zip(noise, pairs, strict=True))


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


def test_a_path_remembers_sixteen_intervals():
    levels = torch.linspace(20, 1, 20)
    noise = streams("torch", seeds=1, images=1).step_noise(torch.zeros(1, 4), levels, "brownian")
    first = [noise(*pair) for pair in itertools.pairwise(levels[:17])][0]
    assert torch.equal(noise(levels[0], levels[1]), first)
    noise(levels[16], levels[17])
    with pytest.raises(ValueError, match="last 16 intervals"):
        noise(levels[0], levels[1])


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


def test_initial_scales():
    grid = SigmaGrid(torch.tensor([14.0, 1.0, 0.0]), None, initial_scale=5.0)
    scales = {noise: float(initial_scale(noise, grid, 14.0)) for noise in NOISE_SOURCES}
    # of ComfyUI sqrt(1 + 14^2) at the top, of A1111's web UI the first sigma, else the grid's own
    special = {"comfy": pytest.approx(197**0.5), "a1111": 14.0}
    assert scales == dict.fromkeys(NOISE_SOURCES, 5.0) | special
    assert float(initial_scale("comfy", grid, 20.0)) == 14.0


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


def test_comfyui_scales_and_grids():
    top = torch.tensor(14.6146)
    assert comfy_initial_scale(top, 14.6146) == (1 + top**2).sqrt()
    assert comfy_initial_scale(torch.tensor(9.0), 14.6146) == 9
    grid = SigmaGrid(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([30.0, 20.0, 10.0])).without_penultimate()
    assert grid.sigmas.tolist() == [3, 2, 0] and grid.timesteps.tolist() == [30, 20]
    dropping = {(noise, name) for noise in NOISE_SOURCES for name in SAMPLERS if drops_penultimate(noise, name)}
    assert dropping == {(noise, name) for noise in ("comfy", "a1111") for name in ("dpm_2", "dpm_2_ancestral")}


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


WORDS = {  # of Random123's kat_vectors: counter, key, answer
    "zeros": ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


@pytest.mark.parametrize("name", WORDS)
def test_philox_known_answers(name):
    counter, key, answer = ([np.uint64(int(word, 16)) for word in words.split()] for words in WORDS[name])
    found = philox(tuple(np.full(2, word) for word in counter), tuple(key))
    assert [word.tolist() for word in found] == [[int(word)] * 2 for word in answer]


# What torch.randn(shape, device="cuda") printed after manual_seed(seed): seed, shape, and the places and values of
# elements in each of the calls made in turn. "web UI" is from the documentation of A1111's own copy of that generator.
CUDA_DRAWS = {
    "web UI": (0, (12,), [slice(0, 12)], [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
         -1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ], 1e-6),
    "six calls": (42, (4,), [slice(0, 4)] * 6, [
        [0.1940, 2.1614, -0.1721, 0.8491], [0.1391, -0.1082, -0.7174, 0.7566], [-0.5187, 1.2268, 0.6255, -0.9117],
        [-0.6974, -1.8688, -0.8832, -1.6627], [-1.2682, -0.0383, -0.1029, 1.4400], [1.4640, -0.3238, 0.7740, 1.5892],
    ], 6e-5),
    "RTX A6000, pytorch#62467": (43, (3, 128, 128), [(slice(0, 3), 0, 0)], [[1.9983, 0.8704, 2.1127]], 6e-5),
    "RTX 3060, pytorch#158398": (42, (64, 2048), [(2, slice(2045, 2048))], [[-1.0001, -1.1552, -0.6955]], 6e-5),
}  # fmt: skip


@pytest.mark.parametrize("name", CUDA_DRAWS)
def test_philox_draws_what_gpus_drew(name):
    seed, shape, places, values, tolerance = CUDA_DRAWS[name]
    generator = PhiloxGenerator(seed)
    for place, value in zip(places, values, strict=True):
        assert (generator.randn(shape)[place] - torch.tensor(value)).abs().max() < tolerance


def test_philox_is_normal_and_takes_all_bits_of_the_seed():
    noise = PhiloxGenerator(1).randn((PHILOX_LIMIT,)).double()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((noise**power).mean()) - moment) < 4.5 * math.sqrt(variance / PHILOX_LIMIT)
    assert noise.isfinite().all()
    seeds = (1, 1 + 2**32, 1 + 2**63, 2**64 - 1)
    assert len({float(PhiloxGenerator(seed).randn((1,))) for seed in seeds}) == len(seeds)


def test_philox_refuses_what_gpus_do_not_agree_on():
    with pytest.raises(ValueError, match="262144 elements an image, not 262148.*noise='cpu'"):
        streams("philox", seeds=0, images=1).initial((1, 4, 65537), "cpu", torch.float32)
    check_noise("philox", None, 0, 1, elements=PHILOX_LIMIT)
    with pytest.raises(ValueError, match="not 262145"):
        check_noise("philox", None, 0, 1, elements=PHILOX_LIMIT + 1)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch.randn on a GPU is the reference, and there is none here"
)
@pytest.mark.parametrize("seed", [0, 1234, 2**40 + 5])
def test_philox_equals_the_gpu_of_this_machine(seed):
    properties = torch.cuda.get_device_properties(0)
    threads = properties.multi_processor_count * properties.max_threads_per_multi_processor
    size = min(threads, PHILOX_LIMIT) // 64 // 4
    theirs, ours = torch.Generator("cuda").manual_seed(seed), PhiloxGenerator(seed)
    for shape in ((4, 64, size // 4 * 4), (12,), (4, 32, 32)):
        drawn = torch.randn(shape, generator=theirs, device="cuda").cpu()
        assert (drawn - ours.randn(shape)).abs().max() < 5e-6  # the GPU's sine and cosine are approximate


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


BAD = {
    "a name": (("phlox", None, None), ValueError, "unknown noise 'phlox': did you mean 'philox'.*brownian_tree"),
    "not a name": ((3, None, None), TypeError, "noise is the name of a source, not 3.*comfy"),
    "both": (("torch", torch.Generator(), 7), ValueError, "seeds=7 and generator= each decide"),
    "too few seeds": (("torch", None, [1, 2]), ValueError, "2 seeds for 3 images"),
    "a negative seed": (("torch", None, -1), ValueError, "seed -1 is not in 0 to"),
    "a large seed": (("torch", None, [1, 2, 2**64]), ValueError, "18446744073709551616 is not in"),
    "a seed's type": (("torch", None, [1, 2, 0.5]), TypeError, "whole number"),
    "a generator's type": (("torch", 7, None), TypeError, "not 7"),
    "too few generators": (("torch", generators(1, 2), None), ValueError, "2 generators for 3 images"),
    **{f"{name} unseeded": ((name, None, None), ValueError, f"noise='{name}' starts from a seed") for name in SEEDED},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    arguments, error, message = BAD[name]
    for call in (check_noise, lambda *given: noise_streams(*given, "cpu")):
        with pytest.raises(error, match=message):
            call(*arguments, 3)


class OnGpu(torch.Generator):
    """Stands in for a GPU's."""

    device = torch.device("cuda")


def test_the_cpu_source_wants_generators_of_the_cpu():
    with pytest.raises(ValueError, match=r"^noise='cpu' cannot draw from a generator on cuda: use torch.Generator"):
        check_noise("cpu", OnGpu(), None, 1)
    check_noise("torch", OnGpu(), None, 1)


def test_good_input_passes_and_registry_names_agree():
    for name, source in NOISE_SOURCES.items():
        assert source.name == name and source.reproduces and source.needs
        check_noise(name, None, [1, 2, np.int64(3)], 3)
        check_noise(name, generators(1)[0], None, 3)
    assert all((check_noise(name, None, None, 3) or True) for name in NOISE_SOURCES if name not in SEEDED)
