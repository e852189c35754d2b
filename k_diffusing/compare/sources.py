"""Samplers by where they come from: k_diffusion, diffusers, ComfyUI, a user's file.

k:dpmpp_2m                         a sampler of k_diffusion
k:dpmpp_2m_sde,eta=0.5             with an option of its own
diffusers:UniPCMultistepScheduler  a scheduler, made from the config of the pipeline's
diffusers:EulerDiscreteScheduler,timestep_spacing=trailing
comfy:er_sde                       a function of ComfyUI's comfy.k_diffusion.sampling, from the user's own install
path/to/file.py:my_sampler         a function in a file
k:lms,program=comfyui              a sampler as another program runs it
dpmpp_2m, UniPCMultistepScheduler  a name alone is one of k_diffusion's, or of diffusers if it ends in Scheduler
DPM++ 2M Karras                    a name in another program, with the sigma grid that it implies
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import torch

from k_diffusing._messages import SAMPLER_FORMS, nearest
from k_diffusing._tensors import COMPUTED
from k_diffusing.grids.choose import discrete_grid, flow_grid
from k_diffusing.model.scheduler_config import flow_schedule, is_flow, noise_schedule
from k_diffusing.names.texts import literal, sampler_text
from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.call import run_sampler
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options
from k_diffusing.samplers.records import Sampler
from k_diffusing.schedulers.as_sampler import as_sampler

PIPELINE_KEYWORDS = ("flow_coordinates", "program", "quantize")


@dataclass(frozen=True)
class Source:
    """A sampler to compare.

    Attributes:
        label: the text that named it, or its name.
        sampler: what to give to a pipeline as comfy_sampler=.
        options: as sampler_options=.
        keywords: other keywords of the pipeline's call.
        sigma_grid: the name of the one that the text implies, as "DPM++ 2M Karras" does.
    """

    label: str
    sampler: str | Callable
    options: dict[str, Any] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)
    sigma_grid: str | None = None


def find_source(text: str | Callable, scheduler=None, own_sigmas: bool = False) -> Source:
    """Find a sampler.

    Args:
        text: a name, as in this module's docstring; a callable stands for itself.
        scheduler: the pipeline's, whose config a diffusers scheduler is made from.
        own_sigmas: whether a diffusers scheduler brings its own sigma grid.

    Returns:
        The sampler, with its options.

    Raises:
        ValueError: a name, an option or a value that there is not; it says what there is to choose from.
        TypeError: what is no sampler, or has no such option.
    """
    if not isinstance(text, str):
        return Source(find_sampler(text).name, text)
    kind, rest, values = _parts(text)
    keywords, sigma_grid = {key: values.pop(key) for key in PIPELINE_KEYWORDS if key in values}, None
    if kind == "diffusers":
        sampler = as_sampler(_scheduler(rest, values, scheduler), own_sigmas=own_sigmas)
        if values:
            _check_values(text, find_sampler(sampler), _some_levels(sampler.scheduler))
        return Source(text, sampler, {}, keywords)
    if kind == "k":
        name, values, sigma_grid = asked(rest, values)
        sampler = find_sampler(name)
    elif kind == "comfy":
        sampler = find_sampler(_member(comfyui_module(), f"sample_{rest.removeprefix('sample_')}", "ComfyUI"))
    elif kind.endswith(".py"):
        sampler = find_sampler(_member(_load(Path(kind)), rest, kind))
    else:
        raise ValueError(f"unknown sampler source {text!r}: give {SAMPLER_FORMS}")
    check_options(sampler, values)
    return Source(text, sampler.function, values, keywords, sigma_grid)


def overruled(text: str, scheduler, sigmas: torch.Tensor) -> list[str]:
    """Find the settings of a diffusers scheduler that change its own sigma grid, and nothing of its run on another.

    Args:
        text: as for `find_source`.
        scheduler: the pipeline's.
        sigmas: [steps + 1], the grid that it is given, in the scheduler's coordinates.

    Returns:
        The names of the settings; none for another sampler.
    """
    kind, rest, values = _parts(text)
    if kind != "diffusers":
        return []
    values = {name: value for name, value in values.items() if name not in PIPELINE_KEYWORDS}
    found = as_sampler(_scheduler(rest, values, scheduler))
    names = []
    for name in values:
        others = {key: value for key, value in values.items() if key != name}
        without = as_sampler(_scheduler(rest, others, scheduler))
        if not _same(*(_own_grid(one.scheduler, len(sigmas) - 1) for one in (found, without))) and _same(
            *(_null_run(find_sampler(one), sigmas) for one in (found, without))
        ):
            names.append(name)
    return names


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all values are, but for rounding.

    A scheduler's own tables and those made for it from the same grid differ by 1e-6.
    """
    return a.shape == b.shape and bool((a - b).abs().max() <= COMPUTED * a.abs().max())


