"""Pictures on disk: one file written whole or not at all, and many pictures on one labelled sheet."""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from whole_file import write_whole


def write_png(picture: Image.Image, path: Path, text: dict[str, str]) -> None:
    """Write a PNG with `text` in it: the whole file or, if anything fails, none (an older one stays)."""
    info = PngInfo()
    for name, value in text.items():
        info.add_text(name, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    write_whole(path, buffer.getvalue())


def contact_sheet(tiles: list[tuple], heading: str, caption: str, columns: int = 5) -> Image.Image:
    """All tiles (name, note, picture) in reading order, as 256 to 384 pixels, under a heading and a caption."""
    longer = max(tiles[0][2].size)
    scale = max(256 // longer, 1) if longer <= 384 else 384 / longer
    width, height = (max(round(side * scale), 1) for side in tiles[0][2].size)
    cell, margin, gap, label, head = max(width, 256), 24, 16, 34, 84
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = (2 * margin + columns * (cell + gap) - gap, head + margin + rows * (height + label + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for text, y, points, ink in ((heading, 34, 24, "black"), (caption, 62, 18, "#666666")):
        font = ImageFont.load_default(size=points)
        text = " ".join(text.split())
        while font.getlength(text) > size[0] - 2 * margin:
            text = text[:-4] + "..."
        draw.text((margin, y), text, font=font, fill=ink, anchor="ls")
    large, small = ImageFont.load_default(size=19), ImageFont.load_default(size=15)
    for i, (name, note, picture) in enumerate(tiles):
        x, y = margin + i % columns * (cell + gap), head + i // columns * (height + label + gap)
        sheet.paste(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (x, y))
        draw.text((x, y + height + 23), name, font=large, fill="black", anchor="ls")
        draw.text((x + cell, y + height + 23), note, font=small, fill="#666666", anchor="rs")
    return sheet
