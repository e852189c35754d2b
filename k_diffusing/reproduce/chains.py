"""What leads to a sampler of a workflow: the network with what changes it, and the prompts."""

from k_diffusing.reproduce.graph import Node
from k_diffusing.reproduce.reading import Reading
from k_diffusing.reproduce.recipe import Lora, Prompt, Stage
from k_diffusing.reproduce.values import MAX_SIZE, BadFile

MODEL_FILES = {"CheckpointLoaderSimple": "ckpt_name", "CheckpointLoader": "ckpt_name", "UNETLoader": "unet_name"}
ENCODER_FILES = {"CLIPLoader": ("clip_name",), "DualCLIPLoader": ("clip_name1", "clip_name2")}
PREDICTIONS = {"eps": "epsilon", "v_prediction": "v_prediction"}

Found = tuple[Node, int] | None


def once(found: Found, passed: set[tuple[str, int]]) -> tuple[Node, int]:
    """What was found, noted as passed. Raises BadFile if it was passed before."""
    assert found is not None
    node, slot = found
    if (node.id, slot) in passed:
        raise BadFile(f"node {node.label}: its links lead in a circle")
    passed.add((node.id, slot))
    return found


def read_model(reading: Reading, stage: Stage, found: Found) -> None:
    """The network's file and what changes the network, from the sampler back."""
    passed, loras = set(), []
    while found:
        node, slot = once(found, passed)
        found = reading.follow(node, "model")
        if node.kind in MODEL_FILES:
            found = _model_file(reading, stage, node)
        elif node.kind in ("LoraLoader", "LoraLoaderModelOnly"):
            loras.insert(0, _lora(reading, node))
            stage.where["loras"] = node.label if len(loras) == 1 else f"{node.label}, ..."
        elif node.kind == "ModelSamplingFlux":
            if not stage.shift:
                stage.told(node.label, shift=_flux_shift(reading, node))
        elif node.kind == "ModelSamplingDiscrete":
            _discrete(reading, stage, node)
        else:
            reading.recipe.lacks(node.label, "changes the network, and so what it returns at each step")
            found = reading.onward(node, slot, "model")
    stage.loras = loras


def _model_file(reading: Reading, stage: Stage, node: Node) -> None:
    name = reading.text(node, MODEL_FILES[node.kind])
    if name is not None and name not in stage.models:
        stage.models.insert(0, name)
        stage.where["models"] = node.label
    if node.kind == "UNETLoader" and (dtype := reading.text(node, "weight_dtype")) not in (None, "default"):
        reading.recipe.lacks(node.label, f"holds the network's weights in {dtype}, which rounds them")


def _lora(reading: Reading, node: Node) -> Lora:
    strength = reading.real(node, "strength_model")
    text = reading.real(node, "strength_clip") if node.kind == "LoraLoader" else 0.0
    strengths = [1.0 if one is None else one for one in (strength, text)]
    return Lora(reading.text(node, "lora_name") or "", *strengths)


def _flux_shift(reading: Reading, node: Node) -> dict[str, float]:
    shift = {name: reading.real(node, name) for name in ("max_shift", "base_shift")}
    shift |= {name: reading.whole(node, name, 16, MAX_SIZE) for name in ("width", "height")}
    return {name: value for name, value in shift.items() if value is not None}


def _discrete(reading: Reading, stage: Stage, node: Node) -> None:
    sampling = reading.text(node, "sampling") or ""
    if stage.prediction is not None:
        return  # of several, the one next to the sampler counts
    if sampling not in PREDICTIONS:
        reading.recipe.lacks(node.label, f"{sampling!r} changes what the network's output is taken for")
    stage.told(node.label, prediction=PREDICTIONS.get(sampling, "epsilon"), zsnr=bool(reading.flag(node, "zsnr")))


def read_encoders(reading: Reading, stage: Stage, found: Found) -> None:
    """The text encoders' files and what changes them, from the prompt back."""
    passed = set()
    while found:
        node, slot = once(found, passed)
        found = reading.follow(node, "clip")
        if node.kind in MODEL_FILES:
            return
        if node.kind in ENCODER_FILES:
            names = [reading.text(node, name) for name in ENCODER_FILES[node.kind]]
            stage.models += [name for name in names if name and name not in stage.models]
            if reading.text(node, "type") == "flux":
                reading.recipe.told(node.label, family="flux")
            if node.kind == "CLIPLoader":
                reading.recipe.lacks(node.label, "is one text encoder, where SDXL and FLUX.1 have two: another network")
        elif node.kind == "CLIPSetLastLayer":
            if stage.clip_layer is None:
                layer = reading.whole(node, "stop_at_clip_layer", -24, -1)
                stage.told(node.label, clip_layer=None if layer is None else -layer)
        elif node.kind != "LoraLoader":  # which stands in the network's chain
            reading.recipe.lacks(node.label, "changes the text encoders, and so what the prompt means")
            found = reading.onward(node, slot, "clip")


def read_prompt(reading: Reading, stage: Stage, found: Found) -> Prompt:
    """A prompt, from the sampler back to the node that has its text."""
    prompt, passed, guided = Prompt(), set(), False
    while found:
        node, slot = once(found, passed)
        prompt.where = f"{node.label}, {prompt.where}" if prompt.where else node.label
        if node.kind in ENCODERS:
            ENCODERS[node.kind](reading, prompt, node, guided)
            read_encoders(reading, stage, reading.follow(node, "clip"))
            return prompt
        if node.kind == "FluxGuidance":
            if not guided:
                prompt.guidance = reading.real(node, "guidance", 0)
            guided = True
            reading.recipe.told(node.label, family="flux")
        elif node.kind == "FluxDisableGuidance":
            guided = True
        elif node.kind == "ConditioningZeroOut":
            prompt.zeroed = True
        else:
            effect = "changes what the network is told besides the prompt"
            reading.recipe.lacks(node.label, effect)
        found = reading.onward(node, slot, "conditioning", "positive", "negative", "conditioning_1", "conditioning_to")
    if not prompt.zeroed:
        reading.recipe.lacks(prompt.where or "the sampler", "its prompt is not known here")
    return prompt


def _one_text(reading: Reading, prompt: Prompt, node: Node, guided: bool) -> None:
    prompt.text = reading.text(node, "text")


def _sdxl_texts(reading: Reading, prompt: Prompt, node: Node, guided: bool) -> None:
    prompt.text, prompt.text_2 = reading.text(node, "text_l"), reading.text(node, "text_g")
    if prompt.text_2 == prompt.text:
        prompt.text_2 = None
    pairs = {
        "original_size": ("height", "width"),
        "crops_coords_top_left": ("crop_h", "crop_w"),
        "target_size": ("target_height", "target_width"),
    }
    for name, (down, across) in pairs.items():
        numbers = [reading.whole(node, one, 0, MAX_SIZE) for one in (down, across)]
        known = [number for number in numbers if number is not None]
        if len(known) == 2:
            prompt.sizes[name] = (known[0], known[1])


def _flux_texts(reading: Reading, prompt: Prompt, node: Node, guided: bool) -> None:
    prompt.text, prompt.text_2 = reading.text(node, "clip_l"), reading.text(node, "t5xxl")
    if prompt.text_2 == prompt.text:
        prompt.text_2 = None
    if not guided:
        prompt.guidance = reading.real(node, "guidance", 0)
    reading.recipe.told(node.label, family="flux")


ENCODERS = {"CLIPTextEncode": _one_text, "CLIPTextEncodeSDXL": _sdxl_texts, "CLIPTextEncodeFlux": _flux_texts}
