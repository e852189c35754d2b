"""The scripts in examples/ do what they say."""

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
import torch

from k_diffusing.cli import main

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def commands(tmp_path):
    """Runs a shell script with a `python` that only notes its words: a list of words for each time it was called."""
    log, stand_in = tmp_path / "log", tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >> "{log}"; printf "\\n" >> "{log}"\n')
    stand_in.chmod(0o755)

    def run(script: str, *words: str, **environment: str) -> list[list[str]]:
        path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run([EXAMPLES / script, *words], check=True, env={**os.environ, "PATH": path, **environment})
        return [line.strip("\0").split("\0") for line in log.read_text().splitlines()]

    return run


def test_the_port_agrees_and_is_right(capsys):
    spec = importlib.util.spec_from_file_location("port_a_sampler", EXAMPLES / "port_a_sampler.py")
    port = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(port)
    assert port.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("diffusers:HeunDiscreteScheduler and sample_heun agree to ")
    assert "right in distribution" in said and "order 2.0" in said


def test_the_guard_passes_for_the_port_and_fails_for_another(commands, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    compare, judge = commands("guard_a_sampler.sh")
    assert compare[:3] == ["-m", "k_diffusing", "compare"] and judge[:3] == ["-m", "k_diffusing", "judge"]
    compare[compare.index("--output") + 1] = str(tmp_path / "compare")
    assert main(compare[2:]) == 0
    assert main(judge[2:]) == 0
    other = commands("guard_a_sampler.sh", "k:euler", "k:dpmpp_2m", "1e-3")[-2]
    other[other.index("--output") + 1] = str(tmp_path / "compare")
    assert main(other[2:]) == 1
    assert "part at step" in capsys.readouterr().out


def test_tasks_share_a_grid(commands, tmp_path, capsys):
    folder = str(tmp_path / "array")
    [words] = commands("grid_array.sh", FOLDER=folder, EVALUATIONS="2 3", SEEDS="0")
    words = [*words[2:], "--samplers", "euler", "heun", "--reference", "0"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing left to do: 4 pictures" in capsys.readouterr().out
