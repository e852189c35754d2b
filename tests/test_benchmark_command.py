"""python -m benchmarks: measures what is missing, row by row, and fills from the data alone."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from benchmarks import __main__ as command
from benchmarks import data, pages, style
from benchmarks.every import BENCHMARKS
from benchmarks.record import Benchmark


class Work:
    """A benchmark of squares, which notes what it measures and may fail at a number."""

    def __init__(self):
        self.measured, self.fails_at = [], None

    def measure(self, cells):
        for cell in cells:
            if cell["n"] == self.fails_at:
                raise OSError("no more power")
            self.measured.append(cell["n"])
            yield cell | {"square": cell["n"] ** 2}


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def squares(work, tmp_path, monkeypatch) -> Benchmark:
    """It, with a page and a folder of its own."""
    benchmark = Benchmark(
        "squares",
        "Squares of numbers.",
        cells=lambda: [{"n": 1}, {"n": 2}, {"n": 3}],
        measure=work.measure,
        settings={"base": 10},
        tables={"table": lambda found: " ".join(str(row["square"]) for row in found["rows"])},
    )
    page = tmp_path / "page.md"
    page.write_text("It is <!-- figures: squares.table -->?<!-- end -->.\n", encoding="utf-8")
    monkeypatch.setattr(data, "FOLDER", tmp_path / "data")
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.setattr(style, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(pages, "pages", lambda: [page])
    monkeypatch.setattr(command, "BENCHMARKS", (benchmark,))
    return benchmark


def page_text(tmp_path) -> str:
    return (tmp_path / "page.md").read_text(encoding="utf-8")


def test_run_measures_and_fills(squares, work, tmp_path, capsys):
    assert command.main(["run", "squares"]) == 0
    assert page_text(tmp_path) == "It is <!-- figures: squares.table -->1 4 9<!-- end -->.\n"
    found = json.loads((tmp_path / "data" / "squares.json").read_text(encoding="utf-8"))
    assert [row["square"] for row in found["rows"]] == [1, 4, 9] and found["settings"] == {"base": 10}
    assert all(row["seconds"] >= 0 for row in found["rows"]) and found["machine"]


def test_an_ended_run_goes_on(squares, work, tmp_path, capsys):
    work.fails_at = 2
    with pytest.raises(OSError, match="power"):
        command.main(["run", "squares"])
    command.main(["fill"])
    assert "?" in page_text(tmp_path) and "2 rows are missing" in capsys.readouterr().out
    work.fails_at = None
    command.main(["run", "squares"])
    assert work.measured == [1, 2, 3] and "1 4 9" in page_text(tmp_path)
    command.main(["run", "squares"])
    assert work.measured == [1, 2, 3]
    command.main(["run", "squares", "--again"])
    assert work.measured == [1, 2, 3, 1, 2, 3]


def test_rows_with_a_value_are_measured_anew(squares, work, capsys):
    command.main(["run", "squares"])
    command.main(["run", "squares", "--only", "n=2"])
    assert work.measured == [1, 2, 3, 2] and len(data.read("squares")["rows"]) == 3
    with pytest.raises(SystemExit, match="squares has no row with {'n': '7'}"):
        command.main(["run", "squares", "--only", "n=7"])
    with pytest.raises(SystemExit):
        command.main(["run", "squares", "--only", "n"])
    assert "'n' is not of the form KEY=VALUE" in capsys.readouterr().err


def test_rows_of_other_settings_are_measured_anew(squares, work, monkeypatch, capsys):
    command.main(["run", "squares"])
    monkeypatch.setattr(command, "BENCHMARKS", (replace(squares, settings={"base": 2}),))
    command.main(["list"])
    assert "of other settings or weights" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="run it without --only"):
        command.main(["run", "squares", "--only", "n=2"])
    assert len(data.read("squares")["rows"]) == 3
    command.main(["run", "squares"])
    assert work.measured == [1, 2, 3] * 2


def test_rows_of_other_weights_are_measured_anew(squares, work, tmp_path, monkeypatch):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1")
    monkeypatch.setattr(data, "WEIGHTS", {"demo": tmp_path})
    data.weights_digest.cache_clear()
    monkeypatch.setattr(command, "BENCHMARKS", (replace(squares, models=("demo",)),))
    command.main(["run", "squares"])
    weights.write_bytes(b"2")
    data.weights_digest.cache_clear()
    command.main(["run", "squares"])
    data.weights_digest.cache_clear()
    assert work.measured == [1, 2, 3] * 2


def test_rows_of_another_call_are_measured_anew(squares, work, monkeypatch):
    """A demo model's own guidance is what its rows depend on as on its weights."""
    monkeypatch.setattr(command, "BENCHMARKS", (replace(squares, models=("demo",)),))
    command.main(["run", "squares"])
    other = replace(data.DEMOS["demo"], call={"guidance_scale": 7.0})
    monkeypatch.setitem(data.DEMOS, "demo", other)
    command.main(["run", "squares"])
    assert work.measured == [1, 2, 3] * 2 and data.read("squares")["calls"] == {"demo": other.call}


