"""Restart: Heun's method, with stretches that are gone again after as much noise as leads back to where they begin."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator, levels_of

RHO = 7.0  # of the steps of a stretch, as Karras et al. 2022 have it


class Segment(NamedTuple):
    """A stretch: from `high` down to `low` in so many steps, so many times."""

    steps: int
    times: int
    low: float
    high: float


SEGMENTS = (Segment(9, 1, 0.1, 2.0),)


@torch.no_grad()
def sample_restart(
    model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0, noise_sampler=None,
    segments=SEGMENTS,
):  # fmt: skip
    """Restart sampling; arguments as told in `exponential_multistep`, and this.

    segments: each (steps, times, low, high) is gone again when the grid's level nearest to `low` is reached, which
    stands for it. Those that do not lie within the grid are left out.
    """
    evaluate, levels = Evaluator(model, x, extra_args, callback), levels_of(sigmas)
    noise_sampler, ends = noise_sampler or k_sampling.default_noise_sampler(x), _ends(levels, segments)
    for i in trange(len(sigmas) - 1, disable=disable):
        x = _heun(evaluate, x, evaluate.begin(i, x, sigmas[i]), levels[i], levels[i + 1])
        for segment in ends.get(i + 1, ()):
            for _ in range(segment.times):
                x = _again(evaluate, x, segment, s_noise, noise_sampler)
    return x


def _again(model: Evaluator, x, segment: Segment, s_noise: float, noise_sampler) -> torch.Tensor:
    """Up from segment.low by noise, and down to it."""
    amount = (segment.high**2 - segment.low**2) ** 0.5 * s_noise
    x = x + noise_sampler(segment.low, segment.high) * amount
    high, low = segment.high ** (1 / RHO), segment.low ** (1 / RHO)
    inner = [(high + (low - high) * i / segment.steps) ** RHO for i in range(1, segment.steps)]
    grid = [segment.high, *inner, segment.low]
    for sigma, sigma_next in zip(grid, grid[1:], strict=False):
        x = _heun(model, x, model(x, sigma), sigma, sigma_next)
    return x


def _heun(model: Evaluator, x, denoised, sigma: float, sigma_next: float) -> torch.Tensor:
    """From sigma to sigma_next; a step to 0 returns the denoised estimate."""
    if sigma_next == 0:
        return denoised
    slope, length = (x - denoised) / sigma, sigma_next - sigma
    ahead = x + length * slope
    return x + length / 2 * (slope + (ahead - model(ahead, sigma_next)) / sigma_next)


def _ends(levels: list[float], segments: Sequence) -> dict[int, list[Segment]]:
    """The segments that follow when a level, by its index, is reached."""
    ends, inner = {}, [index for index, level in enumerate(levels) if index > 0 and level > 0]
    for segment in (Segment(*one) for one in segments):
        if segment.high > levels[0] or not inner:
            continue
        index = min(inner, key=lambda index: abs(levels[index] - segment.low))
        if levels[index] < segment.high:
            ends.setdefault(index, []).append(segment._replace(low=levels[index]))
    return ends
