"""What a render script puts in."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple


class Script(NamedTuple):
    """A render script.

    Attributes:
        family: Begins its files' names.
        program: The words that begin its command.
        network: The part of the pipeline whose calls are counted.
        multiple: Divides a picture's sides, in pixels.
        pipeline_class: Returns the pipeline's class; imported no sooner.
        encode: encode(pipe, args, prompt, guided) returns the prompt's embeddings by the pipeline's keywords; if
            guided, with those of the negative prompt, in keywords that begin with "negative".
        guidance: The field of a cell whose values above 1 take a negative prompt.
        keywords: Further options that the pipeline takes as they are.
    """

    family: str
    program: str
    network: str
    multiple: int
    pipeline_class: Callable[[], type]
    encode: Callable[[Any, argparse.Namespace, str, bool], dict[str, Any]]
    guidance: str
    keywords: tuple[str, ...] = ()
