"""Whether a noise source, generators and seeds go together."""

from numbers import Integral

import torch

from k_diffusing.names.noise import check_noise_name
from k_diffusing.noise.philox import check_philox_size
from k_diffusing.noise.sources import NOISE_SOURCES, NoiseSource
from k_diffusing.noise.streams import Generators


def check_source(noise: str | NoiseSource) -> NoiseSource:
    """The record of a source from its name, or itself. Raises TypeError or ValueError for anything else."""
    if isinstance(noise, NoiseSource):
        return noise
    check_noise_name(noise)
    return NOISE_SOURCES[noise]


def check_noise(
    noise: str | NoiseSource, generator: Generators, seeds, images: int, elements: int | None = None
) -> None:
    """Raise TypeError or ValueError, naming value, reason and cure, unless these go together.

    seeds: None, a whole number, or a list of one for each image. elements: of one image's latents, if known.
    """
    source = check_source(noise)
    check_generator(generator, images)
    check_seeds(seeds, images)
    if seeds is not None and generator is not None:
        raise ValueError(f"seeds={seeds!r} and generator= each decide the noise: leave one of them out")
    if seeds is None and generator is None and source.seeded:
        raise ValueError(f"noise={str(noise)!r} starts from a seed: pass seeds=7, or a generator after manual_seed(7)")
    devices = {one.device.type for one in (generator if isinstance(generator, list) else [generator]) if one}
    if noise == "cpu" and devices - {"cpu"}:
        raise ValueError(
            f"noise='cpu' cannot draw from a generator on {', '.join(devices)}: use torch.Generator('cpu')"
        )
    if noise == "philox" and elements is not None:
        check_philox_size(elements)


def check_generator(generator: Generators, images: int) -> None:
    """Raise TypeError or ValueError unless it is None, one generator, or one for each image."""
    generators = generator if isinstance(generator, list) else [generator]
    if generator is not None and not all(isinstance(one, torch.Generator) for one in generators):
        raise TypeError(f"generator is a torch.Generator or a list of them, one for each image, not {generator!r}")
    if isinstance(generator, list) and len(generator) != images:
        raise ValueError(f"got {len(generator)} generators for {images} images: pass one, or one for each image")


def check_seeds(seeds, images: int) -> None:
    """Raise TypeError or ValueError unless it is None, a whole number of 64 bits, or a list of one for each image."""
    for seed in [] if seeds is None else seeds if isinstance(seeds, list) else [seeds]:
        if not isinstance(seed, Integral) or isinstance(seed, bool):
            raise TypeError(f"seeds is a whole number or a list of them, one for each image, not {seeds!r}")
        if not 0 <= int(seed) < 2**64:
            raise ValueError(f"seed {seed} is not in 0 to 2**64 - 1: for a random one pass random.getrandbits(32)")
    if isinstance(seeds, list) and len(seeds) != images:
        raise ValueError(f"got {len(seeds)} seeds for {images} images: pass one for each, or a single number")
