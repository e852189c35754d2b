"""The picture at the top of the README: every sampler on the FLUX demo model, the older way above this one.

python benchmarks/older_flux.py                            writes docs/images/flux-older.png
"""

import argparse
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import test_flux  # noqa: E402
from k_diffusing._files import write_png  # noqa: E402
from k_diffusing.render import options as grid_options  # noqa: E402
from k_diffusing.render import pipelines as render_grid  # noqa: E402
from k_diffusing.render.cells import cells  # noqa: E402
from k_diffusing.render.checks import check  # noqa: E402
from k_diffusing.render.rendering import encoder, keywords_of  # noqa: E402

ROWS = {"velocity": "older", "auto": "here"}
TILE, GAP, MARGIN = 112, 6, 64


def render_row(pipe, args: argparse.Namespace, embeds: dict, flow_coordinates: str) -> dict[str, Image.Image]:
    """One picture per sampler in these coordinates."""
    pictures = {}
    for cell in cells(grid_options.axes(args, check(test_flux.SCRIPT, args))):
        keywords, start = keywords_of(test_flux.SCRIPT, args, cell, None) | embeds, time.perf_counter()
        keywords["flow_coordinates"] = flow_coordinates
        [pictures[cell.sampler]] = pipe(**keywords).images
        print(f"{flow_coordinates:<10} {cell.sampler:<20} {time.perf_counter() - start:6.2f} s", flush=True)
    return pictures


def sheet(rows: dict[str, dict[str, Image.Image]]) -> Image.Image:
    """Rows of small tiles: a label left of each row, the samplers' names above."""
    names = list(next(iter(rows.values())))
    size = (MARGIN + len(names) * (TILE + GAP), 24 + len(rows) * (TILE + GAP))
    picture, font = Image.new("RGB", size, "white"), ImageFont.load_default(size=12)
    draw = ImageDraw.Draw(picture)
    for j, name in enumerate(names):
        draw.text((MARGIN + j * (TILE + GAP) + TILE / 2, 16), name, font=font, fill="black", anchor="ms")
    for i, (label, pictures) in enumerate(rows.items()):
        y = 24 + i * (TILE + GAP)
        draw.text((MARGIN - 8, y + TILE / 2), label, font=ImageFont.load_default(size=16), fill="black", anchor="rm")
        for j, name in enumerate(names):
            tile = pictures[name].resize((TILE, TILE), Image.Resampling.LANCZOS)
            picture.paste(tile, (MARGIN + j * (TILE + GAP), y))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "flux-older.png")
    output = parser.parse_args().output
    args = test_flux.arguments([])
    pipe = render_grid.load(test_flux.SCRIPT, args)
    [prompt] = args.prompt
    embeds = encoder(test_flux.SCRIPT, args, pipe, args.program)(prompt)
    rows = {label: render_row(pipe, args, embeds, coordinates) for coordinates, label in ROWS.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_png(sheet(rows), output, {"prompt": prompt, "steps": str(args.steps[0]), "seed": str(args.seeds[0])})
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
