"""A recipe to read: a table, the Python that makes the picture again, and what is not done."""

import re
import textwrap
from typing import Any

from k_diffusing.reproduce.call import Call, calls_of, flux_mu
from k_diffusing.reproduce.limits import read_prompt_text, weights_applied
from k_diffusing.reproduce.recipe import Lora, Prompt, Recipe, Stage
from k_diffusing.reproduce.wording import grid_here, sampler_here

WIDTH = 100
NAMES, WHERE = 19, 26  # the widths of the table's first and last column
NETWORKS = {"sdxl": "SDXL", "flux": "FLUX"}
LONGEST = 1200  # letters of a value that are shown

Row = tuple[str, str, str]  # what, its value, where it was read


def table(recipe: Recipe) -> str:
    """What was understood, in lines of WIDTH letters at most."""
    lines = [f"{printable(recipe.source)}: {NETWORKS[recipe.family]}"]
    for i, stage in enumerate(recipe.stages):
        if len(recipe.stages) > 1:
            lines.append(f"\nstage {i + 1} of {len(recipe.stages)}: {printable(stage.where['stage'])}")
        lines += [line for row in stage_rows(recipe, stage) for line in _lines(row)]
    if len(recipe.stages) > 1:
        lines.append("\nall stages")
    lines += [line for row in recipe_rows(recipe) for line in _lines(row)]
    lines += ["", *(line for note in recipe.notes for line in textwrap.wrap(printable(f"note: {note}"), WIDTH))]
    return "\n".join(lines).rstrip()


