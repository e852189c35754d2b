"""Four small things that a run is made of: where it is, how far, whether all is finite, the user's callbacks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from k_diffusing._tensors import Stamp
from k_diffusing.samplers.records import Sampler

SAMPLED = 256  # elements of each state and network evaluation that are looked at for nan; all of the result are
LEAST = 4  # rows in which they lie, of the picture or of tokens, whatever their length
SLOTS = 64  # states and evaluations that are made room for at a time, at most
# Whose nan it is, by where it was seen first. Samplers work element by element, so that an element of the state which
# is nan or inf, and was finite in all that the model returned, is the sampler's.
_SPOILED_BY_SAMPLER = (
    "the sampler made nan or inf of what were finite numbers, by {at}: the model's answers were finite. Look at its "
    "options, the sigma grid, and what your own code does, if the sampler or a callback is yours"
)
SPOILED = {
    "start": "the latents to start from hold nan or inf, at {at}: look at latents=",
    "answer": "the model returned nan or inf at {at}: try torch.float32 or bfloat16, a lower guidance scale or another "
    "sigma grid",
    "state": _SPOILED_BY_SAMPLER,
    "result": _SPOILED_BY_SAMPLER,
    "rest": "a few elements of the result are nan or inf, at {at}, made by the model or by the sampler: try "
    "torch.float32 or bfloat16, and other options",
}


class Position:
    """Where a sampler is.

    Attributes:
        step: of the grid, counted from 0.
        stage: of the network call to come, within the step; always 0 in a custom sampler, whose steps are known only
            afterwards.
        level: index in the grid of the sigma of the network call to come, where it is known to be one of the grid's.
        calls: network calls made.
        known: whether the sampler's steps are the grid's, and are known as they begin.
    """

    def __init__(self, sampler: Sampler, options: dict[str, Any]):
        self.custom = sampler.custom
        self.churned = bool(options.get("s_churn"))
        self.known = sampler.takes == "sigmas" and not sampler.custom
        self.on_grid = self.known and not self.churned
        self.step, self.stage, self.level, self.calls = 0, 0, None, 0

    @property
    def grid_step(self) -> int | None:
        """The step of the grid that the network call to come is in, where the sampler's steps are the grid's."""
        return self.step if self.known else None

    @property
    def begins(self) -> bool:
        """Whether the network call to come is the first of a step of the grid."""
        return self.known and self.stage == 0

    def begin(self, step: int) -> None:
        """Step `step` begins."""
        self.step, self.stage = step, 0
        self.level = step if self.on_grid else None

    def called(self) -> None:
        """The network was called."""
        self.level = None
        self.stage += not self.custom
        self.calls += 1


class Progress:
    """A progress bar: a tick for each step, or for each hundredth of the way in log sigma where steps are not known."""

    def __init__(self, bar, steps: int | None, sigmas: torch.Tensor):
        self.bar, self.steps, self.ticks = bar, steps, 0
        if steps is None:
            self.low, self.high = (math.log(float(end)) for end in (sigmas[sigmas > 0].min(), sigmas.max()))

    def tick(self, sigma: torch.Tensor) -> None:
        """A step ended at sigma."""
        if self.steps is not None:
            self.bar.update()
            return
        at_end = sigma <= 0 or self.high <= self.low
        done = 100 if at_end else int(100 * (self.high - math.log(float(sigma))) / (self.high - self.low))
        self.bar.set_postfix(sigma=f"{float(sigma):.3g}")
        self.bar.update(done - self.ticks)
        self.ticks = done


class FiniteCheck:
    """Whether states and evaluations were finite, looked at all together: one device sync.

    A few rows of each are kept, by one operation. Room for them is made before: a small tensor that stays, put where
    large ones come and go, leaves holes that they do not fit in any more.
    """

    def __init__(self, sampler: str, dtype: torch.dtype, evaluations: int | None = None):
        self.sampler, self.dtype = sampler, dtype
        # With the start and the result; where evaluations are not known, or looked at one by one, fewer.
        self.at_once = SLOTS // 4 if evaluations is None else min(evaluations + 2, SLOTS)
        self.noted: list[tuple] = []  # whose each is, by its place in all rooms
        self.rooms: list[torch.Tensor] = []  # [at_once, ...] each
        self.totals: list[torch.Tensor] = []  # of results
        self.slots, self.kind = [], ()  # those that are free, for tensors of this shape, dtype and device

    def note(self, what: str, step: int, sigma: torch.Tensor, tensor: torch.Tensor) -> None:
        """Take note of a few rows of a tensor [B, ...]; what: one of SPOILED, whose nan it would be."""
        kind = tensor.shape, tensor.dtype, tensor.device
        if not self.slots or kind != self.kind:
            self._make_room(tensor)
            self.kind = kind
        tensor = tensor.detach() if tensor.requires_grad else tensor  # a sampler may want gradients
        place, slot = self.slots.pop()
        torch.index_select(tensor, self.across, self.rows, out=slot)
        self.noted.append((place, what, step, sigma))

    def note_result(self, step: int, sigma: torch.Tensor, x: torch.Tensor) -> None:
        """Take note of all elements of the result [B, ...]."""
        self.note("result", step, sigma, x)
        self.totals.append(x.detach().sum())
        self.noted.append((-1, "rest", step, sigma))

    def _make_room(self, tensor: torch.Tensor) -> None:
        self.across, shape = max(tensor.ndim - 2, 0), list(tensor.shape)
        size = shape[self.across]
        apart = max(size // max(SAMPLED * size // max(tensor.numel(), 1), LEAST), 1)
        with torch.inference_mode(False):  # which a sampler may have for itself, and leave
            self.rows = torch.arange(0, size, apart, device=tensor.device)
            shape[self.across] = len(self.rows)
            room = torch.zeros(self.at_once, *shape, dtype=tensor.dtype, device=tensor.device)
            self.slots = list(enumerate(room.unbind(), self.at_once * len(self.rooms)))[::-1]
        self.rooms.append(room)

    def look(self) -> None:
        """Raise FloatingPointError if anything noted has nan or inf, and say whose it is."""
        if not self.noted:
            return
        flags = [room.isfinite().flatten(1).all(1) for room in self.rooms]
        flags += [total.isfinite().reshape(1) for total in self.totals]
        finite = torch.cat(flags).tolist()
        spoiled = [entry for entry in self.noted if not finite[entry[0]]]
        if not spoiled:
            for kept in (self.noted, self.rooms, self.totals, self.slots):
                kept.clear()
            return
        _, what, step, sigma = spoiled[0]
        level = float(torch.as_tensor(sigma).flatten()[0])
        at = f"step {step}, sigma {level:.4g} (sampler {self.sampler}, model in {self.dtype})"
        raise FloatingPointError(SPOILED[what].format(at=at))


@dataclass
class StepCallbacks:
    """The user's callbacks at the end of a step, and what they may change.

    Attributes:
        conditioning: tensors by name that callbacks may see and replace; the denoiser reads them here.
        on_step_end: diffusers' callback_on_step_end, which gets the tensors that tensor_inputs names.
        legacy: diffusers' deprecated callback, called every legacy_every steps.
    """

    conditioning: dict[str, torch.Tensor]
    on_step_end: Callable | None = None
    tensor_inputs: list[str] = field(default_factory=lambda: ["latents"])
    legacy: Callable | None = None
    legacy_every: int | None = None

    @property
    def want_denoised(self) -> bool:
        """Whether the callback is to see the denoised latents."""
        return self.on_step_end is not None and "denoised" in self.tensor_inputs

    def call(self, pipe, step: int, timestep: torch.Tensor, latents: torch.Tensor, denoised) -> tuple:
        """Call on_step_end: the latents if they were changed or replaced, else None; whether anything was.

        latents, denoised: [B, ...] in the model's dtype. Raises ValueError for latents of another shape.
        """
        assert self.on_step_end is not None
        before = Stamp(latents)
        tensors = {"latents": latents, "denoised": denoised, **self.conditioning}
        guidance = getattr(pipe, "_guidance_scale", None)
        returned = self.on_step_end(pipe, step, timestep, {name: tensors[name] for name in self.tensor_inputs})
        changed = getattr(pipe, "_guidance_scale", None) != guidance
        for name in self.conditioning:
            changed |= returned.get(name, tensors[name]) is not tensors[name]
            self.conditioning[name] = returned.get(name, tensors[name])
        replaced = returned.get("latents", latents)
        self._check(replaced, latents, step)
        if before.holds(replaced):
            return None, changed
        return replaced, True

    @staticmethod
    def _check(replaced, latents: torch.Tensor, step: int) -> None:
        if not isinstance(replaced, torch.Tensor) or replaced.shape != latents.shape:
            found = f"of the shape {tuple(replaced.shape)}" if isinstance(replaced, torch.Tensor) else repr(replaced)
            raise ValueError(
                f"callback_on_step_end returned latents {found} after step {step}, and those of the run are of "
                f"the shape {tuple(latents.shape)}: return a tensor of that shape, or no latents to go on as they are"
            )

    def call_legacy(self, step: int, timestep: torch.Tensor, latents: torch.Tensor) -> None:
        """Call the deprecated callback, in the steps that are its."""
        if self.legacy is not None and step % (self.legacy_every or 1) == 0:
            self.legacy(step, timestep, latents)
