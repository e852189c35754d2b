"""Samplers by where they come from: k_diffusion, diffusers, ComfyUI, a user's file.

k:dpmpp_2m                         a sampler of k_diffusion
k:dpmpp_2m_sde,eta=0.5             with an option of its own
diffusers:UniPCMultistepScheduler  a scheduler, made from the config of the pipeline's
diffusers:EulerDiscreteScheduler,timestep_spacing=trailing
comfy:er_sde                       a function of ComfyUI's comfy.k_diffusion.sampling, from the user's own install
path/to/file.py:my_sampler         a function in a file
dpmpp_2m, UniPCMultistepScheduler  a name alone is one of k_diffusion's, or of diffusers if it ends in Scheduler
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from samplers_patch import check_options, find_sampler

# isort: split
import diffusers

from denoisers import is_flow
from scheduler_bridge import as_sampler

PIPELINE_KEYWORDS = ("flow_coordinates", "quantize")
FORMS = "[k:]NAME, [diffusers:]CLASS, comfy:NAME or path/to/file.py:FUNCTION, each with ,option=value after it"


@dataclass(frozen=True)
class Source:
    """A sampler to compare: what to give to a pipeline as comfy_sampler=, sampler_options=, and other keywords."""

    label: str
    sampler: str | Callable
    options: dict[str, Any] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)


def find_source(text: str | Callable, scheduler=None, own_sigmas: bool = False) -> Source:
    """The sampler that `text` names, as in this module's docstring; a callable stands for itself.

    scheduler: the pipeline's, whose config a diffusers scheduler is made from. own_sigmas: a diffusers scheduler
    brings its own sigma grid. Raises ValueError or TypeError, with what there is to choose from.
    """
    if not isinstance(text, str):
        return Source(find_sampler(text).name, text)
    name, *settings = text.split(",")
    values = dict(_setting(setting, text) for setting in settings)
    keywords = {key: values.pop(key) for key in PIPELINE_KEYWORDS if key in values}
    kind, colon, rest = name.rpartition(":")
    if not colon and not name.endswith(".py"):
        kind = "diffusers" if name.endswith("Scheduler") else "k"
    if kind == "diffusers":
        return Source(text, as_sampler(_scheduler(rest, values, scheduler), own_sigmas=own_sigmas), {}, keywords)
    if kind == "k":
        sampler = find_sampler(rest)
    elif kind == "comfy":
        sampler = find_sampler(_member(comfyui_module(), f"sample_{rest.removeprefix('sample_')}", "ComfyUI"))
    elif kind.endswith(".py"):
        sampler = find_sampler(_member(_load(Path(kind)), rest, kind))
    else:
        raise ValueError(f"unknown sampler source {text!r}: give {FORMS}")
    check_options(sampler, values)
    return Source(text, sampler.function, values, keywords)


def _setting(setting: str, text: str) -> tuple[str, Any]:
    name, equals, value = setting.partition("=")
    if not equals:
        raise ValueError(f"{setting!r} in {text!r} is not option=value")
    try:
        return name.strip(), ast.literal_eval(value)  # literals alone: nothing is run
    except (ValueError, SyntaxError):
        return name.strip(), value


def _scheduler(name: str, values: dict[str, Any], scheduler):
    """A diffusers scheduler of the class, from the config of the pipeline's one with `values` changed."""
    kind = getattr(diffusers, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)):
        choices = [name for name in dir(diffusers) if name.endswith("Scheduler")]
        near = ", ".join(difflib.get_close_matches(name, choices, n=4, cutoff=0.0))
        raise ValueError(f"diffusers has no scheduler {name!r}; the nearest: {near}")
    known = inspect.signature(kind.__init__).parameters
    config = {} if scheduler is None else {key: value for key, value in scheduler.config.items() if key in known}
    for option in values:
        if option not in known:
            raise ValueError(f"{name} has no setting {option!r}; its settings: {', '.join(list(known)[1:])}")
    if scheduler is not None and is_flow(scheduler) and "use_flow_sigmas" in known:
        config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return kind.from_config(config, **values)


def comfyui_module() -> ModuleType:
    """`comfy.k_diffusion.sampling` of the user's own install. Raises ValueError if there is none."""
    try:
        import comfy.cli_args

        if not torch.accelerator.is_available():
            comfy.cli_args.args.cpu = True  # or its import asks for a GPU
        import comfy.k_diffusion.sampling

        return comfy.k_diffusion.sampling
    except ImportError as error:
        raise ValueError(f"ComfyUI cannot be imported ({error}): put its folder on PYTHONPATH") from error


def _load(path: Path) -> ModuleType:
    """The module in a user's file, which may import what lies beside it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give {FORMS}")
    spec = importlib.util.spec_from_file_location(f"sampler_file_{path.stem}", path)
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
        near = difflib.get_close_matches(name, functions, n=5, cutoff=0.0)
        raise ValueError(f"{where} has no function {name!r}; it has: {', '.join(near) or 'none'}")
    return function
