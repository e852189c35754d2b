"""One thread: the networks are so small that sharing the work costs more than doing it. And what tests share."""

import logging
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

# The same examples on each machine, whatever its speed; to look for others: pytest --hypothesis-seed=0 and so on with
# --hypothesis-profile=default.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None, max_examples=40)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _verbosity():
    """A benchmark keeps diffusers quiet: for itself, and not for the tests that come after it in its process."""
    logger = logging.getLogger("diffusers")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def warnings_of_bounds():
    """The messages about bounds that a sampler leaves out, whatever else listens to diffusers' logging."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("diffusers.k_diffusing")  # of whichever module
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


BUILD = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder with what the project's wheel puts into site-packages."""
    root, folder = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("wheel")
    source, installed = folder / "source", folder / "installed"
    for name in ("k_diffusing", "demo_models"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    texts = map(root.joinpath, ("pyproject.toml", "README.md", "LICENSE"))
    for path in (*root.glob("*.py"), *texts):
        shutil.copy(path, source)
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(installed)
    return installed
