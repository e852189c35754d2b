"""The noise of one call of a pipeline.

streams = noise_streams("philox", None, [7, 8], images=2, device="cpu")
latents = streams.initial((2, 4, 128, 128), "cpu", torch.float32)
noise_sampler = streams.step_noise(x, sigmas, "brownian")  # (sigma, sigma_next) -> unit noise, shaped as x
"""

from k_diffusing.noise.check import check_noise, check_source
from k_diffusing.noise.sources import NoiseSource, seeded_generators, seeds_of_images
from k_diffusing.noise.streams import Generators, Seeds, Streams


def noise_streams(noise: str | NoiseSource, generator: Generators, seeds: Seeds | None, images: int, device) -> Streams:
    """The `Streams` of one call of a pipeline, for latents on `device`. Raises as check_noise.

    A single seed stands for seed, seed + 1, ... of the images; in "comfy" it is the batch's, and a list makes each
    image a batch of its own. Seeds become generators on the CPU, which mean the same on every machine, except that
    "comfy" and "a1111" draw where those programs do.
    """
    check_noise(noise, generator, seeds, images)
    source = check_source(noise)
    if seeds is not None:
        seeds = [int(seed) for seed in seeds] if isinstance(seeds, list) else int(seeds)
        generator = seeded_generators(seeds if source.seeded else seeds_of_images(seeds, images))
    return source.streams(generator, images, device)
