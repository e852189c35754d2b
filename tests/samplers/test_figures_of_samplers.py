"""What was measured of the samplers is what their records say."""

import pytest

from benchmarks import data, samplers
from samplers_patch import ALL_SAMPLERS


def test_what_was_measured_is_what_records_say():
    for row in data.read("samplers")["rows"]:
        name, record = row["sampler"], ALL_SAMPLERS[row["sampler"]]
        if record.family == "k_diffusion":
            continue
        if row["order"] is not None:
            assert row["order"] == pytest.approx(record.measured or record.order, abs=0.15), name
        assert record.distilled or all(row["w1"][model][-1] <= 0.03 for model in ("sdxl", "flux")), name


def test_a_measurement(monkeypatch):
    """Of three samplers, with few steps."""
    monkeypatch.setattr(samplers, "STEPS", (2,))
    monkeypatch.setattr(samplers, "ORDER_STEPS", (2, 4))
    cells = [{"sampler": name} for name in ("er_sde", "lcm", "tcd")]
    rows = [*samplers.measure(cells)]
    assert [row["sampler"] for row in rows] == ["er_sde", "lcm", "tcd"]
    assert all(len(row["w1"][model]) == 1 for row in rows for model in ("sdxl", "flux"))
    assert rows[1]["order"] is None and rows[2]["order"] > 0
    assert samplers.table({"rows": rows}, "ER-SDE").splitlines()[2].startswith("| er_sde | 1 | 3 |  | ")
