"""Bridged schedulers: against diffusers' own loops, against exact answers, and as functions without side effects.

Tolerances are on the largest difference over the largest latent (`relative_difference`): the bridge translates to the
scheduler's form of the latents and back in each step, which rounds; float32 leaves 2e-6 over 20 steps.
"""

import copy
import functools
import inspect
import itertools
import threading

import diffusers
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from tiny_models import SDXL_SCHEDULE, flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.grids.choose import discrete_grid
from k_diffusing.model.preconditioning import PRECONDITIONINGS, edm_preconditioning
from k_diffusing.model.scheduler_classes import RUNNABLE, SCHEDULER_CLASSES
from k_diffusing.model.scheduler_config import noise_schedule, preconditioning
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl
from k_diffusing.oracle.mixture import wasserstein
from k_diffusing.schedulers.as_sampler import as_sampler
from samplers_patch import find_sampler, step_noise
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

ROUNDING = 1e-5
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
FLOW_NAMES = [
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "SASolverScheduler",
]
NOT_FLOW = [name for name in RUNNABLE if not SCHEDULER_CLASSES[name].flow]
CASES = [(name, False) for name in NOT_FLOW] + [(name, True) for name in FLOW_NAMES]
SDE = {"algorithm_type": "sde-dpmsolver++"}
# A fifth of SDXL's timesteps on its range of sigmas: to make a KDPM2 scheduler takes a millisecond for each.
SHORT = {"num_train_timesteps": 200, "beta_end": 0.06}
ADDS_NOISE = {
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "SASolverScheduler",
    "FlowMatchLCMScheduler",
}


def make(name: str, **config):
    """A scheduler with SDXL's noise schedule, as far as it has one; x0 of a size beyond 1 is not clipped."""
    known = inspect.signature(getattr(diffusers, name).__init__).parameters
    config = {"clip_sample": False, **SDXL_SCHEDULE, **config}
    return getattr(diffusers, name)(**{key: value for key, value in config.items() if key in known})


@functools.cache
def sampler_of(name: str, flow: bool):
    return as_sampler(make(name, **(FLOW if flow else {})))


def label(value) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={getattr(item, '__name__', item)}" for key, item in value.items()) or "default"
    if isinstance(value, bool):
        return "flow" if value else "ve"
    return str(value).removesuffix("Scheduler")


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return largest_difference(a, b) / float(b.abs().max())


# The row for what a network predicted.


