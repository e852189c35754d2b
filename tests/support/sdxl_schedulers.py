"""diffusers' schedulers with SDXL's settings, those of flow matching, and what schedules they mean."""

import diffusers
import torch
from tiny_models import SDXL_SCHEDULE

from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule

SDXL = diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
SCHEDULES = {
    "sdxl": noise_schedule(SDXL),
    "edm": noise_schedule(diffusers.EDMEulerScheduler()),
    "flow": flow_schedule(FLOW),
}
FLOW_CONFIG = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SOLVERS = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"]
FLOW_MATCH = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"]


def make(name: str, **config):
    return getattr(diffusers, name).from_config(SDXL_SCHEDULE | {"num_train_timesteps": 1000} | config)


def euler(**config) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(**(SDXL_SCHEDULE | config))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
