"""`k-diffusing samplers`: the table, without torch."""

import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from k_diffusing.cli import main
from k_diffusing.samplers.facts import ALIASES, COLUMNS, FACTS, FIRST, row
from samplers_patch import ALL_SAMPLERS, PATCHED, SAMPLERS, k_sampling

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "import sys; sys.modules['torch'] = None; from k_diffusing.cli import main; sys.exit(main({}))"


def test_the_table_has_every_sampler(capsys):
    assert main(["samplers"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.endswith("  sigmas")
    names = [line.split()[0] for line in lines if len(line.split()) > 3]
    assert sorted(names) == sorted(ALL_SAMPLERS)
    assert names[: len(FIRST)] == list(FIRST)
    assert next(line for line in lines if line.startswith("dpmpp_3m_sde ")).endswith("  smooth in log sigma")
    assert {line.rstrip(":") for line in lines if line.endswith(":")} == {"to begin with"} | {
        record.family for name, record in ALL_SAMPLERS.items() if name not in FIRST
    }
    assert "ddpm is euler_ancestral" in lines and len([line for line in lines if " is " in line]) == len(ALIASES)


def test_the_patch_prints_the_table(capsys):
    runpy.run_path(str(ROOT / "samplers_patch.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert main(["samplers"]) == 0 and capsys.readouterr().out == printed


def test_the_page_of_samplers_has_the_table():
    lines = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.split("|")[1:3] == ["  ", " order "])
    rows = [tuple(cell.strip() for cell in line.split("|")[1 : 1 + len(COLUMNS)]) for line in lines[begin:]]
    assert rows[0] == COLUMNS and rows[2 : 2 + len(FACTS)] == [row(name) for name in FACTS]


@pytest.mark.parametrize("name", PATCHED)
def test_what_is_patched_is_there_and_used(name):
    """A version of k_diffusion without one of these names would run with its own progress bar, or noise."""
    part = name.split(".")[0]
    users = [one for one in SAMPLERS if part in inspect.unwrap(SAMPLERS[one].function).__code__.co_names]
    assert hasattr(k_sampling, part) and users
    if name == "DPMSolver":
        assert users == PATCHED[name][0].split(", ")


COMMANDS = ["compare", "judge", "samplers", "render"]
ANSWERED = [["samplers"], ["samplers", "--names"], ["samplers", "euler"], ["--help"]]


@pytest.mark.parametrize("argv", [*ANSWERED, *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_what_answers_without_torch(argv):
    code = [sys.executable, "-c", WITHOUT.format(argv)]
    run = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "" and len(run.stdout.splitlines()) > 5


MISSPELT = [
    ["compare", "DPM++ 2M Karas", "euler"],
    ["judge", "heun", "DPM++ 2M Karas"],
    ["render", "--samplers", "euler", "DPM++ 2M Karas"],
]


@pytest.mark.parametrize("argv", MISSPELT, ids=" ".join)
def test_a_misspelt_name_is_answered_without_torch(argv):
    code = [sys.executable, "-c", WITHOUT.format(argv)]
    run = subprocess.run(code, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: unknown sampler 'DPM++ 2M Karas': did you mean 'dpmpp_2m_karras'?")


def test_python_m(capsys):
    run = subprocess.run([sys.executable, "-m", "k_diffusing", "samplers"], cwd=ROOT, capture_output=True, text=True)
    assert main(["samplers"]) == 0
    assert (run.returncode, run.stdout) == (0, capsys.readouterr().out)


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compere"])
    assert "compare" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["compare", "euler", "euler,program=a111"], ["judge", "euler,program='comfui'"]])
def test_a_misspelt_program_needs_no_torch(argv):
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(argv)], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean" in done.stderr and "Traceback" not in done.stderr
