"""Philox: known answers, and what GPUs draw."""

import math

import numpy as np
import pytest
import torch
from noise_draws import streams

from k_diffusing.noise.check import check_noise
from k_diffusing.noise.philox import PHILOX_LIMIT, PhiloxGenerator, philox

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
