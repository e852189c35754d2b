"""Values of a file that anybody may have written: checked before anything is done with them."""

import math
from typing import Any

LONGEST = 60  # letters of a value in a message
MAX_SEED = 2**64 - 1
MAX_STEPS = 10_000
MAX_SIZE = 16_384  # pixels
MAX_BATCH = 4096
MAX_NUMBER = 1e6  # of scales, strengths and sigmas


class BadFile(ValueError):  # noqa: N818 - as BadInput
    """A file that tells of no picture: which, why, and what would help, in one line."""


def brief(value: Any, longest: int = LONGEST) -> str:
    """A value in a message: as Python shows it, without its middle where it is long."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value[: longest + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number, written as one, as a float or as text. Raises BadFile.

    Args:
        value: What the file has.
        name: What it is, for the message.
        least: The smallest value.
        most: The largest value.
    """
    number = value
    if isinstance(value, str) and len(value) < 40:
        try:
            number = int(value)
        except ValueError:
            number = None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise BadFile(f"{name} is {brief(value)}, no whole number")
    if not least <= number <= most:
        raise BadFile(f"{name} is {brief(value)}: it is from {least} to {most}")
    return number


def real(value: Any, name: str, least: float = -MAX_NUMBER, most: float = MAX_NUMBER) -> float:
    """A finite number, or a text that is one. Raises BadFile. The arguments are those of `whole`."""
    number = value
    if isinstance(value, str) and len(value) < 40:
        try:
            number = float(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise BadFile(f"{name} is {brief(value)}, no number")
    if not least <= number <= most or not math.isfinite(number):
        raise BadFile(f"{name} is {brief(value)}: it is from {least:g} to {most:g}")
    return float(number)


def text(value: Any, name: str) -> str:
    """A text. Raises BadFile."""
    if not isinstance(value, str):
        raise BadFile(f"{name} is {brief(value)}, no text")
    return value


def flag(value: Any, name: str) -> bool:
    """A yes or a no, as JSON has it or as ComfyUI's menus do ("enable", "disable"). Raises BadFile."""
    known = {"enable": True, "disable": False, "true": True, "false": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    if not isinstance(value, bool):
        raise BadFile(f"{name} is {brief(value)}, neither true nor false")
    return value
