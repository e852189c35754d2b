"""`k-diffusing tune`: its files, what is told, exit codes; on tiny random weights."""

import json

import pytest
from diffusers import EulerDiscreteScheduler
from page_elements import Elements
from tiny_checkpoints import saved_sdxl
from users_samplers import own

from k_diffusing.cli import main
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE


@pytest.fixture(scope="module")
def tune(tmp_path_factory):
    """Runs the command on tiny weights; its exit code."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    saved_sdxl(folder)
    EulerDiscreteScheduler(**SDXL_SCHEDULE).save_pretrained(folder / "scheduler")
    fixed = ["--model", str(folder), "--height", "16", "--width", "16", "--prompts", "a red circle", "a blue ring"]
    return lambda argv: main(["tune", *fixed, "--pictures", "4", *argv])


def test_files_and_what_is_told(tune, tmp_path, capsys):
    options = ["--sampler", "euler", "dpmpp_2m", "--evaluations", "3", "--output", str(tmp_path)]
    assert tune(options) == 0
    said = capsys.readouterr().out
    assert said.startswith("at most ") and "network evaluations" in said
    assert "3 evaluations, 3 steps: error 0." in said and "for 3 evaluations take " in said
    choices, *grids = sorted(tmp_path.glob("*.json"))
    assert choices.name == "tiny-sdxl-choices.json"
    assert [path.name for path in grids] == ["tiny-sdxl-dpmpp_2m.json", "tiny-sdxl-euler.json"]
    assert len(json.loads(grids[0].read_text(encoding="utf-8"))["sigmas"]["3"]) == 4
    [page] = tmp_path.glob("*.html")
    found = Elements(page.read_text(encoding="utf-8"))
    assert not found.addresses() and not found.handlers() and found.slider() == [1, 1, 1, 1]
    assert len(found.all("svg")) == 4 and len(found.all("figure")) == 3
    assert tune(options) == 0, "it goes on"
    assert capsys.readouterr().out == said


def test_bad_command_lines(tune, tmp_path, capsys):
    options = ["--output", str(tmp_path)]
    for words, said in (
        (["--sampler", "eulr"], "did you mean"),
        (["--evaluations", "1"], "2 at least"),
        (["--pictures", "3"], "at least 4"),
        (["--prompt-file", str(tmp_path / "none.txt")], "choose one"),
    ):
        assert tune([*words, *options]) == 2
        assert said in capsys.readouterr().err
    assert tune(["--sampler", own(tmp_path, "    return None\n"), "--evaluations", "3", *options]) in (2, 3)
    assert "None" in capsys.readouterr().err
