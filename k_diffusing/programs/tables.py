"""The tables of noise levels that web UIs have in double precision, where diffusers has single."""

import numpy as np
import torch

LAST_ALPHA_CUMPROD = 4.8973451890853435e-08  # stands for zero terminal SNR: sigma about 4519


def alphas_cumprod_of(config) -> torch.Tensor | None:
    """[N], of a diffusers scheduler's config; None for betas of a kind that only diffusers has."""
    betas = _betas(config)
    return None if betas is None else torch.cumprod(1.0 - betas, dim=0)


def _betas(config) -> torch.Tensor | None:
    steps, kind = config.num_train_timesteps, config.get("beta_schedule")
    if config.get("trained_betas") is not None:
        return torch.as_tensor(np.asarray(config.trained_betas), dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(config.beta_start**0.5, config.beta_end**0.5, steps, dtype=torch.float64) ** 2
    if kind == "linear":
        return torch.linspace(config.beta_start, config.beta_end, steps, dtype=torch.float64)
    return None


def zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Lin et al. 2023 (arXiv 2305.08891, algorithm 1), less the infinite last sigma."""
    roots = alphas_cumprod.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    shifted = ((roots - last) * (first / (first - last))) ** 2
    shifted[-1] = LAST_ALPHA_CUMPROD
    return shifted
