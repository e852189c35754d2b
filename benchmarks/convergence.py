"""How every sampler's error falls with network evaluations.

On four models: the closed-form mixture as SDXL's UNet and as FLUX's transformer, and both demo models. All grids of a
model have the same first and last sigma above 0, so that a sampler's results tend to one limit.

Samplers that add no noise: the final latents' RMS difference from the probability-flow ODE's solution from the same
noise, over its RMS. Samplers that add noise: a distance in distribution. On the mixture W1 to it; on the demo models
the sliced W1 of 2x2 patches to latents of fine runs, over their RMS.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from benchmarks import convergence_figures as shown
from benchmarks import convergence_words as words
from benchmarks.demos import SEED, demo_pipeline, runs
from benchmarks.errors import geometric_mean, patches, relative_rms, sliced_distance
from benchmarks.record import Benchmark, Row
from k_diffusing.samplers.facts import FACTS

TOLERANCES = (8.0, 2.0, 0.5, 0.125)  # dpm_adaptive's, times its defaults
REFERENCES = (("dpmpp_2m", 1000), ("heun", 500))  # the limit of those without noise; the second checks the first
FINE = (("dpmpp_2m_sde", 100), ("dpmpp_sde", 50), ("dpmpp_2m_sde", 100), ("dpmpp_sde", 50))  # and of the others, in
# distribution: four sets, each with seeds of its own; on average one's distance to the other three is the floor
FLOW_RANGE = (0.995, 0.03)  # flow times: where VE coordinates start; about SDXL's smallest sigma


class Model(NamedTuple):
    """What is run of a model.

    budgets, noisy_budgets: network evaluations allowed to a sampler that adds no noise, and to one that does.
    images, noisy_images: how many latents each gives; of a mixture, the side of the one. own_grid: on the scheduler's
    grid, against the same limit.
    """

    family: str
    demo: str | None
    budgets: tuple[int, ...]
    noisy_budgets: tuple[int, ...]
    images: int
    noisy_images: int
    own_grid: bool = False


CLOSED = ((4, 6, 10, 20, 40, 80, 160), (4, 6, 10, 20, 40, 80, 160), 32, 256)
TRAINED = ((4, 6, 10, 20, 40, 80), (6, 10, 20, 40), 4)
MODELS = {
    "mixture, SDXL": Model("sdxl", None, *CLOSED),
    "mixture, FLUX": Model("flux", None, *CLOSED),
    "demo, SDXL": Model("sdxl", "demo", *TRAINED, 32),
    "demo, FLUX": Model("flux", "demo-flux", *TRAINED, 16),
    shown.OWN_GRID: Model("flux", "demo-flux", (6, 10, 20, 40), (), 4, 0, own_grid=True),
}


def cells() -> list[Row]:
    """For each model and kind of samplers: the reference, and each sampler by its budgets or its tolerances."""
    found = []
    for name, model in MODELS.items():
        for stochastic in (False, True):
            rows = []
            for sampler, facts in FACTS.items():
                if facts["stochastic"] == stochastic:
                    rows += [{"model": name, "sampler": sampler, "setting": each} for each in settings(model, facts)]
            if rows:
                found += [{"model": name, "sampler": "reference", "stochastic": stochastic}, *rows]
    return found


def settings(model: Model, facts: dict[str, Any]) -> tuple:
    """Budgets of evaluations, or dpm_adaptive's tolerances."""
    if facts.get("adaptive"):
        return TOLERANCES
    return model.noisy_budgets if facts["stochastic"] else model.budgets


def is_stochastic(cell: Row) -> bool:
    return cell["stochastic"] if cell["sampler"] == "reference" else FACTS[cell["sampler"]]["stochastic"]


def flow_karras(schedule, n: int):
    """Karras' grid for sigma = t / (1 - t), in flow time: the same FLOW_RANGE whatever n."""
    import torch

    first, last = ((t / (1 - t)) ** (1 / 7) for t in FLOW_RANGE)
    sigmas = torch.linspace(first, last, n, dtype=torch.float64) ** 7
    return torch.cat([sigmas / (1 + sigmas), sigmas.new_zeros(1)]).float()


GRIDS: dict[str, str | Callable] = {"sdxl": "karras", "flux": flow_karras}


def rounded(value: float, digits: int = 4) -> float:
    """For the data file."""
    return float(f"{value:.{digits}g}")


class Bench:
    """A model's pipeline, and final latents from it."""

    def __init__(self, model: Model):
        import torch

        from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl

        torch.set_num_threads(1)
        self.model = model
        oracle = oracle_sdxl if model.family == "sdxl" else oracle_flux
        self.pipe = demo_pipeline(model.demo) if model.demo else oracle()

    def draw(self, sampler: str, steps: int, images: int, seed: int = SEED, options=None, own_grid: bool = False):
        """Final latents, and the network evaluations they took."""
        import torch

        from k_diffusing.models import DEMOS
        from k_diffusing.oracle.closed_form import draw
        from k_diffusing.trace.record import Trace

        trace, evaluations, latents = Trace(), 0.0, []
        grid = None if own_grid else GRIDS[self.model.family]
        call = {"sampler_options": options, "sigma_grid": grid, "trace": trace}
        if self.model.demo is None:
            return draw(self.pipe, sampler, steps, seed, side=images, **call), len(trace.calls)
        call |= {**DEMOS[self.model.demo].call, "comfy_sampler": sampler, "num_inference_steps": steps}
        for scenes, found in runs(self.pipe, call, images, seed, output_type="latent"):
            latents.append(found)
            evaluations += len(trace.calls) * len(scenes) / images
        return torch.cat(latents), evaluations


