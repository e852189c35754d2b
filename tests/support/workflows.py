"""Workflows of ComfyUI, written after the public schemas of its nodes, and pictures with texts in them."""

import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def node(kind, **inputs):
    """A node of the API form. A link is ("id", slot)."""
    return {"class_type": kind, "inputs": {name: _link(value) for name, value in inputs.items()}}


def _link(value):
    return list(value) if isinstance(value, tuple) else value


def sdxl(**changed):
    """Text to image on SDXL, as ComfyUI runs it; changed: nodes by id, as `n12=node(...)`, None to leave one out."""
    nodes = {
        "4": node("CheckpointLoaderSimple", ckpt_name="xl.safetensors"),
        "5": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "6": node("CLIPTextEncode", text="a large yellow square", clip=("4", 1)),
        "7": node("CLIPTextEncode", text="blurry", clip=("4", 1)),
        "3": node(
            "KSampler", seed=5, steps=6, cfg=4.5, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0,
            model=("4", 0), positive=("6", 0), negative=("7", 0), latent_image=("5", 0),
        ),
        "8": node("VAEDecode", samples=("3", 0), vae=("4", 2)),
        "9": node("SaveImage", images=("8", 0), filename_prefix="a"),
    }  # fmt: skip
    return with_nodes(nodes, changed)


def flux(**changed):
    """Text to image on FLUX with a node for each part of sampling."""
    nodes = {
        "1": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "2": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="clip_l.safetensors", type="flux"),
        "3": node("VAELoader", vae_name="ae.safetensors"),
        "4": node("CLIPTextEncode", text="a small white ring", clip=("2", 0)),
        "5": node("FluxGuidance", conditioning=("4", 0), guidance=2.5),
        "6": node("BasicGuider", model=("1", 0), conditioning=("5", 0)),
        "7": node("RandomNoise", noise_seed=11),
        "8": node("KSamplerSelect", sampler_name="euler"),
        "9": node("BasicScheduler", model=("1", 0), scheduler="simple", steps=4, denoise=1.0),
        "10": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "11": node(
            "SamplerCustomAdvanced",
            noise=("7", 0), guider=("6", 0), sampler=("8", 0), sigmas=("9", 0), latent_image=("10", 0),
        ),
        "12": node("VAEDecode", samples=("11", 0), vae=("3", 0)),
        "13": node("PreviewImage", images=("12", 0)),
    }  # fmt: skip
    return with_nodes(nodes, changed)


def with_nodes(nodes, changed):
    nodes = {**nodes, **{name.removeprefix("n"): value for name, value in changed.items()}}
    return {key: value for key, value in nodes.items() if value is not None}


def change(workflow, key, **inputs):
    """The workflow with other inputs of one node."""
    old = workflow[key]
    return {**workflow, key: {**old, "inputs": {**old["inputs"], **{n: _link(v) for n, v in inputs.items()}}}}


class Editor:
    """A workflow as the editor saves it."""

    def __init__(self):
        self.nodes, self.links = [], []

    def add(self, key, kind, values=(), inputs=(), outputs=("*",), mode=0, **more):
        """A node. inputs: (name, type, where it comes from: (id, slot) or None), or (..., "widget")."""
        slots = []
        for name, of_type, origin, *widget in inputs:
            slots.append({"name": name, "type": of_type, "link": self.link(origin, key, len(slots), of_type)})
            if widget:
                slots[-1]["widget"] = {"name": name}
        made = [{"name": of_type, "type": of_type, "links": []} for of_type in outputs]
        self.nodes.append(
            {"id": key, "type": kind, "mode": mode, "inputs": slots, "outputs": made, "widgets_values": values, **more}
        )

    def link(self, origin, key, place, of_type):
        if origin is None:
            return None
        self.links.append([len(self.links) + 1, *origin, key, place, of_type])
        return len(self.links)

    def json(self, **more):
        return {"nodes": self.nodes, "links": self.links, "version": 0.4, **more}


def edited_sdxl(**sampler):
    """`sdxl()` as the editor saves it; sampler: more of its KSampler's node."""
    editor = Editor()
    editor.add(4, "CheckpointLoaderSimple", ["xl.safetensors"], outputs=("MODEL", "CLIP", "VAE"))
    editor.add(5, "EmptyLatentImage", [128, 128, 1], outputs=("LATENT",))
    editor.add(6, "CLIPTextEncode", ["a large yellow square"], [("clip", "CLIP", (4, 1))], ("CONDITIONING",))
    editor.add(7, "CLIPTextEncode", ["blurry"], [("clip", "CLIP", (4, 1))], ("CONDITIONING",))
    links = [("model", "MODEL", (4, 0)), ("positive", "CONDITIONING", (6, 0)), ("negative", "CONDITIONING", (7, 0))]
    editor.add(
        3, "KSampler", [5, "randomize", 6, 4.5, "dpmpp_2m", "karras", 1.0],
        [*links, ("latent_image", "LATENT", (5, 0))], ("LATENT",), **sampler,
    )  # fmt: skip
    editor.add(8, "VAEDecode", [], [("samples", "LATENT", (3, 0)), ("vae", "VAE", (4, 2))], ("IMAGE",))
    editor.add(9, "SaveImage", ["a"], [("images", "IMAGE", (8, 0))], ())
    return editor


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_picture(path, picture=None, **texts):
    """A PNG with texts in it."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    (picture or Image.new("RGB", (8, 8), "red")).save(path, pnginfo=info)
    return path
