"""A comparison of two samplers as one HTML page.

page(comparison)    # str: no file beside it, and no request leaves it
"""

import base64
import io
import math
from typing import Any

from PIL import Image, ImageChops, ImageStat

from k_diffusing.compare.figure import figure_png
from k_diffusing.web.pages import render

SHOWN = 384  # CSS pixels: smaller pictures are enlarged to this
STRIP_HEIGHT = 256  # pixels: film strips that are higher are made smaller


def page(comparison, strips: tuple[Image.Image, Image.Image] | None = None) -> str:
    """Make one HTML page, whole in itself.

    Args:
        comparison: a Comparison.
        strips: the film strips of a and b, as `Trace.strip(pipe)` makes them.

    Returns:
        The page's text.
    """
    found, size = comparison.difference, comparison.pictures[0].size
    values = {
        "title": f"{' and '.join(comparison.labels)} {comparison.verdict}",
        "labels": comparison.labels,
        "notes": comparison.notes,
        "verdict": _verdict(found),
        "runs": [_run(trace) for trace in comparison.traces],
        "call": comparison.call,
        "size": size,
        "shown": round(size[0] * max(1, SHOWN / max(size))),
        "pictures": _pictures(comparison),
        "apart": _apart(comparison.pictures),
        "figures": _figures(comparison),
        "unit": found.unit,
        "rows": _rows(found),
        "later": [_later(one) for one in found.later_calls],
        "findings": found.findings,
        "strips": [_data(_png(_lower(strip))) for strip in strips or ()],
    }
    return render("compare.html", values)


def _verdict(found) -> dict[str, Any]:
    largest = f"{found.largest:.1e} at most, " if math.isfinite(found.largest) else ""
    return {
        "agree": found.first is None,
        "said": f"part at {found.unit} {found.first.step}" if found.first else found.verdict,
        "first": found.first,
        "sizes": f"{largest}{found.result:.1e} in the result; tolerance {found.tolerance:g}",
    }


def _run(trace) -> str:
    """A run's size; a run told call by call does not say its steps."""
    steps = f"{trace.step_count} steps, " if trace.steps_from else ""
    return f"{steps}{len(trace.calls)} network calls"


def _pictures(comparison) -> list[dict[str, str]]:
    pairs = zip(comparison.labels, comparison.pictures, strict=True)
    return [{"label": label, "uri": _data(_png(picture))} for label, picture in pairs]


def _figures(comparison) -> list[str]:
    """The light and the dark one; none without matplotlib."""
    try:
        return [_data(figure_png(comparison, dark)) for dark in (False, True)]
    except ImportError:
        return []


def _rows(found) -> list[dict[str, Any]]:
    """A row for each step (or network call) and one for the end.

    parting: the quantity, in the row in which the runs part; in the last row if only one run has what parts.
    """
    rows = []
    for row in found.rows:
        numbers = [f"{sigma:.4f}" for sigma in row.sigma] + [f"{timestep:.2f}" for timestep in row.timestep]
        cells = [row.step, *numbers, f"{row.x:.1e}", f"{row.denoised:.1e}"]
        rows.append({"cells": cells, "differs": row.parted or "", "parting": _parting(found, row.step)})
    end = ["end", "", "", "", "", f"{found.result:.1e}", ""]
    return [*rows, {"cells": end, "differs": "", "parting": _parting(found, len(rows))}]


def _later(call) -> list[str]:
    """The cells of a row; a dash for what a run does not have."""

    def told(value: float | None, form: str) -> str:
        return "–" if value is None else f"{value:{form}}"

    numbers = [told(sigma, ".4f") for sigma in call.sigma] + [told(timestep, ".2f") for timestep in call.timestep]
    return [str(call.step), str(call.stage), *numbers, told(call.x, ".1e"), told(call.denoised, ".1e")]


def _apart(pictures: tuple[Image.Image, Image.Image]) -> str:
    """How far two pictures are from each other."""
    if pictures[0].size != pictures[1].size:
        return ""
    bands = ImageStat.Stat(ImageChops.difference(*(picture.convert("RGB") for picture in pictures)))
    most, mean = max(high for _, high in bands.extrema), sum(bands.mean) / len(bands.mean)
    if not most:
        return "The pictures are the same."
    return f"The pictures differ by {mean:.2g} of 255 levels on average, by {most:.0f} at most."


def _parting(found, step: int) -> str:
    return found.first.quantity if found.first and found.first.step == step else ""


def _lower(strip: Image.Image) -> Image.Image:
    """A film strip at most STRIP_HEIGHT high."""
    low = strip.copy()
    low.thumbnail((strip.width, STRIP_HEIGHT))
    return low


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _data(png: bytes) -> str:
    """A data URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
