"""Folders of grids: what a new one is called, and the list of them; and the count where there is no terminal."""

import shlex

import pytest
import trivial_grid

from k_diffusing.cli import main
from k_diffusing.render.launch import progress


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trivial_grid.main([]) == 0  # into output
    return tmp_path / "output"


def folders(path):
    return sorted(one for one in path.iterdir() if one.is_dir())


def test_a_folder_is_called_by_what_is_no_default(here):
    assert trivial_grid.main(["--steps", "3", "5", "--sigma-grid", "karras", "--samplers", "euler"]) == 0
    [folder] = folders(here)
    family, sampler, steps, grid, digits = folder.name.split("-")
    assert (sampler, steps, grid, len(digits)) == ("euler", "steps3_5", "karras", 8)


def test_a_long_name_is_cut_and_a_prompt_is_counted(here):
    prompts = ["--prompt", "one: / ..", "two"]
    assert trivial_grid.main([*prompts, "--seeds", *map(str, range(9)), "--negative-prompt", "x" * 300]) == 0
    [folder] = folders(here)
    assert "-2prompts-" in folder.name and "-9seeds-" in folder.name and len(folder.name) < 100


def test_a_folder_with_a_name_of_digits_alone_is_gone_on_with(here, capsys):
    assert trivial_grid.main(["--steps", "5"]) == 0
    [folder] = folders(here)
    family, _, digits = folder.name.split("-")
    folder.rename(here / f"{family}-{digits}")
    capsys.readouterr()
    assert trivial_grid.main(["--steps", "5"]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert len(folders(here)) == 1


def test_the_list_has_each_grid_and_the_command_that_goes_on(here, capsys):
    assert trivial_grid.main(["--steps", "3", "5", "--seeds", "1", "2", "--prompt", "a red circle"]) == 0
    [folder] = folders(here)
    next(folder.glob("*seed2.png")).unlink()
    capsys.readouterr()
    assert main(["render", "--list"]) == 0
    first, command, second, other = capsys.readouterr().out.splitlines()
    count = len(list(here.glob("*sample_*.png")))
    assert first == f"output: {count} of {count} pictures"
    assert second.startswith(f"output/{folder.name}: ") and " of 18 pictures" in second and "18 of" not in second
    words = shlex.split(other)
    assert words[words.index("--steps") : words.index("--steps") + 3] == ["--steps", "3", "5"]
    assert words[words.index("--prompt") + 1] == "a red circle"


def test_the_list_of_no_grids_and_of_a_torn_manifest(tmp_path, capsys):
    assert main(["render", "--list", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no grids in {tmp_path}: --output FOLDER names another\n"
    (tmp_path / "sdxl-manifest.json").write_text("{")
    assert main(["render", "--list", "--output", str(tmp_path)]) == 0
    assert "is not JSON" in capsys.readouterr().out


def test_without_a_terminal_a_line_counts_every_ten_seconds():
    now, said = [0.0], []
    with progress(296, True, lambda line, file: said.append(line), clock=lambda: now[0]) as (_, show):
        for done, seconds in ((0, 11), (1, 12), (2, 15), (100, 250), (296, 400)):
            now[0] = seconds
            show(done)
    assert said == ["1 of 296 pictures, 59:00 left", "100 of 296 pictures, 8:10 left"]
