"""What a recipe asks for and is not to be had here: noted in it, before anything is rendered."""

from k_diffusing.reproduce.emphasis import Prompted, read_a1111, read_comfyui
from k_diffusing.reproduce.recipe import Prompt, Recipe, Stage
from k_diffusing.reproduce.wording import WEB_UIS, grid_here, sampler_here


def note_limits(recipe: Recipe) -> None:
    """Add to a recipe's gaps what our pipelines do not do. Raises BadFile for a prompt that cannot be read."""
    for stage in recipe.stages:
        _sampler(recipe, stage)
        for prompt in (stage.prompt, stage.negative):
            if prompt is not None:
                _prompt(recipe, prompt)
        if stage.zsnr and recipe.family == "flux":
            recipe.lacks(stage.where["zsnr"], "is about noise schedules of SDXL's kind")
        if stage.prompt.zeroed:
            recipe.lacks(stage.prompt.where, "its prompt is zeros in place of embeddings")
        _as_the_first(recipe, stage)

    if recipe.mask and (recipe.image is None or len(recipe.stages) > 1):
        what = "in one of several stages" if recipe.image else "of latents that are no picture's"
        recipe.lacks(recipe.where["mask"], f"keeps a part {what} as it was")


def _as_the_first(recipe: Recipe, stage: Stage) -> None:
    """What all stages have in common, since one pipeline runs them."""
    first, where = recipe.stages[0], stage.where["stage"]
    if stage.models and stage.models[:1] != first.models[:1]:
        recipe.lacks(where, f"runs another network, {stage.models[0]!r}: --model is one for all")
    if stage.loras != first.loras:
        recipe.lacks(where, "has other LoRAs than the first stage")


def _sampler(recipe: Recipe, stage: Stage) -> None:
    where, name = stage.where.get("sampler", stage.where["stage"]), stage.sampler
    if name and sampler_here(name).sampler is None and not recipe.ours:
        recipe.lacks(where, f"its sampler {name!r} is not one of ours")
    if name and name.endswith("_gpu"):
        recipe.lacks(where, f"{name!r} draws its tree of noise on the GPU, where ours is on the CPU")
    if stage.grid is None:
        return
    if None in stage.grid.options.values():
        recipe.lacks(stage.where.get("grid", where), f"the numbers of its sigma grid {stage.grid.name!r} are not known")
    elif not stage.grid.options and grid_here(stage.grid.name, recipe.program) is None:
        recipe.lacks(stage.where.get("grid", where), f"its sigma grid {stage.grid.name!r} is not one of ours")


def _prompt(recipe: Recipe, prompt: Prompt) -> None:
    for text in filter(None, (prompt.text, prompt.text_2)):
        read = read_prompt_text(recipe.program, text)
        for mark in read.marks if recipe.program else ():
            recipe.lacks(prompt.where, f"{mark} in it stands for more than its letters")
        if read.weighted and recipe.program and not weights_applied(recipe):
            recipe.lacks(prompt.where, "weights of words are not applied to T5's embeddings as Forge does it")


def weights_applied(recipe: Recipe) -> bool:
    """Whether the weights that a prompt gives its words are applied as the program does it."""
    return not (recipe.program in WEB_UIS and recipe.family == "flux")


def read_prompt_text(program: str | None, text: str) -> Prompted:
    """A prompt's words and weights, as the program reads them."""
    return (read_a1111 if program in WEB_UIS else read_comfyui)(text)
