"""Samplers as schedulers: a sampling function behind the interface that the loops of diffusers' pipelines step.

    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler="dpmpp_2m_sde", sigma_grid="karras")

A sampler calls the model, a pipeline calls the scheduler. So the sampler is suspended inside its call of the model; a
`step` of the pipeline is the answer to that call, and returns the state at the next one.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput

from k_diffusing.arguments import warn_of_bounds
from k_diffusing.grids.given import GridChoice
from k_diffusing.model.scheduler_classes import RUNNABLE, scheduler_class
from k_diffusing.noise.streams import Generators
from k_diffusing.schedulers.calls import Calls
from k_diffusing.schedulers.config import (
    check_can_be_saved,
    class_of,
    class_settings,
    combined,
    read_settings,
    source_of,
    written,
)
from k_diffusing.schedulers.grids import plan_of
from k_diffusing.schedulers.stepping import Stepper, check_begin, check_output


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
        sigma_grid: "karras", ... (`k_diffusing.SIGMA_GRIDS`), {"karras": {"rho": 5}}, a list of n + 1 sigmas or a .json
            file of them, whose numbers a config keeps, or a function (schedule, n) -> n + 1 sigmas; None: the
            grid of the config. Its import path will do too.
        flow_coordinates: "auto", "flow" or "ve", as in our FluxPipeline; for flow-matching models.
        noise: where the steps' noise comes from (`k_diffusing.NOISE_SOURCES`); None: the program's, or "torch". That of
            the initial latents is the pipeline's own. "philox", "comfy" and "a1111" take the generator's seed and go on
            as if they had drawn those too; they need latents that are not packed.
        scheduler_class: the diffusers class that the remaining settings belong to.
        program: "comfyui" or "a1111": noise levels, timesteps and samplers as that program has them.

    Attributes:
        generator: set it to have all noise from there in pipelines that pass none to `step`, such as FLUX's; torch's
            global one if both are None.
        timesteps: what the network is told in each call, [calls]; None before set_timesteps.
        sigmas: the noise level of each network call, then of the result, [calls + 1]; flow time on flow models.
        order: network calls in a step, as pipelines count them.

    Raises:
        ValueError: for settings that cannot be right, and for an adaptive sampler.
        TypeError: likewise.
    """

    # diffusers writes it into model_index.json, and looks for the class there: the public one outlives moves.
    __module__ = "k_diffusing"
    _compatibles = list(RUNNABLE)
    order = 1

    @register_to_config
    def __init__(
        self, sampler: str | Callable = "euler", sampler_options: dict[str, Any] | None = None,
        sigma_grid: GridChoice = None, flow_coordinates: str = "auto", noise: str | None = None,
        scheduler_class: str = "EulerDiscreteScheduler", program: str | None = None,
    ):  # fmt: skip
        self._settings = read_settings(sampler, sampler_options, sigma_grid, flow_coordinates, noise, program)
        inherited = class_settings(class_of({"scheduler_class": scheduler_class}))
        self.register_to_config(**inherited | {k: written(v) for k, v in self._settings.to_write.items()})
        self.generator: Generators = None
        self.timesteps = self.sigmas = self.num_inference_steps = None
        self._forget()

    def _forget(self) -> None:
        self._stepper = self._begin_index = None

    def __getstate__(self) -> dict[str, Any]:
        """Of copies and pickles: the settings, without the run, which a copy could not go on with."""
        return self.__dict__ | {"_stepper": None, "_begin_index": None}

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"SamplerScheduler has no attribute {name!r}: what needs it, such as a pipeline made for one scheduler "
                "class, cannot run on a sampler; give it back a scheduler of that class"
            ) from None

    @classmethod
    def from_config(cls, config: dict[str, Any] | None = None, return_unused_kwargs: bool = False, **kwargs):
        """From the config of any scheduler of `compatibles`, or of a SamplerScheduler.

        A config that was saved has no more than the import paths of functions, and those have to be passed again, here
        or to from_pretrained.

        Args:
            config: such as pipe.scheduler.config.
            return_unused_kwargs: as in diffusers.
            kwargs: settings of ours, and changes to those of the scheduler that the config came from.

        Raises:
            TypeError: for a setting that neither has.
            ValueError: for an import path in the config.
        """
        own = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        settings, kwargs = combined(config, kwargs, own, keep_unknown=return_unused_kwargs)
        return super().from_config(settings | {"_class_name": cls.__name__}, return_unused_kwargs, **kwargs)

    def save_config(self, save_directory, push_to_hub: bool = False, **kwargs) -> None:
        """As diffusers' own; ValueError for a sampler, options or a grid that a file cannot hold or name.

        Of functions their import paths are saved, and loading takes them again:
        SamplerScheduler.from_pretrained(folder, sampler=..., sigma_grid=...).
        """
        check_can_be_saved(self._settings, self.config)
        super().save_config(save_directory, push_to_hub, **kwargs)

    @property
    def step_index(self) -> int | None:
        """The network call that the next step answers; None before the first."""
        return None if self._stepper is None else self._stepper.index

    @property
    def begin_index(self) -> int | None:
        """The network call to begin with; None where the first timestep is to tell."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """The network call to begin with (img2img), or the number of calls, where no step is left to take.

        Raises ValueError if there is no such call, or if the sampler cannot begin there.
        """
        check_begin(begin_index)
        if self._stepper is not None:
            begin_index = self._stepper.begin_at(begin_index, self.order * (self.num_inference_steps or 0))
        self._begin_index = begin_index

    @property
    def init_noise_sigma(self) -> float | torch.Tensor:
        """The standard deviation of the initial latents."""
        if self._stepper is not None:
            return self._stepper.space.initial(self._stepper.levels[0])
        source = source_of(self.config)
        return 1.0 if scheduler_class(source).flow else source.init_noise_sigma

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None,
        timesteps: list[float] | None = None, sigmas: list[float] | None = None, mu: float | None = None,
    ) -> None:  # fmt: skip
        """Find the noise levels at which the sampler will call the network; drop a run that is suspended.

        Args:
            num_inference_steps: of the grid of the config.
            device: of `timesteps`.
            timesteps: the user's grid, in place of that of the config; none leave no step to take.
            sigmas: likewise, with the last one; one leaves no step to take.
            mu: the dynamic shift of flow time.

        Raises:
            ValueError: for a grid that the sampler cannot be run on.
        """
        self._forget()
        source = source_of(self.config)
        warn_of_bounds(self, self._settings.sampler, source)
        plan = plan_of(self._settings, source, num_inference_steps, timesteps, sigmas, mu)
        self._stepper = Stepper(Calls(plan), plan.noise, device)
        self.timesteps, self.sigmas = self._stepper.timesteps, plan.space.time(self._stepper.calls.levels)
        self.num_inference_steps = len(plan.sigmas) - 1
        # Where a pipeline passed its own grid, it takes the number of timesteps for that of steps.
        self.order = self._stepper.calls.order if num_inference_steps is not None else 1

    def _ready(self) -> Stepper:
        if self._stepper is None:
            raise RuntimeError("there is no run to step: call set_timesteps first, also on a copy and after an error")
        return self._stepper

    def index_for_timestep(self, timestep: float | torch.Tensor) -> int:
        """The network call of a timestep, the one that begins a step if there are several; ValueError if none is."""
        return self._ready().index_for(timestep)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The network's input from the latents [B, ...]."""
        stepper = self._ready()
        return stepper.space.network_input(sample, stepper.levels[stepper.at(timestep, self._begin_index)])

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Latents at the noise level of the network call at hand, or of begin_index, or else of `timesteps` [B]."""
        return self._ready().noised(original_samples, noise, timesteps, self._begin_index)

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise` under the name, and with the order, that pipelines for flow models use."""
        return self.add_noise(sample, noise, timestep)

    @torch.no_grad()
    def step(
        self, model_output: torch.Tensor, timestep: float | torch.Tensor, sample: torch.Tensor,
        generator: Generators = None, return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Answer the sampler's call of the network, and return the latents at which it calls it next, or the result.

        Args:
            model_output: the network's, [B, ...] as sample.
            timestep: of the network call.
            sample: the latents, [B, ...].
            generator: of all noise of the run, taken at its first step.
            return_dict: whether to return diffusers' output class, or a tuple.

        Raises:
            RuntimeError: for a step that is not the next one.
            ValueError: for input of a wrong shape.
        """
        stepper = self._ready()
        index = stepper.expect(timestep, self._begin_index)
        check_output(model_output, sample)
        generator = self.generator if generator is None else generator
        try:
            previous, denoised = stepper.advance(index, model_output, sample, generator)
        except BaseException:
            self._forget()
            raise
        return EulerDiscreteSchedulerOutput(previous, denoised) if return_dict else (previous, denoised)
