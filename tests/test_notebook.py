"""The notebook runs from top to bottom, and what it is kept with is what a visitor is to see."""

import json
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "samplers.ipynb"


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(kept, tmp_path_factory):
    """The notebook executed in a kernel of its own: ten seconds, as it loads both demo models."""
    config = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(config))
        notebook = nbformat.from_dict(kept)
        resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook) -> list[tuple[str, set[str], str]]:
    """Of each output that is a cell's value: the cell's source, the forms it has, and its HTML."""
    return [
        (cell.source, set(output.data), output.data.get("text/html", ""))
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]


def test_it_runs_and_shows_what_it_is_kept_with(kept, executed):
    before, now = shown(kept), shown(executed)
    assert [source for source, _, _ in before] == [source for source, _, _ in now]
    for (source, forms, page), (_, forms_now, page_now) in zip(before, now, strict=True):
        assert forms <= forms_now, source
        assert words(page) == words(page_now), source


def words(page: str) -> list[str]:
    """What a table says besides its figures, whose last digits are a machine's."""
    return re.findall(r"[A-Za-z_]{3,}", page)


def test_verdicts_are_tables(executed):
    tables = [page for _, _, page in shown(executed) if page.startswith("<table>")]
    assert len([page for page in tables if "<td>right</td>" in page]) == 2
    assert any("rounding of sigma to timestep in b" in page for page in tables)
    assert any("k:heun and sample_my_heun agree to" in page for page in tables)


def test_no_picture_is_without_a_label(kept):
    pictures = [source for source, forms, _ in shown(kept) if forms & {"image/png", "image/jpeg"}]
    assert len(pictures) == 6 and all("show(" in source or "trace.plot()" in source for source in pictures)


def test_it_is_kept_small_whole_and_without_a_machines_traces(kept):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 400_000
    assert [cell.execution_count for cell in code_cells(kept)] == list(range(1, len(code_cells(kept)) + 1))
    assert not re.search(r"stderr|/home/|/root/|0x[0-9a-f]{6}|Traceback", re.sub(r'"image/\w+": "[^"]*"', "", text))
    assert json.loads(text)["metadata"].keys() == {"kernelspec"}
