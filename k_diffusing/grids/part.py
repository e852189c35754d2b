"""Which steps of a sigma grid are taken: those that ComfyUI's KSampler nodes take of theirs, or A1111's img2img.

part = Part(denoise=0.6)
grid = part.of(discrete_grid(scheduler, schedule, part.grid_steps(20)), 20)  # the last 20 of 33 steps
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

import torch

from k_diffusing.grids.choose import SigmaGrid

ALL = 0.9999  # a denoise above it takes the whole grid, as there


def ends_of_longer_grids(steps: int, denoise: float) -> tuple[int, int]:
    """The steps of the grid, and the index of the first one taken: as many as asked for, as ComfyUI does it."""
    return int(steps / denoise), -steps


@dataclass(frozen=True)
class Part:
    """A part of a grid.

    Attributes:
        denoise: How much of the noise is removed, above 0, of at most 1: below it `cut` says what is taken of which
            grid; without one the last n steps of a grid of n / denoise.
        start_step: The first step to take, from 0; None: the first.
        end_step: The step to end before; None: after the last.
        leftover: Whether what ends early keeps its noise; or else its last step leads to 0.
        cut: (steps, denoise) -> the steps of the grid, and the index of the first one taken, below 0 from its end.

    Raises:
        TypeError: A value is no number.
        ValueError: It is out of range.
    """

    denoise: float | None = None
    start_step: int | None = None
    end_step: int | None = None
    leftover: bool = False
    cut: Callable[[int, float], tuple[int, int]] = ends_of_longer_grids

    def __post_init__(self):
        if self.denoise is not None:
            if not isinstance(self.denoise, Real) or isinstance(self.denoise, bool):
                raise TypeError(f"denoise={self.denoise!r}: give a number above 0, of at most 1")
            if not 0 < self.denoise <= 1:
                raise ValueError(f"denoise={self.denoise!r}: give a number above 0, of at most 1 (pure noise)")
        for name in ("start_step", "end_step"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r}: give the number of a step, counted from 0")
            if value < 0:
                raise ValueError(f"{name}={value}: steps are counted from 0")

    @property
    def from_the_top(self) -> bool:
        """Whether it begins with the first sigma of a grid that is left as it is."""
        return self.all_noise and not self.start_step

    @property
    def all_noise(self) -> bool:
        """Whether denoise leaves the grid as it is."""
        return self.denoise is None or self.denoise > ALL

    def grid_steps(self, steps: int) -> int:
        """The steps of the grid of which `steps` are to be taken."""
        return steps if self.denoise is None or self.all_noise else self.cut(steps, self.denoise)[0]

    def of(self, grid: SigmaGrid, steps: int) -> SigmaGrid:
        """The part of a grid of grid_steps(steps) steps. Raises ValueError where it has no step."""
        count = len(grid.sigmas) - 1
        first = 0
        if self.denoise is not None and not self.all_noise:
            first = range(count)[slice(self.cut(steps, self.denoise)[1], None)].start
        last = count if self.end_step is None else min(first + self.end_step, count)
        first += self.start_step or 0
        if first >= last and count > 0:
            raise ValueError(
                f"start_step={self.start_step}, end_step={self.end_step} leave no step of {count}: start before the "
                "step that is the end"
            )
        sigmas = grid.sigmas[first : last + 1]
        if last < count and not self.leftover:
            sigmas = torch.cat([sigmas[:-1], torch.zeros(1)])
        return grid._replace(sigmas=sigmas, timesteps=None if grid.timesteps is None else grid.timesteps[first:last])


WHOLE = Part()
