"""The world of the demo checkpoints: captions, pictures drawn from them, and a detector to read them back.

One coloured shape on a coloured ground, 128x128 pixels: "a small red circle on a blue background".
"""

import random
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

SIDE = 128  # pixels
PALETTE = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (248, 214, 48),
    "purple": (138, 56, 176),
    "orange": (244, 132, 28),
    "white": (245, 245, 245),
    "black": (24, 24, 24),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
RADII = {"small": (17.0, 21.0), "medium": (26.0, 31.0), "large": (37.0, 43.0)}  # pixels
WORDS = ("a", "on", "background", *RADII, *PALETTE, *SHAPES)


class Scene(NamedTuple):
    """What a caption says."""

    size: str
    colour: str
    shape: str
    ground: str

    @property
    def caption(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} on a {self.ground} background"


class Reading(NamedTuple):
    """What the detector sees: a Scene's fields (None where nothing fits) and how many objects."""

    size: str | None
    colour: str | None
    shape: str | None
    ground: str
    count: int


def all_scenes() -> list[Scene]:
    """The 840 scenes of the grammar: object and ground never share a colour."""
    return [Scene(s, c, k, g) for s in RADII for c in PALETTE for k in SHAPES for g in PALETTE if c != g]


def is_held_out(scene: Scene) -> bool:
    """True for 29 of the 280 (colour, shape, ground) triples; no picture of them is ever trained on.

    The rule is a lattice, so that every pair (colour and shape, shape and ground, ...) is trained on.
    """
    colours = list(PALETTE)
    key = 3 * colours.index(scene.colour) + 2 * SHAPES.index(scene.shape) + 5 * colours.index(scene.ground)
    return key % 9 == 4


def training_scenes() -> list[Scene]:
    return [scene for scene in all_scenes() if not is_held_out(scene)]


def evaluation_scenes(n: int, seed: int = 0) -> list[Scene]:
    """n scenes, every second one of a held-out triple, all different while they last."""
    rng = random.Random(seed)
    pools = [[s for s in all_scenes() if is_held_out(s) == held] for held in (True, False)]
    for pool in pools:
        rng.shuffle(pool)
    return [pools[i % 2][(i // 2) % len(pools[i % 2])] for i in range(n)]


def place(scene: Scene, rng: random.Random) -> tuple[float, float, float]:
    """A random centre and radius in pixels, (x, y, r); at least six pixels of ground stay on every side."""
    radius = rng.uniform(*RADII[scene.size])
    low, high = radius + 6, SIDE - radius - 6
    return rng.uniform(low, high), rng.uniform(low, high), radius


def distance(shape: str, x: torch.Tensor, y: torch.Tensor, r: float) -> torch.Tensor:
    """Signed distance in pixels from (x, y), relative to the centre, to the outline (negative inside)."""
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "ring":
        return (torch.hypot(x, y) - 0.74 * r).abs() - 0.26 * r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86 * r
    if shape == "cross":
        bar = 0.32 * r
        return torch.minimum(torch.maximum(x.abs() - r, y.abs() - bar), torch.maximum(x.abs() - bar, y.abs() - r))
    if shape == "triangle":
        top, bottom, half = 0.95 * r, 0.78 * r, r
        height = top + bottom
        side = (height * x.abs() - half * (y + top)) / (half**2 + height**2) ** 0.5
        return torch.maximum(side, y - bottom)
    raise ValueError(f"shape {shape!r} is not in the grammar; choose one of {', '.join(SHAPES)}")


def draw(scene: Scene, centre_x: float, centre_y: float, radius: float, side: int = SIDE) -> torch.Tensor:
    """The picture, (3, side, side) float32 in [0, 1], edges anti-aliased over one pixel."""
    grid = torch.arange(side, dtype=torch.float32) + 0.5
    cover = (0.5 - distance(scene.shape, grid[None] - centre_x, grid[:, None] - centre_y, radius)).clamp(0, 1)
    colour, ground = (torch.tensor(PALETTE[c], dtype=torch.float32)[:, None, None] / 255 for c in scene[1::2])
    return ground + cover * (colour - ground)


def draw_many(scenes: list[Scene], seed: int) -> torch.Tensor:
    """One picture for each scene, at places drawn from `seed`: (n, 3, 128, 128) float32 in [0, 1]."""
    rng = random.Random(seed)
    return torch.stack([draw(scene, *place(scene, rng)) for scene in scenes])


def nearest_colour(rgb: np.ndarray) -> str:
    """The palette's name for rgb (3 numbers in [0, 1])."""
    return min(PALETTE, key=lambda name: float(np.sum((np.array(PALETTE[name]) / 255 - rgb) ** 2)))


def fit(mask: np.ndarray) -> tuple[str | None, str | None]:
    """The (shape, size) whose drawing overlaps `mask` (bool, height x width) best.

    Templates fill the mask's bounding box; below an intersection over union of 0.75 nothing fits.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    y = torch.from_numpy((np.arange(len(mask)) + 0.5 - rows[0]) / height)[:, None]
    x = torch.from_numpy((np.arange(mask.shape[1]) + 0.5 - columns[0]) / width)[None]
    best_overlap, best_shape, best_radius = 0.75, None, 0.0
    for shape in SHAPES:
        half = 0.86 if shape == "square" else 1.0
        top, bottom = (0.95, 0.78) if shape == "triangle" else (half, half)
        template = distance(shape, (2 * x - 1) * half, y * (top + bottom) - top, 1.0).numpy() < 0
        overlap = (template & mask).sum() / (template | mask).sum()
        if overlap > best_overlap:
            best_overlap, best_shape = overlap, shape
            best_radius = (width / (2 * half) + height / (top + bottom)) / 2
    if best_shape is None:
        return None, None
    return best_shape, min(RADII, key=lambda size: abs(sum(RADII[size]) / 2 - best_radius))


def read(picture: np.ndarray) -> Reading:
    """What (height, width, 3) float pixels in [0, 1] show; objects below 24 pixels are not counted."""
    border = np.concatenate([picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3)])
    border = np.concatenate([border, picture[:, :3].reshape(-1, 3), picture[:, -3:].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    contrast = np.linalg.norm(picture - ground, axis=-1)
    labels, n = ndimage.label(contrast > 0.2)
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    count = int((areas >= 24).sum())
    if count == 0:
        return Reading(None, None, None, nearest_colour(ground), 0)
    inside = labels == 1 + int(areas.argmax())
    core = inside & (contrast > 0.6 * np.quantile(contrast[inside], 0.9))
    colour = np.median(picture[core], axis=0)
    shape, size = fit(inside & (contrast > 0.5 * np.linalg.norm(colour - ground)))
    return Reading(size, nearest_colour(colour), shape, nearest_colour(ground), count)
