"""What `guidance=` may be: a number, one for each step, a function of sigma, or a dict of what makes them.

    asked({"cfg++": 0.6, "reference_steps": 20})
    of_text("cfg++=0.6,reference_steps=20")  # the same dict, of a command line's word

Standard library only: what cannot be is refused before anything heavy is imported.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

Weight = float | Sequence[float] | Callable[[Any], Any]
GuidanceChoice = Weight | dict[str, Any]

LARGEST = 30.0  # of CFG++'s weights: with many steps they have no bound
LARGEST_CFG_PP = 2.0
KEYS = "weight (a number, a list or a function of sigma), cfg++, reference_steps, max, rescale"
_FORMS = "a number, a list of one for each step, a function of sigma, or a dict such as {'cfg++': 0.6}"


class Asked(NamedTuple):
    """A choice of guidance, checked.

    Attributes:
        weight: A number, one for each step, or a function of sigma; None: CFG++'s, or the pipeline's own scale.
        cfg_pp: The lambda of CFG++, or None.
        reference_steps: With how many steps CFG++ is to be as strong, or None: as many as there are.
        largest: The bound of CFG++'s weights.
        rescale: The part of guidance that is scaled to the deviation of the answer to the prompt; None: not told.
    """

    weight: Weight | None = None
    cfg_pp: float | None = None
    reference_steps: int | None = None
    largest: float = LARGEST
    rescale: float | None = None

    @property
    def has_weights(self) -> bool:
        """Whether it says what the weights are."""
        return self.weight is not None or self.cfg_pp is not None


def asked(guidance: GuidanceChoice | None) -> Asked:
    """The choice, checked. Raises ValueError or TypeError for what is none, with the value and the forms there are."""
    if not isinstance(guidance, dict):
        return Asked() if guidance is None else Asked(weight=_weight(guidance))
    known = {"weight", "cfg++", "reference_steps", "max", "rescale"}
    if unknown := [key for key in guidance if key not in known]:
        raise ValueError(f"guidance= has no key {unknown[0]!r}: its keys are {KEYS}")
    if not guidance:
        raise ValueError(f"guidance={{}} says nothing: its keys are {KEYS}")
    if "weight" in guidance and "cfg++" in guidance:
        raise ValueError("guidance= has both 'weight' and 'cfg++', which makes the weights: leave one of them out")
    without = [key for key in ("reference_steps", "max") if key in guidance]
    if without and "cfg++" not in guidance:
        raise ValueError(f"guidance= has {without[0]!r}, which belongs to 'cfg++': add that, or leave it out")
    return Asked(
        _weight(guidance["weight"]) if "weight" in guidance else None,
        _within("cfg++", guidance["cfg++"], 0, LARGEST_CFG_PP, "a part, mostly 0.2 to 1")
        if "cfg++" in guidance
        else None,
        _steps(guidance["reference_steps"]) if "reference_steps" in guidance else None,
        _within("max", guidance.get("max", LARGEST), 1, math.inf, "a weight"),
        _within("rescale", guidance["rescale"], 0, 1, "a part") if "rescale" in guidance else None,
    )


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _weight(weight: Any) -> Weight:
    """A float, a tuple of floats, or the function."""
    if callable(weight):
        return weight
    array = hasattr(weight, "tolist")  # or a tensor
    values: Any = weight.tolist() if array else weight
    if is_number(values):
        return float(values)
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"guidance={weight!r} is no guidance: give {_FORMS}")
    for value in values:
        if not is_number(value):
            raise TypeError(f"guidance= has {value!r} among its weights, and a weight is a finite number")
    if not values:
        raise ValueError(f"guidance={weight!r} holds no weight: give {_FORMS}")
    return tuple(map(float, values))


def _within(key: str, value: Any, low: float, high: float, what: str) -> float:
    if not is_number(value):
        raise TypeError(f"guidance={{{key!r}: {value!r}}}: give a finite number")
    if not low <= value <= high:
        bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high:g}"
        raise ValueError(f"guidance={{{key!r}: {value!r}}} is out of range: it is {what}, {bounds}")
    return float(value)


def _steps(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"guidance={{'reference_steps': {value!r}}}: give a number of steps, 20 say")
    return int(value)


def of_text(text: str) -> GuidanceChoice:
    """The choice that a word names: "5", "7,7,5,1" (one for each step), "cfg++=0.6,reference_steps=20,rescale=0.7".

    Raises ValueError or TypeError for a word that names none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        numbers = [_number(part, text) for part in parts]
        choice: GuidanceChoice = numbers[0] if len(numbers) == 1 else numbers
    else:
        pairs = [part.partition("=") for part in parts]
        choice = {key.strip(): _number(value, text) for key, _, value in pairs}
        if len(choice) < len(pairs):
            raise ValueError(f"{text!r} names something twice")
    asked(choice)
    return choice


def _number(word: str, text: str) -> float:
    try:
        return int(word) if word.strip().isdecimal() else float(word)
    except ValueError:
        raise ValueError(
            f"{text!r} is no guidance: give a number, one for each step (7,7,5,1), or cfg++=0.6, rescale=0.7, "
            "weight=5,rescale=0.7 or cfg++=0.6,reference_steps=20"
        ) from None
