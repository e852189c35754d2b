"""Our functions against ComfyUI's own of the same name, where it is installed: on the same model, sigmas and noise."""

import importlib.util
from inspect import signature

import pytest
import torch

from k_diffusing.samplers import flow_time, lms
from k_diffusing.samplers.comfyui import after_guidance
from k_diffusing.samplers.find import find_sampler

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

    def __call__(self, x, sigma, model_options=None):
        level = sigma.reshape(-1, 1, 1, 1)
        denoised = torch.tanh(0.7 * x + 0.2 * x.roll(1, -1)) / (1 + 0.4 * level) + 0.1 * torch.sin(5 * level)
        return after_guidance(model_options or {}, x, sigma, denoised, denoised, 0.3 * denoised.roll(1, -2))


def recorded(asked, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)

    def noise_sampler(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.randn(SHAPE, generator=generator).to(dtype)

    return noise_sampler


def start():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def both(ours, theirs, flow, sigmas, x=None, variant=None, **options):
    """The two results, and the times of noise that each asked for."""
    results, x = [], start() if x is None else x
    for function, more in ((ours, {"variant": variant} if variant else {}), (theirs, {})):
        asked = []
        extra = {"noise_sampler": recorded(asked, x.dtype)} if "noise_sampler" in signature(function).parameters else {}
        args = {"extra_args": {"model_options": {}}, "disable": True}
        result = function(Model(flow), x, sigmas, **args, **extra, **more, **options)
        results += [result, asked]
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


NOISY = [
    ("ddpm", {}),
    ("lcm", {"s_noise": 0.9, "s_noise_end": 0.4}),
    ("er_sde", {"variant": "published"}),
    ("er_sde", {"variant": "published", "max_stage": 2, "s_noise": 0.7}),
    ("seeds_2", {}),
    ("seeds_2", {"eta": 0.4, "s_noise": 0.8, "r": 0.3, "solver_type": "phi_2"}),
    ("seeds_3", {}),
    ("exp_heun_2_x0", {"solver_type": "phi_1"}),
    ("exp_heun_2_x0_sde", {}),
]


def ours_and_theirs(name):
    return find_sampler(name).function, getattr(comfyui(), f"sample_{name}")


CFG_PP = [
    ("euler_cfg_pp", {}),
    ("euler_ancestral_cfg_pp", {"eta": 0.7}),
    ("dpmpp_2m_cfg_pp", {"variant": "published"}),
    ("dpmpp_2s_ancestral_cfg_pp", {"variant": "published"}),
    ("res_multistep_cfg_pp", {"variant": "published"}),
    ("res_multistep_ancestral_cfg_pp", {"variant": "published", "eta": 0.6}),
    ("gradient_estimation_cfg_pp", {}),
]


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("name, options", [*NOISY, ("heunpp2", {}), *CFG_PP])
def test_on_noise_levels(name, options, steps):
    """In float64: in float32 theirs loses digits, 2 of 4 where an ancestral step goes down to a thousandth of sigma."""
    sigmas = torch.cat([torch.linspace(2.7, -3, steps).exp(), torch.zeros(1)]).double()
    x, asked, expected, expected_asked = both(
        *ours_and_theirs(name), False, sigmas, sigmas[0] * start().double(), **options
    )
    if "noise_sampler" in signature(find_sampler(name).function).parameters:  # else theirs may ask, and multiply by 0
        assert torch.allclose(torch.tensor(asked), torch.tensor(expected_asked), rtol=1e-6, atol=0)
    assert x.dtype == expected.dtype == torch.float64
    assert (x - expected).abs().max() < 1e-7  # theirs makes the points of er_sde in float32


@pytest.mark.parametrize("name, options", [case for case in NOISY if case[0] not in ("ddpm", "exp_heun_2_x0")])
def test_on_flow_models_theirs_is_ours_in_other_coordinates(name, options):
    """Ours on x0 + sigma eps with sigma = t / (1 - t), theirs on (1 - t) x0 + t eps."""
    times = torch.tensor([0.98, 0.93, 0.8, 0.5, 0.2, 0.05, 0.0])
    ours, theirs = ours_and_theirs(name)
    theirs_options = {key: value for key, value in options.items() if key != "variant"}
    expected = theirs(Model(True), start(), times, extra_args={}, noise_sampler=recorded([]), **theirs_options)

    def model(x, sigma):
        t = sigma / (1 + sigma)
        return Model(True)(x / (1 + sigma.reshape(-1, 1, 1, 1)), t)

    x = ours(model, start() / (1 - times[0]), times / (1 - times), noise_sampler=recorded([]), **options)
    # float32, states up to 200
    assert (x - expected).abs().max() < 2e-5
