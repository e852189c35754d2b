"""Every sampler, through the real pipelines, draws from the distribution that the model knows.

30 steps, 20736 latent elements of a two-Gaussian mixture. W1, the Wasserstein-1 distance to it, is 0.007 for exact
samples of this number (mean over seeds) and 0.5 for their mirror image.
"""

import pytest
import torch

from k_diffusing import arguments
from k_diffusing.oracle.closed_form import OracleTransformer, OracleUNet, draw, oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import MIXTURE, exact_samples, wasserstein
from samplers_patch import SAMPLERS, adds_noise

BOUND = 0.09  # 12 times the floor; the least wrong method below is at 0.117
NEED_SMOOTH_GRID = {name for name, sampler in SAMPLERS.items() if sampler.sigma_grid}


@pytest.fixture(scope="module")
def sdxl():
    return {kind: oracle_sdxl(kind) for kind in ("epsilon", "v_prediction")}


@pytest.fixture(scope="module")
def flux():
    return oracle_flux()


def grid_of(sampler: str) -> str | None:
    """On SDXL: the scheduler's own grid ("leading" spacing), or the one that the sampler is known to need."""
    return SAMPLERS[sampler].sigma_grid


# The judge itself.


def test_exact_samples_are_at_the_floor():
    # Measured over eight seeds: 0.003 to 0.015; seed 0 gives 0.009.
    assert wasserstein(exact_samples(20736)) < 0.01


def test_a_shift_and_a_mirror_image_are_seen():
    samples = exact_samples(20736)
    assert wasserstein(samples + 0.5) == pytest.approx(0.5, abs=0.01)
    assert wasserstein(-samples) > 0.4


@pytest.mark.parametrize("sigma", [0.0, 0.7, 30.0])
def test_quantile_inverts_cdf(sigma):
    p = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    # 1e-12: rounding of float64 in the cdf, 1e-16, times the bracket's slope
    assert (MIXTURE.cdf(MIXTURE.quantile(p, sigma), sigma) - p).abs().max() < 1e-12


@pytest.mark.parametrize("a, b", [(1.0, 0.3), (0.8, 0.6), (0.3, 0.7), (0.0, 1.0)])
def test_posterior_mean_is_the_integral(a, b):
    """Against E[x0 | z] by quadrature over x0, which knows the mixture's density only."""
    x0 = torch.linspace(-4, 4, 40001, dtype=torch.float64)
    density = MIXTURE.cdf(x0 + 1e-4) - MIXTURE.cdf(x0 - 1e-4)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    joint = density * torch.exp(-((z[:, None] - a * x0) ** 2) / (2 * b**2))
    expected = (joint * x0).sum(1) / joint.sum(1)
    found = MIXTURE.posterior_mean(z, torch.tensor(a), torch.tensor(b))
    assert (found - expected).abs().max() < 1e-6  # the box of 2e-4 that stands for the density


def test_oracles_use_only_what_they_are_told():
    """Another timestep, another answer; epsilon and v agree on the clean latents they mean."""
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    eps_net, v_net = OracleUNet("epsilon"), OracleUNet("v_prediction")
    at = torch.tensor([400.0, 401.5])
    sigma = eps_net.sigma(at).reshape(-1, 1, 1, 1)
    eps, v = eps_net(x, at, None)[0], v_net(x, at, None)[0]
    from_eps = (x - sigma * eps / (1 + sigma**2).sqrt()) * (1 + sigma**2).sqrt()
    from_v = (x - sigma * v) / (1 + sigma**2).sqrt()
    assert (from_eps - from_v).abs().max() < 2e-6  # float32 outputs times sqrt(1 + sigma^2) = 1.8
    assert (eps_net(x, at + 1, None)[0] - eps).abs().max() > 1e-3
    times = torch.tensor([0.4, 0.4])
    z = x.reshape(2, 16, 16)
    velocity = OracleTransformer()(z, None, None, times, None, None)[0]
    assert (OracleTransformer()(z, None, None, times + 0.01, None, None)[0] - velocity).abs().max() > 1e-3


