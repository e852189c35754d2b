"""A plan carried out inside a block, whatever the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from k_diffusing.noise.streams import Streams
from k_diffusing.observing import StepCallbacks
from k_diffusing.plan import SamplingPlan
from k_diffusing.run import SamplingRun
from k_diffusing.samplers.call import run_sampler
from k_diffusing.trace.record import Trace, chosen_trace

Network = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        plan: What will be done.
        streams: Of the noise that the sampler adds.
        latents: As `plan.start` gives them, [B, ...] in float32 or wider.
        dtype: The network's.
        size: Of the images in pixels, (height, width).
        shape: Of latents before they are packed, [B, channels, h, w].
        pack: From latents of that shape to those that the network takes; None: they are the same.
    """

    plan: SamplingPlan
    streams: Streams
    latents: torch.Tensor
    dtype: torch.dtype
    size: tuple[int, int]
    shape: tuple[int, ...]
    pack: Callable[[torch.Tensor], torch.Tensor] | None = None


def sample(block: Any, start: Start, network: Network, trace: Trace | None) -> torch.Tensor:
    """The latents that the sampler ends with, in the scheduler's own form.

    Args:
        block: Shows the progress.
        start: What the run begins with.
        network: (input, timestep [B], step) -> the network's output, as guidance makes it.
        trace: The user's, if there is one.
    """
    plan, space = start.plan, start.plan.space
    x = space.state(start.latents, plan.sigmas[0]) if space.flow else start.latents
    run = SamplingRun(block, plan, x, start.dtype, StepCallbacks({}), chosen_trace(trace), start.size)
    levels, output, returns_velocity = plan.levels(x, scale=1.0), None, plan.coordinates == "velocity"
    lean = plan.derivative_is_enough and not run.shows_denoised

    def denoiser(x, sigma):
        nonlocal output
        at = levels.at(sigma, x, run.position)
        # What the first network call of a flow model sees makes no round trip through the coordinates.
        latents = start.latents if space.flow and run.at_start(x) else space.latents(x, at.sigma)
        net_input = space.network_input(latents, at.sigma).to(start.dtype)
        output = network(net_input, at.timestep, _step(run, sigma)).to(x.dtype)
        if lean:
            return run.evaluated(x, sigma, at, net_input, output)
        denoised = space.denoised(x, output, at.sigma)
        return run.evaluated(x, sigma, at, net_input, denoised, output if returns_velocity else denoised)

    def derivative(x, sigma, denoised):
        """`to_d` in flow coordinates: the velocity is the derivative."""
        return denoised if returns_velocity else output

    noise = plan.step_noise(start.streams, unpacked_shape=start.shape, pack=start.pack)
    with run:
        run.end(run_sampler(
            plan.sampler, plan.model(denoiser), x, plan.sigmas, options=plan.options, noise=noise,
            derivative=derivative if plan.patches_to_d else None, observer=run, watch_noise=run.watch_noise,
        ))  # fmt: skip
    return run.latents


def _step(run: SamplingRun, sigma: torch.Tensor) -> int:
    """The step that a guider is told, below the number of them; where the sampler chooses its own, the grid's."""
    if run.plan.steps is None:
        return int((run.plan.sigmas[1:-1] >= sigma[0].item()).sum())
    return min(run.position.step, run.plan.num_timesteps - 1)
