"""A workflow of ComfyUI made a recipe: from the node that saves the picture back to what it is made of."""

from k_diffusing.reproduce.chains import Found, once
from k_diffusing.reproduce.graph import Graph, Link, Node
from k_diffusing.reproduce.nodes import OUTPUTS
from k_diffusing.reproduce.reading import Reading
from k_diffusing.reproduce.recipe import Recipe
from k_diffusing.reproduce.stages import SAMPLERS, read_stage
from k_diffusing.reproduce.values import MAX_BATCH, MAX_SIZE, BadFile, brief

CHANNELS = ("alpha", "red", "green", "blue")
EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage")


def read_workflow(graph: Graph, source: str, output: str | None = None) -> Recipe:
    """How the picture of a workflow is made.

    Args:
        graph: Its nodes.
        source: What it was read from.
        output: The id of the node that saves the picture. The first one, of those that save, if left out.

    Raises:
        BadFile: The workflow has no sampler that leads to a picture, leads in a circle, or a value cannot be.
    """
    recipe = Recipe(source, "comfyui")
    reading = Reading(graph, recipe)
    node = _output(graph, recipe, output)
    found = (node, 0) if node.kind in SAMPLERS else _pictures(reading, reading.follow(node, "images", "image"))
    _latents(reading, found)
    if not recipe.stages:
        raise BadFile(f"no sampler leads to node {node.label}, so that nothing tells how its picture was made")
    names = [name.lower() for stage in recipe.stages for name in stage.models]
    if any("flux" in name for name in names) or any(stage.shift for stage in recipe.stages):
        recipe.family = "flux"
    if recipe.family == "sdxl" and not any("xl" in name for name in names):
        recipe.notes.append("nothing tells which network it is: it is taken to be SDXL's")
    return recipe


def _output(graph: Graph, recipe: Recipe, output: str | None) -> Node:
    """The node that saves the picture; a sampler where none saves."""
    saving = [node for kind in OUTPUTS for node in graph.nodes.values() if node.kind == kind]
    linked = {value.node for node in graph.nodes.values() for value in node.inputs.values() if isinstance(value, Link)}
    ends = [node for node in graph.nodes.values() if node.id not in linked]
    saving += [node for node in ends if node not in saving and {"images", "image"} & node.inputs.keys()]
    saving += [node for node in graph.nodes.values() if node.kind in SAMPLERS] if not saving else []
    if output is not None:
        if output not in graph.nodes:
            raise BadFile(f"node {output!r} is not in the workflow; pictures come from {_listed(saving)}")
        return graph.nodes[output]
    if not saving:
        raise BadFile("the workflow has no node that saves a picture, and no sampler")
    if len(saving) > 1:
        recipe.notes.append(f"several nodes save a picture: this is {saving[0].label}, of {_listed(saving)}")
    return saving[0]


def _listed(nodes: list[Node]) -> str:
    return ", ".join(node.label for node in nodes[:10]) + (", ..." if len(nodes) > 10 else "") or "none"


def _pictures(reading: Reading, found: Found) -> Found:
    """What is decoded into the picture: latents, past the nodes that change the picture afterwards."""
    passed = set()
    while found:
        node, slot = once(found, passed)
        if node.kind in ("VAEDecode", "VAEDecodeTiled"):
            _vae(reading, node)
            return reading.follow(node, "samples")
        if node.kind in ("LoadImage", "LoadImageMask"):
            return None
        if node.kind in SAMPLERS:
            return found
        reading.recipe.lacks(node.label, "changes the picture after it is decoded")
        found = reading.onward(node, slot, "images", "image", "pixels", "samples")
    return None


def _vae(reading: Reading, node: Node) -> None:
    if node.kind == "VAEDecodeTiled":
        reading.recipe.lacks(node.label, "decodes in tiles, which differs a little from decoding at once")
    found = reading.follow(node, "vae")
    if found and found[0].kind == "VAELoader":
        name = reading.text(found[0], "vae_name")
        reading.recipe.notes.append(f"VAE: {brief(name)} of node {found[0].label}; ours is the one of --model")


def _latents(reading: Reading, found: Found) -> None:
    """The stages, from the last one back, and what the first one begins with."""
    recipe, passed = reading.recipe, set()
    while found:
        node, slot = once(found, passed)
        found = reading.follow(node, "latent_image", "samples")
        if node.kind in SAMPLERS:
            recipe.stages.insert(0, read_stage(reading, node))
            if slot == 1:
                recipe.lacks(node.label, "its denoised estimate is used, where the latents of its last step are here")
        elif node.kind in EMPTY:
            recipe.told(node.label, **_size(reading, node))
            return
        elif node.kind == "RepeatLatentBatch":
            amount = reading.whole(node, "amount", 1, MAX_BATCH)
            recipe.lacks(node.label, f"repeats the latents {amount} times")
        elif node.kind == "SetLatentNoiseMask":
            _mask(reading, node)
        elif node.kind in ("VAEEncode", "VAEEncodeForInpaint"):
            _encoded(reading, node)
            return
        else:
            recipe.lacks(node.label, "changes the latents between two stages, or before the first")
            found = reading.onward(node, slot, "samples", "latent_image", "latent", "pixels", "image")
    if recipe.stages and recipe.width is None:
        recipe.lacks(recipe.stages[0].where["stage"], "the latents that it begins with are not known here")


def _size(reading: Reading, node: Node) -> dict[str, int | None]:
    size = {name: reading.whole(node, name, 16, MAX_SIZE) for name in ("width", "height")}
    return {**size, "batch": reading.whole(node, "batch_size", 1, MAX_BATCH) or 1}


def _encoded(reading: Reading, node: Node) -> None:
    """The picture that the first stage begins with."""
    if node.kind == "VAEEncodeForInpaint":
        reading.recipe.lacks(node.label, "greys the masked part of the picture out before it is encoded")
        _mask(reading, node)
    found, passed = reading.follow(node, "pixels"), set()
    while found:
        source, slot = once(found, passed)
        if source.kind == "LoadImage":
            reading.recipe.told(source.label, image=reading.text(source, "image"))
            return
        reading.recipe.lacks(source.label, "changes the picture that is begun with")
        found = reading.onward(source, slot, "image", "images", "pixels")
    reading.recipe.lacks(node.label, "the picture that is begun with is not known here")


def _mask(reading: Reading, node: Node) -> None:
    found = reading.follow(node, "mask")
    if found is None or found[0].kind not in ("LoadImage", "LoadImageMask"):
        reading.recipe.lacks(found[0].label if found else node.label, "makes the mask of what is made anew")
        return
    channel = reading.text(found[0], "channel") if found[0].kind == "LoadImageMask" else "alpha"
    reading.recipe.told(found[0].label, mask=reading.text(found[0], "image"), mask_channel=channel or "alpha")
    if reading.recipe.mask_channel not in CHANNELS:
        raise BadFile(f"channel of node {found[0].label} is {brief(channel)}: it is one of {', '.join(CHANNELS)}")
