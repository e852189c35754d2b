"""In which part of sampling a network is guided, and with what weight.

    guides = guidance_at({"sigma": (5.4, 0.28)}, schedule)
    guides(torch.tensor(2.0))  # True
    guidance = weights_of({"cfg++": 0.6}, [14.6, 5.0, 1.0, 0.0], steps=3)
    guidance.weights  # (0.91, 0.75, 0.6)

Outside of the interval the evaluation without the prompt is left out, which is half of the work there (Kynkäänniemi
et al. 2024, "Applying guidance in a limited interval improves sample and distribution quality in diffusion models",
eq. 5).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from k_diffusing._tensors import ROUNDED
from k_diffusing.model.guidance_asked import Asked, GuidanceChoice, asked, is_number

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


@dataclass(frozen=True)
class Guidance:
    """How the answers with and without the prompt become one, in each step of a grid.

    Attributes:
        levels: [steps + 1], the grid as diffusers counts sigma (flow time on FLUX).
        weights: [steps], of the answer to the prompt; none where the pipeline's own scale is the weight, or a guider.
        of_sigma: What they are of, where a function was given.
        rescale: As `Asked` has it.
        guider: One of diffusers, or None.
    """

    levels: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    of_sigma: Callable[[torch.Tensor], Any] | None = None
    rescale: float | None = None
    guider: Any = None

    @property
    def by_step(self) -> bool:
        """Whether it takes the place of the pipeline's own scale."""
        return bool(self.weights) or self.guider is not None

    @property
    def guides(self) -> bool:
        """Whether the answer without the prompt has a part in any step."""
        return self.guider is not None or self.of_sigma is not None or any(weight != 1 for weight in self.weights)

    def scale(self, own: float) -> float:
        """What stands for all weights, as the pipeline's guidance scale: the largest, or its own."""
        return max(self.weights, default=own)

    def step_at(self, level: float, step: int | None = None) -> int:
        """The step that a level of sigma lies in; step: where the sampler is, if known, whose ends are both in it."""
        if step is not None:
            low, high = self.levels[step + 1], self.levels[step]
            if low * (1 - ROUNDED) <= level <= high * (1 + ROUNDED):
                return step
        begun = sum(high >= level * (1 - ROUNDED) for high in self.levels[:-1])
        return max(begun - 1, 0)

    def weight(self, level: float, step: int) -> float:
        """The weight at a level of sigma that need not be one of the grid's, in a step."""
        return self.weights[step] if self.of_sigma is None else weight_at(self.of_sigma, level)


def weights_of(
    choice: GuidanceChoice | None, levels: list[float], steps: int, sigmas: list[float] | None = None
) -> Guidance:
    """The guidance of a run.

    Args:
        choice: As the user made it.
        levels: The grid [n + 1], as diffusers counts sigma (flow time on FLUX).
        steps: Those of the whole grid, of which the run may take a part.
        sigmas: The same levels as sigma of x0 + sigma eps, where they are others.

    Raises:
        ValueError, TypeError: For what is no guidance, or not one of this run.
    """
    given, n = asked(choice), len(levels) - 1
    weights: Any = ()
    of_sigma = None
    if given.cfg_pp is not None:
        weights = cfg_pp_weights(given, levels if sigmas is None else sigmas, steps)
    elif callable(given.weight):
        of_sigma = given.weight
        weights = tuple(weight_at(of_sigma, level) for level in levels[:-1])
    elif isinstance(given.weight, tuple):
        weights = given.weight
        if len(weights) != n:
            raise ValueError(
                f"guidance= has {len(weights)} weights, and the run takes {n} steps: give one for each of them"
            )
    elif given.weight is not None:
        weights = (given.weight,) * n
    return Guidance(tuple(levels), weights, of_sigma, given.rescale)


def cfg_pp_weights(given: Asked, sigmas: list[float], steps: int) -> tuple[float, ...]:
    """lambda / (1 - sigma' / sigma) for each step from sigma to sigma' (Chung et al. 2024, arXiv 2406.08070).

    With that weight an Euler step is a step of CFG++. It grows with the number of steps. With reference_steps each step
    is taken as so many times as long, in log sigma, as a grid of `steps` is finer than one of the reference.
    """
    finer = steps / given.reference_steps if given.reference_steps else 1.0
    kept = [(low / high) ** finer for high, low in zip(sigmas, sigmas[1:], strict=False)]
    return tuple(min(given.cfg_pp / (1 - part), given.largest) if part < 1 else given.largest for part in kept)


def weight_at(of_sigma: Callable[[torch.Tensor], Any], level: float) -> float:
    """What a user's function has for a level of sigma. Raises ValueError for what is no weight."""
    weight: Any = of_sigma(torch.tensor(level, dtype=torch.float64))
    if isinstance(weight, torch.Tensor) and weight.numel() == 1:
        weight = weight.item()
    if not is_number(weight):
        raise ValueError(f"the function in guidance= has {weight!r} for sigma {level:.6g}: a weight is a finite number")
    return float(weight)


def weighted(cond: torch.Tensor, uncond: torch.Tensor, weight: float, rescale: float = 0.0) -> torch.Tensor:
    """The network's answers with the prompt and without it, made one: each [B, ...].

    rescale: the part of it that gets the deviation of `cond` (Lin et al. 2023, arXiv 2305.08891, section 3.4).
    """
    output = (cond - uncond).mul_(weight).add_(uncond)
    if rescale > 0:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

        output = rescale_noise_cfg(output, cond, guidance_rescale=rescale)
    return output
