"""`k-diffusing render`: the family is that of the weights, and the options are the scripts'."""

import json
import shlex

import pytest
from PIL import Image
from tiny_checkpoints import saved_flux, saved_sdxl

from k_diffusing.cli import main
from k_diffusing.models import DEMOS
from k_diffusing.render import pipelines

SHORT = ["--samplers", "euler", "--steps", "2"]


def render(*argv):
    return main(["render", *map(str, argv)])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_sdxl(folder / "tiny-sdxl")
    saved_flux(folder / "tiny-flux")
    return folder


@pytest.mark.parametrize(
    "model, family",
    [("demo", "sdxl"), ("demo-flux", "flux-dev"), (DEMOS["demo-flux"].weights, "flux-dev"), (None, "sdxl")],
)
def test_demo_models_have_names(tmp_path, capsys, model, family):
    named = [] if model is None else ["--model", model]
    assert render(*named, *SHORT, "--output", tmp_path) == 0
    with Image.open(tmp_path / f"{family}-sample_euler.png") as picture:
        assert picture.size == (128, 128) and picture.text["prompt"].startswith("a large yellow square")
    assert "for real weights: k-diffusing render --model " in capsys.readouterr().out
    command = json.loads((tmp_path / f"{family}-manifest.json").read_text(encoding="utf-8"))["command"]
    assert shlex.join(command) == "k-diffusing render" + (" --model demo-flux" if family == "flux-dev" else "")
    assert main([*command[1:], *SHORT, "--output", str(tmp_path)]) == 0
    assert "nothing left to do: 1 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("name, family", [("tiny-sdxl", "sdxl"), ("tiny-flux", "flux-dev")])
def test_the_family_is_that_of_the_weights(models, tmp_path, name, family):
    settings = ["--model", models / name, "--dtype", "float32", "--device", "cpu", "--prompt", "a red circle"]
    assert render(*settings, "--height", 16, "--width", 16, *SHORT, "--output", tmp_path) == 0
    assert (tmp_path / f"{family}-sample_euler.png").is_file()
    command = json.loads((tmp_path / f"{family}-manifest.json").read_text(encoding="utf-8"))["command"]
    assert command[:4] == ["k-diffusing", "render", "--model", str(models / name)]


def test_options_of_flux_are_flux_s_alone(models, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(pipelines, "run", lambda script, args, say: seen.append(args) or 0)
    assert render("--model", models / "tiny-flux", "--flow-coordinates", "velocity", "--true-cfg-scale", 4) == 0
    assert (seen[0].flow_coordinates, seen[0].true_cfg_scale, seen[0].dtype) == ("velocity", [4.0], "bfloat16")
    with pytest.raises(SystemExit, match="2"):
        render("--model", "demo", "--flow-coordinates", "velocity")
    assert "--flow-coordinates" in capsys.readouterr().err


@pytest.mark.parametrize(
    "model, said",
    [
        ("./nowhere", "./nowhere does not exist: give a diffusers folder"),
        (__file__, "is not a .safetensors file"),
        ("{}", "has no model_index.json"),
        ("{}/other", "it is a WanPipeline; we have StableDiffusionXLPipeline, FluxPipeline"),
    ],
)
def test_weights_that_cannot_be_rendered_with(tmp_path, capsys, model, said):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    assert render("--model", model.format(tmp_path), *SHORT, "--output", tmp_path / "out") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --model ") and said in line and not (tmp_path / "out").exists()


def test_help_has_the_options_of_all_families_and_the_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        render("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: k-diffusing render [options]")
    assert all(option in text for option in ("--evaluations", "--true-cfg-scale", "--flow-coordinates", "steps 28"))
