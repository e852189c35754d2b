"""Which of its caption's words a picture of a demo model kept."""

import functools
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from PIL import Image

from k_diffusing.models import DEMO_MODELS


def adherence_of(model: str) -> Callable[[str, Image.Image], dict[str, bool] | None]:
    """What reads a picture of a model.

    Args:
        model: A path or a hub name.

    Returns:
        A function (prompt, picture) -> {"ground": True, ...} for the demo models' own captions; for other prompts, and
        for all prompts of other models, it returns None.
    """
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
    """The scenes that the demo models were trained on, by their captions."""
    return {scene.caption: scene for scene in shapes().all_scenes()}


@functools.cache
def shapes():
    """demo_models/shapes.py, which is on no path."""
    module = ModuleType("demo_shapes")
    SourceFileLoader(module.__name__, str(DEMO_MODELS / "shapes.py")).exec_module(module)
    return module
