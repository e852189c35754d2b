"""The look of our figures, and how pictures are saved in docs/images."""

import hashlib
import io
import json
from pathlib import Path

from benchmarks.data import ROOT
from benchmarks.record import Benchmark, Data
from k_diffusing._files import write_whole

IMAGES = ROOT / "docs" / "images"
DRAWN_FROM = "data"  # the text in a picture that has the digest of its data
WIDTH = 9.0  # inches of a figure, 900 pixels in a page
BLUE, RED, GREY = "#0072b2", "#d55e00", "#777777"
LOOKS = {  # colour, marker
    "euler": ("#000000", "o"),
    "heun": ("#e69f00", "s"),
    "dpm_2": ("#56b4e9", "D"),
    "lms": ("#009e73", "^"),
    "dpm_fast": ("#cc79a7", "v"),
    "dpm_adaptive": ("#8c564b", "P"),
    "dpmpp_2m": (BLUE, "X"),
    "euler_ancestral": (GREY, "o"),
    "dpm_2_ancestral": ("#1f9fdc", "D"),
    "dpmpp_2s_ancestral": (RED, "s"),
    "dpmpp_sde": ("#2ca02c", "^"),
    "dpmpp_2m_sde": ("#3344bb", "X"),
    "dpmpp_3m_sde": ("#aa3377", "P"),
}


def pyplot():
    """matplotlib.pyplot that draws into files, in the look of our figures."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.rc("font", size=9)
    pyplot.rc("axes", titlesize=10, grid=True)
    pyplot.rc("axes.spines", top=False, right=False)
    pyplot.rc("grid", color="#e4e4e4", linewidth=0.6)
    return pyplot


def draw(benchmark: Benchmark, data: Data) -> list[Path]:
    """The benchmark's figures, drawn from its data."""
    paths = []
    for name, figure in benchmark.pictures.items():
        paths.append(IMAGES / name)
        save(figure(data), paths[-1], digest(data))
    return paths


def save(figure, path: Path, drawn_from: str) -> None:
    """A PNG of 64 colours, half as fine again as it is shown; drawn_from: the digest of its data."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn, content, text = io.BytesIO(), io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png", dpi=150)
    pyplot().close(figure)
    text.add_text(DRAWN_FROM, drawn_from)
    Image.open(drawn).convert("RGB").quantize(64).save(content, format="png", optimize=True, pnginfo=text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())


def digest(data: Data) -> str:
    """12 hexadecimal digits of the sha256 of the rows."""
    return hashlib.sha256(json.dumps(data["rows"]).encode()).hexdigest()[:12]


def drawn_from(path: Path) -> str | None:
    """The digest of the data that a picture was drawn from."""
    from PIL import Image

    with Image.open(path) as picture:
        return getattr(picture, "text", {}).get(DRAWN_FROM)


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places near those wanted, in the same order, at least `gap` apart and, if they fit, between low and high."""
    groups: list[list[int]] = []  # of neighbours that touch, centred on the mean of what they wanted
    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        groups.append([i])
        while len(groups) > 1 and _bottom(groups[-1], wanted, gap, low, high) < (
            _bottom(groups[-2], wanted, gap, low, high) + gap * len(groups[-2])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [0.0] * len(wanted)
    for group in groups:
        for k, i in enumerate(group):
            placed[i] = _bottom(group, wanted, gap, low, high) + gap * k
    return placed


def _bottom(group: list[int], wanted: list[float], gap: float, low: float, high: float) -> float:
    height = gap * (len(group) - 1)
    centred = sum(wanted[i] for i in group) / len(group) - height / 2
    return max(low, min(centred, high - height))
