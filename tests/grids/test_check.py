"""Sigmas that cannot be sampled on."""

import pytest

from k_diffusing.grids.check import check_sigmas


@pytest.mark.parametrize(
    "values, complaint",
    [
        ([3.0, 2.0, 2.0, 0.0], r"\[1\] = 2"),
        ([1.0, 2.0, 0.0], r"\[0\] = 1"),
        ([2.0, float("nan"), 0.0], r"\[1\] is nan"),
        ([2.0, -1.0], r"\[1\] is -1"),
        ([float("inf"), 0.0], r"\[0\] is inf"),
        ([1e19, 0.0], r"\[0\] is 1e\+19: .* at most 1e\+18"),
        ([], "list of numbers"),
    ],
)
def test_bad_sigmas(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_sigmas(values)
