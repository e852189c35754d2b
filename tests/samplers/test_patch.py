"""What is bound anew of k_diffusion's functions, for one call alone."""

import importlib
import threading

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, sample, start

import samplers_patch
from k_diffusing._k_diffusion import k_sampling
from samplers_patch import SAMPLERS, find_sampler, run_sampler

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
    assert samplers_patch.k_sampling is importlib.import_module("k_diffusion.sampling") is k_sampling
