"""What sigma a timestep means: the noise schedules of epsilon, v, sample and flow-matching models."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

SMALLEST_ALPHA_CUMPROD = 2.0**-24  # stands for zero terminal SNR: sigma about 4096, as diffusers' Euler has it


@dataclass(frozen=True)
class DiscreteSchedule:
    """sigma as a function of the timesteps 0, 1, ..., N - 1 on which an epsilon or v network was trained.

    sigmas: [N], increasing. grid_sigmas, grid_timesteps: [n], pairs that are to be kept exactly, whatever
    interpolation between the table's points would say. logs: [N], the logarithms of the sigmas where they are known to
    more digits; a sigma at an integer timestep is then computed from them too.
    """

    sigmas: torch.Tensor
    grid_sigmas: torch.Tensor | None = None
    grid_timesteps: torch.Tensor | None = None
    logs: torch.Tensor | None = None

    def with_grid(self, sigmas: torch.Tensor, timesteps: torch.Tensor) -> "DiscreteSchedule":
        """The same schedule, with these pairs (float32, each [n]) on the grid."""
        return replace(self, grid_sigmas=sigmas.float(), grid_timesteps=timesteps.float())

    def to(self, device: torch.device) -> "DiscreteSchedule":
        """The same schedule on a device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items() if value is not None})

    @functools.cached_property
    def log_sigmas(self) -> torch.Tensor:
        """The logarithms of sigmas, [N]."""
        if self.logs is not None:
            return self.logs
        return self.sigmas.log()  # on the device of the questions, so that the table's own sigmas stay exact

    def timestep(self, sigma: torch.Tensor, quantize: bool = False) -> torch.Tensor:
        """The timestep the network is told at `sigma` (any shape).

        It is exact on the grid and on the table, and interpolated linearly in log sigma between the table's points;
        quantize: the integer whose log sigma is nearest, the smaller of two.
        """
        log_sigma = sigma.float().log()
        if quantize:
            nearest = (log_sigma - self.log_sigmas.reshape(-1, *[1] * sigma.ndim)).abs().argmin(0)
            return self._kept(sigma, nearest.to(log_sigma))
        high = torch.searchsorted(self.log_sigmas, log_sigma).clamp(1, len(self.log_sigmas) - 1)
        below, above = self.log_sigmas[high - 1], self.log_sigmas[high]
        timestep = high - 1 + ((log_sigma - below) / (above - below)).clamp(0, 1)
        return self._kept(sigma, timestep)

    def _kept(self, sigma: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The timestep, or that of the pair where sigma is on the grid."""
        if self.grid_sigmas is None or self.grid_timesteps is None:
            return timestep
        on_grid = sigma.float().unsqueeze(-1) == self.grid_sigmas
        return torch.where(on_grid.any(-1), torch.where(on_grid, self.grid_timesteps, 0).sum(-1), timestep)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """sigma at a timestep (any shape), interpolated linearly in log sigma between the integers."""
        timestep = timestep.float().clamp(0, len(self.sigmas) - 1)
        low = timestep.floor().long()
        high = timestep.ceil().long()
        above = timestep - low
        between = ((1 - above) * self.log_sigmas[low] + above * self.log_sigmas[high]).exp()
        return between if self.logs is not None else torch.where(low == high, self.sigmas[low], between)

    def sigma_at(self, fraction: float) -> float:
        """sigma when this part of the timesteps, counted from the largest, is done."""
        return float(self.sigma(torch.tensor((1 - fraction) * (len(self.sigmas) - 1))))


@dataclass(frozen=True)
class LogSigmaSchedule:
    """timestep = log(sigma) / 4, the c_noise of Karras et al. 2022 (table 1); sigmas: [N], increasing."""

    sigmas: torch.Tensor

    def with_grid(self, sigmas: torch.Tensor, timesteps: torch.Tensor) -> "LogSigmaSchedule":
        """The same schedule, which has these pairs already."""
        return self  # the formula is exact everywhere

    def to(self, device: torch.device) -> "LogSigmaSchedule":
        """The same schedule on a device."""
        return replace(self, sigmas=self.sigmas.to(device))

    def timestep(self, sigma: torch.Tensor, quantize: bool = False) -> torch.Tensor:
        """What the network is told at `sigma` (any shape). Raises ValueError for quantize: it is no integer."""
        if quantize:
            raise ValueError("quantize=True needs integer timesteps; this scheduler's are log(sigma) / 4")
        return 0.25 * sigma.float().log()

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The noise level at a timestep (any shape)."""
        return (4 * timestep.float()).exp()

    def sigma_at(self, fraction: float) -> float:
        """The noise level when this part of the timesteps, counted from the largest, is done."""
        last, first = self.timestep(self.sigmas[0]), self.timestep(self.sigmas[-1])
        return float(self.sigma(torch.lerp(first, last, fraction)))


@dataclass(frozen=True)
class FlowSchedule:
    """Flow matching: sigma is the flow time t in [0, 1], and the network is told t * train_steps.

    sigmas: [N], increasing, the model's training times after `shift`; shift: maps a uniform time, a number or a tensor,
    to the time that static or dynamic shifting makes of it. train_steps: num_train_timesteps of the scheduler.
    """

    sigmas: torch.Tensor
    shift: Callable[[Any], Any]
    train_steps: float = 1000

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the network is told at the flow time `sigma` (any shape)."""
        return sigma * self.train_steps

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """t at a timestep that is uniform in the scheduler's own, unshifted time (as sigma grids count it)."""
        return self.shift(timestep / self.train_steps)

    def sigma_at(self, fraction: float) -> float:
        """t when this part of the scheduler's own, unshifted time is done, in double precision."""
        return float(self.shift(1 - fraction))
