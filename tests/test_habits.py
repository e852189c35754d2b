"""What CONTRIBUTING, the workflow, the hooks and the templates name is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from k_diffusing import cli

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKFLOW = GITHUB / "workflows" / "ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"
TEXTS = [ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md", WORKFLOW, HOOKS, *FORMS]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
RULES = dict(re.findall(r"^([\w.-]+):[^\n=]*\n((?:\t[^\n]+\n)*)", MAKEFILE, re.MULTILINE))


def quoted(text: str) -> list[str]:
    """What stands in backticks, but for blocks."""
    return [
        " ".join(found.split()) for found in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_make_targets_and_commands_exist(path):
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\bmake ([a-z][\w-]*(?:\.txt)?)", text)) <= set(RULES)
    assert set(re.findall(r"k-diffusing ([a-z]+)", text)) <= set(cli.COMMANDS)


def test_files_that_contributing_names_exist():
    files = [
        text for text in quoted(CONTRIBUTING) if re.fullmatch(r"[\w./-]+\.(py|md|txt|toml|yml)|[\w.-]+/[\w./-]*", text)
    ]
    beside = [ROOT, ROOT / "k_diffusing" / "grids", ROOT / "k_diffusing" / "samplers"]
    missing = [text for text in files if text != "lowest.txt" and not any((top / text).exists() for top in beside)]
    assert len(files) > 15 and not missing
    links = re.findall(r"\]\(([^)#:]+)\)", CONTRIBUTING)
    assert links and all((ROOT / link).exists() for link in links)


def test_names_that_contributing_places_in_a_file_are_there():
    placed = re.findall(r"`([A-Za-z_]+)`\s+(?:in|of)\s+`([\w/]+\.py)`", CONTRIBUTING)
    assert len(placed) > 4
    for name, path in placed:
        assert re.search(rf"^(class )?{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (name, path)


def test_benchmarks_that_contributing_runs_are_there():
    from benchmarks.every import BENCHMARKS

    asked = re.findall(r"benchmarks run ([a-z_ ]+)`", " ".join(CONTRIBUTING.split()))
    assert {name for names in asked for name in names.split()} <= {benchmark.name for benchmark in BENCHMARKS}
    assert len(asked) == 2


def test_the_workflow_runs_what_a_clone_can():
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    lines = [
        line.strip() for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()
    ]
    for words in map(shlex.split, lines):
        assert words[0] in ("make", "echo") or words[1:3] in (["-m", "pytest"], ["-m", "pip"]), words
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    made = {words[1] for words in map(shlex.split, lines) if words[0] == "make"}
    assert made >= {"test", "check", "types", "docs", "wheel", "coverage", "test-pages"}
    assert all(job["timeout-minutes"] for job in jobs.values())


def test_the_hooks_are_the_checks_of_make():
    [repository] = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"  # no tool of another version than .venv's
    hooked = {hook["entry"].replace(" --force-exclude", "").removeprefix(".venv/bin/") for hook in repository["hooks"]}
    made = (RULES["check"] + RULES["types"]).replace("$(BIN)", ".venv/bin").splitlines()
    assert hooked == {line.strip().removesuffix(" .").removeprefix(".venv/bin/") for line in made}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_forms(path):
    """As GitHub takes them: it shows no form that has a field too many or an id twice."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form) <= {"name", "description", "labels", "title", "body"}
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert ids and len(ids) == len(set(ids))
    for field in form["body"]:
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert field["attributes"].get("value" if field["type"] == "markdown" else "label")


def test_the_citation_names_what_it_must():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0" and citation["type"] == "software"


def test_the_version_is_of_all_that_a_run_depends_on(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    said = capsys.readouterr().out
    names = ("k-diffusing", "torch", "diffusers", "k-diffusion", "transformers", "numpy", "Python")
    assert all(re.search(rf"\b{name} \d", said) for name in names) and said.count("\n") == 1
