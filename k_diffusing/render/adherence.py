"""Which of its caption's words a picture of a demo model kept."""

import functools
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from k_diffusing.models import DEMO_MODELS, demo_shapes


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
    seen = demo_shapes().read(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)
    kept = {name: getattr(seen, name) == getattr(scene, name) for name in ("ground", "colour", "shape", "size")}
    return kept | {"one object": seen.count == 1}


@functools.cache
def scenes() -> dict:
    """The scenes that the demo models were trained on, by their captions."""
    return {scene.caption: scene for scene in demo_shapes().all_scenes()}
