"""How figures come into README and docs: between `<!-- figures: NAME.PART -->` and `<!-- end -->`.

Where a line ends after the first comment, the part has lines of its own; else it stands within the line.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import data as store
from benchmarks.data import ROOT
from benchmarks.record import Benchmark, Data
from k_diffusing._files import write_whole

PLACE = re.compile(r"(<!-- figures: ([a-z0-9_]+)\.([a-z0-9_-]+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """All that may have figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "demo_models" / "README.md"]


def places(page: str) -> list[tuple[str, str]]:
    """The benchmark and the part of each place."""
    return [(found[2], found[3]) for found in PLACE.finditer(page)]


def filled(page: str, part: Callable[[str, str], str | None]) -> str:
    """The page with the text of each part, by benchmark and part, in its place; None leaves what is there."""

    def put(found: re.Match) -> str:
        text = part(found[2], found[3])
        if text is None:
            return found[0]
        return f"{found[1]}\n{text}\n{found[5]}" if found[4].startswith("\n") else f"{found[1]}{text}{found[5]}"

    return PLACE.sub(put, page)


def text_of(benchmark: Benchmark, part: str, data: Data) -> str:
    """A part of a benchmark. Raises ValueError for one that it does not have."""
    if part == "run" and benchmark.measure:
        return measured_by(benchmark.name, data)
    if part not in benchmark.tables:
        raise ValueError(f"the benchmark {benchmark.name} has no part {part!r}; it has {', '.join(benchmark.tables)}")
    return benchmark.tables[part](data)


def fill(benchmarks: list[Benchmark]) -> list[Path]:
    """Fill all places of these benchmarks; the pages that were changed. Raises ValueError for a part there is not."""
    known = {benchmark.name: benchmark for benchmark in benchmarks}

    def part(name: str, part: str) -> str | None:
        return text_of(known[name], part, store.read(name)) if name in known else None

    changed = []
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = filled(before, part)
        if after != before:
            write_whole(page, after.encode())
            changed.append(page)
    return changed


def measured_by(name: str, data: Data) -> str:
    """How, when, for how long and on what the rows were measured."""
    minutes = round(sum(row.get("seconds", 0) for row in data["rows"]) / 60)
    took = f" in {minutes} minutes" if minutes > 1 else ""
    versions = ", ".join(f"{package} {version}" for package, version in data["versions"].items())
    return f"Measured by `python -m benchmarks run {name}`{took} ({data['measured']}; {data['machine']}; {versions})."


def markdown_table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """So many columns to the left, all others to the right."""
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def listed(words: Iterable[object], conjunction: str = "and") -> str:
    """In a sentence: a, b and c."""
    *most, last = [str(word) for word in words] or ["none"]
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def power(value: float) -> str:
    """One digit and the power of ten: 6e-6."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+00", "") if value else "0.0"
