"""A denoiser of a few waves, and samplers run on it in float64: what two samplers have in common shows to 1e-12."""

import torch
from tiny_models import seeded

from samplers_patch import find_sampler, run_sampler

SIGMAS = torch.tensor([14.6, 6.0, 2.4, 1.1, 0.5, 0.2, 0.05, 0.0], dtype=torch.float64)
SAME = 1e-12  # of states up to 30 in float64: the same numbers added up in another order


def denoiser(x, sigma):
    sigma = sigma.reshape(-1, 1, 1, 1)
    return torch.tanh(x / (1 + sigma**2).sqrt()) + 0.3 * torch.sin((sigma + 1e-3).log()) * x.roll(1, -1).cos()


def start(scale: float = 14.6) -> torch.Tensor:
    return scale * torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)


def run(name, sigmas=SIGMAS, x=None, model=denoiser, **options):
    x = start(float(sigmas[0])) if x is None else x
    return run_sampler(find_sampler(name), model, x, sigmas, generator=seeded(1), options=options)
