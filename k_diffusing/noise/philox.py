"""torch's CUDA generator, reproduced on the CPU: Philox 4x32-10 and Box-Muller."""

import math

import numpy as np
import torch

PHILOX_LIMIT = 2**18  # elements an image


def philox(counter: tuple, key: tuple) -> tuple:
    """Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3).

    counter: four arrays, key: two numbers, all np.uint64 that hold 32-bit words. Returns four such arrays.
    """
    word, half = np.uint64(2**32 - 1), np.uint64(32)
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p2 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p2 >> half) ^ c1 ^ k0, p2 & word, (p0 >> half) ^ c3 ^ k1, p0 & word
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & word, (k1 + np.uint64(0xBB67AE85)) & word
    return c0, c1, c2, c3


def box_muller(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The first of the two normals of Box & Muller (1958), in float32, from 32-bit words, with cuRAND's constants."""
    unit, turn = np.float32(2**-32), np.float32(2 * np.pi) * np.float32(2**-32)
    u, v = x.astype(np.float32) * unit + unit / 2, y.astype(np.float32) * turn + turn / 2
    return np.sqrt(np.float32(-2) * np.log(u)) * np.sin(v)


class PhiloxGenerator:
    """torch's CUDA generator, on the CPU.

    The seed is the key. Element i of call n is the first normal at counter (n, 0, i, 0), since a thread of the GPU has
    its own subsequence and a call advances torch's offset by 4.

    That holds while a tensor has no more elements than the GPU runs threads at once (multiprocessors x threads
    each): 40,960 on a T4, 125,952 on an RTX 3090, 196,608 on a 4090, 221,184 on an A100, 270,336 on an H100. Beyond
    that torch takes further normals from the same subsequences; web UIs ("NV") go on as here, on any GPU.
    """

    def __init__(self, seed: int):
        self.key, self.calls = (np.uint64(seed % 2**32), np.uint64(seed // 2**32)), 0

    def randn(self, shape: tuple) -> torch.Tensor:
        """float32 noise on the CPU. Raises ValueError for more than PHILOX_LIMIT elements."""
        check_philox_size(math.prod(shape))
        element = np.arange(math.prod(shape), dtype=np.uint64)
        zero = np.zeros_like(element)
        x, y, _, _ = philox((zero + np.uint64(self.calls), zero, element, zero), self.key)
        self.calls += 1
        return torch.from_numpy(box_muller(x, y)).reshape(shape)


def check_philox_size(elements: int) -> None:
    """Raise ValueError for an image of more elements than any GPU draws as this source does."""
    if elements > PHILOX_LIMIT:
        raise ValueError(
            f"noise='philox' draws up to {PHILOX_LIMIT} elements an image, not {elements}: beyond that GPUs differ "
            "from each other. Make the image smaller, or choose noise='cpu', which is the same everywhere"
        )