def printable(text: str) -> str:
    """A text without letters that a terminal would act on."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def _lines(row: Row) -> list[str]:
    name, value, where = map(printable, row)
    value = value if len(value) <= LONGEST else f"{value[:LONGEST]}... ({len(value):,} letters)"
    room = WIDTH - NAMES - WHERE - 2
    wrapped = [line for part in value.split("\n") for line in textwrap.wrap(part, room) or [""]]
    places = textwrap.wrap(where, WHERE)[:2]
    count = max(len(wrapped), len(places))
    cells = zip([name] + [""] * count, wrapped + [""] * count, places + [""] * count, strict=False)
    return [f"{a:{NAMES}} {b:{room}} {c}".rstrip() for a, b, c in list(cells)[:count]]


def stage_rows(recipe: Recipe, stage: Stage) -> list[Row]:
    """What is known of a stage."""
    rows = [*_prompt_rows(recipe, "prompt", stage.prompt)]
    if stage.negative is not None:
        rows += _prompt_rows(recipe, "negative", stage.negative)
    for name, value in _stage_values(recipe, stage).items():
        if value is not None:
            field = {"sigma grid": "grid", "noise at start": "add_noise", "noise left": "leftover_noise"}.get(name)
            where = stage.where.get(field or name.replace(" ", "_"), stage.where["stage"])
            rows.append((name, str(value), where))
    rows += [("LoRA", f"{one.name}, {one.strength:g}, text {one.strength_text:g}", stage.where["loras"])
             for one in stage.loras]  # fmt: skip
    rows += [("file", name, stage.where.get("models", "")) for name in stage.models]
    return rows


def _stage_values(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    mu = flux_mu(stage.shift)
    return {
        "seed": stage.seed,
        "steps": stage.steps,
        "sampler": _renamed(stage.sampler, None if recipe.ours else stage.sampler and sampler_here(stage.sampler)[0]),
        "sampler options": ", ".join(f"{name}={value}" for name, value in stage.sampler_options.items()) or None,
        "sigma grid": _grid(recipe, stage),
        "cfg": None if stage.cfg is None else f"{stage.cfg:g}",
        "guidance": None if stage.prompt.guidance is None else f"{stage.prompt.guidance:g}, distilled",
        "denoise": stage.denoise,
        "start step": stage.start_step,
        "end step": stage.end_step,
        "noise at start": None if stage.add_noise else "none is added",
        "noise left": "what is left stays" if stage.leftover_noise else None,
        "shift": None if mu is None else f"mu {mu:.6g}, from {stage.shift}",
        "prediction": stage.prediction,
        "zsnr": stage.zsnr,
        "clip layer": None if stage.clip_layer is None else f"{stage.clip_layer} from the end",
    }


def _renamed(theirs: str | None, ours: str | None) -> str | None:
    return theirs if ours in (None, theirs) else f"{theirs} (ours: {ours})"


def _grid(recipe: Recipe, stage: Stage) -> str | None:
    if stage.grid is None:
        return stage.scheduler
    if stage.grid.name == "ManualSigmas":
        return ", ".join(f"{sigma:g}" for sigma in stage.grid.options["sigmas"])
    known = {name: value for name, value in stage.grid.options.items() if value is not None}
    numbers = ", ".join(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in known.items())
    name = _renamed(stage.scheduler or stage.grid.name, grid_here(stage.grid.name, recipe.program)) or stage.grid.name
    return f"{name}, {numbers}" if numbers else name


def _prompt_rows(recipe: Recipe, name: str, prompt: Prompt) -> list[Row]:
    if prompt.zeroed:
        return [(name, "zeros in place of its embeddings", prompt.where)]
    texts = {name: prompt.text, f"{name}, 2nd": prompt.text_2}
    rows = [(name, "(empty)" if text == "" else text, prompt.where) for name, text in texts.items() if text is not None]
    for text in texts.values():
        weighted = read_prompt_text(recipe.program, text).weighted if text and recipe.program else []
        if weighted:
            told = ", ".join(f"{one.text.strip()!r} {one.weight:.4g}" for one in weighted)
            rows.append(("weights", told, "applied" if weights_applied(recipe) else "not applied"))
    rows += [(label.replace("_", " "), str(value), prompt.where) for label, value in prompt.sizes.items()]
    return rows


def recipe_rows(recipe: Recipe) -> list[Row]:
    """What is known of all stages together."""
    size = None if recipe.width is None else f"{recipe.width} x {recipe.height}"
    values = {"width": ("size", size), "batch": ("batch", recipe.batch if recipe.batch > 1 else None)}
    values |= {"image": ("begins with", recipe.image), "mask": ("mask", recipe.mask)}
    values |= {name: (name, value) for name, value in (recipe.settings | recipe.keywords).items()}
    values["model"] = ("model", recipe.model)
    return [(name, str(value), recipe.where.get(key, "")) for key, (name, value) in values.items() if value is not None]


def gaps_text(recipe: Recipe) -> str:
    """Why the picture cannot be the same: a line for each cause."""
    lines = [f"{len(recipe.gaps)} things change the picture and are not done here:"]
    if len(recipe.gaps) == 1:
        lines = ["One thing changes the picture and is not done here:"]
    for gap in recipe.gaps:
        told = printable(f"{gap.where}: {gap.effect}")
        lines += textwrap.wrap(told, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def python(recipe: Recipe, model: str | None = None, family: str | None = None) -> str:
    """The Python that makes the picture.

    Args:
        recipe: How it is made.
        model: The weights. The name in the file if left out.
        family: "sdxl" or "flux", of the weights. The recipe's if left out.
    """
    calls = calls_of(recipe, family)
    weights = model or recipe.model or next((name for stage in recipe.stages for name in stage.models), "a model")
    made = [f"pipe = load({weights!r})"]
    for lora in {one.name: one for stage in recipe.stages for one in stage.loras}.values():
        made.append(f"pipe.load_lora_weights({lora.name!r}, adapter_name={adapter_name(lora.name)!r})")
    if recipe.stages[0].loras:
        names, strengths = adapters(recipe.stages[0].loras, family or recipe.family)
        made.append(f"pipe.set_adapters({names}, {strengths})")
    made += [_python_call(call) for call in calls]
    text = "\n".join(made)
    imports = {
        "torch.": "import torch\n", "dataclasses.": "import dataclasses\n", "Image.open": "from PIL import Image\n",
        "ImageOps.": "from PIL import ImageOps\n",
        "encode_prompts(": "from k_diffusing import encode_prompts\n",
        "a1111_of(": "from k_diffusing.programs.a1111 import a1111_of\n",
        "find_program(": "from k_diffusing.programs.choose import find_program\n",
    }  # fmt: skip
    needed = "".join(line for word, line in imports.items() if word in text)
    return f"{needed}from k_diffusing.models import load\n\n{text}"


def adapter_name(lora: str) -> str:
    """A LoRA's name in a pipeline: letters, digits and underscores of its file's."""
    return re.sub(r"\W+", "_", re.split(r"[/\\]", lora)[-1].rpartition(".")[0] or lora, flags=re.ASCII)


def adapters(loras: list[Lora], family: str) -> tuple[list[str], list[dict[str, float]]]:
    """The arguments of set_adapters: the names of LoRAs, and their strengths."""
    network, encoders = ("unet", 2) if family == "sdxl" else ("transformer", 1)
    texts = ["text_encoder", "text_encoder_2"][:encoders]
    strengths = [{network: one.strength, **dict.fromkeys(texts, one.strength_text)} for one in loras]
    return [adapter_name(one.name) for one in loras], strengths


def _python_call(call: Call) -> str:
    lines = []
    if call.scheduler:
        told = ", ".join(f"{name}={value!r}" for name, value in call.scheduler.items())
        lines.append(f"pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, {told})")
    name = "image" if call.last else "latents"
    lines.append(f"{name} = pipe(")
    if call.prompts:
        lines.append(f"    **encode_prompts(pipe, {_arguments(call.prompts)}),")
    keywords = {key: repr(value) for key, value in call.keywords.items()}
    if call.whole_grid:
        keywords["program"] = 'dataclasses.replace(find_program("comfyui"), drops_penultimate=frozenset())'
    if call.settings:
        keywords["program"] = f"a1111_of({call.settings})"
    if call.one_stream is not None:
        keywords["generator"] = f'torch.Generator("cpu").manual_seed({call.one_stream})'
    if call.image:
        keywords["image"] = f"Image.open({call.image!r})"
    if call.mask:
        channel = f"Image.open({call.mask[0]!r}).getchannel({call.mask[1][0].upper()!r})"
        keywords["mask_image"] = f"ImageOps.invert({channel})" if call.mask[1] == "alpha" else channel
    if call.goes_on:
        keywords |= {"latents": "latents"} if call.keywords.get("add_noise") is False else {"image": "latents"}
    lines += [f"    {key}={value}," for key, value in keywords.items()]
    return "\n".join([*lines, ").images[0]" if call.last else ").images"])


def _arguments(keywords: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items())
