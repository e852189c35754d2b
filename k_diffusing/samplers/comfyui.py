"""The model as a custom sampler sees it.

It takes any form of sigma, and has what ComfyUI's samplers ask of it besides `model(x, sigma) -> denoised`.
Nothing of ComfyUI is imported here: its functions come from the user's own install, and what they test with
`isinstance` is looked up among the modules that install has loaded.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def is_comfyui_function(function: Callable) -> bool:
    """Whether a sampler was defined in ComfyUI's package `comfy`."""
    while isinstance(function, functools.partial):
        function = function.func
    return (getattr(inspect.unwrap(function), "__module__", None) or "").split(".")[0] == "comfy"


@dataclass(frozen=True)
class Levels:
    """The noise levels of a model, under the names that ComfyUI's `model_sampling` gives them.

    schedule: a noise schedule of `model.schedules`. level(sigma): the schedule's sigma in the sampler's coordinates.
    """

    schedule: Any
    level: Callable[[torch.Tensor], torch.Tensor] = lambda sigma: sigma

    @property
    def sigmas(self) -> torch.Tensor:
        """The model's own noise levels [N], increasing."""
        return self.level(self.schedule.sigmas)

    @property
    def sigma_min(self) -> torch.Tensor:
        """The smallest of them."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> torch.Tensor:
        """The largest of them."""
        return self.sigmas[-1]

    def percent_to_sigma(self, percent: float) -> float:
        """sigma when `percent` (0 to 1) of the timesteps, counted from the largest, are done, in double precision."""
        return float(self.level(torch.tensor(self.schedule.sigma_at(percent), dtype=torch.float64)))


def model_sampling(levels: Levels, flow: bool) -> Levels:
    """`levels` as an instance of ComfyUI's own CONST (the sampler sees flow coordinates) or EPS, if it is loaded."""
    comfyui = sys.modules.get("comfy.model_sampling")
    kind = getattr(comfyui, "CONST" if flow else "EPS", object)
    return type("ModelSampling", (Levels, kind), {})(levels.schedule, levels.level)


def per_image(sigma: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    """sigma as [B], for x of shape [B, ...], from a number, a tensor of one, or one for each image.

    Raises ValueError for another number of sigmas.
    """
    if isinstance(sigma, torch.Tensor) and sigma.shape == x.shape[:1]:
        return sigma
    sigma = torch.as_tensor(sigma, device=x.device)
    if sigma.numel() not in (1, len(x)):
        raise ValueError(f"the model takes sigma as a number or of shape [{len(x)}], not {list(sigma.shape)}")
    return sigma.flatten() * x.new_ones(len(x))


@dataclass(frozen=True)
class ComfyModel:
    """A denoiser with the attributes that ComfyUI's samplers reach through two wrappers for."""

    denoiser: Callable[..., torch.Tensor]
    model_sampling: Levels

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor | float, **extra_args) -> torch.Tensor:
        """The denoised sample [B, ...] of x, at one sigma or one for each image."""
        return self.denoiser(x, per_image(sigma, x), **extra_args)

    @property
    def inner_model(self) -> "ComfyModel":
        """Itself: one object stands for the guider, the wrapped model and its patcher."""
        return self

    model_patcher = inner_model

    def get_model_object(self, name: str) -> Any:
        """An attribute, as ComfyUI's patcher hands it out."""
        return getattr(self, name)


def after_guidance(
    model_options: dict[str, Any],
    x: torch.Tensor,
    sigma: torch.Tensor,
    denoised: torch.Tensor,
    cond_denoised: torch.Tensor,
    uncond_denoised: torch.Tensor,
) -> torch.Tensor:
    """`denoised` as the functions in model_options["sampler_post_cfg_function"] leave it.

    The CFG++ samplers put one there to see `uncond_denoised`. All of shape [B, ...], sigma [B].
    """
    for function in model_options.get("sampler_post_cfg_function", ()):
        denoised = function(
            {
                "denoised": denoised,
                "cond_denoised": cond_denoised,
                "uncond_denoised": uncond_denoised,
                "input": x,
                "sigma": sigma,
                "model_options": model_options,
            }
        )
    return denoised
