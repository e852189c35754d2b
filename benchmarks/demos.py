"""The demo models in measurements: their pipelines, pictures of captions, and how many keep to theirs."""

import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.data import ROOT

# Modules beside one another there import each other by their plain names.
sys.path.extend(str(ROOT / folder) for folder in ("demo_models", "tests/support"))

CAPTIONS, SEED, BATCH = 64, 1000, 16  # picture i has generator SEED + i
READ = {"ground": "background", "colour": "colour", "shape": "shape", "one object": "one object"}  # score's: ours
ALL = "all four"
UNDISTILLED = {"guidance_scale": 1.0}  # beside a weight that is given, on top of which FLUX's embedding would come


def demo_pipeline(demo: str):
    """Ours, with the demo model "demo" (SDXL) or "demo-flux"; one thread."""
    import diffusers.utils.logging
    import torch

    from k_diffusing.models import hide_loading_bars, load

    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()  # its hint at dpmpp_3m_sde's grid
    hide_loading_bars()
    return load(demo)


def network_of(pipe):
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def runs(pipe, call: dict[str, Any], count: int, seed: int = SEED, output_type: str = "np") -> Iterator[tuple]:
    """Batches of the first `count` captions: their scenes, and what the pipeline makes of them."""
    import torch
    from shapes import evaluation_scenes

    scenes = evaluation_scenes(count)
    for first in range(0, count, BATCH):
        some = scenes[first : first + BATCH]
        told = {**call, "negative_prompt": [call["negative_prompt"]] * len(some)} if "negative_prompt" in call else call
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(some))]
        captions = [scene.caption for scene in some]
        yield some, pipe(captions, **told, output_type=output_type, generator=generators).images


def kept(scenes, pictures) -> dict[str, int]:
    """How many pictures show the background, the colour, the shape and the number of their captions, and all four."""
    from score import hits
    from shapes import read

    found = [hits(scene, read(picture)) for scene, picture in zip(scenes, pictures, strict=True)]
    right = {name: sum(hit[field] for hit in found) for field, name in READ.items()}
    return right | {ALL: sum(all(hit[field] for field in READ) for hit in found)}
