"""What sigma a timestep means: the noise schedules of epsilon, v, sample and flow-matching models."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

SMALLEST_ALPHA_CUMPROD = 2.0**-24  # stands for zero terminal SNR: sigma about 4096, as diffusers' Euler has it


@dataclass(frozen=True)
class DiscreteSchedule:
    """sigma as a function of the timesteps 0, 1, ..., N - 1 on which an epsilon or v network was trained.

    sigmas: [N], increasing. grid_sigmas, grid_timesteps: [n], pairs that are to be kept exactly, whatever
    interpolation between the table's points would say.
    """

    sigmas: torch.Tensor
    grid_sigmas: torch.Tensor | None = None
    grid_timesteps: torch.Tensor | None = None

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
        return self.sigmas.log()  # on the device of the questions, so that the table's own sigmas stay exact

    def timestep(self, sigma: torch.Tensor, quantize: bool = False) -> torch.Tensor:
        """The timestep the network is told at `sigma` (any shape).

        It is exact on the grid and on the table, and interpolated linearly in log sigma between the table's points;
        quantize: rounded to the nearest integer.
        """
        log_sigma = sigma.float().log()
        high = torch.searchsorted(self.log_sigmas, log_sigma).clamp(1, len(self.log_sigmas) - 1)
        below, above = self.log_sigmas[high - 1], self.log_sigmas[high]
        timestep = high - 1 + ((log_sigma - below) / (above - below)).clamp(0, 1)
        timestep = timestep.round() if quantize else timestep
        if self.grid_sigmas is None or self.grid_timesteps is None:
            return timestep
        on_grid = sigma.float().unsqueeze(-1) == self.grid_sigmas
        return torch.where(on_grid.any(-1), torch.where(on_grid, self.grid_timesteps, 0).sum(-1), timestep)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """sigma at a timestep (any shape), interpolated linearly in log sigma between the integers."""
        timestep = timestep.float().clamp(0, len(self.sigmas) - 1)
        low = timestep.floor().long()
        high = timestep.ceil().long()
        between = torch.lerp(self.log_sigmas[low], self.log_sigmas[high], timestep - low).exp()
        return torch.where(low == high, self.sigmas[low], between)

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
    """Flow matching: sigma is the flow time t in [0, 1], and the network is told t * num_train_timesteps.

    sigmas: [N], increasing, the model's training times after `shift`; shift: maps a uniform time to the time
    that the scheduler's static or dynamic shifting makes of it.
    """

    sigmas: torch.Tensor
    shift: Callable[[torch.Tensor], torch.Tensor]

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the network is told at the flow time `sigma` (any shape)."""
        return sigma * len(self.sigmas)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """t at a timestep that is uniform in the scheduler's own, unshifted time (as sigma grids count it)."""
        return self.shift(timestep / len(self.sigmas))

    def sigma_at(self, fraction: float) -> float:
        """t when this part of the scheduler's own, unshifted time is done."""
        return float(self.shift(torch.tensor(1 - fraction)))