def _null_run(sampler: Sampler, sigmas: torch.Tensor) -> torch.Tensor:
    """All that a sampler asks a small smooth network for, and its result; it adds the same number for any noise."""
    seen = []

    def model(x, sigma, **_):
        seen.append(x / (1 + sigma.reshape(-1, 1, 1, 1)))
        return torch.tanh(seen[-1])

    x = torch.linspace(-1, 1, 8).reshape(1, 1, 1, 8) * sigmas[0]
    noise = torch.full_like(x, 0.1)
    seen.append(run_sampler(sampler, model, x, sigmas, noise=lambda *_, kind: lambda *_: noise))
    return torch.cat(seen)


def _own_grid(scheduler, steps: int) -> torch.Tensor:
    """The sigmas of a scheduler's config, and what unit noise is scaled by at the first."""
    if is_flow(scheduler):
        return flow_grid(scheduler, flow_schedule(scheduler, 1.0), steps, mu=1.0).sigmas
    grid = discrete_grid(scheduler, noise_schedule(scheduler), steps)
    return torch.cat([grid.sigmas, torch.as_tensor(grid.initial_scale).reshape(1)])


def _check_values(text: str, sampler: Sampler, sigmas: torch.Tensor) -> None:
    """Raise ValueError for a scheduler that cannot run with its settings."""
    try:
        _null_run(sampler, sigmas)
    except Exception as error:  # a value it does not know; each class raises its own
        raise ValueError(f"{text} cannot run with these settings: {error}") from error


def _some_levels(scheduler) -> torch.Tensor:
    """Five noise levels that a scheduler knows, and 0."""
    if is_flow(scheduler):
        return torch.linspace(0.9, 0.0, 6)
    sigmas = noise_schedule(scheduler).sigmas
    return torch.cat([sigmas[[n * (len(sigmas) - 1) // 6 for n in (5, 4, 3, 2, 1)]], torch.zeros(1)])


def _parts(text: str) -> tuple[str, str, dict[str, Any]]:
    """Kind of source, name in it, options."""
    kind, rest, settings = sampler_text(text)
    return kind, rest, dict(_setting(setting, text) for setting in settings)


def _setting(setting: str, text: str) -> tuple[str, Any]:
    name, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} in {text!r} is not option=value")
    return name.strip(), literal(value)


def _scheduler(name: str, values: dict[str, Any], scheduler):
    """A diffusers scheduler of the class, from the config of the pipeline's one with `values` changed."""
    found = getattr(diffusers, name, None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)):
        choices = [name for name in dir(diffusers) if name.endswith("Scheduler")]
        near = ", ".join(nearest(name, choices, 4))
        raise ValueError(f"diffusers has no scheduler {name!r}; the nearest: {near}")
    kind: Any = found
    known = inspect.signature(kind.__init__).parameters
    config = {} if scheduler is None else {key: value for key, value in scheduler.config.items() if key in known}
    for option, value in values.items():
        if option not in known:
            raise ValueError(f"{name} has no setting {option!r}; its settings: {', '.join(list(known)[1:])}")
        if isinstance(known[option].default, bool) and not isinstance(value, bool):
            raise ValueError(f"{name}'s {option} is True or False, not {value!r}")
    if scheduler is not None and is_flow(scheduler) and "use_flow_sigmas" in known:
        config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    try:
        return kind.from_config(config, **values)
    except Exception as error:  # a value it does not know; each class raises its own
        settings = ", ".join(f"{option}={value!r}" for option, value in values.items()) or "the pipeline's config"
        raise ValueError(f"{name} cannot be made with {settings}: {error}") from error


def comfyui_module() -> ModuleType:
    """`comfy.k_diffusion.sampling` of the user's own install. Raises ValueError if there is none."""
    try:
        import comfy.cli_args

        if not torch.accelerator.is_available():
            comfy.cli_args.args.cpu = True  # or its import asks for a GPU
        import comfy.k_diffusion.sampling

        return comfy.k_diffusion.sampling
    except ImportError as error:
        missing = (error.name or "comfy").split(".")[0]
        cure = "put its folder on PYTHONPATH" if missing == "comfy" else f"it needs {missing}: install its requirements"
        raise ValueError(f"ComfyUI cannot be imported ({error}): {cure}") from error


def _load(path: Path) -> ModuleType:
    """The module in a user's file, which may import what lies beside it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give {SAMPLER_FORMS}")
    spec = importlib.util.spec_from_file_location(f"sampler_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file: give {SAMPLER_FORMS}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code: whatever it raises
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _member(module: ModuleType, name: str, where: str) -> Callable:
    function = getattr(module, name, None)
    if function is None:
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        near = nearest(name, functions, 5)
        raise ValueError(f"{where} has no function {name!r}; it has: {', '.join(near) or 'none'}")
    return function
