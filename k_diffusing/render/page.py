"""A grid of rendered pictures as one HTML page: rows, columns, filters, full size, and two pictures compared.

grid_page("sdxl-shapes", cells)    # str: thumbnails are inside, the pictures themselves lie beside the page
"""

import base64
import io
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from k_diffusing.web.pages import render

THUMBNAIL = 256  # pixels, the longest side; smaller pictures are embedded as they are
NARROWEST = 160  # CSS pixels: narrower thumbnails are enlarged to this
LABEL = 60  # letters of a value that label a picture; the whole value is among its settings
EMBEDDED_AS_THEY_ARE = ("PNG", "WEBP", "JPEG", "GIF")


def grid_page(title: str, cells: list[dict]) -> str:
    """One HTML page that shows every cell's picture; nothing is fetched but the pictures' own files, at full size.

    Args:
        title: The page's.
        cells: Of each `file`, the picture's path relative to the page; `picture`, where it is now; `axes`, `settings`
            and `result`, each {name: value}; and `command`, which renders it again. An axis is offered as rows, columns
            and filter if it has several values; a cell without it has None there.

    Returns:
        The page.

    Raises:
        ValueError: There are no cells, or a `file` is not a relative path.
        OSError: A picture cannot be read.
    """
    if not cells:
        raise ValueError("cells is empty: a page needs at least one picture")
    axes = _axes(cells)
    rows, columns = _rows_and_columns(cells, axes)
    figures, records = [], []
    for cell in cells:
        uri, size = _thumbnail(cell["picture"])
        records.append({**_record(cell, axes), "size": size})
        figures.append(_figure(cell, records[-1], uri))
    offered = [{"name": name, "values": list(found), "labels": list(found.values())} for name, found in axes.items()]
    data = {"axes": offered, "rows": rows, "columns": columns, "cells": records}
    return render("grid.html", {"title": title, "shared": _shared(cells, axes), "figures": figures, "data": data})


def _axes(cells: list[dict]) -> dict[str, dict[str, str]]:
    """The axes with several values, {name: {value: its label}}: numbers by size, others as they come."""
    axes = {}
    for name in dict.fromkeys(name for cell in cells for name in cell["axes"]):
        values = list(dict.fromkeys(cell["axes"].get(name) for cell in cells))
        if all(isinstance(value, int | float | None) for value in values):
            values.sort(key=lambda value: (value is not None, value or 0))
        labels = {_text(value): _label(name, value) for value in values}
        if len(labels) > 1:
            axes[name] = labels
    return axes


def _label(name: str, value) -> str:
    """A value under a picture: a number needs the axis's name, a word says itself what it is."""
    text = _text(value) if isinstance(value, str) else f"{name} {_text(value)}"
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _rows_and_columns(cells: list[dict], axes: dict) -> tuple[str | None, str | None]:
    """Samplers against the first axis of which a sampler has several values; if there is none, a plain gallery."""
    rows = "sampler" if "sampler" in axes else next(iter(axes), None)
    for name in axes:
        pairs = {(cell["axes"].get(rows), cell["axes"].get(name)) for cell in cells}
        if len(pairs) > len(axes[rows]):
            return rows, name
    return None, None


def _text(value, digits: int = 10) -> str:
    """A value as a reader would write it."""
    match value:
        case None:
            return "(none)"
        case "":
            return "(empty)"
        case bool():
            return "yes" if value else "no"
        case float() if 10**digits <= abs(value) < 10**15:
            return str(round(value))
        case float():
            return f"{value:.{digits}g}"
        case dict():
            return ", ".join(f"{name}: {_text(inner, digits)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(_text(inner, digits) for inner in value)
    return str(value)


def _record(cell: dict, axes: dict) -> dict:
    """What the script is told of a cell, all of it text; at: the place of its value on each axis."""
    texts = {name: _text(cell["axes"].get(name)) for name in axes}
    settings = {name: _text(value) for name, value in {**cell["axes"], **cell["settings"]}.items()}
    return {
        "at": [list(axes[name]).index(text) for name, text in texts.items()],
        "label": ", ".join(axes[name][text] for name, text in texts.items()) or Path(cell["file"]).name,
        "settings": list(settings.items()),
        "results": [_result(name, value) for name, value in cell["result"].items()],
        "command": cell["command"],
    }


def _result(name: str, value) -> tuple[str, str]:
    """A result as a reader would name it, with its unit if the name does not say it."""
    return name.replace("_", " "), _text(value, digits=4) + (" MiB" if name == "peak_memory" else "")


def _thumbnail(path: Path) -> tuple[str, tuple[int, int]]:
    """A data URI and the picture's own size. A small picture of a kind that browsers know is embedded as it is."""
    with Image.open(path) as picture:
        size, kind, small = picture.size, picture.format, max(picture.size) <= THUMBNAIL
        if small and kind in EMBEDDED_AS_THEY_ARE:
            return _data_uri(path.read_bytes(), kind), size
        shown = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    shown.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    shown.save(buffer, format="WEBP", quality=82, method=2)
    return _data_uri(buffer.getvalue(), "WEBP"), size


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def _figure(cell: dict, record: dict, uri: str) -> dict:
    """What stands on the page before a script has run: a picture, a link to its file, and its caption."""
    evaluations = cell["result"].get("evaluations")
    return {
        "address": _address(cell["file"]),
        "uri": uri,
        "size": record["size"],
        "shown": max(NARROWEST, round(record["size"][0] * min(1, THUMBNAIL / max(record["size"])))),
        "label": record["label"],
        "note": "" if evaluations is None else f"{_text(evaluations)} evaluations",
    }


def _address(file: str) -> str:
    """A relative path as a URL that cannot name another host or a scheme."""
    if file.startswith("/") or not file:
        raise ValueError(f"file {file!r} is not relative: give the picture's path from the page's folder")
    return quote(file)


def _shared(cells: list[dict], axes: dict) -> str:
    """How many pictures, and what they share."""
    first = cells[0]["axes"].items()
    shared = [f"{name} {_text(value)}" for name, value in first if name not in axes and value is not None]
    count = f"{len(cells)} picture" + "s" * (len(cells) > 1)
    return " · ".join([count, *shared])
