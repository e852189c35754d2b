"""Sigma grids as users give them: options, lists, files; and what cannot be."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from sdxl_schedulers import FLOW, SCHEDULES, SDXL

from k_diffusing.grids.given import given_grid, plain_grid
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.planning import discrete_plan, flow_plan
from k_diffusing.programs.a1111 import a1111

SIGMAS = [9.0, 2.5, 0.5, 0.0]
TIMES = [1.0, 0.75, 0.25, 0.0]
OPTIONS = [
    ("karras", {"rho": 5}),
    ("karras", {"sigma_min": 0.1, "sigma_max": 10}),
    ("exponential", {"sigma_max": 20.0}),
    ("polyexponential", {"rho": 1.5}),
    ("vp", {"beta_d": 15.0}),
    ("beta", {"a": 0.5, "b": 0.7}),
    ("kl_optimal", {"c": 0.5}),
    ("laplace", {"mu": -0.5, "beta": 0.7}),
    ("linear_quadratic", {"threshold": 0.1}),
    ("lcm_timesteps", {"original_steps": 100}),
    ("align_your_steps", {"model": "sd15"}),
]


def plan(grid, sampler="euler", **more):
    return discrete_plan(SDXL, sampler, None, grid, 8, **more)


def times(grid, **more):
    return flow_plan(FLOW, "euler", None, grid, 8, **more).sigmas


@pytest.mark.parametrize("name, options", OPTIONS)
def test_options(name, options):
    """As a dict, and as a text; they are those of the grid's function, and they matter."""
    expected = SIGMA_GRIDS[name](SCHEDULES["sdxl"], 8, **options)
    text = ",".join([name, *(f"{option}={value}" for option, value in options.items())])
    for given in ({name: options}, {name.upper(): options}, text, text.replace(",", ", ")):
        assert torch.equal(plan(given).sigmas, expected)
    assert not torch.equal(expected, plan(name).sigmas)


@pytest.mark.parametrize("name", SIGMA_GRIDS)
def test_a_name_without_options_is_the_name(name):
    assert given_grid({name: {}}) == given_grid(name) == name


def test_the_ends_of_a_range():
    for name in ("karras", "exponential", "polyexponential", "kl_optimal", "laplace"):
        sigmas = plan({name: {"sigma_min": 0.1, "sigma_max": 5}}).sigmas
        # 2e-6: float32 through a power, a logarithm or a tangent
        assert [float(sigmas[0]), float(sigmas[-2])] == pytest.approx([5, 0.1], rel=2e-6)


def test_options_in_flow_time():
    assert times({"karras": {"sigma_max": 0.9}})[0] == pytest.approx(0.9)
    assert times({"optimal_steps": {"model": "wan"}})[1] == pytest.approx(0.9935, abs=1e-3)
    with pytest.raises(ValueError, match="^sigma_max=2: the sigmas of a flow model are times, between 0 and 1$"):
        times({"karras": {"sigma_max": 2}})


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_a_list(kind):
    """As it is, whatever the number of steps; on flow models it is not shifted again."""
    assert plan(kind(SIGMAS)).sigmas.tolist() == SIGMAS
    assert times(kind(TIMES)).tolist() == TIMES
    assert plan(kind([9.0, 1.0])).sigmas.tolist() == [9.0, 1.0]


def test_a_list_is_left_whole_by_every_program():
    for program in ("comfyui", "a1111", a1111(discard_penultimate=True)):
        assert plan(SIGMAS, "dpm_2", program=program).sigmas.tolist() == SIGMAS
    dynamic = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert flow_plan(dynamic, "euler", None, TIMES, 8, size_mu=1.1, program="comfyui").sigmas.tolist() == TIMES


def test_a_file(tmp_path):
    """A later version may have more keys."""
    path = tmp_path / "tuned.JSON"
    path.write_text(json.dumps({"sigmas": SIGMAS, "model": {"fingerprint": "abc"}, "errors": [0.1]}))
    for given in (str(path), Path(path)):
        assert plan(given).sigmas.tolist() == SIGMAS


