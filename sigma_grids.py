"""Sigma grids: at which noise levels a sampler stops on its way to 0.

A grid is n + 1 strictly decreasing float32 values on the CPU, the last one usually 0. It comes from the config
of a diffusers scheduler, from the user, or from a name. Named grids are functions of a noise schedule and n;
on flow models they are counted in flow time t.
"""

import difflib
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from denoisers import DiscreteSchedule, FlowSchedule, LogSigmaSchedule, fresh_scheduler, shifts_dynamically
from samplers_patch import k_sampling

LARGEST_SIGMA = 1e18  # its square is finite in float32

NoiseSchedule = DiscreteSchedule | LogSigmaSchedule | FlowSchedule


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


def _range(schedule: NoiseSchedule) -> tuple[float, float]:
    return float(schedule.sigmas[0]), float(schedule.sigmas[-1])


def _with_zero(sigmas) -> torch.Tensor:
    return torch.cat([torch.as_tensor(sigmas, dtype=torch.float32), torch.zeros(1)])


def _even_timesteps(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    low, high = (float(schedule.timestep(sigma)) for sigma in (schedule.sigmas[0], schedule.sigmas[-1]))
    return torch.linspace(high, low, n)


def simple(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Every (N / n)-th sigma of the model's own N, from the largest down (ComfyUI's "simple")."""
    stride = len(schedule.sigmas) / n
    return _with_zero([schedule.sigmas[-1 - int(i * stride)] for i in range(n)])


def normal(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n timesteps evenly from the largest to the smallest, both included (ComfyUI's "normal")."""
    return _with_zero(schedule.sigma(_even_timesteps(schedule, n)))


def sgm_uniform(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n + 1 timesteps evenly from the largest to the smallest, without the last (ComfyUI's "sgm_uniform")."""
    return _with_zero(schedule.sigma(_even_timesteps(schedule, n + 1)[:-1]))


def ddim_uniform(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Every (N // n)-th sigma from the second smallest up (ComfyUI's "ddim_uniform").

    Where n does not divide N the grid has a few steps more than n, as it has there.
    """
    return _with_zero(schedule.sigmas[1 :: max(len(schedule.sigmas) // n, 1)].flip(0))


def beta(schedule: NoiseSchedule, n: int, a: float = 0.6, b: float = 0.6) -> torch.Tensor:
    """Quantiles of a Beta(a, b) distribution of timesteps (Lee et al. 2024, arXiv 2407.12173); doubles are dropped."""
    from scipy import stats  # k-diffusion requires scipy; stats takes a while to import

    quantiles = stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), a, b)
    index = np.rint(quantiles * (len(schedule.sigmas) - 1)).astype(int)
    return _with_zero(schedule.sigmas[torch.as_tensor(list(dict.fromkeys(index.tolist())))])


def linear_quadratic(schedule: NoiseSchedule, n: int, threshold: float = 0.025) -> torch.Tensor:
    """sigma falls linearly by `threshold` in the first n // 2 steps, then quadratically to 0 (Mochi 1, Movie Gen).

    The slope is continuous where the halves meet; all as a fraction of the largest sigma.
    """
    if n == 1:
        return _with_zero(schedule.sigmas[-1:])
    half = n // 2
    slope = threshold / half
    rest = n - half
    curvature = (1 - threshold - slope * rest) / rest**2
    i = torch.arange(n, dtype=torch.float64)
    after = (i - half).clamp(min=0)
    return _with_zero((1 - slope * i - curvature * after**2) * float(schedule.sigmas[-1]))


def kl_optimal(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """tan of angles evenly between arctan(sigma_max) and arctan(sigma_min) (Sabour et al. 2024, arXiv 2404.14507)."""
    low, high = _range(schedule)
    return _with_zero(torch.linspace(math.atan(high), math.atan(low), n).tan())


def karras(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Even in sigma^(1/7) (Karras et al. 2022, eq. 5)."""
    return k_sampling.get_sigmas_karras(n, *_range(schedule))


def exponential(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Even in log sigma."""
    return k_sampling.get_sigmas_exponential(n, *_range(schedule))


def polyexponential(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Polynomial in log sigma; of degree 1 by k-diffusion's default, which is `exponential`."""
    return k_sampling.get_sigmas_polyexponential(n, *_range(schedule))


def vp(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """The continuous VP schedule of Song et al. 2021 with k-diffusion's constants, whatever the model's range.

    On flow models its sigma is taken in VE coordinates: t = sigma / (1 + sigma).
    """
    sigmas = k_sampling.get_sigmas_vp(n)
    return sigmas / (1 + sigmas) if isinstance(schedule, FlowSchedule) else sigmas


SIGMA_GRIDS = {
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "vp": vp,
    "simple": simple,
    "normal": normal,
    "sgm_uniform": sgm_uniform,
    "ddim_uniform": ddim_uniform,
    "beta": beta,
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
}


def named_grid(sigma_grid: str | Callable) -> Callable[[NoiseSchedule, int], torch.Tensor]:
    """The function (schedule, n) -> sigmas of a name; a function stands for itself."""
    return sigma_grid if callable(sigma_grid) else SIGMA_GRIDS[sigma_grid]


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


def check_grid_choice(sigma_grid: str | Callable | None, **explicit) -> None:
    """Raise ValueError for an unknown grid name, or for a name beside explicit `sigmas` or `timesteps`."""
    given = [name for name, value in explicit.items() if value is not None]
    if len(given) + (sigma_grid is not None) > 1:
        named = [f"sigma_grid={sigma_grid!r}"] if sigma_grid is not None else []
        raise ValueError(f"{' and '.join(given + named)} each set the sigmas: choose one")
    if sigma_grid is not None and not callable(sigma_grid) and sigma_grid not in SIGMA_GRIDS:
        nearest = difflib.get_close_matches(str(sigma_grid), SIGMA_GRIDS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown sigma_grid {sigma_grid!r}: did you mean {nearest!r}? Choose one of {', '.join(SIGMA_GRIDS)}, "
            "a function (schedule, n) -> sigmas, or None for the grid of the scheduler's config"
        )


def check_steps(num_inference_steps: int) -> None:
    """Raise ValueError unless there is at least one step to take."""
    if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
        raise ValueError(f"num_inference_steps={num_inference_steps!r}: give an integer of at least 1")


def check_sigmas(sigmas, name: str = "sigmas", least: int = 1) -> None:
    """Raise ValueError unless `sigmas` are from 0 to LARGEST_SIGMA, strictly decreasing, and at least so many."""
    try:
        values = torch.as_tensor(sigmas, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):  # of words, None, a generator, ...
        values = torch.zeros(())
    if values.ndim != 1 or len(values) < least:
        raise ValueError(f"{name} must be a list of numbers, {least} at least, got {sigmas!r}")
    fits = (values >= 0) & (values <= LARGEST_SIGMA)  # nan does not
    if not fits.all():
        bad = fits.tolist().index(False)
        raise ValueError(
            f"{name}[{bad}] is {float(values[bad])}: every value must be finite, not negative, and at most "
            f"{LARGEST_SIGMA:g}"
        )
    rises = (values.diff() >= 0).nonzero().flatten().tolist()
    if rises:
        i = rises[0]
        raise ValueError(
            f"{name} must decrease strictly, but {name}[{i}] = {float(values[i]):g} is followed by "
            f"{float(values[i + 1]):g}: sort them from the largest to the smallest and drop doubles"
        )


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
    last_alpha = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0)).float()
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
    accepted = inspect.signature(fresh.set_timesteps).parameters
    # Where there is use_flow_sigmas, set_timesteps takes `sigmas` for flow models only.
    takes_sigmas = "sigmas" in accepted and hasattr(fresh, "_sigma_to_t") and "use_flow_sigmas" not in fresh.config
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
        levels = _with_zero(schedule.sigma(times))
    else:
        kept, times, last = _pairs(fresh) if hasattr(fresh, "sigmas") else _pairs_of_timesteps(fresh, schedule)
        if timesteps is not None and len(timesteps) == 0:
            kept, times = kept[:0], times[:0]
        levels = torch.cat([kept, last.reshape(1)])
    check_sigmas(levels)
    one = torch.ones(1)
    scaled = torch.equal(fresh.scale_model_input(one, fresh.timesteps[0]), one)
    fresh.sigmas = levels  # what init_noise_sigma is computed from
    scale = (levels[0] ** 2 + 1) ** 0.5 if scaled else fresh.init_noise_sigma
    grid = SigmaGrid(levels, times, scale, scaled)
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
        return _of_choice(sigma_grid, schedule, n), None
    if sigmas is not None and len(sigmas) == 0:
        return torch.zeros(1), None
    if sigmas is not None and max(sigmas) > 1:
        raise ValueError(f"sigmas[0] is {max(sigmas)}: the sigmas of a flow model are times, between 0 and 1")
    fresh = fresh_scheduler(scheduler)
    accepted = inspect.signature(fresh.set_timesteps).parameters
    takes_sigmas = "sigmas" in accepted and not fresh.config.get("use_flow_sigmas")
    if sigmas is not None and not takes_sigmas:
        return _with_zero(schedule.shift(torch.as_tensor(sigmas, dtype=torch.float32))), None
    arguments = {"num_inference_steps": n if sigmas is None else len(sigmas)}
    if takes_sigmas:
        arguments["sigmas"] = np.linspace(1.0, 1 / n, n) if sigmas is None else sigmas
    if shifts_dynamically(fresh):
        arguments["mu"] = mu
    fresh.set_timesteps(**arguments)
    kept, timesteps, last = _pairs(fresh)
    return torch.cat([kept, last.reshape(1)]), timesteps
