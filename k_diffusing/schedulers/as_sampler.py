"""diffusers' schedulers as samplers: their own `step`, on any denoiser and any grid of sigmas.

    pipe(prompt, comfy_sampler=as_sampler(UniPCMultistepScheduler.from_config(pipe.scheduler.config)))

A scheduler has a state: it steps its own form of the latents down its own tables, and is told what a network
predicted. A sampler is a function of a denoiser and a grid. So the tables are made from the grid, and around each step
the latents and the denoised sample are translated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import SchedulerMixin

from k_diffusing._tensors import Stamp
from k_diffusing.grids.check import check_sigmas
from k_diffusing.model.scheduler_classes import RUNNABLE, stepping_class
from k_diffusing.model.scheduler_config import fresh_scheduler, is_flow, preconditioning
from k_diffusing.protocols import Denoiser
from k_diffusing.samplers.call import step_noise
from k_diffusing.samplers.patch import rebound
from k_diffusing.schedulers.ready import make_ready, one_path


def as_sampler(scheduler: Any, own_sigmas: bool = False) -> "SchedulerSampler":
    """A sampler with k-diffusion's signature that steps copies of a diffusers scheduler, made from its config.

    Args:
        scheduler: an instance; only its config is read.
        own_sigmas: where a pipeline is given no grid, take that of this scheduler's config, not of `pipe.scheduler`'s.

    Raises:
        TypeError: for what is not a scheduler.
        ValueError: for one that cannot be run on a denoiser.
    """
    if not isinstance(scheduler, SchedulerMixin):
        raise TypeError(
            "as_sampler takes an instance of a diffusers scheduler, such as UniPCMultistepScheduler(), not "
            f"{scheduler!r}; k_diffusion's samplers go by their names, such as comfy_sampler='euler'"
        )
    row = stepping_class(scheduler)
    reason = row.refused or row.refuses(cast(Any, scheduler).config)
    if reason is not None:
        name = type(scheduler).__name__
        raise ValueError(f"{name} cannot be run as a sampler: {reason}. These can: {', '.join(RUNNABLE)}")
    if not is_flow(scheduler):
        preconditioning(scheduler)  # raises for a prediction type that is not known
    return SchedulerSampler(fresh_scheduler(scheduler), own_sigmas)


@dataclass(frozen=True, eq=False)
class SchedulerSampler:
    """A diffusers scheduler with the signature of a k-diffusion sampler; made by `as_sampler`.

    It keeps nothing from one call to the next, so it can be used again, after an error, and from several threads.

    Attributes:
        scheduler: copies of it are stepped.
        own_sigmas: whether its config gives the sigmas where the user gives none.
        keeps_bounds: whether the bounds that its step puts on the denoised sample are kept.
    """

    scheduler: Any
    own_sigmas: bool = False
    keeps_bounds = True

    @property
    def __name__(self) -> str:
        """The class of the scheduler."""
        return type(self.scheduler).__name__

    @property
    def flow_coordinates(self) -> str | None:
        """Those of x: "flow" if it is (1 - t) x0 + t eps and sigma is t; None if it is x0 + sigma eps."""
        return "flow" if is_flow(self.scheduler) else None

    @property
    def grid_scheduler(self) -> Any:
        """Whose config gives the sigmas where the user gives none; None: that of the pipeline's scheduler."""
        return self.scheduler if self.own_sigmas else None

    @torch.no_grad()
    def __call__(
        self,
        model: Denoiser,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: dict | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
        *,
        noise_sampler: Callable | None = None,
    ) -> torch.Tensor:
        """Sample from noise level sigmas[0] to sigmas[-1].

        Args:
            model: (x, sigma [B]) -> denoised.
            x: the state at sigmas[0], [B, ...].
            sigmas: n + 1 decreasing values, the last usually 0.
            extra_args: keywords for the model.
            callback: called in each of the n steps after the first evaluation, with x, i, sigma, sigma_hat and
                denoised; x and denoised may be changed in place.
            disable: there is no progress bar.
            noise_sampler: (sigma, sigma_next) -> unit noise, the source of all; by default torch's global generator.

        Raises:
            ValueError: before the model runs, for sigmas that the scheduler cannot go down.
        """
        grid = sigmas.detach().float().cpu()
        self._check(grid)
        ready = make_ready(self.scheduler, grid)
        noise_sampler = noise_sampler or step_noise(x, sigmas, None)
        i = -1

        def draw(shape, dtype, **_):
            # A step to 0 adds none: it would be multiplied by 0, and a Brownian path may not reach that far.
            return x.new_zeros(shape) if grid[i + 1] == 0 else noise_sampler(sigmas[i], sigmas[i + 1]).to(dtype)

        if ready.row.one_path:
            ready.scheduler.noise_sampler = one_path(noise_sampler)
        step = rebound(type(ready.scheduler).step, {"randn_tensor": draw})
        for call, begins in enumerate(ready.begins):
            i += begins
            if i == len(grid) - 1:
                break
            denoised = model(x, x.new_full((len(x),), float(ready.levels[call])), **(extra_args or {}))
            if begins and callback is not None:
                before = Stamp(x)
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
                if not before.holds(x):
                    ready.row.forget(ready.scheduler)
            x = ready.advance(step, call, x, denoised)
        return x

    def _check(self, grid: torch.Tensor) -> None:
        check_sigmas(grid)
        if len(grid) < 2:
            raise ValueError(f"sigmas={grid.tolist()} leave no step to take: give at least two, the last usually 0")
        if self.flow_coordinates and grid[0] > 1:
            raise ValueError(
                f"sigmas[0] is {float(grid[0]):g}, but {self.__name__} integrates flow matching, where sigma is a "
                "time between 0 and 1: on FLUX choose flow_coordinates='auto' or 'flow'; on SDXL take a scheduler "
                "with betas, without use_flow_sigmas, from_config(pipe.scheduler.config)"
            )
