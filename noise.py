"""Where noise comes from: that of the initial latents, and that which a sampler adds in its steps.

    streams = noise_streams("philox", None, [7, 8], images=2, device="cpu")
    latents = streams.initial((2, 4, 128, 128), "cpu", torch.float32)
    noise_sampler = streams.step_noise(x, sigmas, "brownian")  # (sigma, sigma_next) -> unit noise, shaped as x

`NOISE_SOURCES` says what each source reproduces and what it needs. torch's global generators are touched only where
generator=None means them, as it does everywhere in diffusers.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch

from k_diffusion_import import k_sampling  # before diffusers: it copes with a torchvision that does not import

# isort: split
from diffusers.utils.torch_utils import randn_tensor

from brownian_path import BrownianPath
from philox import PhiloxGenerator, check_philox_size

Generators = torch.Generator | list[torch.Generator] | None
Seeds = int | list[int]
Draw = Callable[[tuple, torch.device, torch.dtype], torch.Tensor]  # (shape, device, dtype) -> unit noise

REMEMBERED = 16  # intervals of a Brownian path; samplers look back on one or two
COMFY_DROPS_PENULTIMATE = frozenset({"dpm_2", "dpm_2_ancestral"})


@dataclass(frozen=True)
class Streams:
    """The noise of one call of a pipeline. Each draw continues the same streams.

    draw: of unit noise. first: of the initial latents, if they have streams of their own. tree_seeds: of k-diffusion's
    tree, one for the batch or one for each image; None: a BrownianPath instead. tree_device: where the tree draws if
    not where x is. unpacked: the program reproduced here draws noise for latents that are not packed. skips_initial:
    its streams begin with the initial latents' noise, whoever drew those.
    """

    draw: Draw
    first: Draw | None = None
    tree_seeds: Callable[[], Seeds] | None = None
    tree_device: str | None = None
    unpacked: bool = False
    skips_initial: bool = False

    def initial(self, shape: tuple, device, dtype: torch.dtype) -> torch.Tensor:
        """Unit noise [images, ...] of the initial latents; "comfy" and "a1111" make it float32 where dtype is less."""
        return (self.first or self.draw)(tuple(shape), torch.device(device), dtype)

    def after_initial(self, shape: tuple, device, dtype: torch.dtype) -> "Streams":
        """These streams, where the initial latents were drawn elsewhere: a source that goes on after those skips them.

        Raises ValueError for packed latents [images, tokens, channels] of a source that draws them unpacked.
        """
        if self.unpacked and len(shape) == 3:
            raise ValueError(
                f"latents of the shape {tuple(shape)} are packed, and this source draws its noise before packing: use "
                "our FluxPipeline, which packs it, or noise='torch', 'cpu' or 'brownian_tree'"
            )
        if self.skips_initial:
            self.initial(shape, device, dtype)
        return self

    def step_noise(
        self, x: torch.Tensor, sigmas: torch.Tensor, kind: str | None = "gaussian",
        unpacked_shape: tuple | None = None, pack: Callable | None = None, time: Callable = lambda sigma: sigma,
    ) -> Callable:  # fmt: skip
        """A `noise_sampler(sigma, sigma_next)` of unit variance, shaped as x.

        kind "brownian": increments of one Brownian path; any other: a fresh draw at each call. sigmas: the grid, on
        the CPU; a tree spans it. unpacked_shape, pack: for FLUX's packed x, the shape [images, ...] of latents and the
        function that packs them, used where the program draws unpacked noise. time: a tree's time at a sigma;
        ComfyUI's on FLUX is t, so in VE coordinates sigma / (1 + sigma).
        """
        shape, pack = (unpacked_shape, pack) if pack and self.unpacked else (x.shape, lambda noise: noise)

        def draw() -> torch.Tensor:
            return pack(self.draw(tuple(shape), x.device, x.dtype))

        if kind != "brownian":
            return lambda sigma, sigma_next: draw()
        if self.tree_seeds is None:
            return BrownianPath(draw, remember=REMEMBERED)
        like = torch.empty(shape, dtype=x.dtype, device=self.tree_device or x.device)
        tree = _tree(like, sigmas, self.tree_seeds(), time)
        return lambda sigma, sigma_next: pack(tree(sigma, sigma_next).to(x))


def _tree(like: torch.Tensor, sigmas: torch.Tensor, seeds: Seeds, time: Callable) -> Callable:
    """k-diffusion's BrownianTreeNoiseSampler, without torchsde's warnings at the ends of its range."""
    bounds = [float(time(bound)) for bound in (sigmas[sigmas > 0].min(), sigmas.max())]
    tree = k_sampling.BatchedBrownianTree(like, *bounds, seeds)
    low, high = (round(bound, 6) for bound in bounds)  # torchsde rounds them so, then clamps to them and warns

    def noise_sampler(sigma, sigma_next):
        start, end = (time(torch.as_tensor(level).cpu()) for level in (sigma, sigma_next))
        return tree(*(min(max(float(t), low), high) for t in (start, end))) / (end - start).abs().sqrt()

    return noise_sampler


def _randn(generators: Generators, on: str | None = None, wide: bool = False) -> Draw:
    """diffusers' randn_tensor: a stream for each image if each has a generator. on: the device; wide: in float32."""

    def draw(shape, device, dtype):
        dtype = torch.promote_types(dtype, torch.float32) if wide else dtype
        return randn_tensor(shape, generator=generators, device=torch.device(on or device), dtype=dtype).to(device)

    return draw


