"""The site of docs/, built as `make docs` builds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path) -> Path:
    """Build strictly into the folder: a broken link or anchor, or a page that the menu lacks, is an error."""
    for module in ("material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site's builder comes with `make docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert run.returncode == 0, run.stderr
    return folder
