"""One run of a sampler inside a pipeline: callbacks, progress, interruption, a check for nan.

Used by both pipelines. A sampler shows its state at the start of each step, which is the end of the one before;
everything a user sees there is translated to the scheduler's own latents, and what the user changes is
translated back.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from diffusers.utils import is_torch_xla_available, logging

from k_diffusing.grids.check import check_grid_choice, check_steps
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options
from k_diffusing.samplers.records import Denoiser, Sampler
from k_diffusing.samplers.steps import step_count
from k_diffusing.trace.record import Trace

if is_torch_xla_available():
    import torch_xla.core.xla_model as xla_model
else:
    xla_model = None


logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings


SAMPLED = 1024  # elements of each state and network evaluation that are looked at for nan; all of the result are
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


class StopSampling(Exception):  # noqa: N818 - control flow, not an error
    """Leaves a sampler early, with its state x at noise level sigma."""

    def __init__(self, x: torch.Tensor, sigma: torch.Tensor):
        super().__init__("stopped")
        self.x, self.sigma = x, sigma


def check_call(
    comfy_sampler: str | Callable,
    sampler_options: dict[str, Any] | None,
    sigma_grid: str | Callable | None,
    num_inference_steps: int,
    watched: bool,
    **explicit,
) -> Sampler:
    """Check what can be checked before any model runs; return the sampler's record.

    watched: whether the user asked for callbacks. explicit: sigmas=, timesteps=.
    Raises ValueError or TypeError, with the value, the reason and the choices.
    """
    sampler = find_sampler(comfy_sampler)
    check_options(sampler, sampler_options)
    check_grid_choice(sigma_grid, **explicit)
    if all(values is None for values in explicit.values()):
        check_steps(num_inference_steps)
        if sampler.sigma_grid and sigma_grid is None:
            logger.warning(f"{sampler.name} needs a grid smooth in log sigma: sigma_grid={sampler.sigma_grid!r} is one")
    for name, values in explicit.items():
        if values is not None and sampler.takes == "sigma_range":
            raise ValueError(
                f"{sampler.name} chooses its own steps between sigma_min and sigma_max, so {name}= cannot be kept: "
                "leave it out, or choose a sampler that takes a grid of sigmas"
            )
    parameters = inspect.signature(sampler.function).parameters.values()
    takes_callback = any(p.name == "callback" or p.kind is p.VAR_KEYWORD for p in parameters)
    if watched and not takes_callback:
        raise ValueError(f"{sampler.name} takes no `callback`, so no step-end callback can be called: add it")
    return sampler


def count_images(prompt: str | list[str] | None, prompt_embeds: torch.Tensor | None, per_prompt: int) -> int:
    """The images of a call; ValueError unless there is one at least."""
    if not isinstance(per_prompt, Integral) or isinstance(per_prompt, bool) or per_prompt < 1:
        raise ValueError(f"num_images_per_prompt={per_prompt!r}: give an integer of at least 1")
    prompts = 1 if isinstance(prompt, str) else len(prompt_embeds if prompt is None else prompt)
    if prompts == 0:
        raise ValueError("prompt is an empty list: give one prompt at least")
    return prompts * per_prompt


def check_diffusers_loop(call: Callable, arguments: dict[str, Any]) -> None:
    """For comfy_sampler=None: take our own parameters, the keyword-only ones of `call`, out of `arguments`; ValueError
    if one has another value than its default."""
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name not in arguments:
            continue
        name, value = parameter.name, arguments.pop(parameter.name)
        if value is not None and value != parameter.default:
            raise ValueError(f"{name}={value!r} needs a sampler, and comfy_sampler=None runs diffusers' own loop")
    if "denoised" in (arguments["callback_on_step_end_tensor_inputs"] or []):
        raise ValueError("diffusers' own loop (comfy_sampler=None) has no 'denoised' to give to a callback")


@dataclass
class SamplingRun:
    """One run of a sampler inside a pipeline.

    sigmas: the grid in the sampler's coordinates. timestep(sigma): what the network is told. to_latents and
    to_state(., sigma): between the sampler's state and the scheduler's latents. dtype: the model's, in which users
    see latents. conditioning: tensors by name that callbacks may see and replace; the denoiser reads them here.
    grid_index: of the sigma of the network call to come, where it is known to be one of the grid's, else None. stage:
    of that call within its step; always 0 in a custom sampler, whose steps are known only afterwards.
    """

    pipe: Any
    sampler: Sampler
    sigmas: torch.Tensor
    timestep: Callable[[torch.Tensor], torch.Tensor]
    to_latents: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    to_state: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    dtype: torch.dtype
    conditioning: dict[str, torch.Tensor]
    callback: Callable | None = None
    tensor_inputs: list[str] = field(default_factory=lambda: ["latents"])
    legacy_callback: Callable | None = None
    legacy_every: int | None = None
    trace: Trace | None = None

    def __post_init__(self):
        self.count = step_count(self.sampler, self.sigmas)
        self.index, self.sigma, self.denoised, self.latest = 0, self.sigmas[0], None, None
        self.grid_index, self.stage, self.churned = None, 0, False
        self.shows_denoised = self.callback is not None and "denoised" in self.tensor_inputs
        self.sums, self.evaluated, self.progress, self.ticks = [], False, None, 0

    def sample(
        self, denoiser: Denoiser, x: torch.Tensor, options: dict | None, noise: Callable, derivative: Callable
    ) -> torch.Tensor:
        """Sample from the state x at sigmas[0]; return the final latents, in x's dtype.

        noise(x, sigmas, kind): makes the noise_sampler(sigma, sigma_next) of the run. One sigma leaves no step to take,
        and the sampler is not called.

        Raises FloatingPointError if the network returned nan or inf, or the sampler made it; ValueError if the network
        was never called.
        """
        self.churned = bool((options or {}).get("s_churn"))
        self._note("start", self.sigma, x)
        with self.pipe.progress_bar(total=100 if self.count is None else self.count) as self.progress:
            try:
                sigma = self.sigmas[-1]
                if len(self.sigmas) > 1:
                    x = run_sampler(
                        self.sampler, denoiser, x, self.sigmas,
                        options=options, noise=noise, derivative=derivative, observer=self,
                        watch_noise=None if self.trace is None else self.trace.watch_noise,
                    )  # fmt: skip
                    if not self.evaluated:
                        raise ValueError(f"{self.sampler.name} never called the model: its result is no picture")
                    self._end_step(x, sigma)
            except StopSampling as stop:
                x, sigma = stop.x, stop.sigma
        if self.trace is not None:
            self.trace.end(x, sigma)
        self._note("result", self.sigma, x)
        self.sums.append(("rest", self.index, self.sigma, x.sum()))
        self.check_finite()
        return self.to_latents(x, sigma)

    def record(self, x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> None:
        """Take note of a network evaluation: the sampler's state, sigma [B], and the clean latents it estimates."""
        self.grid_index, self.evaluated = None, True
        self.stage += not self.sampler.custom
        if self.shows_denoised:  # or let go at once: memory that is held on to makes every step slower
            self.latest = denoised
            self.denoised = denoised if self.denoised is None else self.denoised
        self._note("state", sigma, x)
        self._note("answer", sigma, denoised)
        if self.sampler.adaptive:  # it would search for a step that makes nan small, for ever
            self.check_finite()

    def begin_step(self, index: int, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        """The sampler's state at the start of step `index`; whether x or the conditioning was changed since."""
        changed = index > 0 and self._end_step(x, sigma)
        self.index, self.sigma, self.stage = index, sigma, 0
        at_level = self.sampler.takes == "sigmas" and not (self.sampler.custom or self.churned)
        self.grid_index = index if at_level else None
        if self.trace is not None:
            self.trace.begin_step(index, x, sigma, late=self.sampler.custom)
        # A custom sampler tells us only after its first evaluation, which is repeated if anything was changed.
        self.denoised = self.latest if self.sampler.custom and not changed else None
        return changed

    def _end_step(self, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        changed = self._call_back(x, sigma) if self.callback is not None else False
        self._tick(sigma)
        if self.legacy_callback is not None and self.index % (self.legacy_every or 1) == 0:
            self.legacy_callback(self.index, self._timestep(), self.to_latents(x, sigma).to(self.dtype))
        if xla_model is not None:
            xla_model.mark_step()
        if self.pipe.interrupt:
            raise StopSampling(x, sigma)
        return changed

    def _timestep(self) -> torch.Tensor:
        return self.timestep(torch.as_tensor(self.sigma))

    def _call_back(self, x: torch.Tensor, sigma: torch.Tensor) -> bool:
        latents = self.to_latents(x, sigma).to(self.dtype)
        before = None if latents.is_inference() else latents._version
        tensors = {"latents": latents, **self.conditioning}
        if self.shows_denoised:
            tensors["denoised"] = self.denoised.to(self.dtype)
        guidance = getattr(self.pipe, "_guidance_scale", None)
        returned = self.callback(
            self.pipe, self.index, self._timestep(), {name: tensors[name] for name in self.tensor_inputs}
        )
        changed = getattr(self.pipe, "_guidance_scale", None) != guidance
        for name in self.conditioning:
            changed |= returned.get(name, tensors[name]) is not tensors[name]
            self.conditioning[name] = returned.get(name, tensors[name])
        replaced = returned.get("latents", latents)
        if not isinstance(replaced, torch.Tensor) or replaced.shape != latents.shape:
            found = f"of the shape {tuple(replaced.shape)}" if isinstance(replaced, torch.Tensor) else repr(replaced)
            raise ValueError(
                f"callback_on_step_end returned latents {found} after step {self.index}, and those of the run are of "
                f"the shape {tuple(latents.shape)}: return a tensor of that shape, or no latents to go on as they are"
            )
        if replaced is not latents or before is None or latents._version != before:
            x.copy_(self.to_state(replaced.to(x), sigma))
            changed = True
        return changed

    def _tick(self, sigma: torch.Tensor) -> None:
        if self.count is not None:
            return self.progress.update()
        low, high = (math.log(float(bound)) for bound in (self.sigmas[self.sigmas > 0].min(), self.sigmas.max()))
        done = 100 if sigma <= 0 or high <= low else int(100 * (high - math.log(float(sigma))) / (high - low))
        self.progress.set_postfix(sigma=f"{float(sigma):.3g}")
        self.progress.update(done - self.ticks)
        self.ticks = done

    def _note(self, what: str, sigma: torch.Tensor, tensor: torch.Tensor) -> None:
        self.sums.append((what, self.index, sigma, tensor.flatten()[:: max(tensor.numel() // SAMPLED, 1)].sum()))

    def check_finite(self) -> None:
        """Raise FloatingPointError if a state, an evaluation or the result so far has nan or inf, and say whose it is:
        one device sync."""
        finite = torch.stack([total for *_, total in self.sums]).isfinite().tolist() if self.sums else []
        if all(finite):
            self.sums.clear()
            return
        what, index, sigma, _ = self.sums[finite.index(False)]
        level = float(torch.as_tensor(sigma).flatten()[0])
        at = f"step {index}, sigma {level:.4g} (sampler {self.sampler.name}, model in {self.dtype})"
        raise FloatingPointError(SPOILED[what].format(at=at))
