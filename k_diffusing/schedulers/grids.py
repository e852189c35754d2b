"""The plan of a sampler that is to be a scheduler, on the grid of the config or on the one that a pipeline passes."""

from typing import cast

import numpy as np
import torch

from k_diffusing.arguments import warn_of_grid
from k_diffusing.grids.check import check_sigmas
from k_diffusing.model.scheduler_config import fresh_scheduler, is_flow, shifts_dynamically
from k_diffusing.plan import SamplingPlan
from k_diffusing.planning import discrete_plan, flow_plan
from k_diffusing.programs.choose import find_program
from k_diffusing.schedulers.as_sampler import SchedulerSampler
from k_diffusing.schedulers.config import Settings


def plan_of(settings: Settings, source, n: int | None, timesteps, sigmas, mu: float | None) -> SamplingPlan:
    """What the sampler will do in the place of a diffusers scheduler.

    Args:
        settings: the sampler's.
        source: the scheduler.
        n: steps, unless there are the pipeline's own timesteps or sigmas.
        timesteps: those that the pipeline passes, or None.
        sigmas: likewise.
        mu: the dynamic shift of flow time.

    Raises:
        ValueError: for a grid that the sampler cannot be run on.
    """
    if is_flow(source):
        return _flow(settings, source, n, timesteps, sigmas, mu)
    function = settings.function
    only_flow = isinstance(function, SchedulerSampler) and function.flow_coordinates == "flow"
    if only_flow or settings.coordinates != "auto":
        raise ValueError(f"{settings.sampler.name} is to integrate flow matching, and this model is none")
    return discrete_plan(
        source, function, settings.options, settings.sigma_grid, cast(int, n), timesteps=timesteps, sigmas=sigmas,
        noise=settings.noise, program=settings.program,
    )  # fmt: skip


def _flow(settings: Settings, source, n, timesteps, sigmas, mu) -> SamplingPlan:
    if timesteps is not None or source.config.get("invert_sigmas"):
        raise ValueError("flow models are run here by sigmas=, from 1 to 0: timesteps= and invert_sigmas are not kept")
    if shifts_dynamically(source) and mu is None and settings.program is None:
        raise ValueError(
            "the config shifts flow time by the size of the image: pass mu=, as FLUX's pipelines do, or make this "
            "scheduler with use_dynamic_shifting=False"
        )
    source = settings.sampler.grid_scheduler or source
    sigma_grid = settings.sigma_grid or find_program(settings.program).default_grid
    if sigmas is None and sigma_grid is None and not source.config.get("use_flow_sigmas"):
        warn_of_grid(settings.sampler, sigma_grid)
        sigma_grid = lambda _, n: _own_times(source, n, mu)  # noqa: E731
    elif sigmas is not None and _are_the_usual(sigmas):
        n, sigmas = len(sigmas), None  # what many pipelines pass where their user gave none
    return flow_plan(
        source, settings.function, settings.options, sigma_grid, n, size_mu=mu, sigmas=sigmas,
        flow_coordinates=settings.coordinates, noise=settings.noise, program=settings.program,
    )  # fmt: skip


def _are_the_usual(sigmas) -> bool:
    check_sigmas(sigmas, least=0)
    n = len(sigmas)
    return n > 0 and np.allclose(sigmas, np.linspace(1, 1 / n, n))


def _own_times(scheduler, n: int, mu: float | None) -> torch.Tensor:
    """Where a flow-matching scheduler stops by itself if it is told no more than n."""
    fresh = fresh_scheduler(scheduler)
    fresh.set_timesteps(n, **({"mu": mu} if shifts_dynamically(fresh) else {}))
    return fresh.sigmas.float().cpu().unique_consecutive()
