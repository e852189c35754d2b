"""How well the demo models draw what a caption says, and how large they are: the figures of their card.

diffusers' own pipelines, 28 Euler steps, one thread; read by demo_models/shapes.py, whose own errors are counted on
true drawings and on what the VAE makes of them.
"""

import math
from collections.abc import Iterable
from typing import Any

from benchmarks import demos
from benchmarks.data import WEIGHTS, heads, select
from benchmarks.demos import SEED
from benchmarks.intervals import wilson
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

CAPTIONS, DRAWINGS = demos.CAPTIONS, 200
STEPS = 28
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SDXL, guidance 3": ("demo", {"guidance": 3.0}),
    "SDXL, guidance 5": ("demo", {"guidance": 5.0}),
    "FLUX, guidance 3.5": ("demo-flux", {"guidance": 3.5}),
    "FLUX, true CFG 2": ("demo-flux", {"guidance": 1.0, "true_cfg": 2.0}),
}
WORDS = ("ground", "colour", "shape", "size", "one object", "all")  # as score.py has them
CAPTIONS_ROW, DETECTOR, SIZE = "captions", "detector", "size"


def cells() -> list[Row]:
    captions = [{"of": CAPTIONS_ROW, "case": case} for case in CASES]
    return [*captions, {"of": DETECTOR}, *({"of": SIZE, "model": model} for model in WEIGHTS)]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    torch.set_num_threads(1)
    for cell in cells:
        if cell["of"] == CAPTIONS_ROW:
            yield cell | captions_kept(*CASES[cell["case"]])
        elif cell["of"] == DETECTOR:
            yield cell | detector_errors()
        else:
            yield cell | size_of(cell["model"])


def captions_kept(model: str, options: dict[str, Any]) -> Row:
    """The words that the pictures keep: of all captions, and of those whose triple was left out of training."""
    from diffusers import DiffusionPipeline
    from score import hits, render
    from shapes import evaluation_scenes, is_held_out, read

    pipe = DiffusionPipeline.from_pretrained(WEIGHTS[model])
    pipe.set_progress_bar_config(disable=True)
    scenes = evaluation_scenes(CAPTIONS)
    pictures = render(pipe, scenes, steps=STEPS, seed=SEED, batch=demos.BATCH, **options)
    found = [hits(scene, read(picture)) for scene, picture in zip(scenes, pictures, strict=True)]
    held = [hit for scene, hit in zip(scenes, found, strict=True) if is_held_out(scene)]
    right = {word: [sum(hit[word] for hit in part) for part in (found, held)] for word in WORDS}
    return {"right": right, "of all": len(found), "of left-out": len(held)}


def detector_errors() -> Row:
    """True drawings and what the VAE makes of others, how many are misread; and how near the VAE comes."""
    import torch
    from shapes import all_scenes, draw_many, evaluation_scenes, read

    def wrong(scenes, pictures) -> int:
        arrays = [picture.permute(1, 2, 0).numpy() for picture in pictures]
        return sum(read(array) != (*scene, 1) for scene, array in zip(scenes, arrays, strict=True))

    scenes = all_scenes()
    some = [scenes[i * len(scenes) // DRAWINGS] for i in range(DRAWINGS)]
    few = evaluation_scenes(CAPTIONS)
    drawn = draw_many(few, seed=5)
    vae = demos.demo_pipeline("demo").vae
    with torch.no_grad():
        made = [vae.decode(vae.encode(2 * part - 1).latent_dist.mean).sample / 2 + 0.5 for part in drawn.split(8)]
    again = torch.cat(made).clamp(0, 1)
    decibels = -10 * math.log10(float((again - drawn).square().mean()))
    return {
        "drawings": wrong(some, draw_many(some, seed=3)),
        "reconstructions": wrong(few, again),
        "decibels": round(decibels, 1),
    }


def size_of(model: str) -> Row:
    """Parameters of each part, from the heads of its weights, and the bytes of all files."""
    parameters = {
        part: sum(math.prod(shape) for _, shape in tensors.values()) for part, tensors in heads(model).items()
    }
    files = (path for path in WEIGHTS[model].rglob("*") if path.is_file())
    return {"parameters": parameters, "bytes": sum(path.stat().st_size for path in files)}


# What is shown.


def told(hits: int, n: int) -> str:
    """A share with its interval."""
    return "{}/{} [{:.2f}, {:.2f}]".format(hits, n, *wilson(hits, n))


def table(data: Data) -> str:
    """A word a line; of each case all captions and the left-out half."""
    rows = [select(data, of=CAPTIONS_ROW, case=case)[0] for case in CASES]
    lines = []
    for word in WORDS:
        pairs = [zip(row["right"][word], (row["of all"], row["of left-out"]), strict=True) for row in rows]
        lines.append([word, *(told(*pair) for both in pairs for pair in both)])
    head = ["right", *(title for case in CASES for title in (case, "its left-out half"))]
    return markdown_table(head, lines)


def shapes_right(data: Data) -> str:
    """Of the FLUX demo's pictures."""
    row = select(data, of=CAPTIONS_ROW, case="FLUX, guidance 3.5")[0]
    return f"{row['right']['shape'][0]} of {row['of all']}"


def of_detector(data: Data) -> str:
    """Its errors."""
    [row] = select(data, of=DETECTOR)
    return f"{row['drawings']} of {DRAWINGS} drawings and {row['reconstructions']} of {CAPTIONS} reconstructions"


def parameters(data: Data, model: str, *parts: str) -> str:
    """Of some parts: 109,824 + 113,920."""
    found = select(data, of=SIZE, model=model)[0]["parameters"]
    return " + ".join(f"{found[part]:,}" for part in parts)


def megabytes(data: Data) -> str:
    return " and ".join(f"{select(data, of=SIZE, model=model)[0]['bytes'] / 1e6:.1f}" for model in WEIGHTS)


BENCHMARK = Benchmark(
    name="demo_models",
    about="How well the demo models draw what a caption says, how large they are, and the detector's own errors.",
    takes="2 minutes",
    cells=cells,
    measure=measure,
    settings={"captions": CAPTIONS, "seed": SEED, "steps": STEPS},
    models=("demo", "demo-flux"),
    tables={
        "table": table,
        "flux-shapes": shapes_right,
        "detector": of_detector,
        "decibels": lambda data: f"{select(data, of=DETECTOR)[0]['decibels']:.1f}",
        "megabytes": megabytes,
        "unet": lambda data: parameters(data, "demo", "unet"),
        "transformer": lambda data: parameters(data, "demo-flux", "transformer"),
        "text-sdxl": lambda data: parameters(data, "demo", "text_encoder", "text_encoder_2"),
        "text-flux": lambda data: parameters(data, "demo-flux", "text_encoder"),
        "t5": lambda data: parameters(data, "demo-flux", "text_encoder_2"),
        "vae": lambda data: parameters(data, "demo", "vae"),
    },
)
