"""Named sigma grids, against their sources."""

import pytest
import torch
from grid_kinds import FOR_TIMESTEPS, REFUSED, STEPS_OF, SUITED, steps_of
from sdxl_schedulers import SCHEDULES, SDXL
from tiny_models import largest_difference

from k_diffusing.grids.choose import discrete_grid
from k_diffusing.grids.named import SIGMA_GRIDS
from samplers_patch import k_sampling

# Numbers printed by ComfyUI's functions of the same names, n = 8, on SDXL's schedule and on a flow schedule of
# 1000 levels with shift 3.
GOLDEN = {
    "sdxl": {
        "simple": [14.614641, 7.2973518, 4.0817294, 2.4925306, 1.6128862, 1.0689514, 0.69320488, 0.39774564, 0.0],
        "normal": [14.61464, 6.6779995, 3.5220563, 2.0606415, 1.2768321, 0.79125983, 0.43966573, 0.02916716, 0.0],
        "sgm_uniform": [14.61464, 7.3019819, 4.086081, 2.4959669, 1.6155803, 1.0711591, 0.69514954, 0.39970142, 0.0],
        "ddim_uniform": [7.3718443, 4.1166964, 2.5109215, 1.623692, 1.0760311, 0.69839811, 0.40221775, 0.041314412, 0],
        "beta": [14.614641, 10.483473, 5.6865916, 2.9636128, 1.6182789, 0.9198333, 0.51539063, 0.24326976, 0.0],
        "linear_quadratic": [14.614641, 14.523299, 14.431958, 14.340616, 14.249275, 13.29019, 10.595615, 6.1655517, 0],
        "kl_optimal": [14.614633, 3.4934831, 1.8781236, 1.1878667, 0.77703708, 0.48318735, 0.24432784, 0.029167159, 0],
    },
    "flow": {
        "simple": [1.0, 0.95454544, 0.89999998, 0.83333331, 0.75, 0.64285713, 0.5, 0.30000001, 0.0],
        "normal": [1.0, 0.94754249, 0.88278782, 0.80083734, 0.69379306, 0.54804564, 0.33797219, 0.0089285718, 0.0],
        "sgm_uniform": [1.0, 0.95469379, 0.90035903, 0.83399796, 0.7511211, 0.64468634, 0.50298506, 0.30500895, 0.0],
        "ddim_uniform": [0.9553377, 0.90095848, 0.8345164, 0.751497, 0.6448119, 0.5026596, 0.3038278, 0.0059760958, 0],
        "beta": [1.0, 0.9802494, 0.9335348, 0.85952181, 0.75074929, 0.59638554, 0.39217135, 0.15591398, 0.0],
        "linear_quadratic": [1.0, 0.99374998, 0.98750001, 0.98124999, 0.97500002, 0.90937501, 0.72500002, 0.421875, 0],
        "kl_optimal": [1.0, 0.79817343, 0.62953556, 0.48315629, 0.35183662, 0.23049454, 0.11527256, 0.0029940121, 0.0],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", GOLDEN)
@pytest.mark.parametrize("name", GOLDEN["sdxl"])
def test_golden(name, kind):
    # 3e-5: the table of sigmas in float32 differs by 7e-6, and the tangent near pi / 2 multiplies that by 4
    expected = torch.tensor(GOLDEN[kind][name])
    assert largest_difference(SIGMA_GRIDS[name](SCHEDULES[kind], 8), expected) < (3e-5 if kind == "sdxl" else 3e-7)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", ["karras", "exponential", "polyexponential"])
def test_k_diffusions_own(name, kind):
    table = SCHEDULES[kind].sigmas
    expected = getattr(k_sampling, f"get_sigmas_{name}")(12, float(table[0]), float(table[-1]))
    assert torch.equal(SIGMA_GRIDS[name](SCHEDULES[kind], 12), expected)


def test_k_diffusions_vp():
    expected = k_sampling.get_sigmas_vp(12)
    assert torch.equal(SIGMA_GRIDS["vp"](SCHEDULES["sdxl"], 12), expected)
    t = SIGMA_GRIDS["vp"](SCHEDULES["flow"], 12).double()
    # float32's rounding of t near 1, 6e-8, is multiplied by the derivative (1 + sigma)^2 of sigma(t)
    assert ((t / (1 - t) - expected).abs() <= 1.2e-7 * (1 + expected) ** 2).all()


FIRST = {"optimal_steps": 0.9968, "laplace": 0.995}  # flow times


@pytest.mark.parametrize("name, kind", SUITED)
def test_every_grid(name, kind):
    """Strictly decreasing to 0, n + 1 values, from the schedule's largest sigma, for 1 to 60 steps and for 1000.

    Not so: ddim_uniform counts up from the smallest sigmas in whole strides, so that it starts lower and has a few
    steps more or less than n; beta drops doubles, which it has where n nears the number of levels; vp has its own
    range; a published list starts where it does.
    """
    schedule, first = SCHEDULES[kind], FIRST.get(name) if kind == "flow" else None
    # 2e-6: float32 rounding through a logarithm, or through the tangent near pi / 2 (up to 80 times that)
    tolerance = 2e-4 if name == "kl_optimal" and kind == "edm" else 2e-6
    for n in steps_of(name, [*range(1, 61), 1000]):
        sigmas = SIGMA_GRIDS[name](schedule, n)
        assert sigmas.dtype == torch.float32 and sigmas.device.type == "cpu"
        assert sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] == 0
        if name != "ddim_uniform" and not (name in ("beta", "beta57") and n == 1000):
            assert len(sigmas) == n + 1
        if name not in ("ddim_uniform", "vp", "dmd2_sdxl", "ltx2_distilled"):
            assert sigmas[0] == pytest.approx(first or float(schedule.sigmas[-1]), rel=tolerance)


@pytest.mark.parametrize("name, kind", sorted(REFUSED))
def test_a_grid_for_models_of_another_kind(name, kind):
    n = steps_of(name, [8])[0]
    complaint = f"{name} (is for|begins at sigma 700, and this model's largest is 80).*: take "
    with pytest.raises(ValueError, match=complaint):
        SIGMA_GRIDS[name](SCHEDULES[kind], n)


@pytest.mark.parametrize("name", STEPS_OF)
def test_steps_that_a_grid_has_not(name):
    kind, n = "sdxl" if name in FOR_TIMESTEPS else "flow", max(STEPS_OF[name]) + 1
    with pytest.raises(ValueError, match=f"^{name} (has|takes) .*{n}"):
        SIGMA_GRIDS[name](SCHEDULES[kind], n)


@pytest.mark.parametrize("n, count", [(1, 1), (8, 8), (20, 20), (30, 31), (1000, 999)])
def test_ddim_uniforms_count(n, count):
    assert len(SIGMA_GRIDS["ddim_uniform"](SCHEDULES["sdxl"], n)) == count + 1


def test_more_steps_than_levels():
    """Grids made of the model's own levels run out of them: doubles are an error, never passed on."""
    with pytest.raises(ValueError, match="decrease strictly"):
        discrete_grid(SDXL, SCHEDULES["sdxl"], 2000, "simple")


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9])
def test_linear_quadratic_is_linear_and_then_quadratic(n):
    """0.025 of the largest sigma in the first n // 2 steps; after it equal second differences, as far as 0."""
    sigmas = SIGMA_GRIDS["linear_quadratic"](SCHEDULES["flow"], n).double()  # whose largest is 1
    half, falls = n // 2, -sigmas.diff()
    # 2e-7: sigmas in float32, of up to 1
    assert largest_difference(falls[:half], torch.full((half,), 0.025 / half)) < 2e-7
    assert falls[half:].sum() == pytest.approx(0.975, abs=2e-7)
    curvature = falls[half:].diff()
    assert len(curvature) == 0 or float(curvature.max() - curvature.min()) < 5e-7
