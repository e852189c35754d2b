"""In which pipelines of diffusers a sampler runs as a scheduler: `euler` against the pipeline's own scheduler.

6 steps, float32, tiny random networks (tests/support/their_pipelines.py); the largest difference of the latents.
"""

from collections.abc import Iterable

from benchmarks.data import select
from benchmarks.pages import markdown_table, power
from benchmarks.record import Benchmark, Data, Row

# By the lines of the table; what stands after the name is what the line says.
LINES = {
    "SDXL": ("", " img2img", " inpainting", " ControlNet"),
    "SD 1.5": ("", " img2img", " inpainting"),
    "SD3": ("", " img2img"),
    "FLUX": ("", " img2img", " inpainting", " Fill", " Kontext"),
    "FLUX.2": ("",),
    "Qwen-Image": ("",),
    "Wan": (" (video)",),
    "LTX": (" (video)",),
}


def cells() -> list[Row]:
    return [{"pipeline": family + kind} for family, kinds in LINES.items() for kind in kinds]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from benchmarks import demos  # noqa: F401  for the folder of the tests' support
    from their_pipelines import PIPELINES, difference_to_native  # isort: skip

    torch.set_num_threads(1)
    for cell in cells:
        difference, size = difference_to_native(cell["pipeline"])
        kind = type(PIPELINES[cell["pipeline"]]()[0]).__name__
        yield cell | {"class": kind, "largest difference": difference, "largest latent": round(size, 2)}


def table(data: Data) -> str:
    """A family of pipelines a line."""
    rows = []
    for family, kinds in LINES.items():
        found = [select(data, pipeline=family + kind)[0] for kind in kinds]
        told = ", ".join(kind.strip(" ()") or "text to image" for kind in kinds)
        rows.append([f"{family}: {told}", power(max(row["largest difference"] for row in found))])
    return markdown_table(["pipeline of diffusers", "largest difference"], rows)


BENCHMARK = Benchmark(
    name="pipelines",
    about="`euler` as a scheduler in diffusers' own pipelines, against the scheduler that is native to each.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    tables={"table": table},
)
