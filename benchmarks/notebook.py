"""The notebook executed, with the outputs that it is kept with."""

import subprocess
import sys
from collections.abc import Iterable

from benchmarks.data import ROOT, made
from benchmarks.record import Benchmark, Row

FILE = "notebooks/samplers.ipynb"


def measure(cells: list[Row]) -> Iterable[Row]:
    """Raises CalledProcessError if a cell of it fails."""
    subprocess.run([sys.executable, "notebooks/execute.py"], cwd=ROOT, check=True)
    yield made(ROOT / FILE)


BENCHMARK = Benchmark(
    name="notebook",
    about="The notebook executed, with the outputs that it is kept with.",
    takes="a minute",
    cells=lambda: [{"file": FILE}],
    measure=measure,
    models=("demo", "demo-flux"),
)
