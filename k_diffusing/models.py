"""The bundled demo models, the defaults of real weights, and pipelines of ours loaded by name.

pipe = load("demo-flux")
image = pipe(**DEMOS["demo-flux"].keywords, comfy_sampler="dpmpp_2m").images[0]

pipe = load("stabilityai/stable-diffusion-xl-base-1.0", dtype="float16", variant="fp16", device="cuda")
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from k_diffusing._messages import one_line

_PACKAGE = Path(__file__).resolve().parent
# In an installed copy they lie in the package, in a checkout beside it.
DEMO_MODELS = next(path for path in (_PACKAGE / "demo_models", _PACKAGE.parent / "demo_models") if path.is_dir())
PIPELINES = {"StableDiffusionXLPipeline": "sdxl_comfy_pipeline", "FluxPipeline": "flux_comfy_pipeline"}


@dataclass(frozen=True)
class Model:
    """Weights, and what is asked of them where a user says nothing.

    Attributes:
        pipeline: The name of the pipeline's class, one of PIPELINES.
        weights: A diffusers folder, or a name on the hub.
        prompt: What it draws well.
        steps: The number of inference steps.
        call: Further keywords of the pipeline's call: guidance, and height and width in pixels.
        dtype: The name of the torch dtype in which the weights are loaded.
        variant: The weights' variant on the hub, such as "fp16".
        device: None stands for an accelerator if there is one.
        threads: Of torch, on a CPU. None leaves them as they are.
        batch_size: Rows of a network call at most, where several pictures are rendered at a time.
    """

    pipeline: str
    weights: str
    prompt: str
    steps: int
    call: dict[str, Any]
    dtype: str
    variant: str | None = None
    device: str | None = None
    threads: int | None = None
    batch_size: int = 1

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of the pipeline's call: the prompt and `call`."""
        return {"prompt": self.prompt, **self.call}


def _demo(pipeline: str, folder: str, **call) -> Model:
    """A demo model, run on one thread.

    That is fastest for networks this small, and a picture's last bits depend on the number of threads: with one they
    are the same on any number of cores.
    """
    call |= {"height": 128, "width": 128}
    prompt = "a large yellow square on a purple background"
    weights = str(DEMO_MODELS / folder)
    return Model(pipeline, weights, prompt, 28, call, "float32", device="cpu", threads=1, batch_size=26)


_FLUX_CALL = {"guidance_scale": 3.5, "true_cfg_scale": 1.0, "negative_prompt": "", "max_sequence_length": 512}
DEMOS = {
    "demo": _demo("StableDiffusionXLPipeline", "sdxl-shapes", guidance_scale=3.0),
    "demo-flux": _demo("FluxPipeline", "flux-shapes", **_FLUX_CALL | {"max_sequence_length": 64}),
}
REAL_PROMPT = "Astronaut in a jungle, cold color palette, muted colors, detailed, 8k"
# By the class of their pipeline: for all weights that are no demo's.
REAL_WEIGHTS = {
    "StableDiffusionXLPipeline": Model(
        "StableDiffusionXLPipeline", "stabilityai/stable-diffusion-xl-base-1.0", REAL_PROMPT, 50,
        {"guidance_scale": 5.0}, "float16", variant="fp16",
    ),
    "FluxPipeline": Model(
        "FluxPipeline", "black-forest-labs/FLUX.1-dev", REAL_PROMPT, 20,
        {**_FLUX_CALL, "height": 512, "width": 512}, "bfloat16",
    ),
}  # fmt: skip


@functools.cache
def demo_shapes() -> ModuleType:
    """demo_models/shapes.py, which is on no path: the captions of the demo models, and what reads their pictures."""
    module = ModuleType("demo_shapes")
    SourceFileLoader(module.__name__, str(DEMO_MODELS / "shapes.py")).exec_module(module)
    return module


class ModelError(ValueError):
    """Weights that cannot be loaded: which, why and what to try, in one line."""


def pipeline_class(name: str) -> type:
    """The pipeline class of ours with a name.

    Args:
        name: One of PIPELINES.

    Returns:
        The class, from the file beside this package.

    Raises:
        ImportError: Python finds another file of that name first.
    """
    module = PIPELINES[name]
    ours, spec = _PACKAGE.parent / f"{module}.py", importlib.util.find_spec(module)
    found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if found != ours:
        raise ImportError(
            f"{name} is in {ours}, and for {module} Python finds {found or 'nothing'}: put {ours.parent} on PYTHONPATH "
            "before other folders, or start Python elsewhere",
            name=module,
        )
    return getattr(importlib.import_module(module), name)


