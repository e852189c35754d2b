"""What the scripts of docs/convergence.md and docs/adherence.md share: demo models, data files, looks, tables."""

import argparse
import io
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing._files import write_whole  # noqa: E402
from k_diffusing._versions import PROGRAMS, package_versions  # noqa: E402

WIDTH = 9.0  # inches of a figure, 900 pixels in a README
LOOKS = {  # colour, marker
    "euler": ("#000000", "o"),
    "heun": ("#e69f00", "s"),
    "dpm_2": ("#56b4e9", "D"),
    "lms": ("#009e73", "^"),
    "dpm_fast": ("#cc79a7", "v"),
    "dpm_adaptive": ("#8c564b", "P"),
    "dpmpp_2m": ("#0072b2", "X"),
    "euler_ancestral": ("#777777", "o"),
    "dpm_2_ancestral": ("#1f9fdc", "D"),
    "dpmpp_2s_ancestral": ("#d55e00", "s"),
    "dpmpp_sde": ("#2ca02c", "^"),
    "dpmpp_2m_sde": ("#3344bb", "X"),
    "dpmpp_3m_sde": ("#aa3377", "P"),
}


def demo_pipeline(demo: str):
    """Ours, with the demo model "demo" (SDXL) or "demo-flux"; one thread."""
    import diffusers.utils.logging
    import torch

    from k_diffusing.models import hide_loading_bars, load

    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()  # its hint at dpmpp_3m_sde's grid
    hide_loading_bars()
    return load(demo)


def machine() -> str:
    """Processor, cores and versions, in words."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    versions = ", ".join(f"{name} {version}" for name, version in package_versions(*PROGRAMS).items())
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, one thread used; {versions}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def measured_by(script: str, data: dict[str, Any]) -> str:
    """How, for how long and on what the rows of a data file were measured."""
    minutes = sum(row["seconds"] for row in data["rows"]) / 60
    return (
        f"Measured by `python benchmarks/{script}` in {minutes:.0f} minutes, with other work on the machine: "
        f"{data['machine']}."
    )


def rows_of(data: dict[str, Any], model: str, sampler: str) -> list[dict[str, Any]]:
    """By evaluations."""
    rows = [row for row in data["rows"] if (row["model"], row["sampler"]) == (model, sampler)]
    return sorted(rows, key=lambda row: row["evaluations"])


def only_draw(description: str) -> bool:
    """Whether the command line asks for the figures alone."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    return parser.parse_args().draw


def read_data(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What was measured so far; settings: those it was, or will be, measured with."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"settings": settings, "machine": machine(), "rows": []}


def write_data(path: Path, data: dict[str, Any]) -> None:
    """One row a line."""
    rows = ",\n".join(json.dumps(row) for row in data["rows"])
    rest = {key: value for key, value in data.items() if key != "rows"}
    text = json.dumps(rest | {"rows": []}, indent=1).replace('"rows": []', f'"rows": [\n{rows}\n]')
    write_whole(path, f"{text}\n".encode())


def pyplot():
    """matplotlib.pyplot that draws into files, in the look of our figures."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    plain = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False}
    pyplot.rcParams.update(plain | {"axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6})
    return pyplot


def save(figure, path: Path) -> None:
    """A PNG of 64 colours, half as fine again as it is shown."""
    from PIL import Image

    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    pyplot().close(figure)
    Image.open(drawn).convert("RGB").quantize(64).save(content, format="png", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())


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


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(page: str, blocks: dict[str, str]) -> str:
    """The page with what stands between `<!-- name -->` and `<!-- /name -->` replaced; else ValueError."""
    for name, text in blocks.items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)"
        page, found = re.subn(pattern, lambda pair, text=text: f"{pair[1]}{text}\n{pair[2]}", page, flags=re.DOTALL)
        if not found:
            raise ValueError(f"the page has no place for {name!r}: write <!-- {name} --> and <!-- /{name} --> in it")
    return page


def fill_page(path: Path, blocks: dict[str, str]) -> None:
    write_whole(path, filled(path.read_text(encoding="utf-8"), blocks).encode())
