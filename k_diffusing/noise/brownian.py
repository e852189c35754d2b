"""An exact Brownian motion in sigma, for the samplers that solve stochastic differential equations."""

import bisect
import math
import operator
from collections.abc import Callable

import torch


class BrownianPath:
    """A standard Brownian motion W with sigma as its time, exact, that remembers where it was asked for.

    path(sigma, sigma_next) is (W(sigma_next) - W(sigma)) / sqrt(|sigma_next - sigma|): unit noise, of the sign that
    k-diffusion's tree has. draw() gives fresh unit noise. Of neighbouring known levels, high > low, the unit noise z
    of W(low) - W(high) is kept, so a step on from the last level is one draw and nothing else. A new level between
    them, at the fraction f of the way down, is one more draw e: the Brownian bridge (Karatzas & Shreve 1991, section
    5.6.B), which in unit noise is a rotation:

        z_upper = sqrt(f) z + sqrt(1 - f) e,    z_lower = sqrt(1 - f) z - sqrt(f) e

    The path depends on the order of the questions, so the same seed on a finer grid is another path. On the way down
    all but the lowest `remember` intervals are forgotten. Sigmas are floats or 0-dim CPU tensors (one that lies on a
    device is read from it, which waits for the device).
    """

    def __init__(self, draw: Callable[[], torch.Tensor], remember: int | None = None):
        self.draw, self.remember, self.forgotten = draw, remember, False
        self.levels, self.pieces = [], []  # descending; pieces[i] leads from levels[i] to levels[i + 1]

    def __call__(self, sigma, sigma_next) -> torch.Tensor:
        """Unit noise for the interval. An empty one gets a fresh draw: a sampler multiplies it by 0.

        Raises ValueError for an interval that reaches above what is remembered.
        """
        start, end = float(sigma), float(sigma_next)
        high, low = max(start, end), min(start, end)
        if high == low:
            return self.draw()
        self._reach(high)
        self._reach(low)
        first, last = self.levels.index(high), self.levels.index(low)
        sign = 1 if start > end else -1
        parts = [sign * self._share(i, high - low) * self.pieces[i] for i in range(first, last)]
        if self.remember is not None and start > end and len(self.pieces) > self.remember:
            del self.levels[: -self.remember - 1], self.pieces[: -self.remember]
            self.forgotten = True
        return sum(parts[1:], start=parts[0])

    def _share(self, i: int, length: float) -> float:
        return math.sqrt((self.levels[i] - self.levels[i + 1]) / length)

    def _reach(self, sigma: float) -> None:
        """Make sigma one of the levels, with at most one draw."""
        i = bisect.bisect_left(self.levels, -sigma, key=operator.neg)
        if i < len(self.levels) and self.levels[i] == sigma:
            return
        if i == 0 and self.forgotten:
            raise ValueError(
                f"noise from sigma {sigma:.6g} was asked for, but of the Brownian path only the last {self.remember} "
                f"intervals, up to {self.levels[0]:.6g}, are remembered: noise='brownian_tree' remembers all"
            )
        if 0 < i < len(self.levels):
            length, z, e = self.levels[i - 1] - self.levels[i], self.pieces[i - 1], self.draw()
            down, rest = math.sqrt((self.levels[i - 1] - sigma) / length), math.sqrt((sigma - self.levels[i]) / length)
            self.pieces[i - 1 : i] = [(down * z).add_(rest * e), (rest * z).sub_(down * e)]
        elif self.levels:
            self.pieces.insert(i, self.draw())
        self.levels.insert(i, sigma)