@pytest.mark.parametrize("kind", [*PRECONDITIONINGS, "edm", "edm v_prediction"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_output_inverts_denoised(kind, sigma):
    """In float64, to its precision times the largest coefficient, 1 / sigma."""
    row = PRECONDITIONINGS.get(kind) or edm_preconditioning(kind.removeprefix("edm "), 0.5)
    x, output = torch.randn(2, 1, 4, 8, 8, generator=seeded(), dtype=torch.float64)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    assert largest_difference(row.output(x, row.denoised(x, output, sigma), sigma), output) < 1e-13


# The same as diffusers' loop: a network that is not told the time, so that only the solver counts.


def network(net_input: torch.Tensor) -> torch.Tensor:
    return 0.6 * net_input + 0.4 * torch.sin(3 * net_input.flip(-1))


def diffusers_loop(scheduler, noise: torch.Tensor, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x, generator = noise * scheduler.init_noise_sigma, seeded(5)
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t))
        x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
    return x


def bridged_loop(sampler, scheduler, grid, noise: torch.Tensor, callback=None) -> torch.Tensor:
    row = preconditioning(scheduler)

    def model(x, sigma):
        level = sigma.reshape(-1, 1, 1, 1)
        return row.denoised(x, network(row.network_input(x, level)), level)

    noise_sampler = step_noise(noise, grid.sigmas, seeded(5))
    if sampler.__name__ == "DPMSolverSDEScheduler":
        noise_sampler = own_tree(noise, grid)
    x = sampler(model, noise * grid.initial_scale, grid.sigmas, callback=callback, noise_sampler=noise_sampler)
    return x / (grid.sigmas[-1] ** 2 + 1) ** 0.5 if grid.scaled_latents else x


def own_tree(x: torch.Tensor, grid) -> BrownianTreeNoiseSampler:
    """The noise of DPMSolverSDE in diffusers' loop, where it draws from a tree of its own."""
    return BrownianTreeNoiseSampler(x, grid.sigmas[-2].item(), grid.sigmas[0].item(), seed=7)


CONFIGS = [
    *[(name, {}) for name in NOT_FLOW],
    *[(name, {"prediction_type": "v_prediction"}) for name in NOT_FLOW if not name.startswith("KDPM2")],
    *[(name, {"timestep_spacing": "trailing"}) for name in ("DDIMScheduler", "PNDMScheduler")],
    *[(name, {"prediction_type": "sample"}) for name in ("DDIMScheduler", "UniPCMultistepScheduler")],
    *[(name, {"use_karras_sigmas": True}) for name in ("HeunDiscreteScheduler", "UniPCMultistepScheduler")],
    ("KDPM2DiscreteScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    *[(f"DPMSolver{kind}stepScheduler", SDE | {"solver_order": 3}) for kind in ("Multi", "Single")],
    *[(f"DPMSolver{kind}stepScheduler", {"final_sigmas_type": "sigma_min"}) for kind in ("Multi", "Single")],
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ("DDIMScheduler", {"set_alpha_to_one": False}),
    ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    ("DDPMScheduler", {"variance_type": "fixed_small_log"}),
]


@pytest.mark.parametrize("name, config", CONFIGS, ids=label)
def test_equals_diffusers_loop(name, config):
    scheduler = make(name, **SHORT, **config, noise_sampler_seed=7)
    schedule, sampler = noise_schedule(scheduler), as_sampler(scheduler)
    noise = torch.randn(2, 4, 8, 8, generator=seeded())
    for steps in (6, 16):
        bridged = bridged_loop(sampler, scheduler, discrete_grid(scheduler, schedule, steps), noise)
        assert relative_difference(bridged, diffusers_loop(scheduler, noise, steps)) <= ROUNDING


BOUNDED = [
    (name, setting)
    for name in NOT_FLOW
    for setting in ("clip_sample", "thresholding")
    if setting in inspect.signature(getattr(diffusers, name).__init__).parameters
]


@pytest.mark.parametrize("name, setting", BOUNDED, ids=label)
def test_bounds_of_the_denoised_sample_equal_diffusers_loop(name, setting):
    """They belong to the scheduler's own step, which is the one that is run."""
    noise, results = torch.randn(2, 4, 8, 8, generator=seeded()), []
    for config in ({setting: True, "sample_max_value": 1.0}, {}):
        scheduler = make(name, **SHORT, **config)
        grid = discrete_grid(scheduler, noise_schedule(scheduler), 6)
        results.append(bridged_loop(as_sampler(scheduler), scheduler, grid, noise))
        assert relative_difference(results[-1], diffusers_loop(scheduler, noise, 6)) <= ROUNDING
    assert relative_difference(*results) > 0.1


# The same in the pipelines, with networks that are told the time.


@pytest.fixture(scope="module")
def sdxl():
    return tiny_sdxl(StableDiffusionXLPipeline)


@pytest.fixture(scope="module")
def flux():
    return tiny_flux(FluxPipeline)


def sdxl_latents(pipe, scheduler, comfy_sampler, steps=5, **call):
    pipe.scheduler = scheduler
    call = {"generator": seeded(), "num_inference_steps": steps, "output_type": "latent", **call}
    return pipe(**sdxl_prompt(), comfy_sampler=comfy_sampler, **call).images


def flux_latents(pipe, scheduler, comfy_sampler, steps=5, **call):
    pipe.scheduler = scheduler
    call = {"generator": seeded(), "num_inference_steps": steps, "output_type": "latent", **call}
    return pipe(**flux_prompt(), height=16, width=16, comfy_sampler=comfy_sampler, **call).images


@pytest.mark.parametrize("name", [scheduler.name for scheduler in KarrasDiffusionSchedulers], ids=label)
def test_sdxl_equals_diffusers_loop(sdxl, name):
    scheduler, options = make(name, **SHORT, noise_sampler_seed=7), None
    if name == "DPMSolverSDEScheduler":
        grid = discrete_grid(scheduler, noise_schedule(scheduler), 5)
        options = {"noise_sampler": own_tree(torch.zeros(1, 4, 8, 8), grid)}
    ours = sdxl_latents(sdxl, scheduler, as_sampler(scheduler), sampler_options=options)
    assert relative_difference(ours, sdxl_latents(sdxl, scheduler, None)) <= ROUNDING


WITH_BOUNDS = {
    "SDXL clip_sample": "DDIMScheduler",
    "SDXL thresholding": "UniPCMultistepScheduler",
    "FLUX thresholding": "DPMSolverMultistepScheduler",
}


@pytest.mark.parametrize("case", WITH_BOUNDS)
def test_a_sampler_that_leaves_bounds_out_says_so_once(case, warnings_of_bounds):
    """For each pipeline and setting; not where the scheduler itself runs, nor for a setting that its class has not."""
    (model, setting), name = case.split(), WITH_BOUNDS[case]
    make_pipe, pipeline_class, latents, flow = {
        "SDXL": (tiny_sdxl, StableDiffusionXLPipeline, sdxl_latents, {}),
        "FLUX": (tiny_flux, FluxPipeline, flux_latents, FLOW),
    }[model]
    bounded, plain = make(name, **flow, **{setting: True}), make(name, **flow)
    another = FlowMatchEulerDiscreteScheduler if flow else EulerDiscreteScheduler
    not_its_own = another.from_config(bounded.config)
    assert not_its_own.config[setting]
    pipe, other = make_pipe(pipeline_class), make_pipe(pipeline_class)
    for scheduler, sampler in ((plain, "euler"), (not_its_own, "euler"), (bounded, as_sampler(bounded))):
        latents(pipe, scheduler, sampler)
    assert warnings_of_bounds == []
    for sampler in ("euler", "euler", "dpmpp_2m"):
        latents(pipe, bounded, sampler)
    (message,) = warnings_of_bounds
    assert f"{setting}=True" in message and name in message and "as_sampler" in message
    latents(other, bounded, "euler")
    assert len(warnings_of_bounds) == 2


THIRD_ORDER = {"solver_order": 3}
STOPPED_EARLY = [
    *[(name, THIRD_ORDER) for name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")],
    *[(name, {}) for name in ("DDIMScheduler", "LMSDiscreteScheduler", "SASolverScheduler")],
]


@pytest.mark.parametrize("name, config", STOPPED_EARLY, ids=label)
def test_denoising_end_equals_diffusers(sdxl, name, config):
    """No solver lowers its order there, as it does where it ends."""
    scheduler, call = make(name, **config), {"steps": 10, "denoising_end": 0.5}
    theirs = sdxl_latents(sdxl, scheduler, None, **call)
    assert relative_difference(sdxl_latents(sdxl, scheduler, as_sampler(scheduler), **call), theirs) <= ROUNDING


def in_flux_loop(name: str, truncated: bool = False, **config):
    """A flow-matching scheduler such that diffusers' FLUX loop can be compared with the bridge.

    It takes the arguments of that loop, even if its class does not. Its timesteps are t * 1000, where classes with
    use_flow_sigmas truncate them to integers. And it ends at 0, or half-way down to it where a class repeats the last
    time instead (DEIS, SA-Solver) and so returns latents that are still noisy; as its last step is not one to 0 then,
    it has no reason to be of lower order.
    """
    cls = getattr(diffusers, name)
    accepted = inspect.signature(cls.set_timesteps).parameters

    class Scheduler(cls):
        def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
            given = {"sigmas": sigmas, "mu": mu, "num_inference_steps": num_inference_steps}
            if "sigmas" not in accepted:
                given["num_inference_steps"] = num_inference_steps or len(sigmas)
            given = {key: value for key, value in given.items() if key in accepted and value is not None}
            super().set_timesteps(device=device, **given)
            if self.sigmas[-1] == self.sigmas[-2]:
                self.sigmas[-1] /= 2
            if not truncated:
                self.timesteps = self.sigmas[: len(self.timesteps)] * 1000

    Scheduler.__name__ = name
    config["lower_order_final"] = name not in ("DEISMultistepScheduler", "SASolverScheduler")
    known = inspect.signature(cls.__init__).parameters
    return Scheduler(**{key: value for key, value in config.items() if key in known})


IN_FLUX = FLOW | {"use_dynamic_shifting": True}


def noise_of_torch(seed: int):
    """diffusers' FLUX loop passes no generator on, so its schedulers draw from torch's global one."""
    generator = seeded(seed)
    return {"noise_sampler": lambda sigma, sigma_next: torch.randn(1, 16, 16, generator=generator)}


def flux_difference(pipe, scheduler) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        theirs = flux_latents(pipe, scheduler, None)
    ours = flux_latents(pipe, scheduler, as_sampler(scheduler), sampler_options=noise_of_torch(11))
    return relative_difference(ours, theirs)


FLUX_CONFIGS = [(name, {}) for name in FLOW_NAMES] + [
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    ("DPMSolverMultistepScheduler", SDE),
    ("DPMSolverSinglestepScheduler", {}),
]


@pytest.mark.parametrize("name, config", FLUX_CONFIGS, ids=label)
def test_flux_equals_diffusers_loop(flux, name, config):
    assert flux_difference(flux, in_flux_loop(name, **(IN_FLUX | config))) <= ROUNDING


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
def test_truncated_timesteps_are_the_only_other_difference(flux, name):
    """As diffusers has them, integers: measured 6e-4 to 9e-4."""
    assert 1e-4 < flux_difference(flux, in_flux_loop(name, truncated=True, **IN_FLUX)) < 1e-2


# Another class than the pipeline's.


def test_unipc_on_the_karras_grid_of_the_pipeline(sdxl):
    """The grids agree but for rounding; diffusers tells the network integer timesteps there, as quantize=True does."""
    theirs = sdxl_latents(sdxl, make("UniPCMultistepScheduler", use_karras_sigmas=True), None, steps=8)
    sampler = as_sampler(make("UniPCMultistepScheduler"))
    call = {"scheduler": make("EulerDiscreteScheduler"), "comfy_sampler": sampler, "sigma_grid": "karras", "steps": 8}
    assert relative_difference(sdxl_latents(sdxl, quantize=True, **call), theirs) <= ROUNDING
    assert 1e-4 < relative_difference(sdxl_latents(sdxl, **call), theirs) < 1e-2


@pytest.mark.parametrize("config", [{}, {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}], ids=label)
def test_own_sigmas(sdxl, config):
    """The grid, with its timesteps, of the bridged scheduler; the pipeline's has only the model's noise schedule."""
    unipc, euler = make("UniPCMultistepScheduler", **config), make("EulerDiscreteScheduler")
    theirs = sdxl_latents(sdxl, unipc, None)
    assert relative_difference(sdxl_latents(sdxl, euler, as_sampler(unipc, own_sigmas=True)), theirs) <= ROUNDING
    assert relative_difference(sdxl_latents(sdxl, euler, as_sampler(unipc)), theirs) > 1e-2


def test_own_sigmas_on_flux(flux):
    unipc = in_flux_loop("UniPCMultistepScheduler", **IN_FLUX)
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    theirs = flux_latents(flux, unipc, None)
    assert relative_difference(flux_latents(flux, euler, as_sampler(unipc, own_sigmas=True)), theirs) <= ROUNDING
    assert relative_difference(flux_latents(flux, euler, as_sampler(unipc)), theirs) > 1e-2


# Against the exact distribution.

# Measured: 0.005 to 0.063, the largest for DDPM and Euler ancestral, which are one method; the floor, exact samples of
# this number, is 0.007. FlowMatchLCM is at 0.2: it is right for consistency models, not for a denoised mean.
BOUND = 0.09


@pytest.fixture(scope="module")
def oracles():
    return oracle_sdxl(), oracle_flux()


@pytest.mark.parametrize("name", NOT_FLOW, ids=label)
def test_distribution(oracles, name):
    """On SDXL, and on FLUX in variance-exploding coordinates."""
    on_sdxl, on_flux = oracles
    sampler = sampler_of(name, False)
    assert wasserstein(draw(on_sdxl, sampler, sigma_grid="karras")) <= BOUND
    assert wasserstein(draw(on_flux, sampler)) <= BOUND


@pytest.mark.parametrize("name", [name for name in FLOW_NAMES if "LCM" not in name], ids=label)
def test_distribution_by_flow_matching(oracles, name):
    assert wasserstein(draw(oracles[1], sampler_of(name, True))) <= BOUND


def test_dpmsolver_sde_needs_one_path(oracles):
    """Independent noise for the two overlapping parts of its steps would leave it at 0.104."""
    sampler = as_sampler(make("DPMSolverSDEScheduler"))
    assert wasserstein(draw(oracles[0], sampler, steps=10, sigma_grid="karras")) <= 0.05


# The grid, the callback, the noise, on a model whose path is a straight line.

CLEAN = torch.full((2, 3, 4), 0.4)
START = CLEAN + torch.randn(2, 3, 4, generator=seeded())
GRIDS = [
    [0.9, 0.0],
    [0.9, 0.3],
    [0.9, 0.5, 0.0],
    [0.9, 0.6, 0.3],
    [0.9, 0.7, 0.6, 0.2, 0.0],
    list(np.linspace(1, 0, 18)),
]


def straight(model_sigmas=None):
    """A model that denoises everything to CLEAN: x - CLEAN is proportional to sigma, in both coordinates."""

    def model(x, sigma):
        if model_sigmas is not None:
            model_sigmas.append(float(sigma[0]))
        return CLEAN.to(x.dtype).clone()

    return model


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{len(grid) - 1} to {grid[-1]}")
@pytest.mark.parametrize("name, flow", CASES, ids=label)
def test_the_grid_is_gone_down(name, flow, grid):
    """Every level of it in turn, from a grid of one step on, whether it ends at 0 or above, to the exact result."""
    grid, seen, infos = torch.tensor(grid, dtype=torch.float32), [], []

    def callback(info):
        infos.append((info["i"], float(info["sigma"]), float(info["sigma_hat"]), len(seen), info["x"].clone()))

    sampler = sampler_of(name, flow)
    x = sampler(straight(seen), START * 1, grid, callback=callback, noise_sampler=lambda *_: torch.zeros_like(START))
    assert [(i, sigma, sigma_hat) for i, sigma, sigma_hat, _, _ in infos] == [
        (i, float(sigma), float(sigma)) for i, sigma in enumerate(grid[:-1])
    ]
    reached = torch.tensor([seen[count - 1] for *_, count, _ in infos])
    assert torch.equal(reached[1:], grid[1:-1])
    assert float(reached[0]) == pytest.approx(float(grid[0]), abs=1.01e-4 if flow and grid[0] == 1 else 0.0, rel=0.0)
    lost = 1e-4 if name == "DEISMultistepScheduler" and grid[0] == 1 else 1e-5
    if grid[-1] == 0 or name not in ADDS_NOISE:
        assert largest_difference(x, CLEAN + (START - CLEAN) * grid[-1] / reached[0]) <= lost
    if name not in ADDS_NOISE:
        for (*_, before), sigma in zip(infos, reached, strict=True):
            assert largest_difference(before, CLEAN + (START - CLEAN) * sigma / reached[0]) <= lost


@pytest.mark.parametrize(
    "name", [name for name in NOT_FLOW if getattr(diffusers, name).order == 1 and name != "PNDMScheduler"]
)
def test_levels_reach_the_model_exactly(name):
    """To the last bit, so that the pipelines find the timestep that belongs to each; on sigmas from 1e-3 to 200."""
    grid, seen = torch.cat([torch.logspace(2.3, -3, 40), torch.zeros(1)]), []
    as_sampler(make(name))(straight(seen), START * 200, grid, noise_sampler=lambda *_: torch.zeros_like(START))
    assert torch.equal(torch.tensor(seen), grid[:-1])


@pytest.mark.parametrize("name", [name for name in FLOW_NAMES if name not in ADDS_NOISE], ids=label)
def test_flow_grids_finer_than_the_stand_in_for_one(name):
    """Whatever time it tells the model in the place of 1, the times fall."""
    grid, seen = torch.tensor([1.0, 0.99996, 0.99992, 0.5, 0.0]), []
    x = sampler_of(name, True)(straight(seen), START, grid)
    assert all(torch.tensor(seen).diff() <= 0) and grid[0] >= seen[0] > grid[1]
    assert largest_difference(x, CLEAN) <= 1e-6


NOT_FINITE_IN_DIFFUSERS = [
    ("UniPCMultistepScheduler", {"solver_type": "bh1"}),
    ("UniPCMultistepScheduler", {"lower_order_final": False}),
    ("UniPCMultistepScheduler", {"predict_x0": False}),
    ("SASolverScheduler", {"algorithm_type": "noise_prediction"}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}),
]


@pytest.mark.parametrize("name, config", NOT_FINITE_IN_DIFFUSERS, ids=label)
def test_to_zero_where_the_schedulers_formula_is_not_finite(name, config):
    grid = torch.tensor([9.0, 3.0, 1.0, 0.2, 0.0])
    assert largest_difference(as_sampler(make(name, **config))(straight(), START, grid), CLEAN) == 0.0


def no_noise(timestep):
    return 0


EXACT_FROM_ANY_STATE = [
    ("UniPCMultistepScheduler", {}),
    ("UniPCMultistepScheduler", FLOW | {"solver_order": 3}),
    ("SASolverScheduler", {"tau_func": no_noise}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("DPMSolverMultistepScheduler", FLOW),
    ("DDIMScheduler", {}),
    ("HeunDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", SHORT),
    ("FlowMatchHeunDiscreteScheduler", {}),
]


@pytest.mark.parametrize("name, config", EXACT_FROM_ANY_STATE, ids=label)
def test_latents_changed_in_place_are_gone_on_from(name, config):
    """Not corrected back by what a scheduler remembers: UniPC would by its corrector, and others likewise."""
    grid, sampler = torch.linspace(0.95, 0.1, 9), as_sampler(make(name, **config))

    def callback(info):
        if info["i"] == step:
            info["x"].mul_(-2).add_(1)
            replaced.append(info["x"].clone())

    for step, inference in itertools.product((0, 3, 4, 5), (False, True)):
        replaced = []
        with torch.inference_mode(inference):
            x = sampler(straight(), START * 1, grid, callback=callback)
        assert largest_difference(x, CLEAN + (replaced[0] - CLEAN) * grid[-1] / grid[step]) <= 1e-5


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_denoised_changed_in_place_is_used(name):
    grid, target = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.0]), torch.full_like(START, -0.7)
    sampler = as_sampler(make(name))
    x = sampler(straight(), START, grid, callback=lambda info: info["denoised"].copy_(target))
    assert largest_difference(x, target) <= 1e-6


def test_inference_mode_keeps_the_corrector():
    """With a callback that changes nothing."""
    noise, scheduler = torch.randn(2, 4, 8, 8, generator=seeded()), make("UniPCMultistepScheduler")
    grid = discrete_grid(scheduler, noise_schedule(scheduler), 8)
    with torch.inference_mode():
        x = bridged_loop(as_sampler(scheduler), scheduler, grid, noise, callback=lambda info: None)
    assert relative_difference(x, diffusers_loop(scheduler, noise, 8)) <= ROUNDING


def test_replaced_latents_in_a_pipeline(sdxl):
    """The result is that of the replacement, not of what was replaced: it forgets the seed."""

    def callback(pipe, i, t, kwargs):
        return {"latents": torch.ones_like(kwargs["latents"])} if i == 2 else {}

    scheduler = make("UniPCMultistepScheduler", solver_order=1)
    call = {"comfy_sampler": as_sampler(scheduler), "callback_on_step_end": callback}
    a, b = (sdxl_latents(sdxl, scheduler, generator=seeded(seed), **call) for seed in (1, 2))
    assert relative_difference(a, b) <= ROUNDING


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "PNDMScheduler", "DPMSolverSDEScheduler"])
def test_callbacks_of_a_pipeline_come_once_a_step(sdxl, name):
    steps = []

    def callback(pipe, i, t, kwargs):
        steps.append((i, float(t)))
        return {}

    scheduler = make(name)
    sdxl_latents(sdxl, scheduler, as_sampler(scheduler), callback_on_step_end=callback)
    assert [i for i, _ in steps] == list(range(5)) and len({t for _, t in steps}) == 5