def arguments_of(sampler: str, setting: float) -> tuple[int, dict | None]:
    """Steps and options."""
    from k_diffusing.render.checks import solver_of
    from samplers_patch import SAMPLERS

    if SAMPLERS[sampler].adaptive:
        return 20, {"rtol": 0.05 * setting, "atol": 0.0078 * setting}  # on these grids the steps do not matter
    return solver_of(SAMPLERS[sampler]).steps_within(int(setting)), None


@functools.cache
def limits(demo: str | None, family: str, images: int) -> tuple[Any, Any]:
    """What the samplers that add no noise tend to, twice: by the two REFERENCES."""
    model = next(model for model in MODELS.values() if (model.demo, model.family) == (demo, family))
    bench = Bench(model)
    first, second = (bench.draw(sampler, steps, images)[0] for sampler, steps in REFERENCES)
    return first, second


def judge_without_noise(bench: Bench) -> tuple[Callable[[Any], dict[str, Any]], dict[str, float]]:
    """The error of latents, and how well two references agree, which is the floor."""
    reference, check = limits(bench.model.demo, bench.model.family, bench.model.images)

    def judge(latents: Any) -> dict[str, Any]:
        errors = relative_rms(latents, reference)
        return {"error": rounded(geometric_mean(errors)), "errors": [rounded(error, 3) for error in errors]}

    return judge, {"floor": rounded(geometric_mean(relative_rms(check, reference)))}


def judge_with_noise(bench: Bench) -> tuple[Callable[[Any], dict[str, Any]], dict[str, float]]:
    """The distance of latents, and the one that samples of the limit itself have, the floor."""
    import torch

    from k_diffusing.oracle.mixture import exact_samples, wasserstein

    count = bench.model.noisy_images
    if bench.model.demo is None:
        exact = [wasserstein(exact_samples(4 * count**2, seed)) for seed in range(16)]
        return lambda latents: {"error": rounded(wasserstein(latents))}, {"floor": rounded(sum(exact) / len(exact))}
    sets = [patches(bench.draw(*fine, count, seed=2000 + 100 * k)[0]) for k, fine in enumerate(FINE)]
    rms = float(torch.cat(sets).square().mean().sqrt())
    rest = [torch.cat([other for other in sets if other is not one]) for one in sets]

    def distance(latents: Any) -> float:
        return sum(sliced_distance(patches(latents), others) for others in rest) / len(rest) / rms

    floor = sum(sliced_distance(one, others) for one, others in zip(sets, rest, strict=True)) / len(sets) / rms
    ode = distance(bench.draw("dpmpp_2m", 40, count)[0])
    levels = {"floor": rounded(floor), "no noise added": rounded(ode)}
    return lambda latents: {"error": rounded(distance(latents))}, levels


def measure(cells: list[Row]) -> Iterable[Row]:
    """A model's reference is made anew if any of its rows is missing."""
    for (name, stochastic), group in itertools.groupby(cells, lambda cell: (cell["model"], is_stochastic(cell))):
        bench = Bench(MODELS[name])
        judge, levels = judge_with_noise(bench) if stochastic else judge_without_noise(bench)
        for cell in group:
            yield cell | (levels if cell["sampler"] == "reference" else at_setting(bench, cell, judge))


def at_setting(bench: Bench, cell: Row, judge: Callable) -> Row:
    """The evaluations and the error of a sampler at one setting."""
    steps, options = arguments_of(cell["sampler"], cell["setting"])
    images = bench.model.noisy_images if is_stochastic(cell) else bench.model.images
    latents, evaluations = bench.draw(cell["sampler"], steps, images, options=options, own_grid=bench.model.own_grid)
    return {"evaluations": round(evaluations, 2), **judge(latents)}


BENCHMARK = Benchmark(
    name="convergence",
    about="Every sampler's error by network evaluations, on closed-form models and on the demo models.",
    takes="45 minutes",
    cells=cells,
    measure=measure,
    settings={"seed": SEED},
    models=("demo", "demo-flux"),
    tables={
        "best-sdxl": partial(shown.best_table, family="SDXL"),
        "best-flux": partial(shown.best_table, family="FLUX"),
        "floors": shown.floor_table,
        "floor": partial(shown.floor, model="demo, SDXL", of="floor"),
        "noiseless": partial(shown.floor, model="demo, SDXL", of="no noise added"),
        "slopes": shown.slope_table,
        "nearest": partial(words.told_most_often, models=words.DEMOS, stochastic=False),
        "nearest-sdxl": partial(words.told_most_often, models=("demo, SDXL",), stochastic=True),
        "nearest-flux": partial(words.told_most_often, models=("demo, FLUX",), stochastic=True),
        "flux-grid": words.flux_grid,
        "six": lambda data: f"{min(shown.least(data, 'demo, SDXL', False, 6).values()):.2g}",
        "overtake-sdxl": partial(words.overtake, model="demo, SDXL"),
        "overtake-flux": partial(words.overtake, model="demo, FLUX"),
        "six-heun": lambda data: f"{words.error_at(data, 'demo, SDXL', 'heun', 6):.2g}",
        "six-euler": lambda data: f"{words.error_at(data, 'demo, SDXL', 'euler', 6):.2g}",
        "dpm-fast": partial(words.firsts, sampler="dpm_fast"),
        "scatter": words.scatter,
        "at-floor-sdxl": partial(words.noisy_at_the_floor, model="demo, SDXL", budget=40),
        "at-floor-flux": partial(words.noisy_at_the_floor, model="demo, FLUX", budget=20),
    },
    pictures={
        "convergence.png": partial(shown.figure, stochastic=False),
        "convergence-noise.png": partial(shown.figure, stochastic=True),
    },
)
