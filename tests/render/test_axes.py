"""An axis is one record: with one more, all that goes through the axes goes through it, too."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import trivial_grid
from PIL import Image

from k_diffusing.render.axes import AXES, Axes, several, title, values
from k_diffusing.render.cells import Cell, Solver

RECORD = """
    Axis(
        "rescale", "rescales", "cfg_rescale", float, None, tag="rs", title="rescale {}", page="cfg rescale",
        read=finite, metavar="X", help="how much of the contrast is kept",
    ),
)  # fmt: skip
"""

# The trivial script, where axes.py has one more record.
SCRIPT = """
import importlib.util, re, sys
sys.path.insert(0, {tests!r})
spec = importlib.util.find_spec("k_diffusing.render.axes")
module = importlib.util.module_from_spec(spec)
source = spec.loader.get_data(spec.origin).decode().replace("\\n)  # fmt: skip\\n", {record!r}, 1)
sys.modules[spec.name] = module
exec(compile(source, spec.origin, "exec"), module.__dict__)
import trivial_grid
sys.exit(trivial_grid.main(sys.argv[1:]))
"""


def run(*argv):
    tests = Path(trivial_grid.__file__).parent
    script = SCRIPT.format(tests=str(tests), record=RECORD)
    path = os.pathsep.join([str(tests.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", script, *argv]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)


def test_one_more_axis_is_one_more_record(tmp_path):
    folder = tmp_path / "grid"
    argv = ["--output", str(folder), "--samplers", "euler", "heun", "--cfg-rescale", "0", "0.7", "--steps", "4", "8"]
    done = run(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    files = {
        f"sdxl-sample_{name}-steps{n}-rs{x}.png" for name in ("euler", "heun") for n in (4, 8) for x in ("0", "0.7")
    }
    files |= {f"sdxl-converged-rs{x}.png" for x in ("0", "0.7")} | {f"sdxl-samplers-rs{x}.png" for x in ("0", "0.7")}
    assert {path.name for path in folder.glob("*.png")} == files
    assert json.loads((folder / "sdxl-manifest.json").read_bytes())["axes"]["cfg_rescale"] == [0.0, 0.7]
    lines = map(json.loads, (folder / "sdxl-results.jsonl").read_text(encoding="utf-8").splitlines())
    assert {line["rescale"] for line in lines} == {0.0, 0.7}
    for file in ("sdxl-sample_heun-steps4-rs0.7.png", "sdxl-samplers-rs0.7.png"):
        with Image.open(folder / file) as picture:
            assert picture.text["rescale"] == "0.7"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert '"name":"cfg rescale"' in page and "--cfg-rescale 0.7" in page
    assert run(*argv).stdout.startswith("nothing left to do: 10 pictures")
    other = run(*argv, "--cfg-rescale", "0.7")
    assert other.returncode == 2 and "  cfg rescale: 0.0, 0.7 there, 0.7 here" in other.stderr.splitlines()
    assert re.search(r"--cfg-rescale X \[X ...\]\s+how much of the contrast", run("--help").stdout)


def test_records_are_told_apart():
    for names in zip(*((a.field, a.values, a.option, a.flag, a.tag) for a in AXES.values()), strict=True):
        assert len(set(names)) == len(AXES)
    assert set(Cell._fields) == {"sampler", *AXES, "reference"}


def test_values_that_another_axis_decides_or_no_sampler_has():
    axes = Axes((Solver("euler"),), steps=(4, 8), budgets=(5, 9), etas=(0.0, 1.0))
    assert values(axes, "steps") == () and values(axes, "budget") == (5, 9) and values(axes, "eta") == (None,)
    assert several(axes) == ["budget"]
    assert [title("budget", 5), title("sigma_grid", "karras"), title("eta", 0.5)] == ["5 nfe", "karras", "eta 0.5"]
