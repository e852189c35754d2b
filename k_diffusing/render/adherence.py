"""Which of its caption's words a picture of a demo model kept."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from k_diffusing.models import DEMO_MODELS


def adherence_of(model: str) -> Callable[[str, Image.Image], dict[str, bool] | None]:
    """A function (prompt, picture) -> {"ground": True, ...}: for the demo models' own captions; of all else, None."""
    return kept_words if Path(model).resolve().parent == DEMO_MODELS else lambda prompt, picture: None


def kept_words(prompt: str, picture: Image.Image) -> dict[str, bool] | None:
    """Whether ground, colour, shape and size are the caption's and there is one object; None for another prompt."""
    import numpy as np

    scene = scenes().get(prompt)
    if scene is None:
        return None
    seen = shapes().read(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    kept = {name: getattr(seen, name) == getattr(scene, name) for name in ("ground", "colour", "shape", "size")}
    return kept | {"one object": seen.count == 1}


@functools.cache
def scenes() -> dict:
    return {scene.caption: scene for scene in shapes().all_scenes()}


@functools.cache
def shapes():
    """demo_models/shapes.py, which is on no path."""
    spec = importlib.util.spec_from_file_location("demo_shapes", DEMO_MODELS / "shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
