"""A contact sheet: five samplers against evaluations on the SDXL demo model, and what they converge to."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.data import ROOT, made_webp
from benchmarks.record import Benchmark, Row

PICTURE, WIDTH = "docs/images/samplers-evaluations.webp", 770
SAMPLERS = ("euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde")
GRID = ("--evaluations", "5", "10", "20", "40", "--sigma-grid", "karras")


def measure(cells: list[Row]) -> Iterable[Row]:
    """Raises RuntimeError if the script fails."""
    from PIL import Image

    import test

    with tempfile.TemporaryDirectory() as folder:
        if code := test.main(["--samplers", *SAMPLERS, *GRID, "--output", folder]):
            raise RuntimeError(f"test.py ended with {code}")
        with Image.open(Path(folder) / "sdxl-samplers.png") as sheet:
            size = (WIDTH, round(sheet.height * WIDTH / sheet.width))
            small = sheet.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    yield made_webp(ROOT / PICTURE, small, quality=85)


BENCHMARK = Benchmark(
    name="evaluations",
    about="Five samplers against evaluations on the SDXL demo model, as a contact sheet.",
    takes="a minute",
    cells=lambda: [{"file": PICTURE}],
    measure=measure,
    settings={"samplers": SAMPLERS, "grid": GRID},
    models=("demo",),
)
