"""What a trace is made of: readings of tensors, network calls, draws of noise, states."""

from dataclasses import dataclass, field

import torch

from k_diffusing.noise.interval import Interval


@dataclass(frozen=True)
class Reading:
    """What is kept of a tensor.

    Attributes:
        stats: [3], rms, mean and largest absolute value, on the tensor's device.
        dtype: the tensor's.
        values: the tensor itself, on the CPU; None if it was not kept.
    """

    stats: torch.Tensor
    dtype: torch.dtype
    values: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, tensor: torch.Tensor, keep: bool) -> "Reading":
        """Read a tensor on its device, without a sync; a tensor to keep is copied to the CPU."""
        wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
        stats = torch.stack([wide.square().mean().sqrt(), wide.mean(), wide.abs().amax()])
        return cls(stats, tensor.dtype, tensor.detach().to("cpu", copy=True) if keep else None)

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor itself. Raises ValueError if it was not kept."""
        if self.values is None:
            raise ValueError("the tensors of this run were not kept: make the trace with Trace(tensors=True)")
        return self.values

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return float(self.stats[0])

    @property
    def mean(self) -> float:
        """The mean."""
        return float(self.stats[1])

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return float(self.stats[2])


@dataclass
class NetworkCall:
    """One call of the model.

    Attributes:
        step: the step that it is made in, from 0.
        stage: its number among the calls of the step, from 0.
        sigma: the noise level, 0-dim, in the sampler's coordinates.
        timestep: what the network was told, 0-dim.
        x: the sampler's state.
        net_input: what the network was given of it.
        denoised: what the sampler got back.
    """

    step: int
    stage: int
    sigma: torch.Tensor
    timestep: torch.Tensor
    x: Reading
    net_input: Reading
    denoised: Reading

    @property
    def input_scale(self) -> float:
        """c_in: the size of the network's input over that of x."""
        return self.net_input.rms / self.x.rms


@dataclass
class Draw:
    """Unit noise drawn in a step.

    Attributes:
        step: the step that it is drawn in, from 0.
        interval: what it is for.
        noise: the noise.
        calls: how many network calls came before it in the run.
    """

    step: int
    interval: Interval
    noise: Reading
    calls: int = 0

    @property
    def sigma(self) -> torch.Tensor | float | None:
        """The noise level before, where it is told."""
        return self.interval.sigma

    @property
    def sigma_next(self) -> torch.Tensor | float | None:
        """The noise level after, where it is told."""
        return self.interval.sigma_next

    @property
    def churn(self) -> bool:
        """Whether it raises the noise level, before the step's first network call, in place of falling with it."""
        return self.interval.churn


@dataclass
class State:
    """The sampler's state between two steps.

    Attributes:
        sigma: its noise level, 0-dim.
        x: the state.
    """

    sigma: torch.Tensor
    x: Reading
