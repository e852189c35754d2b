"""How well the pictures keep to their captions, for every sampler.

Both demo models, 64 captions, one seed for each; what a picture shows is read by demo_models/shapes.py. A sampler is
given at most 6, 12 and 24 network evaluations (a guided pair counts as one), so that a two-stage sampler makes half as
many steps; dpm_adaptive takes what its tolerance needs. The sigma grid is that of the scripts: the scheduler's own,
Karras' for dpmpp_3m_sde. "flux, older" passes the velocity to the sampler in place of the denoised latents;
"sdxl, karras" gives all samplers Karras' grid.
"""

from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.demos import ALL, CAPTIONS, READ, SEED, demo_pipeline, kept, runs
from benchmarks.intervals import wilson
from benchmarks.pages import listed, markdown_table
from benchmarks.record import Benchmark, Data, Row
from benchmarks.style import WIDTH, pyplot
from k_diffusing.samplers.facts import FACTS

BUDGETS = (6, 12, 24)  # network evaluations
TOLERANCES = {"rtol=0.4": {"rtol": 0.4, "atol": 0.0624}, "rtol=0.05": {"rtol": 0.05, "atol": 0.0078}}  # 2nd: default
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdxl": ("demo", {}),
    "flux": ("demo-flux", {}),
    "flux, older": ("demo-flux", {"flow_coordinates": "velocity"}),
    "sdxl, karras": ("demo", {"sigma_grid": "karras"}),
}
# Those that use the denoised latents, not the derivative alone; the older way hands them a velocity.
OF_DENOISED = ("dpm_fast", "dpm_adaptive", *(name for name in FACTS if name.startswith("dpmpp")))


def cells() -> list[Row]:
    """Model, sampler and, of it, a budget of evaluations or dpm_adaptive's tolerance."""
    found = []
    for model in MODELS:
        for name, facts in FACTS.items():
            settings = TOLERANCES if facts.get("adaptive") else BUDGETS
            found += [{"model": model, "sampler": name, "setting": setting} for setting in settings]
    return found


def keywords(case: Row) -> dict[str, Any]:
    """The pipeline's, for one case."""
    from k_diffusing.models import DEMOS
    from k_diffusing.render.checks import solver_of
    from samplers_patch import SAMPLERS

    sampler, setting = SAMPLERS[case["sampler"]], case["setting"]
    demo, of_model = MODELS[case["model"]]
    steps = max(BUDGETS) if sampler.adaptive else solver_of(sampler).steps_within(setting)
    options = TOLERANCES[setting] if sampler.adaptive else None
    own = {"comfy_sampler": sampler.name, "sampler_options": options, "sigma_grid": sampler.sigma_grid}
    return DEMOS[demo].call | own | of_model | {"num_inference_steps": steps}


def measure(cells: list[Row]) -> Iterable[Row]:
    pipe, loaded = None, None
    for cell in cells:
        demo = MODELS[cell["model"]][0]
        if loaded != demo:
            pipe, loaded = demo_pipeline(demo), demo
        yield cell | captions_kept(pipe, keywords(cell))


def captions_kept(pipe, call: dict[str, Any]) -> Row:
    """The evaluations of a call, and how many captions it keeps to."""
    from k_diffusing.trace.record import Trace

    trace, evaluations, right = Trace(), 0.0, dict.fromkeys((*READ.values(), ALL), 0)
    for scenes, pictures in runs(pipe, {**call, "trace": trace}, CAPTIONS):
        evaluations += len(trace.calls) * len(scenes) / CAPTIONS
        right = {word: count + right[word] for word, count in kept(scenes, pictures).items()}
    return {"evaluations": round(evaluations, 2), "right": right}


# The table and the figure.

TITLES = {"sdxl": "SDXL demo", "flux": "FLUX demo", "flux, older": "FLUX demo, older"}
SHADES = ("#f2b134", "#d1495b", "#30336b")  # by how many evaluations


def shade(row: Row) -> int:
    """Which of SHADES: that of the budget, and for dpm_adaptive the upper two."""
    settings = (None, *TOLERANCES) if row["setting"] in TOLERANCES else BUDGETS
    return settings.index(row["setting"])


def of(data: Data, model: str, sampler: str) -> list[Row]:
    """By evaluations."""
    return sorted(select(data, model=model, sampler=sampler), key=lambda row: row["evaluations"])


def table(data: Data, model: str, samplers: Iterable[str] = FACTS) -> str:
    """A line each sampler: of 64 captions, those right in background, colour, shape and count, by budget."""
    rows = []
    for name in samplers:
        texts, found = [""] * len(BUDGETS), of(data, model, name)
        for row in found:
            right = " ".join(str(row["right"][word]) for word in READ.values())
            taken = f" ({row['evaluations']:.0f})" if row["setting"] in TOLERANCES else ""
            texts[shade(row)] = right + taken
        last = found[-1]["right"][ALL]
        low, high = wilson(last, CAPTIONS)
        rows.append([name, *texts, f"{last} [{low:.2f}, {high:.2f}]"])
    head = ["sampler", *(f"{budget} evaluations" for budget in BUDGETS), "all four right, in the last column"]
    return markdown_table(head, rows)


