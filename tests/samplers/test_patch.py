"""What is bound anew of k_diffusion's functions, for one call alone."""

import functools
import importlib
import threading

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, sample, start

import samplers_patch
from samplers_patch import SAMPLERS, find_sampler, k_sampling, rebound, run_sampler

to_d = k_sampling.to_d  # a global that run_sampler binds anew


def keyword_only(model, x, sigmas, *, gain=3.0):
    return gain * to_d(x, sigmas[0], model(x, sigmas[:1].expand(len(x))))


def test_a_copy_with_other_globals_keeps_keyword_only_defaults():
    ours = lambda x, sigma, denoised: x - denoised  # noqa: E731
    expected = start() - denoiser(start(), SIGMAS[:1].expand(2))
    for options, gain in (({}, 3.0), ({"gain": 2.0}, 2.0)):
        sampler = find_sampler(keyword_only)
        result = run_sampler(sampler, denoiser, start(), SIGMAS, derivative=ours, options=options)
        assert torch.equal(result, gain * expected)


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


def test_one_module_object():
    assert k_sampling is importlib.import_module("k_diffusion.sampling")


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 3), (2, 4, 3, 3)])
def test_the_derivative_has_a_level_for_each_image_or_one_for_all(shape):
    x, denoised = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(shape)
    levels = torch.tensor([2.0, 8.0])
    each = samplers_patch.to_d(x, levels, denoised + 1)
    assert torch.equal(each, torch.stack([(x[0] - 1) / 2, (x[1] - 1) / 8]))
    assert torch.equal(samplers_patch.to_d(x, levels[1], denoised + 1), (x - 1) / 8)


def test_a_copy_sees_the_names_that_the_function_uses():
    """Its defaults, what it closes over and its name are the function's; gradients are off in it, as in k_diffusion."""
    factor = 5.0

    def function(value, plus=1.0):
        """Of the globals it uses to_d."""
        return to_d(value) * factor + plus, torch.is_grad_enabled()

    copy = rebound(function, {"to_d": lambda value: value + 2, "no_such_global": None})
    assert copy(1.0) == (16.0, False) and copy(1.0, plus=0.0) == (15.0, False)
    assert copy.__name__ == "function" and copy is not function
    wrapped = functools.wraps(function)(lambda *args: function(*args))
    assert rebound(wrapped, {"to_d": lambda value: value + 2})(1.0) == (16.0, False)


@pytest.mark.parametrize("function", [len, functools.partial(denoiser), denoiser])
def test_a_function_that_uses_none_of_the_names_is_left_as_it_is(function):
    assert rebound(function, {"to_d": None}) is function
    assert rebound(denoiser, {}) is denoiser
