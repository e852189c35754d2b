"""The noise of A1111's web UI with its settings: where it is drawn, variation seeds, the seed that steps add."""

from functools import partial

import torch

from k_diffusing._messages import unknown
from k_diffusing.noise.philox import PhiloxGenerator
from k_diffusing.noise.sources import (
    NOISE_SOURCES,
    Draw,
    NoiseSource,
    randn,
    seeded_generators,
    seeds_of,
    seeds_of_images,
)
from k_diffusing.noise.streams import Generators, Streams

RNG = ("GPU", "CPU", "NV")


def a1111_noise(
    rng: str = "GPU", ensd: int = 0, variation_seed: int | None = None, variation_strength: float = 0.0
) -> NoiseSource:
    """The noise source of its settings.

    Args:
        rng: "Random number generator source": "GPU" (where the latents lie), "CPU" or "NV" (CUDA's, on the CPU).
        ensd: "Eta noise seed delta": the steps draw from streams of seed + ensd.
        variation_seed: That of the first image; the next have one more each, and all have one seed.
        variation_strength: From 0, the seed's noise alone, to 1, the variation seed's.

    Raises:
        ValueError: A value that A1111 does not have.
    """
    if rng not in RNG:
        raise ValueError(f"{unknown('rng', rng, RNG)} Choose one of {', '.join(RNG)}")
    if not 0 <= variation_strength <= 1:
        raise ValueError(f"variation_strength={variation_strength!r}: give a number from 0 to 1")
    if variation_strength and variation_seed is None:
        raise ValueError(f"variation_strength={variation_strength!r} needs variation_seed, a whole number")
    variation = (variation_seed, variation_strength) if variation_strength else None
    if (rng, ensd, variation) == ("GPU", 0, None):
        return NOISE_SOURCES["a1111"]
    told = [f"RNG {rng}", f"ENSD {ensd}"] + ([f"variation seed {variation_seed}"] if variation else [])
    plain = NOISE_SOURCES["a1111"]
    streams = partial(_streams, rng, ensd, variation)
    return NoiseSource("a1111", f"{plain.reproduces}; {', '.join(told)}", plain.needs, streams, seeded=True)


def _streams(rng: str, ensd: int, variation, generators: Generators, images: int, device) -> Streams:
    seeds = seeds_of(generators)
    seeds = [seeds] * images if variation and not isinstance(seeds, list) else seeds_of_images(seeds, images)
    draw = _draw(rng, seeds, device)
    later, first = _draw(rng, seeds, device, add=ensd) if ensd else draw, draw
    if variation:
        seed, strength = variation
        first = _varied(draw, _draw(rng, seeds_of_images(seed, images), device), strength)
    return Streams(
        later,
        first,
        tree_seeds=_no_tree if rng == "NV" else lambda: seeds,
        tree_device="cpu" if rng == "CPU" else None,
        unpacked=True,
        skips_initial=not ensd,
    )


def _draw(rng: str, seeds: list[int], device, add: int = 0) -> Draw:
    """A stream for each image."""
    if rng == "NV":
        streams = [PhiloxGenerator((seed + add) % 2**64) for seed in seeds]
        return lambda shape, on, dtype: torch.stack([one.randn(shape[1:]) for one in streams]).to(on, dtype)
    on = "cpu" if rng == "CPU" or torch.device(device).type == "mps" else device
    return randn(seeded_generators(seeds, on, add=add), on=on, wide=True)


def _varied(draw: Draw, other: Draw, strength: float) -> Draw:
    """Noise turned towards another's by a part of the angle between their columns: A1111 takes those of one height."""

    def varied(shape, device, dtype):
        own, theirs = draw(shape, device, dtype), other(shape, device, dtype)
        cosine = (_unit(own) * _unit(theirs)).sum(2, keepdim=True)
        angle = torch.acos(cosine)
        turned = (torch.sin((1 - strength) * angle) * own + torch.sin(strength * angle) * theirs) / torch.sin(angle)
        alike = cosine.mean((1, 2, 3), keepdim=True) > 0.9995
        return torch.where(alike, own * strength + theirs * (1 - strength), turned)

    return varied


def _unit(noise: torch.Tensor) -> torch.Tensor:
    return noise / noise.norm(dim=2, keepdim=True)


def _no_tree():
    raise ValueError(
        "rng='NV' with a sampler that draws from a Brownian tree: A1111 draws the tree's values as CUDA does, which is "
        "not reproduced here. Take another sampler, or rng='CPU' or 'GPU' for a picture of its own"
    )
