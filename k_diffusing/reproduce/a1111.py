"""The text of A1111's web UI, or of Forge, made a recipe."""

import re

from k_diffusing.reproduce.emphasis import take_loras
from k_diffusing.reproduce.infotext import Infotext
from k_diffusing.reproduce.recipe import Grid, Lora, Prompt, Recipe, Stage
from k_diffusing.reproduce.values import MAX_SEED, MAX_SIZE, MAX_STEPS, BadFile, brief, real, whole
from k_diffusing.reproduce.wording import WEB_UIS, sampler_here

# Fields that change no picture, or say again what another says.
IDLE = frozenset(
    {
        "Version", "User", "Model hash", "VAE hash", "Lora hashes", "Hashes", "Batch size", "Batch pos", "Created Date",
        "Time taken", "Hires VAE hash", "Cache FP16 weight for LoRA",
    }
)  # fmt: skip
READ = frozenset(
    {
        "Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "Seed", "Size", "Model", "VAE",
        "Denoising strength", "Clip skip", "Hires upscale", "Hires upscaler", "Hires steps",
        "Hires resize", "Hires prompt", "Hires negative prompt", "Hires sampler", "Hires schedule type",
        "Hires CFG Scale", "Hires Distilled CFG Scale", "Hires checkpoint", "Emphasis",
    }
)  # fmt: skip
# What a field that is not done changes.
EFFECTS = {
    "Seed resize from": "takes the initial noise of another size",
    "Face restoration": "changes the picture after it is decoded",
    "Tiling": "makes the network's convolutions wrap around",
    "Token merging ratio": "merges tokens in the network",
    "Token merging ratio hr": "merges tokens in the network",
    "TI hashes": "a textual inversion stands in the prompt",
    "Hypernet": "changes the network",
    "Refiner": "another network takes the last steps",
    "Refiner switch at": "another network takes the last steps",
    "Init image hash": "begins with a picture that is not in this file",
    "Conditional mask weight": "conditions on a mask",
    "Mask blur": "keeps the part outside of a mask as it was",
    "Sigma churn": "adds noise in the steps",
    "Pad conds": "pads the shorter prompt",
    "NGMS": "leaves the negative prompt out below a sigma",
    "Skip Early CFG": "leaves the negative prompt out in the first steps",
    "Image CFG scale": "guides by a picture too",
    "Diffusion in Low Bits": "holds the network's weights in fewer bits, which rounds them",
    "FP8 weight": "holds the network's weights in fewer bits, which rounds them",
    "Noise Schedule": "changes the noise schedule",
}
# Settings that are the program's own, and are handed to `programs.a1111.a1111_of` as they are.
SETTINGS = frozenset(
    {
        "Schedule min sigma", "Schedule max sigma", "Schedule rho", "Beta schedule alpha", "Beta schedule beta",
        "Discard penultimate sigma", "SGM noise multiplier", "Downcast alphas_cumprod", "Eta", "RNG", "ENSD",
        "Variation seed", "Variation seed strength", "Noise multiplier", "Extra noise",
    }
)  # fmt: skip


def read_parameters(text: Infotext) -> Recipe:
    """How the picture was made.

    Args:
        text: As `read_infotext` reads it.

    Raises:
        BadFile: There are no settings in it, or a value cannot be.
    """
    fields = text.fields
    if "Steps" not in fields and "Sampler" not in fields:
        raise BadFile('the text has no settings, such as "Steps: 20, Sampler: Euler a, Seed: 1"')
    recipe = Recipe(*_program(fields.get("Version", "")))
    stage = Stage(where={"stage": "parameters"})
    recipe.stages.append(stage)
    prompt, loras = take_loras(text.prompt)
    stage.prompt, stage.negative = Prompt(prompt, where="prompt"), Prompt(text.negative, where="Negative prompt")
    if loras:
        stage.told("prompt", loras=[Lora(*lora) for lora in loras])
    _numbers(recipe, stage, fields)
    if recipe.program is None and recipe.family == "sdxl" and not text.negative:
        stage.negative = None  # our line has none for no negative prompt, which is not an empty one
    _sampler(recipe, stage, fields.get("Sampler", "Euler"), fields.get("Schedule type"))
    _size(recipe, fields)
    _model(recipe, stage, fields)
    _settings(recipe, fields)
    _hires(recipe, stage, fields)
    _rest(recipe, fields)
    return recipe


def _program(version: str) -> tuple[str, str | None]:
    """What is said of the source, and our `program=` for it."""
    if "comfyui" in version.lower():
        return "parameters of ComfyUI's picture", "comfyui"
    if version.startswith("k-diffusing"):
        return f"parameters of {version}", None
    forge = re.match("f[0-9]", version) is not None
    return f"parameters of {'Forge' if forge else 'A1111'} {version}".rstrip(), "forge" if forge else "a1111"


