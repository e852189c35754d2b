"""Both tiny pipelines, made once for a file."""

import pytest
from tiny_models import flux_prompt, sdxl_prompt, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


@pytest.fixture(scope="module")
def pipes():
    return {
        "sdxl": (tiny_sdxl(StableDiffusionXLPipeline), sdxl_prompt()),
        "flux": (tiny_flux(FluxPipeline), flux_prompt()),
    }
