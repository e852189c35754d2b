"""Files that appear whole or not at all."""

import io
import os
import secrets
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def write_whole(path: Path, content: bytes, prefix: str = "") -> None:
    """Write a file under a temporary name and rename it: if anything fails, an older one stays as it was.

    The name is drawn, so that processes, on several machines too, may write the same file: one of them wins.

    Args:
        path: The file.
        content: All that is to be in it.
        prefix: Begins the temporary name, after its dot. A kill leaves the temporary file; who cleans up knows by the
            prefix whose it is.

    Raises:
        OSError: The disk refuses it.
    """
    part = path.with_name(f".{prefix}{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def png(picture: Image.Image, text: dict[str, str]) -> bytes:
    """A PNG file.

    Args:
        picture: What is in it.
        text: Goes into its text chunks, in this order.

    Returns:
        The file's bytes.
    """
    info = PngInfo()
    for name, value in text.items():
        info.add_text(name, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def write_png(picture: Image.Image, path: Path, text: dict[str, str]) -> None:
    """Write a PNG file, whole or not at all; the arguments and errors are those of `png` and `write_whole`."""
    write_whole(path, png(picture, text))