def _generators(seeds: Seeds, device="cpu", add: int = 0) -> Generators:
    if isinstance(seeds, list):
        return [_generators(seed, device, add) for seed in seeds]
    return torch.Generator(device).manual_seed((seeds + add) % 2**64)


def _seeds(generators: Generators) -> Seeds:
    return [one.initial_seed() for one in generators] if isinstance(generators, list) else generators.initial_seed()


def _each(seeds: Seeds, images: int) -> list[int]:
    return seeds if isinstance(seeds, list) else [(seeds + i) % 2**64 for i in range(images)]


def _torch_streams(generators: Generators, images: int, device) -> Streams:
    return Streams(_randn(generators))


def _cpu_streams(generators: Generators, images: int, device) -> Streams:
    return Streams(_randn(generators, on="cpu"))


def _tree_streams(generators: Generators, images: int, device) -> Streams:
    def tree_seed(one: torch.Generator | None) -> int:
        on = "cpu" if one is None else one.device
        return torch.randint(0, 2**63 - 1, (), generator=one, device=on).item()

    each = generators if isinstance(generators, list) else [generators] * images
    return Streams(_randn(generators), tree_seeds=lambda: [tree_seed(one) for one in each])


def _philox_streams(generators: Generators, images: int, device) -> Streams:
    """A CUDA generator for each image. Not reproduced: NV with SDE samplers, where web UIs draw a tree's values so."""
    streams = [PhiloxGenerator(seed) for seed in _each(_seeds(generators), images)]

    def draw(shape, device, dtype):
        return torch.stack([one.randn(shape[1:]) for one in streams]).to(device, dtype)

    return Streams(draw, unpacked=True, skips_initial=True)


def _comfy_streams(generators: Generators, images: int, device) -> Streams:
    """ComfyUI's newest; up to 0.3.75, on a CPU, the steps' seed is that of the initial noise, not one more.

    Not reproduced: churn (its KSampler has none), the tree on the GPU of the samplers named `_gpu`.
    """
    seeds, on_cpu = _seeds(generators), torch.device(device).type == "cpu"
    later, first = _generators(seeds, device, add=int(on_cpu)), _generators(seeds)
    draw, initial = _randn(later, wide=True), _randn(first, wide=True)
    return Streams(draw, initial, tree_seeds=lambda: seeds, tree_device="cpu", unpacked=True)


def _a1111_streams(generators: Generators, images: int, device) -> Streams:
    """A1111's web UI since 1.6 with its default settings. Not reproduced: variation and resized seeds, ENSD."""
    seeds = _each(_seeds(generators), images)
    own = _generators(seeds, "cpu" if torch.device(device).type == "mps" else device)
    return Streams(_randn(own, wide=True), tree_seeds=lambda: seeds, unpacked=True, skips_initial=True)


@dataclass(frozen=True)
class NoiseSource:
    """A source. streams(generators, images, device) makes its `Streams`; seeded: from the generators' seeds alone."""

    name: str
    reproduces: str
    needs: str
    streams: Callable[..., Streams]
    seeded: bool = False


