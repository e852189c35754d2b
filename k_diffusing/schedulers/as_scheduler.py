"""Samplers as schedulers: a sampling function behind the interface that the loops of diffusers' pipelines step.

    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler="dpmpp_2m_sde", sigma_grid="karras")

A sampler calls the model, a pipeline calls the scheduler. So the sampler is suspended inside its call of the model; a
`step` of the pipeline is the answer to that call, and returns the state at the next one.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.utils import logging

from k_diffusing.arguments import warn_of_bounds
from k_diffusing.grids.check import check_grid_choice, check_sigmas, check_steps
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.model.coordinates import FLOW_COORDINATES
from k_diffusing.model.scheduler_classes import RUNNABLE
from k_diffusing.model.scheduler_config import (
    flow_schedule,
    fresh_scheduler,
    is_flow,
    noise_schedule,
    preconditioning,
    shifts_dynamically,
)
from k_diffusing.noise.check import check_source
from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.streams import Generators
from k_diffusing.programs.records import program_of
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options, choose_coordinates
from k_diffusing.schedulers.calls import ADAPTIVE, Plan
from k_diffusing.schedulers.suspended import Run
from k_diffusing.spaces import LatentSpace, discrete_space, flow_space

logger = logging.get_logger(f"diffusers.{__name__}")  # under diffusers' verbosity settings


class _Written(str):
    """What JSON holds of `value`, which it cannot hold: known in memory, and lost with the file."""

    value: Any


def _is_path(value) -> bool:
    return isinstance(value, str) and ":" in value


def _imported(value):
    """The object of an import path "module:name"; anything else as it is. ValueError if there is none."""
    if not _is_path(value):
        return value
    module, _, name = value.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{value!r} cannot be imported ({error}): pass the function itself") from error


def _written(value):
    """What JSON can hold of a setting: for a callable its import path, whether it leads there or not."""
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    name = f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}" if callable(value) else None
    written = _Written(name or repr(value))
    written.value = value
    return written


def _read(value):
    """The setting that was `_written`; of one that was in a file since, what JSON holds."""
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    return value.value if isinstance(value, _Written) else value


def _check_paths(config: dict[str, Any]) -> None:
    """Raise ValueError for an import path in a config: whoever wrote it would choose what is run here."""
    for name in ("sampler", "sigma_grid"):
        path = config.get(name)
        if _is_path(path) and not isinstance(path, _Written):
            raise ValueError(
                f"the config says {name}={path!r}, and what a config names is not imported, as anyone may have written "
                f"it. If it is to be run, pass it in the call: SamplerScheduler.from_config(config, {name}={path!r}), "
                f"or from_pretrained(folder, subfolder='scheduler', {name}=...), with the path or the function itself"
            )


def _class_of(config: dict[str, Any]) -> str:
    """The scheduler class whose config this is; one that was made by its constructor does not say, but lists its own
    settings first. ValueError for a class whose noise schedule is not known."""
    name = config.get("scheduler_class") or config.get("_class_name")
    if name is None:
        keys = [key for key in config if not key.startswith("_")]
        parameters = {name: _parameters(name) for name in RUNNABLE}
        fitting = [name for name in RUNNABLE if set(parameters[name]) == set(keys[: len(parameters[name])])]
        name = max(fitting, key=lambda name: len(parameters[name]), default=None)
    if not isinstance(name, str) or name not in RUNNABLE:
        raise ValueError(
            f"the config is of {name or 'no scheduler class we know'}; SamplerScheduler knows the noise schedules of "
            f"{', '.join(RUNNABLE)}: pass scheduler_class= one of these that means the same by its settings"
        )
    return name


def _parameters(class_name: str) -> dict[str, Any]:
    """The settings of a scheduler class, with their defaults."""
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    return {name: p.default for name, p in parameters.items() if name != "self"}


class SamplerScheduler(SchedulerMixin, ConfigMixin):
    """A sampling function as the scheduler of a diffusers pipeline; made by `from_config` of the pipeline's own.

    Latents, timesteps and initial noise are in the convention of the scheduler that the config came from. There is one
    timestep for each network call, so multi-stage samplers show more than num_inference_steps. The state between
    steps is kept in float32. Latents that the pipeline changes between two steps are gone on from; those of an inner
    stage serve that one network call. No gradient flows through a step.

    Args:
        sampler: the name of a k_diffusion sampler, a callable with that signature, or its import path "module:name".
            Paths are followed where a call passes them, never from a config that was loaded.
        sampler_options: given to the sampler: eta, s_noise, s_churn, solver_type, order, ...
        sigma_grid: "karras", ... (`k_diffusing.SIGMA_GRIDS`), or a function (schedule, n) -> n + 1 sigmas; None: the
            grid of the config. Its import path will do too.
        flow_coordinates: "auto", "flow" or "ve", as in our FluxPipeline; for flow-matching models.
        noise: where the steps' noise comes from (`k_diffusing.NOISE_SOURCES`); that of the initial latents is the
            pipeline's own. "philox", "comfy" and "a1111" take the generator's seed and go on as if they had drawn
            those too; they need latents that are not packed.
        scheduler_class: the diffusers class that the remaining settings belong to.

    generator: set it to have all noise from there in pipelines that pass none to `step`, such as FLUX's; torch's global
    one if both are None.
    Raises ValueError or TypeError for settings that cannot be right; ValueError for an adaptive sampler.
    """

    _compatibles = list(RUNNABLE)
    order = 1

    @register_to_config
    def __init__(
        self,
        sampler: str | Callable = "euler",
        sampler_options: dict[str, Any] | None = None,
        sigma_grid: str | Callable | None = None,
        flow_coordinates: str = "auto",
        noise: str = "torch",
        scheduler_class: str = "EulerDiscreteScheduler",
    ):
        sampler, sampler_options, sigma_grid = map(_read, (sampler, sampler_options, sigma_grid))
        self._sampler, self._sigma_grid = find_sampler(_imported(sampler)), _imported(sigma_grid)
        self._options = sampler_options or {}
        check_options(self._sampler, sampler_options)
        if self._sampler.adaptive:
            raise ValueError(f"{self._sampler.name} {ADAPTIVE}")
        check_grid_choice(self._sigma_grid)
        if flow_coordinates == "velocity":
            raise ValueError("flow_coordinates='velocity' is wrong for most samplers: choose 'auto', 'flow' or 've'")
        choose_coordinates(flow_coordinates, self._sampler, sampler_options)
        check_source(noise)
        if self._sampler.sigma_grid and sigma_grid is None:
            logger.warning(f"{self._sampler.name} needs a grid smooth in log sigma: sigma_grid='karras' is one")
        self._given = {
            "sampler": self._sampler.function if self._sampler.custom else self._sampler.name,
            "sampler_options": sampler_options,
            "sigma_grid": self._sigma_grid,
        }
        scheduler_class = _class_of({"scheduler_class": scheduler_class})
        self.register_to_config(**_parameters(scheduler_class) | {k: _written(v) for k, v in self._given.items()})
        self._drop = self._sampler.name in program_of(noise).drops_penultimate
        self.generator: Generators = None
        self.timesteps = self.sigmas = self.num_inference_steps = None
        self._forget()

    def _forget(self) -> None:
        self._plan = self._run = self._index = self._begin_index = None

    def __getstate__(self) -> dict[str, Any]:
        """Of copies and pickles: the settings, without the run, which a copy could not go on with."""
        return self.__dict__ | {"_plan": None, "_run": None, "_index": None, "_begin_index": None}

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"SamplerScheduler has no attribute {name!r}: what needs it, such as a pipeline made for one scheduler "
                "class, cannot run on a sampler; give it back a scheduler of that class"
            ) from None

    @classmethod
    def from_config(cls, config: dict[str, Any] = None, return_unused_kwargs: bool = False, **kwargs):
        """From the config of any scheduler of `compatibles`, or of a SamplerScheduler.

        kwargs: settings of ours, and changes to those of the scheduler that the config came from. A config that was
        saved has no more than the import paths of functions, and those have to be passed again, here or to
        from_pretrained. Raises TypeError for a setting that neither has, ValueError for an import path in the config.
        """
        if not isinstance(config, dict):
            raise TypeError(
                f"from_config takes the config of a scheduler, such as pipe.scheduler.config, not {config!r}"
            )
        name = _class_of(config | {"scheduler_class": kwargs.pop("scheduler_class", config.get("scheduler_class"))})
        known = _parameters(name)
        settings = {k: v for k, v in config.items() if not k.startswith("_")}
        settings |= {key: kwargs.pop(key) for key in list(kwargs) if key in known}
        if "sampler" in kwargs:
            settings.pop("sampler_options", None)  # the former sampler's
        own = inspect.signature(cls.__init__).parameters
        unknown = [key for key in kwargs if key not in own]
        if unknown and not return_unused_kwargs:
            choices = ", ".join([*list(own)[1:], *known])
            raise TypeError(f"SamplerScheduler has no setting {unknown[0]!r}; its settings, of {name}: {choices}")
        _check_paths({key: value for key, value in settings.items() if key not in kwargs})
        settings |= {"scheduler_class": name, "_class_name": cls.__name__}
        return super().from_config(settings, return_unused_kwargs, **kwargs)

    def save_config(self, save_directory, push_to_hub: bool = False, **kwargs) -> None:
        """As diffusers' own; ValueError for a sampler, options or a grid that a file cannot hold or name.

        Of functions their import paths are saved, and loading takes them again:
        SamplerScheduler.from_pretrained(folder, sampler=..., sigma_grid=...).
        """
        for name, value in self._given.items():
            path = self.config[name]
            try:
                lost = _imported(path) != value or str(path).startswith("__main__:")
            except ValueError:
                lost = True
            if lost:
                raise ValueError(
                    f"{name}={value!r} cannot be saved: only names, numbers, and functions that programs can import"
                )
        super().save_config(save_directory, push_to_hub, **kwargs)

    @property
    def step_index(self) -> int | None:
        """The network call that the next step answers; None before the first."""
        return self._index

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The network call to begin with (img2img), or the number of calls, where no step is left to take.

        Raises ValueError if there is no such call, or if the sampler cannot begin there.
        """
        if not isinstance(begin_index, Integral) or begin_index < 0:
            raise ValueError(f"begin_index={begin_index!r}: give the number of a network call, 0 or more")
        if self._plan is not None:
            calls = len(self._times)
            if begin_index > max(calls, self.order * self.num_inference_steps):
                raise ValueError(f"begin_index={begin_index}, but there are {calls} network calls: give 0 to {calls}")
            begin_index = min(begin_index, calls)  # pipelines count the last step as long as the others
            if begin_index < calls:
                self._plan.rest(begin_index)
        self._begin_index = begin_index

    @property
    def init_noise_sigma(self) -> float | torch.Tensor:
        """The standard deviation of the initial latents."""
        if self._plan is None:
            return getattr(self._source(), "init_noise_sigma", 1.0)
        return self._plan.space.initial(self._plan.levels[0])

    def _source(self) -> SchedulerMixin:
        """The scheduler whose settings the config holds, anew."""
        name = self.config.scheduler_class
        return getattr(diffusers, name)(**{key: self.config[key] for key in _parameters(name)})

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[float] | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Find the noise levels at which the sampler will call the network; drop a run that is suspended.

        timesteps, sigmas: the user's grid, in place of that of the config; no timesteps, or one sigma with the last one
        included, leave no step to take. mu: the dynamic shift of flow time.
        Raises ValueError for a grid that the sampler cannot be run on.
        """
        self._forget()
        if timesteps is None and sigmas is None:
            check_steps(num_inference_steps)
        source = self._source()
        warn_of_bounds(self, self._sampler, source)
        make = self._flow_grid if is_flow(source) else self._discrete_grid
        space, grid = make(source, num_inference_steps, timesteps, sigmas, mu)
        self._plan = Plan(self._sampler, self._options, space, grid)
        self._levels = self._plan.levels.unbind()
        self.sigmas = space.time(self._plan.levels)
        timesteps = space.timestep(self._plan.levels[:-1])
        self._times, self.timesteps = timesteps.tolist(), timesteps.to(device)
        self.num_inference_steps = len(grid) - 1
        # Where a pipeline passed its own grid, it takes the number of timesteps for that of steps.
        self.order = self._plan.order if num_inference_steps is not None else 1

    def _check_explicit(self, **explicit) -> None:
        check_grid_choice(self._sigma_grid, **explicit)
        given = [name for name, values in explicit.items() if values is not None]
        if given and self._sampler.takes == "sigma_range":
            raise ValueError(
                f"{self._sampler.name} chooses its own steps between sigma_min and sigma_max, so {given[0]}= cannot be "
                "kept: leave it out, or choose a sampler that takes a grid of sigmas"
            )

    def _discrete_grid(self, source, n, timesteps, sigmas, mu) -> tuple[LatentSpace, torch.Tensor]:
        self._check_explicit(timesteps=timesteps, sigmas=sigmas)
        only_flow = getattr(self._sampler.function, "flow_coordinates", None) == "flow"
        if only_flow or self.config.flow_coordinates != "auto":
            raise ValueError(f"{self._sampler.name} is to integrate flow matching, and this model is none")
        schedule = noise_schedule(source)
        grid_scheduler = self._sampler.grid_scheduler or source
        grid = discrete_grid(grid_scheduler, schedule, n, self._sigma_grid, timesteps, sigmas, self._drop)
        own, program = grid.initial_scale, program_of(self.config.noise)
        grid = grid._replace(initial_scale=program.initial_scale(own, grid.sigmas[0], schedule.sigmas[-1]))
        return discrete_space(schedule, preconditioning(source), grid), grid.sigmas

    def _flow_grid(self, source, n, timesteps, sigmas, mu) -> tuple[LatentSpace, torch.Tensor]:
        if timesteps is not None or source.config.get("invert_sigmas"):
            raise ValueError(
                "flow models are run here by sigmas=, from 1 to 0: timesteps= and invert_sigmas are not kept"
            )
        if shifts_dynamically(source) and mu is None:
            raise ValueError(
                "the config shifts flow time by the size of the image: pass mu=, as FLUX's pipelines do, or make this "
                "scheduler with use_dynamic_shifting=False"
            )
        source, sigma_grid = self._sampler.grid_scheduler or source, self._sigma_grid
        if sigmas is None and sigma_grid is None and not source.config.get("use_flow_sigmas"):
            sigma_grid = lambda _, n: _own_times(source, n, mu)  # noqa: E731
        elif sigmas is not None and _are_the_usual(sigmas):
            n, sigmas = len(sigmas), None  # what many pipelines pass where their user gave none
        else:
            self._check_explicit(sigmas=sigmas)
        chosen = choose_coordinates(self.config.flow_coordinates, self._sampler, self._options)
        schedule = flow_schedule(source, mu)
        times = flow_grid(source, schedule, n, sigma_grid, sigmas, mu, self._drop).sigmas
        return flow_space(schedule, chosen), FLOW_COORDINATES[chosen].sigmas(times)

    def index_for_timestep(self, timestep: float | torch.Tensor) -> int:
        """The network call of a timestep, the one that begins a step if there are several; ValueError if none is."""
        self._ready()
        value = _value(timestep)
        calls = [call for call, time in enumerate(self._times) if time == value]
        if not calls:
            raise ValueError(f"timestep {value:g} is none of scheduler.timesteps {self._times}")
        return next((call for call in calls if call in self._plan.starts), calls[0])

    def _ready(self) -> Plan:
        if self._plan is None:
            raise RuntimeError("there is no run to step: call set_timesteps first, also on a copy and after an error")
        return self._plan

    def _at(self, timestep) -> int:
        """The network call at hand; the first is that of begin_index or else of the timestep."""
        self._ready()
        if self._index is None:
            begin = self._begin_index
            self._index = self.index_for_timestep(timestep) if begin is None else begin
        return self._index

    def scale_model_input(self, sample: torch.Tensor, timestep=None) -> torch.Tensor:
        """The network's input from the latents."""
        return self._ready().space.network_input(sample, self._levels[self._at(timestep)])

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Latents at the noise level of the network call at hand, or of begin_index, or else of `timesteps` [B]."""
        plan, index = self._ready(), self._begin_index if self._index is None else self._index
        if index is None:
            calls = [self.index_for_timestep(t) for t in timesteps]
            sigma = plan.levels[calls].to(original_samples).reshape(-1, *[1] * (original_samples.ndim - 1))
        else:
            sigma = self._levels[index]
        return plan.space.noised(original_samples, noise, sigma)

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise` under the name, and with the order, that pipelines for flow models use."""
        return self.add_noise(sample, noise, timestep)

    @torch.no_grad()
    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """Answer the sampler's call of the network, and return the latents at which it calls it next, or the result.

        model_output: the network's, [B, ...] as sample, the latents. generator: of all noise of the run, taken at its
        first step. Raises RuntimeError for a step that is not the next one, ValueError for input of a wrong shape.
        """
        index = self._expect(timestep)
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output has the shape {tuple(model_output.shape)}, and the latents {tuple(sample.shape)}: of a "
                "network that predicts more than one thing, pass the first, without the variance"
            )
        try:
            previous, denoised = self._advance(model_output, sample, generator, index)
        except BaseException:
            self._forget()
            raise
        return EulerDiscreteSchedulerOutput(previous, denoised) if return_dict else (previous, denoised)

    def _advance(self, model_output, sample, generator, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        plan, space, level = self._plan, self._plan.space, self._levels[index]
        run = self._run = self._run or self._begin(sample, generator, index)
        # The first latents, and those that the pipeline changed, take the place of what the sampler gave the model.
        x = run.x if run.gave(sample) else space.state(sample.to(run.x.dtype), level)
        output = model_output.to(x.dtype)
        denoised = space.denoised(x, output, level)
        run.answer((denoised, output), None if x is run.x else x)
        self._index = index + 1
        if run.over != (self._index == len(self._times)):
            raise RuntimeError(f"{plan.sampler.name} did not call the network {len(self._times)} times: it {ADAPTIVE}")
        previous = space.latents(run.x, self._levels[self._index]).to(sample.dtype)
        run.give(previous)
        return previous, denoised.to(sample.dtype)

    def _begin(self, sample: torch.Tensor, generator: Generators, index: int) -> Run:
        plan, generator = self._plan, self.generator if generator is None else generator
        streams = noise_streams(self.config.noise, generator, None, len(sample), sample.device)
        streams = streams.after_initial(sample.shape, sample.device, sample.dtype)
        step_noise = functools.partial(streams.step_noise, time=plan.space.time)
        state_dtype = torch.promote_types(sample.dtype, torch.float32)
        x = plan.space.state(sample.to(state_dtype, copy=True), self._levels[index])
        return Run(lambda model: plan.sample_from(index, model, x, step_noise))

    def _expect(self, timestep) -> int:
        """The network call at hand, which must be the timestep's; without a sync if that is a view of `timesteps`."""
        index = self._at(timestep)
        if index >= len(self._times):
            raise RuntimeError(f"the run is over after {len(self._times)} steps: call set_timesteps to start another")
        if _is_element(timestep, self.timesteps, index) or _value(timestep) == self._times[index]:
            return index
        raise RuntimeError(
            f"step got timestep {_value(timestep):g}, but the next one, {index} of {len(self._times)}, is "
            f"{self._times[index]:g}: go through scheduler.timesteps in order, and call set_timesteps to start again; "
            "two pipelines that run by turns need a scheduler each (copy.deepcopy)"
        )


def _are_the_usual(sigmas) -> bool:
    check_sigmas(sigmas, least=0)
    n = len(sigmas)
    return n > 0 and np.allclose(sigmas, np.linspace(1, 1 / n, n))


def _own_times(scheduler, n: int, mu: float | None) -> torch.Tensor:
    """Where a flow-matching scheduler stops by itself if it is told no more than n."""
    fresh = fresh_scheduler(scheduler)
    fresh.set_timesteps(n, **({"mu": mu} if shifts_dynamically(fresh) else {}))
    return fresh.sigmas.float().cpu().unique_consecutive()


def _value(timestep) -> float:
    return float(torch.as_tensor(timestep).flatten()[0])


def _is_element(timestep, timesteps: torch.Tensor, index: int) -> bool:
    """Whether a timestep is timesteps[index] in memory, and not only by value."""
    if not isinstance(timestep, torch.Tensor) or timestep.device != timesteps.device:
        return False
    same = timestep.untyped_storage().data_ptr() == timesteps.untyped_storage().data_ptr()
    return same and timestep.storage_offset() == timesteps.storage_offset() + index
