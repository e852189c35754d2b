"""What every sigma grid is made with: its two ends, the 0 after them, and which models it is for."""

from typing import NoReturn

import torch

from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule
from k_diffusing.protocols import NoiseSchedule


def with_zero(sigmas) -> torch.Tensor:
    """A grid [n + 1] from its n sigmas above 0."""
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def ends(
    schedule: NoiseSchedule, sigma_min: float | None = None, sigma_max: float | None = None
) -> tuple[float, float]:
    """The smallest sigma above 0, and the largest: the model's, where the user gives none.

    Raises:
        ValueError: The one is not below the other, or the largest is none of the model's kind.
    """
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    low, high = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    if isinstance(schedule, FlowSchedule) and high > 1:
        raise ValueError(f"sigma_max={high:g}: the sigmas of a flow model are times, between 0 and 1")
    if not low < high:
        raise ValueError(f"sigma_min={low:g} is not below sigma_max={high:g}: swap them, or leave one to the model")
    return low, high


def for_timesteps(schedule: NoiseSchedule, name: str) -> DiscreteSchedule:
    """The schedule, of a model that was trained on timesteps. Raises ValueError for another."""
    if isinstance(schedule, DiscreteSchedule):
        return schedule
    _refuse(name, "epsilon and v models, by their timesteps", schedule)


def for_sigmas(schedule: NoiseSchedule, name: str) -> NoiseSchedule:
    """The schedule, of a model whose data are x0 + sigma eps. Raises ValueError for a flow model."""
    if not isinstance(schedule, FlowSchedule):
        return schedule
    _refuse(name, "models whose data are x0 + sigma eps, as SDXL's", schedule)


def for_flow(schedule: NoiseSchedule, name: str) -> FlowSchedule:
    """The schedule, of a flow model. Raises ValueError for another."""
    if isinstance(schedule, FlowSchedule):
        return schedule
    _refuse(name, "flow models, in flow time", schedule)


def _refuse(name: str, whom: str, schedule: NoiseSchedule) -> NoReturn:
    own = "a flow model: take simple, beta, optimal_steps, bong_tangent, ..."
    if not isinstance(schedule, FlowSchedule):
        own = "none: take karras, exponential, align_your_steps, ..."
    raise ValueError(f"the sigma grid {name} is for {whom}, and this is {own}")
