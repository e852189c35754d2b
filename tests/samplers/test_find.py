"""How a sampler is found: by name, by function, by record."""

import functools

import pytest

from samplers_patch import ALL_SAMPLERS, SAMPLERS, find_sampler, k_sampling, sampler_options


def test_names_with_and_without_prefix_records_and_functions():
    assert find_sampler("sample_heun") is find_sampler("heun") is SAMPLERS["heun"]
    assert find_sampler(k_sampling.sample_heun) is SAMPLERS["heun"]
    assert find_sampler(SAMPLERS["heun"]) is SAMPLERS["heun"]


def test_unknown_name_gets_the_nearest_and_all_choices():
    with pytest.raises(ValueError, match="'dpmp2m'.*did you mean 'dpmpp_2m'") as error:
        find_sampler("dpmp2m")
    assert f"Choose one of {', '.join(ALL_SAMPLERS)} (each also with the prefix sample_), or pass a function" in str(
        error.value
    )


def two_parameters(model, x):
    return x


def needs_more(model, x, sigmas, strength):
    return x


@pytest.mark.parametrize("function", [two_parameters, needs_more, 3, object()])
def test_callables_that_do_not_fit(function):
    with pytest.raises(TypeError, match=r"sampler\(model, x, sigmas"):
        find_sampler(function)


SIGNATURE = "sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)"


@pytest.mark.parametrize(
    "function, message",
    [
        (3, f"a sampler is a name or a callable {SIGNATURE}, not 3"),
        (two_parameters, f"two_parameters(model, x) cannot be called as a sampler: expected {SIGNATURE}"),
    ],
)
def test_what_a_sampler_must_look_like(function, message):
    with pytest.raises(TypeError) as error:
        find_sampler(function)
    assert str(error.value) == message


def test_a_signature_that_python_cannot_read():
    with pytest.raises(TypeError, match=r"^the signature of <class 'type'> cannot be read \(") as error:
        find_sampler(type)
    assert str(error.value).endswith(f"): pass {SIGNATURE}")


def with_other_names(network, latents, levels, *more, gain=1.0, extra_args=None, **rest):
    return latents


def keyword_only(model, x, sigmas, *, disable, callback, gain=2.0):
    return x


def ranged(model, x, sigma_min, sigma_max, n, eta=0.5):
    return x


def ranged_too_late(model, x, sigmas, sigma_min, sigma_max):
    return x


class Stateful:
    """A sampler that is an object."""

    def __call__(self, model, x, sigmas, /, order=3):
        return x


@pytest.mark.parametrize(
    "function, name, takes, options",
    [
        (with_other_names, "with_other_names", "sigmas", {"gain": 1.0}),
        (keyword_only, "keyword_only", "sigmas", {"gain": 2.0}),
        (ranged, "ranged", "sigma_range", {"eta": 0.5}),
        (ranged_too_late, "ranged_too_late", "sigmas", {}),
        (Stateful(), "Stateful", "sigmas", {"order": 3}),
        (functools.partial(ranged, eta=2.0), "partial", "sigma_range", {"eta": 2.0}),
    ],
)
def test_the_record_of_a_users_function(function, name, takes, options):
    record = find_sampler(function)
    assert (record.name, record.function, record.takes, record.custom) == (name, function, takes, True)
    assert (record.order, record.nfe_per_step, record.sigma_grid) == (None, None, None)
    assert (record.flow_coordinates, record.grid_scheduler) == (None, None)
    assert (record.adaptive, record.derivative_only) == (False, False)
    assert sampler_options(record) == options


def test_a_function_says_its_coordinates_and_whose_grid_it_wants():
    def sampler(model, x, sigmas):
        return x

    assert find_sampler(sampler).keeps_bounds is False
    sampler.flow_coordinates, sampler.grid_scheduler, sampler.keeps_bounds = "flow", "a scheduler", True
    record = find_sampler(sampler)
    assert (record.flow_coordinates, record.grid_scheduler, record.keeps_bounds) == ("flow", "a scheduler", True)


def test_comfyuis_functions_are_written_for_flow_coordinates():
    def sampler(model, x, sigmas):
        return x

    sampler.__module__ = "comfy.k_diffusion.sampling"
    assert find_sampler(sampler).flow_coordinates == "flow"


@pytest.mark.parametrize(
    "name, noise",
    [
        ("sample_dpmpp_sde", "brownian"),
        ("dpmpp_2m_sde_gpu", "brownian"),
        ("sample_dpmpp_3m_sde_gpu", "brownian"),
        ("sample_euler_ancestral", "gaussian"),
        ("sample_heun", "gaussian"),  # churn is drawn otherwise; a function that asks for noise gets some
        ("sample_dpmpp_2m", "gaussian"),
        ("mine", "gaussian"),
    ],
)
def test_a_users_function_gets_the_noise_of_its_namesake(name, noise):
    def sampler(model, x, sigmas, noise_sampler=None):
        return x

    sampler.__name__ = name
    assert find_sampler(sampler).noise == noise