def pipeline_name(model: str) -> str:
    """The name of the pipeline class that weights are for.

    Args:
        model: A name of DEMOS, a diffusers folder, a hub name, or a .safetensors file, whose name has "flux" in it if
            it is one of FLUX.

    Returns:
        One of PIPELINES.

    Raises:
        ModelError: The weights cannot be read, or are another pipeline's.
    """
    if model in DEMOS:
        return DEMOS[model].pipeline
    with _model_errors(model):
        path = Path(model)
        if path.is_file():
            return "FluxPipeline" if "flux" in path.name.lower() else "StableDiffusionXLPipeline"
        if path.is_dir():
            index: Any = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
        else:
            from diffusers import DiffusionPipeline

            index = DiffusionPipeline.load_config(model)
        if index["_class_name"] not in PIPELINES:
            raise ValueError(f"it is a {index['_class_name']}; we have {', '.join(PIPELINES)}")
    return index["_class_name"]


def weights(model: str) -> str:
    """The folder of a demo model by its name; any other model's name as it is."""
    return DEMOS[model].weights if model in DEMOS else model


def check_model(model: str) -> None:
    """Check that weights can be looked for: torch is not needed, and the hub is not asked.

    Args:
        model: As `pipeline_name` takes it.

    Raises:
        ModelError: It is neither weights on this machine nor a name that the hub could know.
    """
    name = weights(model)
    path, choices = Path(name), "give a diffusers folder, a .safetensors file, or a hub name such as owner/name"
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise ModelError(f"{model} has no model_index.json, so it holds no pipeline: {choices}")
    if path.is_file() and path.suffix != ".safetensors":
        raise ModelError(f"{model} is not a .safetensors file: {choices}")
    if not path.exists() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        raise ModelError(f"{model} does not exist: {choices}")


def load(
    model: str,
    *,
    kind: type | None = None,
    dtype: str = "float32",
    variant: str | None = None,
    device: str = "cpu",
    offload: bool = False,
):
    """A pipeline of ours, on its device, without a progress bar.

    Args:
        model: As `pipeline_name` takes it.
        kind: The class of the pipeline. That which the weights are for if left out.
        dtype: The name of the torch dtype of the weights.
        variant: The variant of the weights, for float16, where there is one.
        device: Where it runs.
        offload: Whether to keep on the device only the part of the model that is at work.

    Raises:
        ModelError: The weights cannot be loaded, whatever is wrong with them.
        ImportError: As `pipeline_class`.
    """
    kind = kind or pipeline_class(pipeline_name(model))
    with _model_errors(model):
        pipe = _read(kind, weights(model), dtype, variant)
        pipe.enable_model_cpu_offload(device=device) if offload else pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _read(kind: type, model: str, dtype: str, variant: str | None):
    """A pipeline from a file, a folder or the hub; without the variant of the weights where there is none."""
    import torch

    path, settings = Path(model), {"dtype": getattr(torch, dtype)}
    if path.is_file():
        return kind.from_single_file(model, **settings)
    if dtype == "float16" and variant and (not path.is_dir() or any(path.rglob(f"*.{variant}.*"))):
        with contextlib.suppress(ValueError):  # the hub has no such files
            return kind.from_pretrained(model, **settings, variant=variant)
    return kind.from_pretrained(model, **settings)


@contextlib.contextmanager
def _model_errors(model: str) -> Iterator[None]:
    """What is raised inside is a ModelError."""
    try:
        yield
    except Exception as error:  # diffusers, transformers, safetensors, huggingface_hub, torch: each raises its own
        here = model in DEMOS or os.path.exists(model)
        sought = "" if here else "no folder here, and from the hub "
        raise ModelError(
            f"{model} cannot be loaded ({sought}{one_line(error)}): check the name, the network, "
            "your access (`hf auth login`) and the memory (offloading, another dtype)"
        ) from error


def hide_loading_bars() -> None:
    """No progress bars of loading weights, for the rest of this process: for a command, whose process it is."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
