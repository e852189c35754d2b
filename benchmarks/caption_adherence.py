"""How well the pictures keep to their captions, for every sampler: docs/adherence.json, its figure and its tables.

    python benchmarks/caption_adherence.py            # measures what docs/adherence.json lacks, then draws
    python benchmarks/caption_adherence.py --draw     # draws only

Both demo models, 64 captions, one seed for each; what a picture shows is read by demo_models/shapes.py. A sampler is
given at most 6, 12 and 24 network evaluations (a guided pair counts as one), so that a two-stage sampler makes half as
many steps; dpm_adaptive takes what its tolerance needs. The sigma grid is that of the scripts: the scheduler's own,
Karras' for dpmpp_3m_sde. "flux, older" passes the velocity to the sampler in place of the denoised latents;
"sdxl, karras" gives another grid to the samplers that fall short on the scheduler's.
"""

import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402

from k_diffusing.render.checks import solver_of  # noqa: E402
from samplers_patch import SAMPLERS  # noqa: E402

DATA, PAGE = ROOT / "docs" / "adherence.json", ROOT / "docs" / "adherence.md"
PICTURE = ROOT / "docs" / "images" / "adherence.png"
BUDGETS = (6, 12, 24)  # network evaluations
TOLERANCES = {"rtol=0.4": {"rtol": 0.4, "atol": 0.0624}, "rtol=0.05": {"rtol": 0.05, "atol": 0.0078}}  # 2nd: default
CAPTIONS, SEED, BATCH = 64, 1000, 16
MODELS = {
    "sdxl": ("demo", {}),
    "flux": ("demo-flux", {}),
    "flux, older": ("demo-flux", {"flow_coordinates": "velocity"}),
    "sdxl, karras": ("demo", {"sigma_grid": "karras"}),
}
SHORT = ("dpm_2_ancestral", "lms", "dpmpp_2m_sde")  # of SDXL's captions on the scheduler's grid: again on Karras'
READ = {"ground": "background", "colour": "colour", "shape": "shape", "one object": "one object"}  # score's: ours
ALL = "all four"


def cases() -> list[dict[str, Any]]:
    """What is measured: model, sampler and, of it, a budget of evaluations or dpm_adaptive's tolerance."""
    found = []
    for model in MODELS:
        for name, sampler in SAMPLERS.items():
            if model == "sdxl, karras" and name not in SHORT:
                continue
            settings = TOLERANCES if sampler.adaptive else BUDGETS
            found += [{"model": model, "sampler": name, "setting": setting} for setting in settings]
    return found


