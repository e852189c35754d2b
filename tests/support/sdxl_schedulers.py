"""diffusers' schedulers with SDXL's settings, and those of flow matching."""

import diffusers
import torch
from tiny_models import SDXL_SCHEDULE

FLOW_CONFIG = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
FLOW_SOLVERS = ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"]
FLOW_MATCH = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"]


def make(name: str, **config):
    return getattr(diffusers, name).from_config(SDXL_SCHEDULE | {"num_train_timesteps": 1000} | config)


def euler(**config) -> diffusers.EulerDiscreteScheduler:
    return diffusers.EulerDiscreteScheduler(**(SDXL_SCHEDULE | config))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
