"""A sampler as a word of the command line names it: where it comes from, its name there, its settings."""

import ast
from typing import Any, NamedTuple


class SamplerText(NamedTuple):
    """The parts of a text such as "k:dpmpp_2m_sde,eta=0.5".

    Attributes:
        kind: "k", "diffusers", "comfy", a file's path, or what else stands before the colon.
        name: The sampler's.
        settings: Each as option=value.
    """

    kind: str
    name: str
    settings: list[str]


def sampler_text(text: str) -> SamplerText:
    """The parts of a text. A name alone is one of ours, or of diffusers if it ends in Scheduler."""
    source, *settings = (part.strip() for part in text.split(","))
    kind, colon, name = source.rpartition(":")
    if not colon and not source.endswith(".py"):
        kind = "diffusers" if source.endswith("Scheduler") else "k"
    return SamplerText(kind, name, settings)


def literal(text: str) -> Any:
    """The value of a text that is a literal of Python, such as a number; of any other, the text. Nothing is run."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