BAD_FILES = {
    "{": "cannot be read",
    "[1, 0]": 'has no "sigmas"',
    '{"sigma": [1, 0]}': 'has no "sigmas": give a file such as',
    '{"sigmas": [0, 1]}': r"sigmas must decrease strictly, but .*sigmas\[0\] = 0 is followed by 1",
    '{"sigmas": "karras"}': "sigmas must be a list of numbers, 2 at least, got 'karras'",
    '{"sigmas": [1, NaN]}': r"sigmas\[1\] is nan",
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_bad_files(tmp_path, content):
    (path := tmp_path / "grid.json").write_text(content)
    with pytest.raises(ValueError, match=f"grid.json'?:? {BAD_FILES[content]}"):
        plan(str(path))
    with pytest.raises(ValueError, match="no_file.json' cannot be read .*No such file"):
        plan(str(tmp_path / "no_file.json"))


BAD = [
    ({"karras": {"roh": 5}}, "'karras': unknown option 'roh': did you mean 'rho'.*: rho, sigma_min, sigma_max$"),
    ({"simple": {"rho": 5}}, "^sigma_grid 'simple': unknown option 'rho': it takes none, so give the name alone$"),
    ({"dmd2_sdxl": {"name": 5}}, "'dmd2_sdxl': unknown option 'name': it takes none"),
    ({"karras": {"rho": 0}}, "^sigma_grid 'karras': rho=0 must be a number above 0$"),
    ({"karras": {"rho": True}}, "rho=True must be"),
    ({"karras": {"rho": "7"}}, "rho='7' must be"),
    ({"karras": {"sigma_max": float("inf")}}, "sigma_max=inf must be"),
    ({"karras": {"sigma_min": 20}}, "sigma_min=20 is not below sigma_max=14.6146: swap them"),
    ({"beta": {"a": -1}}, "a=-1 must be a number above 0"),
    ({"bong_tangent": {"pivot": 1}}, "pivot=1 must be a number above 0 and below 1"),
    ({"laplace": {"mu": None}}, "mu=None must be a number"),
    ({"lcm_timesteps": {"original_steps": 2.5}}, "original_steps=2.5 must be an integer of at least 1"),
    ({"align_your_steps": {"model": "flux"}}, "no table of model='flux': choose one of sdxl, sd15, svd"),
    ({"optimal_steps": {"model": 1}}, "optimal_steps is for flow models"),
    ({"karas": {"rho": 5}}, "unknown sigma_grid 'karas': did you mean 'karras'"),
    ({"automatic": {"rho": 5}}, "'automatic' is another grid for each sampler: name one"),
    ({"karras": {}, "beta": {}}, "give one name with its options"),
    ({}, "give one name with its options"),
    ("karras,rho", "'karras,rho': 'rho' is not option=value, as in karras,rho=5"),
    ([5.0], "sigma_grid must be a list of numbers, 2 at least"),
    ([1.0, 2.0, 0.0], r"sigma_grid must decrease strictly, but sigma_grid\[0\] = 1 is followed by 2"),
    (["a", "b"], "sigma_grid must be a list of numbers"),
    (5, "unknown sigma_grid 5"),
]  # fmt: skip


@pytest.mark.parametrize("given, complaint", BAD)
def test_what_cannot_be(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan(given)


def test_options_that_are_none():
    with pytest.raises(TypeError, match=r"^sigma_grid=\{'karras': 5\}: options are a dict, such as \{'rho': 5\}$"):
        plan({"karras": 5})


def test_a_list_and_another_choice():
    with pytest.raises(
        ValueError, match=r"^sigmas and sigma_grid=\[9.0, 2.5, 0.5, 0.0\] each set the sigmas: choose one$"
    ):
        plan(SIGMAS, sigmas=[1.0, 0.0])
    with pytest.raises(ValueError, match="dpm_fast chooses its own steps .* so sigma_grid= cannot be kept"):
        plan(SIGMAS, "dpm_fast")
    with pytest.raises(ValueError, match=r"^the sigma grid begins at 9: .* times, between 0 and 1$"):
        times(SIGMAS)


def test_a_programs_own_settings():
    """Under another program a name is that program's, whose function has what options it has."""
    with pytest.raises(ValueError, match="'karras': unknown option 'rho': it takes none"):
        plan({"karras": {"rho": 5}}, program="a1111")
    assert (
        torch.equal(plan({"karras": {"rho": 5}}, program="comfyui").sigmas, plan({"karras": {"rho": 5}}).sigmas)
        is False
    )


def test_what_json_holds_of_them():
    deviation = {"kl_optimal": {"c": np.float32(0.5)}}
    assert json.dumps(plain_grid(given_grid(deviation))) == '{"kl_optimal": {"c": 0.5}}'
    for given in ("karras", {"karras": {"rho": 5}}, SIGMAS, None):
        assert plain_grid(given_grid(given)) == given == json.loads(json.dumps(given))


def test_guidance_by_step_counts_the_steps_of_a_list():
    assert len(plan(SIGMAS, guidance=[5.0, 4.0, 3.0]).sigmas) == 4
    with pytest.raises(ValueError, match="3"):
        plan(SIGMAS, guidance=[5.0] * 8)
