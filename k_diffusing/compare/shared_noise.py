"""The noise of one run, for another: so that two samplers that add noise can be compared."""

import math
from collections.abc import Callable
from typing import Any

import torch

from k_diffusing._tensors import COMPUTED, same_level
from k_diffusing.model.coordinates import noise_level
from k_diffusing.noise.interval import Interval
from k_diffusing.trace.record import Trace


class SharedNoise:
    """The draws of one run, given out again to another, matched to the interval of sigma they were made for.

    An interval that was not drawn for but follows from others, as increments of one Brownian path in sigma, gets
    what follows; for any other the second run draws for itself. Churn is matched by the level that it raises, or by its
    turn where that is not told.

    Attributes:
        missing: the intervals for which the second run drew for itself, in VE coordinates, which all runs share.
    """

    def __init__(self, trace: Trace):
        """trace: of the first run, with tensors."""
        self.missing: list[Interval] = []
        self.churns = 0
        drawn = [(_in_ve(trace, draw.interval), draw.noise.values) for draw in trace.draws]
        self.steps: list[tuple[Any, Any, Any]] = [
            (at.sigma, at.sigma_next, noise) for at, noise in drawn if not at.churn
        ]
        self.churn: list[tuple[Any, Any]] = [(at.sigma, noise) for at, noise in drawn if at.churn]

    def __call__(self, trace: Trace, draw: Callable[[Interval], torch.Tensor], interval: Interval) -> torch.Tensor:
        """As Trace.replay: stands in for draw(interval) of the second run, whose trace is given."""
        own = draw(interval)  # drawn all the same: its shape, dtype and device are the run's own
        at = _in_ve(trace, interval)
        self.churns += at.churn
        noise = self._churn(at.sigma) if at.churn else self._chain(at.sigma, at.sigma_next)
        if noise is None:
            self.missing.append(at)
            return own
        return noise.to(own)

    def _churn(self, level: Any) -> torch.Tensor | None:
        if level is None:
            return self.churn[self.churns - 1][1] if self.churns <= len(self.churn) else None
        return next((noise for start, noise in self.churn if start is not None and _same(start, level)), None)

    def _chain(self, high: Any, low: Any) -> torch.Tensor | None:
        """The draw for the interval, or that of the increments that lead from its one end to the other.

        Increments may be of either sign; the shortest way is found by breadth-first search. From infinity none lead on.
        """
        reached = [(high, 0.0, False)]
        for at, total, summed in reached:
            for start, end, noise in self.steps:
                if _same(start, high) and _same(end, low):
                    return noise
                if math.isinf(start):
                    continue
                step = abs(start - end) ** 0.5 * noise
                for here, there, increment in ((start, end, step), (end, start, -step)):
                    if _same(here, at) and not any(_same(there, level) for level, *_ in reached):
                        reached.append((there, total + increment, True))
            if summed and _same(at, low):
                return total / (high - low) ** 0.5
        return None


def _same(a: float, b: float) -> bool:
    return same_level(a, b, COMPUTED)


def _in_ve(trace: Trace, interval: Interval) -> Interval:
    """The interval in VE coordinates, its levels as numbers."""

    def level(sigma: torch.Tensor | float | None) -> float | None:
        if sigma is None:
            return None
        sigma = torch.as_tensor(float(sigma), dtype=torch.float64)
        return float(noise_level(sigma) if trace.coordinates == "flow" else sigma)

    return Interval(level(interval.sigma), level(interval.sigma_next), raised=interval.churn)
