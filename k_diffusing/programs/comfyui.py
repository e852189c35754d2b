"""ComfyUI, as its KSampler runs SDXL and FLUX; measured against version 0.29.0.

Noise levels are computed as there to the last bit: a Brownian tree rounds its times to six digits, so that a change of
1e-7 in a sigma can be other noise.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from k_diffusing.model.coordinates import FLOW_COORDINATES, noise_level
from k_diffusing.model.scheduler_config import noise_schedule, shifts_dynamically
from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule, LogSigmaSchedule
from k_diffusing.programs.comfyui_grids import NODES
from k_diffusing.programs.records import NOISE_OF_COMFYUI
from k_diffusing.programs.tables import alphas_cumprod_of, zero_terminal_snr
from k_diffusing.samplers import flow_time, flow_uni_pc
from k_diffusing.samplers.comfyui import is_comfyui_function
from k_diffusing.samplers.find import sampler_options
from k_diffusing.samplers.lms import sample_lms
from k_diffusing.samplers.records import SAMPLERS, Sampler

FLUX_MU = 1.15  # of FLUX, whatever the size of the picture
FLUX_LEVELS = 10_000
LARGEST_FRACTION = 1e-4  # of sampling that is done at the first time of functions that take log(1 - t)
ON_FLOW = {
    "euler_ancestral": flow_time.sample_euler_ancestral,
    "dpm_2_ancestral": flow_time.sample_dpm_2_ancestral,
    "dpmpp_2s_ancestral": flow_time.sample_dpmpp_2s_ancestral,
    "dpmpp_sde": flow_time.sample_dpmpp_sde,
    "dpmpp_2m_sde": flow_time.sample_dpmpp_2m_sde,
    "dpmpp_3m_sde": flow_time.sample_dpmpp_3m_sde,
    "dpmpp_2m_sde_heun": flow_time.sample_dpmpp_2m_sde,
    "uni_pc": flow_uni_pc.sample_uni_pc,
    "uni_pc_bh2": flow_uni_pc.sample_uni_pc_bh2,
}
# Of ours that ComfyUI has too, on flow models: those that it runs with the formulas for x0 + sigma eps on the times.
ON_TIMES = frozenset({
    "ddim", "heunpp2", "uni_pc", "uni_pc_bh2", "res_multistep", "res_multistep_ancestral", "deis", "ipndm", "ipndm_v",
    "gradient_estimation", "dpmpp_2m_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "res_multistep_cfg_pp",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp",
})  # fmt: skip
# Those that it runs in the half log-SNR, which is x0 + sigma eps in other words.
IN_LOG_SNR = frozenset({
    "lcm", "er_sde", "seeds_2", "seeds_3", "exp_heun_2_x0", "exp_heun_2_x0_sde", "sa_solver", "sa_solver_pece",
    "euler_cfg_pp", "euler_ancestral_cfg_pp",
})  # fmt: skip
# Of these the ones that begin at t = 1 itself; the time that stands for it is as near as float32 needs.
FROM_NOISE = frozenset({"lcm", "euler_cfg_pp", "euler_ancestral_cfg_pp"})
NEARLY_ONE = 1 - 1e-6


def discrete_schedule(scheduler) -> DiscreteSchedule | LogSigmaSchedule:
    """The noise schedule of an epsilon or v model, its table made in double precision and rounded once."""
    schedule = noise_schedule(scheduler)
    alphas_cumprod = None if isinstance(schedule, LogSigmaSchedule) else alphas_cumprod_of(scheduler.config)
    if alphas_cumprod is None:
        return schedule
    if scheduler.config.get("rescale_betas_zero_snr"):
        alphas_cumprod = zero_terminal_snr(alphas_cumprod)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    return DiscreteSchedule(sigmas.float(), logs=sigmas.log().float())


def flow_schedule(scheduler, size_mu: float | None, mu: float | None) -> FlowSchedule:
    """The flow times of FLUX: 10,000 of them, shifted by 1.15 whatever the size, or by the user's mu.

    A scheduler whose config shifts nothing is that of FLUX.1 [schnell], which has 1,000 unshifted ones. The size, for
    which diffusers has size_mu, does not matter.
    """
    still = not shifts_dynamically(scheduler) and scheduler.config.get("shift", 1.0) == 1.0
    if mu is None and still:
        steps = scheduler.config.num_train_timesteps
        return FlowSchedule(torch.arange(1, steps + 1, 1) / steps, shift=lambda t: t, train_steps=1.0)
    factor = math.exp(FLUX_MU if mu is None else mu)

    def shift(t):
        return factor / (factor + (1 / t - 1))

    return FlowSchedule(shift(torch.arange(1, FLUX_LEVELS + 1, 1) / FLUX_LEVELS), shift, train_steps=1.0)


def sampler(record: Sampler, flow: bool) -> Sampler:
    """What a sampler's name means to its KSampler; a user's function is run as it is, and what it does not have.

    On flow models k_diffusion's run on the latents. Some do it by formulas of their own, others by those for
    x0 + sigma eps, with the flow time as sigma.
    """
    if record.custom and record.takes == "sigma_range" and is_comfyui_function(record.function):
        return replace(record, last_step=False)
    if record.custom or record.name not in {*SAMPLERS, *ON_FLOW, *ON_TIMES}:
        return record
    if record.name == "lms":
        record = replace(record, function=sample_lms, derivative_only=False)
    if record.takes == "sigma_range":
        record = replace(record, last_step=False)
    if flow and record.name in ON_FLOW:
        record = replace(record, function=ON_FLOW[record.name], derivative_only=False, single_step=True)
    return replace(record, flow_coordinates="flow") if flow else record


def options(record: Sampler, schedule) -> dict[str, Any]:
    """The options that it gives to a sampler: the form that is published, and what stands for 1 in log(1 - t).

    A user's function gets none, whatever names its options have.
    """
    known, given = {} if record.custom else sampler_options(record), {}
    if "variant" in known:
        given["variant"] = "published"
    if "first_time" in known:
        given["first_time"] = schedule.sigma_at(LARGEST_FRACTION)
    if record.name == "dpmpp_2m_sde_heun" and "solver_type" in known:
        given["solver_type"] = "heun"
    if "tau_func" in known:
        given["tau_func"] = _noise_of_sa_solver(schedule)
    return given


def _noise_of_sa_solver(schedule) -> Callable[[float], float]:
    """All of the diffusion's where 0.2 to 0.8 of sampling are done, none elsewhere."""
    level = noise_level if isinstance(schedule, FlowSchedule) else float
    high, low = (level(schedule.sigma_at(fraction)) for fraction in (0.2, 0.8))
    return lambda sigma: float(high >= sigma >= low)


def flow_levels(record: Sampler, coordinates: str, times: torch.Tensor, schedule: FlowSchedule) -> torch.Tensor:
    """A flow model's grid: of x0 + sigma eps from the time that stands for 1, where it runs its own function so."""
    if coordinates != "ve" or record.name not in IN_LOG_SNR or times[0] < 1:
        return FLOW_COORDINATES[coordinates].sigmas(times)
    largest = NEARLY_ONE if record.name in FROM_NOISE else schedule.sigma_at(LARGEST_FRACTION)
    first = torch.tensor([largest], dtype=torch.float64)
    return noise_level(torch.cat([first, times[1:].double()])).float()


COMFYUI = replace(
    NOISE_OF_COMFYUI,
    quantize=True,
    noise_schedule=discrete_schedule,
    flow_schedule=flow_schedule,
    grids={**NODES, "laplace": NODES["LaplaceScheduler"]},
    whole_grids=frozenset({*NODES, "laplace"}),
    default_grid="simple",
    sampler=sampler,
    options=options,
    flow_levels=flow_levels,
    guides=lambda scale: not math.isclose(scale, 1.0),
    empty_negative="",
    hands_on_ve=True,
    prompt_tokens=256,
)
