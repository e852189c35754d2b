"""Many pictures on one labelled sheet."""

import bisect
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, HEAD = 24, 16, 84  # pixels; HEAD is the height of heading and caption
GREY = "#666666"


def contact_sheet(tiles: list[tuple], heading: str, caption: str, columns: int = 5) -> Image.Image:
    """All pictures in reading order, each 256 to 384 pixels long, with its name and a note.

    Args:
        tiles: (name, note, picture) of each; a picture is an image or the path of one. One file at a time is open.
        heading: The first line at the top.
        caption: The second line.
        columns: The most pictures in a row.

    Returns:
        The sheet.
    """
    with opened(tiles[0][2]) as first:
        width, height = shown_size(first.size, 256, 384)
    large, small = ImageFont.load_default(size=19), ImageFont.load_default(size=15)
    cell = max(width, 256)
    names = [wrapped(name, large, cell - small.getlength(note) - 6, 3) for name, note, _ in tiles]
    label = 10 + 24 * max(map(len, names))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (2 * MARGIN + columns * (cell + GAP) - GAP, HEAD + MARGIN + rows * (height + label + GAP) - GAP)
    sheet, draw = blank(size, heading, caption)
    for i, (_, note, picture) in enumerate(tiles):
        x, y = MARGIN + i % columns * (cell + GAP), HEAD + i // columns * (height + label + GAP)
        paste(sheet, picture, (x, y), (width, height))
        for k, line in enumerate(names[i]):
            draw.text((x, y + height + 23 + 24 * k), line, font=large, fill="black", anchor="ls")
        draw.text((x + cell, y + height + 23), note, font=small, fill=GREY, anchor="rs")
    return sheet


def table_sheet(rows: list[str], columns: list[str], tile: Callable, heading: str, caption: str) -> Image.Image:
    """A labelled table of pictures.

    Tiles are 128 pixels wide in 40 columns, 256 (384 for large pictures) in few. Labels are wrapped to the room there
    is and then shortened.

    Args:
        rows: The rows' labels.
        columns: The columns' labels.
        tile: tile(i, j) returns (picture, note) of row i and column j, or None for a dash. A picture is an image or the
            path of one. One file at a time is open.
        heading: The first line at the top.
        caption: The second line.

    Returns:
        The sheet.
    """
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    with opened(next(found for place in places if (found := tile(*place)) is not None)[0]) as first:
        longest = max(128, min(384 if max(first.size) > 384 else 256, 4096 // len(columns)))
        width, height = shown_size(first.size, min(longest, 256), longest)
    gap, note_height, cell = 8, 26, max(width, 128)
    large, small = ImageFont.load_default(size=22), ImageFont.load_default(size=17)
    names = [wrapped(name, large, 240, max(1, height // 28)) for name in rows]
    titles = [wrapped(title, large, cell, 3) for title in columns]
    left = MARGIN + 12 + int(max(large.getlength(line) for name in names for line in name))
    top = HEAD + 28 * max(map(len, titles)) + 4
    table = (left + len(columns) * (cell + gap) - gap + MARGIN, top + len(rows) * (height + note_height + gap) + MARGIN)
    sheet, draw = blank((max(table[0], 800), table[1]), heading, caption)
    for j, title in enumerate(titles):
        write_lines(draw, title, (left + j * (cell + gap) + cell // 2, top - 28 * len(title) + 11), large, "mm")
    for i, name in enumerate(names):
        y = top + i * (height + note_height + gap)
        write_lines(draw, name, (left - 12, y + height // 2 - 14 * (len(name) - 1)), large, "rm")
        for j in range(len(columns)):
            x, found = left + j * (cell + gap), tile(i, j)
            if found is None:
                draw.rectangle((x, y, x + cell - 1, y + height - 1), outline="#dddddd")
                draw.text((x + cell // 2, y + height // 2), "-", font=large, fill=GREY, anchor="mm")
                continue
            paste(sheet, found[0], (x + (cell - width) // 2, y), (width, height))
            draw.text((x + cell // 2, y + height + 19), found[1], font=small, fill=GREY, anchor="ms")
    return sheet


@contextlib.contextmanager
def opened(picture: Image.Image | Path) -> Iterator[Image.Image]:
    """The image itself, or that of a file, which is closed afterwards."""
    if isinstance(picture, Image.Image):
        yield picture
        return
    with Image.open(picture) as image:
        yield image


def shown_size(size: tuple[int, int], small: int, large: int) -> tuple[int, int]:
    """Width and height at which a picture is shown: up to `small` in whole multiples, down to `large` at most."""
    longer = max(size)
    scale = max(small // longer, 1) if longer <= large else large / longer
    width, height = (max(round(side * scale), 1) for side in size)
    return width, height


def paste(sheet: Image.Image, picture: Image.Image | Path, place: tuple[int, int], size: tuple[int, int]) -> None:
    """Show a picture at a place of the sheet, at a size in pixels."""
    with opened(picture) as image:
        sheet.paste(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), place)


def blank(size: tuple[int, int], heading: str, caption: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A white sheet with both lines at its top, each shortened to its width."""
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for text, y, points, ink in ((heading, 34, 24, "black"), (caption, 62, 18, GREY)):
        font = ImageFont.load_default(size=points)
        text = shortened(" ".join(text.split()), font, size[0] - 2 * MARGIN)
        draw.text((MARGIN, y), text, font=font, fill=ink, anchor="ls")
    return sheet, draw


def shortened(text: str, font, width: float) -> str:
    """The text, or as much of it as fits with "..." after it."""
    if font.getlength(text) <= width:
        return text
    cuts = range(len(text) - 3)  # by halves, for a prompt may have thousands of letters
    kept = bisect.bisect_right(cuts, width, key=lambda kept: font.getlength(text[:kept] + "...")) - 1
    return text[: max(kept, 0)] + "..."


def wrapped(text: str, font, width: float, most: int) -> list[str]:
    """The text in at most so many lines of that width; the last is shortened.

    It is broken after spaces, underscores and punctuation, and before a capital within a word.
    """
    lines = [""]
    for word in re.findall(r".+?(?:[\s_:,/]+|(?<=[a-z])(?=[A-Z])|$)", text, flags=re.DOTALL):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    if len(lines) > most:
        lines[most - 1 :] = ["".join(lines[most - 1 :])]
    return [shortened(line.rstrip(), font, width) for line in lines]


def write_lines(draw: ImageDraw.ImageDraw, lines: list[str], place: tuple[int, int], font, anchor: str) -> None:
    """Lines of 28 pixels, the first at `place`."""
    for k, line in enumerate(lines):
        draw.text((place[0], place[1] + 28 * k), line, font=font, fill="black", anchor=anchor)
