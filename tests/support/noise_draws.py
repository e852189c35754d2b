"""Draws from the noise sources."""

import torch

from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NOISE_SOURCES
from samplers_patch import k_sampling

SIGMAS = k_sampling.get_sigmas_karras(8, 0.03, 14.6)
SHAPE = (3, 4, 8, 8)
SEEDED = [name for name, source in NOISE_SOURCES.items() if source.seeded]


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def streams(noise, generator=None, seeds=None, images=3):
    return noise_streams(noise, generator, seeds, images, "cpu")


def draws(source, kind="gaussian", images=slice(None)):
    x = torch.zeros(SHAPE)[images]
    noise = source.step_noise(x, SIGMAS, kind)
    pairs = [(SIGMAS[i], SIGMAS[i + 1]) for i in range(4)]
    pairs.append((SIGMAS[1], (SIGMAS[1] + SIGMAS[2]) / 2))
    return torch.stack([source.initial(x.shape, "cpu", torch.float32), *(noise(*pair) for pair in pairs)])
