"""What a user is told: the nearest choice, an error in one line."""

import pytest

from k_diffusing._messages import nearest, one_line, unknown

SAMPLERS = ["euler", "heun", "dpmpp_2m"]


def test_nearest_choices():
    assert nearest("eular", SAMPLERS) == ["euler"]
    assert nearest("heunn", iter(SAMPLERS), most=2) == ["heun", "euler"]
    assert len(nearest("", SAMPLERS, most=9)) == 3  # however far
    assert nearest(5, SAMPLERS) and nearest("euler", []) == []


@pytest.mark.parametrize("value", ["dpm2m", None, 7, ""])
def test_unknown_name(value):
    told = unknown("sampler", value, iter(SAMPLERS))
    assert told.startswith(f"unknown sampler {value!r}: did you mean '") and told.endswith("'?")


def test_unknown_name_without_choices():
    assert unknown("sampler", "euler", []) == "unknown sampler 'euler'"


def test_one_line_of_an_error():
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(KeyError()) == "KeyError: "
    assert len(one_line(ValueError("x" * 1000))) == 200 and one_line(ValueError("x" * 1000)).endswith("...")
