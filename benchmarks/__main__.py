"""Measure what the project says of itself, and fill README and docs with it.

    python -m benchmarks list            the benchmarks: how long each takes, what it lacks, which pages show it
    python -m benchmarks run NAME ...    measure what their data lack, then fill; all: every one
    python -m benchmarks fill [NAME ...] draw the pictures and fill the pages, from the data alone

A run that is ended goes on where it was. --again measures all anew, --only part=noise the rows of which this is so.
run all --jobs 2 takes two at a time, each on its core; those that measure times come last and alone.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import data as store
from benchmarks import pages, style
from benchmarks.every import BENCHMARKS
from benchmarks.record import Benchmark, Row


def run(benchmark: Benchmark, again: bool = False, only: dict[str, str] | None = None) -> None:
    """Measure what is missing, row by row into the data file; again: all; only: anew the rows with these values.

    Raises SystemExit for what cannot be measured here, and for values of no row.
    """
    if lacking := needed(benchmark):
        raise SystemExit(f"{benchmark.name} needs {lacking} in the environment: docs/figures.md says of what")
    rows = rows_to_keep(benchmark, again, only or {})
    wanted = [cell for cell in store.missing(benchmark, rows) if has(cell, only or {})]
    start = time.monotonic()
    for row in benchmark.measure(wanted) if benchmark.measure and wanted else ():
        row = {**row, "seconds": round(time.monotonic() - start, 1)}
        rows = store.in_order(benchmark, [*rows, row])
        store.write(benchmark.name, {**store.head(benchmark), "rows": rows})
        print(f"{benchmark.name}: {row}", flush=True)
        start = time.monotonic()


def rows_to_keep(benchmark: Benchmark, again: bool, only: dict[str, str]) -> list[Row]:
    """The rows that are not to be measured anew. Raises SystemExit where `only` does not fit them."""
    data, cells = store.read(benchmark.name), benchmark.cells()
    stale = store.is_stale(benchmark, data)
    if only and stale:
        raise SystemExit(f"the rows of {benchmark.name} are of other settings or weights: run it without --only")
    if only and not any(has(cell, only) for cell in cells):
        raise SystemExit(f"{benchmark.name} has no row with {only}; one is {cells[0]}")
    if again or stale:
        return []
    return [row for row in data["rows"] if not (only and has(row, only))]


def has(row: Row, values: dict[str, str]) -> bool:
    """Whether a row has these values, as they were typed."""
    return all(str(row.get(key)) == value for key, value in values.items())


def run_all(again: bool, jobs: int = 1) -> int:
    """Those that lack something, each in a process of its own; then fill. How many failed.

    jobs: so many side by side; those that want to be alone come last, one at a time.
    """

    def ends(benchmark: Benchmark) -> int:
        command = [sys.executable, "-m", "benchmarks", "run", benchmark.name, *(["--again"] if again else [])]
        return subprocess.run(command, cwd=store.ROOT).returncode

    wanted, failed = [benchmark for benchmark in BENCHMARKS if is_wanted(benchmark, again)], []
    for alone in (False, True):
        group = [benchmark for benchmark in wanted if benchmark.alone == alone]
        with ThreadPoolExecutor(1 if alone else jobs) as pool:
            failed += [one.name for one, code in zip(group, pool.map(ends, group), strict=True) if code]
    fill([*BENCHMARKS])  # once more, as of two processes that filled a page one has written last
    print(f"failed: {', '.join(failed)}" if failed else "all are done")
    return len(failed)


def is_wanted(benchmark: Benchmark, again: bool) -> bool:
    """Whether `run all` measures it: it lacks something, or all is measured anew, and the environment has its needs."""
    if benchmark.measure is None or (is_whole(benchmark) and not again):
        return False
    if lacking := needed(benchmark):
        print(f"{benchmark.name}: left out, as it needs {lacking} in the environment", flush=True)
    return not lacking


def is_whole(benchmark: Benchmark) -> bool:
    """Whether it has all its rows, and of the settings and weights that there are now."""
    data = store.read(benchmark.name)
    return not store.missing(benchmark, data["rows"]) and not store.is_stale(benchmark, data)


def needed(benchmark: Benchmark) -> str:
    """What the environment lacks for it."""
    return " and ".join(name for name in benchmark.needs if not os.environ.get(name))


def fill(benchmarks: list[Benchmark]) -> None:
    """Draw and fill what has all its data."""
    whole = []
    for benchmark in benchmarks:
        data = store.read(benchmark.name)
        if lacks := len(store.missing(benchmark, data["rows"])):
            print(
                f"{benchmark.name}: {lacks} rows are missing; python -m benchmarks run {benchmark.name} measures them"
            )
            continue
        whole.append(benchmark)
        for path in style.draw(benchmark, data):
            print(f"drew {path.relative_to(store.ROOT)}")
    for page in pages.fill(whole):
        print(f"filled {page.relative_to(store.ROOT)}")


def show() -> None:
    """The list."""
    texts = {page.relative_to(store.ROOT).as_posix(): page.read_text(encoding="utf-8") for page in pages.pages()}
    for benchmark in BENCHMARKS:
        where = [page for page, text in texts.items() if is_shown(benchmark, text)]
        print(f"{benchmark.name:<20} {benchmark.takes:<18} {state(benchmark):<24} {', '.join(where)}")
        print(f"    {benchmark.about}")


def is_shown(benchmark: Benchmark, text: str) -> bool:
    """Whether a page has a part of the benchmark, or a picture."""
    made = [row["file"].removeprefix("docs/") for row in store.read(benchmark.name)["rows"] if "file" in row]
    pictures = [f"images/{name}" for name in benchmark.pictures] + made
    named = {name for name, _ in pages.places(text)}
    return benchmark.name in named or any(picture in text for picture in pictures)


def state(benchmark: Benchmark) -> str:
    """What its data lack, in words."""
    if benchmark.measure is None:
        return "needs no data"
    data = store.read(benchmark.name)
    if lacks := len(store.missing(benchmark, data["rows"])):
        return f"{lacks} rows missing"
    return "of other settings or weights" if store.is_stale(benchmark, data) else f"of {data['measured']}"


def named(names: list[str]) -> list[Benchmark]:
    """The benchmarks of these names. Raises SystemExit for others."""
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def key_and_value(text: str) -> list[str]:
    """KEY=VALUE, taken apart. Raises ArgumentTypeError for another text."""
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE, such as sampler=heun")
    return text.split("=", 1)


def count(text: str) -> int:
    """A whole number from 1. Raises ArgumentTypeError for another text."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="say what there is")
    running = commands.add_parser("run", help="measure what the data lack, then fill")
    running.add_argument("names", nargs="+", metavar="NAME", help="benchmarks, or all")
    running.add_argument("--again", action="store_true", help="measure all rows anew")
    running.add_argument(
        "--only", nargs="+", default=[], type=key_and_value, metavar="KEY=VALUE", help="measure these rows anew"
    )
    running.add_argument("--jobs", type=count, default=1, metavar="N", help="with all: N benchmarks at a time")
    filling = commands.add_parser("fill", help="draw the pictures and fill the pages")
    filling.add_argument("names", nargs="*", metavar="NAME", help="benchmarks; all if none is named")
    asked = parser.parse_args(argv)
    if asked.command == "run" and asked.jobs > 1 and asked.names != ["all"]:
        parser.error("--jobs is for `run all`: benchmarks that are named are measured one after the other")
    if asked.command == "list":
        show()
    elif asked.command == "fill":
        fill(named(asked.names) or [*BENCHMARKS])
    elif asked.names == ["all"]:
        return min(run_all(asked.again, asked.jobs), 1)
    else:
        for benchmark in named(asked.names):
            run(benchmark, asked.again, dict(asked.only))
            fill([benchmark, *(other for other in BENCHMARKS if other.measure is None)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
