"""How far a picture is from another."""

from typing import NamedTuple

from PIL import Image, ImageChops, ImageStat

LEVELS = 3  # of 255: what machines, and versions of torch, were seen to differ by


class Apart(NamedTuple):
    """How far two pictures of one size are from each other, in levels of 255.

    Attributes:
        most: The largest difference.
        mean: The mean of all differences.
        share: The part of the pixels that differ at all.
    """

    most: int
    mean: float
    share: float

    @property
    def rounding(self) -> bool:
        """Whether it is no more than rounding may make."""
        return self.most <= LEVELS

    def __str__(self) -> str:
        if self.most == 0:
            return "the same in every pixel"
        return f"{self.most} of 255 levels at most, {self.mean:.2g} on average; {self.share:.1%} of the pixels differ"


def apart(a: Image.Image, b: Image.Image) -> Apart:
    """How far two pictures are from each other. Raises ValueError if their sizes differ."""
    if a.size != b.size:
        raise ValueError(f"the pictures are {a.width} x {a.height} and {b.width} x {b.height}: nothing to compare")
    difference = ImageChops.difference(a.convert("RGB"), b.convert("RGB"))
    statistics = ImageStat.Stat(difference)
    largest = ImageChops.lighter(ImageChops.lighter(*difference.split()[:2]), difference.split()[2])
    same = largest.histogram()[0] / (a.width * a.height)
    return Apart(max(high for _, high in statistics.extrema), sum(statistics.mean) / 3, 1 - same)
