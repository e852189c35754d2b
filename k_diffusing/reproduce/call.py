"""A recipe as calls of our pipelines: one for each stage, as keywords and as Python to paste into a notebook."""

from dataclasses import dataclass, field
from typing import Any

from k_diffusing.reproduce.recipe import Grid, Prompt, Recipe, Stage
from k_diffusing.reproduce.wording import grid_here, sampler_here

SURE = 75  # letters of a prompt that has as many tokens at most: diffusers leaves out what is more
FLUX_GUIDANCE = 3.5  # ComfyUI's where nothing says it
DROPPING = ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")  # whose grid ComfyUI's KSampler alone shortens


@dataclass(frozen=True)
class Call:
    """A call of one of our pipelines.

    Attributes:
        keywords: Its keywords that are plain values.
        prompts: The keywords of `encode_prompts`, whose result is given besides; empty where the keywords have the
            prompts.
        image: The file of the picture that it begins with.
        mask: The file, and the channel in it, of the mask of what is made anew.
        one_stream: The seed of a generator for the whole batch.
        scheduler: What is changed of the config of the pipeline's scheduler.
        whole_grid: Whether no sigma is dropped, where the program does so for this sampler elsewhere.
        settings: Of A1111, by its names for them, where they are not its own.
        goes_on: Whether it begins with the latents of the call before.
        last: Whether it ends in a picture.
    """

    keywords: dict[str, Any]
    prompts: dict[str, Any] = field(default_factory=dict)
    image: str | None = None
    mask: tuple[str, str] | None = None
    one_stream: int | None = None
    scheduler: dict[str, Any] = field(default_factory=dict)
    whole_grid: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    goes_on: bool = False
    last: bool = True


def calls_of(recipe: Recipe, family: str | None = None) -> list[Call]:
    """A call for each stage.

    Args:
        recipe: How the picture was made.
        family: "sdxl" or "flux", of the weights. The recipe's if left out.
    """
    return [_call(recipe, i, stage, family or recipe.family) for i, stage in enumerate(recipe.stages)]


def _call(recipe: Recipe, i: int, stage: Stage, family: str) -> Call:
    prompts, guidance = _prompts(recipe, stage, family), _guidance(stage, family)
    keywords: dict[str, Any] = {} if prompts else _texts(stage, family)
    keywords |= {"width": recipe.width, "height": recipe.height, "num_inference_steps": stage.steps, **guidance}
    here = sampler_here(stage.sampler) if stage.sampler and not recipe.ours else None
    keywords["comfy_sampler"] = here.sampler if here and here.sampler else stage.sampler
    options = {**(here.options if here else {}), **stage.sampler_options}
    grid = stage.grid and _grid(stage.grid, recipe.program)
    keywords |= {"sampler_options": options or None, "sigma_grid": grid, "program": recipe.program}
    one_stream = recipe.batch > 1
    keywords |= {"num_images_per_prompt": recipe.batch if one_stream else None}
    keywords |= {"seeds": None if one_stream or stage.seed is None else [stage.seed], **_part(stage)}
    keywords |= {"mu": flux_mu(stage.shift)} if family == "flux" else {}
    keywords |= _sizes(recipe, stage) if family == "sdxl" else {}
    keywords |= recipe.keywords
    last = i == len(recipe.stages) - 1
    if not last:
        keywords["output_type"] = "latent"
    masked = recipe.mask and recipe.image and len(recipe.stages) == 1
    return Call(
        {name: value for name, value in keywords.items() if value is not None},
        prompts,
        image=recipe.image if i == 0 else None,
        mask=(recipe.mask, recipe.mask_channel) if recipe.mask and masked else None,
        one_stream=stage.seed if one_stream else None,
        scheduler=_scheduler(stage),
        whole_grid=stage.custom and here is not None and here.sampler in DROPPING,
        settings=recipe.settings,
        goes_on=i > 0,
        last=last,
    )


