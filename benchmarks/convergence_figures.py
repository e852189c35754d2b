"""What is shown of convergence: tables and figures, from the data alone."""

import math

from benchmarks.data import select
from benchmarks.errors import fitted_slope
from benchmarks.pages import markdown_table
from benchmarks.record import Data, Row
from benchmarks.style import LOOKS, WIDTH, pyplot, spread
from k_diffusing.samplers.facts import FACTS

TABLE_BUDGETS = (6, 10, 20, 40)
ALIKE = 1.5  # times the floor: samples of one limit, 16 or 32 pictures of them, are not told apart
PANELS = {
    "mixture, SDXL": "SDXL, closed-form mixture",
    "demo, SDXL": "SDXL demo model",
    "mixture, FLUX": "FLUX, closed-form mixture",
    "demo, FLUX": "FLUX demo model",
}
OWN_GRID = "own grid, FLUX"  # on the scheduler's grid, against the same limit


def points(data: Data, model: str, sampler: str) -> list[tuple[float, float]]:
    """(evaluations, error), by evaluations."""
    return sorted((row["evaluations"], row["error"]) for row in select(data, model=model, sampler=sampler))


def reference(data: Data, model: str, stochastic: bool) -> Row:
    """The row of the limit: its floor and, of a demo model with noise, the distance of results without noise."""
    return select(data, model=model, sampler="reference", stochastic=stochastic)[0]


def slope(data: Data, model: str, sampler: str) -> float | None:
    """The fitted one; dpm_adaptive has no step to take it against.

    With noise the limit may itself be off the mixture; the least distance that any sampler came to bounds that.
    """
    if FACTS[sampler].get("adaptive"):
        return None
    stochastic = FACTS[sampler]["stochastic"]
    floor = reference(data, model, stochastic)["floor"]
    if stochastic:
        noisy = [name for name, other in FACTS.items() if other["stochastic"]]
        floor = max(floor, min(error for name in noisy for _, error in points(data, model, name)))
    return fitted_slope(points(data, model, sampler), floor)


def least(data: Data, model: str, stochastic: bool, budget: int) -> dict[str, float]:
    """Each sampler's least error among runs of no more evaluations."""
    names = [name for name, facts in FACTS.items() if facts["stochastic"] == stochastic]
    errors = {name: [error for n, error in points(data, model, name) if n <= budget] for name in names}
    return {name: min(found) for name, found in errors.items() if found}


def at_the_floor(data: Data, model: str, budget: int) -> list[str]:
    """The samplers that add noise and are as near to the limit as its own samples are."""
    level = ALIKE * reference(data, model, True)["floor"]
    return [name for name, error in least(data, model, True, budget).items() if error <= level]


def nearest(data: Data, model: str, stochastic: bool, budget: int) -> list[str]:
    """The two samplers with the smallest error, the nearest first; with noise all at the floor, if there are any."""
    if stochastic and (alike := at_the_floor(data, model, budget)):
        return alike
    found = least(data, model, stochastic, budget)
    return sorted(found, key=lambda name: (found[name], name))[:2]


def best(data: Data, model: str, stochastic: bool, budget: int) -> str:
    """The nearest, with their errors."""
    if stochastic and (alike := at_the_floor(data, model, budget)):
        return f"at the floor: **{', '.join(alike)}**"
    first, second = nearest(data, model, stochastic, budget)
    found = least(data, model, stochastic, budget)
    return f"**{first}** {found[first]:.2g}, {second} {found[second]:.2g}"


def best_table(data: Data, family: str) -> str:
    models = [f"mixture, {family}", f"demo, {family}"]
    columns = [(name, stochastic) for stochastic in (False, True) for name in models]
    if family == "FLUX":
        columns.insert(2, (OWN_GRID, False))
    words = {False: "no noise", True: "adds noise"}
    head = ["evaluations", *(f"{words[stochastic]}: {name.split(',')[0]}" for name, stochastic in columns)]
    rows = [[str(n), *(best(data, *column, n) for column in columns)] for n in TABLE_BUDGETS]
    return markdown_table(head, rows)


