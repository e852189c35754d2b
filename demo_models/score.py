"""Scores a demo checkpoint: renders captions through diffusers' own pipeline and reads the pictures back.

python demo_models/score.py demo_models/sdxl-shapes
python demo_models/score.py demo_models/flux-shapes --sheet sheet.png
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from PIL import Image
from shapes import SIDE, Reading, Scene, evaluation_scenes, is_held_out, read

GUIDANCE = {"StableDiffusionXLPipeline": 3.0, "FluxPipeline": 3.5}
TRUE_CFG = 1.0  # FLUX only; 1 is none


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z, rate = 1.96, hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def hits(scene: Scene, reading: Reading) -> dict[str, bool]:
    """Which of the caption's words the picture kept."""
    kept = {field: getattr(scene, field) == getattr(reading, field) for field in Scene._fields}
    kept["one object"] = reading.count == 1
    return kept | {"all": all(kept.values())}


def render(
    pipeline: DiffusionPipeline,
    scenes: list[Scene],
    *,
    steps: int = 28,
    guidance: float | None = None,
    true_cfg: float = TRUE_CFG,
    seed: int = 1000,
    batch: int = 8,
) -> np.ndarray:
    """One picture for each scene, picture i from generator seed + i: (n, 128, 128, 3) float32 in [0, 1]."""
    options = {"guidance_scale": GUIDANCE[type(pipeline).__name__] if guidance is None else guidance}
    if isinstance(pipeline, FluxPipeline):
        options |= {"max_sequence_length": 64, "true_cfg_scale": true_cfg}
    pictures = []
    for start in range(0, len(scenes), batch):
        chunk = scenes[start : start + batch]
        if isinstance(pipeline, FluxPipeline) and true_cfg > 1:
            options["negative_prompt"] = [""] * len(chunk)
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(chunk))]
        prompts = [scene.caption for scene in chunk]
        size = {"height": SIDE, "width": SIDE, "num_inference_steps": steps, "output_type": "np"}
        pictures.append(pipeline(prompts, generator=generators, **size, **options).images)
    return np.concatenate(pictures)


def report(scenes: list[Scene], readings: list[Reading]) -> str:
    """A table of rates and intervals: all captions, and those whose triple was left out of training."""
    lines = [f"{'':12} {f'all, n = {len(scenes)}':>24} {'left-out triples':>24}"]
    table = [hits(scene, reading) for scene, reading in zip(scenes, readings, strict=True)]
    held = [row for scene, row in zip(scenes, table, strict=True) if is_held_out(scene)]
    for field in table[0]:
        cells = []
        for rows in (table, held):
            total = sum(row[field] for row in rows)
            low, high = wilson(total, len(rows))
            cells.append(f"{total:3d}/{len(rows):<3d} [{low:.2f}, {high:.2f}]")
        lines.append(f"{field:12} {cells[0]:>24} {cells[1]:>24}")
    return "\n".join(lines)


def write_sheet(pictures: np.ndarray, path: Path, columns: int = 8) -> None:
    """All pictures in reading order on one sheet, two pixels apart."""
    rows = -(-len(pictures) // columns)
    step = SIDE + 2
    sheet = np.ones((rows * step - 2, columns * step - 2, 3), np.float32)
    for i, picture in enumerate(pictures):
        y, x = i // columns * step, i % columns * step
        sheet[y : y + SIDE, x : x + SIDE] = picture
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=64, help="captions, every second one of a left-out triple")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, help="guidance_scale; default 3 for SDXL, 3.5 for FLUX")
    parser.add_argument("--true-cfg", type=float, default=TRUE_CFG, help="FLUX only: true_cfg_scale")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="write the pictures to this PNG")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline = DiffusionPipeline.from_pretrained(args.folder)
    pipeline.set_progress_bar_config(disable=True)
    scenes, start = evaluation_scenes(args.n), time.monotonic()
    options = {"guidance": args.guidance, "true_cfg": args.true_cfg, "seed": args.seed, "batch": args.batch}
    pictures = render(pipeline, scenes, steps=args.steps, **options)
    seconds = (time.monotonic() - start) / args.n
    print(report(scenes, [read(picture) for picture in pictures]))
    print(f"{args.steps} steps, {seconds:.2f} s a picture on {args.threads} thread(s)")
    if args.sheet:
        write_sheet(pictures, args.sheet)
        print(f"wrote {args.sheet}")


if __name__ == "__main__":
    main()
