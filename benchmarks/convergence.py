"""How every sampler's error falls with network evaluations: docs/convergence.json, two figures and the tables.

    python benchmarks/convergence.py          # measures what docs/convergence.json lacks, then draws
    python benchmarks/convergence.py --draw   # draws only

On four models: the closed-form mixture as SDXL's UNet and as FLUX's transformer, and both demo models. All grids of a
model have the same first and last sigma above 0, so that a sampler's results tend to one limit.

Samplers that add no noise: the final latents' RMS difference from the probability-flow ODE's solution from the same
noise, over its RMS. Samplers that add noise: a distance in distribution. On the mixture W1 to it; on the demo models
the sliced W1 of 2x2 patches to latents of fine runs, over their RMS.
"""

import functools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402
import torch  # noqa: E402

from k_diffusing.render.checks import solver_of  # noqa: E402
from samplers_patch import SAMPLERS, Sampler  # noqa: E402

DATA, PAGE = ROOT / "docs" / "convergence.json", ROOT / "docs" / "convergence.md"
PICTURES = {
    False: ROOT / "docs" / "images" / "convergence.png",
    True: ROOT / "docs" / "images" / "convergence-noise.png",
}
TOLERANCES = (8.0, 2.0, 0.5, 0.125)  # dpm_adaptive's, times its defaults
REFERENCES = (("dpmpp_2m", 1000), ("heun", 500))  # the limit of those without noise; the second checks the first
FINE = (("dpmpp_2m_sde", 100), ("dpmpp_sde", 50), ("dpmpp_2m_sde", 100), ("dpmpp_sde", 50))  # and of the others, in
# distribution: four sets, each with seeds of its own; on average one's distance to the other three is the floor
FLOW_RANGE = (0.995, 0.03)  # flow times: where VE coordinates start; about SDXL's smallest sigma
SEED, PROJECTIONS, BATCH = 1000, 64, 16


class Model(NamedTuple):
    """budgets, noisy_budgets: network evaluations allowed to a sampler that adds no noise, and to one that does.
    images, noisy_images: how many latents each gives; of a mixture, the side of the one. own_grid: on the scheduler's
    grid, against the same limit."""

    family: str
    title: str
    demo: str | None
    budgets: tuple[int, ...]
    noisy_budgets: tuple[int, ...]
    images: int
    noisy_images: int
    own_grid: bool = False


CLOSED = ((4, 6, 10, 20, 40, 80, 160), (4, 6, 10, 20, 40, 80, 160), 32, 256)
TRAINED = ((4, 6, 10, 20, 40, 80), (6, 10, 20, 40), 4)
MODELS = {
    "mixture, SDXL": Model("sdxl", "SDXL, closed-form mixture", None, *CLOSED),
    "mixture, FLUX": Model("flux", "FLUX, closed-form mixture", None, *CLOSED),
    "demo, SDXL": Model("sdxl", "SDXL demo model", "demo", *TRAINED, 32),
    "demo, FLUX": Model("flux", "FLUX demo model", "demo-flux", *TRAINED, 16),
    "own grid, FLUX": Model("flux", "FLUX demo model", "demo-flux", (6, 10, 20, 40), (), 4, 0, own_grid=True),
}


def flow_karras(schedule, n: int) -> torch.Tensor:
    """Karras' grid for sigma = t / (1 - t), in flow time: the same FLOW_RANGE whatever n."""
    ends = ((t / (1 - t)) ** (1 / 7) for t in FLOW_RANGE)
    sigmas = torch.linspace(*ends, n, dtype=torch.float64) ** 7
    return torch.cat([sigmas / (1 + sigmas), sigmas.new_zeros(1)]).float()


GRIDS: dict[str, str | Callable] = {"sdxl": "karras", "flux": flow_karras}


