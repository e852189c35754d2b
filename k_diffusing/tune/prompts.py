"""Prompts to tune on where a user gives none."""

import random

from k_diffusing.models import DEMO_MODELS, DEMOS, demo_shapes

SUBJECTS = ("an old fisherman", "a red fox", "a glass teapot", "a city street", "a mountain lake", "two children")
SETTINGS = (
    "at dawn, photograph",
    "in the rain, oil painting",
    "in a quiet room, soft light",
    "under a starry sky, detailed illustration",
    "in autumn leaves, close-up",
    "on a market square, watercolour",
)


def some_prompts(model: str, count: int) -> list[str]:
    """So many different prompts that a model draws well: of a demo its captions, else everyday subjects."""
    if model in DEMOS or str(model).startswith(str(DEMO_MODELS)):
        prompts = [scene.caption for scene in demo_shapes().all_scenes()]
    else:
        prompts = [f"{subject} {setting}" for subject in SUBJECTS for setting in SETTINGS]
    random.Random(0).shuffle(prompts)
    return [prompts[i % len(prompts)] for i in range(count)]
