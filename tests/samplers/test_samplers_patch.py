"""The records of the samplers, how they are found and checked, their noise, and the scope of what is patched."""

import inspect
import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from k_diffusing._k_diffusion import k_sampling
from k_diffusing._k_diffusion import k_sampling as grids_k_sampling
from samplers_patch import SAMPLERS, check_options, find_sampler, run_sampler, sampler_options, step_noise

to_d = k_sampling.to_d  # a global that run_sampler binds anew
SIGMAS = k_sampling.get_sigmas_karras(8, 0.03, 14.6)


def denoiser(x, sigma):
    """The exact denoiser of unit-variance Gaussian data."""
    return x / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2)


def start(images=2):
    return torch.randn(images, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * SIGMAS[0]


def sample(name, x=None, generator=None, **options):
    x = start() if x is None else x
    return run_sampler(find_sampler(name), denoiser, x, SIGMAS, generator=generator, options=options)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_all_sampling_functions_of_k_diffusion_are_there():
    functions = {name for name in vars(k_sampling) if name.startswith("sample_")}
    assert functions == {f"sample_{name}" for name in SAMPLERS}
    assert all(record.function is getattr(k_sampling, f"sample_{name}") for name, record in SAMPLERS.items())


@pytest.mark.parametrize("name", SAMPLERS)
def test_records_say_what_the_functions_do(name):
    record, calls, derivatives = SAMPLERS[name], [], []

    def counted(x, sigma):
        calls.append(1)
        return denoiser(x, sigma)

    def derivative(x, sigma, denoised):
        derivatives.append(1)
        return (x - denoised) / sigma

    runs = [
        run_sampler(record, counted, start(), SIGMAS, generator=generators(i, i + 1), derivative=derivative)
        for i in (0, 5)
    ]
    assert record.stochastic == (not torch.equal(*runs))
    if record.takes == "sigmas":  # the others divide (x - denoised) by sigma themselves
        assert record.derivative_only == (len(derivatives) == len(calls))
    takes = inspect.signature(record.function).parameters
    assert (record.takes == "sigmas") == ("sigmas" in takes)
    assert (record.noise == "churn") == ("s_churn" in takes)
    assert (record.noise in ("gaussian", "brownian")) == ("noise_sampler" in takes)
    if name == "dpm_fast":
        assert len(calls) == 2 * (len(SIGMAS) - 1)  # with the last denoising step, as many as the grid has steps
    elif not record.adaptive:
        assert len(calls) == 2 * (record.nfe_per_step * (len(SIGMAS) - 2) + 1)  # the step to 0 is Euler's


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


def keyword_only(model, x, sigmas, *, gain=3.0):
    return gain * to_d(x, sigmas[0], model(x, sigmas[:1].expand(len(x))))


def test_a_copy_with_other_globals_keeps_keyword_only_defaults():
    ours = lambda x, sigma, denoised: x - denoised  # noqa: E731
    expected = start() - denoiser(start(), SIGMAS[:1].expand(2))
    for options, gain in (({}, 3.0), ({"gain": 2.0}, 2.0)):
        sampler = find_sampler(keyword_only)
        result = run_sampler(sampler, denoiser, start(), SIGMAS, derivative=ours, options=options)
        assert torch.equal(result, gain * expected)


def test_names_with_and_without_prefix_records_and_functions():
    assert find_sampler("sample_heun") is find_sampler("heun") is SAMPLERS["heun"]
    assert find_sampler(k_sampling.sample_heun) is SAMPLERS["heun"]
    assert find_sampler(SAMPLERS["heun"]) is SAMPLERS["heun"]


def test_unknown_name_gets_the_nearest_and_all_choices():
    with pytest.raises(ValueError, match="'dpmpp2m'.*did you mean 'dpmpp_2m'") as error:
        find_sampler("dpmpp2m")
    assert all(name in str(error.value) for name in SAMPLERS)


def two_parameters(model, x):
    return x


def needs_more(model, x, sigmas, strength):
    return x


@pytest.mark.parametrize("function", [two_parameters, needs_more, 3, object()])
def test_callables_that_do_not_fit(function):
    with pytest.raises(TypeError, match=r"sampler\(model, x, sigmas"):
        find_sampler(function)


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


def test_dpm_adaptive_does_not_reject_for_ever():
    options = {"rtol": 0, "atol": 0}  # each allowed, and together such that no error is small enough
    check_options(SAMPLERS["dpm_adaptive"], options)
    with pytest.raises(RuntimeError, match=r"rejected 100 attempts in a row at its step from sigma 14.6.*raise.*rtol"):
        sample("dpm_adaptive", **options)


def test_to_d_is_bound_for_one_call_only(monkeypatch):
    """Whatever older scripts put into k_diffusion.sampling.to_d counts for nothing, and stays where it is."""
    replaced = lambda x, sigma, denoised: 1 / 0  # noqa: E731
    monkeypatch.setattr(k_sampling, "to_d", replaced)
    expected = start() + (start() - denoiser(start(), SIGMAS[:1].expand(2))) / SIGMAS[0] * (SIGMAS[1] - SIGMAS[0])
    result = run_sampler(SAMPLERS["euler"], denoiser, start(), SIGMAS[:2])
    assert torch.equal(result, expected)

    def failing(x, sigma):
        raise RuntimeError("network failed")

    with pytest.raises(RuntimeError, match="network failed"):
        run_sampler(SAMPLERS["euler"], failing, start(), SIGMAS, derivative=lambda x, sigma, denoised: denoised)
    assert k_sampling.to_d is replaced


def test_threads_do_not_see_each_others_bindings():
    """Two runs take turns, one network call each, with different derivatives and generators."""
    barrier, results = threading.Barrier(2, timeout=60), {}

    def run(name, derivative):
        def taking_turns(x, sigma):
            barrier.wait()
            return denoiser(x, sigma)

        results[name] = run_sampler(SAMPLERS["heun"], taking_turns, start(), SIGMAS, derivative=derivative)

    def zero(x, sigma, denoised):
        return torch.zeros_like(x)

    threads = [threading.Thread(target=run, args=args) for args in (("plain", k_sampling.to_d), ("zero", zero))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results["plain"], sample("heun"))
    assert torch.equal(results["zero"], start())


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


def test_one_module_object():
    assert grids_k_sampling is k_sampling
