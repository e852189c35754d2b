"""diffusers' guiders, called as they are; and guidance by a weight, in the same form.

Those that make one answer of the two, with the prompt and without it, can be called. Those that change the network, or
want it to be called a third time, cannot.
"""

import copy
import math
from typing import Any, Protocol

import torch

from k_diffusing._messages import one_line
from k_diffusing.model.guidance import Guidance, weighted, weights_of
from k_diffusing.model.guidance_asked import GuidanceChoice

TWO_ANSWERS = ["pred_cond", "pred_uncond"]
SHAPES = {False: (1, 4, 64, 64), True: (1, 1024, 16)}  # of latents: pictures, and FLUX's packed into tokens


class Guide(Protocol):
    """What makes one answer of two."""

    def needs_both(self, weight: float, step: int) -> bool:
        """Whether the answer without the prompt has a part in the step, in which the weight is this."""
        ...

    def __call__(
        self, cond: torch.Tensor, uncond: torch.Tensor, weight: float, step: int, rescale: float
    ) -> torch.Tensor:
        """The network's answers with the prompt and without it, each [B, ...], made one."""
        ...


class ByWeight:
    """uncond + weight (cond - uncond)."""

    def needs_both(self, weight: float, step: int) -> bool:
        """Not at a weight of 1."""
        return weight != 1

    def __call__(self, cond, uncond, weight: float, step: int, rescale: float) -> torch.Tensor:
        """As `guidance.weighted`."""
        return weighted(cond, uncond, weight, rescale)


class ByGuider:
    """A guider of diffusers', told of the grid's steps. It is a copy: what a guider remembers belongs to one run."""

    def __init__(self, guider: Any, steps: int):
        self.guider, self.steps = copy.copy(guider), steps

    def needs_both(self, weight: float, step: int) -> bool:
        """As the guider says of the step."""
        self._in(step)
        return self.guider.num_conditions == 2

    def __call__(self, cond, uncond, weight: float, step: int, rescale: float) -> torch.Tensor:
        """What the guider makes of them, as diffusers' own loops ask it."""
        self._in(step)
        batches = self.guider.prepare_inputs({"noise_pred": (cond, uncond)})
        return self.guider(batches).pred

    def _in(self, step: int) -> None:
        self.guider.set_state(step, self.steps, None)


def guide_of(guidance: Guidance, steps: int) -> Guide:
    """What guides a run of so many steps."""
    return ByWeight() if guidance.guider is None else ByGuider(guidance.guider, steps)


def guidance_of(
    choice: GuidanceChoice | None, guider: Any, levels: list[float], sigmas: list[float], steps: int, packed: bool
) -> Guidance:
    """The guidance of a run, by weights or by a guider.

    levels, sigmas, steps: As `weights_of` has them. packed: whether latents are packed into tokens. Raises as
    `weights_of` and `check_guider` do.
    """
    if guider is None:
        return weights_of(choice, levels, steps, sigmas)
    if choice is not None:
        raise ValueError(f"guidance={choice!r} and guider={type(guider).__name__} both guide: leave one of them out")
    check_guider(guider, packed)
    return Guidance(tuple(levels), guider=guider)


def check_guider(guider: Any, packed: bool) -> None:
    """Raise TypeError or ValueError for what is no guider that can be called here, with the reason.

    packed: whether latents are packed into tokens, as FLUX's are.
    """
    from diffusers.guiders import BaseGuidance

    name = type(guider).__name__
    if not isinstance(guider, BaseGuidance):
        hint = f": give {name}()" if isinstance(guider, type) and issubclass(guider, BaseGuidance) else ""
        given = guider.__name__ if hint else repr(guider)
        raise TypeError(
            f"guider={given} is no guider of diffusers.guiders{hint or ', such as AdaptiveProjectedGuidance()'}"
        )
    if type(guider).prepare_models is not BaseGuidance.prepare_models:
        raise ValueError(
            f"guider={name}: it changes the network for one of its calls, and these pipelines call it as it is; take "
            "one that needs the answers with and without the prompt alone, such as AdaptiveProjectedGuidance"
        )
    if guider._input_predictions != TWO_ANSWERS:
        more = ", ".join(one for one in guider._input_predictions or () if one not in TWO_ANSWERS)
        raise ValueError(
            f"guider={name} needs more than the answers with and without the prompt ({more}): take one that needs "
            "these two, such as AdaptiveProjectedGuidance"
        )
    _try(guider, SHAPES[packed])


def _try(guider: Any, shape: tuple[int, ...]) -> None:
    """Call a guider as a run will; what it cannot take is known before the network runs."""
    answer = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    guide = ByGuider(guider, steps=4)
    try:
        for step in (0, 2):
            if guide.needs_both(1.0, step):
                guide(answer.cos(), answer.sin(), 1.0, step, 0.0)
    except Exception as error:  # diffusers' code, or the user's: whatever it raises
        sizes = ", ".join(map(str, shape[1:]))
        raise ValueError(
            f"guider={type(guider).__name__} cannot take answers of the shape [B, {sizes}] ({one_line(error)}): take "
            "another, such as AdaptiveProjectedGuidance"
        ) from error
