"""The pictures that come with the project, in `output`, and how far a render is from one of them.

Machines and versions of torch differ in the last bits, and versions of Pillow pack the same pixels differently. A
render within LEVELS of a published picture is that picture: its file stays as it is. A list in the folder tells
published files from a user's own.

    python -m k_diffusing.render.published    writes the list, of all pictures in output
"""

import hashlib
from pathlib import Path
from typing import Any, cast

from PIL import Image, ImageChops

from k_diffusing._files import write_whole

OUTPUT = Path("output")  # the scripts' default folder, and the only one with published pictures
LIST = "published.sha256"  # as sha256sum writes and checks it
LEVELS = 3  # of 255: what versions of torch, on several machines, were seen to differ by


def is_published(path: Path) -> bool:
    """Whether the file is, to the byte, one that the project publishes. Raises OSError."""
    if path.parent != OUTPUT or not (path.exists() and (OUTPUT / LIST).exists()):
        return False
    return entry(path) in (OUTPUT / LIST).read_text(encoding="utf-8").splitlines()


def entry(path: Path) -> str:
    """The line of a file in the list."""
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"


def levels_apart(path: Path, picture: Image.Image, settings: dict[str, str]) -> int | None:
    """How far a render is from the published picture of the same settings.

    Args:
        path: The file that would be written.
        picture: The render.
        settings: What its text would say, without what differs between machines.

    Returns:
        The largest difference in levels of 255; None if the file is not published, or of other settings or size.

    Raises:
        OSError: A file cannot be read.
    """
    if not is_published(path):
        return None
    with Image.open(path) as published:
        if published.size != picture.size or not settings.items() <= getattr(published, "text", {}).items():
            return None
        difference = ImageChops.difference(published.convert("RGB"), picture.convert("RGB"))
    bands = cast(tuple[tuple[int, int], ...], difference.getextrema())  # of three bands
    return max(high for _, high in bands)


def as_published(line: dict[str, Any]) -> bool:
    """Whether a line of the results tells of a published picture, rendered again."""
    levels = line.get("levels_from_published")
    return isinstance(levels, int) and levels <= LEVELS


def write_list(folder: Path = OUTPUT) -> None:
    """List the pictures of a folder as published. Raises OSError."""
    lines = [f"{entry(path)}\n" for path in sorted(folder.glob("*.png"))]
    write_whole(folder / LIST, "".join(lines).encode())


if __name__ == "__main__":
    write_list()
