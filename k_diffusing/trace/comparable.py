"""Two traces, read so that they can be compared: in coordinates that both share."""

import math

import torch

from k_diffusing._tensors import COMPUTED, same_level
from k_diffusing.model.coordinates import flow_time, noise_level, to_latents
from k_diffusing.trace.entries import Draw, NetworkCall
from k_diffusing.trace.record import Trace

LAST_TIME = 1 - 1e-12  # stands for the flow time 1, where sigma is infinite


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |a|, in float64; nan counts as infinitely far."""
    a, b = a.double(), b.double()
    found = float((a - b).norm() / a.norm().clamp(min=1e-30))
    return math.inf if math.isnan(found) else found


def close(a: float, b: float) -> bool:
    """Whether two runs are at one noise level."""
    return same_level(a, b, COMPUTED)


class ComparableRun:
    """A trace, read in coordinates that two runs share: its own, or flow coordinates.

    Attributes:
        trace: the Trace.
        steps: how many it has.
        in_flow: whether the shared coordinates are flow coordinates, whatever the run's own are.
        convert: whether its own are others than the shared ones.
    """

    def __init__(self, trace: Trace, in_flow: bool):
        self.trace, self.steps, self.in_flow = trace, trace.step_count, in_flow
        self.convert = in_flow and trace.coordinates == "ve"

    def sigma(self, sigma: torch.Tensor | float) -> float:
        """A noise level of the run in the shared coordinates."""
        return flow_time(float(sigma)) if self.convert else float(sigma)

    def own_sigma(self, sigma: float) -> float:
        """The way back from `sigma`."""
        return noise_level(min(sigma, LAST_TIME)) if self.convert else sigma

    def scaled(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """A state of the run at its own sigma, in the shared coordinates and float64."""
        return to_latents(x.double(), float(sigma)) if self.convert else x.double()

    def x(self, step: int) -> torch.Tensor:
        """What the first network call of the step sees (after churn, if there is any); at the end, the result."""
        calls = self.calls(step) if 0 <= step < self.steps else []
        if calls:
            return self.scaled(calls[0].x.tensor, calls[0].sigma)
        state = self.trace.states[step]
        return self.scaled(state.x.tensor, state.sigma)

    def level(self, step: int) -> float:
        """The noise level at the start of a step, in the shared coordinates."""
        return self.sigma(self.trace.states[step].sigma)

    def calls(self, step: int) -> list[NetworkCall]:
        """The network calls of a step."""
        return [call for call in self.trace.calls if call.step == step]

    def interval(self, draw: Draw) -> tuple:
        """Its levels, to four digits; of churn nothing but that it is churn."""
        return (
            ()
            if draw.churn
            else tuple(f"{self.sigma(level):.3e}" for level in (draw.sigma, draw.sigma_next) if level is not None)
        )

    def draws(self, step: int, churn: bool) -> list[Draw]:
        """Those before the step's first network call (churn), or those after it."""
        return [draw for draw in self.trace.draws if draw.step == step and churn == draw.churn]
