"""What tuned sigma grids are worth on pictures that their choice did not see: docs/tune.json, tables of docs/tune.md.

    python benchmarks/tune_grids.py            # measures what docs/tune.json lacks, then fills the page
    python benchmarks/tune_grids.py --draw     # fills the page only

dpmpp_2m and euler on both demo models at 6, 8, 10 and 20 evaluations, tuned on 16 captions. Then the chosen grid, the
best with a name, Karras' and the scheduler's own make pictures of other captions: errors against fine runs, and the
captions whose background, colour, shape and count are right. The mixture is a closed-form model that no choice in
the method was made on.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402

DATA, PAGE = ROOT / "docs" / "tune.json", ROOT / "docs" / "tune.md"
WORK = ROOT / "output" / "tune" / "benchmark"
BUDGETS, SAMPLERS, PICTURES, CAPTIONS, SEED = (6, 8, 10, 20), ("dpmpp_2m", "euler"), 16, 32, 1000
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

    return figure_style.demo_pipeline(model), DEMOS[model].call, some_prompts(model, 2 * PICTURES)


def measure(model: str, sampler: str) -> list[dict[str, Any]]:
    """A row for each number of evaluations."""
    from k_diffusing.tune.tune import tune_grid

    pipe, call, prompts = loaded(model)
    tuned = tune_grid(pipe, sampler, BUDGETS, call=call, prompts=prompts, pictures=PICTURES, folder=WORK)
    rows = []
    for one in tuned.budgets:
        row = {"model": model, "sampler": sampler, "evaluations": one.evaluations, "chosen": one.chosen.name,
               "named": one.best_named.name, "sigmas": [float(f"{s:.6g}") for s in one.chosen.grid],
               "errors": {name: [round(e, 5) for e in errors] for name, errors in one.held_out.items()}}  # fmt: skip
        if model != "mixture":
            row["right"] = {
                trial.name: right(pipe, call, sampler, trial.grid) for trial in (one.chosen, one.best_named)
            }
        rows.append(row)
    return rows


def right(pipe, call: dict[str, Any], sampler: str, grid: list[float]) -> int:
    """Of CAPTIONS pictures those that keep to their caption in background, colour, shape and count."""
    import torch
    from score import hits
    from shapes import evaluation_scenes, read

    from k_diffusing.tune.pictures import Pictures, as_function

    kept = 0
    scenes = evaluation_scenes(CAPTIONS)
    captions, seeds = tuple(scene.caption for scene in scenes), tuple(range(SEED, SEED + CAPTIONS))
    for first in range(0, CAPTIONS, PICTURES):
        batch = Pictures(pipe, call, captions, seeds)[first : first + PICTURES]
        with torch.no_grad():
            pictures = pipe(
                **batch.told(), comfy_sampler=sampler, sigma_grid=as_function(grid),
                num_inference_steps=len(grid) - 1, generator=batch.generators(), output_type="np",
            ).images  # fmt: skip
        for scene, picture in zip(scenes[first : first + PICTURES], pictures, strict=True):
            found = hits(scene, read(picture))
            kept += all(found[name] for name in ("ground", "colour", "shape", "one object"))
    return kept


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

    lines = []
    for sampler in SAMPLERS:
        for row in figure_style.rows_of(data, model, sampler):
            errors, chosen, named = row["errors"], row["chosen"], row["named"]
            ratio = [a / b for a, b in zip(errors[chosen], errors[named], strict=True)]
            others = [f"{interval(errors[name]).mean:.3f}" for name in ("karras", "scheduler")]
            kept = " and ".join(str(row["right"][name]) for name in (chosen, named)) if "right" in row else ""
            lines.append([sampler, str(row["evaluations"]), told(interval(errors[chosen])), *others,
                          f"{interval(errors[named]).mean:.3f} ({named})", told(interval(ratio)), kept])  # fmt: skip
    head = ["sampler", "evaluations", "tuned", "karras", "scheduler's", "best named", "ratio to it", "captions"]
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