def _sizes(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The sizes that SDXL is told, where they are not the picture's; diffusers takes the prompt's for both."""
    told = stage.negative.sizes if stage.negative else {}
    if stage.prompt.sizes and not told:
        own = (recipe.height, recipe.width)
        told = {"original_size": own, "crops_coords_top_left": (0, 0), "target_size": own}
    return {**stage.prompt.sizes, **{f"negative_{name}": size for name, size in told.items()}}


def _guidance(stage: Stage, family: str) -> dict[str, float | None]:
    """cfg is guidance_scale on SDXL, true_cfg_scale on FLUX, whose guidance_scale is the distilled one."""
    if family == "sdxl":
        return {"guidance_scale": stage.cfg}
    distilled = stage.prompt.guidance
    return {"guidance_scale": FLUX_GUIDANCE if distilled is None else distilled, "true_cfg_scale": stage.cfg}


def _part(stage: Stage) -> dict[str, Any]:
    """The part of the grid that is run, and the noise before and after it, where it is not all of it."""
    return {
        "denoise": stage.denoise,
        "start_step": stage.start_step,
        "end_step": stage.end_step,
        "add_noise": None if stage.add_noise else False,
        "return_with_leftover_noise": stage.leftover_noise or None,
    }


def _scheduler(stage: Stage) -> dict[str, Any]:
    changed = {"prediction_type": stage.prediction, "rescale_betas_zero_snr": stage.zsnr}
    return {name: value for name, value in changed.items() if value is not None}


def _uses_negative(stage: Stage, family: str) -> bool:
    return stage.negative is not None and (family == "sdxl" or stage.cfg != 1)


def _texts(stage: Stage, family: str) -> dict[str, str | None]:
    found = {"prompt": stage.prompt.text, "prompt_2": stage.prompt.text_2}
    if _uses_negative(stage, family):
        assert stage.negative is not None
        found |= {"negative_prompt": stage.negative.text, "negative_prompt_2": stage.negative.text_2}
    return found


def _prompts(recipe: Recipe, stage: Stage, family: str) -> dict[str, Any]:
    """The keywords of `encode_prompts`; none where diffusers' own encoding of the texts is the program's, too."""
    told = [stage.prompt] + ([stage.negative] if stage.negative and _uses_negative(stage, family) else [])
    layer = stage.clip_layer or 2
    if recipe.program is None or (all(map(_plain, told)) and layer == 2):
        return {}
    found: dict[str, Any] = {name: text for name, text in _texts(stage, family).items() if text is not None}
    if len(told) == 2 and told[1].zeroed:
        found["zero_negative"] = True
    elif len(told) == 1:
        found["negative_prompt"] = None
    return found | {"program": recipe.program} | ({"clip_layer": layer} if layer != 2 else {})


def _plain(prompt: Prompt) -> bool:
    """Whether a prompt is as short, and as free of anything that could be a weight, as all programs take alike."""
    texts = [text for text in (prompt.text, prompt.text_2) if text is not None]
    return not prompt.zeroed and all(len(text) <= SURE and not set("()[]\\") & set(text) for text in texts)


def flux_mu(shift: dict[str, float]) -> float | None:
    """The log of FLUX's time shift, for the size that ComfyUI's ModelSamplingFlux is given: linear in its tokens."""
    if len(shift) < 4:
        return None
    tokens = shift["width"] * shift["height"] / 256
    slope = (shift["max_shift"] - shift["base_shift"]) / (4096 - 256)
    return shift["base_shift"] + slope * (tokens - 256)


def _grid(grid: Grid, program: str | None) -> Any:
    """A sigma grid as `sigma_grid=` takes it: a name, a node's with its numbers, or those that are listed."""
    if not grid.options:
        return grid_here(grid.name, program) or grid.name
    return grid.options["sigmas"] if grid.name == "ManualSigmas" else {grid.name: grid.options}
