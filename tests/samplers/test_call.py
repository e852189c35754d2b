"""A sampler run by `run_sampler`: k_diffusion's results, the noise of the call's generators, its steps."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, generators, sample, start

from k_diffusing._k_diffusion import k_sampling
from samplers_patch import SAMPLERS, check_options, run_sampler, sampler_options, step_noise


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].takes == "sigmas"])
def test_deterministic_results_equal_k_diffusions(name):
    """The bindings change nothing: the same floats as the plain function, where no noise is drawn."""
    options = {"eta": 0.0} if "eta" in sampler_options(SAMPLERS[name]) else {}
    expected = SAMPLERS[name].function(denoiser, start(), SIGMAS, disable=True, **options)
    assert torch.equal(sample(name, **options), expected)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].noise == "gaussian"])
def test_stochastic_results_equal_k_diffusions_on_the_same_noise(name):
    record = SAMPLERS[name]
    noise = step_noise(start(), SIGMAS, torch.Generator().manual_seed(4))
    options = {"eta": 1.0, "noise_sampler": noise}
    if record.takes == "sigmas":
        expected = record.function(denoiser, start(), SIGMAS, disable=True, **options)
    else:
        low, high = float(SIGMAS[-2]), float(SIGMAS[0])
        n = [len(SIGMAS) - 2] if name == "dpm_fast" else []
        expected = record.function(denoiser, start(), low, high, *n, disable=True, **options)
        expected = denoiser(expected, torch.full((2,), low))
    result = sample(name, generator=torch.Generator().manual_seed(4), eta=1.0)
    assert (result - expected).abs().max() < 1e-6  # the last step to 0 by x - sigma d in place of denoised


NOISY = [(name, {}) for name in SAMPLERS if SAMPLERS[name].stochastic]
NOISY += [(name, {"s_churn": 4.0}) for name in ("euler", "heun", "dpm_2")]
NOISY += [(name, {"eta": 1.0}) for name in ("dpm_fast", "dpm_adaptive")]


@pytest.mark.parametrize("name, options", NOISY)
def test_all_noise_comes_from_the_generator(name, options):
    before = torch.random.get_rng_state()
    one, again = (sample(name, generator=generators(1, 2), **options) for _ in range(2))
    single = [sample(name, generator=torch.Generator().manual_seed(1), **options) for _ in range(2)]
    other = sample(name, generator=generators(3, 4), **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one, again) and torch.equal(*single)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name, options", [(n, o) for n, o in NOISY if n != "dpm_adaptive"])
def test_an_image_does_not_depend_on_its_batch(name, options):
    batch = sample(name, generator=generators(1, 2), **options)
    alone = sample(name, x=start()[1:], generator=generators(2), **options)
    assert (batch[1:] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_is_drawn_that_is_not_used(name):
    """No sampler touches the global generator, nor the call's own where it adds no noise."""
    before, generator = torch.random.get_rng_state(), torch.Generator().manual_seed(1)
    options = {"eta": 0.0} if "eta" in sampler_options(SAMPLERS[name]) else {}
    sample(name, generator=generator, **options)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(1).get_state())


def test_brownian_increments_are_those_of_one_path():
    """dpmpp_sde asks for overlapping intervals: W(a, c) = W(a, b) + W(b, c), variances are 1 after scaling."""
    x = torch.zeros(1, 4, 64, 64)
    noise = step_noise(x, SIGMAS, torch.Generator().manual_seed(0), "brownian")
    a, b, c = SIGMAS[1], SIGMAS[2], SIGMAS[3]
    whole = noise(a, c) * (a - c).sqrt()
    parts = noise(a, b) * (a - b).sqrt() + noise(b, c) * (b - c).sqrt()
    assert (whole - parts).abs().max() < 1e-4  # float32 sums of increments of size 2
    assert abs(float(noise(a, b).std()) - 1) < 0.02 and abs(float(noise(a, c).mean())) < 0.03


def test_rejected_attempts_are_no_steps():
    """dpm_adaptive tells how many steps it accepted; the one to sigma 0 is ours."""
    options, steps = {"h_init": 3.0, "rtol": 0.002}, []
    observer = SimpleNamespace(begin_step=lambda index, x, sigma: steps.append((index, float(sigma))))
    low, high = float(SIGMAS[-2]), float(SIGMAS[0])
    _, info = k_sampling.sample_dpm_adaptive(denoiser, start(), low, high, disable=True, return_info=True, **options)
    run_sampler(SAMPLERS["dpm_adaptive"], denoiser, start(), SIGMAS, options=options, observer=observer)
    assert info["n_reject"] > 1 and len(steps) == info["n_accept"] + 1
    assert [index for index, _ in steps] == list(range(len(steps)))
    assert all(a > b for (_, a), (_, b) in itertools.pairwise(steps))


def test_callables_with_fewer_or_more_parameters_fit():
    def plain(model, x, sigmas):
        return model(x, sigmas[0] * x.new_ones([len(x)]))

    def ranged(model, x, sigma_min, sigma_max, extra_args=None, callback=None, disable=None):
        return x * 0 + sigma_min

    def noisy(model, x, sigmas, *, noise_sampler=None, gain=1.0, **rest):
        return noise_sampler(sigmas[0], sigmas[1]) * gain

    assert torch.equal(sample(plain), denoiser(start(), SIGMAS[:1].expand(2)))
    assert (sample(ranged) - float(SIGMAS[-2]) / (1 + float(SIGMAS[-2]) ** 2)).abs().max() < 1e-6
    x = sample(noisy, generator=torch.Generator().manual_seed(2), gain=2.0, anything=1)
    assert torch.equal(x, 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))


def test_dpm_adaptive_does_not_reject_for_ever():
    options = {"rtol": 0, "atol": 0}  # each allowed, and together such that no error is small enough
    check_options(SAMPLERS["dpm_adaptive"], options)
    with pytest.raises(RuntimeError, match=r"rejected 100 attempts in a row at its step from sigma 14.6.*raise.*rtol"):
        sample("dpm_adaptive", **options)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_no_device_sync_and_no_mixing_of_devices(name):
    """On the meta device, as on a GPU: reading a tensor's value, or mixing in a CPU tensor that is not 0-dim, raises.

    The Brownian tree draws from a generator of the device, so the noise is given here. dpm_adaptive must read its
    error.
    """
    x = torch.empty(2, 4, 8, 8, device="meta")
    options = {}
    if "noise_sampler" in sampler_options(SAMPLERS[name]):
        options["noise_sampler"] = lambda sigma, sigma_next: torch.empty_like(x)
    result = run_sampler(SAMPLERS[name], denoiser, x, SIGMAS, options=options)
    assert result.device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        float(result.sum())
    with pytest.raises(RuntimeError, match="device"):
        result + torch.ones(1, 1, 1, 1)
