"""A recipe rendered by one of our pipelines."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from k_diffusing.compare.sources import find_source
from k_diffusing.programs.a1111 import a1111_of
from k_diffusing.programs.choose import find_program
from k_diffusing.reproduce.call import Call, calls_of
from k_diffusing.reproduce.encode import encode_prompts
from k_diffusing.reproduce.recipe import Lora, Recipe
from k_diffusing.reproduce.show import adapter_name, adapters


def render_recipe(
    recipe: Recipe, pipe, *, image: Image.Image | None = None, mask: Image.Image | None = None,
    loras: Mapping[str, Path] | None = None,
) -> list[Image.Image]:  # fmt: skip
    """The pictures that a recipe makes.

    Args:
        recipe: How they are made; what it lacks is left out.
        pipe: An SDXL or FLUX pipeline of ours. Its scheduler and LoRAs are afterwards what they were.
        image: The picture that is begun with, where the recipe names one.
        mask: White where that is made anew, where the recipe names a mask.
        loras: The files of the LoRAs, by the names that the recipe has for them; those that are not given are left out.

    Raises:
        ValueError: Something that a picture cannot be rendered without is not known.
    """
    family = "flux" if hasattr(pipe, "transformer") else "sdxl"
    check_known(recipe, image, mask)
    size = {} if image is None else {"width": image.width // 8 * 8, "height": image.height // 8 * 8}
    with _scheduler_kept(pipe), _loras(pipe, recipe, loras or {}, family):
        made: Any = None
        for call in calls_of(recipe, family):
            keywords = {**size, **keywords_of(call, pipe, image, mask)}
            if call.goes_on:
                keywords |= _gone_on(pipe, keywords, made)
            made = pipe(**keywords).images
    return made


def _gone_on(pipe, keywords: dict[str, Any], latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """The latents of the call before: as they are, or a picture's, to which noise is added."""
    if keywords.get("add_noise") is False:
        return {"latents": latents}
    if hasattr(pipe, "transformer"):
        latents = pipe._unpack_latents(latents, keywords["height"], keywords["width"], pipe.vae_scale_factor)
    return {"image": latents}


def check_known(recipe: Recipe, image: Image.Image | None = None, mask: Image.Image | None = None) -> None:
    """Raise ValueError unless all is known and given that a picture cannot be rendered without."""
    first = calls_of(recipe)[0]
    for name, file, given in (("image", first.image, image), ("mask", first.mask, mask)):
        if file and given is None:
            raise ValueError(f"{name}= is needed: the recipe has {file!r}")
    for stage in recipe.stages:
        needed = {"the seed": stage.seed, "the number of steps": stage.steps, "the sampler": stage.sampler}
        needed |= {"the width": recipe.width, "the height": recipe.height} if recipe.image is None else {}
        unknown = [name for name, value in needed.items() if value is None]
        if stage.prompt.text is None:
            unknown.append("the prompt")
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot be read from the file, so that nothing can be rendered")


def keywords_of(call: Call, pipe, image: Image.Image | None = None, mask: Image.Image | None = None) -> dict[str, Any]:
    """The pipeline's keywords for a call; its scheduler is made what the call asks for."""
    keywords = dict(call.keywords)
    if call.scheduler:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **call.scheduler)
    if str(keywords["comfy_sampler"]).endswith("Scheduler"):
        options = [f",{name}={value}" for name, value in keywords.pop("sampler_options", {}).items()]
        source = find_source(f"{keywords['comfy_sampler']}{''.join(options)}", pipe.scheduler)
        keywords |= {"comfy_sampler": source.sampler, **source.keywords}
    if call.prompts:
        keywords |= encode_prompts(pipe, **call.prompts)
    if call.one_stream is not None:
        keywords["generator"] = torch.Generator("cpu").manual_seed(call.one_stream)
    if call.image:
        keywords["image"] = image
    if call.mask:
        keywords["mask_image"] = mask
    if call.settings:
        keywords["program"] = a1111_of(call.settings)
    if call.whole_grid:
        keywords["program"] = dataclasses.replace(find_program("comfyui"), drops_penultimate=frozenset())
    return keywords


@contextlib.contextmanager
def _scheduler_kept(pipe) -> Iterator[None]:
    scheduler = pipe.scheduler
    try:
        yield
    finally:
        pipe.scheduler = scheduler


@contextlib.contextmanager
def _loras(pipe, recipe: Recipe, files: Mapping[str, Path], family: str) -> Iterator[None]:
    """LoRAs loaded and set to their strengths, and unloaded afterwards."""
    stage = recipe.stages[0]
    used = [(lora, file) for lora in stage.loras if (file := lora_file(lora, files))]
    if not used:
        yield
        return
    try:
        for lora, file in used:
            folder, name = str(file.parent), file.name
            pipe.load_lora_weights(folder, weight_name=name, adapter_name=adapter_name(lora.name), use_safetensors=True)
        pipe.set_adapters(*adapters([lora for lora, _ in used], family))
        yield
    finally:
        pipe.unload_lora_weights()


def lora_file(lora: Lora, files: Mapping[str, Path]) -> Path | None:
    """The file given for a LoRA, by the name in the recipe, with or without folder and ending."""
    return files.get(lora.name) or files.get(adapter_name(lora.name))
