"""What the records of the samplers say, by their functions."""

import inspect

import pytest
import torch
from gaussian_data import SIGMAS, denoiser, generators, start

from samplers_patch import SAMPLERS, k_sampling, run_sampler


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
