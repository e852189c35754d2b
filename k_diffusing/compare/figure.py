"""A comparison of two samplers as a figure.

figure_png(comparison)    # bytes; needs matplotlib
"""

import io
import math
from operator import itemgetter

from k_diffusing.model.coordinates import flow_time, to_latents
from k_diffusing.web.pages import palette


def figure(comparison, dark: bool = False):
    """Draw rms of x and of denoised in both runs against sigma, and below it their distance; without the last sigma, 0.

    Args:
        comparison: a Comparison.
        dark: whether the paper is dark.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib import figure as figures  # optional: pip install matplotlib

    paper, ink, *colors, red = itemgetter("paper", "ink", "a", "b", "bad")(palette(dark))
    drawn = figures.Figure(figsize=(5, 6.2), dpi=200, layout="constrained", facecolor=paper)
    labels = [f"{name}: {_brief(label)}" for name, label in zip("ab", comparison.labels, strict=True)]
    drawn.suptitle("\n".join(labels), color=ink, fontsize=10, parse_math=False)
    top, bottom = drawn.subplots(2, 1, sharex=True)
    flow = "flow" in {trace.coordinates for trace in comparison.traces}
    for name, trace, color, width in zip("ab", comparison.traces, colors, (4, 1.5), strict=True):
        for quantity, points, line in zip(("x", "denoised"), _trajectory(trace, flow), ("-", "--"), strict=True):
            top.plot(*points, line, color=color, lw=width, label=f"{quantity} of {name}")
    top.set_ylabel("rms", color=ink)
    _plot_distance(bottom, comparison.difference, ink, red)
    bottom.set_ylabel("|a − b| / |a|", color=ink)
    bottom.set_xlabel(f"{'t' if flow else 'sigma'}, from the first step to the last", color=ink)
    bottom.invert_xaxis()
    for axes in (top, bottom):
        axes.set(facecolor=paper, xscale="log", yscale="log")
        axes.grid(color=ink, alpha=0.12)
        axes.tick_params(which="both", color=ink, labelcolor=ink)
        axes.spines[:].set_color(ink)
        axes.legend(facecolor=paper, edgecolor="none", labelcolor=ink, fontsize=9)
    return drawn


def _brief(label: str, longest: int = 60) -> str:
    """What fits into the width of the figure: a label may be one word."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def _trajectory(trace, flow: bool) -> list[tuple[list[float], list[float]]]:
    """(sigmas, rms) of x and of each step's first denoised estimate; flow: in flow coordinates, whatever the run's."""
    x = [(float(state.sigma), state.x.rms) for state in trace.states]
    denoised = [(float(call.sigma), call.denoised.rms) for call in trace.calls if call.stage == 0]
    if flow and trace.coordinates == "ve":
        x = [(flow_time(sigma), to_latents(rms, sigma)) for sigma, rms in x]
        denoised = [(flow_time(sigma), rms) for sigma, rms in denoised]
    return [_columns(points) for points in (x, denoised)]


def _columns(points) -> tuple[list[float], list[float]]:
    """The points that have a place on two log axes, as two lists."""
    kept = [point for point in points if all(0 < value < math.inf for value in point)]
    return [sigma for sigma, _ in kept], [value for _, value in kept]


def _plot_distance(axes, difference, ink: str, red: str) -> None:
    """The runs' distance at each step, the tolerance, and where they part."""
    for quantity, line in (("x", "o-"), ("denoised", "s:")):
        points = _columns((row.sigma[0], getattr(row, quantity)) for row in difference.rows)
        axes.plot(*points, line, color=ink, ms=3.5, lw=1, label=quantity)
    axes.axhline(difference.tolerance, color=ink, lw=1, ls="--", label=f"tolerance {difference.tolerance:g}")
    if difference.first and difference.first.step < len(difference.rows):
        sigma = difference.rows[difference.first.step].sigma[0]
        axes.axvline(sigma, color=red, lw=2, label=f"they part: {difference.unit} {difference.first.step}")


def figure_png(comparison, dark: bool = False) -> bytes:
    """Draw `figure` as a PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    buffer = io.BytesIO()
    figure(comparison, dark).savefig(buffer, format="png")
    return buffer.getvalue()
