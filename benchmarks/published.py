"""The pictures of `make samples`, made anew as those that the project publishes."""

import os
from collections.abc import Iterable

from benchmarks.data import ROOT, made
from benchmarks.record import Benchmark, Row

FILE = "output/published.sha256"


def measure(cells: list[Row]) -> Iterable[Row]:
    """Raises RuntimeError if a script fails."""
    import test
    import test_flux
    from k_diffusing.render.published import write_list

    os.chdir(ROOT)  # the scripts' pictures go into output
    for path in ((ROOT / FILE), *(ROOT / "output").glob("*-manifest.json")):
        path.unlink(missing_ok=True)
    for script in (test, test_flux):
        if code := script.main([]):
            raise RuntimeError(f"{script.__name__}.py ended with {code}")
    write_list()
    yield made(ROOT / FILE)


BENCHMARK = Benchmark(
    name="published",
    about="The pictures of `make samples`, of every sampler on both demo models, and the list of them.",
    takes="2 minutes",
    cells=lambda: [{"file": FILE}],
    measure=measure,
    models=("demo", "demo-flux"),
)
