"""Words that are read from a command line, and values as they are shown in a few words."""

import argparse
import math
from typing import Any

from k_diffusing.model.guidance_asked import of_text
from k_diffusing.names.grids import find_grid


def finite(word: str) -> float:
    """A number of the command line. Raises ArgumentTypeError."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{word!r} is not a finite number: give one, such as 1 or 0.5")
    return value


def grid_word(word: str) -> str:
    """A sigma grid of the command line under its name here, with its options; a word that names none, as it is."""
    name, *options = (part.strip() for part in word.split(","))
    found = find_grid(name)
    return ",".join([found.name, *options]) if found else word


def guidance_word(word: str) -> str:
    """Guidance of the command line, as it is; a number is told as the weight it is. Raises ArgumentTypeError."""
    try:
        choice = of_text(word)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return f"weight={word.strip()}" if isinstance(choice, (int, float)) else "".join(word.split())


def text(word: str) -> str:
    """A prompt of the command line, which is UTF-8 whatever the locale says. Raises ArgumentTypeError."""
    try:
        return word.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise argparse.ArgumentTypeError(f"{word!r} is not UTF-8: write it so, or use --prompt-file") from error


def utf8(name: str) -> str:
    """A file's name, or a word of the command line, as UTF-8, in whatever encoding Python took it for."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def number(value: float) -> str:
    """All digits that tell it from another: 5 for 5.0, 0.1 for 0.1."""
    return repr(value).removesuffix(".0")


def shown(value: Any, longest: int = 60) -> str:
    """A setting or a list of them in one short line."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = "none" if value is None else " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
