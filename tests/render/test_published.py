"""Published pictures: a render of the same picture leaves the file as it is; a user's own picture is never kept so."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trivial_grid
from PIL import Image

from k_diffusing._files import write_png
from k_diffusing.render import published
from k_diffusing.render.folder import RunFolder
from k_diffusing.render.texts import programs
from samplers_patch import SAMPLERS

ROOT = Path(__file__).resolve().parents[2]
HEUN = "sdxl-sample_heun.png"


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A fresh clone: published pictures, with the text of another version of torch, and no manifest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("k_diffusing.render.texts.programs", lambda: {**programs(), "torch": "0.0"})
    assert trivial_grid.main([]) == 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    published.write_list()
    forget()
    return published.OUTPUT


def forget():
    for name in ("sdxl-manifest.json", "sdxl-results.jsonl", "index.html"):
        (published.OUTPUT / name).unlink()


def off_by(levels, name="heun"):
    """load() of a renderer whose pictures of one sampler differ from the trivial grid's in one pixel."""

    def render(cell):
        rendered = trivial_grid.render(cell)
        if cell.sampler == name:
            red, *others = rendered.picture.getpixel((3, 4))
            rendered.picture.putpixel((3, 4), (red + levels, *others))
        return rendered

    return lambda *_: render


def contents():
    return {path.name: path.read_bytes() for path in published.OUTPUT.glob("*.png")}


def red(file):
    with Image.open(file) as picture:
        return picture.getpixel((3, 4))[0]


@pytest.mark.parametrize("levels", [0, published.LEVELS])
def test_same_pictures_stay(output, capsys, levels):
    before = contents()
    assert trivial_grid.main([], load=off_by(levels)) == 0
    assert contents() == before and len(before) == 5
    told = capsys.readouterr().out.splitlines()[-6:]
    assert all("as published" in line for line in told[:4])
    assert told[1].endswith("as published" + (" to 3 of 255" if levels else ""))
    assert told[-1] == "4 of 4 pictures as published"
    assert len(RunFolder(output, "sdxl").finished()) == 4
    untouched = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    refuse = lambda *_: pytest.fail("something was rendered again")  # noqa: E731
    assert trivial_grid.main([], check=refuse, load=refuse) == 0
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == untouched


def test_published_before_there_were_parameters(output, capsys):
    """A picture without that line is the same picture."""
    for path in output.glob("*.png"):
        with Image.open(path) as picture:
            write_png(picture, path, {name: text for name, text in picture.text.items() if name != "parameters"})
    published.write_list()
    before = contents()
    assert trivial_grid.main([]) == 0
    assert contents() == before and "4 of 4 pictures as published" in capsys.readouterr().out


def test_another_picture_is_written(output, capsys):
    before = contents()
    assert trivial_grid.main([], load=off_by(published.LEVELS + 1)) == 0
    changed = {name for name, content in contents().items() if content != before[name]}
    assert changed == {HEUN, "sdxl-samplers.png"} and red(output / HEUN) == 4
    told = capsys.readouterr().out
    assert f"{HEUN}, differs from the published picture by 4 of 255" in told
    assert "3 of 4 pictures as published" in told


def test_own_picture_is_never_taken_for_a_published_one(output, capsys):
    assert trivial_grid.main([], load=off_by(40)) == 0
    forget()
    capsys.readouterr()
    assert trivial_grid.main([], load=off_by(42)) == 0
    assert red(output / HEUN) == 42
    assert "3 of 3 pictures as published" in capsys.readouterr().out


def test_own_picture_elsewhere_is_never_kept(output, tmp_path):
    own = shutil.copytree(output, tmp_path / "own")
    assert trivial_grid.main(["--output", str(own)], load=off_by(2)) == 0
    assert red(own / HEUN) == 2


@pytest.mark.parametrize("other", [["--noise", "cpu"], ["--samplers", "euler", "heun", "dpmpp_2m"]])
def test_other_settings_are_not_the_published_picture(output, capsys, other):
    before = contents()
    assert trivial_grid.main(other) == 0
    after = contents()
    assert after["sdxl-samplers.png"] != before["sdxl-samplers.png"]
    assert (after[HEUN] == before[HEUN]) == ("--samplers" in other)
    assert "differs" not in capsys.readouterr().out


def test_sheet_of_a_part_is_drawn(output, capsys):
    """The last sampler fails: the sheet shows what there is, at the size of the published one."""
    before = contents()

    def fail_last(cell):
        if cell.sampler == "dpmpp_2m":
            raise RuntimeError("boom")
        return trivial_grid.render(cell)

    assert trivial_grid.main([], load=lambda *_: fail_last) == 1
    changed = {name for name, content in contents().items() if content != before[name]}
    assert changed == {"sdxl-samplers.png"}
    assert "3 of 3 pictures as published" in capsys.readouterr().out
    assert (
        json.loads((output / "sdxl-results.jsonl").read_text(encoding="utf-8").splitlines()[0])["levels_from_published"]
        == 0
    )


def committed(file):
    """A file of `output` as git has it; where this is no clone, as it is."""
    shown = subprocess.run(["git", "show", f":output/{file}"], cwd=ROOT, capture_output=True)
    return shown.stdout if shown.returncode == 0 else (ROOT / "output" / file).read_bytes()


def test_list_has_the_pictures_that_are_published():
    """Where it does not: make published."""
    listed = dict(line.split()[::-1] for line in committed(published.LIST).decode().splitlines())
    files = {f"{family}-sample_{name}.png" for family in ("sdxl", "flux-dev") for name in SAMPLERS}
    assert listed.keys() == files | {"sdxl-samplers.png", "flux-dev-samplers.png"}
    for file, digest in listed.items():
        assert hashlib.sha256(committed(file)).hexdigest() == digest, file
