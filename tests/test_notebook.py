"""The notebook runs from top to bottom, and is kept without outputs."""

import ast
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from k_diffusing import SamplingPlan

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "samplers.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def value_of(source: str, names: dict):
    """Run a cell (of our own notebook, so nothing foreign is run); the value that a notebook would show, if any."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None


@pytest.fixture
def in_its_folder(monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_it_runs(in_its_folder, capsys):
    names = {"__name__": "__main__"}
    shown = [value_of(source, names) for source in code_cells()]
    pictures = [value for value in shown if isinstance(value, Image.Image)]
    assert [picture.size for picture in pictures[:2]] == [(384, 128), (128, 128)] and len(pictures) == 3
    verdicts = [value for value in shown if isinstance(value, str)]
    assert "right in distribution" in verdicts[0] and "order 2.0" in verdicts[0]
    assert "rounding of sigma to timestep" in verdicts[1] and verdicts[2].startswith("agree")
    [plan] = [value for value in shown if isinstance(value, SamplingPlan)]
    assert len(plan.sigmas) == 9 and "8 network evaluations" in plan._repr_html_()
    assert "timestep" in names["trace"]._repr_html_() and "sigma" in capsys.readouterr().out


def test_it_is_kept_without_outputs():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
