"""The picture at the top of the README: every sampler on the FLUX demo model, the older way above this one."""

from collections.abc import Iterable

from benchmarks.data import ROOT, made
from benchmarks.record import Benchmark, Row

PICTURE, ROWS = "docs/images/flux-older.png", {"velocity": "older", "auto": "here"}
TILE, GAP, MARGIN = 112, 6, 64


def measure(cells: list[Row]) -> Iterable[Row]:
    import test_flux
    from k_diffusing._files import write_png
    from k_diffusing.render import pipelines
    from k_diffusing.render.rendering import encoder

    args = test_flux.arguments([])
    pipe = pipelines.load(test_flux.SCRIPT, args)
    [prompt] = args.prompt
    embeds = encoder(test_flux.SCRIPT, args, pipe, args.program)(prompt)
    rows = {label: row_of_pictures(pipe, args, embeds, coordinates) for coordinates, label in ROWS.items()}
    texts = {"prompt": prompt, "steps": str(args.steps[0]), "seed": str(args.seeds[0])}
    write_png(sheet(rows), ROOT / PICTURE, texts)
    yield made(ROOT / PICTURE)


def row_of_pictures(pipe, args, embeds: dict, flow_coordinates: str) -> dict:
    """A picture of each sampler in these coordinates."""
    import test_flux
    from k_diffusing.render.cells import cells
    from k_diffusing.render.checks import check
    from k_diffusing.render.options import axes
    from k_diffusing.render.rendering import keywords_of

    pictures = {}
    for cell in cells(axes(args, check(test_flux.SCRIPT, args))):
        keywords = keywords_of(test_flux.SCRIPT, args, cell, None) | embeds | {"flow_coordinates": flow_coordinates}
        [pictures[cell.sampler]] = pipe(**keywords).images
    return pictures


def sheet(rows: dict[str, dict]):
    """Rows of small tiles: a label left of each row, the samplers' names above."""
    from PIL import Image, ImageDraw, ImageFont

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


BENCHMARK = Benchmark(
    name="flux_older",
    about="Every sampler on the FLUX demo model, by the older way and here: the picture at the top of the README.",
    takes="2 minutes",
    cells=lambda: [{"file": PICTURE}],
    measure=measure,
    models=("demo-flux",),
)
