"""A grid of rendered pictures as one HTML page: rows, columns, filters, full size, and two pictures compared.

grid_page("sdxl-shapes", cells)    # str: thumbnails are inside, the pictures themselves lie beside the page
"""

import base64
import io
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from k_diffusing.render.page_axes import PageAxis, axes_of, rows_and_columns, text
from k_diffusing.web.pages import render

THUMBNAIL = 256  # pixels, the longest side; smaller pictures are embedded as they are
NARROWEST = 160  # CSS pixels: narrower thumbnails are enlarged to this
EMBEDDED_AS_THEY_ARE = ("PNG", "WEBP", "JPEG", "GIF")


def grid_page(title: str, cells: list[dict]) -> str:
    """One HTML page that shows every cell's picture; nothing is fetched but the pictures' own files, at full size.

    Args:
        title: The page's.
        cells: Of each `file`, the picture's path relative to the page; `picture`, where it is now; `axes`, `settings`
            and `result`, each {name: value}; and `command`, which renders it again. An axis is offered as rows, columns
            and filter if it has several values; a cell without it has None there, and one that stands beside all values
            of the axis, as a converged reference does, has `...`.

    Returns:
        The page.

    Raises:
        ValueError: There are no cells, or a `file` is not a relative path.
        OSError: A picture cannot be read.
    """
    if not cells:
        raise ValueError("cells is empty: a page needs at least one picture")
    axes = axes_of(cells)
    rows, columns = rows_and_columns(cells, axes)
    figures, records = [], []
    for cell in cells:
        uri, size = _thumbnail(cell["picture"])
        records.append({**_record(cell, axes), "size": size})
        figures.append(_figure(cell, records[-1], uri))
    offered = [{"name": name, **found._asdict()} for name, found in axes.items()]
    data = {"axes": offered, "rows": rows, "columns": columns, "cells": records}
    return render("grid.html", {"title": title, "shared": _shared(cells, axes), "figures": figures, "data": data})


def _record(cell: dict, axes: dict[str, PageAxis]) -> dict:
    """What the script is told of a cell, all of it text.

    at: the place of its value on each axis, -1 if it stands beside all. kept: of its caption's words, how many and of
    how many.
    """
    settings = {name: text(value) for name, value in {**cell["axes"], **cell["settings"]}.items()}
    kept = _kept(cell)
    return {
        "at": [_place(cell["axes"].get(name), axis) for name, axis in axes.items()],
        "label": _label(cell, axes),
        "settings": list(settings.items()),
        "results": [_result(name, value) for name, value in cell["result"].items()],
        "command": cell["command"],
        "kept": [sum(kept.values()), len(kept)],
    }


def _place(value, axis: PageAxis) -> int:
    return -1 if value is ... else axis.values.index(text(value))


def _label(cell: dict, axes: dict[str, PageAxis]) -> str:
    """What tells it from the others, in one line."""
    places = {name: _place(cell["axes"].get(name), axis) for name, axis in axes.items()}
    words = [axes[name].labels[place] for name, place in places.items() if place >= 0]
    return ", ".join(["converged"] * (... in cell["axes"].values()) + words) or Path(cell["file"]).name


def _kept(cell: dict) -> dict[str, bool]:
    """Of each part of its caption, whether the picture kept it; of a caption that is not judged nothing."""
    found = cell["result"].get("adherence")
    return {name: kept for name, kept in found.items() if isinstance(kept, bool)} if isinstance(found, dict) else {}


def _result(name: str, value) -> tuple[str, str]:
    """A result as a reader would name it, with its unit if the name does not say it."""
    return name.replace("_", " "), text(value, digits=4) + (" MiB" if name == "peak_memory" else "")


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
    (kept, known), lost = record["kept"], [name for name, kept in _kept(cell).items() if not kept]
    counts = {"evaluations": cell["result"].get("evaluations"), "steps": cell["settings"].get("steps")}
    if counts["steps"] == counts["evaluations"]:
        counts["steps"] = None
    return {
        "address": _address(cell["file"]),
        "uri": uri,
        "size": record["size"],
        "shown": max(NARROWEST, round(record["size"][0] * min(1, THUMBNAIL / max(record["size"])))),
        "label": record["label"],
        "note": ", ".join(f"{text(count)} {name}" for name, count in counts.items() if count is not None),
        "kept": f"{kept} of {known} words" if known else "",
        "lost": ", ".join(lost),
    }


def _address(file: str) -> str:
    """A relative path as a URL that cannot name another host or a scheme."""
    if file.startswith("/") or not file:
        raise ValueError(f"file {file!r} is not relative: give the picture's path from the page's folder")
    return quote(file)


def _shared(cells: list[dict], axes: dict[str, PageAxis]) -> str:
    """How many pictures, and what they share."""
    told = {name: "" for cell in cells for name in cell["axes"] if name not in axes}
    for name, value in ((name, cell["axes"].get(name)) for cell in cells for name in told):
        if value not in (None, ...):
            told[name] = f"{name} {text(value)}"
    return " · ".join([f"{len(cells)} picture" + "s" * (len(cells) > 1), *filter(None, told.values())])
