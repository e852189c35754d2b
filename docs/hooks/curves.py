"""A sampler's error against network evaluations, drawn for its card: both axes logarithmic, the others behind."""

import math

LEFT, TOP, WIDTH, HEIGHT = 30, 6, 190, 110  # of the drawing inside its labels, pixels
EVALUATIONS, ERRORS = (5, 640), (1e-8, 1.0)


def points(row: dict) -> str:
    """The points of a polyline."""
    return " ".join(
        f"{across(n):.1f},{down(error):.1f}" for n, error in zip(row["evaluations"], row["errors"], strict=True)
    )


def across(evaluations: float) -> float:
    """From the left, pixels."""
    low, high = map(math.log, EVALUATIONS)
    return LEFT + WIDTH * (math.log(evaluations) - low) / (high - low)


def down(error: float) -> float:
    """From the top, pixels."""
    low, high = map(math.log, ERRORS)
    return TOP + HEIGHT * (high - math.log(min(max(error, ERRORS[0]), ERRORS[1]))) / (high - low)


def backdrop(curves: dict[str, str]) -> str:
    """Axes and all curves, once; each drawing uses them."""
    lines = "".join(f'<polyline points="{curve}"/>' for curve in dict.fromkeys(curves.values()))
    ticks = "".join(
        f'<path d="M{LEFT} {down(10**-k):.1f}H{LEFT + WIDTH}"/>'
        f'<text x="{LEFT - 4}" y="{down(10**-k) + 3:.1f}" text-anchor="end">{"1" if k == 0 else f"1e-{k}"}</text>'
        for k in (0, 2, 4, 6, 8)
    ) + "".join(
        f'<text x="{across(n):.1f}" y="{TOP + HEIGHT + 12}" text-anchor="middle">{n}</text>' for n in (5, 20, 80, 320)
    )
    return (
        f'<svg class="backdrop" width="0" height="0" aria-hidden="true"><g id="axes"><g class="ticks">{ticks}</g>'
        f'<g class="others">{lines}</g></g></svg>\n'
    )


def figure(name: str, curve: str) -> str:
    """Its curve on the backdrop."""
    size = f"0 0 {LEFT + WIDTH + 6} {TOP + HEIGHT + 16}"
    return (
        f'<svg class="curve" viewBox="{size}" role="img" aria-label="Error against evaluations of {name}">'
        f'<use href="#axes"/><polyline points="{curve}"/></svg>'
    )
