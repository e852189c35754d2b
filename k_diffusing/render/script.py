"""What a render script puts in."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple


class Script(NamedTuple):
    """A render script.

    family: begins its files' names. program: the words that begin its command. network: the part of the pipeline whose
    calls are counted, calls_per_pair of them for an evaluation with true CFG. multiple: divides a picture's sides.
    encode(pipe, args, prompt, guided): the prompt's embeddings by the pipeline's keywords; with those of the negative
    prompt, in keywords that begin with "negative", if guided. guidance: the fields of a cell that guide; a value above
    1 takes a negative prompt. keywords: further options that the pipeline takes as they are.
    """

    family: str
    program: str
    network: str
    calls_per_pair: int
    multiple: int
    pipeline_class: Callable[[], type]
    encode: Callable[[Any, argparse.Namespace, str, bool], dict[str, Any]]
    guidance: str
    keywords: tuple[str, ...] = ()