# Every sampler is right in both pipelines.


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sdxl(sdxl, sampler, prediction_type):
    samples = draw(sdxl[prediction_type], sampler, sigma_grid=grid_of(sampler))
    assert wasserstein(samples) <= BOUND


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_flux(flux, sampler):
    assert wasserstein(draw(flux, sampler)) <= BOUND


@pytest.mark.parametrize("sampler", sorted(NEED_SMOOTH_GRID))
def test_the_smooth_grid_is_needed(sdxl, sampler, monkeypatch):
    """On the "leading" grid the sampler is wrong, and the pipeline has said so."""
    said = []
    monkeypatch.setattr(arguments.logger, "warning", said.append)
    assert wasserstein(draw(sdxl["epsilon"], sampler)) > 0.2
    assert SAMPLERS[sampler].sigma_grid in said[0]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "euler_ancestral", "lms"])
def test_zero_terminal_snr(sampler):
    """From pure noise (sigma about 4096) on the "trailing" grid, whose first timestep is the last one trained."""
    pipe = oracle_sdxl("v_prediction", zero_terminal_snr=True, timestep_spacing="trailing")
    assert wasserstein(draw(pipe, sampler)) <= BOUND


def test_tighter_tolerances_for_dpm_adaptive_on_zero_terminal_snr():
    """Its error is relative to the state before the step, so that from sigma 4096 the default lets a step jump."""
    pipe = oracle_sdxl("v_prediction", zero_terminal_snr=True, timestep_spacing="trailing")
    assert wasserstein(draw(pipe, "dpm_adaptive", sampler_options={"rtol": 0.01, "atol": 0.002})) <= BOUND


# Options.


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2"])
def test_churn_on_flux_runs_in_ve_coordinates(flux, sampler):
    churn = {"sampler_options": {"s_churn": 10.0}}
    chosen = draw(flux, sampler, **churn)
    assert wasserstein(chosen) <= BOUND
    assert torch.equal(chosen, draw(flux, sampler, flow_coordinates="ve", **churn))
    assert not torch.equal(chosen, draw(flux, sampler, flow_coordinates="ve"))
    with pytest.raises(ValueError, match="s_churn"):
        draw(flux, sampler, flow_coordinates="flow", **churn)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2"])
def test_churn_on_sdxl(sdxl, sampler):
    samples = draw(sdxl["epsilon"], sampler, sampler_options={"s_churn": 10.0})
    assert wasserstein(samples) <= BOUND
    assert not torch.equal(samples, draw(sdxl["epsilon"], sampler))


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde"])
def test_eta(sdxl, flux, sampler, eta):
    options = {"sampler_options": {"eta": eta}}
    assert wasserstein(draw(sdxl["epsilon"], sampler, **options)) <= BOUND
    assert wasserstein(draw(flux, sampler, **options)) <= BOUND


# What is wrong on FLUX, and how wrong.


THROUGH_TO_D = ("euler", "euler_ancestral", "heun", "dpm_2", "dpm_2_ancestral", "lms")


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in THROUGH_TO_D])
def test_velocity_in_place_of_denoised_is_wrong(flux, sampler):
    """The older way, for every sampler that reads `denoised` itself."""
    assert wasserstein(draw(flux, sampler, flow_coordinates="velocity")) > 0.3


@pytest.mark.parametrize("sampler", THROUGH_TO_D)
def test_velocity_is_flow_coordinates_where_only_to_d_is_used(flux, sampler):
    velocity, flow = (draw(flux, sampler, flow_coordinates=name) for name in ("velocity", "flow"))
    assert torch.equal(velocity, flow)


@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if adds_noise(sampler, {})])
def test_noise_for_ve_is_wrong_in_flow_coordinates(flux, sampler):
    """The right denoiser, but noise of a size that (1 - t) x0 + t eps does not ask for."""
    assert wasserstein(draw(flux, sampler, flow_coordinates="flow")) > 0.1


@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if not adds_noise(sampler, {})])
@pytest.mark.parametrize("coordinates", ["flow", "ve"])
def test_without_noise_both_coordinates_are_right(flux, sampler, coordinates):
    assert wasserstein(draw(flux, sampler, flow_coordinates=coordinates)) <= BOUND
