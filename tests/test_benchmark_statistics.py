"""The statistics of errors, what the runs of a model share, and what samplers tend to."""

import pytest
import torch

from benchmarks import convergence
from benchmarks.demos import SEED
from benchmarks.errors import fitted_slope, geometric_mean, patches, relative_rms, sliced_distance
from benchmarks.intervals import wilson
from k_diffusing.grids.named import karras
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl, training_sigmas
from k_diffusing.oracle.mixture import MIXTURE
from k_diffusing.render.checks import solver_of
from samplers_patch import SAMPLERS


def test_fitted_slope_is_that_of_a_power_law_above_the_floor():
    points = [(n, 5.0 * n**-2.0) for n in (6, 20, 40, 80)]
    assert fitted_slope(points, 1e-6) == pytest.approx(2)
    below = [*points, (160, 1e-4), (320, 1e-4)]
    assert fitted_slope(below, 1e-4) == pytest.approx(2)
    assert fitted_slope([(6, 1.0), (10, 0.5), (20, 0.1)], 1e-6) is None


def test_relative_rms_is_of_each_image():
    reference = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert relative_rms(reference * 1.1, reference) == pytest.approx([0.1, 0.1])
    assert relative_rms(torch.zeros(2, 2), reference) == pytest.approx([1, 1])
    assert geometric_mean([0.1, 10.0]) == pytest.approx(1)


def test_sliced_distance_of_a_shift():
    """Along a direction u a shift by s moves everything by |u s|; 0.203 |s| on average."""
    vectors = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert sliced_distance(vectors, vectors) == 0
    shifted = vectors + 2.0 * torch.eye(16, dtype=torch.float64)[0]
    assert sliced_distance(vectors, shifted) == pytest.approx(2.0 * 0.203, rel=0.2)


def test_patches_are_2x2_of_four_channels():
    latents = torch.arange(2 * 4 * 4 * 4.0).reshape(2, 4, 4, 4)
    found = patches(latents)
    assert found.shape == (2 * 4, 16)
    assert set(found[0].tolist()) == set(latents[0, :, :2, :2].flatten().tolist())
    tokens = torch.randn(2, 64, 16)
    assert torch.equal(patches(tokens), tokens.reshape(-1, 16).double())


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if not sampler.adaptive])
@pytest.mark.parametrize("budget", [6, 24])
def test_steps_within_a_budget(name, budget):
    steps = solver_of(SAMPLERS[name]).steps_within(budget)
    each = 1 if SAMPLERS[name].takes == "sigma_range" else SAMPLERS[name].nfe_per_step
    assert each * (steps - 1) + 1 <= budget < each * steps + 1


def test_the_grids_of_a_model_share_their_ends():
    flow, discrete = flow_schedule(oracle_flux().scheduler, 1.15), noise_schedule(oracle_sdxl().scheduler)
    for grid, schedule in ((convergence.flow_karras, flow), (karras, discrete)):
        ends = torch.stack([grid(schedule, n)[[0, -2, -1]] for n in (5, 50, 500)])
        assert torch.allclose(ends, ends[:1].expand(3, 3), rtol=1e-5) and (ends[:, -1] == 0).all()


def test_the_limit_is_the_exact_solution_and_its_last_euler_step():
    """The ODE moves every point along with its quantile. lms has another last step, so another and nearer limit."""
    pipe, side = oracle_sdxl(), 8
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(SEED)).double()
    low, high = (float(training_sigmas()[i]) for i in (0, -1))
    p = MIXTURE.cdf(noise * (high**2 + 1) ** 0.5, high)
    limit = MIXTURE.posterior_mean(MIXTURE.quantile(p, low), torch.ones(()), torch.tensor(low))
    call = {"seed": SEED, "side": side, "sigma_grid": "karras"}
    found = {name: draw(pipe, name, 200, **call).double() for name in ("dpmpp_2m", "lms")}
    exact = MIXTURE.quantile(p)
    errors = {name: relative_rms(x, limit)[0] for name, x in found.items()}
    assert errors["dpmpp_2m"] < 5e-4 and errors["lms"] == pytest.approx(0.0019, rel=0.3)
    assert relative_rms(found["lms"], exact)[0] < 5e-4
    assert relative_rms(limit, exact)[0] == pytest.approx(0.0019, rel=0.3)


def test_an_interval_of_a_share():
    """Of no hits, all hits, and as the score of the demo models has it."""
    from score import wilson as of_the_score

    assert wilson(0, 64) == pytest.approx((0, 0.0566), abs=1e-4) and wilson(64, 64)[1] == 1
    assert all(wilson(n, 64) == pytest.approx(of_the_score(n, 64), abs=1e-12) for n in range(65))


def test_limits_are_those_of_the_package():
    """Which the pages are filled without, as it imports torch."""
    from benchmarks import comfyui_samplers, parity
    from k_diffusing.oracle.judge import RIGHT
    from k_diffusing.trace.difference import TOLERANCE

    assert parity.TOLERANCE == TOLERANCE and comfyui_samplers.RIGHT == RIGHT
