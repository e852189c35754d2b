"""A file as the texts in it: a picture's text chunks and EXIF, or JSON, or plain text. Nothing in it is executed."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, PngImagePlugin

from k_diffusing._messages import one_line
from k_diffusing.reproduce.values import BadFile

MAX_BYTES = 2**28  # of a picture
MAX_TEXT = 2**24  # letters of a text, bytes of a text file
MAX_PIXELS = 2**27
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
COMFYUI_TEXT = re.compile(r"(prompt|workflow):\s*(?=\{)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        name: The file's name.
        texts: The picture's texts by their names, "parameters" for A1111's; empty for a text file.
        text: A text file's content; None for a picture.
        picture: The picture, decoded; None for a text file.
    """

    name: str
    texts: dict[str, str]
    text: str | None = None
    picture: Image.Image | None = None


def read_file(path: Path) -> Found:
    """The texts in a PNG, JPEG or WebP picture, or a text file as it is.

    Args:
        path: The file.

    Raises:
        BadFile: It cannot be read, or is larger than such a file is.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(12)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise BadFile(f"{path} has {size:,} bytes: a picture or workflow has at most {MAX_BYTES:,}")
    if head.startswith((b"\x89PNG", b"\xff\xd8")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return _picture(path)
    return Found(path.name, {}, text=_text(path, size))


def _text(path: Path, size: int) -> str:
    if size > MAX_TEXT:
        raise BadFile(f"{path} has {size:,} bytes and is no PNG, JPEG or WebP: a workflow has at most {MAX_TEXT:,}")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} is no PNG, JPEG or WebP picture, and no text in UTF-8: {one_line(error)}") from error
    if "\0" in content:
        raise BadFile(f"{path} is no PNG, JPEG or WebP picture, and no text")
    return content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture, decoded. Raises BadFile, also for what goes wrong inside."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadFile(f"{path} is {picture.width} x {picture.height}: at most {MAX_PIXELS:,} pixels are read")
            picture.load()
            yield picture
    except BadFile:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise BadFile(f"{path} is no PNG, JPEG or WebP, or is cut short or damaged: {one_line(error)}") from error


def read_image(path: Path) -> Image.Image:
    """A picture to begin with, upright, in RGB. Raises BadFile."""
    with _opened(path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def read_mask(path: Path, channel: str) -> Image.Image:
    """A mask, white where the picture is made anew, from a channel of a picture: alpha, which is turned, or a colour.

    Args:
        path: The picture.
        channel: "alpha", "red", "green" or "blue".

    Raises:
        BadFile: It is no picture.
    """
    with _opened(path) as picture:
        band = ImageOps.exif_transpose(picture).convert("RGBA").getchannel(channel[0].upper())
    return ImageOps.invert(band) if channel == "alpha" else band


def _picture(path: Path) -> Found:
    with _opened(path) as opened:
        texts = {**_exif_texts(opened), **_chunks(opened)}
        picture = opened.convert("RGB")
    long = [name for name, text in texts.items() if len(text) > MAX_TEXT]
    if long:
        raise BadFile(f"{path}: its text {long[0]!r} is longer than {MAX_TEXT:,} letters")
    return Found(path.name, texts, picture=picture)


def _chunks(picture: Image.Image) -> dict[str, str]:
    """A PNG's texts. Of those that are Latin-1 by the format, some programs write UTF-8."""
    if not isinstance(picture, PngImagePlugin.PngImageFile):
        return {}
    found = {}
    for name, text in picture.text.items():
        found[name] = str(text)
        if not isinstance(text, PngImagePlugin.iTXt):
            try:
                found[name] = text.encode("latin-1").decode("utf-8")
            except UnicodeError:
                continue
    return found


def _exif_texts(picture: Image.Image) -> dict[str, str]:
    """ComfyUI's "prompt:{...}" in any tag, and A1111's user comment, as "parameters"."""
    exif, found = picture.getexif(), {}
    for value in exif.values():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and (match := COMFYUI_TEXT.match(text)):
            found.setdefault(match[1].lower(), text[match.end() :].rstrip("\0"))
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    if comment:
        found["parameters"] = user_comment(comment)
    return found


def user_comment(comment: bytes | str) -> str:
    """The text of an EXIF user comment, whose first eight bytes tell its encoding.

    Programs differ in the order of UTF-16's bytes: the one that gives more ASCII is theirs.
    """
    if isinstance(comment, str):
        return comment.removeprefix("UNICODE").removeprefix("ASCII").strip("\0")
    code, content = bytes(comment[:8]), bytes(comment[8:])
    if code.startswith(b"UNICODE"):
        orders = [content.decode(order, "replace") for order in ("utf-16-be", "utf-16-le")]
        return max(orders, key=lambda text: sum(letter.isascii() for letter in text)).strip("\0")
    if code.startswith((b"ASCII", b"\0")):
        return content.decode("utf-8", "replace").strip("\0")
    return bytes(comment).decode("utf-8", "replace").strip("\0")


def read_json(content: str, name: str) -> Any:
    """A JSON text as Python's values. Raises BadFile, also for one that is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise BadFile(f"{name} is nested too deeply to be a workflow") from error
    except ValueError as error:
        raise BadFile(f"{name} is no JSON: {one_line(error)}") from error