def relative_rms(found: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """RMS of the difference, over that of the reference, of each image: latents [B, ...]."""
    found, reference = found.double().flatten(1), reference.double().flatten(1)
    return ((found - reference).square().mean(1) / reference.square().mean(1)).sqrt().tolist()


def rounded(value: float) -> float:
    """To four digits, for the data file."""
    return float(f"{value:.4g}")


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def patches(latents: torch.Tensor) -> torch.Tensor:
    """The 2x2 patches of four channels, [n, 16]: FLUX's tokens [B, tokens, 16] as they are, SDXL's [B, 4, h, w] cut."""
    if latents.ndim == 4:
        latents = torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)
    return latents.reshape(-1, latents.shape[-1]).double()


def sliced_distance(a: torch.Tensor, b: torch.Tensor, seed: int = 0) -> float:
    """Sliced Wasserstein-1 distance of two sets of vectors, [n, d] and [m, d]: the mean over random directions."""
    directions = torch.randn(a.shape[1], PROJECTIONS, generator=torch.Generator().manual_seed(seed)).to(a)
    directions /= directions.norm(dim=0)
    p = (torch.arange(1024, dtype=torch.float64) + 0.5) / 1024
    quantiles = (torch.quantile(x @ directions, p, dim=0) for x in (a, b))
    first, second = quantiles
    return float((first - second).abs().mean())


def fitted_slope(points: list[tuple[float, float]], floor: float) -> float | None:
    """-d log(error) / d log(evaluations) by least squares, over 20 evaluations and more and over three times the floor.

    None where fewer than two points are left.
    """
    kept = [(math.log(n), math.log(error)) for n, error in points if n >= 19 and error > 3 * floor]
    if len(kept) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(kept) for values in zip(*kept, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in kept)
    return -covariance / sum((x - mean_x) ** 2 for x, _ in kept)


# Runs.


class Bench:
    """A model's pipeline, and final latents from it."""

    def __init__(self, model: Model):
        from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl

        self.model = model
        oracle = oracle_sdxl if model.family == "sdxl" else oracle_flux
        self.pipe = figure_style.demo_pipeline(model.demo) if model.demo else oracle()

    def draw(self, sampler: str, steps: int, images: int, seed: int = SEED, options=None, own_grid: bool = False):
        """Final latents, and the network evaluations they took."""
        from k_diffusing.oracle.closed_form import draw
        from k_diffusing.trace.record import Trace

        trace, evaluations, latents = Trace(), 0.0, []
        grid = None if own_grid else GRIDS[self.model.family]
        call = {"sampler_options": options, "sigma_grid": grid, "trace": trace}
        if self.model.demo is None:
            return draw(self.pipe, sampler, steps, seed, side=images, **call), len(trace.calls)
        for first in range(0, images, BATCH):
            count = min(BATCH, images - first)
            latents.append(self._draw_batch(sampler, steps, range(first, first + count), seed, call))
            evaluations += len(trace.calls) * count / images
        return torch.cat(latents), evaluations

    def _draw_batch(self, sampler: str, steps: int, which: range, seed: int, call: dict) -> torch.Tensor:
        from shapes import evaluation_scenes

        from k_diffusing.models import DEMOS

        scenes, guidance = evaluation_scenes(64), dict(DEMOS[self.model.demo].call)
        if "negative_prompt" in guidance:
            guidance["negative_prompt"] = [guidance["negative_prompt"]] * len(which)
        return self.pipe(
            [scenes[i].caption for i in which],
            **guidance,
            **call,
            comfy_sampler=sampler,
            num_inference_steps=steps,
            output_type="latent",
            generator=[torch.Generator().manual_seed(seed + i) for i in which],
        ).images


def settings(model: Model, sampler: Sampler) -> tuple:
    """Budgets of evaluations, or dpm_adaptive's tolerances."""
    if sampler.adaptive:
        return TOLERANCES
    return model.noisy_budgets if sampler.stochastic else model.budgets


def arguments_of(sampler: Sampler, setting: float) -> tuple[int, dict | None]:
    """Steps and options."""
    if sampler.adaptive:
        return 20, {"rtol": 0.05 * setting, "atol": 0.0078 * setting}  # on these grids the steps do not matter
    return solver_of(sampler).steps_within(setting), None