NOISY = [*[(name, "FlowMatch" in name) for name in sorted(ADDS_NOISE)], ("SASolverScheduler", True)]


@pytest.mark.parametrize("name, flow", NOISY, ids=label)
def test_noise_is_asked_for_step_by_step(name, flow):
    """And not for the last step, to 0, where it would be multiplied by 0."""
    grid, asked = torch.tensor([0.9, 0.7, 0.6, 0.2, 0.0]), []

    def noise_sampler(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.ones_like(START)

    before = torch.get_rng_state()
    sampler_of(name, flow)(straight(), START, grid, noise_sampler=noise_sampler)
    assert torch.equal(torch.get_rng_state(), before)
    if name == "DPMSolverSDEScheduler":  # in two halves each
        assert all(a[1] == b[0] for a, b in zip(asked[::2], asked[1::2], strict=True))
        asked = [(a[0], b[1]) for a, b in zip(asked[::2], asked[1::2], strict=True)]
    expected = list(zip(grid[:-2], grid[1:-1], strict=True))
    assert torch.tensor(asked).allclose(torch.tensor(expected), rtol=1e-6)


def test_noise_is_torchs_by_default():
    """As k-diffusion's samplers have it."""
    sampler, grid = as_sampler(make("EulerAncestralDiscreteScheduler")), torch.tensor([5.0, 2.0, 0.5])
    results = []
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(sampler(straight(), START, grid))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


# No side effects.


def contents(scheduler) -> dict:
    def plain(value):
        return value.tolist() if isinstance(value, (torch.Tensor, np.ndarray)) else copy.deepcopy(value)

    return {name: plain(value) for name, value in vars(scheduler).items()}


@pytest.mark.parametrize("name, flow", [case for case in CASES if not case[0].startswith("KDPM2")], ids=label)
def test_nothing_else_is_touched(name, flow):
    """Not the user's scheduler, used before, nor the global generators; the same noise gives the same result."""
    scheduler = make(name, **(FLOW if flow else {}))
    scheduler.set_timesteps(7)
    before, generators = contents(scheduler), (torch.get_rng_state(), np.random.get_state()[1].tolist())
    sampler, grid = as_sampler(scheduler), torch.tensor([0.9, 0.7, 0.6, 0.2, 0.0])
    copied, start = contents(sampler.scheduler), START.clone()

    def run():
        return sampler(lambda x, sigma: x.tanh(), start, grid, noise_sampler=step_noise(start, grid, seeded()))

    assert torch.equal(run(), run()) and torch.equal(start, START)
    assert contents(scheduler) == before and contents(sampler.scheduler) == copied
    assert torch.equal(torch.get_rng_state(), generators[0]) and np.random.get_state()[1].tolist() == generators[1]


def test_after_an_error_it_can_be_used_again():
    sampler, grid = as_sampler(make("UniPCMultistepScheduler")), torch.tensor([5.0, 2.0, 1.0, 0.5, 0.0])

    def stop(info):
        if info["i"] == 2:
            raise InterruptedError

    expected = sampler(lambda x, sigma: x.tanh(), START, grid)
    with pytest.raises(InterruptedError):
        sampler(lambda x, sigma: x.tanh(), START, grid, callback=stop)
    assert torch.equal(sampler(lambda x, sigma: x.tanh(), START, grid), expected)


def test_two_threads_do_not_disturb_each_other():
    """Each waits for the other at every call of its model, with its own source of noise in a module they share."""
    grid, barrier = torch.linspace(5, 0, 12), threading.Barrier(2)
    samplers = [
        as_sampler(make("DPMSolverMultistepScheduler", **SDE)),
        as_sampler(make("DPMSolverMultistepScheduler", **SDE)),
    ]
    samplers += [as_sampler(make("EulerAncestralDiscreteScheduler")), as_sampler(make("DDPMScheduler"))]
    results = {}

    def run(index, wait):
        def model(x, sigma):
            if wait:
                barrier.wait(timeout=30)
            return x.tanh()

        noise_sampler = step_noise(START, grid, seeded(index))
        results[index, wait] = samplers[index](model, START, grid, noise_sampler=noise_sampler)

    for index in range(4):
        run(index, False)
    for pair in ((0, 1), (2, 3)):
        threads = [threading.Thread(target=run, args=(index, True)) for index in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(results[index, True], results[index, False]) for index in range(4))


def test_as_k_diffusion_calls_it():
    """extra_args reach the model, the dtype of x is kept, and the registry reads the name and the options."""
    sampler, seen = as_sampler(make("DPMSolverMultistepScheduler")), []
    x = sampler(
        lambda x, sigma, scale: seen.append(sigma.shape) or x.tanh() * scale,
        START.double(), torch.tensor([5.0, 1.0, 0.0]), {"scale": 0.0}, None, True,
    )  # fmt: skip
    assert x.dtype == torch.float64 and seen == [(2,), (2,)] and float(x.abs().max()) < 1e-6
    record = find_sampler(sampler)
    assert record.name == "DPMSolverMultistepScheduler" and record.custom and record.takes == "sigmas"
    assert record.flow_coordinates is None and record.grid_scheduler is None
    flow = find_sampler(as_sampler(make("UniPCMultistepScheduler", **FLOW), own_sigmas=True))
    assert flow.flow_coordinates == "flow" and type(flow.grid_scheduler) is diffusers.UniPCMultistepScheduler


# What cannot be bridged.

REFUSED = {
    "DDIMInverseScheduler": "from images to noise",
    "DPMSolverMultistepInverseScheduler": "from images to noise",
    "CMStochasticIterativeScheduler": "distilled",
    "LCMScheduler": "distilled",
    "TCDScheduler": "distilled",
    "DDPMWuerstchenScheduler": "not known",
    "RePaintScheduler": "not known",
    "UnCLIPScheduler": "not known",
    "IPNDMScheduler": "not known",
}


@pytest.mark.parametrize("name", REFUSED, ids=label)
def test_refused_classes(name):
    with pytest.raises(ValueError, match=f"{name} cannot be run as a sampler: .*{REFUSED[name]}.*UniPCMultistep"):
        as_sampler(getattr(diffusers, name)())


def test_refused_configs():
    with pytest.raises(ValueError, match="solver_p"):
        as_sampler(make("UniPCMultistepScheduler", solver_p=make("DDIMScheduler")))
    with pytest.raises(ValueError, match="scale_factors"):
        as_sampler(diffusers.FlowMatchLCMScheduler(scale_factors=[0.5, 1.0], upscale_mode="bicubic"))
    with pytest.raises(ValueError, match="variance_type"):
        as_sampler(make("DDPMScheduler", variance_type="learned_range"))
    with pytest.raises(ValueError, match="prediction_type 'score'.*epsilon"):
        as_sampler(make("EulerDiscreteScheduler", prediction_type="score"))


def test_subclasses_count_unless_they_step_differently():
    class Renamed(diffusers.DDIMScheduler):
        pass

    class Changed(diffusers.DDIMScheduler):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    assert as_sampler(Renamed()).__name__ == "Renamed"
    with pytest.raises(ValueError, match="Changed cannot"):
        as_sampler(Changed())


@pytest.mark.parametrize(
    "other, setting",
    [
        ("UniPCMultistepScheduler", {"predict_x0": True}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}),
        ("DDPMScheduler", {"variance_type": "learned_range"}),
    ],
    ids=label,
)
def test_settings_that_a_class_does_not_know_say_nothing_of_it(other, setting):
    """`from_config` keeps what was said to another class."""
    config = make(
        other, **setting, **({"final_sigmas_type": "sigma_min"} if "algorithm_type" in setting else {})
    ).config
    noise, results = torch.randn(1, 4, 8, 8, generator=seeded()), []
    for scheduler in (make("LMSDiscreteScheduler"), diffusers.LMSDiscreteScheduler.from_config(config)):
        grid = discrete_grid(make("LMSDiscreteScheduler"), noise_schedule(scheduler), 6)
        results.append(bridged_loop(as_sampler(scheduler), scheduler, grid, noise))
    assert set(setting) <= set(scheduler.config)
    assert largest_difference(*results) == 0.0


