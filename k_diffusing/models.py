"""The bundled demo models, and pipelines loaded by name."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# In an installed copy they lie in the package, in a checkout beside it.
DEMO_MODELS = next(path for path in (_PACKAGE / "demo_models", _PACKAGE.parent / "demo_models") if path.is_dir())


def pipeline_classes() -> dict[str, type]:
    """Our two pipelines, by the names of the classes of diffusers that they stand for."""
    from flux_comfy_pipeline import FluxPipeline
    from sdxl_comfy_pipeline import StableDiffusionXLPipeline

    return {cls.__name__: cls for cls in (StableDiffusionXLPipeline, FluxPipeline)}