_ANY, _SEED = "nothing; generators or seeds to be repeatable", "seeds, or generators, whose initial_seed() is taken"
NOISE_SOURCES = {
    "torch": NoiseSource("torch", "diffusers, to the bit; a BrownianPath for SDE samplers", _ANY, _torch_streams),
    "cpu": NoiseSource("cpu", "torch, on the CPU for any device; web UIs' CPU", f"{_ANY}, on the CPU", _cpu_streams),
    "philox": NoiseSource("philox", "torch's CUDA generators; web UIs' NV", _SEED, _philox_streams, seeded=True),
    "comfy": NoiseSource("comfy", "ComfyUI, a batch from one seed", _SEED, _comfy_streams, seeded=True),
    "a1111": NoiseSource("a1111", "A1111's web UI, each image from its seed", _SEED, _a1111_streams, seeded=True),
    "brownian_tree": NoiseSource("brownian_tree", "torch, with k-diffusion's tree", _ANY, _tree_streams),
}


def check_source(noise: str) -> None:
    """Raise TypeError or ValueError unless it is the name of a source."""
    choices = f"choose one of {', '.join(NOISE_SOURCES)}"
    if not isinstance(noise, str):
        raise TypeError(f"noise is the name of a source, not {noise!r}: {choices}")
    if noise not in NOISE_SOURCES:
        nearest = difflib.get_close_matches(noise, NOISE_SOURCES, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown noise {noise!r}: did you mean {nearest!r}? Or {choices}")


def check_noise(noise: str, generator: Generators, seeds, images: int, elements: int | None = None) -> None:
    """Raise TypeError or ValueError, naming value, reason and cure, unless these go together.

    seeds: None, a whole number, or a list of one for each image. elements: of one image's latents, if known.
    """
    check_source(noise)
    check_generator(generator, images)
    check_seeds(seeds, images)
    if seeds is not None and generator is not None:
        raise ValueError(f"seeds={seeds!r} and generator= each decide the noise: leave one of them out")
    if seeds is None and generator is None and NOISE_SOURCES[noise].seeded:
        raise ValueError(f"noise={noise!r} starts from a seed: pass seeds=7, or a generator after manual_seed(7)")
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
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed} is not in 0 to 2**64 - 1: for a random one pass random.getrandbits(32)")
    if isinstance(seeds, list) and len(seeds) != images:
        raise ValueError(f"got {len(seeds)} seeds for {images} images: pass one for each, or a single number")


def noise_streams(noise: str, generator: Generators, seeds: Seeds | None, images: int, device) -> Streams:
    """The `Streams` of one call of a pipeline, for latents on `device`. Raises as check_noise.

    A single seed stands for seed, seed + 1, ... of the images; in "comfy" it is the batch's, and a list makes each
    image a batch of its own. Seeds become generators on the CPU, which mean the same on every machine, except that
    "comfy" and "a1111" draw where those programs do.
    """
    check_noise(noise, generator, seeds, images)
    source = NOISE_SOURCES[noise]
    if seeds is not None:
        seeds = [int(seed) for seed in seeds] if isinstance(seeds, list) else int(seeds)
        generator = _generators(seeds if source.seeded else _each(seeds, images))
    return source.streams(generator, images, device)


def drops_penultimate(noise: str, sampler: str) -> bool:
    """Whether the program reproduced makes its grid one step longer for this sampler, less the last sigma above 0."""
    return noise in ("comfy", "a1111") and sampler in COMFY_DROPS_PENULTIMATE


def comfy_initial_scale(sigma_0, sigma_max) -> torch.Tensor:
    """What ComfyUI multiplies unit noise by at the first sigma of a grid, where data are x0 + sigma eps: 0-dim.

    sqrt(1 + sigma_0^2) at the model's sigma_max, sigma_0 below it. (On flow models always t.)
    """
    sigma = torch.as_tensor(sigma_0)
    at_top = float(sigma) > float(sigma_max) or math.isclose(float(sigma), float(sigma_max), rel_tol=1e-5)
    return torch.sqrt(1.0 + sigma**2.0) if at_top else sigma


def initial_scale(noise: str, grid, sigma_max) -> torch.Tensor | float:
    """What the program reproduced multiplies unit noise by, where data are x0 + sigma eps: else the grid's own scale.

    A1111's web UI: the first sigma, unless told to use its "SGM noise multiplier".
    """
    if noise == "comfy":
        return comfy_initial_scale(grid.sigmas[0], sigma_max)
    return grid.sigmas[0] if noise == "a1111" else grid.initial_scale
