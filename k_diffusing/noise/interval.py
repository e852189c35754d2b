"""What a draw of noise is for."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Interval(NamedTuple):
    """The change of the noise level that a draw of unit noise is for.

    Attributes:
        sigma: the level before, a number or 0-dim; None where it is not told.
        sigma_next: the level after; None where it is not told.
        raised: whether the draw is told to be churn.
    """

    sigma: torch.Tensor | float | None
    sigma_next: torch.Tensor | float | None
    raised: bool = False

    @classmethod
    def of_churn(cls, sigma: torch.Tensor | float | None) -> "Interval":
        """That of churn at `sigma`, or at a level that is not told; how far it raises the level is not told."""
        return cls(sigma, None, raised=True)

    @property
    def churn(self) -> bool:
        """Whether the noise raises the level, before a step's first network call, in place of falling with it.

        Of levels on a device that were not told to be churn it has to be waited for.
        """
        if self.raised or self.sigma is None or self.sigma_next is None:
            return self.raised
        return bool(self.sigma_next > self.sigma)

    def __str__(self) -> str:
        told = None if self.sigma is None else f"{float(self.sigma):.4g}"
        if self.raised:
            return "churn" if told is None else f"churn at {told}"
        return f"sigma {told}" if self.sigma_next is None else f"sigma {told} to {float(self.sigma_next):.4g}"


Draw = Callable[[Interval], torch.Tensor | float]  # unit noise for an interval; 0.0 where none is added
