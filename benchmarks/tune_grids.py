"""What tuned sigma grids are worth on pictures that their choice did not see.

dpmpp_2m, euler and fitted are tuned on 32 captions. Then the chosen grid, the best with a name and Karras' make
pictures of 64 other captions: errors against fine runs, and the captions whose background, colour, shape and count are
right. dpmpp_2m runs on the best named grid with half as many evaluations more, too. The mixture is a closed-form model
that no choice in the method was made on.
"""

import functools
from collections.abc import Iterable
from typing import Any

from benchmarks.data import ROOT, select
from benchmarks.demos import ALL, BATCH, CAPTIONS, SEED, demo_pipeline, kept, network_of
from benchmarks.intervals import geometric
from benchmarks.pages import listed, markdown_table
from benchmarks.record import Benchmark, Data, Row

WORK = ROOT / "output" / "tune" / "benchmark"
PICTURES = 32
BUDGETS = (6, 8, 10, 20)  # evaluations
CASES = {  # model: samplers
    "demo": ("dpmpp_2m", "euler", "fitted"),
    "demo-flux": ("dpmpp_2m", "euler"),
    "mixture": ("dpmpp_2m", "euler", "fitted"),
}
MODELS = {"sdxl": "demo", "flux": "demo-flux", "mixture": "mixture"}  # by the part's name
TITLES = {"demo": "SDXL demo", "demo-flux": "FLUX demo", "mixture": "mixture"}
NAMED = ("karras", "named", "longer")  # grids with a name; the last with 1.5 times the evaluations
SIDE = 16  # of the mixture's latents
UNSEEN = ((0.2, 0.5, 0.3), (-2.0, 0.3, 1.5), (0.15, 0.4, 0.1))  # its weights, means and widths


def cells() -> list[Row]:
    return [
        {"model": model, "sampler": sampler, "evaluations": evaluations}
        for model, samplers in CASES.items() for sampler in samplers for evaluations in BUDGETS
    ]  # fmt: skip


def measure(cells: list[Row]) -> Iterable[Row]:
    for cell in cells:
        yield cell | worth(**cell)


def worth(model: str, sampler: str, evaluations: int) -> Row:
    """What was chosen, the errors of each of the grids, and how many captions are right."""
    from k_diffusing.tune.tune import tune_grid

    others, work = Others.of(model), WORK / model
    tuned = tune_grid(
        others.pipe, sampler, (evaluations,), call=others.call, prompts=others.prompts, pictures=PICTURES, folder=work
    )
    [found] = tuned.budgets
    grids = {"tuned": found.chosen.grid}
    if sampler != "fitted":  # which is compared with dpmpp_2m's
        grids |= {"named": found.best_named.grid, "karras": others.named("karras", found.steps)}
    if sampler == "dpmpp_2m":
        grids["longer"] = others.named(found.best_named.name, round(1.5 * found.steps))
    ends = {name: tuned.run(others.pictures, grid) for name, grid in grids.items()}
    row = {
        "chosen": found.chosen.name, "named": found.best_named.name,
        "sigmas": [float(f"{sigma:.6g}") for sigma in found.chosen.grid],
        "errors": {name: others.errors(one) for name, one in ends.items()},
    }  # fmt: skip
    if others.scenes:
        row["right"] = {name: others.right(ends[name]) for name in ("tuned", "named") if name in ends}
    return row


class Others:
    """Pictures of captions that no choice has seen: their fine run, and what they show."""

    def __init__(self, model: str):
        from shapes import evaluation_scenes

        from k_diffusing.model.fingerprint import fingerprint
        from k_diffusing.tune.book import Book
        from k_diffusing.tune.fine import FINE, Levels, fine_run
        from k_diffusing.tune.pictures import Pictures

        self.pipe, self.call, self.prompts = loaded(model)
        self.scenes = evaluation_scenes(CAPTIONS) if self.prompts else []
        captions = tuple(scene.caption for scene in self.scenes) or ("",) * CAPTIONS
        self.pictures = Pictures(self.pipe, self.call, captions, tuple(range(SEED, SEED + CAPTIONS)), BATCH)
        levels = Levels.of(self.pictures)
        book = Book(WORK / model, [CAPTIONS, SEED, fingerprint(network_of(self.pipe)), self.call], None)
        self.fine = book.fine("others", lambda: fine_run(self.pictures, levels, FINE, lambda _: None))

    @classmethod
    @functools.cache
    def of(cls, model: str) -> "Others":
        """Made once for a model."""
        return cls(model)

    def named(self, name: str, n: int) -> list[float]:
        """A grid with a name, or the scheduler's own."""
        from k_diffusing.tune.candidates import named_trials

        return next(trial.grid for trial in named_trials(self.pictures, n) if trial.name == name)

    def errors(self, ends) -> list[float]:
        """Of each picture, relative to the fine run's end."""
        found = (ends - self.fine.ends).norm(dim=1) / self.fine.ends.norm(dim=1)
        return [round(error, 5) for error in found.tolist()]

    def right(self, ends) -> int:
        """How many keep to their caption in background, colour, shape and count."""
        import torch

        size = self.call["height"], self.call["width"]
        with torch.no_grad():
            parts = [self.pipe.decode(part.reshape(-1, *self.fine.shape), *size, "np") for part in ends.split(BATCH)]
        return kept(self.scenes, [picture for part in parts for picture in part])[ALL]


