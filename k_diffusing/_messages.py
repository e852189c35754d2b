"""What a user is told when a value cannot be."""

import argparse
import difflib
from collections.abc import Iterable

LONGEST = 200  # letters of an error that is told in one line
# How a sampler is named in a text:
SAMPLER_FORMS = "[k:]NAME, [diffusers:]CLASS, comfy:NAME or path/to/file.py:FUNCTION, each with ,option=value after it"


def nearest(value: object, choices: Iterable[str], most: int = 1) -> list[str]:
    """Those of the choices that are most like a value, the nearest first.

    Args:
        value: What was given. Anything that is not a text is compared as it is printed.
        choices: What could have been given.
        most: How many to return at most.

    Returns:
        The nearest choices, however far they are. Empty if there are no choices.
    """
    return difflib.get_close_matches(str(value), list(choices), n=most, cutoff=0.0)


def unknown(kind: str, value: object, choices: Iterable[str]) -> str:
    """The beginning of a message about a name that is none of the choices.

    Args:
        kind: What the value was given for, such as "noise" or "sampler".
        value: What was given.
        choices: What could have been given.

    Returns:
        "unknown KIND VALUE: did you mean NEAREST?", without the question if there are no choices. A caller goes on
        with the choices in its own words.
    """
    close = nearest(value, choices := list(choices))
    return f"unknown {kind} {value!r}" + (f": did you mean {close[0]!r}?" if close else "")


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """The options of a command line, as `parse_args` reads them; of a misspelt one its message names the nearest.

    Args:
        parser: Of the command.
        argv: Its words. Those of this process if left out.

    Returns:
        The options.

    Raises:
        SystemExit: A word cannot be; argparse has said so.
    """
    args, strange = parser.parse_known_args(argv)
    misspelt = [word.partition("=")[0] for word in strange if word.startswith("--")]
    if misspelt:  # argparse has no public list of its options
        parser.error(unknown("option", misspelt[0], parser._option_string_actions))
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    return args


def one_line(error: BaseException) -> str:
    """An error as one line.

    Args:
        error: Any exception.

    Returns:
        Its type and the first line of its message, LONGEST letters at most.
    """
    line = f"{type(error).__name__}: {error}".split("\n")[0]
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
