"""Draws each sigma grid beside its name in the tables of sigma_grids.md, from docs/data/grid_points.json.

A dot for each step: above on SDXL, sigma on a logarithmic axis from 14.6 down to 0.03; below on a flow model, the time
from 1 to 0. The last step leads to 0 in both.
"""

import json
import math
import re
from pathlib import Path

ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
WIDTH, MARGIN, LINES = 170, 5, {"sdxl": 7, "flow": 19}
SIGMAS = (14.6147, 0.0292)


def on_page_markdown(markdown, page, config, files):
    """The tables' first cells with drawings."""
    if page.file.src_uri != "sigma_grids.md":
        return markdown
    found = json.loads((Path(config.docs_dir) / "data" / "grid_points.json").read_text("utf-8"))
    rows = {row["grid"]: row for row in found["rows"]}
    return ROW.sub(lambda name: f"| `{name[1]}` {drawing(rows[name[1]])} |" if name[1] in rows else name[0], markdown)


def drawing(row: dict) -> str:
    """A line of dots for each kind of model that the grid is for."""
    lines = []
    for model, y in LINES.items():
        if model in row:
            xs = [place(model, sigma) for sigma in row[model] if sigma > 0]
            dots = "".join(f'<circle cx="{x:.1f}" cy="{y}" r="2.2"/>' for x in xs)
            lines.append(f'<g class="{model}"><path d="M{MARGIN} {y}H{WIDTH - MARGIN}"/>{dots}</g>')
    words = f"{row['grid']}, {row['steps']} steps"
    return (
        f'<svg class="grid-drawing" width="{WIDTH}" height="26" viewBox="0 0 {WIDTH} 26" role="img" '
        f'aria-label="{words}">{"".join(lines)}</svg>'
    )


def place(model: str, sigma: float) -> float:
    """Across the drawing, the noisiest to the left."""
    if model == "flow":
        share = 1 - sigma
    else:
        high, low = map(math.log, SIGMAS)
        share = (high - math.log(sigma)) / (high - low)
    return MARGIN + (WIDTH - 2 * MARGIN) * min(max(share, 0), 1)
