"""What sigma a timestep means, and how a network's output becomes a denoiser's.

A sampler of k-diffusion sees data as `x = x0 + sigma * eps` (variance exploding, VE). A network was trained on
its own scale of x, is told a timestep, and predicts noise, velocity or the clean sample:

    denoised = c_skip * x + c_out * net(c_in * x, c_noise)

Noise schedules give c_noise, preconditionings the other three, flow coordinates all four for flow matching.
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch

SMALLEST_ALPHA_CUMPROD = 2.0**-24  # stands for zero terminal SNR: sigma about 4096, as diffusers' Euler has it
# Stands for t = 1, where sigma = t / (1 - t) is infinite: sigma 199, at which the latents are noise but for 0.5 %.
# Much larger ones (ComfyUI's 0.99996834 is 31600) make a first step so long that dpm_2_ancestral multiplies the
# difference of two network outputs by 700; the distance to the closed-form model's target is the same to 0.003.
LARGEST_FLOW_TIME = 0.995


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
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items() if value is not None})

    @functools.cached_property
    def log_sigmas(self) -> torch.Tensor:
        return self.sigmas.log()  # on the device of the questions, so that the table's own sigmas stay exact

    def timestep(self, sigma: torch.Tensor, quantize: bool = False) -> torch.Tensor:
        """The timestep the network is told at `sigma` (any shape): exact on the grid and on the table,
        interpolated linearly in log sigma between table points; quantize: rounded to the nearest integer."""
        log_sigma = sigma.float().log()
        high = torch.searchsorted(self.log_sigmas, log_sigma).clamp(1, len(self.log_sigmas) - 1)
        below, above = self.log_sigmas[high - 1], self.log_sigmas[high]
        timestep = high - 1 + ((log_sigma - below) / (above - below)).clamp(0, 1)
        timestep = timestep.round() if quantize else timestep
        if self.grid_sigmas is None:
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
        return self  # the formula is exact everywhere

    def to(self, device: torch.device) -> "LogSigmaSchedule":
        return replace(self, sigmas=self.sigmas.to(device))

    def timestep(self, sigma: torch.Tensor, quantize: bool = False) -> torch.Tensor:
        if quantize:
            raise ValueError("quantize=True needs integer timesteps; this scheduler's are log(sigma) / 4")
        return 0.25 * sigma.float().log()

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        return (4 * timestep.float()).exp()

    def sigma_at(self, fraction: float) -> float:
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
        return sigma * len(self.sigmas)

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """t at a timestep that is uniform in the scheduler's own, unshifted time (as sigma grids count it)."""
        return self.shift(timestep / len(self.sigmas))

    def sigma_at(self, fraction: float) -> float:
        """t when this part of the scheduler's own, unshifted time is done."""
        return float(self.shift(torch.tensor(1 - fraction)))


def is_flow(scheduler) -> bool:
    """Whether a diffusers scheduler integrates a flow-matching model."""
    config = scheduler.config
    flow_class = any("FlowMatch" in cls.__name__ for cls in type(scheduler).__mro__)
    return flow_class or bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def shifts_dynamically(scheduler) -> bool:
    """Whether it shifts flow time by the size of the image: asked for in its config, and something it can do."""
    asked = scheduler.config.get("use_dynamic_shifting")  # kept by from_config even where the class does not know it
    return bool(asked) and "mu" in inspect.signature(scheduler.set_timesteps).parameters


def fresh_scheduler(scheduler, **overrides):
    """A scheduler of the same class made from the config alone, untouched by any `set_timesteps` before."""
    known = {name: value for name, value in overrides.items() if name in scheduler.config}
    fresh = type(scheduler).from_config(scheduler.config, **known)
    if hasattr(fresh, "set_shift"):  # the one setting a user makes on the scheduler and not in its config
        fresh.set_shift(scheduler.shift)
    return fresh


def noise_schedule(scheduler) -> DiscreteSchedule | LogSigmaSchedule:
    """The noise schedule of an epsilon, v or sample model, from its diffusers scheduler's config.

    Raises ValueError for a scheduler whose schedule is not known: flow matching, consistency models, ...
    """
    name = type(scheduler).__name__
    if is_flow(scheduler):
        raise ValueError(
            f"{name} is set up for flow matching, this model is not; use one with betas, such as "
            "EulerDiscreteScheduler.from_config(pipe.scheduler.config), without use_flow_sigmas"
        )
    fresh = fresh_scheduler(scheduler)
    if "sigma_data" in fresh.config and "prediction_type" in fresh.config:
        return LogSigmaSchedule(fresh.sigmas[fresh.sigmas > 0].flip(0).float())
    if getattr(fresh, "alphas_cumprod", None) is None:
        raise ValueError(
            f"{name} has no noise schedule we know: use EulerDiscreteScheduler, DDIMScheduler, "
            "EDMEulerScheduler or another of diffusers' KarrasDiffusionSchedulers"
        )
    alphas_cumprod = fresh.alphas_cumprod.float().clamp(min=SMALLEST_ALPHA_CUMPROD)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    if fresh.config.get("timestep_type") == "continuous" and fresh.config.prediction_type == "v_prediction":
        return LogSigmaSchedule(sigmas)
    return DiscreteSchedule(sigmas)


