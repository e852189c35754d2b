"""The model as our own samplers call it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Evaluator:
    """`model(x, sigma) -> denoised` with sigma as one number for the whole batch.

    model: takes sigma as [B]. like: the latents [B, ...]. extra_args: further keywords of the model. callback: told of
    the first evaluation in a step, as k_diffusion's.
    """

    model: Callable
    like: torch.Tensor
    extra_args: dict[str, Any] | None = None
    callback: Callable[[dict], None] | None = None
    ones: torch.Tensor = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "ones", self.like.new_ones(len(self.like)))

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """The denoised sample of x."""
        return self.model(x, sigma * self.ones, **(self.extra_args or {}))

    def begin(self, step: int, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """The denoised sample at the beginning of a step, of which the callback is told."""
        denoised = self(x, sigma)
        if self.callback is not None:
            self.callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        return denoised


def levels_of(sigmas: torch.Tensor | Sequence[float]) -> list[float]:
    """A grid's noise levels as numbers; of a tensor on a device all at once."""
    return sigmas.tolist() if isinstance(sigmas, torch.Tensor) else [float(sigma) for sigma in sigmas]
