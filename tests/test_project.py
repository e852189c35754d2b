"""The project's own promises: what is installed, what pytest collects, what README shows is there."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from k_diffusing._k_diffusion import REQUIREMENT

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ASKED_FOR = {"sdxl_comfy_pipeline", "flux_comfy_pipeline", "samplers_patch", "test", "test_flux"}


def test_no_other_module_lies_at_the_top():
    assert {path.stem for path in ROOT.glob("*.py")} == ASKED_FOR | {"conftest"}


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in (ROOT / "k_diffusing").rglob("*.py")}
    assert set(listed["packages"]) == folders | {"k_diffusing.demo_models"}
    assert set(listed["py-modules"]) == ASKED_FOR - {"test", "test_flux"}


def test_no_module_shadows_the_standard_library():
    modules = {path.stem for path in ROOT.glob("*.py")} - {"test"}
    assert not modules & sys.stdlib_module_names


def test_pytest_does_not_collect_the_render_scripts():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "test.py",
        "test_flux.py",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, run.stdout + run.stderr


PAGES = ["README.md", "demo_models/README.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    page = ROOT / page
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', text)
    missing = [a or b for a, b in targets if not (page.parent / (a or b)).exists()]
    assert not missing


def test_weights_are_safetensors_alone():
    weights = [
        path for path in (ROOT / "demo_models").rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
    ]
    assert not weights and list((ROOT / "demo_models").rglob("*.safetensors"))


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES = {"PIL": "pillow", "yaml": "pyyaml"}
NOT_NEEDED = {"comfy", "torch_xla", "torchvision"}  # the user's ComfyUI; what diffusers uses where it is there
# What k_diffusion.sampling imports, and what diffusers and `accelerate launch` do.
INDIRECT = {"accelerate", "k-diffusion", "torchdiffeq", "torchsde"}


def imported(files):
    """The top-level names that Python files import, without the standard library's."""
    names = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names


def declared(lines):
    """The names of packages in lines of requirements."""
    return {re.match(r"[\w-]+", line)[0] for line in lines}


def test_what_is_imported_is_declared_and_nothing_else():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines += PROJECT["optional-dependencies"]["plots"]
    files = [*(ROOT / "k_diffusing").rglob("*.py"), *(ROOT / f"{name}.py" for name in ASKED_FOR)]
    theirs = imported(files) - ASKED_FOR - {"k_diffusing"} - NOT_NEEDED
    assert {NAMES.get(name, name) for name in theirs} | INDIRECT == declared(lines)


def test_what_the_tests_import_is_declared():
    """`make test` installs it: no package is there by another's requirement alone."""
    files = [*(ROOT / "tests").rglob("*.py"), ROOT / "conftest.py"]
    ours = {path.stem for top in ("tests", "benchmarks", "demo_models", "docs") for path in (ROOT / top).rglob("*.py")}
    theirs = imported(files) - ours - ASKED_FOR - {"k_diffusing", "benchmarks"} - NOT_NEEDED
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["plots"], *extras["dev"], *extras["docs"], *extras["pages"]]
    named = {NAMES.get(name, name.replace("_", "-")) for name in theirs}
    assert named - INDIRECT <= declared(lines)


def test_requirements_are_the_same_everywhere():
    """In requirements.txt, in pyproject.toml, in the Makefile and in the message of a missing k_diffusion."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    [k_diffusion] = [line for line in lines if line.startswith("k-diffusion")]
    assert [line for line in lines if line != k_diffusion] == PROJECT["dependencies"]
    assert k_diffusion.partition(";")[0] == REQUIREMENT
    assert f"--no-deps '{REQUIREMENT}'" in (ROOT / "Makefile").read_text(encoding="utf-8")