def flow_schedule(scheduler, mu: float | None = None) -> FlowSchedule:
    """The noise schedule of a flow-matching model, from its diffusers scheduler's config.

    mu: the dynamic shift for this image size, used where the config asks for dynamic shifting.
    Raises ValueError for a scheduler that is not set up for flow matching.
    """
    if not is_flow(scheduler):
        raise ValueError(
            f"{type(scheduler).__name__} is not set up for flow matching: use FlowMatchEulerDiscreteScheduler, "
            "FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler, or a DPMSolver, UniPC, DEIS or SASolver scheduler "
            "with use_flow_sigmas=True and prediction_type='flow_prediction'"
        )
    config = scheduler.config
    factor = config.get("shift", config.get("flow_shift", 1.0))
    if hasattr(type(scheduler), "shift"):  # FlowMatchEuler's, which set_shift may have changed
        factor = scheduler.shift
    if shifts_dynamically(scheduler):
        factor = mu if config.get("time_shift_type") == "linear" else math.exp(mu)

    def shift(t: torch.Tensor) -> torch.Tensor:
        return factor * t / (1 + (factor - 1) * t)

    steps = config.num_train_timesteps
    return FlowSchedule(shift(torch.arange(1, steps + 1) / steps), shift)


class Preconditioning(NamedTuple):
    """One row of the table: the network's input, and the denoised sample from its output.

    network_input(x, sigma) is c_in * x; denoised(x, output, sigma) is c_skip * x + c_out * output, and
    output(x, denoised, sigma) its inverse for sigma > 0; sigma must broadcast against x. The operations are in
    diffusers' order, so that results agree to the last bit.
    """

    network_input: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    denoised: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    output: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _vp_input(x, sigma):
    return x / (sigma**2 + 1) ** 0.5


PRECONDITIONINGS = {
    "epsilon": Preconditioning(
        _vp_input,
        lambda x, output, sigma: x - sigma * output,
        lambda x, denoised, sigma: (x - denoised) / sigma,
    ),
    "v_prediction": Preconditioning(
        _vp_input,
        lambda x, output, sigma: output * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1),
        lambda x, denoised, sigma: (x / (sigma**2 + 1) - denoised) * ((sigma**2 + 1) ** 0.5 / sigma),
    ),
    "sample": Preconditioning(_vp_input, lambda x, output, sigma: output, lambda x, denoised, sigma: denoised),
}


def edm_preconditioning(prediction_type: str, sigma_data: float) -> Preconditioning:
    """Karras et al. 2022, table 1, for data of standard deviation sigma_data; "v_prediction" flips c_out's sign."""
    sign = -1 if prediction_type == "v_prediction" else 1

    def denoised(x, output, sigma):
        variance = sigma**2 + sigma_data**2
        return sigma_data**2 / variance * x + sign * sigma * sigma_data / variance**0.5 * output

    def output(x, denoised, sigma):
        variance = sigma**2 + sigma_data**2
        return (denoised - sigma_data**2 / variance * x) / (sign * sigma * sigma_data / variance**0.5)

    return Preconditioning(lambda x, sigma: x * (1 / (sigma**2 + sigma_data**2) ** 0.5), denoised, output)


def preconditioning(scheduler) -> Preconditioning:
    """The row for the prediction type in a diffusers scheduler's config; ValueError where there is none."""
    prediction_type = scheduler.config.get("prediction_type", "epsilon")
    if "sigma_data" in scheduler.config and prediction_type in ("epsilon", "v_prediction"):
        return edm_preconditioning(prediction_type, scheduler.config.sigma_data)
    if prediction_type not in PRECONDITIONINGS:
        raise ValueError(f"unknown prediction_type {prediction_type!r}: choose one of {', '.join(PRECONDITIONINGS)}")
    return PRECONDITIONINGS[prediction_type]


class FlowCoordinates(NamedTuple):
    """How a sampler sees flow matching's `latents = (1 - t) x0 + t eps`, and the way back to t and latents.

    sigmas(t): the grid handed to the sampler, from one of flow times. time(sigma): t. state(latents, sigma) and
    latents(state, sigma) change coordinates; sigma must broadcast against the state.
    """

    sigmas: Callable[[torch.Tensor], torch.Tensor]
    time: Callable[[torch.Tensor], torch.Tensor]
    state: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    latents: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def variance_exploding(t: torch.Tensor) -> torch.Tensor:
    """sigma = t / (1 - t) on a decreasing grid of flow times whose first value may be 1 (sigma infinite).

    That one is clamped to LARGEST_FLOW_TIME, or half-way to 1 from the next if the grid is finer than that, so
    that the grid stays strictly decreasing.
    """
    t = t.double()
    if t[0] > LARGEST_FLOW_TIME:
        t = torch.cat([torch.clamp((1 + t[1:2]) / 2, min=LARGEST_FLOW_TIME).minimum(t[:1]), t[1:]])
    return (t / (1 - t)).float()


# The sampler runs on the latents themselves: right for those that add no noise and see only the derivative.
FLOW = FlowCoordinates(lambda t: t, lambda sigma: sigma, lambda latents, sigma: latents, lambda x, sigma: x)
# The sampler runs on y = latents / (1 - t) = x0 + sigma eps with sigma = t / (1 - t): right for every sampler.
VE = FlowCoordinates(
    variance_exploding,
    lambda sigma: sigma / (1 + sigma),
    lambda latents, sigma: latents * (1 + sigma),
    lambda x, sigma: x / (1 + sigma),
)
FLOW_COORDINATES = {"flow": FLOW, "ve": VE, "velocity": FLOW}
