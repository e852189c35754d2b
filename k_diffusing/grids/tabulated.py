"""Sigma grids of published tables: interpolated for other numbers of steps, or for their own alone."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from k_diffusing.grids.bounds import for_flow, for_sigmas, for_timesteps, with_zero
from k_diffusing.grids.tables import ALIGN_YOUR_STEPS, DISTILLED, OPTIMAL_STEPS, Distilled
from k_diffusing.model.schedules import LogSigmaSchedule
from k_diffusing.protocols import NoiseSchedule


def interpolated(table: tuple[float, ...], n: int) -> torch.Tensor:
    """A table as a grid of n steps: its logarithms at n + 1 even places, linear between its own, the last one 0."""
    if len(table) == n + 1:
        return with_zero(table[:-1])
    places = np.linspace(0, len(table) - 1, n + 1)
    return with_zero(np.exp(np.interp(places, np.arange(len(table)), np.log(table)))[:-1])


def _table(tables: dict[str, tuple[float, ...]], name: str, model: str) -> tuple[float, ...]:
    """The table of a model. Raises ValueError for a model that there is none of."""
    if model not in tables:
        raise ValueError(f"{name} has no table of model={model!r}: choose one of {', '.join(tables)}")
    return tables[model]


def align_your_steps(schedule: NoiseSchedule, n: int, model: str | None = None) -> torch.Tensor:
    """What Sabour et al. 2024 (arXiv 2404.14507) optimised for a model at 10 steps, log-linear for other n.

    model: "sdxl", "sd15" or "svd"; None: SVD's where timesteps are log(sigma) / 4, else SDXL's. Raises ValueError for a
    table that begins above the model's largest sigma.
    """
    own = "svd" if isinstance(for_sigmas(schedule, "align_your_steps"), LogSigmaSchedule) else "sdxl"
    table = _table(ALIGN_YOUR_STEPS, "align_your_steps", own if model is None else model)
    largest = float(schedule.sigmas[-1])
    if table[0] > 1.01 * largest:
        raise ValueError(
            f"the table {model or own!r} of align_your_steps begins at sigma {table[0]:g}, and this model's largest is "
            f"{largest:g}: take karras, or a list of your own"
        )
    return interpolated(table, n)


def optimal_steps(schedule: NoiseSchedule, n: int, model: str = "flux") -> torch.Tensor:
    """What Pei et al. 2025 (arXiv 2503.21774) found for a flow model, in flow time, log-linear for other n.

    model: "flux" (10 steps), "wan" (20) or "chroma" (40).
    """
    for_flow(schedule, "optimal_steps")
    return interpolated(_table(OPTIMAL_STEPS, "optimal_steps", model), n)


def _distilled(schedule: NoiseSchedule, n: int, name: str, row: Distilled) -> torch.Tensor:
    """A list of a distilled model. Raises ValueError for another number of steps, or for a model of another kind."""
    discrete = for_timesteps(schedule, name) if row.kind == "timesteps" else None
    flow = None if discrete else for_flow(schedule, name)
    if n not in row.lists:
        steps = " or ".join(map(str, row.lists))
        raise ValueError(
            f"{name} has {steps} steps, not {n}: {row.model} was distilled to these alone. Give "
            f"num_inference_steps={next(iter(row.lists))}, or take another grid"
        )
    values = torch.tensor(row.lists[n], dtype=torch.float32)
    if discrete:
        return with_zero(discrete.sigma(values))
    return with_zero(flow.shift(values) if flow and row.kind == "before shift" else values)


# By name, each (schedule, n) -> sigmas.
DISTILLED_GRIDS: dict[str, Callable[[NoiseSchedule, int], torch.Tensor]] = {
    name: partial(_distilled, name=name, row=row) for name, row in DISTILLED.items()
}
