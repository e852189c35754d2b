"""A diffusers scheduler made ready for a grid of sigmas: the tables that its own `step` goes down."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from k_diffusing.model.preconditioning import vp_scale
from k_diffusing.model.scheduler_classes import SchedulerClass, stepping_class
from k_diffusing.model.scheduler_config import is_flow, noise_schedule, preconditioning

# Stands for the flow time 1 where a scheduler takes log(1 - t). Nearer to 1, DEIS loses its digits in differences of
# numbers over 1 - t: at 1 - 1e-6, of float32's seven all but two.
ALMOST_ONE = 1 - 1e-4


@dataclass(frozen=True)
class ReadyScheduler:
    """A scheduler made ready for a grid.

    Attributes:
        scheduler: a copy, with its tables made.
        row: what is known of its class.
        levels: the sigma of each network call, then that of the result, [calls + 1].
        begins: whether a call is the first in a step of the grid, [calls].
        output: what the scheduler is told that a network predicted, from (x, denoised, sigma).
        scaled: whether it holds x as x / sqrt(sigma^2 + 1).
    """

    scheduler: Any  # diffusers' SchedulerMixin says nothing of what all schedulers have
    row: SchedulerClass
    levels: torch.Tensor
    begins: list[bool]
    output: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    scaled: bool

    def grid(self) -> torch.Tensor:
        """The sigmas at which steps begin, and the last, [steps + 1]."""
        return torch.cat([self.levels[:-1][torch.tensor(self.begins)], self.levels[-1:]])

    def advance(self, step: Callable, call: int, x: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """The state at levels[call + 1], from the state x [B, ...] at levels[call] and its denoised sample.

        step: the scheduler class's, with what is bound anew of it.
        """
        sigma, sigma_next, config = self.levels[call], self.levels[call + 1], self.scheduler.config
        if sigma_next == 0 and self.row.infinite_at_zero(config):
            return self.scheduler._threshold_sample(denoised) if config.thresholding else denoised
        sample = x / vp_scale(sigma) if self.scaled else x
        output = self.output(x, denoised, sigma)
        sample = step(self.scheduler, output, self.scheduler.timesteps[call], sample, return_dict=False)[0]
        return (sample * vp_scale(sigma_next) if self.scaled else sample).to(x.dtype)


def make_ready(scheduler, grid: torch.Tensor) -> ReadyScheduler:
    """A copy of the scheduler: on its own tables if they have the grid's sigmas, as in diffusers' loop, else on others.

    grid: [steps + 1], decreasing. One that stops above 0 is given two more steps, to 0, which are not to be taken: what
    schedulers do only in their last two steps does not belong there.
    """
    steps, changes, row = len(grid) - 1, {}, stepping_class(scheduler)
    if scheduler.config.get("prediction_type") == "sample":
        changes["prediction_type"] = "epsilon"  # some do not know "sample", and the denoiser serves any
    if steps < 4:
        changes["skip_prk_steps"] = True  # PNDM's warm-up takes three steps
    if is_flow(scheduler):
        changes |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "use_dynamic_shifting": False}
    elif steps <= scheduler.config.num_train_timesteps:
        own = _copy(scheduler, changes)
        own.set_timesteps(steps)
        ready = _ready(own, row)
        if torch.equal(ready.grid(), grid):
            return ready
    whole = grid if grid[-1] == 0 else torch.cat([grid, grid[-1:] / 2, grid.new_zeros(1)])
    tabled = _derived(scheduler, whole, changes) if row.derived else _assigned(scheduler, row, whole, changes)
    return _ready(tabled, row)


def _copy(scheduler, changes: dict) -> Any:
    """With those of the changes that its config knows."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.register_to_config(**{name: value for name, value in changes.items() if name in scheduler.config})
    return scheduler


def _ready(scheduler, row: SchedulerClass) -> ReadyScheduler:
    scheduler.is_scale_input_called = True  # it was, by the denoiser; some warn otherwise
    if row.counts:
        scheduler.set_begin_index(0)
    calls = range(len(scheduler.timesteps))
    begins = [call % row.order == 0 for call in calls]
    if row.warm_up:
        runge_kutta = len(scheduler.prk_timesteps)
        begins = [call % 4 == 0 if call < runge_kutta else call != 1 for call in calls]
    flow = is_flow(scheduler)
    output = _velocity if flow else preconditioning(scheduler).output
    return ReadyScheduler(scheduler, row, row.levels(scheduler), begins, output, row.scaled and not flow)


def _velocity(x: torch.Tensor, denoised: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (x - denoised) / t


def _assigned(scheduler, row: SchedulerClass, grid: torch.Tensor, changes: dict) -> Any:
    """A copy with the grid, which ends at 0, for its sigmas."""
    if not row.infinite_at_zero(scheduler.config):
        changes = changes | {"final_sigmas_type": "zero"}
    scheduler, flow = _copy(scheduler, changes), is_flow(scheduler)
    scheduler.set_timesteps(len(grid) - 1)
    if flow and row.log_alpha:
        almost_one = ((1 + grid[1:2]) / 2).clamp(min=ALMOST_ONE)  # above the next
        grid = torch.cat([torch.where(grid[:1] < 1, grid[:1], almost_one), grid[1:]])
    if row.order == 2:
        grid = torch.cat([grid[:1], grid[1:-1].repeat_interleave(2), grid[-1:]])
    train_steps = scheduler.config.num_train_timesteps
    timestep = (lambda t: t * train_steps) if flow else noise_schedule(scheduler).timestep
    scheduler.sigmas, scheduler.timesteps = grid, timestep(grid[:-1])
    return scheduler


def _derived(scheduler, grid: torch.Tensor, changes: dict) -> Any:
    """A copy with the tables for a model of these noise levels only: the grid's, which ends at 0, and those between.

    The n levels above 0 are the odd timesteps of 2 n, as "trailing" spacing chooses them; the even ones are half-way
    in log sigma.
    """
    levels = grid[:-1].flip(0).double()
    middles = torch.cat([levels[:1], (levels[1:] * levels[:-1]) ** 0.5])
    table = torch.stack([middles, levels], 1).flatten()
    plain = {f"use_{name}_sigmas": False for name in ("karras", "exponential", "beta")}
    spacing = {"num_train_timesteps": len(table), "timestep_spacing": "trailing"}
    scheduler = _copy(scheduler, changes | plain | spacing)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = 1 / (1 + table**2), torch.ones(())
    scheduler.set_timesteps(len(levels))
    return scheduler


def one_path(noise_sampler: Callable) -> Callable:
    """The noise of one Brownian path for the two intervals, (sigma, middle) and (sigma, sigma_next), of a step.

    Over an interval a path's increment has variance |sigma - sigma_next|; the second one is the first and what follows.
    """
    start = middle = first = None

    def noise(sigma, sigma_next):
        nonlocal start, middle, first
        if start is None or sigma != start:
            start, middle, first = sigma, sigma_next, noise_sampler(sigma, sigma_next)
            return first
        parts = (start - middle) ** 0.5 * first + (middle - sigma_next) ** 0.5 * noise_sampler(middle, sigma_next)
        return parts / (start - sigma_next) ** 0.5

    return noise
