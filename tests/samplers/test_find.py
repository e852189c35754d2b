"""How a sampler is found: by name, by function, by record."""

import pytest

from k_diffusing._k_diffusion import k_sampling
from samplers_patch import SAMPLERS, find_sampler


def test_names_with_and_without_prefix_records_and_functions():
    assert find_sampler("sample_heun") is find_sampler("heun") is SAMPLERS["heun"]
    assert find_sampler(k_sampling.sample_heun) is SAMPLERS["heun"]
    assert find_sampler(SAMPLERS["heun"]) is SAMPLERS["heun"]


def test_unknown_name_gets_the_nearest_and_all_choices():
    with pytest.raises(ValueError, match="'dpmpp2m'.*did you mean 'dpmpp_2m'") as error:
        find_sampler("dpmpp2m")
    assert all(name in str(error.value) for name in SAMPLERS)


def two_parameters(model, x):
    return x


def needs_more(model, x, sigmas, strength):
    return x


@pytest.mark.parametrize("function", [two_parameters, needs_more, 3, object()])
def test_callables_that_do_not_fit(function):
    with pytest.raises(TypeError, match=r"sampler\(model, x, sigmas"):
        find_sampler(function)
