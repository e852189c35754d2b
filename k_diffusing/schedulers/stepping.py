"""A sampler on a grid, stepped from outside: the network's answers go in, latents come out."""

import functools
from numbers import Integral

import torch

from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.noise.streams import Generators
from k_diffusing.schedulers.calls import ADAPTIVE, Calls
from k_diffusing.schedulers.suspended import SuspendedRun


class Stepper:
    """A planned run, and how far it has come.

    Attributes:
        calls: the network calls of the run.
        space: the changes between latents, the sampler's state and the network's input.
        levels: the sigma of each network call, then that of the result, 0-dim and on the CPU.
        timesteps: what the network is told in each call, [calls], on the pipeline's device.
        times: the same as numbers.
        index: the network call that the next step answers; None before the first.
    """

    def __init__(self, calls: Calls, noise: str | NoiseSource, device: str | torch.device | None):
        """noise: the noise source, by its name or as a record. device: of `timesteps`."""
        self.calls, self.noise, self.space = calls, noise, calls.plan.space
        self.levels, timesteps = calls.levels.unbind(), self.space.timestep(calls.levels[:-1])
        self.times, self.timesteps = timesteps.tolist(), timesteps.to(device)
        self.index = self._run = None

    def begin_at(self, begin: int, most: int) -> int:
        """The network call to begin with, `begin` or the last; most: what pipelines take for the number of calls.

        Raises ValueError if there is no such call, or if the sampler cannot begin there.
        """
        calls = len(self.times)
        if begin > max(calls, most):
            raise ValueError(f"begin_index={begin}, but there are {calls} network calls: give 0 to {calls}")
        begin = min(begin, calls)  # pipelines count the last step as long as the others
        if begin < calls:
            self.calls.rest(begin)
        return begin

    def index_for(self, timestep: float | torch.Tensor) -> int:
        """The network call of a timestep, the one that begins a step if there are several; ValueError if none is."""
        value = _value(timestep)
        calls = [call for call, time in enumerate(self.times) if time == value]
        if not calls:
            raise ValueError(f"timestep {value:g} is none of scheduler.timesteps {self.times}")
        return next((call for call in calls if call in self.calls.starts), calls[0])

    def at(self, timestep: float | torch.Tensor, begin: int | None) -> int:
        """The network call at hand; the first is `begin`, or else that of the timestep."""
        if self.index is None:
            self.index = self.index_for(timestep) if begin is None else begin
        return self.index

    def expect(self, timestep: float | torch.Tensor, begin: int | None) -> int:
        """The network call at hand, which must be the timestep's; without a sync if that is a view of `timesteps`.

        Raises RuntimeError if it is not, or if the run is over.
        """
        index = self.at(timestep, begin)
        if index >= len(self.times):
            raise RuntimeError(f"the run is over after {len(self.times)} steps: call set_timesteps to start another")
        if _is_element(timestep, self.timesteps, index) or _value(timestep) == self.times[index]:
            return index
        raise RuntimeError(
            f"step got timestep {_value(timestep):g}, but the next one, {index} of {len(self.times)}, is "
            f"{self.times[index]:g}: go through scheduler.timesteps in order, and call set_timesteps to start again; "
            "two pipelines that run by turns need a scheduler each (copy.deepcopy)"
        )

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, begin: int | None):
        """Latents of clean ones [B, ...] and unit noise: at the call at hand, or at `begin`, or at timesteps [B]."""
        index = begin if self.index is None else self.index
        if index is not None:
            return self.space.noised(clean, noise, self.levels[index])
        calls = [self.index_for(timestep) for timestep in timesteps]
        sigma = self.calls.levels[calls].to(clean).reshape(-1, *[1] * (clean.ndim - 1))
        return self.space.noised(clean, noise, sigma)

    def advance(
        self, index: int, output: torch.Tensor, sample: torch.Tensor, generator: Generators
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Answer network call `index`: the latents at the next one or the result, and the denoised sample.

        output: the network's, [B, ...] as sample, the latents. generator: of all noise, taken as the run begins.
        Raises RuntimeError for a sampler that calls the network more or less often than planned.
        """
        run, level = self._run or self._begin(index, sample, generator), self.levels[index]
        self._run, unchanged = run, run.gave(sample)
        # The first latents, and those that the pipeline changed, take the place of what the sampler gave the model.
        x = run.x if unchanged else self.space.state(sample.to(run.x.dtype), level)
        output = output.to(x.dtype)
        denoised = self.space.denoised(x, output, level)
        run.answer((denoised, output), None if unchanged else x)
        self.index = index + 1
        if run.over != (self.index == len(self.times)):
            name = self.calls.plan.sampler.name
            raise RuntimeError(f"{name} did not call the network {len(self.times)} times: it {ADAPTIVE}")
        previous = self.space.latents(run.x, self.levels[self.index]).to(sample.dtype)
        run.give(previous)
        return previous, denoised.to(sample.dtype)

    def _begin(self, index: int, sample: torch.Tensor, generator: Generators) -> SuspendedRun:
        streams = noise_streams(self.noise, generator, None, len(sample), sample.device)
        streams = streams.after_initial(sample.shape, sample.device, sample.dtype)
        step_noise, calls = functools.partial(streams.step_noise, time=self.space.time), self.calls
        state_dtype = torch.promote_types(sample.dtype, torch.float32)
        x = self.space.state(sample.to(state_dtype, copy=True), self.levels[index])
        return SuspendedRun(lambda model: calls.sample_from(index, model, x, step_noise))


def check_begin(begin_index: int) -> None:
    """Raise ValueError for what is no number of a network call."""
    if not isinstance(begin_index, Integral) or begin_index < 0:
        raise ValueError(f"begin_index={begin_index!r}: give the number of a network call, 0 or more")


def check_output(output: torch.Tensor, sample: torch.Tensor) -> None:
    """Raise ValueError for a network's output of another shape than the latents."""
    if output.shape != sample.shape:
        raise ValueError(
            f"model_output has the shape {tuple(output.shape)}, and the latents {tuple(sample.shape)}: of a "
            "network that predicts more than one thing, pass the first, without the variance"
        )


def _value(timestep) -> float:
    return float(torch.as_tensor(timestep).flatten()[0])


def _is_element(timestep, timesteps: torch.Tensor, index: int) -> bool:
    """Whether a timestep is timesteps[index] in memory, and not only by value."""
    if not isinstance(timestep, torch.Tensor) or timestep.device != timesteps.device:
        return False
    same = timestep.untyped_storage().data_ptr() == timesteps.untyped_storage().data_ptr()
    return bool(same and timestep.storage_offset() == timesteps.storage_offset() + index)
