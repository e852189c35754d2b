"""The sigma grid of one call: of a name, of the user's values, or of the config of a diffusers scheduler."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids.bounds import with_zero
from k_diffusing.grids.check import check_sigmas
from k_diffusing.grids.named import named_grid
from k_diffusing.model.preconditioning import vp_scale
from k_diffusing.model.scheduler_classes import scheduler_class
from k_diffusing.model.scheduler_config import fresh_scheduler, shifts_dynamically
from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule
from k_diffusing.protocols import NoiseSchedule


class SigmaGrid(NamedTuple):
    """sigmas: [n + 1]. timesteps: [n], what the scheduler pairs with all but the last, or None.

    initial_scale: the standard deviation, in VE coordinates, of the state that unit noise becomes at sigmas[0].
    scaled_latents: whether the scheduler's own latents are the VE state over sqrt(sigma^2 + 1) (DDIM, DPM++).
    """

    sigmas: torch.Tensor
    timesteps: torch.Tensor | None
    initial_scale: torch.Tensor | float = 1.0
    scaled_latents: bool = False

    def without_penultimate(self) -> "SigmaGrid":
        """Less its last sigma above 0, as ComfyUI and A1111 have it for dpm_2 and dpm_2_ancestral."""
        timesteps = None if self.timesteps is None else self.timesteps[:-1]
        return self._replace(sigmas=torch.cat([self.sigmas[:-2], self.sigmas[-1:]]), timesteps=timesteps)


def over_the_model(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n steps from the model's largest sigma to its smallest and to 0, even in log sigma as dpm_fast's are."""
    low, high = schedule.sigmas[0], schedule.sigmas[-1]
    sigmas = k_sampling.get_sigmas_exponential(n, float(low), float(high))
    sigmas[-2], sigmas[0] = low, high  # exp(log) is not exact
    return sigmas


