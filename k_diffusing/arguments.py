"""What a user passes to a pipeline's call: whether it can be, before any model runs."""

import inspect
import weakref
from collections.abc import Callable, Collection
from numbers import Integral
from typing import Any

import torch
from diffusers.utils import logging

from k_diffusing.grids.check import check_grid_choice, check_steps
from k_diffusing.grids.given import ListedGrid
from k_diffusing.model.guidance import Guidance
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options
from k_diffusing.samplers.records import Sampler

logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings

DEPRECATED = ("callback", "callback_steps")  # keyword-only in our calls, and yet diffusers'
TRAIN_STEPS = 1000  # of FLUX: what its transformer is told of a time t is 1000 t

_warned = weakref.WeakKeyDictionary()  # the settings that each pipeline or scheduler was warned of


def check_sampler(
    comfy_sampler: str | Callable | Sampler,
    sampler_options: dict[str, Any] | None,
    sigma_grid: str | Callable | None,
    num_inference_steps: int,
    more_grids: Collection[str] = (),
    **explicit,
) -> Sampler:
    """Return the sampler's record if it can run with these options on this grid.

    more_grids: the names of grids that a program has besides ours. explicit: sigmas=, timesteps=, the user's own
    values. Raises ValueError or TypeError, with the value, the reason and the choices.
    """
    sampler = find_sampler(comfy_sampler)
    check_options(sampler, sampler_options)
    check_grid_choice(sigma_grid, more_grids, **explicit)
    if all(values is None for values in explicit.values()):
        check_steps(num_inference_steps)
        warn_of_grid(sampler, sigma_grid)
    if isinstance(sigma_grid, ListedGrid):
        explicit = {"sigma_grid": sigma_grid}
    for name, values in explicit.items():
        if values is not None and sampler.takes == "sigma_range":
            raise ValueError(
                f"{sampler.name} chooses its own steps between sigma_min and sigma_max, so {name}= cannot be kept: "
                "leave it out, or choose a sampler that takes a grid of sigmas"
            )
    return sampler


def check_train_steps(scheduler) -> None:
    """Raise ValueError for a scheduler of FLUX that does not count 1000 timesteps, as the transformer does."""
    steps = scheduler.config.get("num_train_timesteps", TRAIN_STEPS)
    if steps != TRAIN_STEPS:
        raise ValueError(
            f"num_train_timesteps={steps} in the config of {type(scheduler).__name__}: FLUX is told t * {TRAIN_STEPS}, "
            f"and would be told t * {steps}. Leave it at {TRAIN_STEPS}; ComfyUI's 10,000 noise levels come with "
            'program="comfyui"'
        )


def warn_of_grid(sampler: Sampler, sigma_grid: str | Callable | None) -> None:
    """Warn where the grid of a scheduler's config does not do for a sampler."""
    if sampler.sigma_grid and sigma_grid is None:
        logger.warning(f"{sampler.name} needs a grid smooth in log sigma: sigma_grid={sampler.sigma_grid!r} is one")


def check_callback(sampler: Sampler, *callbacks: Callable | None) -> None:
    """Raise ValueError for a step-end callback of a sampler that never tells of its steps."""
    parameters = inspect.signature(sampler.function).parameters.values()
    takes_callback = any(p.name == "callback" or p.kind is p.VAR_KEYWORD for p in parameters)
    if not takes_callback and any(callback is not None for callback in callbacks):
        raise ValueError(f"{sampler.name} takes no `callback`, so no step-end callback can be called: add it")


def check_guidance(guidance: Guidance, embeds_scale: bool, rescale: float) -> None:
    """Raise ValueError for guidance that an SDXL network cannot have.

    embeds_scale: whether it was distilled to be told the scale. rescale: diffusers' guidance_rescale.
    """
    if guidance.by_step and embeds_scale:
        raise ValueError(
            "guidance= and guider= combine answers with and without the prompt, and this UNet was distilled to take "
            "the scale as an embedding (time_cond_proj_dim): give guidance_scale"
        )
    if guidance.guider is not None and rescale:
        name = type(guidance.guider).__name__
        raise ValueError(f"guidance_rescale={rescale} beside guider=: give it to the guider, {name}(guidance_rescale=)")


def check_negative(guidance: Guidance, has_negative: bool) -> None:
    """Raise ValueError for guidance of FLUX that lacks the negative prompt; true_cfg_scale alone is ignored then."""
    if guidance.guides and not has_negative:
        raise ValueError("guidance= and guider= need a negative prompt on FLUX: give negative_prompt='', say")


def warn_of_bounds(owner: Any, sampler: Sampler, scheduler) -> None:
    """Warn where a sampler leaves out the bounds that the scheduler's step would put on the denoised sample.

    `as_sampler` leaves out none: it runs a scheduler's own step.

    Args:
        owner: The pipeline, or what else the scheduler belongs to. It is warned once of each setting.
        sampler: That is about to run.
        scheduler: Of diffusers, in whose config the bounds are asked for.
    """
    if sampler.keeps_bounds:
        return
    name, warned = type(scheduler).__name__, _warned.setdefault(owner, set())
    settings = inspect.signature(type(scheduler).__init__).parameters  # not all of a config is the class's own
    for setting in ("clip_sample", "thresholding"):
        if setting in settings and scheduler.config.get(setting) and setting not in warned:
            warned.add(setting)
            logger.warning(
                f"{setting}=True in the config of {name} has no effect here: it belongs to that scheduler's own step, "
                f"and {sampler.name} has another. as_sampler({name}.from_config(pipe.scheduler.config)) keeps it; "
                f"from_config(pipe.scheduler.config, {setting}=False) says that it is not wanted"
            )


def count_images(prompt: str | list[str] | None, prompt_embeds: torch.Tensor | None, per_prompt: int) -> int:
    """The images of a call; ValueError unless there is one at least."""
    if not isinstance(per_prompt, Integral) or isinstance(per_prompt, bool) or per_prompt < 1:
        raise ValueError(f"num_images_per_prompt={per_prompt!r}: give an integer of at least 1")
    given = prompt_embeds if prompt is None else prompt
    prompts = 1 if given is None or isinstance(given, str) else len(given)
    if prompts == 0:
        raise ValueError("prompt is an empty list: give one prompt at least")
    return prompts * per_prompt


def diffusers_arguments(call: Callable, arguments: dict[str, Any]) -> dict[str, Any]:
    """Of a pipeline's arguments those of diffusers' own loop, for comfy_sampler=None.

    call: the pipeline's __call__, whose keyword-only parameters are our own, but for deprecated ones of diffusers'.
    Raises ValueError if one of ours has another value than its default.
    """
    parameters = inspect.signature(call).parameters
    kept = {name: value for name, value in arguments.items() if name in parameters and name != "self"}
    for name in DEPRECATED:
        if name in kept and kept[name] is None:
            del kept[name]
    for name, parameter in parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in DEPRECATED:
            continue
        value = kept.pop(name)
        if value is not None and value != parameter.default:
            told = (repr(value).splitlines() or [""])[0]  # a guider's goes on for long
            raise ValueError(f"{name}={told} needs a sampler, and comfy_sampler=None runs diffusers' own loop")
    if "denoised" in (kept["callback_on_step_end_tensor_inputs"] or []):
        raise ValueError("diffusers' own loop (comfy_sampler=None) has no 'denoised' to give to a callback")
    return kept
