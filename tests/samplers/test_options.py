"""Which options a sampler has, and which values they can have."""

import numpy as np
import pytest

from samplers_patch import SAMPLERS, check_options, find_sampler, sampler_options


def test_unknown_options_get_the_ones_there_are():
    with pytest.raises(TypeError, match="dpmpp_2m_sde has no option 'etta'.*eta=1.0.*solver_type='midpoint'"):
        check_options(SAMPLERS["dpmpp_2m_sde"], {"etta": 1})
    with pytest.raises(TypeError, match="dpmpp_2m has no option 'eta'; its options: none"):
        check_options(SAMPLERS["dpmpp_2m"], {"eta": 1})
    with pytest.raises(TypeError, match="not an option|no option 'disable'"):
        check_options(SAMPLERS["euler"], {"disable": True})
    with pytest.raises(TypeError, match="dict"):
        check_options(SAMPLERS["euler"], [("s_churn", 1)])


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