def slope_table(data: Data) -> str:
    rows = []
    for name, facts in FACTS.items():
        slopes = (slope(data, model, name) for model in PANELS)
        cells = ("" if found is None else f"{found:.1f}" for found in slopes)
        rows.append([name, "yes" if facts["stochastic"] else "no", str(facts["order"]), *cells])
    return markdown_table(["sampler", "adds noise", "published order", *PANELS], rows)


def floor_table(data: Data) -> str:
    rows = []
    for model in PANELS:
        noisy = reference(data, model, True)
        ode = f"{noisy['no noise added']:.2g}" if "no noise added" in noisy else ""
        rows.append([model, f"{reference(data, model, False)['floor']:.1g}", f"{noisy['floor']:.2g}", ode])
    head = ["model", "no noise: two references apart", "adds noise: samples of the limit", "results without noise"]
    return markdown_table(head, rows)


def floor(data: Data, model: str, of: str) -> str:
    """One value of the table: with noise the floor, or where the results without noise are."""
    return f"{reference(data, model, True)[of]:.2g}"


def draw_panel(axes, data: Data, model: str, stochastic: bool) -> None:
    """One model's lines, each with its name and slope at its end."""
    floor = reference(data, model, stochastic)["floor"]
    axes.axhspan(floor / 1e3, floor, color="#eeeeee", zorder=0)
    names = [name for name, facts in FACTS.items() if facts["stochastic"] == stochastic]
    ends = []
    for name in names:
        colour, marker = LOOKS[name]
        line = points(data, model, name)
        style = "--" if stochastic else "-"
        axes.plot(*zip(*line, strict=True), style, color=colour, marker=marker, markersize=4.5, linewidth=1.3)
        ends.append(line[-1])
    axes.set(xscale="log", yscale="log", title=PANELS[model], xlim=(2.7, 190), ylim=error_range(data, stochastic))
    axes.set_xticks([4, 10, 20, 40, 80, 160], labels=["4", "10", "20", "40", "80", "160"])
    axes.minorticks_off()
    _label_lines(axes, data, model, names, ends)


def error_range(data: Data, stochastic: bool) -> tuple[float, float]:
    """Of the error axis, the same in all panels; runs that went astray leave it at the top."""
    floors = [reference(data, model, stochastic)["floor"] for model in PANELS]
    return min(floors) / 2, 3.0


def _label_lines(axes, data: Data, model: str, names: list[str], ends: list[tuple[float, float]]) -> None:
    low, high = axes.get_ylim()
    heights = [math.log(error / low) / math.log(high / low) for _, error in ends]
    placed = spread(heights, gap=0.068, low=0.01, high=0.99)
    for name, end, height in zip(names, ends, placed, strict=True):
        found, colour = slope(data, model, name), LOOKS[name][0]
        axes.annotate(
            name if found is None else f"{name}  {found:.1f}",
            end,
            (1.03, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            annotation_clip=False,
        )


def figure(data: Data, stochastic: bool):
    plot = pyplot()
    drawn, panels = plot.subplots(2, 2, figsize=(WIDTH, 7.6))
    for axes, model in zip(panels.flat, PANELS, strict=True):
        draw_panel(axes, data, model, stochastic)
        axes.set_xlabel("network evaluations")
        distance = "W1 to the mixture" if "mixture" in model else "sliced W1 to fine runs, relative"
        axes.set_ylabel(distance if stochastic else "RMS error, relative")
    kind = "Samplers that add noise" if stochastic else "Samplers that add no noise"
    drawn.suptitle(f"{kind}. Beside the name: the slope over 20 evaluations and more", fontsize=11)
    drawn.subplots_adjust(left=0.075, right=0.835, top=0.92, bottom=0.065, wspace=1.02, hspace=0.3)
    return drawn