@functools.cache
def limits(demo: str | None, family: str, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the samplers that add no noise tend to, twice: by the two REFERENCES."""
    model = next(model for model in MODELS.values() if (model.demo, model.family) == (demo, family))
    bench = Bench(model)
    first, second = (bench.draw(sampler, steps, images)[0] for sampler, steps in REFERENCES)
    return first, second


def judge_without_noise(bench: Bench) -> tuple[Callable[[torch.Tensor], dict[str, Any]], dict[str, float]]:
    """The error of latents, and how well two references agree, which is the floor."""
    reference, check = limits(bench.model.demo, bench.model.family, bench.model.images)

    def judge(latents: torch.Tensor) -> dict[str, Any]:
        errors = relative_rms(latents, reference)
        return {"error": rounded(geometric_mean(errors)), "errors": [float(f"{error:.3g}") for error in errors]}

    return judge, {"floor": rounded(geometric_mean(relative_rms(check, reference)))}


def judge_with_noise(bench: Bench) -> tuple[Callable[[torch.Tensor], dict[str, Any]], dict[str, float]]:
    """The distance of latents, and the one that samples of the limit itself have, the floor."""
    from k_diffusing.oracle.mixture import exact_samples, wasserstein

    count = bench.model.noisy_images
    if bench.model.demo is None:
        exact = [wasserstein(exact_samples(4 * count**2, seed)) for seed in range(16)]
        return lambda latents: {"error": rounded(wasserstein(latents))}, {"floor": rounded(sum(exact) / len(exact))}
    sets = [patches(bench.draw(*fine, count, seed=2000 + 100 * k)[0]) for k, fine in enumerate(FINE)]
    rms = float(torch.cat(sets).square().mean().sqrt())
    rest = [torch.cat([other for other in sets if other is not one]) for one in sets]

    def distance(latents: torch.Tensor) -> float:
        return sum(sliced_distance(patches(latents), others) for others in rest) / len(rest) / rms

    floor = sum(sliced_distance(one, others) for one, others in zip(sets, rest, strict=True)) / len(sets) / rms
    ode = distance(bench.draw("dpmpp_2m", 40, count)[0])
    levels = {"floor": rounded(floor), "no noise added": rounded(ode)}
    return lambda latents: {"error": rounded(distance(latents))}, levels


def measure_missing(path: Path, models=tuple(MODELS), kinds: tuple[bool, ...] = (False, True)) -> None:
    """Fill the data file, row by row; a model's references are made anew if any of its rows is missing."""
    data = figure_style.read_data(path, {"seed": SEED})
    for name in models:
        for stochastic in kinds:
            samplers = [sampler for sampler in SAMPLERS.values() if sampler.stochastic == stochastic]
            done = {(row["sampler"], row.get("setting")) for row in data["rows"] if row["model"] == name}
            wanted = [(s, setting) for s in samplers for setting in settings(MODELS[name], s)]
            wanted = [(s, setting) for s, setting in wanted if (s.name, setting) not in done]
            if wanted:
                _measure(Bench(MODELS[name]), name, wanted, stochastic, data, path)


def _measure(bench: Bench, name: str, wanted: list, stochastic: bool, data: dict[str, Any], path: Path) -> None:
    start = time.monotonic()
    judge, levels = judge_with_noise(bench) if stochastic else judge_without_noise(bench)
    images = bench.model.noisy_images if stochastic else bench.model.images
    reference = {"model": name, "sampler": "reference", "stochastic": stochastic, **levels}
    same = ("model", "sampler", "stochastic")
    data["rows"] = [row for row in data["rows"] if any(row.get(key) != reference[key] for key in same)]
    data["rows"].append(reference | {"seconds": round(time.monotonic() - start, 1)})
    for sampler, setting in wanted:
        start = time.monotonic()
        steps, options = arguments_of(sampler, setting)
        latents, evaluations = bench.draw(sampler.name, steps, images, options=options, own_grid=bench.model.own_grid)
        row = {"model": name, "sampler": sampler.name, "setting": setting, "evaluations": round(evaluations, 2)}
        row |= judge(latents) | {"seconds": round(time.monotonic() - start, 1)}
        data["rows"].append(row)
        figure_style.write_data(path, data)
        print(row, flush=True)


# Tables and figures, from the data alone.

TABLE_BUDGETS = (6, 10, 20, 40)
ALIKE = 1.5  # times the floor: samples of one limit, 16 or 32 pictures of them, are not told apart
PANELS = ("mixture, SDXL", "demo, SDXL", "mixture, FLUX", "demo, FLUX")


def points(data: dict[str, Any], model: str, sampler: str) -> list[tuple[float, float]]:
    """(evaluations, error), by evaluations."""
    return sorted((row["evaluations"], row["error"]) for row in figure_style.rows_of(data, model, sampler))


def reference(data: dict[str, Any], model: str, stochastic: bool) -> dict[str, Any]:
    """The row of the limit: its floor and, of a demo model with noise, the distance of results without noise."""
    same = {"model": model, "sampler": "reference", "stochastic": stochastic}
    return next(row for row in data["rows"] if row | same == row)


def slope(data: dict[str, Any], model: str, sampler: str) -> float | None:
    """The fitted one; dpm_adaptive has no step to take it against.

    With noise the limit may itself be off the mixture; the least distance that any sampler came to bounds that.
    """
    if SAMPLERS[sampler].adaptive:
        return None
    stochastic = SAMPLERS[sampler].stochastic
    floor = reference(data, model, stochastic)["floor"]
    if stochastic:
        noisy = [name for name, other in SAMPLERS.items() if other.stochastic]
        floor = max(floor, min(error for name in noisy for _, error in points(data, model, name)))
    return fitted_slope(points(data, model, sampler), floor)


def best(data: dict[str, Any], model: str, stochastic: bool, budget: int) -> str:
    """The two samplers with the smallest error among runs of no more evaluations; with noise, all that are as near
    to the limit as its own samples are."""
    found = []
    for name, sampler in SAMPLERS.items():
        errors = [error for n, error in points(data, model, name) if n <= budget]
        if sampler.stochastic == stochastic and errors:
            found.append((min(errors), name))
    level = ALIKE * reference(data, model, stochastic)["floor"]
    alike = [name for error, name in found if error <= level]
    if stochastic and alike:
        return f"at the floor: **{', '.join(alike)}**"
    (error, name), (next_error, next_name) = sorted(found)[:2]
    return f"**{name}** {error:.2g}, {next_name} {next_error:.2g}"


def best_table(data: dict[str, Any], family: str) -> str:
    models = [f"mixture, {family}", f"demo, {family}"]
    columns = [(name, stochastic) for stochastic in (False, True) for name in models]
    if f"own grid, {family}" in MODELS:
        columns.insert(2, (f"own grid, {family}", False))
    words = {False: "no noise", True: "adds noise"}
    head = ["evaluations", *(f"{words[stochastic]}: {name.split(',')[0]}" for name, stochastic in columns)]
    rows = [[str(n), *(best(data, *column, n) for column in columns)] for n in TABLE_BUDGETS]
    return figure_style.markdown_table(head, rows)


def slope_table(data: dict[str, Any]) -> str:
    rows = []
    for name, sampler in SAMPLERS.items():
        slopes = (slope(data, model, name) for model in PANELS)
        cells = ("" if found is None else f"{found:.1f}" for found in slopes)
        rows.append([name, "yes" if sampler.stochastic else "no", str(sampler.order), *cells])
    return figure_style.markdown_table(["sampler", "adds noise", "published order", *PANELS], rows)


def floor_table(data: dict[str, Any]) -> str:
    rows = []
    for model in PANELS:
        noisy = reference(data, model, True)
        ode = f"{noisy['no noise added']:.2g}" if "no noise added" in noisy else ""
        rows.append([model, f"{reference(data, model, False)['floor']:.1g}", f"{noisy['floor']:.2g}", ode])
    head = ["model", "no noise: two references apart", "adds noise: samples of the limit", "results without noise"]
    return figure_style.markdown_table(head, rows)


def run_table(data: dict[str, Any]) -> str:
    return f"{figure_style.measured_by('convergence.py', data)} Seed {SEED}; picture i has generator {SEED} + i."


def blocks(data: dict[str, Any]) -> dict[str, str]:
    """What stands in docs/convergence.md between its comments."""
    tables = {f"best, {family}": best_table(data, family) for family in ("SDXL", "FLUX")}
    return tables | {"slopes": slope_table(data), "floors": floor_table(data), "run": run_table(data)}


def draw_panel(axes, data: dict[str, Any], model: str, stochastic: bool) -> None:
    """One model's lines, each with its name and slope at its end."""
    floor = reference(data, model, stochastic)["floor"]
    axes.axhspan(floor / 1e3, floor, color="#eeeeee", zorder=0)
    names = [name for name, sampler in SAMPLERS.items() if sampler.stochastic == stochastic]
    ends = []
    for name in names:
        colour, marker = figure_style.LOOKS[name]
        line = points(data, model, name)
        style = "--" if stochastic else "-"
        axes.plot(*zip(*line, strict=True), style, color=colour, marker=marker, markersize=4.5, linewidth=1.3)
        ends.append(line[-1])
    axes.set(xscale="log", yscale="log", title=MODELS[model].title, xlim=(2.7, 190), ylim=error_range(data, stochastic))
    axes.set_xticks([4, 10, 20, 40, 80, 160], labels=["4", "10", "20", "40", "80", "160"])
    axes.minorticks_off()
    _label_lines(axes, data, model, names, ends)


def error_range(data: dict[str, Any], stochastic: bool) -> tuple[float, float]:
    """Of the error axis, the same in all panels; runs that went astray leave it at the top."""
    floors = [reference(data, model, stochastic)["floor"] for model in PANELS]
    return min(floors) / 2, 3.0


def _label_lines(axes, data: dict[str, Any], model: str, names: list[str], ends: list[tuple[float, float]]) -> None:
    low, high = axes.get_ylim()
    heights = [math.log(error / low) / math.log(high / low) for _, error in ends]
    placed = figure_style.spread(heights, gap=0.068, low=0.01, high=0.99)
    for name, end, height in zip(names, ends, placed, strict=True):
        found, colour = slope(data, model, name), figure_style.LOOKS[name][0]
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


def draw_figure(data: dict[str, Any], stochastic: bool, path: Path) -> None:
    pyplot = figure_style.pyplot()
    figure, panels = pyplot.subplots(2, 2, figsize=(figure_style.WIDTH, 7.6))
    for axes, model in zip(panels.flat, PANELS, strict=True):
        draw_panel(axes, data, model, stochastic)
        axes.set_xlabel("network evaluations")
        distance = "W1 to the mixture" if "mixture" in model else "sliced W1 to fine runs, relative"
        axes.set_ylabel(distance if stochastic else "RMS error, relative")
    kind = "Samplers that add noise" if stochastic else "Samplers that add no noise"
    figure.suptitle(f"{kind}. Beside the name: the slope over 20 evaluations and more", fontsize=11)
    figure.subplots_adjust(left=0.075, right=0.835, top=0.92, bottom=0.065, wspace=1.02, hspace=0.3)
    figure_style.save(figure, path)


def main() -> None:
    if not figure_style.only_draw(__doc__):
        torch.set_num_threads(1)
        measure_missing(DATA)
    data = figure_style.read_data(DATA, {})
    for stochastic, path in PICTURES.items():
        draw_figure(data, stochastic, path)
    figure_style.fill_page(PAGE, blocks(data))
    print(f"drew {', '.join(path.name for path in PICTURES.values())} and filled {PAGE.name}")


if __name__ == "__main__":
    main()
