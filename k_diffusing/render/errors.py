"""What ends a run with one line: bad input, and a disk that refuses a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class BadInput(Exception):  # noqa: N818 - the user's error, told in one line
    """What the command line asks for cannot be: the value, the reason and the choices."""


class FolderError(Exception):
    """The disk refused a file."""


@contextlib.contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Turn an OSError into the one line that tells of it."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be written ({error.strerror or error}): everything so far is intact, "
            "and the same command goes on from here"
        ) from error
