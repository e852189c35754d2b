"""One Brownian path for all runs of a picture, so that grids can be compared with samplers that add noise."""

from collections.abc import Callable
from typing import Any

import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.model.coordinates import LARGEST_FLOW_TIME, noise_level
from k_diffusing.noise.interval import Interval
from k_diffusing.trace.record import Trace


class SharedPath:
    """What a Trace takes as `replay`: noise from one path in sigma for each seed, the same whatever the grid.

    Churn, and draws that do not tell their interval, keep the run's own noise.
    """

    def __init__(self, seeds: tuple[int, ...], largest: float):
        self.seeds, self.largest = list(seeds), largest
        self.tree: Any = None

    def __call__(self, trace: Trace, draw: Callable[[Interval], torch.Tensor], interval: Interval) -> torch.Tensor:
        """As Trace.replay."""
        own = draw(interval)
        if interval.churn or interval.sigma is None or interval.sigma_next is None:
            return own
        start, end = (self._time(trace, level) for level in (interval.sigma, interval.sigma_next))
        if start == end:
            return own
        if self.tree is None:
            like = torch.empty(own.shape, dtype=torch.float32)
            self.tree = k_sampling.BatchedBrownianTree(like, 0.0, self.largest, self.seeds)
        return (self.tree(start, end) / abs(end - start) ** 0.5).to(own)

    def _time(self, trace: Trace, level) -> float:
        sigma = float(level)
        if trace.coordinates == "flow":
            sigma = noise_level(min(sigma, LARGEST_FLOW_TIME))
        return min(max(round(sigma, 6), 0.0), self.largest)
