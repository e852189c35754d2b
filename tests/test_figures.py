"""Pages and pictures say what docs/data says, and nothing in docs/data or benchmarks is shown nowhere."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks import data, mutants, pages, style
from benchmarks.every import BENCHMARKS
from k_diffusing.samplers.facts import FACTS

KNOWN = {benchmark.name: benchmark for benchmark in BENCHMARKS}
TEXTS = {page.relative_to(data.ROOT).as_posix(): page.read_text(encoding="utf-8") for page in pages.pages()}
PLACES = [(page, *place) for page, text in TEXTS.items() for place in pages.places(text)]
LIMIT = 300 * 1024  # bytes of a picture

of_each = pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)


# One truth: the data.


@of_each
def test_pages_say_what_the_data_say(benchmark):
    """python -m benchmarks fill mends it."""
    found = data.read(benchmark.name)

    def part(name: str, part: str) -> str | None:
        return pages.text_of(benchmark, part, found) if name == benchmark.name else None

    for page, text in TEXTS.items():
        assert pages.filled(text, part) == text, f"{page} does not say what {benchmark.name} found"


@of_each
def test_figures_are_drawn_from_the_data(benchmark):
    for name in benchmark.pictures:
        path = style.IMAGES / name
        assert style.drawn_from(path) == style.digest(data.read(benchmark.name)), name
        assert path.stat().st_size < LIMIT


@of_each
def test_every_cell_is_measured_once_and_nothing_else(benchmark):
    rows = data.read(benchmark.name)["rows"]
    assert not data.missing(benchmark, rows)
    assert data.in_order(benchmark, rows) == rows


@of_each
def test_a_data_file_has_the_head(benchmark):
    if benchmark.measure:
        found = data.read(benchmark.name)
        assert list(found) == ["measured", "machine", "versions", "models", "calls", "settings", "rows"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["measured"]) and found["machine"] and found["versions"]["torch"]
        assert set(found["models"]) == set(benchmark.models)
        assert found["settings"] == json.loads(json.dumps(benchmark.settings))


def files_made(benchmark) -> list[dict]:
    """The rows of files that are themselves what was made."""
    return [row for row in data.read(benchmark.name)["rows"] if "file" in row]


@of_each
def test_files_that_are_made_are_those_in_the_data(benchmark):
    for row in files_made(benchmark):
        assert data.made(data.ROOT / row["file"]).items() <= row.items()


# Everything is shown, and nothing else is.


def test_every_place_names_a_part_of_a_benchmark():
    for page, name, part in PLACES:
        assert name in KNOWN, f"{page}: no benchmark {name}"
        assert part in KNOWN[name].tables or (part == "run" and KNOWN[name].measure), f"{page}: {name} has no {part}"


def test_every_place_has_its_end():
    for page, text in TEXTS.items():
        count = len(pages.places(text))
        begun = re.findall("<!-- figures: [a-z]", text)
        assert len(begun) == text.count("<!-- end -->") == count, page


def test_no_line_begins_with_a_place_within_it():
    """Such a line would be HTML of its own in Markdown, in the midst of its paragraph."""
    for page, text in TEXTS.items():
        assert not re.search(r"^ *<!-- figures: [^\n]*?-->[^\n]", text, re.MULTILINE), page


@of_each
def test_all_that_it_makes_is_shown(benchmark):
    shown = {part for _, name, part in PLACES if name == benchmark.name}
    assert set(benchmark.tables) <= shown
    files = [*(f"docs/images/{name}" for name in benchmark.pictures), *(row["file"] for row in files_made(benchmark))]
    for name in (file.removeprefix("docs/") for file in files if file.startswith("docs/images/")):
        assert any(name in text for text in TEXTS.values()), name
    assert shown or files


def test_every_data_file_is_that_of_a_benchmark():
    files = {path.name for path in data.FOLDER.iterdir()}
    assert files == {f"{benchmark.name}.json" for benchmark in BENCHMARKS if benchmark.measure}


# Filling.

FILL = """
import sys
from benchmarks import data, pages
from benchmarks.every import BENCHMARKS
from k_diffusing.samplers.facts import FACTS
for benchmark in BENCHMARKS:
    benchmark.cells()
    for part in benchmark.tables:
        assert pages.text_of(benchmark, part, data.read(benchmark.name))
assert not {"torch", "diffusers", "matplotlib"} & set(sys.modules)
"""


def test_filling_needs_no_torch():
    run = subprocess.run([sys.executable, "-c", FILL], cwd=data.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_a_part_takes_its_place_on_lines_or_in_a_line():
    page = "a\n<!-- figures: x.y -->\nold\nlines\n<!-- end -->\nb <!-- figures: x.z -->1<!-- end --> c\n"
    told = {"y": r"new \1", "z": "2", "w": ""}
    filled = pages.filled(page, lambda name, part: told[part])
    assert filled == "a\n<!-- figures: x.y -->\nnew \\1\n<!-- end -->\nb <!-- figures: x.z -->2<!-- end --> c\n"
    assert pages.filled(page, lambda name, part: None) == page
    assert pages.places(page) == [("x", "y"), ("x", "z")]


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="samplers has no part 'nothing'; it has k-diffusion"):
        pages.text_of(KNOWN["samplers"], "nothing", data.read("samplers"))


def test_spread_keeps_the_order_the_gap_and_the_bounds():
    placed = style.spread([0.5, 0.52, 0.1, 0.51, 0.99, 1.2], gap=0.05, low=0.0, high=1.0)
    order = sorted(range(6), key=lambda i: placed[i])
    assert order == [2, 0, 3, 1, 4, 5]
    gaps = [placed[b] - placed[a] for a, b in zip(order, order[1:], strict=False)]
    assert min(gaps) >= 0.05 - 1e-9 and 0 <= min(placed) and max(placed) <= 1 + 1e-9
    assert style.spread([0.3, 0.7], gap=0.1, low=0.0, high=1.0) == [0.3, 0.7]


# What pages say in words of all rows.


def test_the_tests_notice_most_mutants():
    for row in data.read("mutants")["rows"]:
        assert row["killed"] >= mutants.LEAST * row["tried"], row["part"]


def test_comfyuis_pictures_are_met_but_for_its_own_rounding():
    """At most 1e-4, or twice what ComfyUI moves by itself."""
    rows = [row for row in data.read("comfyui_agreement")["rows"] if row.get("sampler") in FACTS]
    assert len(rows) == 2 * len(FACTS)
    for row in rows:
        assert row["largest"] <= 1e-4 or row["largest"] <= 2 * row["floor"], row
