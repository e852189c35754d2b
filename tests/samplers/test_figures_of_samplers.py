"""docs/samplers.md: its tables are those of docs/samplers.json, which has what the records say."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from samplers_patch import ALL_SAMPLERS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("sampler_figures")


def test_the_page_has_the_tables(figures):
    page, data = figures.PAGE.read_text(encoding="utf-8"), json.loads(figures.DATA.read_text(encoding="utf-8"))
    assert figures.with_tables(page, data) == page  # python benchmarks/sampler_figures.py writes them anew
    assert all(figures.table(data, family) in page for family in figures.FAMILIES)


def test_what_was_measured_is_what_records_say(figures):
    data = json.loads(figures.DATA.read_text(encoding="utf-8"))
    for family in figures.FAMILIES[1:]:
        for name in figures.names(family):
            record, found = ALL_SAMPLERS[name], data[name]
            if found["order"] is not None:
                assert found["order"] == pytest.approx(record.measured or record.order, abs=0.15), name
            assert record.distilled or all(found["w1"][model][-1] <= 0.03 for model in ("sdxl", "flux")), name


def test_a_measurement(figures, monkeypatch, tmp_path):
    """Of one sampler, into files of the test's own."""
    for name, value in {"STEPS": (2,), "ORDER_STEPS": (2, 4), "FAMILIES": ("ER-SDE", "few steps")}.items():
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(figures, "DATA", tmp_path / "samplers.json")
    monkeypatch.setattr(figures, "PAGE", tmp_path / "samplers.md")
    figures.PAGE.write_text("before\n<!-- ER-SDE -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sampler_figures.py"])
    figures.main()
    lines = figures.PAGE.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and "old" not in lines
    assert lines[4].startswith("| er_sde | 1 | 3 |  | ")
    assert set(json.loads(figures.DATA.read_text(encoding="utf-8"))) == {"er_sde", "lcm", "tcd"}
