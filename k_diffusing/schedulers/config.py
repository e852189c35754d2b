"""The config of a SamplerScheduler: what is written of its settings, what is read, and what is never followed."""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers

from k_diffusing.grids.check import check_grid_choice
from k_diffusing.grids.given import given_grid, is_file, plain_grid
from k_diffusing.model.scheduler_classes import RUNNABLE
from k_diffusing.noise.check import check_source
from k_diffusing.programs.choose import find_program
from k_diffusing.samplers.asked import asked, asked_grid
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options, choose_coordinates
from k_diffusing.samplers.records import Sampler
from k_diffusing.schedulers.calls import ADAPTIVE, NEEDS_BOTH


class Written(str):
    """What JSON holds of `value`, which it cannot hold: known in memory, and lost with the file."""

    value: Any


@dataclass(frozen=True)
class Settings:
    """A SamplerScheduler's own settings, read and checked.

    Attributes:
        sampler: its record.
        options: those given to it, or None.
        sigma_grid: as `given_grid` reads it; None for the grid of the config.
        coordinates: as the user gave them: "auto", "flow" or "ve".
        noise: the name of the noise source, or None for the program's.
        program: the name of a program, or None.
    """

    sampler: Sampler
    options: dict[str, Any] | None
    sigma_grid: str | Callable | None
    coordinates: str
    noise: str | None
    program: str | None

    @property
    def function(self) -> str | Callable:
        """The sampler as a user gives it: the name, or a function of theirs."""
        return self.sampler.function if self.sampler.custom else self.sampler.name

    @property
    def to_write(self) -> dict[str, Any]:
        """Those that JSON may not be able to hold, by their names in the config."""
        return {"sampler": self.function, "sampler_options": self.options, "sigma_grid": plain_grid(self.sigma_grid)}


def read_settings(
    sampler, sampler_options, sigma_grid, flow_coordinates: str, noise: str | None, program: str | None
) -> Settings:
    """The settings as a user or a config gives them, import paths followed.

    Raises ValueError or TypeError for settings that cannot be right; ValueError for an adaptive sampler, and one that
    asks for the estimate without the prompt.
    """
    sampler, sigma_grid = _imported(_read(sampler)), _imported(_read(sigma_grid))
    sigma_grid = given_grid(sigma_grid, find_program(program).grids)
    own = find_program(program).own_grid(sigma_grid)
    sampler, options, sigma_grid = asked(sampler, _read(sampler_options), sigma_grid)
    sigma_grid = own or sigma_grid
    record = find_sampler(sampler)
    check_options(record, options)
    if record.adaptive:
        raise ValueError(f"{record.name} {ADAPTIVE}")
    if record.uses_uncond:
        raise ValueError(f"{record.name} {NEEDS_BOTH}")
    check_grid_choice(sigma_grid, find_program(program).grid_names)
    if flow_coordinates == "velocity":
        raise ValueError("flow_coordinates='velocity' is wrong for most samplers: choose 'auto', 'flow' or 've'")
    choose_coordinates(flow_coordinates, record, options)
    check_source(noise or find_program(program).noise)
    return Settings(record, options, sigma_grid, flow_coordinates, noise, program)


def _is_path(value) -> bool:
    return isinstance(value, str) and ":" in value and not is_file(value)


def _imported(value) -> Any:
    """The object of an import path "module:name"; anything else as it is. ValueError if there is none."""
    if not _is_path(value):
        return value
    module, _, name = value.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{value!r} cannot be imported ({error}): pass the function itself") from error


