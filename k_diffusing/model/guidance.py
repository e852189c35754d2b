"""In which part of sampling a network is guided.

    guides = guidance_at({"sigma": (5.4, 0.28)}, schedule)
    guides(torch.tensor(2.0))  # True

Outside of it the evaluation without the prompt is left out, which is half of the work there (Kynkäänniemi et al. 2024,
"Applying guidance in a limited interval improves sample and distribution quality in diffusion models", eq. 5).
"""

import math
from collections.abc import Callable
from numbers import Real

import torch

from k_diffusing._tensors import ROUNDED

GuidanceInterval = tuple[float, float] | dict[str, tuple[float, float]]


def guidance_at(interval: GuidanceInterval | None, schedule) -> Callable[[torch.Tensor], bool]:
    """Whether the network is guided at a sigma of the schedule (0-dim or [B], of which the first counts).

    interval: (start, end), fractions of the schedule's timesteps, 0 where sampling starts and 1 where it ends; or
    {"sigma": (start, end)}, noise levels, which fall (flow time on FLUX); start is in it, end is not. None: everywhere,
    and then sigma is not read (a sigma on a device would have to be waited for). Raises ValueError or TypeError for
    what is no such interval.
    """
    if interval is None:
        return lambda sigma: True
    high, low = (level * (1 + ROUNDED) for level in _levels(interval, schedule))
    return lambda sigma: low < float(sigma.flatten()[0]) <= high


def _levels(interval: GuidanceInterval, schedule) -> tuple[float, float]:
    if not isinstance(interval, dict):
        start, end = _pair(interval, interval)
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"guidance_interval={interval!r} is no part of the schedule: fractions rise from 0 (start) to 1 (end), "
                "as in (0.2, 0.8); noise levels are given as {'sigma': (5.4, 0.28)}"
            )
        return math.inf if start == 0 else schedule.sigma_at(start), 0.0 if end == 1 else schedule.sigma_at(end)
    if list(interval) != ["sigma"]:
        raise ValueError(f"guidance_interval={interval!r}: give {{'sigma': (start, end)}}, or fractions (start, end)")
    high, low = _pair(interval["sigma"], interval)
    if not high > low >= 0:
        raise ValueError(
            f"guidance_interval={interval!r} is out of order: noise levels fall as sampling goes on, down to 0 at "
            "least, as in {'sigma': (5.4, 0.28)}"
        )
    return high, low


def _pair(values, interval) -> tuple[float, float]:
    if not isinstance(values, (tuple, list)) or len(values) != 2:
        raise TypeError(f"guidance_interval={interval!r} needs two numbers, (start, end)")
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        raise TypeError(f"guidance_interval={interval!r}: start and end are numbers")
    start, end = values
    return float(start), float(end)