def as_good(data: Data, model: str, column: int) -> tuple[list[int], list[str]]:
    """In a column of the table: the captions of the samplers that are as good as the best, and who is not.

    As good: all four words are right in as many captions as the best one's 95 % interval has at least.
    """
    found = {row["sampler"]: row["right"][ALL] for row in select(data, model=model) if shade(row) == column}
    least = CAPTIONS * wilson(max(found.values()), CAPTIONS)[0]
    kept_to = sorted(right for right in found.values() if right >= least)
    return kept_to, [name for name, right in found.items() if right < least]


def as_good_table(data: Data) -> str:
    """A model, a grid and a number of evaluations a line."""
    rows = []
    for model, title in {**TITLES, "sdxl, karras": "SDXL demo, Karras' grid"}.items():
        for column, budget in enumerate(BUDGETS):
            good, others = as_good(data, model, column)
            count = how_many_as_good(data, model, column)
            rows.append([title, str(budget), count, between(good), ", ".join(others) or "none"])
    head = ["", "evaluations", "as good as the best", "captions they keep", "the others"]
    return markdown_table(head, rows)


def how_many_as_good(data: Data, model: str, column: int) -> str:
    good, others = as_good(data, model, column)
    return f"{len(good)} of {len(good) + len(others)}"


def between(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def misled(data: Data) -> str:
    """The most captions that one of OF_DENOISED keeps the older way."""
    rows = [row for row in select(data, model="flux, older") if row["sampler"] in OF_DENOISED]
    return str(max(row["right"][ALL] for row in rows))


def first(data: Data, model: str) -> str:
    """The samplers that keep the most captions with the fewest evaluations, and how many that are."""
    rows = select(data, model=model, setting=BUDGETS[0])
    most = max(row["right"][ALL] for row in rows)
    return f"{listed(row['sampler'] for row in rows if row['right'][ALL] == most)}, with {most} of {CAPTIONS}"


def draw_panel(axes, data: Data, model: str, word: str) -> None:
    """Shares of one word with their intervals: a line of dots each sampler, one dot each budget."""
    for place, name in enumerate(FACTS):
        for row in of(data, model, name):
            height, right = place + 0.26 * (shade(row) - 1), row["right"][word]
            colour = SHADES[shade(row)]
            axes.plot(wilson(right, CAPTIONS), (height, height), color=colour, linewidth=1.0)
            axes.plot(right / CAPTIONS, height, "o", color=colour, markersize=3.2)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(FACTS) - 0.4, -0.6))
    axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    axes.set_yticks(range(len(FACTS)), labels=list(FACTS))
    axes.tick_params(length=0)


def figure(data: Data):
    plot = pyplot()
    drawn, panels = plot.subplots(3, 4, figsize=(WIDTH, 9.6), sharex=True, sharey=True)
    for line, model in zip(panels, TITLES, strict=True):
        for axes, word in zip(line, READ.values(), strict=True):
            draw_panel(axes, data, model, word)
            if model == "sdxl":
                axes.set_title(word)
        line[-1].text(1.06, 0.5, TITLES[model], transform=line[-1].transAxes, rotation=270, va="center", fontsize=11)
    budgets = [f"at most {budget} evaluations" for budget in BUDGETS]
    handles = [plot.Line2D([], [], color=c, marker="o", markersize=4, linewidth=1) for c in SHADES]
    drawn.legend(handles, budgets, loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.55, 0.998))
    drawn.supxlabel("share of 64 captions, with 95 % intervals", fontsize=9, x=0.55, y=0.006)
    drawn.subplots_adjust(left=0.165, right=0.955, top=0.94, bottom=0.045, wspace=0.08, hspace=0.06)
    return drawn


BENCHMARK = Benchmark(
    name="adherence",
    about="How many of 64 captions the demo models' pictures keep to, by sampler and evaluations.",
    takes="half an hour",
    cells=cells,
    measure=measure,
    settings={"captions": CAPTIONS, "seed": SEED},
    models=("demo", "demo-flux"),
    tables={
        "sdxl": lambda data: table(data, "sdxl"),
        "sdxl-karras": lambda data: table(data, "sdxl, karras"),
        "flux": lambda data: table(data, "flux"),
        "flux-older": lambda data: table(data, "flux, older"),
        "as-good": as_good_table,
        "flux-12": lambda data: how_many_as_good(data, "flux", 1),
        "flux-24": lambda data: how_many_as_good(data, "flux", 2),
        "flux-older-misled": misled,
        "sdxl-first": lambda data: first(data, "sdxl"),
    },
    pictures={"adherence.png": figure},
)
