"""The pages as files, for a browser: a grid of single colours, a comparison, a tuned grid, a picture made again."""

from itertools import product
from pathlib import Path

from PIL import Image

from k_diffusing.render.page import grid_page

SAMPLERS, EVALUATIONS, SEEDS = ("euler", "dpmpp_2s_ancestral", "DPMSolverMultistepScheduler"), (5, 10, 20), (0, 1)
PROMPTS = ("a small white ring on a green background", "an astronaut in a jungle, cold color palette, muted colors")
SIZE = (48, 32)
EVERY = {"sampler": ..., "evaluations up to": ...}


def write_grid(folder: Path, seeds=SEEDS, samplers=SAMPLERS, evaluations=EVALUATIONS, prompts=PROMPTS) -> Path:
    """The page and its pictures, each of the colour that `colour_of` says."""
    places = list(product(samplers, evaluations, seeds, prompts))
    cells = [cell(folder, *place, prompts) for place in places]
    cells += [reference(folder, seed, prompt, prompts) for seed, prompt in product(seeds, prompts)]
    path = folder / "index.html"
    path.write_text(grid_page("shapes", cells), encoding="utf-8")
    return path


def colour_of(evaluations: int, seed: int) -> tuple[int, int, int]:
    return (10 * evaluations, seed % 256, 20)


def cell(folder, sampler, evaluations, seed, prompt, prompts):
    file = f"{sampler}-{evaluations}-{seed}-{prompts.index(prompt)}.png"
    Image.new("RGB", SIZE, colour_of(evaluations, seed)).save(folder / file)
    return {
        "file": file,
        "picture": folder / file,
        "axes": {
            "model": "shapes",
            "sampler": sampler,
            "evaluations up to": evaluations,
            "seed": seed,
            "prompt": prompt,
        },
        "settings": {"steps": evaluations // 2, "negative prompt": "none", "dtype": "float32", "device": "cpu"},
        "result": {
            "evaluations": evaluations,
            "peak_memory": 930.5,
            "adherence": {"shape": evaluations > 5, "colour": True},
        },
        "command": f"python test.py --samplers {sampler} --steps {evaluations // 2} --seeds {seed} --prompt '{prompt}'",
    }


def reference(folder, seed, prompt, prompts):
    made = cell(folder, "converged", 25, seed, prompt, prompts)
    made["axes"] |= EVERY
    made["settings"] |= {"sampler": "dpmpp_2m", "steps": 200}
    return made


def write_comparison(folder: Path) -> Path:
    """heun, which calls the network twice a step, and a scheduler with a long name."""
    from tiny_models import sdxl_prompt, tiny_sdxl

    from k_diffusing.compare.compare import compare_samplers
    from k_diffusing.compare.page import page
    from sdxl_comfy_pipeline import StableDiffusionXLPipeline

    call = {**sdxl_prompt(), "height": 16, "width": 16}
    found = compare_samplers(tiny_sdxl(StableDiffusionXLPipeline), "heun", "DPMSolverMultistepScheduler", call, steps=4)
    path = folder / "compare.html"
    path.write_text(page(found, (Image.new("RGB", (256, 64), "teal"),) * 2), encoding="utf-8")
    return path


def write_tuned(folder: Path) -> Path:
    from tiny_models import sdxl_prompt, tiny_sdxl

    from k_diffusing.tune.page import page
    from k_diffusing.tune.tune import tune_grid
    from sdxl_comfy_pipeline import StableDiffusionXLPipeline

    call = {**sdxl_prompt(), "height": 16, "width": 16}
    found = tune_grid(tiny_sdxl(StableDiffusionXLPipeline), "euler", (4,), call=call, pictures=4)
    path = folder / "tune.html"
    path.write_text(page([found]), encoding="utf-8")
    return path


def write_again(folder: Path) -> Path:
    """The page of `k-diffusing reproduce`."""
    from workflows import sdxl, write_json

    from k_diffusing import read_recipe
    from k_diffusing.reproduce.difference import apart
    from k_diffusing.reproduce.page import page
    from k_diffusing.reproduce.show import python

    recipe = read_recipe(write_json(folder / "a.json", sdxl()))
    theirs, ours = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "orange")
    path = folder / "again.html"
    path.write_text(page(recipe, "ComfyUI_00001_.png", theirs, ours, apart(theirs, ours), python(recipe)), "utf-8")
    return path
