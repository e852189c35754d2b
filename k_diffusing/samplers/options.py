"""What a sampler's options mean, and whether they can be."""

from typing import Any

from k_diffusing.model.coordinates import FLOW_COORDINATES
from k_diffusing.samplers.find import parameters_of, sampler_options
from k_diffusing.samplers.ranges import check_value
from k_diffusing.samplers.records import Sampler


def check_options(sampler: Sampler, options: dict[str, Any] | None) -> None:
    """Check what is given to a sampler. Of a user's function only the names are known.

    Raises:
        TypeError: An option that the sampler does not have, with those it has; a value of the wrong kind.
        ValueError: A value out of range.
    """
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"sampler_options is a dict such as {{'eta': 0.5}}, not {options!r}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters_of(sampler.function).values()):
        return
    known = sampler_options(sampler)
    for name, value in (options or {}).items():
        if name not in known:
            choices = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
            raise TypeError(f"{sampler.name} has no option {name!r}; its options: {choices}")
        if not sampler.custom:
            check_value(sampler.name, name, value)


def adds_noise(sampler: Sampler, options: dict[str, Any] | None) -> bool:
    """Whether the sampler, with these options, adds noise as it goes; of a custom one it is taken for granted."""
    if sampler.custom:
        return True
    values = sampler_options(sampler) | (options or {})
    amounts = [values[name] for name in ("eta", "s_churn") if name in values]
    return any(amounts) if amounts else sampler.stochastic


def choose_coordinates(flow_coordinates: str, sampler: Sampler, options: dict | None) -> str:
    """The coordinates that "auto" means for a sampler; ValueError for a choice that there is not."""
    if flow_coordinates not in ("auto", *FLOW_COORDINATES):
        choices = ", ".join(("auto", *FLOW_COORDINATES))
        raise ValueError(f"unknown flow_coordinates {flow_coordinates!r}: choose one of {choices}")
    if flow_coordinates == "flow" and (options or {}).get("s_churn"):
        raise ValueError("s_churn adds noise for x0 + sigma * eps, which flow coordinates are not: use 'auto' or 've'")
    if flow_coordinates == "ve" and getattr(sampler.function, "flow_coordinates", None) == "flow":
        raise ValueError(
            f"{sampler.name} integrates flow matching, where sigma is a time between 0 and 1; flow_coordinates='ve' "
            "would give it x0 + sigma * eps: choose flow_coordinates='auto' or 'flow'"
        )
    if flow_coordinates == "auto" and sampler.flow_coordinates is not None:
        return sampler.flow_coordinates
    if flow_coordinates == "auto":
        noiseless = not adds_noise(sampler, options)
        return "flow" if sampler.derivative_only and noiseless else "ve"
    return flow_coordinates
