"""--guidance of the scripts: a cell for each choice, which its file, its line, its texts and its picture tell of."""

import json

import pytest
from PIL import Image

from k_diffusing import models
from k_diffusing.cli import main
from k_diffusing.render import families

CHOICES = ["7,5,1", "cfg++=0.6, rescale=0.7", "3", "rescale=0.5"]


def render(folder, model, *argv):
    options = ["--samplers", "euler", "--seed", "7", "--output", str(folder), "--model", model]
    options += ["--batch-size", "1"]  # as the pipeline makes it by itself, to the last bit
    return families.main([*options, *argv])


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guidance")
    for model in ("demo", "demo-flux"):
        assert render(folder / model, model, "--steps", "3", "--guidance", *CHOICES) == 0
    return folder


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_each_choice_is_a_cell(grids, model):
    [path] = (grids / model).glob("*-results.jsonl")
    lines = {line["guidance"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    assert list(lines) == ["7,5,1", "cfg++=0.6,rescale=0.7", "weight=3", "rescale=0.5"]
    assert {line["evaluations"] for line in lines.values()} == {3}  # where a step has one answer, too
    texts = {}
    for path in (grids / model).glob("*-guidance?.png"):
        with Image.open(path) as picture:
            texts[picture.text.get("guidance")] = picture.text.get("parameters", "")
    assert set(lines) <= set(texts)
    assert 'Guidance: "7,5,1"' in texts["7,5,1"] and "CFG scale" not in texts["7,5,1"]
    assert "Guidance: rescale=0.5" in texts["rescale=0.5"] and "CFG scale" in texts["rescale=0.5"]


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_the_picture_is_that_of_the_pipeline(grids, model):
    pipe, call = models.load(model), models.DEMOS[model].keywords
    picture = pipe(**call, comfy_sampler="euler", num_inference_steps=3, seeds=[7], guidance=[7, 5, 1]).images[0]
    [path] = (grids / model).glob("*-sample_euler-guidance1.png")
    with Image.open(path) as rendered:
        assert abs(max(high for _, high in difference(picture, rendered))) <= 1  # levels of 255; embeddings in a batch


def difference(a, b):
    from PIL import ImageChops

    return ImageChops.difference(a.convert("RGB"), b.convert("RGB")).getextrema()


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_the_picture_is_made_again_from_its_text(grids, model, tmp_path, capsys):
    for number, told in ((1, "[7, 5, 1]"), (2, "{'cfg++': 0.6, 'rescale': 0.7}")):
        [path] = (grids / model).glob(f"*-sample_euler-guidance{number}.png")
        assert main(["reproduce", str(path), "--model", model, "--output", str(tmp_path / "again")]) == 0
        out = capsys.readouterr().out
        assert f"guidance={told}" in out and "the same in every pixel" in out


@pytest.mark.parametrize(
    "words, told",
    [
        (["--guidance", "cfg=0.6"], "has no key 'cfg'"),
        (["--guidance", "cfg++=7"], "from 0 to 2"),
        (["--guidance", "strong"], "'strong' is no guidance: give a number"),
        (["--guidance", "5,4"], "has 2 weights, one for each step: give --steps 2"),
        (["--guidance", "5,4", "--steps", "2", "4"], "give --steps 2, and no other"),
        (["--guidance", "5,4", "--evaluations", "2"], "give --steps 2, and no other"),
    ],
)
def test_bad_words(tmp_path, capsys, words, told):
    try:
        code = render(tmp_path, "demo", *words)
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2 and told in capsys.readouterr().err and not list(tmp_path.glob("*.png"))


def test_compare_takes_it(tmp_path, capsys):
    argv = ["--steps", "3", "--output", str(tmp_path)]
    again = ["compare", "k:euler", "diffusers:EulerDiscreteScheduler", *argv]
    assert main([*again, "--guidance", "cfg++=0.6"]) == 0
    written = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert written["call"]["guidance"] == {"cfg++": 0.6}
    assert main([*again, "--guidance", "7,5"]) == 2
    assert "has 2 weights, and the run takes 3 steps" in capsys.readouterr().err
