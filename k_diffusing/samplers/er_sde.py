"""Extended reverse-time SDEs (ER-SDE): how much noise a step adds is a function phi(sigma) of one's own choice.

From sigma s to t, with q = phi(t) / phi(s) and D the denoised estimate, and D', D'' its derivatives at s:

    x_t = q x + (1 - q) D + A D' + B D'' + sqrt(t^2 - q^2 s^2) noise
    A = t - s + phi(t) * integral from t to s of dv / phi(v)
    B = (t - s)^2 / 2 + phi(t) * integral from t to s of (v - s) / phi(v) dv

phi(s) = s is the probability-flow ODE, phi(s) = s^2 the diffusion SDE.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator, levels_of

POINTS = 200  # of the published quadrature
NODES = 32  # of Gauss and Legendre's


class Coefficients(NamedTuple):
    """Of one step: q, A, B, and the standard deviation of the noise."""

    kept: float
    slope: float
    curvature: float
    noise: float


def default_noise_scaler(sigma: torch.Tensor) -> torch.Tensor:
    """The paper's phi for few steps, "ER SDE 4" of its table: sigma (exp(sigma^0.3) + 10)."""
    return sigma * ((sigma**0.3).exp() + 10)


@torch.no_grad()
def sample_er_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0, noise_sampler=None, noise_scaler=None,
    max_stage=3, variant=None,
):  # fmt: skip
    """ER-SDE solver, one evaluation a step; arguments as told in `exponential_multistep`, and these.

    noise_scaler: phi, of a tensor; None: `default_noise_scaler`. max_stage: 1 for D alone, 2 with D', 3 with D''.
    variant: "published" for the authors' code and ComfyUI's. It takes D' in the middle of the step before for D' at s,
    which keeps stage 3 at the order of stage 2, and for the integrals sums of 200 rectangles.
    """
    evaluate, levels, published = Evaluator(model, x, extra_args, callback), levels_of(sigmas), variant == "published"
    coefficients = _coefficients(levels, noise_scaler or default_noise_scaler, _sums if published else _integrals)
    noise_sampler, past, slopes = noise_sampler or k_sampling.default_noise_sampler(x), [], []
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = evaluate.begin(i, x, sigmas[i])
        past = [denoised, *past[:1]]
        if levels[i + 1] == 0:
            x = denoised
            continue
        step = coefficients[i]
        x = step.kept * x + (1 - step.kept) * denoised
        if max_stage > 1 and i > 0:
            slopes = [(past[0] - past[1]) / (levels[i] - levels[i - 1]), *slopes[:1]]
            x = x + step.slope * slopes[0]
        if max_stage > 2 and i > 1:
            curvature = (slopes[0] - slopes[1]) / ((levels[i] - levels[i - 2]) / 2)
            later = 0.0 if published else (levels[i] - levels[i - 1]) / 2
            x = x + (step.curvature + later * step.slope) * curvature
        if s_noise > 0 and step.noise > 0:
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * (s_noise * step.noise)
    return x


def _coefficients(levels: list[float], scaler: Callable, integrals: Callable) -> list[Coefficients]:
    """Of each step but one to 0."""
    steps = [(s, t) for s, t in zip(levels, levels[1:], strict=False) if t > 0]
    if not steps:
        return []
    scaled = scaler(torch.tensor(levels, dtype=torch.float64)).tolist()
    result = []
    for (s, t), phi_s, phi_t in zip(steps, scaled, scaled[1:], strict=False):
        kept, (first, second) = phi_t / phi_s, integrals(scaler, s, t)
        noise = math.sqrt(max(t**2 - (kept * s) ** 2, 0.0))
        result.append(Coefficients(kept, t - s + phi_t * first, (t - s) ** 2 / 2 + phi_t * second, noise))
    return result


def _integrals(scaler: Callable, s: float, t: float) -> tuple[float, float]:
    """Of 1 / phi and (v - s) / phi over v from t to s, by Gauss and Legendre's rule in log v."""
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(NODES))
    half = math.log(s / t) / 2
    v = t * (half * (nodes + 1)).exp()
    weights = half * weights * v / scaler(v)
    return float(weights.sum()), float((weights * (v - s)).sum())


def _sums(scaler: Callable, s: float, t: float) -> tuple[float, float]:
    """The same, by rectangles."""
    width = (s - t) / POINTS
    v = t + width * torch.arange(POINTS, dtype=torch.float64)
    weights = width / scaler(v)
    return float(weights.sum()), float((weights * (v - s)).sum())