def test_times_are_measured_anew_for_other_shapes_alone(squares, work, tmp_path, monkeypatch):
    def write(values: list[float]) -> None:
        safetensors.numpy.save_file({"weight": np.array(values)}, tmp_path / "weights.safetensors")
        data.shapes_digest.cache_clear()

    monkeypatch.setattr(data, "WEIGHTS", {"demo": tmp_path})
    monkeypatch.setattr(command, "BENCHMARKS", (replace(squares, models=("demo",), alone=True),))
    for values, measured in (([1.0], 3), ([2.0], 3), ([2.0, 3.0], 6)):
        write(values)
        command.main(["run", "squares"])
        assert len(work.measured) == measured
    data.shapes_digest.cache_clear()


def test_a_row_of_no_cell_is_dropped(squares, work, tmp_path):
    command.main(["run", "squares"])
    fewer = replace(squares, cells=lambda: [{"n": 4}, {"n": 2}])
    command.run(fewer, again=False)
    assert [row["n"] for row in data.read("squares")["rows"]] == [4, 2] and work.measured == [1, 2, 3, 4]


def test_list_says_where_a_benchmark_is_shown(squares, tmp_path, monkeypatch, capsys):
    """By a part, or by a picture."""
    (tmp_path / "page.md").write_text("![](images/drawn.png)", encoding="utf-8")
    drawn = replace(squares, name="drawn", pictures={"drawn.png": None})
    monkeypatch.setattr(command, "BENCHMARKS", (squares, drawn))
    command.main(["list"])
    first, _, second, about = capsys.readouterr().out.splitlines()
    assert "3 rows missing" in first and "page.md" not in first
    assert second.endswith("page.md") and about == "    Squares of numbers."


def test_what_the_environment_lacks_is_named(squares, monkeypatch, capsys):
    monkeypatch.delenv("SQUARE_ROOT", raising=False)
    monkeypatch.setattr(command, "BENCHMARKS", (replace(squares, needs=("SQUARE_ROOT",)),))
    with pytest.raises(SystemExit, match="squares needs SQUARE_ROOT"):
        command.main(["run", "squares"])
    assert command.main(["run", "all"]) == 0 and "left out, as it needs SQUARE_ROOT" in capsys.readouterr().out


def test_an_unknown_name_is_answered_with_those_there_are(squares):
    with pytest.raises(SystemExit, match="no benchmark is named cubes; there are squares"):
        command.main(["fill", "cubes"])


def test_a_figure_carries_the_digest_of_its_data(squares, tmp_path, capsys):
    pyplot = style.pyplot()

    def figure(found):
        drawn, axes = pyplot.subplots(figsize=(2, 1))
        axes.plot([row["square"] for row in found["rows"]])
        return drawn

    command.run(squares, again=False)
    command.fill([replace(squares, pictures={"squares.png": figure})])
    assert style.drawn_from(tmp_path / "images" / "squares.png") == style.digest(data.read("squares"))


def test_run_all_takes_as_many_at_a_time_as_it_is_told(squares, monkeypatch, capsys):
    """But what is to be alone is, and comes last."""
    names, meeting, running, seen = ["lonely", "a", "b", "c", "d"], threading.Barrier(2), set(), []
    lonely = replace(squares, name="lonely", alone=True)
    monkeypatch.setattr(command, "BENCHMARKS", (lonely, *(replace(squares, name=name) for name in names[1:])))

    class Ended:
        def __init__(self, argv, cwd):
            name = argv[-1]
            running.add(name)
            if name != "lonely":
                meeting.wait(timeout=60)  # for another that runs meanwhile
            seen.append((name, len(running) if name == "lonely" else None))
            running.discard(name)
            self.returncode = int(name == "b")

    monkeypatch.setattr(command.subprocess, "run", Ended)
    assert command.main(["run", "all", "--jobs", "2"]) == 1
    assert {name for name, _ in seen[:4]} == {*names[1:]} and seen[4:] == [("lonely", 1)]
    assert capsys.readouterr().out.endswith("failed: b\n")


@pytest.mark.parametrize(
    "asked, told", [("all --jobs 0", "'0' is not a whole number"), ("squares --jobs 2", "--jobs is for `run all`")]
)
def test_jobs_that_cannot_be(squares, asked, told, capsys):
    with pytest.raises(SystemExit):
        command.main(["run", *asked.split()])
    assert told in capsys.readouterr().err


def test_what_measures_times_is_alone():
    """And the mutants, whose tests end after some time."""
    alone = {one.name for one in BENCHMARKS if one.alone}
    assert alone == {"step_cost", "grid_cost", "trace_cost", "suspended", "mutants"}
