"""The sigma grids that are nodes of ComfyUI, by the numbers that version 0.29.0's nodes give for 5 steps."""

import diffusers
import pytest
import torch
from tiny_models import SDXL_SCHEDULE

from k_diffusing.planning import discrete_plan, flow_plan

SDXL = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE)
FLUX = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
NODES = [
    ("KarrasScheduler", {}, [14.6146431, 4.79654121, 1.27410495, 0.247951493, 0.0291674994, 0]),
    (
        "KarrasScheduler",
        {"sigma_max": 10.0, "sigma_min": 0.1, "rho": 3.0},
        [10, 5.19448757, 2.24447274, 0.697221875, 0.100000009, 0],
    ),
    ("ExponentialScheduler", {}, [14.6146431, 3.08898616, 0.652895629, 0.137997597, 0.0291675013, 0]),
    ("PolyexponentialScheduler", {"rho": 2.0}, [14.6146402, 0.962912321, 0.137997568, 0.043017216, 0.0291675013, 0]),
    ("LaplaceScheduler", {}, [14.6146421, 1.41419935, 1, 0.707113862, 0.0291674994]),
    ("LaplaceScheduler", {"mu": 1.0, "beta": 0.25}, [14.6146421, 3.232584, 2.71828175, 2.28580499, 0.152860239]),
    ("VPScheduler", {}, [152.166977, 17.0491199, 3.42224503, 0.957526505, 0.0104859937, 0]),
    (
        "BetaSamplingScheduler",
        {"alpha": 0.5, "beta": 0.7},
        [14.6146412, 4.88447571, 1.61288619, 0.664998531, 0.255572736, 0],
    ),
    ("SDTurboScheduler", {"denoise": 0.5}, [1.61288619, 1.16057837, 0.829859555, 0.569284916, 0.341673851, 0]),
    ("SDTurboScheduler", {}, [14.6146402, 8.30280304, 5.08776331, 3.32108307, 2.27646303, 0]),
    ("AlignYourStepsScheduler", {}, [14.6146412, 3.86367464, 1.88419211, 0.964258373, 0.397745639, 0]),
    (
        "AlignYourStepsScheduler",
        {"model_type": "SDXL", "denoise": 0.6},
        [1.34052444, 0.555069327, 0.233236417, 0],
    ),
    (
        "AlignYourStepsScheduler",
        {"model_type": "SVD"},
        [700, 15.8859997, 4.24800014, 0.981000006, 0.172999993, 0],
    ),
]
FLOW_NODES = [
    ("OptimalStepsScheduler", {}, [0.996800005, 0.981899977, 0.966000021, 0.915799975, 0.551199973, 0]),
    ("OptimalStepsScheduler", {"model_type": "Wan", "denoise": 0.6}, [0.980000019, 0.959999979, 0.864000022, 0]),
    (
        "OptimalStepsScheduler",
        {"model_type": "Chroma"},
        [0.991999984, 0.961000025, 0.832000017, 0.500999987, 0.169, 0],
    ),
]


def plan(grid, sampler="euler"):
    return discrete_plan(SDXL, sampler, None, grid, 5, program="comfyui").sigmas


@pytest.mark.parametrize("name, inputs, expected", NODES)
def test_nodes(name, inputs, expected):
    """Whole, also for a sampler of which the KSampler drops a sigma."""
    for sampler in ("euler", "dpm_2"):
        # 1e-6: exp, powers and arctangents of another CPU, and SDXL's table of levels in float32
        assert plan({name: inputs}, sampler).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name, inputs, expected", FLOW_NODES)
def test_flow_nodes(name, inputs, expected):
    sigmas = flow_plan(FLUX, "euler", None, {name: inputs}, 5, size_mu=0.8, program="comfyui").sigmas
    assert sigmas.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_nodes_name_is_its_grid_under_the_program_alone():
    """Elsewhere it is a name of ours, over the model's own range and with a last step to 0."""
    assert torch.equal(plan("Karras Scheduler"), plan({"KarrasScheduler": {}}))
    assert torch.equal(plan("laplace"), plan("LaplaceScheduler")) and plan("laplace")[-1] > 0
    assert discrete_plan(SDXL, "euler", None, "LaplaceScheduler", 5).sigmas[-1] == 0


def test_what_is_no_grid_for_the_model():
    with pytest.raises(ValueError, match="begins at 14.6146: the sigmas of a flow model are times"):
        flow_plan(FLUX, "euler", None, "KarrasScheduler", 5, size_mu=0.8, program="comfyui")
    with pytest.raises(ValueError, match="model_type='FLUX': choose one of SD1, SDXL, SVD"):
        plan({"AlignYourStepsScheduler": {"model_type": "FLUX"}})
