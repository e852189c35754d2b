"""What is known of diffusers' scheduler classes beyond their configs: one table, a row for each class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

FROM_IMAGES = "it goes from images to noise"
DISTILLED = "it is made for distilled models and chooses their timesteps itself"
UNKNOWN_STEP = "its step is not known to lead from x at one sigma to x at the next, given the denoised sample"


def _sigmas(scheduler) -> torch.Tensor:
    return scheduler.sigmas[: len(scheduler.timesteps) + 1].float().cpu()


def _with_listed_middles(offset: int) -> Callable:
    def levels(scheduler) -> torch.Tensor:
        sigmas = _sigmas(scheduler).clone()
        sigmas[1::2] = scheduler.sigmas_interpol[offset : offset + len(sigmas) - 1 : 2]
        return sigmas

    return levels


def _with_log_middles(scheduler) -> torch.Tensor:
    sigmas = _sigmas(scheduler).clone()
    sigmas[1::2] = (sigmas[::2] * sigmas[1::2]) ** 0.5
    return sigmas


def _from_alphas(last_alpha: Callable) -> Callable:
    def levels(scheduler) -> torch.Tensor:
        last = torch.as_tensor(last_alpha(scheduler))
        alphas = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], last.reshape(1)])
        return (((1 - alphas) / alphas) ** 0.5).float()

    return levels


def _one(scheduler) -> float:
    return 1.0


def _final_alpha(scheduler) -> torch.Tensor:
    return scheduler.final_alpha_cumprod


def _nothing(scheduler) -> None:
    pass


def _last_sample(scheduler) -> None:
    """UniPC and SA-Solver correct x by it."""
    scheduler.last_sample = None


def _outputs(scheduler) -> None:
    """A single-step solver begins a new group of steps if it has none."""
    scheduler.model_outputs = [None] * len(scheduler.model_outputs)


def _never(config: Mapping[str, Any]) -> bool:
    return False


def _always(config: Mapping[str, Any]) -> bool:
    return True


def _predicting_noise(config: Mapping[str, Any]) -> bool:
    return config["algorithm_type"] in ("dpmsolver", "sde-dpmsolver")


def _any_config(config: Mapping[str, Any]) -> None:
    return None


def _second_solver(config: Mapping[str, Any]) -> str | None:
    if config.get("solver_p") is None:
        return None
    return "its solver_p is a second scheduler, with a state of its own: use that one by itself"


def _scale_factors(config: Mapping[str, Any]) -> str | None:
    return "its scale_factors change the size of the latents between steps" if config.get("scale_factors") else None


def _learned_variance(config: Mapping[str, Any]) -> str | None:
    if config.get("variance_type") not in ("learned", "learned_range"):
        return None
    return "its variance_type needs a variance from the network, and a denoiser gives none"


@dataclass(frozen=True, kw_only=True)
class SchedulerClass:
    """What one has to know of a scheduler class to read its noise levels and to step it.

    Attributes:
        refused: why its `step` cannot be run on a denoiser; None where it can.
        refuses: (config) -> why it cannot be with these settings, or None.
        has_schedule: whether it tells a model's noise schedule.
        flow: whether it integrates flow matching whatever its config says.
        set_shift: whether the shift of flow time may be set on it, and not only in its config.
        scaled: whether it holds x as x / sqrt(sigma^2 + 1), unless it is set up for flow matching.
        lists_sigmas: whether `set_timesteps` makes `sigmas`; else there are timesteps alone.
        takes_sigmas: whether `set_timesteps(sigmas=)` takes noise levels.
        last_alpha: (scheduler) -> alpha_cumprod of the result, for one that lists no sigmas.
        levels: (scheduler) -> after `set_timesteps` the sigma of each network call, then of the result, [calls + 1].
        order: network calls in a step.
        warm_up: whether three Runge-Kutta steps of four calls come first, or the first step twice (`prk_timesteps`).
        derived: whether its tables are more than a list of sigmas; `set_timesteps` makes them from `alphas_cumprod`.
        counts: whether it counts its steps by `set_begin_index`.
        one_path: whether its noise is that of one Brownian path, from its `noise_sampler`, which a step asks for two
            intervals that overlap.
        infinite_at_zero: (config) -> whether its formula for a step to sigma = 0 is 0 * inf. A first-order step, which
            it would take there, gives the denoised sample.
        log_alpha: whether it takes log(1 - t) of a flow time.
        forget: (scheduler) -> drop what it keeps of x itself from the steps before, and would go on from.
    """

    refused: str | None = None
    refuses: Callable[[Mapping[str, Any]], str | None] = _any_config
    has_schedule: bool = True
    flow: bool = False
    set_shift: bool = False
    scaled: bool = False
    lists_sigmas: bool = True
    takes_sigmas: bool = False
    last_alpha: Callable[[Any], torch.Tensor | float] = _one
    levels: Callable[[Any], torch.Tensor] = _sigmas
    order: int = 1
    warm_up: bool = False
    derived: bool = False
    counts: bool = True
    one_path: bool = False
    infinite_at_zero: Callable[[Mapping[str, Any]], bool] = _never
    log_alpha: bool = False
    forget: Callable[[Any], None] = _nothing


def _timesteps_alone(last_alpha: Callable = _final_alpha, **columns) -> SchedulerClass:
    """DDIM and its like, whose sigmas are those of the training's timesteps."""
    defaults: dict[str, Any] = {"scaled": True, "lists_sigmas": False, "derived": True, "counts": False}
    return SchedulerClass(last_alpha=last_alpha, levels=_from_alphas(last_alpha), **defaults | columns)


