"""Where noise comes from: `NOISE_SOURCES` says what each source reproduces and what it needs.

torch's global generators are touched only where generator=None means them, as it does everywhere in diffusers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from k_diffusing.noise.philox import PhiloxGenerator
from k_diffusing.noise.streams import Draw, Generators, Seeds, Streams


def randn(generators: Generators, on: str | torch.device | None = None, wide: bool = False) -> Draw:
    """diffusers' randn_tensor: a stream for each image if each has a generator. on: the device; wide: in float32."""

    def draw(shape, device, dtype):
        dtype = torch.promote_types(dtype, torch.float32) if wide else dtype
        return randn_tensor(shape, generator=generators, device=torch.device(on or device), dtype=dtype).to(device)

    return draw


def seeded_generators(seeds: Seeds, device="cpu", add: int = 0) -> Generators:
    """A generator for the seed, or one for each, on the device; add: to each seed."""

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator(device).manual_seed((seed + add) % 2**64)

    return [seeded(seed) for seed in seeds] if isinstance(seeds, list) else seeded(seeds)


def seeds_of(generators: Generators) -> Seeds:
    """What they were seeded with; there is one at least, which check_noise saw to."""
    if isinstance(generators, list):
        return [one.initial_seed() for one in generators]
    assert generators is not None
    return generators.initial_seed()


def seeds_of_images(seeds: Seeds, images: int) -> list[int]:
    """A seed for each image: those of the list, or seed, seed + 1, ..."""
    return seeds if isinstance(seeds, list) else [(seeds + i) % 2**64 for i in range(images)]


def _torch_streams(generators: Generators, images: int, device) -> Streams:
    return Streams(randn(generators))


def _cpu_streams(generators: Generators, images: int, device) -> Streams:
    return Streams(randn(generators, on="cpu"))


def _tree_streams(generators: Generators, images: int, device) -> Streams:
    def tree_seed(one: torch.Generator | None) -> int:
        on = "cpu" if one is None else one.device
        return int(torch.randint(0, 2**63 - 1, (), generator=one, device=on).item())

    each = generators if isinstance(generators, list) else [generators] * images
    return Streams(randn(generators), tree_seeds=lambda: [tree_seed(one) for one in each])


def _philox_streams(generators: Generators, images: int, device) -> Streams:
    """A CUDA generator for each image. Not reproduced: NV with SDE samplers, where web UIs draw a tree's values so."""
    streams = [PhiloxGenerator(seed) for seed in seeds_of_images(seeds_of(generators), images)]

    def draw(shape, device, dtype):
        return torch.stack([one.randn(shape[1:]) for one in streams]).to(device, dtype)

    return Streams(draw, unpacked=True, skips_initial=True)


def _comfy_streams(generators: Generators, images: int, device) -> Streams:
    """ComfyUI's newest; up to 0.3.75, on a CPU, the steps' seed is that of the initial noise, not one more.

    Not reproduced: churn (its KSampler has none), the tree on the GPU of the samplers named `_gpu`.
    """
    seeds, on_cpu = seeds_of(generators), torch.device(device).type == "cpu"
    later, first = seeded_generators(seeds, device, add=int(on_cpu)), seeded_generators(seeds)
    draw, initial = randn(later, wide=True), randn(first, wide=True)
    return Streams(draw, initial, tree_seeds=lambda: seeds, tree_device="cpu", unpacked=True, tree_on_grid=True)


def _a1111_streams(generators: Generators, images: int, device) -> Streams:
    """A1111's web UI since 1.6 with its default settings. With others: `noise.a1111`."""
    seeds = seeds_of_images(seeds_of(generators), images)
    own = seeded_generators(seeds, "cpu" if torch.device(device).type == "mps" else device)
    return Streams(randn(own, wide=True), tree_seeds=lambda: seeds, unpacked=True, skips_initial=True)


@dataclass(frozen=True)
class NoiseSource:
    """A source of noise.

    Attributes:
        streams: (generators, images, device) -> its `Streams`.
        seeded: Whether these come from the generators' seeds alone.
    """

    name: str
    reproduces: str
    needs: str
    streams: Callable[..., Streams]
    seeded: bool = False

    def __str__(self) -> str:
        return self.name


_ANY, _SEED = "nothing; generators or seeds to be repeatable", "seeds, or generators, whose initial_seed() is taken"


NOISE_SOURCES = {
    "torch": NoiseSource("torch", "diffusers, to the bit; a BrownianPath for SDE samplers", _ANY, _torch_streams),
    "cpu": NoiseSource("cpu", "torch, on the CPU for any device; web UIs' CPU", f"{_ANY}, on the CPU", _cpu_streams),
    "philox": NoiseSource("philox", "torch's CUDA generators; web UIs' NV", _SEED, _philox_streams, seeded=True),
    "comfy": NoiseSource("comfy", "ComfyUI, a batch from one seed", _SEED, _comfy_streams, seeded=True),
    "a1111": NoiseSource("a1111", "A1111's web UI, each image from its seed", _SEED, _a1111_streams, seeded=True),
    "brownian_tree": NoiseSource("brownian_tree", "torch, with k-diffusion's tree", _ANY, _tree_streams),
}
