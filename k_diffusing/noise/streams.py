"""Streams of unit noise: that of the initial latents, and that which a sampler adds in its steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing._tensors import same_level
from k_diffusing.noise.brownian import BrownianPath

Generators = torch.Generator | list[torch.Generator] | None


Seeds = int | list[int]


Draw = Callable[[tuple, torch.device, torch.dtype], torch.Tensor]  # (shape, device, dtype) -> unit noise


REMEMBERED = 16  # intervals of a Brownian path; samplers look back on one or two


@dataclass(frozen=True)
class Streams:
    """The noise of one call of a pipeline. Each draw continues the same streams.

    draw: of unit noise. first: of the initial latents, if they have streams of their own. tree_seeds: of k-diffusion's
    tree, one for the batch or one for each image; None: a BrownianPath instead. tree_device: where the tree draws if
    not where x is. unpacked: the program reproduced here draws noise for latents that are not packed. skips_initial:
    its streams begin with the initial latents' noise, whoever drew those. tree_on_grid: the program asks its tree for
    the grid's own sigmas, where k_diffusion's functions ask for exp(log sigma), which may round to another time.
    """

    draw: Draw
    first: Draw | None = None
    tree_seeds: Callable[[], Seeds] | None = None
    tree_device: str | None = None
    unpacked: bool = False
    skips_initial: bool = False
    tree_on_grid: bool = False

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
        shape: tuple = x.shape
        if pack is None or unpacked_shape is None or not self.unpacked:
            pack = _as_it_is
        else:
            shape = unpacked_shape

        def draw() -> torch.Tensor:
            return pack(self.draw(tuple(shape), x.device, x.dtype))

        if kind != "brownian":
            return lambda sigma, sigma_next: draw()
        if self.tree_seeds is None:
            return BrownianPath(draw, remember=REMEMBERED)
        like = torch.empty(shape, dtype=x.dtype, device=self.tree_device or x.device)
        tree = _tree(like, sigmas, self.tree_seeds(), time, self.tree_on_grid)
        return lambda sigma, sigma_next: pack(tree(sigma, sigma_next).to(x))


def _as_it_is(noise: torch.Tensor) -> torch.Tensor:
    return noise


def _tree(like: torch.Tensor, sigmas: torch.Tensor, seeds: Seeds, time: Callable, on_grid: bool) -> Callable:
    """k-diffusion's BrownianTreeNoiseSampler, without torchsde's warnings at the ends of its range."""
    bounds = [float(time(bound)) for bound in (sigmas[sigmas > 0].min(), sigmas.max())]
    tree = k_sampling.BatchedBrownianTree(like, *bounds, seeds)
    low, high = (round(bound, 6) for bound in bounds)  # torchsde rounds them so, then clamps to them and warns

    def time_at(level) -> torch.Tensor:
        level = torch.as_tensor(level).cpu()
        if on_grid:
            near = sigmas[(sigmas - level).abs().argmin()]
            level = near if same_level(float(near), float(level)) else level
        return time(level)

    def noise_sampler(sigma, sigma_next):
        start, end = time_at(sigma), time_at(sigma_next)
        return tree(*(min(max(float(t), low), high) for t in (start, end))) / (end - start).abs().sqrt()

    return noise_sampler
