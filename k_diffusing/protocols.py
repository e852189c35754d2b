"""What the parts of sampling are to each other, as types: the model, its noise levels, the noise, whoever looks on."""

from typing import Any, Protocol

import torch


class Denoiser(Protocol):
    """A model as samplers call it."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, /, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Estimate the clean sample.

        Args:
            x: The state [B, ...], in float32 or wider.
            sigma: The noise level of each image, [B].
            args: Unused.
            kwargs: What ComfyUI's samplers pass on: model_options, seed.

        Returns:
            The denoised sample, shaped as x.
        """
        ...


class NoiseSampler(Protocol):
    """The noise that a sampler adds, as k-diffusion's functions ask for it."""

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor, /) -> torch.Tensor:
        """Unit noise, shaped as the state, for the interval between two noise levels (0-dim)."""
        ...


class NoiseSchedule(Protocol):
    """What sigma a timestep means to a model."""

    @property
    def sigmas(self) -> torch.Tensor:
        """The model's own noise levels [N], increasing."""
        ...

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the network is told at a sigma of any shape."""
        ...

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The noise level at a timestep of any shape."""
        ...

    def sigma_at(self, fraction: float) -> float:
        """The noise level where this part of the timesteps, counted from the largest, is done."""
        ...


class Observer(Protocol):
    """Whoever is told of a sampler's steps."""

    def begin_step(self, index: int, x: torch.Tensor, sigma: torch.Tensor) -> Any:
        """Look at the state at the start of a step, before any network evaluation in it, and change it in place.

        Args:
            index: Of the step, from 0.
            x: The state [B, ...].
            sigma: Its noise level, 0-dim.

        Returns:
            Whether x or the model was changed. Of a user's function it is known only after the step's first evaluation,
            which is repeated then.
        """
        ...
