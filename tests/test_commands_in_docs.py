"""The command lines of README and docs: each is parsed, and the cheap ones of which a page shows output are run."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import workflows

from k_diffusing import cli
from k_diffusing.render import families

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```sh\n(.*?)```(?:\n\n((?:    [^\n]+\n)+))?", re.DOTALL)
OWN = re.search(r"def sample_midpoint.*?return x\n", README.read_text(encoding="utf-8"), re.DOTALL)[0]
FASTER = {"render": ["--steps", "2", "--reference", "0"]}  # the last of two that are given counts
A1111 = "a square\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 1024x1024"
RUN = ("compare", "judge", "reproduce", "render")


def commands(text: str) -> list[tuple[str, str]]:
    """Each command line of a page and what it is said to print, in `# ` lines or in the indented block below."""
    found = []
    for block, below in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("# "):
                found[-1][1].append(line[2:])
            else:
                found.append((line.partition("  #")[0].strip(), []))
        found[-1][1].extend(below.split("\n") if below else [])
    return [(command, " ".join(" ".join(said).split())) for command, said in found]


ALL = sorted({pair for page in PAGES for pair in commands(page.read_text(encoding="utf-8"))})
ANSWERED = [(command, said) for command, said in ALL if said and shlex.split(command)[1] in RUN]


def script(name: str):
    """test.py or test_flux.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(words: list[str]) -> None:
    """Raises SystemExit for a line that its command does not take."""
    program, *rest = words
    if program == "k-diffusing":
        assert cli.main(rest) == 0
    elif program == "python" and rest[0] in ("test.py", "test_flux.py"):
        script(rest[0].removesuffix(".py")).arguments(rest[1:])
    elif program == "accelerate":
        script("test").arguments(rest[rest.index("test.py") + 1 :])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "source":
        assert rest == [".venv/bin/activate"]
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1].split(".")[0])
    else:
        assert program in ("pip", "git", "cd"), f"nobody knows whether this is right: {shlex.join(words)}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """With the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_samplers.py").write_text(OWN, encoding="utf-8")
    workflow = workflows.change(workflows.sdxl(), "3", steps=20)
    workflow = workflows.change(workflow, "4", ckpt_name="sd_xl_base_1.0.safetensors")
    workflow = workflows.change(workflow, "5", width=1024, height=1024)
    workflow = workflows.change(workflow, "6", text="a (large:1.2) yellow square")
    workflows.write_picture(tmp_path / "ComfyUI_00001_.png", prompt=json.dumps(workflow))
    workflows.write_picture(tmp_path / "00001-42.png", parameters=A1111)
    (tmp_path / "prompts.txt").write_text("a small red circle\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", sorted({command for command, _ in ALL}))
def test_a_command_line_is_taken(command, folder, monkeypatch):
    monkeypatch.setattr(cli, "_told", lambda run, args: 0)
    monkeypatch.setattr(families, "run", lambda script, args, real: 0)
    parsed(shlex.split(command))


NUMBER = re.compile(r"\d+\.\d+(e-?\d+)?|\d+e-?\d+")


def alike(said: str, printed: str) -> bool:
    """The same words; a number with a fraction may be twice as large or half, since rounding errors are shown too."""
    if NUMBER.sub("", said) != NUMBER.sub("", printed):
        return False
    numbers = zip(NUMBER.finditer(said), NUMBER.finditer(printed), strict=True)
    return all(float(a[0]) / 2 <= float(b[0]) <= 2 * float(a[0]) for a, b in numbers)


def test_alike():
    assert alike("agree to 2.8e-06 over 20 steps", "agree to 3.1e-06 over 20 steps")
    assert not alike("agree to 2.8e-06 over 20 steps", "agree to 2.8e-05 over 20 steps")
    assert not alike("agree to 2.8e-06 over 20 steps", "part to 2.8e-06 over 20 steps")
    assert not alike("agree over 20 steps", "agree over 21 steps")


@pytest.mark.parametrize("command, said", ANSWERED, ids=[command for command, _ in ANSWERED])
def test_a_command_prints_what_the_page_shows(command, said, folder, capsys):
    words = shlex.split(command)[1:]
    cli.main([*words, *FASTER.get(words[0], [])])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    length = len(said.split())
    starts = (sum(printed[i:], [])[:length] for i in range(len(printed)))
    assert any(alike(said, " ".join(words)) for words in starts), printed


def test_tune_prints_what_was_measured():
    """The line of README is that of the table, which holds what minutes of measuring found."""
    said = next(said for command, said in ALL if command.startswith("k-diffusing tune") and said)
    budget = re.match(r"(\d+) evaluations", said)[1]
    table = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8").partition("### SDXL demo")[2]
    cells = next(line.split(" | ") for line in table.splitlines() if line.startswith(f"| dpmpp_2m | {budget} |"))
    interval, named = r"[\d.]+ \[[\d.]+, [\d.]+\]", re.search(r"\((.+)\)", cells[5])[1]
    if said.endswith("which nothing tried beats"):
        assert re.findall(interval, said) == [cells[2]] and f"it is {named}," in said
    else:
        assert re.findall(interval, said) == [cells[2], cells[6]] and said.endswith(f"of {named}'s")


# How right: what of README's table is not filled in from data.


def test_the_table_says_what_the_pages_say():
    table = README.read_text(encoding="utf-8").partition("## How right")[2]
    rows = re.findall(r"^\| (?!Compared)(.+) \| (.+?) \|$", table, re.MULTILINE)
    diffusers, a1111 = (told for _, told in rows if "<!--" not in told)
    accuracy, reproduce = ((ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("accuracy", "reproduce"))
    measured = [line for line in accuracy.splitlines() if line.startswith("|") and "Scheduler" in line]
    assert len(measured) == 3 and all(line.endswith(f"| {diffusers} |") for line in measured)
    assert re.search(r"\| SDXL, 11 samplers.*\| (\S+) \|", reproduce)[1] == a1111


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130
