"""What tuned sigma grids are worth on pictures that their choice did not see: docs/tune.json, tables of docs/tune.md.

    python benchmarks/tune_grids.py            # measures what docs/tune.json lacks, then fills the page
    python benchmarks/tune_grids.py --draw     # fills the page only

dpmpp_2m, euler and fitted on both demo models at 6, 8, 10 and 20 evaluations, tuned on 16 captions. Then the chosen
grid, the best with a name and Karras' make pictures of 64 other captions: errors against fine runs, and the captions
whose background, colour, shape and count are right. The best named grid is run with half as many evaluations more,
too. The mixture is a closed-form model that no choice in the method was made on.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402

DATA, PAGE = ROOT / "docs" / "tune.json", ROOT / "docs" / "tune.md"
WORK = ROOT / "output" / "tune" / "benchmark"
BUDGETS, SAMPLERS, PICTURES, CAPTIONS, SEED = (6, 8, 10, 20), ("dpmpp_2m", "euler", "fitted"), 16, 64, 1000
TITLES = {"mixture": "mixture", "demo": "SDXL demo", "demo-flux": "FLUX demo"}
SIDE = 16  # of the mixture's latents


def loaded(model: str) -> tuple[Any, dict[str, Any], list[str]]:
    """A pipeline, the keywords of its runs, and the prompts to tune with."""
    import torch

    from k_diffusing.tune.prompts import some_prompts

    if model == "mixture":
        from k_diffusing.oracle.closed_form import oracle_sdxl

        embeds = {"prompt_embeds": torch.zeros(1, 5, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
        return oracle_sdxl(), {**embeds, "guidance_scale": 1.0, "height": 8 * SIDE, "width": 8 * SIDE}, []
    from k_diffusing.models import DEMOS

    return figure_style.demo_pipeline(model), DEMOS[model].call | {"noise": "torch"}, some_prompts(model, 2 * PICTURES)


def measure(model: str, sampler: str) -> list[dict[str, Any]]:
    """A row for each number of evaluations."""
    from k_diffusing.tune.tune import tune_grid

    pipe, call, prompts = loaded(model)
    tuned = tune_grid(pipe, sampler, BUDGETS, call=call, prompts=prompts, pictures=PICTURES, folder=WORK)
    others = Others(model, pipe, call)
    rows = []
    for one in tuned.budgets:
        grids = {"tuned": one.chosen.grid}
        if sampler != "fitted":  # which is compared with dpmpp_2m's
            longer = others.named(one.best_named.name, round(1.5 * one.steps))
            grids |= {"named": one.best_named.grid, "karras": others.named("karras", one.steps), "longer": longer}
        ends = {name: tuned.run(others.pictures, grid) for name, grid in grids.items()}
        row = {"model": model, "sampler": sampler, "evaluations": one.evaluations, "chosen": one.chosen.name,
               "named": one.best_named.name, "sigmas": [float(f"{s:.6g}") for s in one.chosen.grid],
               "errors": {name: others.errors(found) for name, found in ends.items()}}  # fmt: skip
        if model != "mixture":
            row["right"] = {name: others.right(ends[name]) for name in ("tuned", "named") if name in ends}
        rows.append(row)
    return rows


class Others:
    """Pictures of captions that no choice has seen: their fine run, and what they show."""

    def __init__(self, model: str, pipe, call: dict[str, Any]):
        from shapes import evaluation_scenes

        from k_diffusing.tune.book import Book
        from k_diffusing.tune.fine import FINE, Levels, fine_run
        from k_diffusing.tune.pictures import Pictures

        self.pipe, self.scenes = pipe, [] if model == "mixture" else evaluation_scenes(CAPTIONS)
        captions = tuple(scene.caption for scene in self.scenes) or ("",) * CAPTIONS
        self.pictures = Pictures(pipe, call, captions, tuple(range(SEED, SEED + CAPTIONS)), PICTURES)
        self.levels = Levels.of(self.pictures)
        book = Book(WORK, [model, CAPTIONS, SEED], None)
        self.fine = book.fine("others", lambda: fine_run(self.pictures, self.levels, FINE, lambda _: None))

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
        from score import hits
        from shapes import read

        with torch.no_grad():
            pictures = [
                picture
                for part in ends.split(PICTURES)
                for picture in self.pipe.decode(part.reshape(-1, *self.fine.shape), 128, 128, "np")
            ]
        found = [hits(scene, read(picture)) for scene, picture in zip(self.scenes, pictures, strict=True)]
        return sum(all(one[name] for name in ("ground", "colour", "shape", "one object")) for one in found)


def measure_missing(path: Path) -> None:
    """Fill the data file, a model and a sampler at a time."""
    data = figure_style.read_data(path, {"pictures": PICTURES, "captions": CAPTIONS, "seed": SEED})
    for sampler in SAMPLERS:
        for model in TITLES:
            if not figure_style.rows_of(data, model, sampler):
                data["rows"] += measure(model, sampler)
                figure_style.write_data(path, data)
                print(f"{model}, {sampler}", flush=True)


def table(data: dict[str, Any], model: str) -> str:
    """A line for each sampler and number of evaluations."""
    from k_diffusing.tune.judge import interval
    from k_diffusing.tune.table import told

    lines, known = [], {}
    for sampler in SAMPLERS:
        for row in figure_style.rows_of(data, model, sampler):
            other = known.setdefault(row["evaluations"], row) if sampler != "euler" else row  # dpmpp_2m's
            errors, right = other["errors"] | row["errors"], other.get("right", {}) | row.get("right", {})
            ratio = interval([a / b for a, b in zip(errors["tuned"], errors["named"], strict=True)])
            kept = " and ".join(str(right[name]) for name in ("tuned", "named") if name in right)
            means = {name: f"{interval(errors[name]).mean:.3f}" for name in ("karras", "named", "longer")}
            lines.append([sampler, str(row["evaluations"]), told(interval(errors["tuned"])), means["karras"],
                          f"{means['named']} ({other['named']})", told(ratio), means["longer"], kept])  # fmt: skip
    head = ["sampler", "evaluations", "tuned", "karras", "best named", "ratio to it", "1.5 times", "captions"]
    return figure_style.markdown_table(head, lines)


def blocks(data: dict[str, Any]) -> dict[str, str]:
    """What stands in docs/tune.md between its comments."""
    measured = f"Measured by `python benchmarks/tune_grids.py`: {data['machine']}."
    return {title: table(data, model) for model, title in TITLES.items()} | {"run": measured}


def main() -> None:
    if not figure_style.only_draw(__doc__):
        measure_missing(DATA)
    figure_style.fill_page(PAGE, blocks(figure_style.read_data(DATA, {})))
    print(f"filled {PAGE.name}")


if __name__ == "__main__":
    main()
