"""What the config of a diffusers scheduler says of the model: its noise schedule and what it predicts."""

import inspect
import math

import torch

from k_diffusing.model.preconditioning import PRECONDITIONINGS, Preconditioning, edm_preconditioning
from k_diffusing.model.scheduler_classes import scheduler_class
from k_diffusing.model.schedules import SMALLEST_ALPHA_CUMPROD, DiscreteSchedule, FlowSchedule, LogSigmaSchedule


def is_flow(scheduler) -> bool:
    """Whether a diffusers scheduler integrates a flow-matching model."""
    config = scheduler.config
    asked = bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"
    return asked or scheduler_class(scheduler).flow


def shifts_dynamically(scheduler) -> bool:
    """Whether it shifts flow time by the size of the image: asked for in its config, and something it can do."""
    asked = scheduler.config.get("use_dynamic_shifting")  # kept by from_config even where the class does not know it
    return bool(asked) and "mu" in inspect.signature(scheduler.set_timesteps).parameters


def size_mu(scheduler, tokens: int) -> float:
    """The log of the time shift that a flow scheduler's config asks for at this number of image tokens."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift  # takes the whole pipeline with it

    names = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    return calculate_shift(tokens, *(scheduler.config.get(name, usual) for name, usual in names.items()))


def fresh_scheduler(scheduler, **overrides):
    """A scheduler of the same class made from the config alone, untouched by any `set_timesteps` before."""
    known = {name: value for name, value in overrides.items() if name in scheduler.config}
    fresh = type(scheduler).from_config(scheduler.config, **known)
    if scheduler_class(scheduler).set_shift:  # the one setting a user makes on the scheduler and not in its config
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
    row = scheduler_class(scheduler)
    if not row.has_schedule:
        raise ValueError(
            f"{name} has no noise schedule we know: use EulerDiscreteScheduler, DDIMScheduler, "
            "EDMEulerScheduler or another of diffusers' KarrasDiffusionSchedulers"
        )
    fresh = fresh_scheduler(scheduler)
    if row.lists_sigmas and "sigma_data" in fresh.config and "prediction_type" in fresh.config:
        return LogSigmaSchedule(fresh.sigmas[fresh.sigmas > 0].flip(0).float())
    alphas_cumprod = fresh.alphas_cumprod.float().clamp(min=SMALLEST_ALPHA_CUMPROD)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    if fresh.config.get("timestep_type") == "continuous" and fresh.config.prediction_type == "v_prediction":
        return LogSigmaSchedule(sigmas)
    return DiscreteSchedule(sigmas)


def flow_schedule(scheduler, mu: float | None = None) -> FlowSchedule:
    """The noise schedule of a flow-matching model, from its diffusers scheduler's config.

    mu: the dynamic shift for this image size, used where the config asks for dynamic shifting.
    Raises ValueError for a scheduler that is not set up for flow matching, or without the shift that it needs.
    """
    if not is_flow(scheduler):
        raise ValueError(
            f"{type(scheduler).__name__} is not set up for flow matching: use FlowMatchEulerDiscreteScheduler, "
            "FlowMatchHeunDiscreteScheduler, FlowMatchLCMScheduler, or a DPMSolver, UniPC, DEIS or SASolver scheduler "
            "with use_flow_sigmas=True and prediction_type='flow_prediction'"
        )
    config = scheduler.config
    factor = config.get("shift", config.get("flow_shift", 1.0))
    if scheduler_class(scheduler).set_shift:
        factor = scheduler.shift
    if shifts_dynamically(scheduler):
        if mu is None:
            raise ValueError("the scheduler's config shifts flow time by the size of the image: pass mu=")
        factor = mu if config.get("time_shift_type") == "linear" else math.exp(mu)

    def shift(t):
        return factor * t / (1 + (factor - 1) * t)

    steps = config.num_train_timesteps
    return FlowSchedule(shift(torch.arange(1, steps + 1) / steps), shift, steps)


def preconditioning(scheduler) -> Preconditioning:
    """The row for the prediction type in a diffusers scheduler's config; ValueError where there is none."""
    prediction_type = scheduler.config.get("prediction_type", "epsilon")
    if "sigma_data" in scheduler.config and prediction_type in ("epsilon", "v_prediction"):
        return edm_preconditioning(prediction_type, scheduler.config.sigma_data)
    if prediction_type not in PRECONDITIONINGS:
        raise ValueError(f"unknown prediction_type {prediction_type!r}: choose one of {', '.join(PRECONDITIONINGS)}")
    return PRECONDITIONINGS[prediction_type]
