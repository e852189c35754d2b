"""A sampler run by `run_sampler`: k_diffusion's results, the noise of the call's generators, its steps."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, generators, sample, start

from k_diffusing.noise.interval import Interval
from samplers_patch import SAMPLERS, check_options, find_sampler, k_sampling, run_sampler, sampler_options, step_noise


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


@pytest.mark.parametrize("options, rejects", [({"h_init": 3.0, "rtol": 0.002}, True), ({"h_init": 0.01}, False)])
def test_rejected_attempts_are_no_steps(options, rejects):
    """dpm_adaptive tells how many steps it accepted; the one to sigma 0 is ours."""
    steps = []
    observer = SimpleNamespace(begin_step=lambda index, x, sigma: steps.append((index, float(sigma))))
    low, high = float(SIGMAS[-2]), float(SIGMAS[0])
    _, info = k_sampling.sample_dpm_adaptive(denoiser, start(), low, high, disable=True, return_info=True, **options)
    run_sampler(SAMPLERS["dpm_adaptive"], denoiser, start(), SIGMAS, options=options, observer=observer)
    assert (info["n_reject"] > 1) == rejects and len(steps) == info["n_accept"] + 1
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
    with pytest.raises(
        RuntimeError, match=r"rejected 100 attempts in a row at its step from sigma 14.6.*raise.*rtol"
    ) as e:
        sample("dpm_adaptive", **options)
    cures = "raise its options rtol or atol, lower accept_safety, or take a sampler with fixed steps"
    assert str(e.value).endswith(f"14.6, and would go on: {cures}")


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


def half_derivative(x, sigma, denoised):
    return (x - denoised) / sigma / 2


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive", "dpmpp_2m_sde"])
def test_a_single_step_to_zero_by_another_derivative(name):
    x, sigmas = start(), torch.tensor([float(SIGMAS[0]), 0.0])
    result = run_sampler(SAMPLERS[name], denoiser, x, sigmas, derivative=half_derivative)
    # 1e-5: float32, x of up to 60
    assert (result - (x + denoiser(x, sigmas[:1].expand(2))) / 2).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_the_last_step_of_a_range_is_eulers(name):
    """On a grid that ends above 0 there is none."""
    stopped = run_sampler(SAMPLERS[name], denoiser, start(), SIGMAS[:-1])
    expected = stopped - (stopped - denoiser(stopped, SIGMAS[-2:-1].expand(2))) / 2
    result = run_sampler(SAMPLERS[name], denoiser, start(), SIGMAS, derivative=half_derivative)
    assert (result - expected).abs().max() < 1e-6  # float32, at sigma 0.03


def test_a_grid_of_one_level_has_no_step():
    x = start()
    for sampler in (*SAMPLERS.values(), find_sampler(lambda model, x, sigmas: 1 / 0)):
        assert run_sampler(sampler, denoiser, x, SIGMAS[:1]) is x


@pytest.mark.parametrize("name", [*SAMPLERS, "custom"])
def test_a_maker_of_noise_is_asked_once_for_the_samplers_kind(name):
    asked, drawn = [], []

    def make(x, sigmas, kind):
        def noise_sampler(sigma, sigma_next):
            drawn.append((sigma, sigma_next))
            return torch.ones_like(x)

        asked.append((x.shape, sigmas, kind))
        return noise_sampler

    def custom(model, x, sigmas, noise_sampler=None):
        return x + noise_sampler(sigmas[0], sigmas[1]) + 0 * model(x, sigmas[0])

    sampler = find_sampler(custom if name == "custom" else name)
    options = {"s_churn": 4.0} if sampler.noise == "churn" else {}
    options |= {"eta": 1.0} if "eta" in sampler_options(sampler) else {}
    result = run_sampler(sampler, denoiser, start(), SIGMAS, options=options, noise=make)
    kinds = {"custom": ["gaussian", "gaussian"]}.get(name, [] if sampler.noise is None else [sampler.noise])
    assert [kind for *_, kind in asked] == kinds
    assert all(shape == result.shape and sigmas is SIGMAS for shape, sigmas, _ in asked)
    assert bool(drawn) == bool(kinds)


class Ones:
    """A noise_sampler of the user's."""

    def __init__(self):
        self.asked = []

    def __call__(self, sigma, sigma_next):
        self.asked.append((float(sigma), float(sigma_next)))
        return 1.0


def takes_noise(model, x, sigmas, noise_sampler=None):
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = x - model(x, sigma) * 0 + noise_sampler(sigma, sigma_next)
    return x


