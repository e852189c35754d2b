"""How the picture in a file was made, whichever program wrote the file.

read_recipe("ComfyUI_00001_.png")    a Recipe
"""

from pathlib import Path
from typing import Any

from k_diffusing.reproduce.a1111 import read_parameters
from k_diffusing.reproduce.comfyui import read_workflow
from k_diffusing.reproduce.editor import editor_graph
from k_diffusing.reproduce.files import Found, read_file, read_json
from k_diffusing.reproduce.graph import api_graph
from k_diffusing.reproduce.infotext import is_infotext, read_infotext
from k_diffusing.reproduce.limits import note_limits
from k_diffusing.reproduce.own import is_own, read_own
from k_diffusing.reproduce.recipe import Recipe
from k_diffusing.reproduce.values import BadFile, brief

KINDS = "ComfyUI's workflow, A1111's or Forge's parameters, or the text of a picture of ours"


def read_recipe(file: str | Path, node: str | None = None) -> Recipe:
    """How the picture in a file was made.

    Args:
        file: A PNG, JPEG or WebP picture, a workflow of ComfyUI in JSON, or a text as A1111 writes it.
        node: The id of the node of a workflow that saves the picture. The first one if left out.

    Raises:
        BadFile: A ValueError: the file cannot be read, or tells nothing of how a picture was made.
    """
    return recipe_of(read_file(Path(file)), node)


def recipe_of(found: Found, node: str | None = None) -> Recipe:
    """As `read_recipe`, of a file that was read."""
    recipe = _recipe(found, node)
    note_limits(recipe)
    return recipe


def _recipe(found: Found, node: str | None) -> Recipe:
    if found.picture is None:
        return _of_text(found, node)
    texts = found.texts
    if is_own(texts):
        return read_own(texts, *found.picture.size)
    if "prompt" in texts and texts["prompt"].lstrip().startswith("{"):  # what was run; the editor's may differ from it
        return _of_json(read_json(texts["prompt"], f"the prompt in {found.name}"), found.name, node)
    if "workflow" in texts:
        return _of_json(read_json(texts["workflow"], f"the workflow in {found.name}"), found.name, node)
    if "parameters" in texts:
        return read_parameters(read_infotext(texts["parameters"]))
    has = f"its texts are {', '.join(map(brief, list(texts)[:5]))}" if texts else "it has no texts"
    raise BadFile(f"{found.name} does not tell how it was made: {has}, where {KINDS} would be")


def _of_text(found: Found, node: str | None) -> Recipe:
    text = found.text or ""
    if text.lstrip()[:1] in ("{", "["):
        return _of_json(read_json(text, found.name), found.name, node)
    if is_infotext(text):
        return read_parameters(read_infotext(text))
    raise BadFile(f"{found.name} is neither a picture nor JSON, and does not end in settings as A1111 writes them")


def _of_json(content: Any, name: str, node: str | None) -> Recipe:
    if not isinstance(content, dict) or not content:
        raise BadFile(f"{name} holds {brief(content)}: a workflow of ComfyUI is an object with nodes in it")
    inner = content.get("prompt")
    if isinstance(inner, dict) and "class_type" not in content:  # as it is sent to ComfyUI's server
        content = inner
    if isinstance(content.get("nodes"), list):
        return read_workflow(editor_graph(content), "ComfyUI's workflow, as its editor saves it", node)
    return read_workflow(api_graph(content), "ComfyUI's workflow, API form", node)