@pytest.mark.parametrize("what", ["euler", diffusers.UniPCMultistepScheduler, None, lambda model, x, sigmas: x])
def test_what_is_not_a_scheduler(what):
    with pytest.raises(TypeError, match="an instance of a diffusers scheduler.*comfy_sampler='euler'"):
        as_sampler(what)


BAD_GRIDS = [
    ([14.6, 1.0, 0.0], "14.6.*UniPC.*between 0 and 1.*flow_coordinates"),
    ([0.5], "no step"),
    ([0.5, 0.7], "decrease"),
]


@pytest.mark.parametrize("grid, message", BAD_GRIDS, ids=str)
def test_bad_grids_are_refused_before_the_model_runs(grid, message):
    seen = []
    with pytest.raises(ValueError, match=message):
        as_sampler(make("UniPCMultistepScheduler", **FLOW))(straight(seen), START, torch.tensor(grid))
    assert seen == []


def test_flow_schedulers_are_refused_where_sigma_is_not_a_time(sdxl, flux):
    sampler = as_sampler(make("UniPCMultistepScheduler", **FLOW))
    with pytest.raises(ValueError, match="from_config"):
        sdxl_latents(sdxl, make("EulerDiscreteScheduler"), sampler)
    with pytest.raises(ValueError, match="flow_coordinates='auto'"):
        flux_latents(flux, diffusers.FlowMatchEulerDiscreteScheduler(), sampler, flow_coordinates="ve")
