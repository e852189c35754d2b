"""`k-diffusing samplers`: the table, without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from k_diffusing.cli import main
from samplers_patch import SAMPLERS

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "import sys; sys.modules['torch'] = None; from k_diffusing.cli import main; main({})"


def test_the_table_has_every_sampler(capsys):
    assert main(["samplers"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.endswith("  sigmas") and [row.split()[0] for row in rows] == list(SAMPLERS)
    assert rows[-1].endswith("  smooth in log sigma")


COMMANDS = ["compare", "judge", "samplers", "render"]


@pytest.mark.parametrize("argv", [["samplers"], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_what_answers_without_torch(argv):
    code = [sys.executable, "-c", WITHOUT.format(argv)]
    run = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "" and len(run.stdout.splitlines()) > 5


def test_python_m(capsys):
    run = subprocess.run([sys.executable, "-m", "k_diffusing", "samplers"], cwd=ROOT, capture_output=True, text=True)
    assert main(["samplers"]) == 0
    assert (run.returncode, run.stdout) == (0, capsys.readouterr().out)


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compere"])
    assert "compare" in capsys.readouterr().err
