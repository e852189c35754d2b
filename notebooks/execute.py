"""Executes a notebook and keeps what a visitor of the repository is to see of it.

python notebooks/execute.py                  notebooks/samplers.ipynb, in place

Progress bars and warnings on standard error are not kept, nor a second form of an output.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "samplers.ipynb"
FORMS = ("text/html", "image/jpeg", "image/png", "text/plain")  # the first that an output has is kept


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs. Raises nbclient.exceptions.CellExecutionError for a cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [kept(output) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output with the one form that is shown."""
    if "data" in output:
        form = next(form for form in FORMS if form in output.data)
        output.data = nbformat.from_dict({form: output.data[form]})
    return output


def main(argv: list[str]) -> None:
    """Execute each notebook that is named, in place."""
    for path in map(Path, argv or [NOTEBOOK]):
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
