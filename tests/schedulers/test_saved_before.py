"""Pipelines saved by the version before, whose files name modules that are gone (saved_before/), and those saved now.

The weights are those of the tiny pipelines; model_index.json and scheduler_config.json are as that version wrote them.
"""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
from diffusers import DiffusionPipeline
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

import k_diffusing
from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

WITHOUT_TEXT = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
BEFORE = Path(__file__).parent / "saved_before"
SAVED = {  # the pipeline, the settings of its scheduler, a prompt, and our class
    "sdxl": (
        lambda: tiny_sdxl(diffusers.StableDiffusionXLPipeline),
        {"sampler": "dpmpp_2m_sde", "sampler_options": {"eta": 0.3}, "sigma_grid": "karras"},
        sdxl_prompt,
        StableDiffusionXLPipeline,
    ),
    "flux": (
        lambda: tiny_flux(diffusers.FluxPipeline),
        {"sampler": "heun", "flow_coordinates": "ve", "noise": "cpu"},
        flux_prompt,
        FluxPipeline,
    ),
}


def latents(pipe, prompt):
    call = {"num_inference_steps": 4, "height": 16, "width": 16, "output_type": "latent", **prompt()}
    return pipe(**call, generator=seeded()).images


@pytest.mark.parametrize("name", SAVED)
def test_a_pipeline_saved_before_loads(name, tmp_path):
    """In diffusers' class and in ours; on the same weights in memory its scheduler gives the same to the bit."""
    make, settings, prompt, our_class = SAVED[name]
    pipe = make()
    pipe.scheduler = k_diffusing.SamplerScheduler.from_config(pipe.scheduler.config, **settings)
    pipe.save_pretrained(tmp_path)
    shutil.copytree(BEFORE / name, tmp_path, dirs_exist_ok=True)
    assert (
        json.loads((tmp_path / "model_index.json").read_text(encoding="utf-8"))["scheduler"][0] == "sampler_scheduler"
    )
    expected, config = latents(pipe, prompt), dict(pipe.scheduler.config)
    config["noise"] = config["noise"] or "torch"  # which files from before say
    for pipeline_class in (DiffusionPipeline, our_class):
        loaded = pipeline_class.from_pretrained(tmp_path, **WITHOUT_TEXT)
        assert type(loaded) is (our_class if pipeline_class is our_class else type(pipe))
        assert type(loaded.scheduler) is k_diffusing.SamplerScheduler
        assert all(loaded.scheduler.config[key] == value for key, value in config.items() if not key.startswith("_"))
        pipe.scheduler = loaded.scheduler
        assert largest_difference(latents(pipe, prompt), expected) == 0.0


@pytest.mark.parametrize("name", SAVED)
def test_a_pipeline_names_the_public_module(name, tmp_path):
    make, settings, prompt, our_class = SAVED[name]
    pipe = our_class(**make().components)
    pipe.scheduler = k_diffusing.SamplerScheduler.from_config(pipe.scheduler.config, **settings)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text(encoding="utf-8"))
    assert index["scheduler"] == ["k_diffusing", "SamplerScheduler"]
    before = json.loads((BEFORE / name / "model_index.json").read_text(encoding="utf-8"))
    assert index == before | {"scheduler": index["scheduler"], "_diffusers_version": index["_diffusers_version"]}
    assert type(our_class.from_pretrained(tmp_path, **WITHOUT_TEXT).scheduler) is k_diffusing.SamplerScheduler
