"""Our functions against ComfyUI's own of the same name, where it is installed: on the same model, sigmas and noise."""

import importlib.util
from inspect import signature

import pytest
import torch

from k_diffusing.samplers import flow_time, lms

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("comfy") is None, reason="ComfyUI is not installed: put its folder on PYTHONPATH"
)
SHAPE = (2, 4, 8, 8)


def comfyui():
    from comfy import cli_args

    cli_args.args.cpu = True  # else it looks for a GPU while it is imported
    from comfy.k_diffusion import sampling

    return sampling


class Model:
    """What ComfyUI's functions ask of a model, flow matching's with FLUX's times, or one of x0 + sigma eps."""

    def __init__(self, flow: bool):
        from comfy import model_sampling

        kinds = (model_sampling.ModelSamplingFlux, model_sampling.CONST) if flow else ()
        kinds = kinds or (model_sampling.ModelSamplingDiscrete, model_sampling.EPS)
        self.model_sampling = type("ModelSampling", kinds, {})()
        self.inner_model = self.model_patcher = self

    def get_model_object(self, name):
        return getattr(self, name)

    def __call__(self, x, sigma, **extra_args):
        level = sigma.reshape(-1, 1, 1, 1)
        return torch.tanh(0.7 * x + 0.2 * x.roll(1, -1)) / (1 + 0.4 * level) + 0.1 * torch.sin(5 * level)


def recorded(asked):
    generator = torch.Generator().manual_seed(1)

    def noise_sampler(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.randn(SHAPE, generator=generator)

    return noise_sampler


def start():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def both(ours, theirs, flow, sigmas, **options):
    """The two results, and the times of noise that each asked for."""
    results = []
    for function in (ours, theirs):
        asked = []
        extra = {"noise_sampler": recorded(asked)} if "noise_sampler" in signature(function).parameters else {}
        x = function(Model(flow), start(), sigmas, extra_args={}, disable=True, **extra, **options)
        results += [x, asked]
    return results


FLOW_TIME = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("options", [{}, {"eta": 0.5, "s_noise": 0.9}, {"eta": 1.0, "s_noise": 0.0}])
@pytest.mark.parametrize("name", FLOW_TIME)
def test_flow_time(name, options, steps):
    ours, theirs = (getattr(module, f"sample_{name}") for module in (flow_time, comfyui()))
    for power in (1.0, 0.4):
        times = torch.linspace(1, 0, steps + 1) ** power
        x, asked, expected, expected_asked = both(ours, theirs, True, times, **options)
        assert asked == expected_asked  # to the last bit
        # float32, another order of operations: a few bits of the largest number met
        assert (x - expected).abs().max() < 2e-6 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_lms(steps):
    sigmas = torch.linspace(14.6, 0, steps + 1)
    x, _, expected, _ = both(lms.sample_lms, comfyui().sample_lms, False, sigmas)
    assert (x - expected).abs().max() < 1e-5