def _two_calls(levels: Callable = _sigmas, **columns) -> SchedulerClass:
    return SchedulerClass(order=2, levels=levels, **columns)


def _exponential(**columns) -> SchedulerClass:
    """A solver in log(alpha / sigma)."""
    return SchedulerClass(scaled=True, log_alpha=True, **columns)


UNKNOWN = SchedulerClass(refused=UNKNOWN_STEP, has_schedule=False)

SCHEDULER_CLASSES = {
    "DDIMScheduler": _timesteps_alone(),
    "DDPMScheduler": _timesteps_alone(_one, refuses=_learned_variance),
    "PNDMScheduler": _timesteps_alone(warm_up=True),
    "LMSDiscreteScheduler": SchedulerClass(),
    "EulerDiscreteScheduler": SchedulerClass(takes_sigmas=True),
    "EulerAncestralDiscreteScheduler": SchedulerClass(),
    "HeunDiscreteScheduler": _two_calls(derived=True),
    "KDPM2DiscreteScheduler": _two_calls(_with_listed_middles(1), derived=True),
    "KDPM2AncestralDiscreteScheduler": _two_calls(_with_listed_middles(0), derived=True),
    "DPMSolverSDEScheduler": _two_calls(_with_log_middles, derived=True, one_path=True),
    "DPMSolverMultistepScheduler": _exponential(refuses=_learned_variance, infinite_at_zero=_predicting_noise),
    "DPMSolverSinglestepScheduler": _exponential(
        refuses=_learned_variance, infinite_at_zero=_predicting_noise, forget=_outputs
    ),
    "DEISMultistepScheduler": _exponential(infinite_at_zero=_always),
    "UniPCMultistepScheduler": _exponential(
        refuses=_second_solver, infinite_at_zero=_always, takes_sigmas=True, forget=_last_sample
    ),
    "SASolverScheduler": _exponential(refuses=_learned_variance, infinite_at_zero=_always, forget=_last_sample),
    "EDMEulerScheduler": SchedulerClass(),
    "EDMDPMSolverMultistepScheduler": SchedulerClass(),
    "FlowMatchEulerDiscreteScheduler": SchedulerClass(flow=True, set_shift=True, takes_sigmas=True),
    "FlowMatchHeunDiscreteScheduler": _two_calls(flow=True),
    "FlowMatchLCMScheduler": SchedulerClass(refuses=_scale_factors, flow=True, set_shift=True, takes_sigmas=True),
    # Those whose noise schedule is known, but not their step.
    "CogVideoXDDIMScheduler": _timesteps_alone(refused=UNKNOWN_STEP),
    "CogVideoXDPMScheduler": _timesteps_alone(refused=UNKNOWN_STEP),
    "CosineDPMSolverMultistepScheduler": SchedulerClass(refused=UNKNOWN_STEP),
    "DDIMParallelScheduler": _timesteps_alone(refused=UNKNOWN_STEP),
    "DDPMParallelScheduler": _timesteps_alone(_one, refused=UNKNOWN_STEP),
    "RePaintScheduler": _timesteps_alone(refused=UNKNOWN_STEP),
    "UnCLIPScheduler": _timesteps_alone(_one, refused=UNKNOWN_STEP),
    # Those whose step is known to be something else.
    "LCMScheduler": _timesteps_alone(refused=DISTILLED),
    "TCDScheduler": _timesteps_alone(refused=DISTILLED),
    "CMStochasticIterativeScheduler": SchedulerClass(refused=DISTILLED, has_schedule=False),
    "SCMScheduler": SchedulerClass(refused=DISTILLED, has_schedule=False),
    "ConsistencyDecoderScheduler": SchedulerClass(refused=DISTILLED, has_schedule=False),
    "DDIMInverseScheduler": _timesteps_alone(_one, refused=FROM_IMAGES),
    "DPMSolverMultistepInverseScheduler": _exponential(refused=FROM_IMAGES),
}
RUNNABLE = tuple(name for name, row in SCHEDULER_CLASSES.items() if row.refused is None)


def scheduler_class(scheduler) -> SchedulerClass:
    """The row of a scheduler's class, or of the nearest class it inherits from; UNKNOWN if there is none."""
    names = (cls.__name__ for cls in type(scheduler).__mro__)
    return next((SCHEDULER_CLASSES[name] for name in names if name in SCHEDULER_CLASSES), UNKNOWN)


def stepping_class(scheduler) -> SchedulerClass:
    """The row of the class whose `step` a scheduler has; UNKNOWN if there is none.

    So a subclass counts as its parent unless it steps differently.
    """
    owner = next((cls.__name__ for cls in type(scheduler).__mro__ if "step" in vars(cls)), "")
    return SCHEDULER_CLASSES.get(owner, UNKNOWN)
