"""An installed copy, from another folder: what it consists of, and that all commands run on the demo models."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = """
import sys
import k_diffusing
from k_diffusing.cli import main
assert k_diffusing.__file__.startswith(sys.argv[1]), k_diffusing.__file__
assert main(["samplers"]) == 0
assert main(["compare", "k:euler", "k:heun", "--steps", "2", "--html"]) == 1
assert main(["compare", "k:euler", "k:euler", "--steps", "2", "--model", "demo-flux"]) == 0
assert main(["judge", "euler", "--order", "1"]) == 0
for model in ("demo", "demo-flux"):
    assert main(["render", "--model", model, "--samplers", "euler", "--steps", "1", "--output", "pictures"]) == 0
"""


def test_what_is_installed(installed):
    names = {path.name for path in installed.iterdir()}
    [facts] = [name for name in names if name.endswith(".dist-info")]
    modules = {"flux_comfy_pipeline.py", "samplers_patch.py", "sdxl_comfy_pipeline.py"}
    assert names - {facts} == {"k_diffusing"} | modules
    scripts = (installed / facts / "entry_points.txt").read_text(encoding="utf-8")
    assert scripts.split() == ["[console_scripts]", "k-diffusing", "=", "k_diffusing.cli:main"]


def test_every_file_of_the_package_is_installed(installed):
    files = [path.relative_to(ROOT) for path in (ROOT / "k_diffusing").rglob("*") if path.is_file()]
    missing = [path for path in files if path.suffix != ".pyc" and not (installed / path).is_file()]
    assert not missing


def test_every_command_runs(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    code = [sys.executable, "-c", COMMANDS, str(installed)]
    run = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    kinds = sorted(path.suffix for path in (tmp_path / "output" / "compare").iterdir())
    assert kinds == [".html", ".json", ".json", ".png", ".png"]
    pictures = {path.name for path in (tmp_path / "pictures").glob("*.png")}
    assert {"sdxl-sample_euler.png", "flux-dev-sample_euler.png"} <= pictures
