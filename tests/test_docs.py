"""What docs/architecture.md says of the code is there, and the Python blocks of README and of pages run."""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import k_diffusing
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS, CALL = re.findall(r"```mermaid\n(.*?)```", ARCHITECTURE, re.DOTALL)
SOURCES = [*(ROOT / "k_diffusing").rglob("*.py"), ROOT / "sdxl_comfy_pipeline.py", ROOT / "flux_comfy_pipeline.py"]


def defined(path: Path) -> set[str]:
    """The names bound at the top of a module, those of its classes' methods and of inner functions."""
    tree, names = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


LINKS = re.findall(r"\[`([^`]+)`\]\(\.\./([^)]+)\)", ARCHITECTURE)


@pytest.mark.parametrize("text, target", LINKS)
def test_what_the_architecture_links_to_is_defined_there(text, target):
    path = ROOT / target
    assert path.is_file()
    if not text.endswith(".py"):
        module, name = text.split(".")
        assert module == path.stem and name in defined(path)


def test_folders_and_files_that_the_architecture_names():
    named = [text for text in re.findall(r"`([^`\s]+)`", ARCHITECTURE) if "/" in text or text.endswith(".toml")]
    missing = [text for text in named if not ((ROOT / text).exists() or (ROOT / "k_diffusing" / text).exists())]
    assert named and not missing


def test_every_call_of_the_sequence_diagram_is_one_of_the_code():
    known = set().union(*map(defined, SOURCES)) | {"pipe", "model"}
    called = set(re.findall(r"([a-zA-Z_]\w*)\(", CALL))
    assert len(called) > 10 and called <= known


def test_the_layers_drawn_are_those_that_are_held():
    """Each part of the package stands in its layer's box, from above to below."""
    held = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in held if contract["id"] == "layers")
    boxes = [
        {name for part in box.split(" | ") for name in part.partition(":")[0].split(", ")}
        for box in re.findall(r'\["([^"]+)"\]', LAYERS)
    ]
    heights = []
    for layer in layers:
        parts = [part for part in re.findall(r"\w+", layer) if list((ROOT / "k_diffusing").glob(f"{part}*"))]
        heights += sorted(next(i for i, box in enumerate(boxes) if part in box) for part in parts)
    assert len(set(heights)) > 9 and heights == sorted(heights)


# The Python of README and of pages, on the demo model.

INSTEAD = {  # of what takes weights, a GPU, a reader's own values, or long
    '"stabilityai/stable-diffusion-xl-base-1.0"': repr(str(ROOT / "demo_models" / "sdxl-shapes")),
    ", dtype=torch.float16": ", dtype=torch.float32",
    ', variant="fp16"': "",
    '.to("cuda")': '.to("cpu")',
    ", ...)": ", num_inference_steps=4)",
    "num_inference_steps=25": "num_inference_steps=5",
    '"num_inference_steps": 20': '"num_inference_steps": 5',
    "comfy_sampler=None, generator": "comfy_sampler=None, num_inference_steps=5, generator",
    'comfy_sampler="euler", generator': 'comfy_sampler="euler", num_inference_steps=5, generator',
    "steps=50": "steps=5",
    'pipe(prompt, comfy_sampler="uni_pc"': 'pipe(prompt, num_inference_steps=4, comfy_sampler="uni_pc"',
    "pipe(prompt, comfy_sampler=partial": "pipe(prompt, num_inference_steps=4, comfy_sampler=partial",
    "pipe(prompt, sigma_grid=": "pipe(prompt, num_inference_steps=4, sigma_grid=",
}
RUN = [
    "README.md",
    *(f"docs/{name}.md" for name in ("index", "install", "compare", "samplers", "schedulers", "sigma_grids")),
    *(f"docs/from_{name}.md" for name in ("diffusers", "comfyui", "a1111")),
]


@pytest.fixture(scope="module")
def demo():
    pipe = StableDiffusionXLPipeline.from_pretrained(ROOT / "demo_models" / "sdxl-shapes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("page", RUN)
def test_the_python_of_a_page_runs(page, demo, tmp_path, monkeypatch):
    """One block after the other, as in a notebook that has a pipeline, a prompt, a picture and a file of sigmas."""
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_grid.json").write_text('{"sigmas": [14.6, 5.2, 1.1, 0.2, 0]}')
    picture = Image.new("RGB", (128, 128), "red")
    names = {"__name__": "__main__", "pipe": demo, "prompt": "a small red circle", "k_diffusing": k_diffusing}
    names |= {"sketch": picture, "picture": picture}
    names |= {"model": lambda x, sigma: x / 2, "x": torch.randn(1, 4, 4, 4), "sigmas": torch.tensor([9.0, 3, 1, 0])}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        for there, here in INSTEAD.items():
            block = block.replace(there, here)
        exec(compile(block, page, "exec"), names)  # our own pages, so nothing foreign is run
    assert blocks
    if "image" in names:
        assert names["image"].size == (128, 128)
    if "before" in names:
        assert np.array_equal(names["before"], names["image"])
    if "trace" in names:
        assert (tmp_path / "run.json").is_file() and len(names["trace"].calls) > 0


# The changelog.


def test_names_that_the_changelog_sends_users_to_are_there():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    imports = re.findall(r"`from k_diffusing import (\w+)`", changelog)
    assert imports and set(imports) <= set(k_diffusing.__all__)
    modules = set(re.findall(r"\| `(k_diffusing[\w.]*)` \|", changelog))
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    assert len(modules) > 40 and not missing
