"""The sigma grids of A1111's web UI and of Forge, to the last bit; read from versions 1.10.1 and f2.0.1.

Each is a function (schedule, n) -> sigmas, as those of ours are. They count their range in python's doubles and their
levels in float32; a Brownian tree rounds its times to six digits, so that the last bits can be other noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.grids.bounds import with_zero
from k_diffusing.grids.leveled import ddim_uniform, simple
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.protocols import NoiseSchedule

# The sigmas of SDXL at 10 steps that NVIDIA's page on Align Your Steps gives (Sabour et al. 2024, arXiv 2404.14507).
ALIGN_YOUR_STEPS = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def _whole_range_only(schedule: NoiseSchedule, name: str) -> None:
    if isinstance(schedule, FlowSchedule):
        raise ValueError(
            f"Forge's grid {name!r} is none for FLUX: it takes the numbers of its levels, or sigmas up to 14.6, for "
            "times in 0 to 1, and renders noise. Choose simple, normal, sgm_uniform, karras, exponential, beta, ..."
        )


def uniform(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """n timesteps evenly from the largest to 0, both included, whatever the range that is set."""
    _whole_range_only(schedule, "uniform")
    return with_zero(schedule.sigma(torch.linspace(len(schedule.sigmas) - 1, 0, n)))


def align_your_steps(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """The published sigmas of SDXL, between them linear in the logarithm."""
    _whole_range_only(schedule, "align_your_steps")
    if n == len(ALIGN_YOUR_STEPS):
        return with_zero(ALIGN_YOUR_STEPS)
    logs = np.log(ALIGN_YOUR_STEPS[::-1])
    rising = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(logs)), logs)
    return with_zero(np.exp(rising)[::-1].copy())


def turbo(schedule: NoiseSchedule, n: int) -> torch.Tensor:
    """Forge's "Turbo": n timesteps evenly, the last of each part of 1000 / n, whatever the range that is set."""
    _whole_range_only(schedule, "turbo")
    times = torch.arange(n, 0, -1) * (1000 / n) - 1
    return with_zero(schedule.sigma(times.round().clamp(0, len(schedule.sigmas) - 1)))


@dataclass(frozen=True)
class Range:
    """The range that grids are set to cover, and what else shapes them; None: the model's, and each grid's own.

    low, high: sigmas. rho: the exponent of karras and polyexponential. alpha, beta: of the Beta distribution.
    quantize: whether timesteps are integers where even ones are looked for.
    """

    low: float | None = None
    high: float | None = None
    rho: float | None = None
    alpha: float = 0.6
    beta: float = 0.6
    quantize: bool = False

    def ends(self, schedule: NoiseSchedule) -> tuple[float, float]:
        """The smallest sigma above 0, and the largest."""
        low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
        return low if self.low is None else self.low, high if self.high is None else self.high

    def _even_times(self, schedule: Any, n: int) -> torch.Tensor:
        """n sigmas [n] whose timesteps lie evenly; of FLUX, which Forge gives no timesteps here, even themselves."""
        low, high = (torch.tensor(end) for end in self.ends(schedule))
        if isinstance(schedule, FlowSchedule):
            return torch.linspace(float(high), float(low), n)
        first, last = (float(schedule.timestep(end, self.quantize)) for end in (high, low))
        times = torch.linspace(first, last, n)
        return torch.stack([schedule.sigma(time) for time in times])  # exp of many at once differs in the last bit

    def normal(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """n timesteps evenly, both ends included."""
        return with_zero(self._even_times(schedule, n))

    def sgm_uniform(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """n + 1 timesteps evenly, without the last."""
        return with_zero(self._even_times(schedule, n + 1)[:-1])

    def karras(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """Even in sigma^(1/rho), rho 7."""
        return k_sampling.get_sigmas_karras(n, *self.ends(schedule), rho=self.rho or 7.0)

    def exponential(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """Even in log sigma."""
        return k_sampling.get_sigmas_exponential(n, *self.ends(schedule))

    def polyexponential(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """Polynomial in log sigma, of degree rho, 1."""
        return k_sampling.get_sigmas_polyexponential(n, *self.ends(schedule), rho=self.rho or 1.0)

    def kl_optimal(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """tan of n + 1 even angles. It ends at the smallest sigma: no step leads to 0."""
        low, high = (torch.tensor(end).arctan() for end in self.ends(schedule))
        down = torch.arange(n + 1) / n
        return torch.tan(down * low + (1.0 - down) * high)

    def beta_quantiles(self, schedule: NoiseSchedule, n: int) -> torch.Tensor:
        """Quantiles of a Beta distribution, taken for fractions of sigma's range, not of the timesteps'."""
        from scipy import stats  # takes a while to import

        low, high = self.ends(schedule)
        down = [stats.beta.ppf(q, self.alpha, self.beta) for q in 1 - np.linspace(0, 1, n)]
        return with_zero([low + q * (high - low) for q in down])

    def grids(self) -> dict[str, Callable]:
        """All grids by name."""
        return {
            "uniform": uniform,
            "karras": self.karras,
            "exponential": self.exponential,
            "polyexponential": self.polyexponential,
            "sgm_uniform": self.sgm_uniform,
            "kl_optimal": self.kl_optimal,
            "align_your_steps": align_your_steps,
            "simple": simple,
            "normal": self.normal,
            "ddim": ddim_uniform,
            "ddim_uniform": ddim_uniform,
            "beta": self.beta_quantiles,
            "turbo": turbo,
        }
