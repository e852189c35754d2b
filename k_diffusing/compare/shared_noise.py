"""The noise of one run, for another: so that two samplers that add noise can be compared."""

from collections.abc import Callable

import torch

from k_diffusing.trace.record import Draw, Trace


class SharedNoise:
    """The draws of one run, given out again to another, matched to the interval of sigma they were made for.

    An interval that was not drawn for but follows from others, as increments of one Brownian path in sigma, gets
    what follows; for any other the second run draws for itself, and the interval, (high, low), is in `missing`. Noise
    that raises the level (churn) is matched by the level, or by its turn where that is not known; it has no low end.
    """

    def __init__(self, trace: Trace):
        self.missing, self.churns = [], 0
        steps = [draw for draw in trace.draws if not draw.churn]
        self.steps = [(*_interval(trace, draw.sigma, draw.sigma_next), draw.noise.values) for draw in steps]
        churns = [draw for draw in trace.draws if draw.churn]
        self.churn = [(_level(trace, draw.sigma), draw.noise.values) for draw in churns]

    def __call__(self, trace: Trace, draw: Callable, sigma, sigma_next) -> torch.Tensor:
        """As Trace.replay: stands in for draw(sigma, sigma_next) of the second run, whose trace is given."""
        own = draw(sigma, sigma_next)  # drawn all the same: its shape, dtype and device are the run's own
        if Draw(0, sigma, sigma_next, None).churn:
            interval, self.churns = (_level(trace, sigma), None), self.churns + 1
            noise = self._churn(interval[0])
        else:
            interval = _interval(trace, sigma, sigma_next)
            noise = self._chain(*interval)
        if noise is None:
            self.missing.append(interval)
            return own
        return noise.to(own)

    def _churn(self, level: float | None) -> torch.Tensor | None:
        if level is None:
            return self.churn[self.churns - 1][1] if self.churns <= len(self.churn) else None
        return next((noise for start, noise in self.churn if start is not None and _same(start, level)), None)

    def _chain(self, high: float, low: float) -> torch.Tensor | None:
        """The draw for the interval, or that of the increments (of either sign) that lead from its one end to the
        other: the shortest way, by breadth-first search."""
        reached = [(high, 0.0, False)]
        for at, total, summed in reached:
            for start, end, noise in self.steps:
                if _same(start, high) and _same(end, low):
                    return noise
                step = abs(start - end) ** 0.5 * noise
                for here, there, increment in ((start, end, step), (end, start, -step)):
                    if _same(here, at) and not any(_same(there, level) for level, *_ in reached):
                        reached.append((there, total + increment, True))
            if summed and _same(at, low):
                return total / (high - low) ** 0.5
        return None


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b))


def _level(trace: Trace, sigma) -> float | None:
    """sigma in VE coordinates, which runs in other coordinates share."""
    if sigma is None:
        return None
    sigma = float(sigma)
    return sigma / (1 - sigma) if trace.coordinates == "flow" and sigma < 1 else sigma


def _interval(trace: Trace, sigma, sigma_next) -> tuple[float, float]:
    return _level(trace, sigma), _level(trace, sigma_next)
