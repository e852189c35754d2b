"""What grids call samplers: names, parts of files' names, contents of files; no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from k_diffusing.render.names import COMFYUI, contents, file_tags, full_name, sampler_names

ROOT = Path(__file__).resolve().parents[2]

NAMES = {
    "euler": "euler",
    "sample_euler": "euler",
    "k:sample_euler, eta=0.5": "euler,eta=0.5",
    "diffusers:UniPCMultistepScheduler,solver_order=3": "UniPCMultistepScheduler,solver_order=3",
    "comfy:sample_er_sde": "comfy:er_sde",
    "/home/me/mine.py:sample_heun,eta=1": "mine.py:sample_heun,eta=1",
    "x:y": "x:y",
    "DPM++ 2M SDE Karras": "dpmpp_2m_sde_karras",
    "k:Euler a,eta=0.5": "euler_ancestral,eta=0.5",
}


@pytest.mark.parametrize("text", NAMES)
def test_names(text):
    assert sampler_names([text]) == {NAMES[text]: text}
    assert full_name(NAMES[text]) == ("sample_" if NAMES[text].startswith(("euler", "dpmpp")) else "") + NAMES[text]


def test_one_sampler_named_twice_is_one():
    assert sampler_names(["k:euler", "sample_euler", "heun", "euler"]) == {"euler": "k:euler", "heun": "heun"}
    assert list(sampler_names(["a/../mine.py:f", "mine.py:f", "mine.py:g"])) == ["mine.py:f", "mine.py:g"]


def test_files_of_one_name_are_told_apart_by_their_folders():
    texts = ["/x/a/v1/mine.py:f", "/x/b/v1/mine.py:f", "/x/v2/mine.py:f", "/x/v2/other.py:f"]
    assert list(sampler_names(texts)) == ["a/v1/mine.py:f", "b/v1/mine.py:f", "v2/mine.py:f", "other.py:f"]


def test_parts_of_file_names_are_safe_and_unlike():
    names = ["euler", "a.py:f", "a.py:F", "a_py:f", "v1/a.py:f,x=-1", "v1/a.py:f,x=1", "größe.py:f", "a.py:g,x='/../'"]
    names += [f"a.py:f,x={digit * 300}" for digit in "12"]
    tags = file_tags(names)
    assert len({tag.lower() for tag in tags.values()}) == len(names)  # some file systems know no case
    assert all(re.fullmatch(r"[\w.]{1,90}", tag, flags=re.ASCII) for tag in tags.values())
    assert tags["euler"] == "euler" and tags["v1/a.py:f,x=1"] == "v1_a.py_f_x1"


def test_contents_of_files(tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text("a = 1")
    names = sampler_names([f"{mine}:f", f"{mine}:g,x=1", "euler", "nowhere.py:f"])
    [(label, before)] = contents(names).items()
    assert label == "mine.py"
    mine.write_text("a = 2")
    assert contents(names)["mine.py"] != before
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "stand_in")
    assert list(contents(sampler_names(["comfy:euler"]))) == [COMFYUI]


def test_no_torch():
    code = "import sys, k_diffusing.render.names; sys.exit(bool({'torch', 'diffusers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