def keywords(case: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's, for one case."""
    sampler, setting = SAMPLERS[case["sampler"]], case["setting"]
    demo, of_model = MODELS[case["model"]]
    from k_diffusing.models import DEMOS

    steps = max(BUDGETS) if sampler.adaptive else solver_of(sampler).steps_within(setting)
    options = TOLERANCES[setting] if sampler.adaptive else None
    own = {"comfy_sampler": sampler.name, "sampler_options": options, "sigma_grid": sampler.sigma_grid}
    return DEMOS[demo].call | own | of_model | {"num_inference_steps": steps}


def measure(pipe, case: dict[str, Any]) -> dict[str, Any]:
    """The case with its evaluations, how many captions were kept to, and the seconds it took."""
    import torch
    from score import hits
    from shapes import evaluation_scenes, read

    from k_diffusing.trace.record import Trace

    scenes, trace, start = evaluation_scenes(CAPTIONS), Trace(), time.monotonic()
    evaluations, right = 0.0, dict.fromkeys((*READ.values(), ALL), 0)
    for first in range(0, CAPTIONS, BATCH):
        chunk, call = scenes[first : first + BATCH], keywords(case)
        if "negative_prompt" in call:
            call["negative_prompt"] = [call["negative_prompt"]] * len(chunk)
        pictures = pipe(
            [scene.caption for scene in chunk],
            **call,
            output_type="np",
            generator=[torch.Generator().manual_seed(SEED + first + i) for i in range(len(chunk))],
            trace=trace,
        ).images
        evaluations += len(trace.calls) * len(chunk) / CAPTIONS
        for scene, picture in zip(chunk, pictures, strict=True):
            kept = hits(scene, read(picture))
            for field, name in READ.items():
                right[name] += kept[field]
            right[ALL] += all(kept[field] for field in READ)
    seconds = round(time.monotonic() - start, 1)
    return case | {"evaluations": round(evaluations, 2), "right": right, "seconds": seconds}


def measure_missing(path: Path, models: tuple[str, ...]) -> None:
    """Fill the data file, case by case."""
    data = figure_style.read_data(path, {"captions": CAPTIONS, "seed": SEED})
    done = [{key: row[key] for key in ("model", "sampler", "setting")} for row in data["rows"]]
    pipe, loaded = None, None
    for case in cases():
        if case in done or case["model"] not in models:
            continue
        demo = MODELS[case["model"]][0]
        if loaded != demo:
            pipe, loaded = figure_style.demo_pipeline(demo), demo
        data["rows"].append(measure(pipe, case))
        figure_style.write_data(path, data)
        print(data["rows"][-1], flush=True)


# Tables and figure, from the data alone.

TITLES = {"sdxl": "SDXL demo", "flux": "FLUX demo", "flux, older": "FLUX demo, older"}
SHADES = ("#f2b134", "#d1495b", "#30336b")  # by how many evaluations


def shade(row: dict[str, Any]) -> int:
    """Which of SHADES: that of the budget, and for dpm_adaptive the upper two."""
    settings = (None, *TOLERANCES) if row["setting"] in TOLERANCES else BUDGETS
    return settings.index(row["setting"])


def model_table(data: dict[str, Any], model: str, samplers=SAMPLERS) -> str:
    """A line each sampler: of 64 captions, those right in background, colour, shape and count, by budget."""
    from score import wilson

    rows = []
    for name in samplers:
        cells, found = [""] * len(BUDGETS), figure_style.rows_of(data, model, name)
        for row in found:
            right = " ".join(str(row["right"][word]) for word in READ.values())
            taken = f" ({row['evaluations']:.0f})" if row["setting"] in TOLERANCES else ""
            cells[shade(row)] = right + taken
        last = found[-1]["right"][ALL] if found else None
        low, high = wilson(last or 0, CAPTIONS)
        rows.append([name, *cells, f"{last} [{low:.2f}, {high:.2f}]" if found else ""])
    head = ["sampler", *(f"{budget} evaluations" for budget in BUDGETS), "all four right, in the last column"]
    return figure_style.markdown_table(head, rows)


def run_table(data: dict[str, Any]) -> str:
    measured = figure_style.measured_by("caption_adherence.py", data)
    return f"{measured} {CAPTIONS} captions, generator {SEED} + i for caption i."


def blocks(data: dict[str, Any]) -> dict[str, str]:
    """What stands in docs/adherence.md between its comments."""
    tables = {title: model_table(data, model) for model, title in TITLES.items()}
    return tables | {"karras": model_table(data, "sdxl, karras", SHORT), "run": run_table(data)}


def draw_panel(axes, data: dict[str, Any], model: str, word: str) -> None:
    """Rates of one word with their intervals: a line of dots each sampler, one dot each budget."""
    from score import wilson

    for place, name in enumerate(SAMPLERS):
        for row in figure_style.rows_of(data, model, name):
            height, hits = place + 0.26 * (shade(row) - 1), row["right"][word]
            colour = SHADES[shade(row)]
            axes.plot(wilson(hits, CAPTIONS), (height, height), color=colour, linewidth=1.0)
            axes.plot(hits / CAPTIONS, height, "o", color=colour, markersize=3.2)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(SAMPLERS) - 0.4, -0.6))
    axes.set_xticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    axes.set_yticks(range(len(SAMPLERS)), labels=list(SAMPLERS))
    axes.tick_params(length=0)


def draw_figure(data: dict[str, Any], path: Path) -> None:
    pyplot = figure_style.pyplot()
    words = list(READ.values())
    figure, panels = pyplot.subplots(3, 4, figsize=(figure_style.WIDTH, 9.6), sharex=True, sharey=True)
    for line, model in zip(panels, TITLES, strict=True):
        for axes, word in zip(line, words, strict=True):
            draw_panel(axes, data, model, word)
            if model == "sdxl":
                axes.set_title(word)
        line[-1].text(1.06, 0.5, TITLES[model], transform=line[-1].transAxes, rotation=270, va="center", fontsize=11)
    budgets = [f"at most {budget} evaluations" for budget in BUDGETS]
    handles = [pyplot.Line2D([], [], color=c, marker="o", markersize=4, linewidth=1) for c in SHADES]
    figure.legend(handles, budgets, loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.55, 0.998))
    figure.supxlabel("share of 64 captions, with 95 % intervals", fontsize=9, x=0.55, y=0.006)
    figure.subplots_adjust(left=0.165, right=0.955, top=0.94, bottom=0.045, wspace=0.08, hspace=0.06)
    figure_style.save(figure, path)


def main() -> None:
    if not figure_style.only_draw(__doc__):
        measure_missing(DATA, tuple(MODELS))
    data = figure_style.read_data(DATA, {})
    draw_figure(data, PICTURE)
    figure_style.fill_page(PAGE, blocks(data))
    print(f"drew {PICTURE.name} and filled {PAGE.name}")


if __name__ == "__main__":
    main()
