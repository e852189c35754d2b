"""The world of the demo checkpoints: captions, pictures drawn from them, and a detector to read them back.

One coloured solid lies on a coloured, checked cloth, 128x128 pixels: "a small red circle on a blue background". The
light comes from the upper left: a circle is a ball, a ring a torus, a square and a triangle are pyramids.
"""

import math
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

DEPTHS = {"circle": 1.0, "square": 0.86, "triangle": 0.55, "cross": 0.32, "ring": 0.26}  # deepest inside, in radii
LIGHT = (-0.48, -0.52, 0.706)  # towards the light; x to the right, y down, z to the viewer
GLINT = tuple(v / math.hypot(*LIGHT[:2], LIGHT[2] + 1) for v in (*LIGHT[:2], LIGHT[2] + 1))  # halfway to the viewer
SHADES = (0.6, 1.1)  # ground in full shadow and in full light, times its colour
CHECK = 8  # pixels


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
    """A random centre and radius in pixels, (x, y, r); at least 14 pixels of ground stay on every side."""
    radius = rng.uniform(*RADII[scene.size])
    low, high = radius + 14, SIDE - radius - 14
    return rng.uniform(low, high), rng.uniform(low, high), radius


def distance(shape: str, x: torch.Tensor, y: torch.Tensor, r: float | torch.Tensor) -> torch.Tensor:
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


def normal(shape: str, x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Unit normal (x, y, z) of the solid over the shape: a quarter round from its outline to its deepest inside."""
    step = 0.75
    slope_x, slope_y = (
        (distance(shape, x + i * step, y + j * step, r) - distance(shape, x - i * step, y - j * step, r)) / (2 * step)
        for i, j in ((1, 0), (0, 1))
    )
    lean = (1 + distance(shape, x, y, r) / (DEPTHS[shape] * r)).clamp(0, 1)
    return lean * slope_x, lean * slope_y, (1 - lean**2).sqrt()


def lit(colour: torch.Tensor, surface: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """`colour`, (n, 3, 1, 1), on a glossy surface of these unit normals."""
    towards, halfway = (sum(n * v for n, v in zip(surface, d, strict=True)).clamp(min=0) for d in (LIGHT, GLINT))
    return colour * (0.5 + 0.52 * towards) + 0.4 * halfway**40


def cloth(colour: torch.Tensor, side: int) -> torch.Tensor:
    """The ground, (n, 3, side, side), from colours (n, 3, 1, 1): low-contrast checks, darker to the lower right."""
    i = torch.arange(side, device=colour.device)
    light = 1.06 - 0.16 * (i + i[:, None] + 1) / (2 * side)
    even = (i // CHECK + i[:, None] // CHECK) % 2 == 0
    return colour * light + torch.where(even, 0.03, -0.03)


def shadow(shape: str, x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """How much of the light is missing: the shape moved away from the light, its edge softened over 0.4 r."""
    depth = (0.5 - distance(shape, x - 0.16 * r, y - 0.2 * r, r) / (0.4 * r)).clamp(0, 1)
    return 0.4 * depth**2 * (3 - 2 * depth)


def draw_alike(shape: str, colour: torch.Tensor, ground: torch.Tensor, at: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures of one shape, (n, 3, side, side), from colours (n, 3, 1, 1) in [0, 1] and places (n, 3)."""
    grid = torch.arange(side, dtype=torch.float32, device=at.device) + 0.5
    centre_x, centre_y, radius = at[:, :, None, None, None].unbind(1)
    here = (shape, *torch.broadcast_tensors(grid - centre_x, grid[:, None] - centre_y), radius)
    below = cloth(ground, side) * (1 - shadow(*here))
    cover = (0.5 - distance(*here)).clamp(0, 1)
    return (below + cover * (lit(colour, normal(*here)) - below)).clamp(0, 1)


def draw_at(scenes: list[Scene], places: list[tuple[float, float, float]], side: int, device: str) -> torch.Tensor:
    """One picture for each scene at its (centre x, centre y, radius): (n, 3, side, side) float32 in [0, 1]."""
    at = torch.tensor(places, dtype=torch.float32, device=device)
    rgb = torch.tensor([[PALETTE[s.colour], PALETTE[s.ground]] for s in scenes], device=device)
    colour, ground = (rgb[..., None, None] / 255).unbind(1)
    pictures = torch.empty(len(scenes), 3, side, side, device=device)
    for shape in SHAPES:
        chosen = [i for i, scene in enumerate(scenes) if scene.shape == shape]
        if chosen:
            pictures[chosen] = draw_alike(shape, colour[chosen], ground[chosen], at[chosen], side)
    return pictures


def draw(scene: Scene, centre_x: float, centre_y: float, radius: float, side: int = SIDE) -> torch.Tensor:
    """The picture, (3, side, side) float32 in [0, 1], edges anti-aliased over one pixel."""
    return draw_at([scene], [(centre_x, centre_y, radius)], side, "cpu")[0]


def draw_many(scenes: list[Scene], seed: int, device: str = "cpu") -> torch.Tensor:
    """One picture for each scene, at places drawn from `seed`: (n, 3, 128, 128) float32 in [0, 1]."""
    rng = random.Random(seed)
    return draw_at(scenes, [place(scene, rng) for scene in scenes], SIDE, device)


def off_colour(rgb: np.ndarray, colour: np.ndarray, low: float, high: float) -> np.ndarray:
    """Distance of rgb (..., 3) from the shades low to high times `colour` (3 numbers)."""
    shade = np.clip(rgb @ colour / (colour @ colour), low, high)
    return np.linalg.norm(rgb - shade[..., None] * colour, axis=-1)


def nearest_colour(rgb: np.ndarray, low: float, high: float) -> str:
    """The palette's name for rgb (3 numbers in [0, 1]) in a light between low and high."""
    return min(PALETTE, key=lambda name: float(off_colour(rgb, np.array(PALETTE[name]) / 255, low, high)))


def fit(mask: np.ndarray) -> tuple[str | None, str | None]:
    """The (shape, size) whose drawing overlaps `mask` (bool, height x width) best.

    Templates fill the mask's bounding box; below an intersection over union of 0.75, or as high or wide as the
    picture, nothing fits.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    if height == mask.shape[0] or width == mask.shape[1]:
        return None, None
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
    ground = nearest_colour(np.median(border, axis=0), 0.9, 1.06)
    contrast = off_colour(picture, np.array(PALETTE[ground]) / 255, *SHADES)
    labels, n = ndimage.label(contrast > 0.14)
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    count = int((areas >= 24).sum())
    if count == 0:
        return Reading(None, None, None, ground, 0)
    inside = labels == 1 + int(areas.argmax())
    colour = nearest_colour(np.median(picture[inside], axis=0), 0.6, 1.0)
    shape, size = fit(inside)
    return Reading(size, colour, shape, ground, count)