def _of_choice(sigma_grid: str | Callable, schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """The sigmas of a name or a function, which may return a list or an array. Raises TypeError for anything else."""
    values = named_grid(sigma_grid)(schedule, n)
    if isinstance(values, torch.Tensor):
        return values
    try:
        array = np.array(values, dtype=np.float32)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.ndim == 0:
        raise TypeError(f"sigma_grid is a function that returns n + 1 decreasing numbers, and it returned {values!r}")
    return torch.from_numpy(array)


def _pairs(scheduler) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """sigmas, timesteps and last sigma of a scheduler after set_timesteps, one pair per noise level.

    Two-stage schedulers list a level twice; the second of the two is the one that belongs to the sigma.
    """
    timesteps = scheduler.timesteps.float().cpu()
    levels = scheduler.sigmas.float().cpu()
    sigmas, last = levels[: len(timesteps)], levels[len(timesteps)]
    if last >= sigmas[-1]:  # DEIS repeats the last flow time where the others put 0
        last = torch.zeros(())
    keep = torch.cat([sigmas[1:] < sigmas[:-1], (sigmas[-1:] > last)])
    return sigmas[keep], timesteps[keep], last


def _pairs_of_timesteps(scheduler, schedule: DiscreteSchedule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same for a scheduler that keeps no sigmas (DDIM, DDPM, PNDM): those of the schedule's table."""
    timesteps = torch.as_tensor(scheduler.timesteps).float().cpu().unique().flip(0)
    sigmas = schedule.sigma(timesteps)
    last_alpha = torch.as_tensor(scheduler_class(scheduler).last_alpha(scheduler)).float()
    last = ((1 - last_alpha) / last_alpha) ** 0.5
    keep = sigmas > last  # with set_alpha_to_one=False the last timestep, 0, may be the final level already
    return sigmas[keep], timesteps[keep], last


def discrete_grid(
    scheduler, schedule, n: int, sigma_grid=None, timesteps=None, sigmas=None, drop_penultimate: bool = False
) -> SigmaGrid:
    """The grid for an epsilon or v model: of the name or the values given, else of the scheduler's config.

    scheduler: diffusers', left as it is. timesteps, sigmas: the user's own, as in diffusers' set_timesteps
    (sigmas with the last one, 0 or not); no timesteps, or one sigma, leave no step to take, as there.
    drop_penultimate: unless values are given, that of n + 1 steps less its last sigma above 0. Raises ValueError for
    values that do not decrease.
    """
    if sigmas is not None:
        check_sigmas(sigmas)
    if timesteps is not None:
        check_sigmas(timesteps, "timesteps", least=0)
    drop = drop_penultimate and timesteps is None and sigmas is None
    n = n + 1 if drop else n or 1  # there may be none beside the user's own values
    fresh = fresh_scheduler(scheduler, skip_prk_steps=True)
    row, accepted = scheduler_class(fresh), inspect.signature(fresh.set_timesteps).parameters
    # Where there is use_flow_sigmas, set_timesteps takes `sigmas` for flow models only.
    takes_sigmas = row.takes_sigmas and "use_flow_sigmas" not in fresh.config
    passed = {}
    if timesteps is not None and len(timesteps) > 0 and "timesteps" in accepted:
        passed["timesteps"] = timesteps
    if sigmas is not None and len(sigmas) > 1 and takes_sigmas:
        passed["sigmas"] = sigmas
    fresh.set_timesteps(**(passed or {"num_inference_steps": n}))
    if sigma_grid is not None:
        levels, times = _of_choice(sigma_grid, schedule, n), None
    elif sigmas is not None and not passed:
        levels, times = torch.as_tensor(sigmas, dtype=torch.float32), None
    elif timesteps is not None and len(timesteps) > 0 and not passed:
        times = torch.as_tensor(timesteps, dtype=torch.float32)
        levels = with_zero(schedule.sigma(times))
    else:
        kept, times, last = _pairs(fresh) if row.lists_sigmas else _pairs_of_timesteps(fresh, schedule)
        if timesteps is not None and len(timesteps) == 0:
            kept, times = kept[:0], times[:0]
        levels = torch.cat([kept, last.reshape(1)])
    check_sigmas(levels)
    fresh.sigmas = levels  # what init_noise_sigma is computed from
    scale = vp_scale(levels[0]) if row.scaled else fresh.init_noise_sigma
    grid = SigmaGrid(levels, times, scale, row.scaled)
    return grid.without_penultimate() if drop else grid


def flow_grid(
    scheduler, schedule: FlowSchedule, n: int, sigma_grid=None, sigmas=None, mu=None, drop_penultimate: bool = False
) -> SigmaGrid:
    """The grid for a flow model, in flow time: of the name or the values given, else of the scheduler's config.

    sigmas: the user's own, before shifting and without the last 0, as diffusers' FluxPipeline takes them; none leave no
    step to take, as there. drop_penultimate: as in discrete_grid. Raises ValueError for values that do not decrease.
    """
    if sigmas is not None:
        check_sigmas(sigmas, least=0)
    drop = drop_penultimate and sigmas is None
    levels, timesteps = _flow_levels(scheduler, schedule, n + 1 if drop else n, sigma_grid, sigmas, mu)
    check_sigmas(levels)
    grid = SigmaGrid(levels, timesteps)
    return grid.without_penultimate() if drop else grid


def _flow_levels(scheduler, schedule, n, sigma_grid, sigmas, mu) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Flow times, and the timesteps that the scheduler pairs with them, if it does."""
    if sigma_grid is not None:
        levels = _of_choice(sigma_grid, schedule, n)
        if len(levels) and float(levels[0]) > 1 + 1e-6:  # which is float32's rounding
            raise ValueError(
                f"the sigma grid begins at {float(levels[0]):g}: the sigmas of a flow model are times, between 0 and 1"
            )
        return levels, None
    if sigmas is not None and len(sigmas) == 0:
        return torch.zeros(1), None
    if sigmas is not None and max(sigmas) > 1:
        raise ValueError(f"sigmas[0] is {max(sigmas)}: the sigmas of a flow model are times, between 0 and 1")
    fresh = fresh_scheduler(scheduler)
    takes_sigmas = scheduler_class(fresh).takes_sigmas and not fresh.config.get("use_flow_sigmas")
    if sigmas is not None and not takes_sigmas:
        return with_zero(schedule.shift(torch.as_tensor(sigmas, dtype=torch.float32))), None
    arguments = {"num_inference_steps": n if sigmas is None else len(sigmas)}
    if takes_sigmas:
        arguments["sigmas"] = np.linspace(1.0, 1 / n, n) if sigmas is None else sigmas
    if shifts_dynamically(fresh):
        arguments["mu"] = mu
    fresh.set_timesteps(**arguments)
    kept, timesteps, last = _pairs(fresh)
    return torch.cat([kept, last.reshape(1)]), timesteps