@pytest.mark.parametrize("name", ["euler_ancestral", takes_noise])
def test_a_users_noise_sampler_is_asked_for_each_step(name):
    ones, watched = Ones(), []

    def watch(draw):
        def watching(interval):
            watched.append(interval)
            return draw(interval) * 2

        return watching

    options = {"noise_sampler": ones}
    once = run_sampler(find_sampler(name), denoiser, start(), SIGMAS, options=options, generator=generators(1, 2))
    assert ones.asked[0] == (float(SIGMAS[0]), float(SIGMAS[1])) and len(ones.asked) >= len(SIGMAS) - 2
    twice = run_sampler(find_sampler(name), denoiser, start(), SIGMAS, options=options, watch_noise=watch)
    assert not torch.equal(once, twice) and len(watched) == len(ones.asked) / 2
    assert (float(watched[0].sigma), float(watched[0].sigma_next), watched[0].churn) == (*ones.asked[0], False)
    assert options == {"noise_sampler": ones}


def test_churn_is_watched_as_churn():
    watched = []
    watch = lambda draw: lambda interval: watched.append(interval) or draw(interval)  # noqa: E731
    options = {"s_churn": 4.0}
    plain = sample("heun", generator=generators(1, 2), **options)
    result = run_sampler(
        SAMPLERS["heun"], denoiser, start(), SIGMAS, options=options, generator=generators(1, 2), watch_noise=watch
    )
    assert torch.equal(plain, result)
    assert watched == [Interval.of_churn(sigma) for sigma in SIGMAS[:-1]]


def test_what_a_users_function_is_given():
    given = {}

    def named(model, x, sigmas, extra_args=3, callback=3, disable=3, gain=1.0):
        given["named"] = (extra_args, callable(callback), disable, gain)
        return x

    def positional(model, x, sigmas, gain=1.0):
        given["positional"] = gain
        return x

    def swallowing(model, x, sigmas, **rest):
        given["swallowing"] = {**rest, "callback": callable(rest["callback"])}
        return x

    def ranged(model, x, sigma_min, sigma_max, n, gain=1.0):
        given["ranged"] = (sigma_min, sigma_max, n, gain)
        return x

    for function in (named, positional, swallowing, ranged):
        run_sampler(find_sampler(function), denoiser, start(), SIGMAS, options={"gain": 2.0})
    assert given["named"] == ({}, True, True, 2.0) and given["positional"] == 2.0
    assert given["swallowing"] == {"extra_args": {}, "callback": True, "disable": True, "gain": 2.0}
    assert given["ranged"] == (float(SIGMAS[-2]), float(SIGMAS[0]), 7, 2.0)


def test_a_users_function_gets_sigmas_where_x_is():
    def function(model, x, sigmas):
        assert sigmas.device == x.device and len(sigmas) == len(SIGMAS)
        return x

    x = torch.empty(2, 4, 8, 8, device="meta")
    assert run_sampler(find_sampler(function), denoiser, x, SIGMAS).device.type == "meta"


def test_an_observer_that_changes_something_has_the_evaluation_repeated():
    """At the level of the first: sigma_hat, where the callback tells of one."""
    levels, seen = [], []

    def function(model, x, sigmas, callback=None):
        for i, told in enumerate([{"sigma": sigmas[0]}, {"sigma": float(sigmas[1]), "sigma_hat": sigmas[1] * 2}]):
            denoised = model(x, sigmas[i].expand(len(x)))
            callback({"x": x, "i": i, "denoised": denoised, **told})
            seen.append(denoised.clone())
        return x

    class Observer:
        def begin_step(self, index, x, sigma):
            x.mul_(0.5)
            return True

    def model(x, sigma):
        levels.append(sigma.clone())
        return x * 1.0

    x = start()
    run_sampler(find_sampler(function), model, x.clone(), SIGMAS, observer=Observer())
    assert torch.equal(torch.stack(levels), (SIGMAS[[0, 0, 1, 1]] * torch.tensor([1, 1, 1, 2]))[:, None].expand(4, 2))
    assert torch.equal(seen[0], x / 2) and torch.equal(seen[1], x / 4)
    run_sampler(find_sampler(function), model, x.clone(), SIGMAS)  # with nobody to tell
    assert len(levels) == 6


@pytest.mark.parametrize(
    "returned, error, message",
    [
        ("x" * 99, TypeError, f"mine returned '{'x' * 59}: a sampler returns its final x, a tensor"),
        (torch.zeros(2, 4), ValueError, "mine returned the shape [2, 4]: its x has [2, 4, 6, 6]"),
    ],
)
def test_what_a_users_function_may_return(returned, error, message):
    def mine(model, x, sigmas):
        return returned

    with pytest.raises(error) as raised:
        sample(mine)
    assert str(raised.value) == message
