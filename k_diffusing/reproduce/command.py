"""`k-diffusing reproduce`: what is told of a file, and what is made of it."""

import argparse
import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from k_diffusing._files import write_png, write_whole
from k_diffusing.models import pipeline_name
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.difference import apart
from k_diffusing.reproduce.files import Found, read_file, read_image, read_mask
from k_diffusing.reproduce.page import OTHER, page
from k_diffusing.reproduce.read import recipe_of
from k_diffusing.reproduce.recipe import Recipe
from k_diffusing.reproduce.show import NETWORKS, adapter_name, gaps_text, python, table
from k_diffusing.reproduce.values import BadFile

Say = Callable[[str], None]


def run(args: argparse.Namespace, load: Callable, say: Say) -> int:
    """Tell of a file, and render it again if there is a model.

    Args:
        args: The command line: file, node, model, lora, image, mask, output.
        load: Loads the pipeline.
        say: Is told what comes of it, a line or more at a time.

    Returns:
        0 if all of it was understood, 1 if the picture cannot be the same.

    Raises:
        ValueError: The input cannot be right.
    """
    found = read_file(args.file)
    recipe = recipe_of(found, args.node)
    files = _lora_files(args.lora, recipe)
    say(table(recipe))
    if args.model:
        _render(args, found, recipe, files, load, say)
    else:
        say(f"\n{python(recipe)}\n")
    if recipe.complete:
        say("all of it was understood")
        return 0
    say(gaps_text(recipe))
    return 1


def _lora_files(given: list[str], recipe: Recipe) -> dict[str, Path]:
    """The files of LoRAs by the names in the recipe. Raises BadFile for a name that is not in it, or a bad file."""
    names = {one.name for stage in recipe.stages for one in stage.loras}
    known, files = names | set(map(adapter_name, names)), {}
    for text in given:
        name, equals, file = text.partition("=")
        path = Path(file)
        if not equals or not name:
            raise BadFile(f"--lora {text}: give NAME=FILE")
        if name not in known:
            raise BadFile(f"--lora {name}: the file has {', '.join(sorted(names)) or 'no LoRA'}")
        if path.suffix != ".safetensors" or not path.is_file():
            raise BadFile(f"--lora {text}: there is no such .safetensors file")
        files[name] = path
    return files


def _note_missing(recipe: Recipe, files: dict[str, Path]) -> None:
    for stage in recipe.stages:
        for lora in stage.loras:
            if not {lora.name, adapter_name(lora.name)} & files.keys():
                recipe.lacks(stage.where["loras"], f"LoRA {lora.name!r} is not applied: give --lora NAME=FILE")


def _begun_with(args: argparse.Namespace, recipe: Recipe) -> tuple[Image.Image | None, Image.Image | None]:
    """The picture that is begun with, and the mask. Raises BadFile."""
    first, image, mask = calls_of(recipe)[0], None, None
    if first.image:
        image = read_image(_file(args.image, first.image, args.file, "image"))
    if first.mask:
        name, channel = first.mask
        given = args.mask or (args.image if name == first.image else None)
        mask = read_mask(_file(given, name, args.file, "mask"), channel)
    return image, mask


def _file(given: Path | None, name: str, beside: Path, option: str) -> Path:
    """The file given, or the one of a name beside another. Raises BadFile."""
    path = given or beside.parent / re.split(r"[/\\]", name)[-1]
    if not path.is_file():
        raise BadFile(f"it begins with {name!r}, which is not beside {beside}: give --{option} FILE")
    return path


def _family(model: str, recipe: Recipe) -> str:
    """The family of the weights; that the file is of another one is noted. Raises ValueError for no weights of ours."""
    family = "flux" if pipeline_name(model) == "FluxPipeline" else "sdxl"
    if family != recipe.family:
        recipe.lacks(
            f"--model {model}", f"is {NETWORKS[family]}'s, and the picture seems to be {NETWORKS[recipe.family]}'s"
        )
    return family


def _render(
    args: argparse.Namespace, found: Found, recipe: Recipe, files: dict[str, Path], load: Callable, say: Say
) -> None:
    from k_diffusing.reproduce.rendering import check_known, render_recipe

    _note_missing(recipe, files)
    image, mask = _begun_with(args, recipe)
    text = python(recipe, args.model, _family(args.model, recipe))
    say(f"\n{text}\n")
    check_known(recipe, image, mask)
    args.output.mkdir(parents=True, exist_ok=True)  # fails before the model runs
    pictures = render_recipe(recipe, load(args), image=image, mask=mask, loras=files)
    paths = _paths(args.output, re.sub(r"[^\w.=+-]+", "_", args.file.stem)[-160:], pictures)
    for path, picture in zip(paths, pictures, strict=True):
        write_png(picture, path, {})
        say(f"wrote {path}")
    if found.picture is not None:
        _compare(found.picture, pictures, recipe, found.name, paths[0].with_suffix(".html"), text, say)


def _paths(folder: Path, name: str, pictures: list[Image.Image]) -> list[Path]:
    """A file for each picture, none of which holds another picture already."""
    for version in itertools.count(1):
        stem = f"{name}-again" if version == 1 else f"{name}-again-v{version}"
        ends = [f"-{i + 1}" for i in range(len(pictures))] if len(pictures) > 1 else [""]
        paths = [folder / f"{stem}{end}.png" for end in ends]
        if all(not path.exists() or _holds(path, picture) for path, picture in zip(paths, pictures, strict=True)):
            return paths
    raise AssertionError("unreachable")


def _holds(path: Path, picture: Image.Image) -> bool:
    with contextlib.suppress(OSError), Image.open(path) as there:
        return there.size == picture.size and there.convert("RGB").tobytes() == picture.convert("RGB").tobytes()
    return False


def _compare(
    theirs: Image.Image, pictures: list[Image.Image], recipe: Recipe, name: str, path: Path, text: str, say: Say
) -> None:
    """Write the page, of the nearest picture of a batch, and say the difference."""
    alike = [picture for picture in pictures if picture.size == theirs.size]
    if not alike:
        say(f"{name} is {theirs.width} x {theirs.height}: of another size, and not compared")
        return
    nearest = min(alike, key=lambda picture: apart(theirs, picture).mean)
    difference = apart(theirs, nearest)
    write_whole(path, page(recipe, name, theirs, nearest, difference, text).encode("utf-8", "backslashreplace"))
    say(f"wrote {path}")
    say(f"{name} and the picture rendered here: {difference}")
    if recipe.complete and not difference.rounding:
        say(OTHER)
