"""Pipelines loaded by name: which class, which weights, what is told where they cannot be; and the demo models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from k_diffusing import models
from k_diffusing.models import DEMOS, REAL_WEIGHTS, ModelError, load, pipeline_class, pipeline_name

ROOT = Path(__file__).resolve().parents[1]


class Weights:
    """Stands in for a pipeline class: notes how it is asked for weights, and has those of `variants`."""

    def __init__(self, *variants):
        self.variants, self.asked, self.variant = variants, [], None

    def from_pretrained(self, model, dtype, variant=None):
        self.asked.append(variant)
        if variant not in self.variants:
            raise ValueError("no such files")
        self.variant = variant
        return self

    def from_single_file(self, model, dtype):
        self.variant = "single file"
        return self

    def to(self, device):
        assert device == "cpu"

    def set_progress_bar_config(self, disable):
        assert disable


def variant_of(weights, model, dtype="float16"):
    return load(str(model), kind=weights, dtype=dtype, variant="fp16").variant


def test_variant_of_the_weights(tmp_path):
    assert variant_of(Weights("fp16", None), "owner/name") == "fp16"
    assert variant_of(Weights("fp16", None), "owner/name", dtype="float32") is None
    without = Weights(None)
    assert variant_of(without, "owner/name") is None and without.asked == ["fp16", None]
    folder = Weights("fp16", None)
    assert variant_of(folder, tmp_path) is None and folder.asked == [None]
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").touch()
    assert variant_of(Weights("fp16", None), tmp_path) == "fp16"
    (tmp_path / "all.safetensors").touch()
    assert variant_of(Weights(), tmp_path / "all.safetensors") == "single file"


def test_the_class_is_that_of_the_weights(tmp_path):
    for index in ({"_class_name": "FluxPipeline"}, {"_class_name": "WanPipeline"}, {}):
        (tmp_path / str(len(index)) / index.get("_class_name", "")).mkdir(parents=True)
        (tmp_path / str(len(index)) / index.get("_class_name", "") / "model_index.json").write_text(json.dumps(index))
    assert [pipeline_name(name) for name in DEMOS] == ["StableDiffusionXLPipeline", "FluxPipeline"]
    assert pipeline_name(str(tmp_path / "1" / "FluxPipeline")) == "FluxPipeline"
    with pytest.raises(ModelError, match="it is a WanPipeline; we have StableDiffusionXLPipeline, FluxPipeline"):
        pipeline_name(str(tmp_path / "1" / "WanPipeline"))
    with pytest.raises(ModelError, match="cannot be loaded .KeyError: '_class_name'"):
        pipeline_name(str(tmp_path / "0"))
    for name, found in (("flux1-dev", "FluxPipeline"), ("Flux", "FluxPipeline"), ("xl", "StableDiffusionXLPipeline")):
        (tmp_path / f"{name}.safetensors").touch()
        assert pipeline_name(str(tmp_path / f"{name}.safetensors")) == found


@pytest.mark.parametrize("name", ["no/where/at/all", "x" * 5000, "a\0b"])
def test_weights_that_are_not_there_are_one_line(name):
    with pytest.raises(
        ModelError, match="cannot be loaded .no folder here, and from the hub .*: check the name"
    ) as told:
        load(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_model_draws_with_its_defaults(name):
    pipe = load(name)
    assert type(pipe) is pipeline_class(DEMOS[name].pipeline) and Path(pipe.name_or_path).parent == models.DEMO_MODELS
    before = torch.get_num_threads()
    picture = pipe(**DEMOS[name].keywords, num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (128, 128) and torch.get_num_threads() == before


def test_real_weights_have_defaults_for_each_pipeline():
    assert {name: model.pipeline for name, model in REAL_WEIGHTS.items()} == {name: name for name in models.PIPELINES}


FOREIGN = """
import sys
sys.path.insert(0, sys.argv[1])
from k_diffusing.models import pipeline_class
try:
    pipeline_class("FluxPipeline")
except ImportError as error:
    assert error.name == "flux_comfy_pipeline", error.name
    print(error)
assert "flux_comfy_pipeline" not in sys.modules, "another project's file was run"
"""


def test_another_projects_file_of_the_same_name(tmp_path):
    (tmp_path / "flux_comfy_pipeline.py").write_text("class FluxPipeline: pass\n")
    command = [sys.executable, "-c", FOREIGN, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"Python finds {tmp_path / 'flux_comfy_pipeline.py'}" in run.stdout and str(ROOT) in run.stdout
