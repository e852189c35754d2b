"""Choices of sigmas that cannot be, and sigmas that cannot be sampled on."""

import pytest

from k_diffusing.grids.check import LARGEST_SIGMA, check_grid_choice, check_sigmas, check_steps
from k_diffusing.grids.named import SIGMA_GRIDS


@pytest.mark.parametrize(
    "values, complaint",
    [
        ([3.0, 2.0, 2.0, 0.0], r"\[1\] = 2 is followed by 2:"),
        ([1.0, 2.0, 0.0], r"\[0\] = 1 is followed by 2:"),
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


def test_the_largest_sigma():
    check_sigmas([LARGEST_SIGMA, 1.0])


def test_an_unknown_name_gets_the_nearest_and_all_choices():
    with pytest.raises(ValueError) as error:
        check_grid_choice("xyz")  # like none of them
    head, tail = str(error.value).split(" Choose one of ")
    assert head.startswith("unknown sigma_grid 'xyz': did you mean '")
    choices = "a function (schedule, n) -> sigmas, or None for the grid of the scheduler's config"
    assert tail == f"{', '.join(SIGMA_GRIDS)}, {choices}"


@pytest.mark.parametrize(
    "given, named",
    [
        ({"sigma_grid": "karras", "sigmas": [1.0]}, "sigmas and sigma_grid='karras'"),
        ({"sigma_grid": None, "sigmas": [1.0], "timesteps": [1]}, "sigmas and timesteps"),
        ({"sigma_grid": "vp", "sigmas": [1.0], "timesteps": [1]}, "sigmas and timesteps and sigma_grid='vp'"),
    ],
)
def test_one_choice_alone(given, named):
    with pytest.raises(ValueError) as error:
        check_grid_choice(**given)
    assert str(error.value) == f"{named} each set the sigmas: choose one"
    check_grid_choice(given["sigma_grid"], sigmas=None, timesteps=None)


def test_one_step_is_enough():
    check_steps(1)
    with pytest.raises(ValueError, match="^num_inference_steps=0: give an integer of at least 1$"):
        check_steps(0)