def written(value):
    """What JSON can hold of a setting: for a callable its import path, whether it leads there or not."""
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    if isinstance(value, list):
        return [written(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    name = f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}" if callable(value) else None
    text = Written(name or repr(value))
    text.value = value
    return text


def _read(value) -> Any:
    """The setting that was written; of one that was in a file since, what JSON holds."""
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return value.value if isinstance(value, Written) else value


def check_can_be_saved(settings: Settings, config: dict[str, Any]) -> None:
    """Raise ValueError for a sampler, options or a grid that the config, once in a file, does not lead back to."""
    for name, value in settings.to_write.items():
        path = config[name]
        try:
            lost = _imported(path) != value or str(path).startswith("__main__:")
        except ValueError:
            lost = True
        if lost:
            raise ValueError(
                f"{name}={value!r} cannot be saved: only names, numbers, and functions that programs can import"
            )


def _check_paths(config: dict[str, Any]) -> None:
    """Raise ValueError for an import path in a config: whoever wrote it would choose what is run here."""
    for name in ("sampler", "sigma_grid"):
        path = config.get(name)
        if (_is_path(path) or is_file(path)) and not isinstance(path, Written):
            raise ValueError(
                f"the config says {name}={path!r}, and what a config names is not followed, as anyone may have written "
                f"it. If it is to be run, pass it in the call: SamplerScheduler.from_config(config, {name}={path!r}), "
                f"or from_pretrained(folder, subfolder='scheduler', {name}=...), with the path or the function itself"
            )


def class_of(config: dict[str, Any]) -> str:
    """The name of the scheduler class whose config this is.

    A config that was made by a constructor does not say, but lists the class's own settings first.
    Raises ValueError for a class whose noise schedule is not known.
    """
    name = config.get("scheduler_class") or config.get("_class_name")
    if name is None:
        keys = [key for key in config if not key.startswith("_")]
        defaults = {name: class_settings(name) for name in RUNNABLE}
        fitting = [name for name in RUNNABLE if set(defaults[name]) == set(keys[: len(defaults[name])])]
        name = max(fitting, key=lambda name: len(defaults[name]), default=None)
    if not isinstance(name, str) or name not in RUNNABLE:
        raise ValueError(
            f"the config is of {name or 'no scheduler class we know'}; SamplerScheduler knows the noise schedules of "
            f"{', '.join(RUNNABLE)}: pass scheduler_class= one of these that means the same by its settings"
        )
    return name


def class_settings(class_name: str) -> dict[str, Any]:
    """The settings of a scheduler class of diffusers, with their defaults."""
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    return {name: p.default for name, p in parameters.items() if name != "self"}


def source_of(config: dict[str, Any]) -> Any:
    """The scheduler whose settings the config of a SamplerScheduler holds, anew."""
    name = config["scheduler_class"]
    return getattr(diffusers, name)(**{key: config[key] for key in class_settings(name)})


def combined(config: Any, given: dict[str, Any], own: list[str], keep_unknown: bool) -> tuple[dict, dict]:
    """What a config and a call say: the config of a SamplerScheduler, and what else the call gives.

    config: of any scheduler in RUNNABLE, or of a SamplerScheduler. given: settings of ours, which go on in the call,
    and changes to those of the scheduler that the config came from, which go into the config. own: the names of ours.
    Raises TypeError for what is no config, and for a setting that neither has unless keep_unknown; ValueError for an
    import path in the config.
    """
    if not isinstance(config, dict):
        raise TypeError(f"from_config takes the config of a scheduler, such as pipe.scheduler.config, not {config!r}")
    name = class_of(config | {"scheduler_class": given.get("scheduler_class", config.get("scheduler_class"))})
    known = class_settings(name)
    rest = {key: value for key, value in given.items() if key not in known and key != "scheduler_class"}
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    settings |= {key: value for key, value in given.items() if key in known}
    if "sampler" in rest:
        settings.pop("sampler_options", None)  # the former sampler's
        if asked_grid(rest["sampler"]):
            settings.pop("sigma_grid", None)
    unknown = [key for key in rest if key not in own]
    if unknown and not keep_unknown:
        choices = ", ".join([*own, *known])
        raise TypeError(f"SamplerScheduler has no setting {unknown[0]!r}; its settings, of {name}: {choices}")
    _check_paths({key: value for key, value in settings.items() if key not in rest})
    return settings | {"scheduler_class": name}, rest
