"""Which options a sampler has, and which values they can have."""

import numpy as np
import pytest

from samplers_patch import SAMPLERS, adds_noise, check_options, choose_coordinates, find_sampler, sampler_options


def test_unknown_options_get_the_ones_there_are():
    with pytest.raises(TypeError, match="dpmpp_2m_sde has no option 'etta'.*eta=1.0.*solver_type='midpoint'"):
        check_options(SAMPLERS["dpmpp_2m_sde"], {"etta": 1})
    with pytest.raises(TypeError, match="dpmpp_2m has no option 'eta'; its options: none"):
        check_options(SAMPLERS["dpmpp_2m"], {"eta": 1})
    with pytest.raises(TypeError, match="not an option|no option 'disable'"):
        check_options(SAMPLERS["euler"], {"disable": True})
    with pytest.raises(TypeError, match="dict"):
        check_options(SAMPLERS["euler"], [("s_churn", 1)])
    check_options(SAMPLERS["euler"], None)


NAN, INF = float("nan"), float("inf")
WRONG_VALUES = [
    ("dpmpp_2m_sde", "eta", None, TypeError, "eta=None: give a finite number of at least 0"),
    ("dpmpp_2m_sde", "eta", True, TypeError, "eta=True"),
    ("dpmpp_2m_sde", "eta", "1", TypeError, "eta='1'"),
    ("euler_ancestral", "eta", NAN, ValueError, "euler_ancestral cannot run with eta=nan"),
    ("euler_ancestral", "eta", -1, ValueError, "eta=-1: give a finite number of at least 0"),
    ("euler_ancestral", "eta", INF, ValueError, "eta=inf"),
    ("dpmpp_sde", "s_noise", None, TypeError, "s_noise=None"),
    ("dpmpp_sde", "r", 0, ValueError, "r=0: give a number above 0, of at most 1"),
    ("dpmpp_sde", "noise_sampler", 3, TypeError, "noise_sampler=3: give a function"),
    ("heun", "s_churn", -1.0, ValueError, "s_churn=-1.0"),
    ("heun", "s_tmin", INF, ValueError, "s_tmin=inf"),
    ("heun", "s_tmax", NAN, ValueError, "s_tmax=nan"),
    ("lms", "order", 2.0, TypeError, "order=2.0: give a whole number of at least 1"),
    ("lms", "order", 0, ValueError, "order=0"),
    ("dpm_adaptive", "order", 4, ValueError, "order=4: give 2 or 3"),
    ("dpm_adaptive", "rtol", -0.1, ValueError, "rtol=-0.1"),
    ("dpm_adaptive", "h_init", 0.0, ValueError, "h_init=0.0: give a finite number of at least 1e-5"),
    ("dpm_adaptive", "icoeff", -1, ValueError, "icoeff=-1"),
    ("dpm_adaptive", "accept_safety", 2, ValueError, "accept_safety=2: give a number from 0 to 1"),
    ("dpmpp_2m_sde", "solver_type", "euler", ValueError, "solver_type='euler': give 'midpoint' or 'heun'"),
]


@pytest.mark.parametrize("name, option, value, error, message", WRONG_VALUES)
def test_values_that_an_option_cannot_have(name, option, value, error, message):
    with pytest.raises(error, match=message):
        check_options(SAMPLERS[name], {option: value})


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_option_has_a_rule_which_its_default_keeps(name):
    check_options(SAMPLERS[name], sampler_options(SAMPLERS[name]))


def test_values_of_other_kinds_of_numbers():
    check_options(SAMPLERS["heun"], {"s_churn": 1, "s_noise": np.float32(1), "s_tmax": INF})
    check_options(SAMPLERS["lms"], {"order": np.int64(2)})
    check_options(find_sampler(lambda model, x, sigmas, eta=None: x), {"eta": -1})  # a user's own, whatever it means


def test_a_function_that_takes_anything_may_be_given_anything():
    check_options(find_sampler(lambda model, x, sigmas, **rest: x), {"etta": 1})
    with pytest.raises(TypeError, match=r"<lambda> has no option 'etta'; its options: eta=1.0, order=2$"):
        check_options(find_sampler(lambda model, x, sigmas, eta=1.0, order=2, *rest: x), {"etta": 1})


@pytest.mark.parametrize(
    "name, options, adds",
    [
        ("euler", None, False),
        ("euler", {"s_churn": 2.0}, True),
        ("euler", {"s_noise": 2.0}, False),
        ("lms", {"order": 2}, False),
        ("euler_ancestral", None, True),
        ("euler_ancestral", {"eta": 0.0}, False),
        ("dpm_fast", None, False),
        ("dpm_fast", {"eta": 1.0}, True),
        ("dpmpp_2m", None, False),
        ("dpmpp_2m_sde", {"eta": 0, "s_noise": 1.0}, False),
        (lambda model, x, sigmas, eta=0.0: x, None, True),  # it is not known what its eta is
    ],
)
def test_whether_a_sampler_adds_noise(name, options, adds):
    assert adds_noise(find_sampler(name), options) is adds


def in_flow(model, x, sigmas):
    return x


in_flow.flow_coordinates = "flow"


@pytest.mark.parametrize(
    "choice, name, options, coordinates",
    [
        ("auto", "euler", None, "flow"),  # uses the model as the derivative alone, and adds nothing
        ("auto", "euler", {"s_churn": 0.0}, "flow"),
        ("auto", "euler", {"s_churn": 1.0}, "ve"),
        ("auto", "euler_ancestral", None, "ve"),
        ("auto", "euler_ancestral", {"eta": 0.0}, "flow"),
        ("auto", "dpmpp_2m", None, "ve"),
        ("auto", in_flow, None, "flow"),
        ("ve", "euler", None, "ve"),
        ("ve", "euler", {"s_churn": 1.0}, "ve"),
        ("flow", "dpmpp_2m", None, "flow"),
        ("flow", "euler", {"s_churn": 0.0, "s_noise": 1.0}, "flow"),
        ("velocity", "heun", None, "velocity"),
    ],
)
def test_what_auto_means(choice, name, options, coordinates):
    assert choose_coordinates(choice, find_sampler(name), options) == coordinates


def test_coordinates_that_cannot_be():
    with pytest.raises(
        ValueError, match="^in_flow integrates flow matching, .* choose flow_coordinates='auto' or 'flow'$"
    ):
        choose_coordinates("ve", find_sampler(in_flow), None)
    with pytest.raises(ValueError, match="^unknown flow_coordinates 'VE': choose one of auto, flow, ve, velocity$"):
        choose_coordinates("VE", SAMPLERS["euler"], None)
    with pytest.raises(ValueError, match="^s_churn adds noise for x0 .* flow coordinates are not: use 'auto' or 've'$"):
        choose_coordinates("flow", SAMPLERS["euler"], {"s_churn": 1.0})