def _numbers(recipe: Recipe, stage: Stage, fields: dict[str, str]) -> None:
    if "Steps" in fields:
        stage.told("Steps", steps=whole(fields["Steps"], "Steps", 1, MAX_STEPS))
    if "Seed" in fields:
        stage.told("Seed", seed=whole(fields["Seed"], "Seed", 0, MAX_SEED))
    stage.told("CFG scale" if "CFG scale" in fields else "", cfg=real(fields.get("CFG scale", 7.0), "CFG scale", 0))
    if "Distilled CFG Scale" in fields:
        scale = real(fields["Distilled CFG Scale"], "Distilled CFG Scale", 0)
        stage.prompt.guidance, recipe.family = scale, "flux"
        stage.where["guidance"] = "Distilled CFG Scale"
    for name in ("Steps", "Seed"):
        if name not in fields:
            recipe.lacks("parameters", f"{name} is not in it")


def _sampler(recipe: Recipe, stage: Stage, sampler: str, schedule: str | None) -> None:
    """The sampler and the sigma grid, which older versions have in the sampler's name."""
    here = sampler_here(sampler)
    stage.told("Sampler", sampler=sampler)
    stage.told("Schedule type" if schedule else "Sampler", scheduler=schedule)
    if schedule:
        stage.grid = Grid(schedule)
    elif here.grid:
        stage.grid = Grid(here.grid)
    elif recipe.program in WEB_UIS:
        stage.grid = Grid("uniform")  # before version 1.9, which names its schedule types
    elif recipe.program == "comfyui":
        recipe.lacks("Sampler", "the scheduler is not told")
    stage.where["grid"] = stage.where["scheduler"]


def _size(recipe: Recipe, fields: dict[str, str]) -> None:
    match = re.fullmatch(r"(\d{1,6})\s*x\s*(\d{1,6})", fields.get("Size", "512x512").strip())
    if match is None:
        raise BadFile(f"Size is {brief(fields['Size'])}: it is like 512x768")
    width, height = (whole(one, "Size", 16, MAX_SIZE) for one in match.groups())
    recipe.told("Size" if "Size" in fields else "", width=width, height=height)


def _model(recipe: Recipe, stage: Stage, fields: dict[str, str]) -> None:
    names = [fields[name] for name in ("Model", "VAE") if name in fields]
    names += [value for name, value in fields.items() if re.fullmatch(r"Module \d+", name)]
    if names:
        stage.told("Model", models=names)
    if "flux" in fields.get("Model", "").lower():
        recipe.family = "flux"
    if "Clip skip" in fields:
        skip = whole(fields["Clip skip"], "Clip skip", 0, 24)
        if skip > 2 and recipe.family == "sdxl" and recipe.program == "forge":
            stage.told("Clip skip", clip_layer=skip)
        else:
            recipe.notes.append(f"Clip skip {skip}: the layer taken is the one that the network was trained with")


def _settings(recipe: Recipe, fields: dict[str, str]) -> None:
    """The program's own, and where noise is drawn."""
    given = {name: value for name, value in fields.items() if name in SETTINGS}
    if recipe.program == "a1111":
        recipe.settings = given
        recipe.where |= {name: name for name in given}
    else:
        for name, value in given.items():
            recipe.lacks(f"{name}: {brief(value, 30)}", "is a setting of A1111 that is not done for others")
    if fields.get("RNG", "GPU") == "GPU" and recipe.program is not None:
        recipe.notes.append('RNG is GPU, as always unless it is told: noise is drawn on --device; "cuda" is theirs')
    if fields.get("Emphasis", "Original") != "Original":
        recipe.lacks("Emphasis", "weighs the prompt's words in another way")


def _hires(recipe: Recipe, stage: Stage, fields: dict[str, str]) -> None:
    """The second stage of "hires fix", or the strength of img2img."""
    strength = fields.get("Denoising strength")
    denoise = None if strength is None else real(strength, "Denoising strength", 0, 1)
    if not any(name in fields for name in ("Hires upscale", "Hires resize", "Hires upscaler")):
        if denoise is not None:
            stage.told("Denoising strength", denoise=denoise)
            recipe.lacks("Denoising strength", "begins with a picture that is not in this file")
        return
    steps = whole(fields.get("Hires steps", 0), "Hires steps", 0, MAX_STEPS) or stage.steps
    prompt = Prompt(fields.get("Hires prompt", stage.prompt.text), guidance=stage.prompt.guidance, where="Hires prompt")
    second = Stage(where={"stage": "Hires"}, prompt=prompt, negative=stage.negative, seed=stage.seed, cfg=stage.cfg)
    second.told("Hires steps", steps=steps)
    second.told("Denoising strength", denoise=denoise)
    _sampler(recipe, second, fields.get("Hires sampler", stage.sampler or ""), stage.scheduler)
    recipe.stages.append(second)
    by = fields.get("Hires upscale") or fields.get("Hires resize", "")
    with_what = fields.get("Hires upscaler", "its upscaler")
    recipe.lacks("Hires upscale", f"makes the picture larger ({by}) with {with_what}, and denoises it again")


def _rest(recipe: Recipe, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        if name in IDLE | READ | SETTINGS or re.fullmatch(r"(Hires )?Module \d+", name):
            continue
        recipe.lacks(f"{name}: {brief(value, 30)}", EFFECTS.get(name, "is not known here: it may change the picture"))