def loaded(model: str) -> tuple[Any, dict[str, Any], list[str]]:
    """A pipeline, the keywords of its runs, and the prompts to tune with."""
    import torch
    from shapes import evaluation_scenes

    from k_diffusing.models import DEMOS
    from k_diffusing.tune.prompts import some_prompts

    if model != "mixture":
        held_out = {scene.caption for scene in evaluation_scenes(CAPTIONS)}
        prompts = [text for text in some_prompts(model, 2 * PICTURES + CAPTIONS) if text not in held_out]
        return demo_pipeline(model), DEMOS[model].call | {"noise": "torch"}, prompts[: 2 * PICTURES]
    from k_diffusing.oracle import closed_form
    from k_diffusing.oracle.mixture import Mixture

    closed_form.MIXTURE = Mixture(*UNSEEN)
    embeds = {"prompt_embeds": torch.zeros(1, 5, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
    return closed_form.oracle_sdxl(), {**embeds, "guidance_scale": 1.0, "height": 8 * SIDE, "width": 8 * SIDE}, []


def told(values: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*geometric(values))


def compared(data: Data, model: str) -> list[Row]:
    """A model's rows, with dpmpp_2m's named grids where the sampler has none: fitted."""
    rows, known = select(data, model=model), {}
    for row in rows:
        if row["sampler"] == "dpmpp_2m":
            known[row["evaluations"]] = row
    found = []
    for row in rows:
        other = row if "named" in row["errors"] else known[row["evaluations"]]
        both = {name: other.get(name, {}) | row.get(name, {}) for name in ("errors", "right")}
        found.append(row | both | {"named": other["named"]})
    return found


def ratios(row: Row, name: str) -> list[float]:
    """Of the errors on the tuned grid to those on another, on the same pictures."""
    return [a / b for a, b in zip(row["errors"]["tuned"], row["errors"][name], strict=True)]


def changes(rows: list[Row], name: str) -> str:
    """Of the error against a grid's, in percent; in bold where the interval is without 0."""
    found = []
    for row in rows:
        mean, low, high = geometric(ratios(row, name))
        percent = f"{round(100 * (mean - 1)):+d}"
        found.append(f"**{percent}**" if low > 1 or high < 1 else percent)
    return f"{listed(found)} %"


def summary(data: Data) -> str:
    """A line for each model and sampler."""
    return "\n".join(worth_of(data, model, sampler) for model, samplers in CASES.items() for sampler in samplers)


def worth_of(data: Data, model: str, sampler: str) -> str:
    """A line of the summary."""
    rows = [row for row in compared(data, model) if row["sampler"] == sampler]
    budgets = listed(row["evaluations"] for row in rows)
    return (
        f"- **{sampler}, {TITLES[model]}**, {budgets} evaluations: {changes(rows, 'named')} against the best named "
        f"grid, {changes(rows, 'karras')} against Karras'."
    )


def longer(data: Data, sampler: str) -> str:
    """In how many rows dpmpp_2m is better with half as many evaluations more."""
    rows = [row for model in TITLES for row in compared(data, model) if row["sampler"] == sampler]
    better = [geometric(ratios(row, "longer"))[0] > 1 for row in rows]
    return f"{sum(better)} of {len(better)}"


def command(data: Data) -> str:
    """A call of the command, and the line of ten evaluations as it prints it."""
    [row] = select(data, model="demo", sampler="dpmpp_2m", evaluations=10)
    against = f"{told(ratios(row, 'named'))} of {row['named']}'s"
    if row["chosen"] == row["named"]:
        against = f"it is {row['named']}, which nothing tried beats"
    line = f"# 10 evaluations, {len(row['sigmas']) - 1} steps: error {told(row['errors']['tuned'])}, {against}"
    asked = "k-diffusing tune --model demo --sampler dpmpp_2m --evaluations 6 8 10 20"
    return f"```sh\n{asked}\n{line}\n```"


def table(data: Data, model: str) -> str:
    """A line for each sampler and number of evaluations."""
    lines = []
    for row in compared(data, model):
        errors, right = row["errors"], row.get("right", {})
        means = {name: f"{geometric(errors[name])[0]:.3f}" if name in errors else "" for name in NAMED}
        best = f"{means['named']} ({row['named']})"
        captions = " and ".join(str(right[name]) for name in ("tuned", "named") if name in right)
        shown = [told(errors["tuned"]), means["karras"], means["longer"], best, told(ratios(row, "named")), captions]
        lines.append([row["sampler"], str(row["evaluations"]), *shown])
    head = ["sampler", "evaluations", "tuned", "karras", "1.5 times", "best named", "ratio to it", "captions"]
    return markdown_table(head, lines)


BENCHMARK = Benchmark(
    name="tune_grids",
    about="What tuned sigma grids and fitted weights are worth on pictures that their choice did not see.",
    takes="an hour",
    cells=cells,
    measure=measure,
    settings={"pictures": PICTURES, "captions": CAPTIONS, "seed": SEED, "unseen": UNSEEN},
    models=("demo", "demo-flux"),
    tables={
        **{part: functools.partial(table, model=model) for part, model in MODELS.items()},
        "summary": summary,
        "longer": functools.partial(longer, sampler="dpmpp_2m"),
        "longer-fitted": functools.partial(longer, sampler="fitted"),
        "command": command,
    },
)
