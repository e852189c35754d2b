"""The record of a sampler from its name, or from a user's function."""

import inspect
from collections.abc import Callable
from typing import Any

from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.comfyui import is_comfyui_function
from k_diffusing.samplers.records import ALL_SAMPLERS, Sampler

# What the caller of a sampler provides; everything else in its signature is an option of the user's.
_PROVIDED = {"model", "x", "sigmas", "sigma_min", "sigma_max", "n", "extra_args", "callback", "disable", "return_info"}


def find_sampler(sampler: str | Callable | Sampler) -> Sampler:
    """The record for a name or for a callable with k-diffusion's signature.

    A name is one here, with or without `sample_`, or one in ComfyUI, A1111 or diffusers; a sigma grid that it implies,
    as "DPM++ 2M Karras" does, is no part of the record.

    Args:
        sampler: A name, a function, or a record, which is returned as it is.

    Raises:
        ValueError: The name is unknown, or implies options, which a record has not.
        TypeError: The callable cannot be called as a sampler.
    """
    if isinstance(sampler, Sampler):
        return sampler
    if isinstance(sampler, str):
        return _sampler_by_name(sampler)
    for record in ALL_SAMPLERS.values():
        if sampler is record.function:
            return record
    return _custom_sampler(sampler)


def _sampler_by_name(name: str) -> Sampler:
    short, options, _ = asked(name)
    if options:
        raise ValueError(f"{name!r} is {short!r} with sampler_options={options}: ask for these")
    return ALL_SAMPLERS[short]


def _custom_sampler(function: Callable) -> Sampler:
    expected = "sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)"
    if not callable(function):
        raise TypeError(f"a sampler is a name or a callable {expected}, not {function!r}")
    parameters = list(parameters_of(function, expected).values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_range = [p.name for p in positional[2:4]] == ["sigma_min", "sigma_max"]
    given = {p.name for p in positional[:3]} | _PROVIDED
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {p.name for p in parameters if p.default is p.empty and p.kind not in variadic}
    if len(positional) < 3 or required - given:
        found = f"{_name(function)}({', '.join(p.name for p in parameters)})"
        raise TypeError(f"{found} cannot be called as a sampler: expected {expected}")
    return Sampler(
        _name(function),
        function,
        noise=_usual_noise(_name(function)),
        takes="sigma_range" if takes_range else "sigmas",
        custom=True,
        flow_coordinates="flow" if is_comfyui_function(function) else getattr(function, "flow_coordinates", None),
        grid_scheduler=getattr(function, "grid_scheduler", None),
        keeps_bounds=getattr(function, "keeps_bounds", False),
        uses_uncond=is_comfyui_function(function) and "cfg_pp" in _name(function),
    )


def _usual_noise(name: str) -> str:
    """The kind of noise for a function that asks for some: that of the known sampler of the same name, if any."""
    namesake = ALL_SAMPLERS.get(name.removeprefix("sample_").removesuffix("_gpu"))
    return "brownian" if namesake is not None and namesake.noise == "brownian" else "gaussian"


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def parameters_of(function: Callable, expected: str = "a function with k-diffusion's signature"):
    """The parameters of a function by name. Raises TypeError, naming what is expected, if they cannot be read."""
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError) as error:
        raise TypeError(f"the signature of {function!r} cannot be read ({error}): pass {expected}") from error


def sampler_options(sampler: Sampler) -> dict[str, Any]:
    """The options a sampler takes, with their defaults."""
    parameters = parameters_of(sampler.function).values()
    return {p.name: p.default for p in parameters if p.name not in _PROVIDED and p.default is not p.empty}
